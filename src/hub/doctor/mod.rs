//! `hub doctor`: looks at everything the services need and says, for each finding, the command that mends it.
//! Nothing is mended here. What gate, gitops, reading and store need is asked of them, not guessed at.
//! Every look has a deadline, and one that fails costs its own finding only.

mod findings;
mod host;
mod listeners;
mod past;
mod patient;
mod report;
mod repositories;
mod running;
mod setup;
mod sources;
mod units;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use super::service::Service;
use super::terminal::Terminal;
use super::units::look;
use crate::config::{CREDSTORE, Config, DEFAULT_PATH};
use crate::program::print;
use crate::state::SYSTEM_ROOT;
use crate::{command, state, systemd};
use findings::{AS_ROOT, Finding, Findings, Level, Report};
use patient::Patient;

/// Look at configuration, secrets, databases, remotes, tailscale, units and host, and show how to fix what is wrong.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "doctor",
    note = "Run it as root to have everything looked at; what another user may not see is named and counts for nothing. It \
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
