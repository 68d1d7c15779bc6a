use std::path::PathBuf;

use super::{Error, names};
use crate::config::Config;
use crate::hint::hint;
use crate::program::print;
use crate::{gitops, log};

/// Stop and remove the units of a repository that is gone from hub.toml, and forget the repository.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "remove",
    note = "Its checkout stays. A removal that was cut off is finished by the next one. A repository that got another name \
            is not removed: write formerly = [\"acme/old\"] into its [[repository]].",
    example = "hub remove acme/infra --dry-run"
)]
pub(super) struct Arguments {
    #[argh(positional, arg_name = "GONE")]
    /// owner/name, or the id, that hub.toml had
    repository: String,
    /// show what would be done and change nothing
    #[argh(switch)]
    dry_run: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    log::to_stderr();
    let config = Config::load(arguments.config.as_deref())?;
    let name = &arguments.repository;
    if let Some(known) = config.repositories.iter().find(|repository| repository.is_known_as(name)) {
        return Err(Error::Usage(format!(
            "{} is still in hub.toml; take its [[repository]] out first, or suspend it: {}",
            known.name,
            hint("hub", &format!("hold {}", known.name))
        )));
    }
    let lines = gitops::remove(&config, name, arguments.dry_run).map_err(Error::Gitops)?;
    let Some(lines) = lines else {
        let gone = names::gone(&config)?;
        let others = if gone.is_empty() { "none".to_owned() } else { gone.join(", ") };
        return Err(Error::Usage(format!("nothing is kept of {name}; gone from hub.toml and with units: {others}")));
    };
    print(&lines.join("\n"));
    Ok(())
}
