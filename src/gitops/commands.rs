use std::path::Path;
use std::time::Duration;

use super::Error;
use super::checkout::Checkout;
use super::journal::Step;
use super::units::Manager;
use crate::command::{self, Command};
use crate::config::{Config, Repository};
use crate::log;
use crate::state::repository_file_name;

const BUILD: &str = "build";
const AFTER: &str = "after";

/// Runs one of the repository's own commands (`build`, `after`) in the checkout, as its user. An empty one is done.
///
/// Under the host's systemd it is a transient unit of that user, elsewhere a child. The command sees `HUB_REPOSITORY`
/// and `HUB_COMMIT`; what it leaves running is ended with it.
pub(super) fn run(
    config: &Config,
    repository: &Repository,
    checkout: &Checkout,
    manager: Option<Manager>,
    step: Step,
    commit: &str,
) -> Result<(), Error> {
    let (step, argv) = match step {
        Step::Build => (BUILD, &repository.build),
        Step::After => (AFTER, &repository.after),
        _ => return Ok(()),
    };
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let started = std::time::Instant::now();
    let limit = Duration::from_secs(config.gitops.command_timeout_seconds);
    let variables = [("HUB_REPOSITORY", repository.full_name.as_str()), ("HUB_COMMIT", commit)];
    let command = if manager == Some(Manager::System) {
        // systemd ends the unit at the limit; the client is given a little longer to hear of it.
        let mut command = Command::new("systemd-run", limit + Duration::from_secs(15))
            .args(["--wait", "--pipe", "--collect", "--quiet", "--service-type=exec"])
            .args([format!("--unit={}", unit(step, &repository.name)), format!("--uid={}", checkout.user.name)])
            .args([format!("--working-directory={}", repository.path.display())])
            .args([format!("--property=RuntimeMaxSec={}", limit.as_secs()), "--property=TimeoutStopSec=5s".to_owned()])
            .args(["--property=OOMPolicy=stop", "--slice=system.slice"]);
        for (name, value) in variables {
            command = command.args([format!("--setenv={name}={value}")]);
        }
        // The manager expands $VARIABLES in the arguments of a service, and takes $$ for a dollar sign.
        let arguments = arguments.iter().map(|argument| argument.replace('$', "$$"));
        command.args(["--"]).args([absolute(program, &repository.path)]).args(arguments)
    } else {
        let command = Command::new(program, limit).args(arguments).user(&checkout.user).folder(&repository.path);
        variables.iter().fold(command, |command, (name, value)| command.env(name, value))
    };
    let output = command
        .name(argv.join(" "))
        .output_tail()
        .succeed()
        .map_err(|error| match error {
            // systemd-run ends with 1 when the manager ended the unit at its limit.
            command::Error::Failed { command, output, .. } if started.elapsed() >= limit => {
                command::Error::Deadline { command, limit, output }
            }
            error => error,
        })
        .map_err(|error| Error::Step { step, reason: error.to_string() })?;
    let duration = started.elapsed().as_millis() as u64;
    let said = log::printable(&output.stdout);
    log::info!("command_done", repo = repository.name, step = step, duration_ms = duration, output = said);
    Ok(())
}

fn unit(step: &str, repository: &str) -> String {
    format!("hub-{step}-{}.service", repository_file_name(repository))
}

/// Ends the commands that a killed run left at work.
pub(super) fn end_leftovers(manager: Manager, repository: &str) -> Result<(), Error> {
    manager.stop_active(&[unit(BUILD, repository), unit(AFTER, repository)]).map_err(Into::into)
}

/// systemd-run looks a bare name up on its own PATH, and takes a path only whole.
fn absolute(program: &str, folder: &Path) -> std::path::PathBuf {
    if program.contains('/') { folder.join(program) } else { program.into() }
}
