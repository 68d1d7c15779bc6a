//! `hub status`: how every service, repository and queue is, from what they left to read and what systemd says.
//! Nothing is changed or started here, and nothing connected to but the proxy on this host: `GET /healthz`, its
//! `alive.sock`, and whether it would take a delivery.
//! Whatever is missing, unreadable or damaged becomes a line; the rest is shown all the same.

mod facts;
mod repositories;
mod services;
mod states;
mod table;
mod waits;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::terminal::Terminal;
use crate::exit::print;
use crate::log::rfc3339;
use crate::records::{Pipeline, Reader, Trouble};
use crate::text;
use facts::Facts;
use repositories::{Queue, Repository};
use services::{Funnel, Service};

/// Show how the services, repositories, queue, funnel and metrics of this host are.
#[derive(argh::FromArgs)]
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
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// What the reasons about the public door are told under.
const FUNNEL: &str = "funnel";

/// How well something is; the worst one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Healthy,
    Degraded,
    Failed,
}

/// Why something is not healthy.
#[derive(Clone, Debug, Serialize)]
struct Reason {
    level: Level,
    /// A service, a repository, `queue`, `state` or `configuration`.
    about: String,
    reason: String,
    /// What to run, or to read first.
    mend: Option<String>,
}

impl Reason {
    fn new(level: Level, about: &str, reason: impl Into<String>, mend: impl Into<String>) -> Self {
        let mend = Some(mend.into()).filter(|mend| !mend.is_empty());
        Self { level, about: about.to_owned(), reason: reason.into(), mend }
    }
}

#[derive(Debug, Serialize)]
struct Status {
    status: Level,
    reasons: Vec<Reason>,
    time: String,
    host: String,
    version: &'static str,
    configuration: Configuration,
    state_dir: Option<PathBuf>,
    services: Vec<Service>,
    repositories: Vec<Repository>,
    queue: Queue,
    pipelines: Vec<Pipeline>,
    funnel: Option<Funnel>,
    /// Files and folders that are there and cannot be read.
    unreadable: Vec<Trouble>,
    #[serde(skip)]
    now: jiff::Timestamp,
    /// Nothing has run here, and nothing is configured.
    #[serde(skip)]
    is_fresh: bool,
}

#[derive(Debug, Serialize)]
struct Configuration {
    path: PathBuf,
    /// None where the file does not exist and the defaults are in force.
    found: bool,
    error: Option<String>,
}

/// Shows it and returns the exit code: 0 healthy, 1 degraded, 2 failed.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let status = collect(&Facts::find(arguments.config.as_deref()));
    if arguments.json {
        print(&text::json(&status, true));
    } else {
        print(&table::format(&status, Terminal::stdout()));
    }
    ExitCode::from(status.status as u8)
}

fn collect(facts: &Facts) -> Status {
    let mut reasons = facts.reasons();
    let mut unreadable = facts.unreadable.clone();
    let (mut records, mut repositories, mut queue) = (Vec::new(), Vec::new(), Queue::default());
    if let Some(root) = &facts.root {
        let mut reader = Reader::new(root);
        records = reader.services();
        repositories = repositories::all(facts, &mut reader, &mut reasons);
        repositories::gone(facts, &mut reader, &mut reasons);
        queue = repositories::queue(facts, &mut reader, &mut reasons);
        reasons.extend(waits::reasons(&mut reader, facts.now));
        unreadable.append(&mut reader.unreadable);
    }
    let pipelines = Pipeline::all(facts.pipelines().map(|pipeline| pipeline.name.clone()), &records);
    let is_fresh = records.is_empty() && facts.repositories().is_empty() && queue.is_empty() && unreadable.is_empty();
    let mut judge = services::Judge { facts, reasons: Vec::new() };
    let mut services = judge.all(&records);
    judge.pipelines(&pipelines);
    let funnel = judge.funnel(&records);
    for service in &mut services {
        let about = if service.service == "tailscale-gate" { FUNNEL } else { service.service };
        let told = judge.reasons.iter().filter(|reason| reason.about == about).map(|reason| reason.level);
        service.level = told.fold(service.level, Level::max);
    }
    reasons.append(&mut judge.reasons);
    if !is_fresh && !services.iter().any(|service| service.runs) {
        let reason = "nothing of the hub runs here, so none of this is up to date";
        reasons.push(Reason::new(Level::Degraded, "services", reason, facts.start_all()));
    }
    let doctor = facts.hub("doctor");
    reasons.extend(unreadable.iter().map(|trouble| {
        let mend =
            if trouble.is_denied { "run it as root, or: usermod -aG hub NAME, and log in again" } else { &doctor };
        Reason::new(Level::Degraded, "state", &trouble.sentence, mend)
    }));
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
    Status {
        status: reasons.iter().map(|reason| reason.level).max().unwrap_or(Level::Healthy),
        reasons,
        time: rfc3339(facts.now),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: crate::VERSION,
        configuration: Configuration {
            path: facts.path.clone(),
            found: facts.config.as_ref().map_or(true, |config| config.path.is_some()),
            error: facts.config.as_ref().err().cloned(),
        },
        state_dir: facts.state_dir.clone(),
        services,
        repositories,
        queue,
        pipelines,
        funnel,
        unreadable,
        now: facts.now,
        is_fresh,
    }
}
