use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::end::{Serving, end_session, hangs, reap};
use super::guests::{Guest, start_one};
use super::output::{STDERR_KEPT, Stream, Streams, timespec};
use super::{Account, Conversation, Error, Output, account, crowded};

/// Where `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
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
    pub(super) input: Input,
    limit: Duration,
    output_limit: usize,
    tail: bool,
    file_limit: Option<u64>,
    /// Where standard error goes; none: to the caller.
    pub(super) errors: Option<OwnedFd>,
    pub(super) server: Option<Server>,
    pub(super) serving: Option<Serving>,
}

/// The other command, before both are started.
#[derive(Debug)]
pub(super) struct Server {
    pub command: Box<Command>,
    /// The end of the socket that the first command inherits.
    pub near: UnixStream,
    pub far: UnixStream,
}

/// Where a command's standard input comes from.
#[derive(Debug)]
pub(super) enum Input {
    Bytes(Vec<u8>),
    Pipe(OwnedFd),
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
            file_limit: None,
            errors: None,
            server: None,
            serving: None,
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

    /// The folder that it runs in, where it was given one.
    pub fn place(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Runs as a user, with that user's groups. Another user than the caller's needs root.
    pub fn user(mut self, user: &Account) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// Ends it after another limit than `new` was given.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
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

    /// How many bytes a file may have that the command writes; it is ended when it writes more (RLIMIT_FSIZE, setrlimit(2)).
    pub fn file_limit(mut self, bytes: u64) -> Self {
        self.file_limit = Some(bytes);
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
        let Started { mut child, input, guest: _guest } = self.start(Stdio::piped())?;
        self.attend(&mut child, &input)
    }

    /// Starts the command and leaves it to the caller: both output pipes are to be drained, the end to be awaited. It
    /// dies with the thread that calls this; the limit is not applied.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self) -> Result<Child, Error> {
        let Started { child, guest, .. } = self.start(Stdio::piped())?;
        // Nobody here sees its end.
        std::mem::forget(guest);
        Ok(child)
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
        let Started { child, guest, .. } = self.start(Stdio::piped())?;
        Conversation::new(child, guest, File::from(write), name, self.limit)
    }

    pub(super) fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let words = std::iter::once(&self.program).chain(&self.arguments);
            let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
            let mut name = words.join(" ");
            name.truncate(name.floor_char_boundary(200));
            name
        })
    }

    /// Starts the child.
    pub(super) fn start(&mut self, stdout: Stdio) -> Result<Started, Error> {
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
        let (inherited, said) = self.start_server()?.unzip();
        // By their paths: for a name, the standard library forks instead of calling posix_spawn(3), which costs more.
        let at = |name: &str, path: &OsStr| {
            find(name.as_ref(), path, None).and_then(|program| std::path::absolute(program).ok())
        };
        let missing = |name: &str| Error::NotFound(format!("{name} (package util-linux)"));
        let setpriv = at("setpriv", &path).ok_or_else(|| missing("setpriv"))?;
        let me = account::current();
        let user = self.user.clone().unwrap_or_else(|| me.clone());
        let mut command = if has_terminal() {
            // A session of its own, while it is still the caller's: with the caller's terminal, the user that it becomes could
            // type into the caller's shell (ioctl_tty(2), TIOCSTI). Of setpriv's package; a PATH that was made for the hub
            // may have it without this one. Not in a group of its own yet: setsid(1) of a group's leader would have to fork,
            // and this child be another one.
            let setsid = at("setsid", &path).or_else(|| at("setsid", DEFAULT_PATH.as_ref()));
            let mut command = std::process::Command::new(setsid.ok_or_else(|| missing("setsid"))?);
            command.arg(setpriv);
            command
        } else {
            // In a session that has no terminal nobody but its leader can get one (credentials(7)).
            let mut command = std::process::Command::new(setpriv);
            command.process_group(0);
            command
        };
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
        if let Some(bytes) = self.file_limit {
            command.args(["prlimit", &format!("--fsize={bytes}"), "--"]);
        }
        command.arg(&self.program).args(&self.arguments).env_clear();
        command.env("PATH", path).env("LC_ALL", "C.UTF-8");
        command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
        command.envs(super::orphans::mark().map(|mark| (super::orphans::VARIABLE, mark)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(stdin).stdout(stdout).stderr(self.errors.take().map_or_else(Stdio::piped, Stdio::from));
        let guest = (user.uid != me.uid).then(|| Guest::invite(&user));
        let start = || start_one(&mut command, guest.is_some(), inherited.as_ref());
        let mut child = crowded::start(crowded::PATIENCE.min(self.limit), start).map_err(|source| {
            match source.kind() {
                // The working folder is the other thing that may be missing.
                ErrorKind::NotFound if self.folder.as_ref().is_none_or(|folder| folder.is_dir()) => {
                    missing("setpriv or setsid")
                }
                _ => Error::Start { program, source },
            }
        })?;
        if has_terminal()
            && let Err(error) = super::orphans::note(child.id())
        {
            crate::log::warn!("child_not_noted", command = self.display_name(), error = error.to_string());
        }
        child.stderr = said.or(child.stderr);
        Ok(Started { child, input, guest })
    }

    /// Feeds and drains a child until it has ended or the limit is over.
    pub(super) fn attend(&self, child: &mut Child, input: &[u8]) -> Result<Output, Error> {
        let lost = |source: std::io::Error| Error::Pipe { program: self.display_name(), source };
        let group = Pid::from_child(child);
        let ended = pidfd_open(group, PidfdFlags::empty()).map_err(|error| lost(error.into()))?;
        let result = self.pump(child, &ended, input);
        end_session(group).map_err(lost)?;
        let status = reap(child, &ended).map_err(lost)?;
        let mut streams = result?;
        streams.read_rest(Instant::now() + LAST_OUTPUT).map_err(lost)?;
        if streams.stdout.overflowed && !self.tail {
            return Err(Error::TooMuchOutput { command: self.display_name(), limit: self.output_limit });
        }
        let status = status.ok_or_else(|| lost(hangs()))?;
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
                Ok(_) | Err(Errno::INTR) => {}
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

/// A child that was started.
pub(super) struct Started {
    pub child: Child,
    /// What is still to be written to it.
    pub input: Vec<u8>,
    /// To be held until it has ended.
    pub guest: Option<Guest>,
}

/// As `sees_terminal`, asked once: only a session's leader without a terminal could get one later, and no program of the hub
/// opens a terminal.
fn has_terminal() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(sees_terminal)
}

/// True where this process has a controlling terminal now, such as a person's; services have none.
pub fn sees_terminal() -> bool {
    // ENXIO says that there is none; whatever else is in the way is no answer.
    !matches!(openat(CWD, "/dev/tty", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()), Err(Errno::NXIO))
}

fn find(program: &OsStr, path: &OsStr, folder: Option<&Path>) -> Option<PathBuf> {
    let executable = |file: &PathBuf| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file();
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(folder.unwrap_or(Path::new("")).join(program)).filter(executable);
    }
    std::env::split_paths(path).map(|folder| folder.join(program)).find(executable)
}

#[cfg(test)]
mod tests;
