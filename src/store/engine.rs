//! What each engine can do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Error;
use super::batch::Batch;
use super::events::{Events, Shipped};
use super::readings::{DeadLetter, Keys, Noted, Position, Readings};
use crate::kinds::{Found, Wanted};

/// What a database must be able to do.
pub(super) trait Engine: ReadingStore + Send {
    fn insert_metrics(&mut self, batch: Batch, events: Events) -> Result<Shipped, Error>;
    fn delete_old_metrics(&mut self, days: u32) -> Result<u64, Error>;
    fn delete_old_hours(&mut self, days: u32) -> Result<u64, Error>;
    fn check(&mut self) -> Result<(), Error>;
    /// What whoever opens it should know of it.
    fn notes(&self) -> Vec<String>;
}

/// What a database must be able to do for the reading pipeline.
pub(super) trait ReadingStore {
    fn insert_readings(&mut self, batch: &Arc<Readings>) -> Result<u64, Error>;
    fn dead_letters(&mut self, pipeline: Option<&str>) -> Result<Vec<DeadLetter>, Error>;
    fn count_dead_letters(&mut self) -> Result<BTreeMap<String, u64>, Error>;
    fn dead_letter(&mut self, id: i64) -> Result<Option<(DeadLetter, Vec<u8>)>, Error>;
    fn drop_dead_letter(&mut self, id: i64) -> Result<bool, Error>;
    fn move_dead_letter(&mut self, id: i64, pipeline: &str) -> Result<bool, Error>;
    fn keys(&mut self, table: &str) -> Result<Keys, Error>;
    fn position(&mut self, pipeline: &str) -> Result<Option<Position>, Error>;
    fn take_back(&mut self, pipeline: &str, ids: &[String], position: Option<&Position>) -> Result<(), Error>;
    fn delete_old_readings(&mut self, table: &str, days: u32, until: Instant) -> Result<u64, Error>;
}

/// Takes what is read.
pub(super) type Take<'a> = &'a mut dyn FnMut(Found<'_>);

/// What a database must be able to do for whoever only reads it.
pub(super) trait Reader {
    fn hosts(&mut self) -> Result<Vec<String>, Error>;
    fn samples(&mut self, host: &str, wanted: &Wanted, times: (i64, i64), take: Take<'_>) -> Result<(), Error>;
    /// From when on the hours of a host are counted (milliseconds since 1970); none where no hours are kept.
    fn counted_from(&mut self, host: &str) -> Result<Option<i64>, Error>;
    fn hours(&mut self, host: &str, wanted: &Wanted, times: (i64, i64), take: Take<'_>) -> Result<(), Error>;
    fn newest_dead_letters(&mut self, most: u32) -> Result<Vec<Noted>, Error>;
}

/// The hosts of the table, and NULL, to stand after `WITH RECURSIVE`: one seek each through an index that begins with them,
/// in either engine.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const HOSTS: &str = "hosts(host) AS (
    SELECT min(host) FROM system_metrics
    UNION ALL
    SELECT (SELECT min(host) FROM system_metrics WHERE host > hosts.host) FROM hosts WHERE host IS NOT NULL
 )";

/// Lists them.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn list_hosts() -> String {
    format!("WITH RECURSIVE {HOSTS} SELECT host FROM hosts WHERE host IS NOT NULL")
}
