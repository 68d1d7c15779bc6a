//! How a child is ended.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use super::guests::Guest;
use super::output::timespec;

/// How long a killed child is waited for.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// The other command at work; ended when dropped.
#[derive(Debug)]
pub(super) struct Serving {
    pub child: Child,
    pub name: String,
    pub _guest: Option<Guest>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Err(error) = end_child(&mut self.child) {
            crate::log::warn!("child_not_ended", command = self.name, error = error.to_string());
        }
    }
}

/// Takes the status of a child that was killed. One that hangs in the kernel, in a file system that does not answer, is left
/// to itself: none.
pub(super) fn reap(child: &mut Child, ended: &OwnedFd) -> std::io::Result<Option<ExitStatus>> {
    let until = Instant::now() + LAST_MOMENTS;
    loop {
        let left = timespec(until.saturating_duration_since(Instant::now()));
        match poll(&mut [PollFd::new(ended, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills a child with its group, if it has not ended, and takes its status.
///
/// # Errors
/// When the child does not end, which says what it hangs in.
pub(super) fn end_child(child: &mut Child) -> std::io::Result<ExitStatus> {
    let group = Pid::from_child(child);
    let ended = pidfd_open(group, PidfdFlags::empty())?;
    end_session(group)?;
    reap(child, &ended)?.ok_or_else(hangs)
}

pub(super) fn hangs() -> std::io::Error {
    std::io::Error::new(ErrorKind::TimedOut, "it was killed and hangs in a file system that does not answer")
}

/// Kills a child that was not waited for yet, so that its number cannot have been given to another process, and what is in
/// its group. Without the group the child itself: before setsid(1) has done its work there is none.
pub(super) fn end_session(child: Pid) -> std::io::Result<()> {
    match kill_process_group(child, Signal::KILL) {
        Ok(()) => return Ok(()),
        Err(Errno::SRCH | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match kill_process(child, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
