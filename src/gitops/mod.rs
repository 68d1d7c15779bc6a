//! gitops-sync: pulls each configured repository fast-forward only, applies it, and takes back what fails.
//! Everything that reads git, writes a checkout or decides about a deployment lives here; no HTTP server, no webhook.
//! Nothing that root acts on comes from the checkout, whose owner controls its `.git`.

mod access;
mod attempts;
mod branch;
pub mod check;
mod checkout;
mod checks;
mod claim;
mod commands;
mod crew;
mod deploy;
mod describe;
mod error;
mod failed;
mod forward;
mod git;
mod guard;
mod happened;
mod history;
mod in_the_way;
mod incoming;
mod job;
mod journal;
mod kept;
mod left_out;
mod lent;
mod locks;
mod look;
mod mirror;
mod objects;
mod origin;
mod outcome;
mod owner;
mod plan;
mod plan_file;
mod probe;
mod prune;
mod remove;
mod report;
mod rollback;
mod run;
mod signatures;
mod store;
mod sync;
mod trial;
mod turn;
mod undo;
mod units;
mod wake;
mod worker;
mod worktree;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use crate::config::Config;
use crate::log;
use crate::program::{self, CommandLine, Exit};
use crate::said;
use crate::systemd::GITOPS_SYNC;

pub(crate) use error::Error;
use outcome::{Outcome, Status};
pub use remove::remove;
pub use rollback::{Back, rollback};
use run::Request;

/// Pull the configured repositories and apply what changed.
///
/// Without names it takes what is queued, what was refused or failed, every repository that was not checked for its
/// poll_minutes (60), and every one whose table in hub.toml has changed since.
/// A deployment of units goes back if the remote, sshd or tailscaled no longer answer (gitops.guard). With confirm_minutes
/// it also goes back unless somebody runs hub confirm REPO in time.
#[derive(ArgsInfo, FromArgs)]
#[argh(
    example = "gitops-sync --dry-run",
    example = "gitops-sync acme/infra --adopt app.service",
    error_code(0, "Everything is in sync."),
    error_code(1, "An error: the network, a full disk, git. The reason names it; the next run tries again."),
    error_code(2, "The command line is wrong, or the repository has no unit of the name that --adopt gives."),
    error_code(3, "Rolled back. It stays so while the tip of the branch is the bad commit."),
    error_code(4, "The rollback failed. The message names what is left, and in which state."),
    error_code(5, "Refused: signature, history, size, local changes, or a unit of somebody else's."),
    error_code(75, "Another run holds the lock."),
    error_code(78, "The configuration is wrong.")
)]
struct Arguments {
    /// repositories to sync now, as owner/name or by id; with --dry-run or --adopt and without names: all
    #[argh(positional, arg_name = "REPO")]
    repositories: Vec<String>,
    /// show what would be done and change nothing but the mirror
    #[argh(switch)]
    dry_run: bool,
    /// take over this unit, which somebody else installed; its present version is kept in the state folder
    #[argh(option, arg_name = "UNIT")]
    adopt: Vec<String>,
    /// let a commit take away all units of the named repository
    #[argh(switch)]
    remove_all: bool,
    /// deploy units to the calling user's own systemd manager
    #[argh(switch)]
    user_units: bool,
    /// print the result as JSON on stdout; log lines go to stderr
    #[argh(switch)]
    json: bool,
    /// configuration file (default: $HUB_CONFIG, else /etc/observability-hub/hub.toml)
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// check the configuration and exit
    #[argh(switch)]
    check: bool,
}

impl CommandLine for Arguments {
    const NAME: &'static str = GITOPS_SYNC;

    fn configuration(&self) -> (Option<&Path>, bool) {
        (self.config.as_deref(), self.check)
    }

    fn answers(&self) -> bool {
        self.json || self.dry_run
    }

    fn check(&self, config: &Config) -> Result<(), impl Display> {
        said::check(config)
    }
}

/// The command line, for the manual.
pub fn described() -> argh::CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// The program `gitops-sync`.
pub fn main() -> ExitCode {
    // The unit's mask is for the state folder, whose files get their modes explicitly; checkouts and what commands make
    // are to be as readable as with any other git.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    program::run(sync)
}

fn sync(arguments: Arguments, config: Config) -> Exit {
    let names = arguments.repositories.iter().map(|name| Ok(config.repository(name)?.name.clone()));
    let names = match names.collect::<Result<Vec<String>, Error>>() {
        Ok(names) if names.is_empty() && arguments.remove_all => {
            log::error!("usage", error = "--remove-all wants the name of the repository whose units are to go");
            return Exit::Usage;
        }
        Ok(names) => names,
        Err(error) => {
            log::error!("usage", error = error.to_string());
            return Exit::Usage;
        }
    };
    let request = Request {
        names,
        remove_all: arguments.remove_all,
        dry_run: arguments.dry_run,
        adopt: arguments.adopt,
        user_units: arguments.user_units,
    };
    let (mut exit, outcomes) = match worker::run(&config, &request) {
        Ok(outcomes) => (outcome::worst(&outcomes), outcomes),
        Err(error) => {
            log::error!("run_failed", error = error.to_string());
            (error.exit(), Vec::new())
        }
    };
    for unit in outcome::nowhere(&outcomes) {
        let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.repository.as_str()).collect();
        let reason = format!(
            "--adopt {unit}: there is no such unit in {}; name a file of the repository's folder of units, such as app.service",
            crate::text::listed(names, ", ")
        );
        log::error!("usage", error = reason);
        exit = if exit == Exit::Done { Exit::Usage } else { exit };
    }
    if arguments.json {
        report::json(exit, &outcomes);
    } else if arguments.dry_run {
        report::table(&outcomes);
    }
    exit
}
