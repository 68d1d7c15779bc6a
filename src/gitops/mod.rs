//! gitops-sync: pulls each configured repository fast-forward only, applies it, and takes back what fails.
//! Everything that reads git, writes a checkout or decides about a deployment lives here; no HTTP server, no unit of
//! the hub itself. Nothing that root acts on comes from the checkout, whose owner controls its `.git`.

mod access;
mod checkout;
mod claim;
mod commands;
mod error;
mod forward;
mod git;
mod journal;
mod look;
mod mirror;
mod outcome;
mod probe;
mod report;
mod signatures;
mod store;
mod sync;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;

use crate::config::Config;
use crate::exit::{self, Exit};
use crate::log;

pub use error::Error;
pub use outcome::{Outcome, Status};

/// Pull the configured repositories and apply what changed.
///
/// Without names: what is queued, what is to be retried, and every repository not checked for 55 minutes.
/// Exit codes: 0 in sync, 1 error, 2 usage, 3 rolled back, 4 rollback failed, 5 refused (signature, history, local
/// changes), 75 another run holds the lock, 78 configuration.
#[derive(FromArgs)]
struct Arguments {
    /// repositories to sync now, as owner/name
    #[argh(positional)]
    repositories: Vec<String>,
    /// show what would be done and change nothing but the mirror
    #[argh(switch)]
    dry_run: bool,
    /// print the result as JSON on stdout; log lines go to stderr
    #[argh(switch)]
    json: bool,
    /// configuration file (default: $HUB_CONFIG, else /etc/observability-hub/hub.toml)
    #[argh(option)]
    config: Option<PathBuf>,
    /// check the configuration and exit
    #[argh(switch)]
    check: bool,
}

/// What one run of the program was asked for.
struct Request {
    /// Named on the command line; empty for a queued run.
    names: Vec<String>,
    dry_run: bool,
}

/// The program `gitops-sync`.
pub fn main() -> ExitCode {
    let arguments: Arguments = match exit::arguments("gitops-sync") {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    log::start("gitops-sync");
    if arguments.json || arguments.dry_run {
        log::to_stderr();
    }
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return exit::configuration_error(&error).into(),
    };
    if arguments.check {
        return exit::configuration_valid(&config).into();
    }
    if let Some(error) = arguments.repositories.iter().find_map(|name| config.repository(name).err()) {
        log::error!("usage", error = error.to_string());
        return Exit::Usage.into();
    }
    // The unit's umask is for the hub's state, which is made with modes of its own; a checkout and what its commands make
    // is for the services that use it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let request = Request { names: arguments.repositories, dry_run: arguments.dry_run };
    let (exit, outcomes) = match worker::run(&config, &request) {
        Ok(outcomes) => (outcome::worst(&outcomes), outcomes),
        Err(error) => {
            log::error!("run_failed", error = error.to_string());
            (error.exit(), Vec::new())
        }
    };
    if arguments.json {
        report::json(exit, &outcomes);
    } else if arguments.dry_run {
        report::table(&outcomes);
    }
    exit.into()
}
