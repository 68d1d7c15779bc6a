//! Exit codes, command lines and signals: how every binary of the hub starts and ends.
//!
//! Nothing here knows what a binary does in between.

use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use close_fds::CloseFdsBuilder;

use crate::command::sees_terminal;
use crate::config::{Config, DEFAULT_PATH};
use crate::{log, text};

/// The first descriptor after standard input, output and error.
const FIRST_OTHER: i32 = 3;

/// How a program of the hub ends (75 and 78 are sysexits.h's EX_TEMPFAIL and EX_CONFIG).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for `gitops-sync`: everything is in sync.
    Done = 0,
    /// It could not be done, and something may be left to retry.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The new commit failed and the last good one is back in place.
    RolledBack = 3,
    /// The new commit failed and the last good one could not be restored whole.
    RollbackFailed = 4,
    /// A rule forbids it: signature, history, local changes, foreign unit.
    Refused = 5,
    /// Another run holds the lock.
    Busy = 75,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Parses the process's command line, and keeps what its caller has open from its children: a script that reads a file of root's
/// does not mean it for whomever a repository's commands run as.
///
/// Returns the parsed arguments, or the exit code to end with after help or the version (0, on stdout) or a usage error (2, on
/// stderr) was printed. argh itself would end a usage error with 1, which the hub keeps for failed work.
///
/// # Errors
/// The exit code, when there is nothing left to do but to end.
pub fn arguments<T: argh::FromArgs>(program: &str) -> Result<T, ExitCode> {
    CloseFdsBuilder::new().cloexecfrom(FIRST_OTHER);
    let mut words = Vec::new();
    for word in std::env::args_os().skip(1) {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                return Err(usage_error(program, &format!("{program}: argument {} is not UTF-8", word.display())));
            }
        }
    }
    parse_arguments(program, &words)
}

/// Parses `words`, the command line without the program's name, like `arguments`.
///
/// # Errors
/// The exit code, when there is nothing left to do but to end.
pub fn parse_arguments<T: argh::FromArgs>(program: &str, words: &[String]) -> Result<T, ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // Whatever follows: who asks which version it is may have a configuration that is wrong.
    if let ["--version" | "-V", ..] = words[..] {
        print(&format!("{program} {}", crate::VERSION));
        return Err(Exit::Done.into());
    }
    T::from_args(&[program], &words).map_err(|early| match early.status {
        Ok(()) => {
            print(&early.output);
            Exit::Done.into()
        }
        Err(()) => usage_error(program, early.output.trim_end()),
    })
}

#[expect(clippy::print_stderr, reason = "usage errors are for the person at the terminal")]
fn usage_error(program: &str, reason: &str) -> ExitCode {
    eprintln!("{}\nRun {program} --help for more information.", text::screen(reason));
    Exit::Usage.into()
}

/// Names the process that a service must not outlive: the id of the `hub up` that started it.
pub const SUPERVISOR: &str = "HUB_SUPERVISOR";

/// Ties this process to the supervisor that `$HUB_SUPERVISOR` names: SIGTERM comes when it dies, `kill -9` included
/// (prctl(2), PR_SET_PDEATHSIG). Without the variable nothing happens. Call it before anything else.
///
/// Returns false where the supervisor is gone already.
///
/// # Errors
/// When the system refuses the signal.
pub fn follow_supervisor() -> std::io::Result<bool> {
    let Some(supervisor) = std::env::var_os(SUPERVISOR) else { return Ok(true) };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // Asked after the signal is in force: a supervisor that died between the two is seen here.
    let parent = rustix::process::getppid().map_or(0, rustix::process::Pid::as_raw_pid);
    Ok(supervisor == parent.to_string().as_str())
}

/// Prints an answer for a person or a script on standard output, with a newline at its end. A reader that has enough and
/// goes away is no error; where the answer cannot be written, the program ends with 1 and says so.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let text = text::screen(text);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let written = write!(stdout, "{text}{end}").and_then(|()| stdout.flush());
    if let Err(error) = written.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
    {
        // Where not even this can be said, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "the answer cannot be written: {error}");
        std::process::exit(Exit::Error as i32);
    }
}

/// Ends a program whose configuration is unusable: one log line with the reason, exit code 78.
pub fn configuration_error(error: &dyn Display) -> Exit {
    log::error!("configuration_error", error = error.to_string());
    Exit::Config
}

/// Ends `--check`: one sentence for the person who asked, exit code 0.
pub fn configuration_valid(config: &Config) -> Exit {
    match &config.path {
        Some(path) => print(&format!("{} is valid", path.display())),
        None => print(&format!("the default configuration is valid; there is no {DEFAULT_PATH}")),
    }
    Exit::Done
}

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
