use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::random;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable by which a child, and what it starts, can be told from other processes.
pub(super) const VARIABLE: &str = "HUB_RUN";
/// How long killed processes are waited for; longer takes only one that hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

static MARK: OnceLock<String> = OnceLock::new();

/// The mark that every child of this process gets from the first call on: unique, and with the session in it.
///
/// # Errors
/// When the kernel gives no random bytes, or `/proc` no session.
pub fn mark_children() -> std::io::Result<&'static str> {
    // Not getsid(2): for a session from outside the PID namespace (`docker exec`, nsenter) it is 0, which rustix does not
    // expect.
    let session = session(Path::new("/proc/self")).ok_or_else(|| std::io::Error::other("/proc/self/stat is odd"))?;
    let mark = format!("{}.{session}", random::id()?);
    Ok(MARK.get_or_init(|| mark))
}

/// The mark of this process's children, where they get one.
pub(super) fn mark() -> Option<&'static str> {
    MARK.get().map(String::as_str)
}

/// Kills what the children of a killed process left running and waits for its end; returns how many there were.
///
/// A child dies with its parent, but its own children do not, nor does one whose parent was killed while setpriv(1) was
/// still preparing it. Processes that left the session (daemons that a command started) are not touched.
///
/// # Errors
/// When `/proc` cannot be read, or a process does not end.
pub fn end_orphans(mark: &str) -> std::io::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    let mut ended = 0;
    loop {
        let mut found = false;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            // Opened before it is looked at, so that the signal cannot reach another process with the same number.
            let Some((pid, Ok(process))) = pid.map(|pid| (pid, pidfd_open(pid, PidfdFlags::empty()))) else { continue };
            if !is_marked(Path::new("/proc").join(&name).as_path(), mark)
                || pidfd_send_signal(&process, Signal::KILL).is_err()
            {
                continue;
            }
            found = true;
            ended += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&wait)) == Ok(0) {
                let reason = format!("process {} of an earlier run was killed and does not end", pid.as_raw_nonzero());
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, reason));
            }
        }
        // What was found may have started something behind the reader's back.
        if !found {
            return Ok(ended);
        }
    }
}

/// True for a living process in the mark's session with the mark in its environment (proc_pid_environ(5)).
fn is_marked(folder: &Path, mark: &str) -> bool {
    let Ok(environment) = std::fs::read(folder.join("environ")) else { return false };
    let expected = format!("{VARIABLE}={mark}");
    if !environment.split(|byte| *byte == 0).any(|entry| entry == expected.as_bytes()) {
        return false;
    }
    session(folder).is_some_and(|session| mark.rsplit('.').next() == Some(&session))
}

/// The session of a process, by its folder in /proc.
fn session(folder: &Path) -> Option<String> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // proc_pid_stat(5): after the name in parentheses come state, parent, group and session.
    stat.rsplit(')').next()?.split_whitespace().nth(3).map(str::to_owned)
}
