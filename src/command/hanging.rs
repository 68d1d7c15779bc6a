//! Processes of earlier runs that were killed and hang in the kernel. Each look at a file system that takes questions and
//! answers none leaves one more, and a unit may have so many tasks only.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// More is never read of what the kernel says of a process: a user can be in many groups.
const LONGEST: u64 = 1 << 20;

/// A process that is killed once a file system answers it.
#[derive(Debug, PartialEq, Eq)]
pub struct Hanging {
    /// The folder that it is in.
    pub folder: PathBuf,
    /// Its program and arguments, each ended by a NUL.
    pub command: Vec<u8>,
}

/// Those in this process's control group (cgroups(7)), or anywhere where that cannot be told, when this is asked for the first
/// time.
pub fn hanging() -> &'static [Hanging] {
    static FOUND: OnceLock<Vec<Hanging>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let file = Path::new("/sys/fs/cgroup").join(group).join("cgroup.procs");
        if let Ok(processes) = std::fs::read_to_string(file) {
            return processes.lines().filter_map(|pid| look(&Path::new("/proc").join(pid))).collect();
        }
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| look(&entry.path())).collect()
    })
}

fn look(process: &Path) -> Option<Hanging> {
    // Many are looked at, and with room for all of it one call reads it. Nobody is asked for any of it.
    let mut status = Vec::with_capacity(4096);
    File::open(process.join("status")).ok()?.take(LONGEST).read_to_end(&mut status).ok()?;
    let read = || Some((std::fs::read_link(process.join("cwd")).ok()?, std::fs::read(process.join("cmdline")).ok()?));
    let is_killed = is_killed(&String::from_utf8_lossy(&status));
    is_killed.then(read).flatten().map(|(folder, command)| Hanging { folder, command })
}

/// True for a process that was killed and waits in the kernel (proc_pid_status(5)).
fn is_killed(status: &str) -> bool {
    const SIGKILL: u64 = 1 << 8;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let pending = |name: &str| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let killed = (pending("SigPnd:") | pending("ShdPnd:")) & SIGKILL != 0;
    killed && field("State:").is_some_and(|state| state.starts_with('D'))
}

#[cfg(test)]
mod tests {
    use super::is_killed;

    #[test]
    fn only_what_was_killed_and_lives_hangs() {
        let status = "Name:\tgit\nState:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n";
        assert!(is_killed(status));
        let running = status.replace("State:\tD", "State:\tR");
        for other in [running, status.replace("0100\n", "4000\n"), String::new()] {
            assert!(!is_killed(&other), "{other}");
        }
    }
}
