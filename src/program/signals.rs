use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::command::sees_terminal;

/// What is asked of a running service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM, SIGINT, or the end of the terminal it was started in.
    Stop,
    /// SIGHUP: take the configuration anew.
    Reload,
}

/// The signals of a service that runs for long, for an event loop to poll.
#[derive(Debug)]
pub struct Signals {
    stop: UnixStream,
    hangup: UnixStream,
    /// Whether the end of the terminal ends the service: not under nohup(1), and not where there is none.
    ends_with_terminal: bool,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn watch() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let ends_with_terminal = sees_terminal() && !ignores(SIGHUP)?;
        Ok(Self { stop: heard(&[SIGTERM, SIGINT])?, hangup: heard(&[SIGHUP])?, ends_with_terminal })
    }

    /// The descriptors that become readable when there is a signal.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.stop.as_fd(), self.hangup.as_fd()]
    }

    /// What was asked since the last call; however many signals came, each kind counts once.
    ///
    /// # Errors
    /// When the descriptors cannot be read.
    pub fn asked(&mut self) -> std::io::Result<Option<Asked>> {
        if drained(&mut self.stop)? {
            return Ok(Some(Asked::Stop));
        }
        if !drained(&mut self.hangup)? {
            return Ok(None);
        }
        // A terminal that ends sends SIGHUP, too; kill(1) leaves it where it is.
        let is_over = self.ends_with_terminal && !sees_terminal();
        Ok(Some(if is_over { Asked::Stop } else { Asked::Reload }))
    }
}

/// A stream that becomes readable when one of the signals arrives.
fn heard(signals: &[i32]) -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    reader.set_nonblocking(true)?;
    Ok(reader)
}

/// Whether there was anything to read.
fn drained(stream: &mut UnixStream) -> std::io::Result<bool> {
    let mut found = false;
    loop {
        match stream.read(&mut [0; 256]) {
            Ok(0) => return Ok(found),
            Ok(_) => found = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(found),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether this process was started with a signal ignored (`SigIgn`, proc_pid_status(5)).
fn ignores(signal: i32) -> std::io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(mask >> (signal - 1) & 1 == 1)
}
