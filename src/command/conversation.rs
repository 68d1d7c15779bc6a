use std::fs::File;
use std::io::Write;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::end::end_child;
use super::guests::Guest;
use super::output::{STDERR_KEPT, Stream, Streams, timespec};
use super::{Error, Output};

/// How long a child that closed its output may take to end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A child that answers on its standard output what it is asked on its standard input, for as long as this is held;
/// then its process group is killed.
#[derive(Debug)]
pub struct Conversation {
    child: Child,
    input: File,
    streams: Streams,
    name: String,
    /// How long the child may take for one answer.
    limit: Duration,
    deadline: Instant,
    /// How it ended.
    status: Option<ExitStatus>,
    /// Goes last: nothing of the child is left then.
    _guest: Option<Guest>,
}

impl Conversation {
    pub(super) fn new(
        mut child: Child,
        guest: Option<Guest>,
        input: File,
        name: String,
        limit: Duration,
    ) -> Result<Self, Error> {
        let streams = (|| {
            Ok(Streams {
                stdout: Stream::new(child.stdout.take().map(Into::into), usize::MAX, false)?,
                stderr: Stream::new(child.stderr.take().map(Into::into), STDERR_KEPT, true)?,
            })
        })();
        let streams = streams.map_err(|source| Error::Pipe { program: name.clone(), source })?;
        Ok(Self { child, input, streams, name, limit, deadline: Instant::now(), status: None, _guest: guest })
    }

    /// Asks for something, in one line. The answer before must have been read to its end.
    ///
    /// # Errors
    /// When the child has ended; the reason is what it said last. When it is more than one line, which would get more than
    /// one answer.
    pub fn ask(&mut self, line: &str) -> Result<(), Error> {
        if line.contains('\n') {
            return Err(self.lost(std::io::ErrorKind::InvalidInput.into()));
        }
        self.deadline = Instant::now() + self.limit;
        match self.input.write_all(format!("{line}\n").as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(self.ended()),
            other => other.map_err(|source| self.lost(source)),
        }
    }

    /// The next line of the answer, without its end.
    ///
    /// # Errors
    /// When the child ends before, or is over its limit.
    pub fn line(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(end) = self.streams.stdout.kept.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.streams.stdout.kept.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            self.wait_for_more()?;
        }
    }

    /// The next `count` bytes of the answer.
    ///
    /// # Errors
    /// As `line`.
    pub fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Error> {
        while self.streams.stdout.kept.len() < count {
            self.wait_for_more()?;
        }
        Ok(self.streams.stdout.kept.drain(..count).collect())
    }

    /// Passes over the next `count` bytes of the answer.
    ///
    /// # Errors
    /// As `line`.
    pub fn skip(&mut self, mut count: u64) -> Result<(), Error> {
        loop {
            let here = self.streams.stdout.kept.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.streams.stdout.kept.drain(..here);
            count -= here as u64;
            if count == 0 {
                return Ok(());
            }
            self.wait_for_more()?;
        }
    }

    fn wait_for_more(&mut self) -> Result<(), Error> {
        let before = self.streams.stdout.kept.len();
        loop {
            self.streams.read_available().map_err(|source| self.lost(source))?;
            if self.streams.stdout.kept.len() > before {
                return Ok(());
            }
            if self.streams.stdout.pipe.is_none() {
                return Err(self.ended());
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            let mut waited: Vec<PollFd> = self.streams.poll_fds().collect();
            match poll(&mut waited, Some(&timespec(left))) {
                Ok(0) => {
                    let output = self.streams.said();
                    return Err(Error::Deadline { command: self.name.clone(), limit: self.limit, output });
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.lost(error.into())),
            }
        }
    }

    fn lost(&self, source: std::io::Error) -> Error {
        Error::Pipe { program: self.name.clone(), source }
    }

    /// Why the child closed its output.
    fn ended(&mut self) -> Error {
        let status = self.end(LAST_WORDS).and_then(|status| self.streams.read_available().map(|()| status));
        match status {
            Err(source) => self.lost(source),
            Ok(status) => {
                let (stdout, stderr) = (Vec::new(), self.streams.stderr.kept.clone());
                let output = Output { status, stdout, stderr }.require_success(&self.name);
                output.err().unwrap_or_else(|| self.lost(std::io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }

    /// Ends the child and its group, after it was given time to end by itself.
    fn end(&mut self, time: Duration) -> std::io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let group = Pid::from_child(&self.child);
        let ended = pidfd_open(group, PidfdFlags::empty())?;
        poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&timespec(time)))?;
        let status = end_child(&mut self.child)?;
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if let Err(error) = self.end(Duration::ZERO) {
            crate::log::warn!("child_not_ended", command = self.name, error = error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;

    fn sh(script: &str, limit: Duration) -> Conversation {
        Command::new("sh", limit).args(["-c", script]).name("sh").converse().unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn questions_are_answered_in_turn() {
        let mut echo = sh("while read -r line; do echo \"<$line>\"; printf 0123456789; done", LONG);
        for word in ["one", "two"] {
            echo.ask(word).unwrap();
            assert_eq!(echo.line().unwrap(), format!("<{word}>").into_bytes());
            assert_eq!(echo.bytes(4).unwrap(), b"0123");
            echo.skip(6).unwrap();
        }
    }

    #[test]
    fn more_than_a_pipe_holds_can_be_passed_over() {
        let mut zeros = sh("read -r _; head -c 3000000 /dev/zero; echo; echo end", LONG);
        zeros.ask("go").unwrap();
        zeros.skip(3_000_001).unwrap();
        assert_eq!(zeros.line().unwrap(), b"end");
    }

    #[test]
    fn a_child_that_ends_says_why() {
        let mut child = sh("read -r _; echo no such thing >&2; exit 3", LONG);
        child.ask("anything").unwrap();
        let error = child.line().unwrap_err();
        assert!(error.to_string().contains("exit code 3: no such thing"), "{error}");
        assert!(child.ask("more").is_err() || child.line().is_err());
    }

    #[test]
    fn an_answer_has_a_deadline_and_dropping_ends_the_child() {
        let mut child = sh("read -r _; exec sleep 60", Duration::from_millis(200));
        child.ask("anything").unwrap();
        assert!(matches!(child.line(), Err(Error::Deadline { .. })));
        let group = Pid::from_child(&child.child);
        drop(child);
        let deadline = Instant::now() + LONG;
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < deadline, "the group lives");
            std::thread::yield_now();
        }
    }
}
