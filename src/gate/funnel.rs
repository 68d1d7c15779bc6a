//! The process that holds the funnel open.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Error;
use crate::log;

/// How much of what it says is kept for the reason of its end.
const KEPT: usize = 2048;

/// `setpriv --pdeathsig KILL tailscale funnel …`. The kernel kills it with the gate. Where the gate dies before the
/// child has asked for that, its pipes are closed when it reports that the funnel is open, and writing into a closed
/// pipe ends it too.
#[derive(Debug)]
pub(super) struct Funnel {
    child: Child,
    ended: OwnedFd,
    pipes: Vec<File>,
    said: Vec<u8>,
}

impl Funnel {
    /// Takes charge of a process that was just started.
    ///
    /// # Errors
    /// When the kernel gives no descriptor for it; it is killed then.
    pub fn attend(mut child: Child) -> std::io::Result<Self> {
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let prepare = || -> std::io::Result<_> {
            let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
            let pipes: Vec<File> = pipes.into_iter().flatten().map(File::from).collect();
            for pipe in &pipes {
                rustix::io::ioctl_fionbio(pipe, true)?;
            }
            Ok((ended, pipes))
        };
        match prepare() {
            Ok((ended, pipes)) => Ok(Self { child, ended, pipes, said: Vec::new() }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Becomes readable when the process has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// The pipes that are still open, to be drained.
    pub fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(AsFd::as_fd)
    }

    /// Takes what the process says, so that it never waits for a reader; true where there was something.
    pub fn drain(&mut self) -> bool {
        let said = &mut self.said;
        let mut heard = false;
        self.pipes.retain_mut(|pipe| {
            let mut buffer = [0; 1024];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => return false,
                    Ok(count) => {
                        heard = true;
                        let room = KEPT.saturating_sub(said.len());
                        said.extend_from_slice(&buffer[..count.min(room)]);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        log::warn!("funnel_output_lost", error = error.to_string());
                        return false;
                    }
                }
            }
        });
        heard
    }

    /// True when the process has ended and can be reaped.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn has_ended(&mut self) -> Result<bool, String> {
        let status = self.child.try_wait().map_err(|error| format!("the funnel's process is lost: {error}"))?;
        Ok(status.is_some())
    }

    /// Kills it; one that has ended is left as it is.
    pub fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            log::error!("funnel_not_killed", pid = self.child.id(), error = error.to_string());
        }
    }

    /// Why it ended, by what it had said: call this once it `has_ended`.
    pub fn reap(mut self) -> String {
        self.drain();
        let how = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => format!("its end is unknown: {error}"),
        };
        let said = log::printable(&self.said);
        match Error::from_output(&said) {
            Some(error) => error.to_string(),
            None if said.is_empty() => format!("tailscale funnel ended by itself: {how}"),
            None => format!("tailscale funnel ended by itself: {how}: {said}"),
        }
    }
}
