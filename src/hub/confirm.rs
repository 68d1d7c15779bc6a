use std::path::PathBuf;

use super::Error;
use super::repository::Target;
use crate::command;
use crate::hint::hint;
use crate::log::rfc3339;
use crate::program::print;
use crate::records::{Confirmed, LAST_WORD, LONGEST_ENTRY, Open, short};

/// Keep a deployment that is on trial; without this it is taken back (key confirm_minutes of a repository).
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "confirm",
    note = "Run it from where you need to reach the host: that is what it is for.",
    example = "hub confirm acme/infra"
)]
pub(super) struct Arguments {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml
    repository: String,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let target = Target::find(&arguments.repository, arguments.config.as_deref())?;
    let open: Option<Open> = target.gitops("journal")?.read_json_within(&target.file, LONGEST_ENTRY)?;
    let trial = open.filter(|open| open.step == "confirm").and_then(|open| Some((open.confirm_until?, open.to)));
    let Some((until, to)) = trial else {
        return Err(Error::Usage(format!("no deployment of {} waits to be confirmed", target.name)));
    };
    let now = jiff::Timestamp::now();
    // Twice as early as the run that takes it back, so that this is on disk when that looks.
    if until.parse::<jiff::Timestamp>().is_ok_and(|until| until <= now + 2 * LAST_WORD) {
        let reason =
            format!("{} of {} had to be confirmed until {until}; it is being taken back", short(&to), target.name);
        return Err(Error::Usage(format!(
            "{reason}; to try it once more: {}",
            hint("hub", &format!("retry {}", target.name))
        )));
    }
    let confirmed = Confirmed { commit: to.clone(), at: rfc3339(now), by: command::current().name };
    target.gitops("confirmed")?.publish_json(&target.file, &confirmed)?;
    print(&format!("{} of {} stays", short(&to), target.name));
    // The next run writes it down. Where deployments are suspended that is the one that comes by itself.
    match target.queue_deployment() {
        Err(Error::OnHold(_)) => Ok(()),
        queued => queued,
    }
}
