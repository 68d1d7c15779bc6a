//! `hub doctor`: looks at everything the services need and says, for each finding, the command that mends it.
//! Nothing is mended here. What gate, gitops, reading and store need is asked of them, not guessed at.
//! Every look has a deadline, and one that fails costs its own finding only.

mod host;
mod listeners;
mod past;
mod report;
mod repositories;
mod running;
mod setup;
mod sources;
mod units;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use serde::Serialize;

use super::Service;
use super::terminal::Terminal;
use super::units::{Units, look};
use crate::config::{CREDSTORE, Config, Credentials, DEFAULT_PATH};
use crate::hint::command_line;
use crate::program::print;
use crate::state::SYSTEM_ROOT;
use crate::{command, state, systemd};
use past::Past;

/// Look at configuration, secrets, databases, remotes, tailscale, units and host, and say what to do about what is wrong.
#[derive(argh::FromArgs)]
#[argh(
    subcommand,
    name = "doctor",
    note = "Run it as root to have everything looked at; what another user may not see is said and counts for nothing. It \
            opens the database as the services do, which makes the tables that are missing, and changes nothing else.",
    example = "hub doctor\nhub doctor --json | jq '.findings[] | select(.level == \"problem\")'",
    error_code(0, "Nothing is wrong with what was looked at."),
    error_code(1, "There are warnings, and no problem."),
    error_code(2, "There are problems; or the command line is wrong.")
)]
pub(super) struct Arguments {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// It could not be looked at.
    Skipped,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    level: Level,
    /// What it belongs to: `configuration`, `repository acme/infra` …
    about: String,
    finding: String,
    /// The command that mends it; none where nothing is to be done.
    mend: Option<String>,
}

/// How to see what another user may not; the program's path and `--config` come to it in the end.
const AS_ROOT: &str = "sudo hub doctor";

/// What was found so far about one thing.
#[derive(Debug)]
struct Findings {
    about: String,
    all: Vec<Finding>,
}

impl Findings {
    fn new(about: impl Into<String>) -> Self {
        Self { about: about.into(), all: Vec::new() }
    }

    fn add(&mut self, level: Level, finding: impl Into<String>, mend: Option<String>) {
        self.all.push(Finding { level, about: self.about.clone(), finding: finding.into(), mend });
    }

    fn ok(&mut self, finding: impl Into<String>) {
        self.add(Level::Ok, finding, None);
    }

    fn skipped(&mut self, finding: impl Into<String>) {
        self.add(Level::Skipped, finding, Some(AS_ROOT.to_owned()));
    }

    fn warning(&mut self, finding: impl Into<String>, mend: impl Into<String>) {
        self.add(Level::Warning, finding, Some(mend.into()));
    }

    fn problem(&mut self, finding: impl Into<String>, mend: impl Into<String>) {
        self.add(Level::Problem, finding, Some(mend.into()));
    }
}

/// What every look starts from.
struct Patient<'a> {
    flag: Option<PathBuf>,
    path: PathBuf,
    config: Option<Config>,
    /// Or why it is not known.
    state_dir: Result<PathBuf, String>,
    /// None where systemd does not run this host, or does not answer.
    units: Option<Units>,
    is_root: bool,
    /// True for the installation of the whole host, in contrast to one that somebody runs with `hub up`.
    is_system: bool,
    services: &'a [Service],
    past: OnceLock<Past>,
}

impl Patient<'_> {
    /// What the services left, read and judged once.
    fn past(&self) -> &Past {
        self.past.get_or_init(|| Past::new(self))
    }

    /// True where the state, and what is in it, can be looked at by this user.
    fn sees_all(&self) -> bool {
        self.is_root || !self.is_system
    }

    /// Where the services find their secrets; where the configuration cannot be read, as far as that is known without it.
    fn credentials(&self) -> Option<Credentials> {
        match (&self.config, &self.state_dir) {
            (Some(config), _) => Some(config.credentials()),
            (None, _) if self.is_system => Some(Credentials::in_folder(Path::new(CREDSTORE))),
            (None, state) => state.as_ref().ok().map(|state| Credentials::in_folder(&state.join("credentials"))),
        }
    }

    /// The user that the gateway, the pipeline and the metrics run as.
    fn service_user(&self) -> String {
        let of_unit =
            self.units.iter().flatten().find(|(name, _)| *name == "proxy.service").map(|(_, unit)| &unit.user);
        of_unit.filter(|user| !user.is_empty()).cloned().unwrap_or_else(|| "hub".to_owned())
    }

    /// Another command of this hub, as it is to be typed for the same state and configuration.
    fn hub(&self, command: &str) -> String {
        command_line("hub", command, self.flag.as_deref())
    }
}

