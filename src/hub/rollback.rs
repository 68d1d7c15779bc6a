use std::path::PathBuf;

use super::Error;
use crate::config::Config;
use crate::gitops::{self, Back};
use crate::hint::hint;
use crate::program::{Exit, print};
use crate::records::{revert, short};
use crate::{log, text};

/// Go back to an earlier deployed commit, at once, and hold the repository there.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "rollback",
    note = "The remote is not asked. It is a deployment like any other: what does not come up is taken back. Deployments of \
            the repository are on hold then, until hub release. hub versions lists what was deployed.",
    example = "hub rollback acme/infra",
    example = "hub rollback acme/infra 1c0ffee5a1 --dry-run",
    error_code(3, "The commit failed; what was live before is live again."),
    error_code(4, "It failed, and what was live before could not be restored whole."),
    error_code(5, "It was refused: never deployed here, not signed, local changes, a unit of somebody else's."),
    error_code(75, "A deployment of the repository is at work.")
)]
pub(super) struct Arguments {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml
    repository: String,
    #[argh(positional, arg_name = "COMMIT")]
    /// the commit, or the beginning of its name (default: what was live before)
    commit: Option<String>,
    /// show what would be done and change nothing
    #[argh(switch)]
    dry_run: bool,
    /// deploy units to the calling user's own systemd manager
    #[argh(switch)]
    user_units: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<Exit, Error> {
    log::to_stderr();
    // As gitops-sync has it: checkouts are to be as readable as with any other git.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let config = Config::load(arguments.config.as_deref())?;
    let repository = config.repository(&arguments.repository)?;
    let commit = arguments.commit.as_deref();
    let back = Back { commit, dry_run: arguments.dry_run, user_units: arguments.user_units };
    let done = gitops::rollback(&config, repository, back).map_err(Error::Gitops)?;
    if arguments.json {
        print(&text::json(&done.record, false));
        return Ok(done.exit);
    }
    let name = &repository.name;
    let to = done.to.as_deref().map_or_else(String::new, |to| {
        let subject = done.subject.as_ref().filter(|subject| !subject.is_empty());
        format!("{}{}", short(to), subject.map_or_else(String::new, |subject| format!(" \"{}\"", text::shown(subject))))
    });
    let from = done.from.as_deref().map_or("nothing", short);
    match done.exit {
        Exit::Done if arguments.dry_run => print(&format!("{name} would go back from {from} to {to}")),
        Exit::Done => {
            let resume = hint("hub", &format!("release {name}"));
            let first = match (done.to.as_deref(), done.went_back_from.as_deref()) {
                (Some(to), Some(from)) => format!("push a revert ({}), then ", revert(to, from)),
                _ => String::new(),
            };
            print(&format!("{name} is back on {to} and on hold; {first}resume with: {resume}"));
        }
        _ => print(&format!(
            "{name} did not go back: {}",
            done.reason.as_deref().unwrap_or("the log above has the reason")
        )),
    }
    for line in done
        .lines
        .iter()
        .map(|line| text::shown(line))
        .chain(done.reason.as_deref().filter(|_| done.exit == Exit::Done).map(text::shown))
    {
        print(&format!("    {line}"));
    }
    Ok(done.exit)
}
