//! What the host gives: the root folder, the scripts, and which of its processes are the machine.
//! Nothing in here acts on a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The root that machines boot on, made when it is missing; or why there is none. Found out once a test process.
pub fn root() -> Result<&'static Path, &'static str> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let output = Command::new(here("make-root"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("tests/systemd/make-root does not start: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        }
        Err(said.lines().last().unwrap_or("tests/systemd/make-root failed in silence").to_owned())
    })
    .as_deref()
    .map_err(String::as_str)
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
