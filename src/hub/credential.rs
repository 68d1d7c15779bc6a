//! Where this installation keeps its credentials, and the one way to make one.

use std::path::Path;

use super::Error;
use crate::config::{CREDSTORE, Config, Credentials};
use crate::random;
use crate::state::Folder;

const INSTALLED: [&str; 2] = ["/etc/systemd/system/proxy.service", "/usr/lib/systemd/system/proxy.service"];

/// Where the installed services find their credentials, for root; else where this user's do.
pub(super) struct Store {
    pub credentials: Credentials,
    /// True for root on a host where the units are installed.
    pub installed: bool,
}

impl Store {
    pub fn of(config: &Config) -> Self {
        let installed = rustix::process::geteuid().is_root() && INSTALLED.iter().any(|unit| Path::new(unit).exists());
        let credentials = if installed { Credentials::in_folder(Path::new(CREDSTORE)) } else { config.credentials() };
        Self { credentials, installed }
    }

    /// Makes a credential that nobody can guess: a line of 64 hex digits, mode 0600.
    ///
    /// # Errors
    /// When a folder on the way cannot be made, or the file cannot be written.
    pub fn make(&self, config: &Config, name: &str) -> Result<(), Error> {
        let line = format!("{}{}", random::id().map_err(Error::no_random)?, random::id().map_err(Error::no_random)?);
        Folder::open_or_make(&config.state_dir, 0o755)?;
        let folder = Folder::open_or_make(self.credentials.folder(), 0o700)?;
        Ok(folder.publish(name, format!("{line}\n").as_bytes(), 0o600)?)
    }
}
