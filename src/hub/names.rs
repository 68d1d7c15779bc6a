//! What a shell completes: `hub names KIND [--config PATH]` prints names, one a line. No help lists it; the completions ask it.
//! Who presses a key wants no error in the middle of a line, so where nothing can be read there is nothing to print.

use std::ffi::OsString;
use std::path::Path;

use crate::config::Config;
use crate::program::{Exit, print};
use crate::records::Reader;
use crate::state::{self, Folder};
use crate::systemd::OWN;

/// The word that asks for it.
pub(super) const WORD: &str = "names";

pub(super) fn main(words: &[OsString]) -> Exit {
    let config = match words {
        [_, flag, path, ..] if flag == "--config" => Some(Path::new(path)),
        _ => None,
    };
    let kind = words.first().and_then(|word| word.to_str()).unwrap_or_default();
    let names = Config::load(config).map(|config| names(kind, &config)).unwrap_or_default();
    if !names.is_empty() {
        print(&names.join("\n"));
    }
    Exit::Done
}

fn names(kind: &str, config: &Config) -> Vec<String> {
    let repositories = || config.repositories.iter().map(|repository| repository.name.clone());
    let pipelines = || config.pipelines.iter().map(|pipeline| pipeline.name.clone());
    let services = || OWN.iter().map(|own| own.name.to_owned());
    match kind {
        "repositories" => repositories().collect(),
        "gone" => gone(config).unwrap_or_default(),
        "pipelines" => pipelines().collect(),
        "services" => services().collect(),
        "all" => repositories().chain(pipelines()).chain(services()).collect(),
        _ => Vec::new(),
    }
}

/// Repositories that hub.toml has no more, and whose units are still here.
pub(super) fn gone(config: &Config) -> Result<Vec<String>, state::Error> {
    let root = Folder::open(&config.state_dir)?;
    let known = |owner: &String| config.repositories.iter().any(|repository| repository.is_known_as(owner));
    Ok(Reader::new(&root).owners().into_keys().filter(|owner| !known(owner)).collect())
}
