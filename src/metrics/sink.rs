use std::time::Instant;

use crate::config::Config;
use crate::store::{self, EventRow, MetricRow, Shipped, Store};

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database refuses one row for itself.
    Refused { index: usize, reason: String },
    /// The database cannot be used; everything waits.
    Unavailable(String),
}

/// What can store rows, each batch whole or not at all.
pub(super) trait Sink {
    /// Stores rows, and what happened with them; what became of that is told.
    ///
    /// # Errors
    /// When nothing of the rows is stored.
    fn insert(&mut self, rows: &[MetricRow], events: &[EventRow]) -> Result<Shipped, Failure>;
}

/// The configured database, which is opened with the first request. A batch that is given up and stored all the same is
/// stored again from the spool, which the table's unique key makes harmless.
pub(super) struct Database<'a> {
    config: &'a Config,
    /// When the run has no more time for it.
    until: Instant,
    open: Option<Store>,
}

impl<'a> Database<'a> {
    pub(super) fn new(config: &'a Config, until: Instant) -> Self {
        Self { config, until, open: None }
    }

    /// Deletes rows older than `days`, and hours older than `hourly` days.
    ///
    /// # Errors
    /// When the database cannot be used, or does not answer in time.
    pub(super) fn delete_old(&mut self, days: u32, hourly: u32) -> Result<u64, Failure> {
        self.ask(|store| Ok(store.delete_old_metrics(days)? + store.delete_old_hours(hourly)?))
    }

    fn ask<T>(&mut self, request: impl FnOnce(&mut Store) -> Result<T, store::Error>) -> Result<T, Failure> {
        if Instant::now() >= self.until {
            return Err(Failure::Unavailable("the database did not answer within the run's time".to_owned()));
        }
        let opened = match self.open.take() {
            Some(open) => Ok(open),
            None => Store::open_until(self.config, Some(self.until)),
        };
        opened.and_then(|open| request(self.open.insert(open))).map_err(|error| match error.is_row_refused() {
            Some(index) => Failure::Refused { index, reason: error.to_string() },
            None => Failure::Unavailable(error.to_string()),
        })
    }
}

impl Sink for Database<'_> {
    fn insert(&mut self, rows: &[MetricRow], events: &[EventRow]) -> Result<Shipped, Failure> {
        self.ask(|store| store.insert_metrics(rows, events))
    }
}
