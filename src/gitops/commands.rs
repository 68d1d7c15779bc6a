use std::time::Duration;

use super::Error;
use super::checkout::Checkout;
use crate::command::Command;
use crate::config::{Config, Repository};
use crate::log;

/// Runs one of the repository's own commands (`build`, `after`) in the checkout, as its user. An empty one is done.
///
/// The command sees `HUB_REPOSITORY` and `HUB_COMMIT` besides what every child sees. What it leaves running is ended
/// with it.
pub(super) fn run(
    config: &Config,
    repository: &Repository,
    checkout: &Checkout,
    step: &'static str,
    commit: &str,
) -> Result<(), Error> {
    let argv = if step == "build" { &repository.build } else { &repository.after };
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let started = std::time::Instant::now();
    let output = Command::new(program, Duration::from_secs(config.gitops.command_timeout_seconds))
        .args(arguments)
        .user(&checkout.user)
        .folder(&repository.path)
        .env("HUB_REPOSITORY", &repository.name)
        .env("HUB_COMMIT", commit)
        .output_tail()
        .succeed()
        .map_err(|error| Error::Step { step, reason: error.to_string() })?;
    let duration = started.elapsed().as_millis() as u64;
    let said = log::printable(&output.stdout);
    log::info!("command_done", repo = repository.name, step = step, duration_ms = duration, output = said);
    Ok(())
}
