//! What a child says: its pipes while it runs, and what is kept of them at its end.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Error;

/// How much of a child's standard error is kept: the end, where the reason stands.
pub(super) const STDERR_KEPT: usize = 8 * 1024;
/// How many times a pipe is read before its reader looks at the clock again.
const READS_IN_A_ROW: usize = 16;

/// What a child that ended left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// The end of what it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Turns anything but exit code 0 into `Error::Failed`; `command` names it.
    ///
    /// # Errors
    /// `Failed`, with the end of standard error, or of standard output where that is empty.
    pub fn require_success(self, command: &str) -> Result<Self, Error> {
        if self.status.success() {
            return Ok(self);
        }
        Err(Error::Failed {
            command: command.to_owned(),
            code: self.status.code(),
            signal: self.status.signal(),
            output: said(&self.stdout, &self.stderr),
        })
    }

    /// Standard output as text without the white space around it; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

fn said(stdout: &[u8], stderr: &[u8]) -> String {
    let text = crate::log::printable(if stderr.is_empty() { stdout } else { stderr });
    let start = text.len().saturating_sub(1000);
    text[text.ceil_char_boundary(start)..].to_owned()
}

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
}

impl Streams {
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let pipes = [&self.stdout.pipe, &self.stderr.pipe].into_iter();
        pipes.filter_map(|pipe| pipe.as_ref().map(|file| PollFd::new(file, PollFlags::IN)))
    }

    pub(super) fn read_available(&mut self) -> std::io::Result<()> {
        self.stdout.read_available()?;
        self.stderr.read_available()
    }

    pub(super) fn read_rest(&mut self, deadline: Instant) -> std::io::Result<()> {
        loop {
            self.read_available()?;
            let mut waited: Vec<_> = self.poll_fds().collect();
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(()) };
            if waited.is_empty() || poll(&mut waited, Some(&timespec(left))) == Ok(0) {
                return Ok(());
            }
        }
    }

    pub(super) fn said(&self) -> String {
        said(&self.stdout.kept, &self.stderr.kept)
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) pipe: Option<File>,
    pub(super) kept: Vec<u8>,
    limit: usize,
    tail: bool,
    pub(super) overflowed: bool,
}

impl Stream {
    pub(super) fn new(pipe: Option<OwnedFd>, limit: usize, tail: bool) -> std::io::Result<Self> {
        let pipe = pipe.map(File::from);
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self { pipe, kept: Vec::new(), limit, tail, overflowed: false })
    }

    fn read_available(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        // Not for ever: a child that writes as fast as this reads must not keep the caller from its deadline.
        for _ in 0..READS_IN_A_ROW {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    self.kept.extend_from_slice(&buffer[..count]);
                    if self.kept.len() > self.limit {
                        self.overflowed = true;
                        let excess = self.kept.len() - self.limit;
                        if self.tail {
                            self.kept.drain(..excess);
                        } else {
                            return Ok(());
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