#[derive(Serialize)]
struct Report {
    /// The worst level.
    status: Level,
    user: String,
    configuration: PathBuf,
    state_dir: Option<PathBuf>,
    findings: Vec<Finding>,
}

/// Looks, shows what was found, and returns the exit code: 0 nothing, 1 warnings, 2 problems.
pub(super) fn main(arguments: &Arguments, services: &[Service]) -> ExitCode {
    // Standard output is the report's, whatever the rooms that are asked have to say.
    crate::log::to_stderr();
    let report = examine(arguments.config.clone(), services);
    if arguments.json {
        print(&crate::text::json(&report, true));
    } else {
        print(&report::format(&report, Terminal::stdout()));
    }
    ExitCode::from(match report.status {
        Level::Ok | Level::Skipped => 0,
        Level::Warning => 1,
        Level::Problem => 2,
    })
}

fn examine(flag: Option<PathBuf>, services: &[Service]) -> Report {
    let loaded = Config::load(flag.as_deref());
    let (config, config_error) = match loaded {
        Ok(config) => (Some(config), None),
        Err(error) => (None, Some(error)),
    };
    let state_dir = match &config {
        Some(config) => Ok(config.state_dir.clone()),
        None => state::root(None).map_err(|error| error.to_string()),
    };
    let (units, units_error) = match systemd::is_running().then(|| look(&[])) {
        None => (None, None),
        Some(Ok(looked)) => (Some(looked.own), None),
        Some(Err(error)) => (None, Some(error)),
    };
    let path = Config::file_path(flag.as_deref());
    let is_installed = units.iter().flatten().any(|(_, unit)| unit.is_installed());
    let is_its =
        path == Path::new(DEFAULT_PATH) && std::env::var_os("HUB_STATE_DIR").is_none_or(|value| value.is_empty());
    let is_system = state_dir.as_deref() == Ok(Path::new(SYSTEM_ROOT)) || is_installed && is_its;
    let config = match config {
        Some(config) if is_system => Some(config.with_credentials(Path::new(CREDSTORE))),
        other => other,
    };
    let patient = Patient {
        path,
        flag,
        config,
        state_dir,
        units,
        is_root: rustix::process::geteuid().is_root(),
        is_system,
        services,
        past: OnceLock::new(),
    };
    let mut findings = setup::configuration(&patient, config_error.as_ref());
    findings.extend(patient.past().configuration(&patient, config_error.as_ref()));
    findings.extend(setup::users(&patient));
    findings.extend(setup::state(&patient));
    findings.extend(setup::secrets(&patient));
    findings.extend(slow_looks(&patient));
    findings.extend(patient.past().rest(&patient));
    findings.extend(units::units(&patient, units_error.as_ref()));
    findings.extend(running::running(&patient));
    findings.extend(listeners::listeners(&patient));
    findings.extend(host::host(&patient));
    let as_root = format!("sudo {}", patient.hub("doctor"));
    for mend in findings.iter_mut().filter_map(|finding| finding.mend.as_mut()).filter(|mend| *mend == AS_ROOT) {
        mend.clone_from(&as_root);
    }
    Report {
        status: findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok),
        user: command::current().name,
        configuration: patient.path.clone(),
        state_dir: patient.state_dir.clone().ok(),
        findings,
    }
}

/// What waits for others is looked at side by side.
fn slow_looks(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(config) = &patient.config else {
        let mut findings = Findings::new("what the configuration names");
        let what = "repositories, database, pipelines, tailscale and listeners: the configuration comes first";
        findings.add(Level::Skipped, what, None);
        return findings.all;
    };
    let (patient, lost) = (&patient, |name: &str| {
        let mut findings = Findings::new(name);
        findings.problem("the look itself failed; please report this", "hub doctor --json");
        findings.all
    });
    std::thread::scope(|scope| {
        let repositories: Vec<_> = (config.repositories.iter())
            .map(|repository| (repository, scope.spawn(move || repositories::repository(patient, config, repository))))
            .collect();
        let database = scope.spawn(move || sources::database(patient, config));
        let pipelines: Vec<_> = (config.pipelines.iter())
            .map(|pipeline| (pipeline, scope.spawn(move || sources::pipeline(patient, config, pipeline))))
            .collect();
        let gate = scope.spawn(move || units::gate(patient, config));
        let mut findings = Vec::new();
        for (repository, look) in repositories {
            findings.extend(look.join().unwrap_or_else(|_| lost(&repository.name)));
        }
        findings.extend(database.join().unwrap_or_else(|_| lost("database")));
        for (pipeline, look) in pipelines {
            findings.extend(look.join().unwrap_or_else(|_| lost(&pipeline.name)));
            findings.extend(patient.past().pipeline(patient, config, pipeline));
        }
        findings.extend(gate.join().unwrap_or_else(|_| lost("tailscale")));
        findings
    })
}
