use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// How a process ended, in words.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// True for a process that is there and does not only wait to be reaped; also where it cannot be looked at.
pub fn is_alive(pid: u32) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    if test_kill_process(process) == Err(Errno::SRCH) {
        return false;
    }
    // One that is dead takes signals, too (proc_pid_stat(5)). The name before its state may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The name of a process, of which the kernel keeps 15 bytes; none where it cannot be looked at.
pub fn name_of(pid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

/// Whether a process is called by a name, as far as the kernel keeps it; none where it cannot be looked at.
pub fn is_called(pid: u32, name: &str) -> Option<bool> {
    Some(name_of(pid)? == name[..name.len().min(15)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_child_that_nobody_reaped_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while is_alive(child.id()) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(test_kill_process(Pid::from_child(&child)).is_ok(), "it still takes signals");
        child.wait().unwrap();
        assert!(!is_alive(child.id()) && !is_alive(0) && !is_alive(u32::MAX));
        assert!(is_alive(std::process::id()) && is_alive(1));
    }

    #[test]
    fn a_long_name_is_known_by_its_first_fifteen_bytes() {
        let program = std::env::current_exe().unwrap();
        let name = program.file_name().unwrap().to_str().unwrap();
        assert!(name.len() > 15);
        let called = |name| is_called(std::process::id(), name);
        assert_eq!((called(name), called("observability"), called("hub")), (Some(true), Some(false), Some(false)));
        assert_eq!((name_of(u32::MAX), is_called(u32::MAX, "hub")), (None, None));
    }
}
