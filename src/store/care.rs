//! What the operator does to a whole database: look whether it is sound, copy it, read a damaged one.

use std::path::Path;

use super::Error;
pub use super::found::{Checked, Recovered, Table};
use crate::config::Config;

/// Looks at every page and index of a SQLite file, or whether a server answers.
///
/// # Errors
/// When it cannot be looked at; that it is damaged is no error.
pub fn check(config: &Config) -> Result<Checked, Error> {
    let url = config.database_url().map_err(|error| Error::Config(error.to_string()))?;
    match url.sqlite_path() {
        Some(path) => sqlite::check(config, path),
        None => {
            let mut store = super::Store::open(config)?;
            store.check()?;
            Ok(Checked { target: url.to_string(), notes: store.notes(), ..Checked::default() })
        }
    }
}

/// Copies a SQLite file as it is at one moment, while others write to it, into a file that is made.
///
/// # Errors
/// When the database is another one or damaged, or a file cannot be read or made; what was made of the copy is removed.
pub fn backup(config: &Config, to: &Path) -> Result<(), Error> {
    sqlite::backup(config, &sqlite_path(config, "pg_dump copies it")?, to)
}

/// Reads what can be read of a SQLite file, which stays as it is, into one that is made.
///
/// # Errors
/// As `backup`, but for the damage.
pub fn recover(config: &Config, to: &Path) -> Result<Recovered, Error> {
    sqlite::recover(config, &sqlite_path(config, "restore a dump of it")?, to)
}

fn sqlite_path(config: &Config, instead: &str) -> Result<String, Error> {
    let url = config.database_url().map_err(|error| Error::Config(error.to_string()))?;
    let path = url.sqlite_path().map(str::to_owned);
    path.ok_or_else(|| Error::Config(format!("{url}: is no SQLite file; {instead}")))
}

#[cfg(feature = "sqlite")]
use super::sqlite::copy as sqlite;

#[cfg(not(feature = "sqlite"))]
mod sqlite {
    use super::{Checked, Config, Error, Path, Recovered};
    use crate::store::not_built_in;

    pub(super) fn check(_: &Config, _: &str) -> Result<Checked, Error> {
        Err(not_built_in("SQLite", "sqlite"))
    }

    pub(super) fn backup(_: &Config, _: &str, _: &Path) -> Result<(), Error> {
        Err(not_built_in("SQLite", "sqlite"))
    }

    pub(super) fn recover(_: &Config, _: &str, _: &Path) -> Result<Recovered, Error> {
        Err(not_built_in("SQLite", "sqlite"))
    }
}
