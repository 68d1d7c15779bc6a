use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};

use super::{Account, Conversation, Error, account};

/// Where `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of a child's standard error is kept: the end, where the reason stands.
pub(super) const STDERR_KEPT: usize = 8 * 1024;
/// How many times a pipe is read before its reader looks at the clock again.
const READS_IN_A_ROW: usize = 16;
/// How long output is still read after the child and its group have ended: whoever holds the pipe now has left the
/// group and is not waited for.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// A command to run. The environment is empty but for `PATH`, `HOME`, `USER`, `LOGNAME`, `LC_ALL=C.UTF-8`, the mark of
/// `mark_children` and what the caller adds.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    user: Option<Account>,
    name: Option<String>,
    input: Input,
    limit: Duration,
    output_limit: usize,
    tail: bool,
}

#[derive(Debug)]
enum Input {
    Bytes(Vec<u8>),
    Pipe(OwnedFd),
}

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

/// A command that runs and waits for its input.
#[derive(Debug)]
pub struct Prepared {
    input: Option<File>,
    written: std::io::Result<()>,
    result: std::thread::JoinHandle<Result<Output, Error>>,
    name: String,
}

impl Command {
    /// A command of `program` (a path, or a name found on `PATH`), ended after `limit`.
    pub fn new(program: impl AsRef<OsStr>, limit: Duration) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            user: None,
            name: None,
            input: Input::Bytes(Vec::new()),
            limit,
            output_limit: 1 << 20,
            tail: false,
        }
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs in a folder.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Runs as a user, with that user's groups. Another user than the caller's needs root.
    pub fn user(mut self, user: &Account) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// What to call the command in errors; default: the program and its arguments.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Standard input; default: empty.
    pub fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = Input::Bytes(bytes);
        self
    }

    /// How many bytes of standard output are accepted (default 1 MiB); more is an error.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Keeps only the end of standard output, and standard error with it: for output that is shown, not parsed.
    pub fn output_tail(mut self) -> Self {
        self.tail = true;
        self.output_limit = STDERR_KEPT;
        self
    }

    /// Runs the command and requires success.
    ///
    /// # Errors
    /// As `run`, and `Failed` when it ends with anything but 0.
    pub fn succeed(self) -> Result<Output, Error> {
        let name = self.display_name();
        self.run()?.require_success(&name)
    }

    /// Runs the command to its end, successful or not. Whatever is left of its process group is killed then, as
    /// systemd does with what a unit's main process leaves behind.
    ///
    /// # Errors
    /// When it cannot be started, runs over its limit, or writes more than is accepted.
    pub fn run(mut self) -> Result<Output, Error> {
        let (mut child, input) = self.start(Stdio::piped())?;
        self.attend(&mut child, &input)
    }

    /// Starts the command and leaves it to the caller: both output pipes are to be drained, the end to be awaited. It
    /// dies with the thread that calls this; the limit is not applied.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self) -> Result<Child, Error> {
        self.start(Stdio::piped()).map(|(child, _)| child)
    }

    /// Starts the command and keeps it to be asked; the limit is then that of one answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn converse(mut self) -> Result<Conversation, Error> {
        let name = self.display_name();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Error::Pipe { program: name.clone(), source: error.into() })?;
        self.input = Input::Pipe(read);
        let (child, _) = self.start(Stdio::piped())?;
        Conversation::new(child, File::from(write), name, self.limit)
    }

    /// Starts the command now and gives it its input later, so that it gets ready meanwhile. With a `consumer`, that one
    /// is started too and gets this one's output as its input.
    ///
    /// Dropping what is returned ends the input and leaves the commands to end by themselves. Their time runs from now on.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn prepare(mut self, consumer: Option<Self>) -> Result<Prepared, Error> {
        let name = self.display_name();
        let pipe = || {
            let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
            pipe.map_err(|error| Error::Pipe { program: name.clone(), source: error.into() })
        };
        let (read, input) = pipe()?;
        self.input = Input::Pipe(read);
        let result = match consumer {
            None => {
                let (mut child, _) = self.start(Stdio::piped())?;
                std::thread::spawn(move || self.attend(&mut child, b"")?.require_success(&self.display_name()))
            }
            Some(mut consumer) => {
                let (read, write) = pipe()?;
                let (mut producer, _) = self.start(Stdio::from(write))?;
                consumer.input = Input::Pipe(read);
                let (mut child, _) = consumer.start(Stdio::piped())?;
                std::thread::spawn(move || self.attend_both(&mut producer, &consumer, &mut child))
            }
        };
        Ok(Prepared { input: Some(File::from(input)), written: Ok(()), result, name })
    }

    /// The error is that of the side that failed by itself, where the other only failed because of it.
    fn attend_both(&self, producer: &mut Child, consumer: &Self, child: &mut Child) -> Result<Output, Error> {
        let name = self.display_name();
        let (produced, consumed) = std::thread::scope(|scope| {
            let attending = scope.spawn(|| self.attend(producer, b""));
            let consumed = consumer.attend(child, b"");
            let lost = || Error::Pipe { program: name.clone(), source: std::io::Error::other("its reader panicked") };
            (attending.join().unwrap_or_else(|_| Err(lost())), consumed)
        });
        let consumed = consumed.and_then(|output| output.require_success(&consumer.display_name()));
        match (produced.and_then(|output| output.require_success(&name)), consumed) {
            (Err(error), Err(_)) if !error.is_broken_pipe() => Err(error),
            (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
            (Ok(_), Ok(output)) => Ok(output),
        }
    }

    fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let words = std::iter::once(&self.program).chain(&self.arguments);
            let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
            let mut name = words.join(" ");
            name.truncate(name.floor_char_boundary(200));
            name
        })
    }

    /// Starts the child; returns it with the input that is still to be written to it.
    fn start(&mut self, stdout: Stdio) -> Result<(Child, Vec<u8>), Error> {
        let (stdin, input) = match std::mem::replace(&mut self.input, Input::Bytes(Vec::new())) {
            Input::Pipe(pipe) => (Stdio::from(pipe), Vec::new()),
            Input::Bytes(bytes) if bytes.is_empty() => (Stdio::null(), bytes),
            Input::Bytes(bytes) => (Stdio::piped(), bytes),
        };
        let program = self.program.to_string_lossy().into_owned();
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        if find(&self.program, &path, self.folder.as_deref()).is_none() {
            return Err(Error::NotFound(program));
        }
        // By its path: for a name, the standard library forks instead of calling posix_spawn(3), which costs more.
        let setpriv = find("setpriv".as_ref(), &path, None).and_then(|path| std::path::absolute(path).ok());
        let setpriv = setpriv.ok_or_else(|| Error::NotFound("setpriv (package util-linux)".to_owned()))?;
        let me = account::current();
        let user = self.user.clone().unwrap_or_else(|| me.clone());
        let mut command = std::process::Command::new(setpriv);
        command.args(["--pdeathsig", "KILL"]);
        if user.uid != me.uid {
            command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--init-groups"]);
        }
        command.arg("--");
        if let Some(folder) = &self.folder {
            if user.uid == me.uid {
                command.current_dir(folder);
            } else {
                // With the user's own rights: as root, a link that the user put in the folder's place would be followed
                // to where the user may not go.
                command.args(["env", "--chdir"]).arg(folder).arg("--");
            }
        }
        command.arg(&self.program).args(&self.arguments).env_clear();
        command.env("PATH", path).env("LC_ALL", "C.UTF-8");
        command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
        command.envs(super::orphans::mark().map(|mark| (super::orphans::VARIABLE, mark)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(|source| match source.kind() {
            // The working folder is the other thing that may be missing.
            ErrorKind::NotFound if self.folder.as_ref().is_none_or(|folder| folder.is_dir()) => {
                Error::NotFound("setpriv (package util-linux)".to_owned())
            }
            _ => Error::Start { program, source },
        })?;
        Ok((child, input))
    }

    /// Feeds and drains a child until it has ended or the limit is over.
    fn attend(&self, child: &mut Child, input: &[u8]) -> Result<Output, Error> {
        let lost = |source: std::io::Error| Error::Pipe { program: self.display_name(), source };
        let group = Pid::from_child(child);
        let ended = pidfd_open(group, PidfdFlags::empty()).map_err(|error| lost(error.into()))?;
        let result = self.pump(child, &ended, input);
        // The leader is still a zombie here, so its number cannot have been given to another group.
        match kill_process_group(group, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(lost(error.into())),
        }
        let mut streams = match result {
            Ok(streams) => streams,
            Err(error) => {
                child.wait().map_err(lost)?;
                return Err(error);
            }
        };
        streams.read_rest(Instant::now() + LAST_OUTPUT).map_err(lost)?;
        let status = child.wait().map_err(lost)?;
        if streams.stdout.overflowed && !self.tail {
            return Err(Error::TooMuchOutput { command: self.display_name(), limit: self.output_limit });
        }
        Ok(Output { status, stdout: streams.stdout.kept, stderr: streams.stderr.kept })
    }

    fn pump(&self, child: &mut Child, ended: &OwnedFd, input: &[u8]) -> Result<Streams, Error> {
        let lost = |source: std::io::Error| Error::Pipe { program: self.display_name(), source };
        let mut streams = Streams {
            stdout: Stream::new(child.stdout.take().map(OwnedFd::from), self.output_limit, self.tail).map_err(lost)?,
            stderr: Stream::new(child.stderr.take().map(OwnedFd::from), STDERR_KEPT, true).map_err(lost)?,
        };
        let mut stdin = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        if let Some(pipe) = &stdin {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|error| lost(error.into()))?;
        }
        let mut unsent = input;
        let deadline = Instant::now() + self.limit;
        loop {
            if unsent.is_empty() {
                stdin = None;
            }
            let mut waited = vec![PollFd::new(ended, PollFlags::IN)];
            waited.extend(streams.poll_fds());
            waited.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                let output = streams.said();
                return Err(Error::Deadline { command: self.display_name(), limit: self.limit, output });
            };
            match poll(&mut waited, Some(&timespec(left))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(lost(error.into())),
            }
            streams.read_available().map_err(lost)?;
            if streams.stdout.overflowed && !self.tail {
                return Ok(streams);
            }
            if let Some(pipe) = &mut stdin {
                match pipe.write(unsent) {
                    Ok(count) => unsent = &unsent[count..],
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    // The child does not want its input; its exit code says whether that matters.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => unsent = &[],
                    Err(error) => return Err(lost(error)),
                }
            }
            let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let state = waitid(WaitId::PidFd(ended.as_fd()), peek).map_err(|error| lost(error.into()))?;
            if state.is_some() {
                return Ok(streams);
            }
        }
    }
}

