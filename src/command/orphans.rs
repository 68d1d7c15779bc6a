use std::fs::File;
use std::io::Write;
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
/// How long each is waited for when that time is over.
const LAST_MOMENT: Duration = Duration::from_millis(200);

static MARK: OnceLock<String> = OnceLock::new();
static SESSIONS: OnceLock<File> = OnceLock::new();

/// The mark that every child of this process gets from the first call on; unique.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn mark_children() -> std::io::Result<&'static str> {
    let mark = random::id()?;
    Ok(MARK.get_or_init(|| mark))
}

/// Notes the sessions of all children from now on in a file that was opened for appending, a number a line: that is for
/// the one who comes after a kill. The first file of a process is its file for good. This process's own session comes
/// first: without a terminal its children stay in it.
///
/// # Errors
/// When `/proc` gives no session, or the file cannot be written.
pub fn note_sessions(file: File) -> std::io::Result<()> {
    let own = session(Path::new("/proc/self")).ok_or_else(|| std::io::Error::other("/proc/self/stat is odd"))?;
    SESSIONS.get_or_init(|| file);
    note(own)
}

/// Notes a session; that of a child which got one has the child's number.
pub(super) fn note(session: u32) -> std::io::Result<()> {
    SESSIONS.get().map_or(Ok(()), |mut file| file.write_all(format!("{session}\n").as_bytes()))
}

/// The mark of this process's children, where they get one.
pub(super) fn mark() -> Option<&'static str> {
    MARK.get().map(String::as_str)
}

/// Kills what the children of a killed process left running and waits for its end; returns how many there were. One that hangs
/// in the kernel, in a file system that does not answer, is not waited for: it does nothing any more.
///
/// A child dies with its parent, but its own children do not, nor does one whose parent was killed while setpriv(1) was
/// still preparing it. `sessions` are those of the children; what has left them (a daemon that a command started) is not
/// touched.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn end_orphans(mark: &str, sessions: &[u32]) -> std::io::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    let mut ended = 0;
    let mut hanging = Vec::new();
    loop {
        let mut found = false;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            // Opened before it is looked at, so that the signal cannot reach another process with the same number.
            let Some((pid, Ok(process))) = pid.map(|pid| (pid, pidfd_open(pid, PidfdFlags::empty()))) else { continue };
            if hanging.contains(&pid)
                || !is_orphan(Path::new("/proc").join(&name).as_path(), mark, sessions)
                || pidfd_send_signal(&process, Signal::KILL).is_err()
            {
                continue;
            }
            found = true;
            ended += 1;
            // One that hung took the time of all; those after it get a moment each.
            let left = deadline.saturating_duration_since(Instant::now()).max(LAST_MOMENT);
            let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&wait)) == Ok(0) {
                crate::log::warn!("killed_process_hangs", pid = pid.as_raw_nonzero());
                hanging.push(pid);
            }
        }
        // What was found may have started something behind the reader's back.
        if !found {
            return Ok(ended);
        }
    }
}

/// True for a living process with the mark in its environment (proc_pid_environ(5)) in one of the sessions.
fn is_orphan(folder: &Path, mark: &str, sessions: &[u32]) -> bool {
    let Ok(environment) = std::fs::read(folder.join("environ")) else { return false };
    let expected = format!("{VARIABLE}={mark}");
    environment.split(|byte| *byte == 0).any(|entry| entry == expected.as_bytes())
        && session(folder).is_some_and(|session| sessions.contains(&session))
}

/// The session of a process, by its folder in /proc. Not getsid(2): for a session from outside the PID namespace
/// (`docker exec`, nsenter) it is 0, which rustix does not expect.
fn session(folder: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // proc_pid_stat(5): after the name in parentheses come state, parent, group and session.
    stat.rsplit(')').next()?.split_whitespace().nth(3)?.parse().ok()
}
