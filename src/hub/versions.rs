use std::path::PathBuf;

use super::Error;
use super::repository::Target;
use crate::hint::hint;
use crate::program::print;
use crate::records::versions::{Version, Versions};
use crate::records::{Deployed, Hold, short};
use crate::text;

/// Show which commits of a repository were deployed here, newest first.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "versions",
    note = "The last 50 are kept, also where the branch was rewritten since. * is live; - was left by hub rollback.",
    example = "hub versions acme/infra"
)]
pub(super) struct Arguments {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml
    repository: String,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let target = Target::find(&arguments.repository, arguments.config.as_deref())?;
    let Versions { versions, .. } = target.read("versions")?.unwrap_or_default();
    let live: Option<Deployed> = target.read("deployed")?;
    let live = live.map(|live| live.commit);
    let hold: Option<Hold> = target.read("hold")?;
    if arguments.json {
        let record = serde_json::json!({
            "repository": target.name, "live": live, "hold": hold, "versions": versions,
        });
        print(&text::json(&record, true));
        return Ok(());
    }
    if versions.is_empty() {
        print(&format!("nothing of {} was deployed here yet", target.name));
    }
    for Version { commit, at, by, left, about } in &versions {
        let mark = match left {
            _ if live.as_ref() == Some(commit) => '*',
            Some(_) => '-',
            None => ' ',
        };
        let by = by.as_ref().map_or_else(String::new, |by| format!(", by {by}"));
        let line = format!("{mark} {}  {at}  {} ({}{by})", short(commit), about.subject, about.author);
        print(&text::shown(&line));
    }
    if let Some(hold) = hold {
        let why = hold.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let resume = hint("hub", &format!("release {}", target.name));
        print(&text::shown(&format!("on hold{why}; {resume} resumes deployments")));
    }
    Ok(())
}
