//! The database: one type, two engines, SQLite and PostgreSQL, each behind its Cargo feature.
//! Only tables, their schema and moving rows live here; what is measured or read belongs to the capabilities.
//! Nothing here retries a write or keeps rows for later: callers do, helped by what `Error` says of itself.

mod batch;
pub mod care;
mod engine;
mod error;
mod events;
mod found;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod hourly;
mod look;
#[cfg(feature = "postgres")]
mod postgres;
mod readings;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use batch::Batch;
use engine::Engine;
use events::Events;

pub use batch::{METRICS_TABLE, MetricRow};
pub use error::Error;
pub use events::{EventRow, Shipped};
pub use look::Look;
pub use readings::{DeadLetter, Keys, Noted, Position, Reading, Readings, Rejected};

/// An open database whose schema is the one this program knows.
pub struct Store {
    engine: Box<dyn Engine>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database that the configuration names and brings its schema up to date: `system_metrics`, its views,
    /// and the tables of every configured pipeline. Takes at most 8 seconds on PostgreSQL, 16 when the schema is
    /// updated, and 5 on SQLite while another program holds the lock.
    ///
    /// # Errors
    /// When the URL is unusable, this build lacks the engine, the database cannot be reached or refuses the login, the
    /// role may not make what is missing (the error shows the SQL to run), or the schema is newer than this program.
    pub fn open(config: &Config) -> Result<Self, Error> {
        Self::open_until(config, None)
    }

