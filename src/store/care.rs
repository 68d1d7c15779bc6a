//! What the operator does to a whole database: look whether it is sound, copy it, read a damaged one.

use std::collections::BTreeMap;
use std::path::Path;

use super::Error;
use crate::config::Config;

/// What a look at every page found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Which database, without secrets.
    pub target: String,
    /// What is damaged, in the words of the database, at most twenty of them.
    pub faults: Vec<String>,
    /// What is unusual about it, and no damage.
    pub notes: Vec<String>,
    /// How many rows every table has; none for one that cannot be counted.
    pub tables: BTreeMap<String, Option<u64>>,
}

/// What became of a damaged file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Why the tables had to be found without the file's own list of them, where that is so.
    pub head: Option<String>,
    /// By name.
    pub tables: BTreeMap<String, Table>,
    /// Pages of tables that could not be read.
    pub bad_pages: u64,
    /// Indexes that were damaged; they are made anew.
    pub bad_indexes: Vec<String>,
    /// Rows that no table takes, or more than one.
    pub homeless: u64,
}

/// What became of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Rows in the new file.
    pub rows: u64,
    /// Of these, rows on pages that nothing led to any more: one that was deleted long ago may be among them.
    pub strays: u64,
    /// Rows that were seen, and could not be read.
    pub lost: u64,
    /// Rows that were read, and that the new table does not take.
    pub refused: u64,
    /// How many rows there were, by an index that is sound.
    pub expected: Option<u64>,
}

impl Table {
    /// Counts a row that was put, or was not.
    #[cfg(feature = "sqlite")]
    pub(super) fn count(&mut self, put: bool) {
        if put {
            self.rows += 1;
        } else {
            self.refused += 1;
        }
    }

    /// How many rows are missing, as far as that is known.
    pub fn missing(&self) -> u64 {
        let by_index = self.expected.map_or(0, |expected| expected.saturating_sub(self.rows));
        by_index.max(self.lost + self.refused)
    }
}

impl Recovered {
    /// Whether all that was there is in the new file, as far as can be told.
    pub fn is_whole(&self) -> bool {
        let nothing = self.bad_pages == 0 && self.homeless == 0 && self.head.is_none();
        nothing && self.tables.values().all(|table| table.missing() == 0)
    }
}

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
