//! Reading metrics, which makes and changes nothing: by whoever may read the database.

use std::time::Instant;

use super::Error;
use super::engine::Reader;
use super::readings::Noted;
use crate::config::{Config, DatabaseUrl};
use crate::kinds::{Found, Wanted};

/// An open database that is only read, whatever version its schema has.
pub struct Look {
    reader: Box<dyn Reader>,
}

impl Look {
    /// Opens the database that the configuration names.
    ///
    /// # Errors
    /// When the URL is unusable, this build lacks the engine, or the database is not there or cannot be read.
    pub fn open(config: &Config) -> Result<Self, Error> {
        Self::open_until(config, None)
    }

    /// The same; a server is waited for until then at most, now and later, and is then asked to give up.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_until(config: &Config, until: Option<Instant>) -> Result<Self, Error> {
        let url = config.database_url().map_err(|error| Error::Config(error.to_string()))?;
        let reader = match url.sqlite_path() {
            Some(path) => open_sqlite(config, path)?,
            None => open_postgres(&url, until)?,
        };
        Ok(Self { reader })
    }

    /// The hosts that have metrics, in the order of their names.
    ///
    /// # Errors
    /// When the database cannot be read, or has no metrics.
    pub fn hosts(&mut self) -> Result<Vec<String>, Error> {
        self.reader.hosts()
    }

    /// Hands every number of a host that is wanted to `take`, from one time up to another (milliseconds since 1970, the end
    /// excluded), in no order. It takes as long as what there is is large, however long the time is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn samples(
        &mut self,
        host: &str,
        wanted: &Wanted,
        times: (i64, i64),
        mut take: impl FnMut(Found<'_>),
    ) -> Result<(), Error> {
        self.reader.samples(host, wanted, times, &mut take)
    }

    /// The newest dead letters, the newest first.
    ///
    /// # Errors
    /// When the database cannot be read, or has no table of them.
    pub fn newest_dead_letters(&mut self, most: u32) -> Result<Vec<Noted>, Error> {
        self.reader.newest_dead_letters(most)
    }

    /// From when on the hours of a host are counted (milliseconds since 1970), which are cheaper to read than its rows and
    /// kept for longer; none where no hours are kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn counted_from(&mut self, host: &str) -> Result<Option<i64>, Error> {
        self.reader.counted_from(host)
    }

    /// The same of every hour of a host that begins within these times.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn hours(
        &mut self,
        host: &str,
        wanted: &Wanted,
        times: (i64, i64),
        mut take: impl FnMut(Found<'_>),
    ) -> Result<(), Error> {
        self.reader.hours(host, wanted, times, &mut take)
    }
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(config: &Config, path: &str) -> Result<Box<dyn Reader>, Error> {
    Ok(Box::new(super::sqlite::Reader::open(config, path)?))
}

#[cfg(not(feature = "sqlite"))]
fn open_sqlite(_: &Config, _: &str) -> Result<Box<dyn Reader>, Error> {
    Err(super::not_built_in("SQLite", "sqlite"))
}

#[cfg(feature = "postgres")]
fn open_postgres(url: &DatabaseUrl, until: Option<Instant>) -> Result<Box<dyn Reader>, Error> {
    Ok(Box::new(super::postgres::Reader::open(url, until)?))
}

#[cfg(not(feature = "postgres"))]
fn open_postgres(_: &DatabaseUrl, _: Option<Instant>) -> Result<Box<dyn Reader>, Error> {
    Err(super::not_built_in("PostgreSQL", "postgres"))
}
