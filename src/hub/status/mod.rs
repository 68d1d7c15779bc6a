//! `hub status`: how every service, repository and queue is, from what they left to read and what systemd says.
//! Nothing is changed or started here, and nothing connected to but the proxy on this host: `GET /healthz`, its
//! `alive.sock`, and whether it would take a delivery. How well that is, `health` judges; here it is looked at and shown.
//! Whatever is missing, unreadable or damaged becomes a line; the rest is shown all the same.

mod facts;
mod shown;
mod table;
mod waits;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use super::terminal::Terminal;
use crate::config::Config;
use crate::health::{self, Level, Reason};
use crate::log::rfc3339;
use crate::program::print;
use crate::records::{self, Found, Look};
use crate::text;
use crate::watch::{self, Thresholds};
use facts::Facts;
pub(super) use facts::ways;
use shown::{Configuration, Repository, Status};

/// Show how the services, repositories, queue, funnel and metrics of this host are.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "status",
    note = "It reads what the services leave in the state folder, so any user in the group hub may run it. NO_COLOR turns \
            colours off.",
    example = "hub status\nhub status --json | jq .reasons",
    error_code(0, "Healthy; also where nothing is set up yet."),
    error_code(1, "Degraded: it works, and something needs a look; or part of the state cannot be read."),
    error_code(2, "Failed: a service does not do its work; or the command line is wrong.")
)]
pub(super) struct Arguments {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// print one line for /etc/motd, which anybody may read, and exit with 0
    #[argh(switch)]
    motd: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Shows it and returns the exit code: 0 healthy, 1 degraded, 2 failed.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let status = collect(Facts::find(arguments.config.as_deref(), None));
    if arguments.motd {
        print(&line(&status));
        return ExitCode::SUCCESS;
    }
    if arguments.json {
        print(&text::json(&status, true));
    } else {
        print(&table::format(&status, Terminal::stdout()));
    }
    ExitCode::from(status.status as u8)
}

/// How it is, without a name or a word that not everybody may read.
fn line(status: &Status) -> String {
    let count = |level| status.reasons.iter().filter(|reason| reason.level == level).count();
    let said = match (status.is_fresh, count(Level::Failed), count(Level::Degraded)) {
        (true, ..) => "nothing is set up yet; see: hub doctor".to_owned(),
        (_, 0, 0) => "healthy".to_owned(),
        (_, 0, some) => format!("degraded, {}; see: hub status", records::counted(some as u64, "reason")),
        (_, failed, 0) => format!("failed, {}; see: hub status", records::counted(failed as u64, "reason")),
        (_, failed, some) => {
            format!("failed, {} and {some} to look at; see: hub status", records::counted(failed as u64, "reason"))
        }
    };
    format!("Observability Hub: {said}\n")
}

/// Looks at this host and at its limits: why it is not healthy, and what else was seen.
pub(super) fn look(
    flag: Option<&Path>,
    config: &Config,
    limits: &mut Thresholds,
    now: Timestamp,
) -> (Vec<Reason>, Look) {
    let mut facts = Facts::find(flag, Some(config));
    watch::look_into_logs(&mut facts.look, facts.left.look.get());
    limits.look_around(config, Path::new("/"), now);
    facts.look.over = limits.look(&config.limits, facts.left.sample.get(), now);
    facts.left.look = Found::There(facts.look.clone());
    (health::judge(&facts.seen()), facts.look)
}

fn collect(facts: Facts) -> Status {
    let seen = facts.seen();
    let reasons = health::judge(&seen);
    let services = health::services(&seen, &reasons);
    let repository = |known: &records::Repository| Repository {
        level: Level::of(reasons.iter().filter(|reason| reason.about == known.repository)),
        known: known.clone(),
    };
    Status {
        status: Level::of(&reasons),
        time: rfc3339(facts.now),
        host: crate::host::name(),
        version: crate::VERSION,
        configuration: Configuration {
            path: facts.path.clone(),
            found: facts.config.as_ref().map_or(true, |config| config.path.is_some()),
            error: facts.config.as_ref().err().cloned(),
        },
        services,
        repositories: facts.left.repositories.iter().map(repository).collect(),
        funnel: health::funnel(&seen),
        now: facts.now,
        is_fresh: seen.is_fresh(),
        reasons,
        state_dir: facts.state_dir,
        queue: facts.left.queue,
        pipelines: facts.left.pipelines,
        unreadable: facts.left.unreadable,
    }
}
