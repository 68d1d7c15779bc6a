//! A host with one repository that gitops-sync keeps in sync.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Host, Origin, git};

pub const REPO: &str = "acme/infra";
/// The repository's file name in queue and state.
pub const FILE: &str = "acme__infra.json";

pub struct Site {
    pub host: Host,
    pub origin: Origin,
    pub checkout: PathBuf,
}

/// A command of the configuration: `sh -c SCRIPT`.
pub fn sh(key: &str, script: &str) -> String {
    format!("{key} = [\"/bin/sh\", \"-c\", '''{script}''']\n")
}

/// What a run of gitops-sync said.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub report: Value,
    pub log: String,
    pub took: Duration,
}

impl Ran {
    /// The run ended with this code, and its only repository has this status.
    #[track_caller]
    pub fn expect(self, code: i32, status: &str) -> Self {
        let seen = &self.report["repositories"][0]["status"];
        assert!(self.code == Some(code) && seen == status, "not {code} {status}: {self:#?}");
        self
    }

    /// The reason contains this text.
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(self.reason().contains(part), "no {part:?}: {self:#?}");
        self
    }

    pub fn reason(&self) -> &str {
        self.report["repositories"][0]["reason"].as_str().unwrap_or_default()
    }
}

impl Site {
    /// A site whose origin has one commit with `README` and `app/config`.
    pub fn new() -> Self {
        Self::with("", "")
    }

    /// As `new`, with more lines for `[gitops]` and for the repository.
    pub fn with(gitops: &str, repository: &str) -> Self {
        let site = Self::empty();
        site.configure(gitops, repository);
        site.origin.push(&[("README", "one\n"), ("app/config", "a=1\n")]);
        site
    }

    /// A site whose origin has no commit and that has no configuration.
    pub fn empty() -> Self {
        let host = Host::new();
        // Another user may have to fetch from the origin.
        std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        let origin = Origin::new(&host);
        let checkout = host.path("checkout");
        Self { host, origin, checkout }
    }

    pub fn configure(&self, gitops: &str, repository: &str) {
        self.configure_url(self.origin.url(), gitops, repository);
    }

    pub fn configure_url(&self, url: &str, gitops: &str, repository: &str) {
        let user = if repository.contains("user =") { String::new() } else { format!("user = \"{}\"\n", user_name()) };
        self.host.configure(&format!(
            "[gitops]\n{gitops}\n[[repository]]\nname = \"{REPO}\"\nurl = \"{url}\"\npath = \"{}\"\n{user}{repository}\n",
            self.checkout.display()
        ));
    }

    /// Runs gitops-sync with `--json` and these arguments.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.host.command("gitops-sync");
        command.arg("--json").args(arguments);
        ran(command)
    }

    /// A manual run of the repository.
    #[track_caller]
    pub fn sync(&self) -> Ran {
        self.run(&[REPO])
    }

    /// A run as path unit and timer start it.
    #[track_caller]
    pub fn queued(&self) -> Ran {
        self.run(&[])
    }

    /// Queues a request as the proxy does.
    pub fn request(&self, repository: &str) {
        let queue = self.queue();
        let name = repository.replace('/', "__") + ".json";
        let body =
            serde_json::json!({"repository": repository, "since": "2026-01-01T00:00:00.000Z", "deliveries": ["d-1"]});
        std::fs::write(queue.join(".unfinished"), body.to_string()).unwrap();
        std::fs::rename(queue.join(".unfinished"), queue.join(name)).unwrap();
    }

    pub fn queue(&self) -> PathBuf {
        let queue = self.host.state().join("proxy/queue");
        std::fs::create_dir_all(&queue).unwrap();
        queue
    }

    /// A path in gitops-sync's state folder.
    pub fn state(&self, name: &str) -> PathBuf {
        self.host.state().join("gitops").join(name)
    }

    /// The commit that is checked out.
    pub fn head(&self) -> String {
        git(&self.checkout, &["rev-parse", "HEAD"])
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.checkout.join(name)).unwrap()
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.checkout.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Pushes whatever is checked out in the origin's working clone.
    pub fn push(&self) -> String {
        git(&self.origin.work, &["push", "--quiet", "origin", "HEAD:main"]);
        git(&self.origin.work, &["rev-parse", "HEAD"])
    }

    /// The checkout has exactly the commit's files, a clean index, and no lock.
    #[track_caller]
    pub fn assert_exactly(&self, commit: &str) {
        assert_eq!(self.head(), commit);
        let fresh = tempfile::tempdir().unwrap();
        // What git itself writes for the commit, from the origin and past every cache.
        let written = Command::new("git")
            .args(["read-tree", "--reset", "-u", commit])
            .env("GIT_DIR", &self.origin.bare)
            .env("GIT_WORK_TREE", fresh.path())
            .env("GIT_INDEX_FILE", fresh.path().join(".git"))
            .status()
            .unwrap();
        assert!(written.success());
        assert_eq!(tracked(&self.checkout), files(fresh.path()));
        assert_eq!(git(&self.checkout, &["status", "--porcelain", "--untracked-files=no"]), "");
        self.assert_settled();
    }

    /// No lock in the checkout, no journal, no claimed request.
    #[track_caller]
    pub fn assert_settled(&self) {
        assert_eq!(locks(&self.checkout.join(".git")), [] as [PathBuf; 0]);
        for folder in ["journal", "active"] {
            // What begins with a dot was left by a killed writer and is never read.
            let names: Vec<String> =
                names(&self.state(folder)).into_iter().filter(|name| !name.starts_with('.')).collect();
            assert_eq!(names, [] as [String; 0], "{folder}");
        }
    }
}

#[track_caller]
pub fn ran(mut command: Command) -> Ran {
    let started = Instant::now();
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ran { code: output.status.code(), report, log, took: started.elapsed() }
}

/// The names in a folder, sorted; none where it is missing.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// All lock files of a git folder.
pub fn locks(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(locks(&path));
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            found.push(path);
        }
    }
    found
}

/// Every file below a folder but `.git`: executable bit, and content or link target.
pub fn files(folder: &Path) -> BTreeMap<OsString, (bool, Vec<u8>)> {
    fn add(folder: &Path, base: &Path, all: &mut BTreeMap<OsString, (bool, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if entry.file_name() == ".git" {
            } else if kind.is_dir() {
                add(&path, base, all);
            } else {
                let value = if kind.is_symlink() {
                    let target = std::fs::read_link(&path).unwrap();
                    (false, [b"-> ".to_vec(), target.into_os_string().into_vec()].concat())
                } else {
                    (entry.metadata().unwrap().mode() & 0o100 != 0, std::fs::read(&path).unwrap())
                };
                all.insert(path.strip_prefix(base).unwrap().as_os_str().to_owned(), value);
            }
        }
    }
    let mut all = BTreeMap::new();
    add(folder, folder, &mut all);
    all
}

/// As `files`, for those that git tracks.
pub fn tracked(folder: &Path) -> BTreeMap<OsString, (bool, Vec<u8>)> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(folder).output().unwrap();
    let known: std::collections::HashSet<_> =
        output.stdout.split(|b| *b == 0).map(|name| OsString::from_vec(name.to_vec())).collect();
    files(folder).into_iter().filter(|(name, _)| known.contains(name)).collect()
}

pub fn user_name() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says loudly that a test could not be done here; a failure where everything is required.
pub fn skip(test: &str, needs: &str) {
    super::skip::skip(test, &format!("it needs {needs}"));
}

/// True for a process that exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
