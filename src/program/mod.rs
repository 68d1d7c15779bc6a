//! How every program of the hub starts and ends: command line, log, configuration, `--check`, exit code, signals.
//!
//! Nothing here knows what a program does in between.

mod answer;
mod command_line;
mod exit;
mod signals;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config, DEFAULT_PATH, Renewal};
use crate::log;

pub use answer::print;
pub use command_line::{arguments, help, parse_arguments};
pub use exit::Exit;
pub use signals::{Asked, Signals};

/// The command line of a program that has one configuration.
pub trait CommandLine: argh::FromArgs {
    /// The program's name.
    const NAME: &'static str;

    /// The configuration file that it names, and whether that is only to be checked.
    fn configuration(&self) -> (Option<&Path>, bool);

    /// Whether standard output is for the answer, so that log lines go to standard error.
    fn answers(&self) -> bool {
        false
    }

    /// Why it makes no sense; none where it does.
    fn nonsense(&self) -> Option<String> {
        None
    }

    /// Reads what a start with a configuration needs besides.
    ///
    /// # Errors
    /// Why the program would not start, or could not work.
    fn check(&self, config: &Config) -> Result<(), impl Display>;
}

/// A configuration that a program starts with: of a run, or of a service that takes the next one by itself.
pub trait Loaded: Sized {
    /// Loads it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn load(flag: Option<&Path>) -> Result<Self, config::Error>;

    /// What is in force.
    fn get(&self) -> &Config;
}

impl Loaded for Config {
    fn load(flag: Option<&Path>) -> Result<Self, config::Error> {
        Self::load(flag)
    }

    fn get(&self) -> &Config {
        self
    }
}

impl Loaded for Renewal {
    fn load(flag: Option<&Path>) -> Result<Self, config::Error> {
        Self::load(flag)
    }

    fn get(&self) -> &Config {
        self.config()
    }
}

/// Runs a program: `main` is called once its command line and its configuration are right, and is not where they are only to be
/// checked. A wrong command line ends with 2, a wrong configuration with 78.
pub fn run<A: CommandLine, C: Loaded>(main: impl FnOnce(A, C) -> Exit) -> ExitCode {
    let arguments: A = match arguments(A::NAME) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    log::start(A::NAME);
    if arguments.answers() {
        log::to_stderr();
    }
    if let Some(error) = arguments.nonsense() {
        log::error!("usage", error = error);
        return Exit::Usage.into();
    }
    let (file, is_check) = arguments.configuration();
    let exit = match C::load(file) {
        Err(error) => configuration_error(&error),
        Ok(loaded) if is_check => checked(loaded.get(), arguments.check(loaded.get())),
        Ok(loaded) => main(arguments, loaded),
    };
    exit.into()
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

/// Begins a short-lived child of a service, which writes to standard output what it is asked for. It ends with its parent, and
/// where memory runs out it goes first, for both share a limit (proc(5)). Returns false where the parent is gone already.
pub fn begin_child(service: &'static str) -> bool {
    log::start(service);
    log::to_stderr();
    match follow_supervisor() {
        Ok(true) => {}
        Ok(false) => return false,
        Err(error) => log::warn!("supervisor_not_followed", error = error.to_string()),
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "500") {
        log::warn!("oom_score_not_set", error = error.to_string());
    }
    true
}

/// Ends a program whose configuration is unusable: one log line with the reason, exit code 78.
pub fn configuration_error(error: &dyn Display) -> Exit {
    log::error!("configuration_error", error = error.to_string());
    Exit::Config
}

/// Ends `--check`: one sentence for the person who asked, exit code 0; or the reason why a start would fail.
pub fn checked(config: &Config, result: Result<(), impl Display>) -> Exit {
    match (result, &config.path) {
        (Err(error), _) => return configuration_error(&error),
        (Ok(()), Some(path)) => print(&format!("{} is valid", path.display())),
        (Ok(()), None) => print(&format!("the default configuration is valid; there is no {DEFAULT_PATH}")),
    }
    Exit::Done
}