    /// As `open`, for a caller who has no time beyond `until`: no call waits longer for PostgreSQL, this one included.
    /// SQLite is in the caller's own thread, and a call that waits for a lock takes its 5 seconds.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn open_until(config: &Config, until: Option<Instant>) -> Result<Self, Error> {
        let url = config.database_url().map_err(|error| Error::Config(error.to_string()))?;
        let engine = match url.sqlite_path() {
            Some(path) => open_sqlite(config, path)?,
            None => open_postgres(config, &url, until)?,
        };
        Ok(Self { engine })
    }

    /// Whether the configuration names a database that this build understands; it is not spoken to.
    ///
    /// # Errors
    /// What is wrong with the URL, without a piece of it.
    pub fn check_address(config: &Config) -> Result<(), Error> {
        let url = config.database_url().map_err(|error| Error::Config(error.to_string()))?;
        if url.sqlite_path().is_some() { Ok(()) } else { check_postgres(&url) }
    }

    /// Stores rows, all or none, in one short transaction (one round trip on PostgreSQL). A row that is there already,
    /// by host, time and `metric_type`, is left as it is, so a batch may be sent again. What is new is counted in
    /// `metrics_hourly` along with it. Takes at most 6.5 seconds on
    /// PostgreSQL (after that the call is given up and the store must be opened anew), and 5 on SQLite.
    ///
    /// What happened on the host goes with them; an event that is there already, by host, service, time, kind and what it is
    /// about, is left as it is. Where the table of events cannot be used, or refuses one, the rows are stored all the same.
    /// Without rows nothing is stored.
    ///
    /// # Errors
    /// When the database cannot be used, or refuses a row for itself (`Error::is_row_refused`); nothing is stored then.
    pub fn insert_metrics(&mut self, rows: &[MetricRow], events: &[EventRow]) -> Result<Shipped, Error> {
        let batch = Batch::new(rows)?;
        if rows.is_empty() {
            return Ok(Shipped::default());
        }
        self.engine.insert_metrics(batch, Events::new(events))
    }

    /// Deletes metrics older than `days`, in batches with a transaction each, for at most two seconds; what is left is
    /// for the next call. 0 keeps all, and so does a database whose rows of earlier versions are not all in `metrics_hourly`
    /// yet. A table that the hub did not create is trimmed only where hub.toml has
    /// `metrics.retention_days`. Returns how many rows went; where TimescaleDB drops whole chunks, 0.
    ///
    /// # Errors
    /// When the database cannot be used or the role may not delete.
    pub fn delete_old_metrics(&mut self, days: u32) -> Result<u64, Error> {
        if days == 0 { Ok(0) } else { self.engine.delete_old_metrics(days) }
    }

    /// Deletes hours of `metrics_hourly` that are older than `days`, as `delete_old_metrics` does it with minutes.
    ///
    /// # Errors
    /// When the database cannot be used or the role may not delete.
    pub fn delete_old_hours(&mut self, days: u32) -> Result<u64, Error> {
        if days == 0 { Ok(0) } else { self.engine.delete_old_hours(days) }
    }

    /// Stores a batch of readings and dead letters, all or none, durably, in one transaction. A row that is there
    /// already, by `mongo_id`, is brought to the newest content. Returns how many rows were new or changed.
    ///
    /// # Errors
    /// When the database cannot be used, or refuses a row for itself (`Error::is_row_refused`, whose index says
    /// nothing here); nothing is stored then.
    pub fn insert_readings(&mut self, batch: &Arc<Readings>) -> Result<u64, Error> {
        self.engine.insert_readings(batch)
    }

    /// The dead letters of a pipeline, or of all, oldest first.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn dead_letters(&mut self, pipeline: Option<&str>) -> Result<Vec<DeadLetter>, Error> {
        self.engine.dead_letters(pipeline)
    }

    /// How many every pipeline has, by name; those that have none are missing.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn count_dead_letters(&mut self) -> Result<BTreeMap<String, u64>, Error> {
        self.engine.count_dead_letters()
    }

    /// A dead letter with its document; none where there is none of this number.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn dead_letter(&mut self, id: i64) -> Result<Option<(DeadLetter, Vec<u8>)>, Error> {
        self.engine.dead_letter(id)
    }

    /// Removes a dead letter for good; false where there is none of this number.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn drop_dead_letter(&mut self, id: i64) -> Result<bool, Error> {
        self.engine.drop_dead_letter(id)
    }

    /// Gives a dead letter to another pipeline; false where there is none of this number, or that pipeline has one of
    /// the same document.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn move_dead_letter(&mut self, id: i64, pipeline: &str) -> Result<bool, Error> {
        self.engine.move_dead_letter(id, pipeline)
    }

    /// Which ids are one in a pipeline's table.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn keys(&mut self, table: &str) -> Result<Keys, Error> {
        self.engine.keys(table)
    }

    /// How far a pipeline with a cursor is; none where it has not begun.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn position(&mut self, pipeline: &str) -> Result<Option<Position>, Error> {
        self.engine.position(pipeline)
    }

    /// Takes back the dead letters of these ids that were made by one try, and puts the pipeline's position where it was.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn take_back(&mut self, pipeline: &str, ids: &[String], position: Option<&Position>) -> Result<(), Error> {
        self.engine.take_back(pipeline, ids, position)
    }

    /// Deletes rows of a pipeline's table whose events, or where that is not known they themselves, are older than
    /// `days`, in batches with a transaction each, until `until`; what is left is for the next call. 0 keeps all. Returns
    /// how many rows went.
    ///
    /// # Errors
    /// When the database cannot be used or the role may not delete.
    pub fn delete_old_readings(&mut self, table: &str, days: u32, until: Instant) -> Result<u64, Error> {
        if days == 0 { Ok(0) } else { self.engine.delete_old_readings(table, days, until) }
    }

    /// What is unusual about the database: an encoding that lacks characters, what somebody dropped and is made again.
    pub fn notes(&self) -> Vec<String> {
        self.engine.notes()
    }

    /// One cheap round trip that touches the hub's own table.
    ///
    /// # Errors
    /// When the database does not answer, or not as it should.
    pub fn check(&mut self) -> Result<(), Error> {
        self.engine.check()
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(config: &Config, path: &str) -> Result<Box<dyn Engine>, Error> {
    Ok(Box::new(sqlite::Sqlite::open(config, path)?))
}

#[cfg(not(feature = "sqlite"))]
fn open_sqlite(_: &Config, _: &str) -> Result<Box<dyn Engine>, Error> {
    Err(not_built_in("SQLite", "sqlite"))
}

#[cfg(feature = "postgres")]
fn open_postgres(
    config: &Config,
    url: &crate::config::DatabaseUrl,
    until: Option<Instant>,
) -> Result<Box<dyn Engine>, Error> {
    Ok(Box::new(postgres::Postgres::open(config, url, until)?))
}

#[cfg(feature = "postgres")]
fn check_postgres(url: &crate::config::DatabaseUrl) -> Result<(), Error> {
    postgres::check_address(url)
}

#[cfg(not(feature = "postgres"))]
fn check_postgres(_: &crate::config::DatabaseUrl) -> Result<(), Error> {
    Err(not_built_in("PostgreSQL", "postgres"))
}

#[cfg(not(feature = "postgres"))]
fn open_postgres(_: &Config, _: &crate::config::DatabaseUrl, _: Option<Instant>) -> Result<Box<dyn Engine>, Error> {
    Err(not_built_in("PostgreSQL", "postgres"))
}

#[cfg(not(all(feature = "postgres", feature = "sqlite")))]
fn not_built_in(name: &str, feature: &str) -> Error {
    Error::Config(format!(
        "database.url names {name}, which this build leaves out; build with: cargo build --release --features {feature}"
    ))
}