impl Prepared {
    /// Gives the command its input and does not wait for its end. It takes no more input then.
    pub fn feed(&mut self, input: &[u8]) {
        if let Some(mut pipe) = self.input.take() {
            self.written = pipe.write_all(input);
        }
    }

    /// Gives the command its input, where it has not been fed yet, and waits for its successful end.
    ///
    /// # Errors
    /// As `Command::succeed`; with a consumer, that of the side that failed by itself.
    pub fn finish(mut self, input: &[u8]) -> Result<Output, Error> {
        self.feed(input);
        let lost = |source: std::io::Error| Error::Pipe { program: self.name.clone(), source };
        let output = self.result.join().map_err(|_| lost(std::io::Error::other("its reader panicked")))??;
        // What the command said about it counts more.
        self.written.map_err(lost).map(|()| output)
    }
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

    fn read_rest(&mut self, deadline: Instant) -> std::io::Result<()> {
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
    overflowed: bool,
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

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

fn find(program: &OsStr, path: &OsStr, folder: Option<&Path>) -> Option<PathBuf> {
    let executable = |file: &PathBuf| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file();
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(folder.unwrap_or(Path::new("")).join(program)).filter(executable);
    }
    std::env::split_paths(path).map(|folder| folder.join(program)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        Command::new("sh", Duration::from_secs(20)).args(["-c", script])
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let input = vec![b'x'; 3 << 20];
        let output = Command::new("cat", Duration::from_secs(20)).input(input.clone()).output_limit(4 << 20);
        assert_eq!(output.succeed().unwrap().stdout, input);
    }

    #[test]
    fn a_failure_carries_code_and_reason() {
        let Err(error @ Error::Failed { code: Some(7), .. }) = sh("echo no disk >&2; exit 7").succeed() else {
            panic!("it must fail")
        };
        assert!(error.to_string().ends_with("ended with exit code 7: no disk"), "{error}");
    }

    #[test]
    fn the_deadline_ends_the_whole_group() {
        let started = Instant::now();
        let command = Command::new("sh", Duration::from_millis(200)).args(["-c", "sleep 60 & sleep 60"]);
        assert!(matches!(command.run(), Err(Error::Deadline { .. })));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_flood_of_output_does_not_hold_up_the_deadline() {
        let started = Instant::now();
        let flood = Command::new("yes", Duration::from_millis(500)).output_tail();
        assert!(matches!(flood.run(), Err(Error::Deadline { .. })));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn what_a_command_leaves_behind_is_ended_and_not_waited_for() {
        let output = sh("sleep 60 & echo $!").succeed().unwrap();
        let pid: i32 = output.text().parse().unwrap();
        let gone = |pid| rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_err();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !gone(pid) && !state().contains(") Z ") {
            assert!(Instant::now() < deadline, "the background process lives: {}", state());
            std::thread::yield_now();
        }
        let started = Instant::now();
        assert!(sh("setsid sleep 20 & exit 0").succeed().is_ok());
        assert!(started.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn more_output_than_accepted_is_an_error_and_the_tail_is_kept_where_asked_for() {
        let many = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo the end";
        assert!(matches!(sh(many).output_limit(1000).run(), Err(Error::TooMuchOutput { .. })));
        let output = sh(many).output_tail().succeed().unwrap();
        assert!(output.stdout.len() <= STDERR_KEPT && output.text().ends_with("the end"));
    }

    #[test]
    fn a_prepared_command_gets_its_input_later() {
        let input = vec![b'x'; 3 << 20];
        let cat = || Command::new("cat", Duration::from_secs(20)).output_limit(4 << 20);
        assert_eq!(cat().prepare(None).unwrap().finish(&input).unwrap().stdout, input);
        assert_eq!(cat().prepare(Some(cat())).unwrap().finish(&input).unwrap().stdout, input);
        assert!(matches!(sh("exit 3").prepare(None).unwrap().finish(&input), Err(Error::Failed { code: Some(3), .. })));
        let marker = tempfile::tempdir().unwrap();
        drop(sh("cat; touch ended").folder(marker.path()).prepare(None).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !marker.path().join("ended").exists() {
            assert!(Instant::now() < deadline, "its input does not end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_pipe_reports_the_side_that_failed() {
        let consumer = || Command::new("cat", Duration::from_secs(20)).output_limit(1 << 22);
        let both = |producer: Command, consumer| producer.prepare(Some(consumer)).unwrap().finish(b"");
        assert_eq!(both(sh("echo through"), consumer()).unwrap().text(), "through");
        let error = both(sh("echo first side >&2; exit 3"), consumer()).unwrap_err();
        assert!(error.to_string().contains("first side"), "{error}");
        let error = both(sh("cat /dev/zero"), sh("echo second side >&2; exit 4")).unwrap_err();
        assert!(error.to_string().contains("second side"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Command::new("no-such-program", Duration::from_secs(1)).run().unwrap_err();
        assert!(error.to_string().starts_with("no-such-program is not installed"), "{error}");
    }
}
