//! What the host gives: the root folder and the package on it, the scripts, and which of its processes are the machine.
//! Nothing in here acts on a machine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What machines boot on.
pub struct Base {
    /// A Debian root.
    pub root: PathBuf,
    /// The package, built from this build's binaries.
    pub package: PathBuf,
    /// What installing the package changed in the root.
    layer: PathBuf,
}

impl Base {
    /// The folders of a machine's disk, as overlayfs wants them.
    pub fn layers(&self, with_package: bool) -> OsString {
        let folders: &[&Path] = if with_package { &[&self.layer, &self.root] } else { &[&self.root] };
        folders.iter().map(|folder| folder.as_os_str()).collect::<Vec<_>>().join(OsStr::new(":"))
    }
}

/// What machines of the calling test boot on, made when it is missing; or why there is none. Found out once a test process.
pub fn base() -> Result<&'static Base, &'static str> {
    static BASES: [OnceLock<Result<Base, String>>; SUITES.len()] = [const { OnceLock::new() }; SUITES.len()];
    let wanted = std::env::var("HUB_TEST_SUITE").unwrap_or_default();
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let suite = suite_of(&wanted, &test)?;
    BASES[suite]
        .get_or_init(|| {
            let [root] = printed_by(&here("make-root"), &[Path::new(SUITES[suite])])?;
            let binaries = Path::new(env!("CARGO_BIN_EXE_hub")).parent().unwrap_or(Path::new("/"));
            crate::support::example::example("manual");
            let [package, layer] = printed_by(&here("make-package"), &[&root, binaries])?;
            Ok(Base { root, package, layer })
        })
        .as_ref()
        .map_err(String::as_str)
}

/// Debian 12 with systemd 252, and Debian 13 with systemd 257.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// Which of [`SUITES`] a test boots: `wanted` names one, or which third of all tests boots the second one.
fn suite_of(wanted: &str, test: &str) -> Result<usize, &'static str> {
    let third = test.bytes().map(u32::from).sum::<u32>() % 3;
    match wanted {
        "" | "bookworm" => Ok(0),
        "trixie" => Ok(1),
        "third-0" => Ok(usize::from(third == 0)),
        "third-1" => Ok(usize::from(third == 1)),
        "third-2" => Ok(usize::from(third == 2)),
        _ => Err("HUB_TEST_SUITE is none of bookworm, trixie, third-0, third-1 and third-2"),
    }
}

#[test]
fn each_test_boots_debian_13_in_one_of_three_rotations() {
    for test in ["boot::files_come_and_go", "sandbox::a", "upgrade::b", "x"] {
        let booted = ["third-0", "third-1", "third-2"].map(|wanted| suite_of(wanted, test).unwrap());
        assert_eq!(booted.iter().sum::<usize>(), 1, "{test}: {booted:?}");
    }
    assert!(suite_of("sid", "x").is_err());
}

/// Runs a script that prints paths, or says on the last line of its stderr why it cannot.
fn printed_by<const COUNT: usize>(script: &Path, arguments: &[&Path]) -> Result<[PathBuf; COUNT], String> {
    let output = Command::new(script)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start: {error}", script.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(said.lines().last().unwrap_or("a script failed in silence").to_owned());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let paths: Vec<PathBuf> = printed.lines().map(PathBuf::from).collect();
    paths.try_into().map_err(|_| format!("{} printed something else: {printed}", script.display()))
}

pub fn here(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd").join(script)
}

/// All children, grandchildren and so on of a process of this host. Processes that end meanwhile are left out.
pub fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// Whether a process is PID 1 of the container: of a PID namespace two levels below ours (`supervise` makes the first),
/// and already systemd, since before that it has the host's files before its eyes.
pub fn is_container_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().count() == 3 && numbers.ends_with("\t1") && is_systemd(pid)
}

pub fn is_systemd(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "systemd")
}
