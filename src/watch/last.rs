//! The last hub.toml that was valid: by it the host says that the one on the disk cannot be read.

use std::path::Path;

use crate::config::Config;
use crate::log;
use crate::state::{self, Folder};

/// It may hold the names of topics and tokens: nobody but this account reads it.
const FILE: &str = "hub.toml";
const LONGEST: usize = 1 << 20;

/// Keeps the configuration that is in force.
pub fn remember(config: &Config) {
    let Some(path) = &config.path else { return };
    // Between the two looks at the file somebody may have written another one.
    let text = std::fs::read_to_string(path).ok().filter(|text| Config::of_text(path, text).is_ok());
    let (Some(text), Some(folder)) = (text, folder(&config.state_dir)) else { return };
    if folder.read(FILE, LONGEST).is_ok_and(|kept| kept.is_some_and(|kept| kept == text.as_bytes())) {
        return;
    }
    if let Err(error) = folder.replace(FILE, text.as_bytes(), 0o600) {
        log::warn!("configuration_not_kept", error = error.to_string());
    }
}

/// The configuration that was in force last; none where none was kept. `flag` is `--config`.
pub fn last_valid(flag: Option<&Path>) -> Option<Config> {
    // Where hub.toml named another state folder, nobody knows which.
    let state_dir = state::root(None).ok()?;
    // Root obeys nothing that another account may have written.
    if let Err(error) = state::become_owner(&state_dir.join("watch")) {
        log::warn!("last_configuration_not_read", error = error.to_string());
        return None;
    }
    let kept = folder(&state_dir)?.read(FILE, LONGEST).ok()??;
    Config::of_text(&Config::file_path(flag), std::str::from_utf8(&kept).ok()?).ok()
}

fn folder(state_dir: &Path) -> Option<Folder> {
    Folder::open(state_dir).and_then(|root| root.sub("watch")).ok()
}
