//! SQLite: one file in `<state>/data`, made with the owner of its folder, in WAL mode.
//! Only what is particular to SQLite is here.
//! Statements that write begin with BEGIN IMMEDIATE: a lock asked for later is refused at once instead of waited for.

pub(super) mod copy;
mod courses;
mod events;
mod file;
mod hourly;
mod look;
mod migrate;
mod order;
mod pages;
mod readings;
mod recover;
mod views;

pub(super) use look::Reader;

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior, params};

use super::Error;
use super::batch::Batch;
use super::engine::{Engine, HOSTS};
use super::events::{Events, Shipped};
use super::hourly::{Hours, count};
use super::schema::SCHEMA_TABLE;
use crate::config::Config;
use crate::kinds::{HOUR, hour_of};
use crate::log;

/// How long one call of `delete_old_metrics` works.
const DELETE_TIME: Duration = Duration::from_secs(2);
/// Rows that one transaction of `delete_old_metrics` deletes.
const DELETE_ROWS: u16 = 1000;
/// Pages that one step of giving space back moves.
const VACUUM_PAGES: i64 = 256;

pub(super) struct Sqlite {
    connection: Connection,
    target: String,
    log: file::Log,
    /// What was gone and is made again.
    again: Vec<String>,
}

impl Sqlite {
    /// Opens `path`, relative to `<state>/data`, and brings its schema up to date.
    pub(super) fn open(config: &Config, path: &str) -> Result<Self, Error> {
        let (connection, target) = file::open(config, path)?;
        let mut sqlite = Self::of(connection, target);
        sqlite.migrate(config)?;
        Ok(sqlite)
    }

    fn of(connection: Connection, target: String) -> Self {
        let log = file::Log::of(&connection);
        Self { connection, target, log, again: Vec::new() }
    }

    fn failed(&self, act: &str, error: &rusqlite::Error) -> Error {
        file::explain(&self.target, act, error)
    }

    /// Deletes one batch; how many rows went.
    fn delete_older(&self, before: i64) -> Result<usize, rusqlite::Error> {
        self.connection.execute(
            &format!(
                "WITH RECURSIVE {HOSTS}
                 DELETE FROM system_metrics WHERE rowid IN (
                    SELECT old.rowid FROM hosts CROSS JOIN system_metrics AS old
                    WHERE old.host = hosts.host AND old.time < ?1 LIMIT ?2
                 )"
            ),
            params![before, DELETE_ROWS],
        )
    }

    /// Deletes batch after batch for a while, and gives the space back; how many rows went.
    fn delete_old(&self, batch: impl Fn(&Self) -> Result<usize, rusqlite::Error>) -> Result<u64, Error> {
        let failed = |error| self.failed("delete old metrics", &error);
        let until = Instant::now() + DELETE_TIME;
        let mut deleted = 0;
        loop {
            let gone = batch(self).map_err(failed)?;
            deleted += gone as u64;
            if gone < usize::from(DELETE_ROWS) || Instant::now() >= until {
                break;
            }
        }
        self.give_space_back(until).map_err(failed)?;
        Ok(deleted)
    }

    /// Gives space back once a quarter of the file is unused: less is soon used again, and moving pages for it would
    /// only wear a card out.
    fn give_space_back(&self, until: Instant) -> Result<(), rusqlite::Error> {
        let number = |pragma: &str| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let pages = number("page_count")?;
        let mut unused = number("freelist_count")?;
        if unused < VACUUM_PAGES || unused < pages / 4 {
            return Ok(());
        }
        while unused > 0 && Instant::now() < until {
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let left = number("freelist_count")?;
            if left >= unused {
                break;
            }
            unused = left;
        }
        // The file shrinks when the log is written back; where a reader holds on to it, later.
        file::empty_log(&self.connection).map(|_| ())
    }
}

/// The hour so many days ago, in milliseconds since 1970.
fn days_ago(days: u32) -> i64 {
    hour_of(jiff::Timestamp::now().as_millisecond() - i64::from(days) * 24 * HOUR)
}

impl Engine for Sqlite {
    fn insert_metrics(&mut self, batch: Batch, events: Events) -> Result<Shipped, Error> {
        let target = self.target.clone();
        let failed = |error: rusqlite::Error| file::explain(&target, "store metrics", &error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut hours = Hours::new();
        {
            let mut insert = transaction
                .prepare(
                    "INSERT INTO system_metrics (time, host, os, metric_type, payload, sorted)
                     VALUES (?1, ?2, ?3, ?4, ?5, 0)
                     ON CONFLICT (host, time, metric_type) DO NOTHING",
                )
                .map_err(failed)?;
            for index in 0..batch.times.len() {
                let new = insert
                    .execute(params![
                        batch.times[index],
                        batch.hosts[index],
                        batch.systems[index],
                        batch.types[index],
                        batch.payloads[index]
                    ])
                    .map_err(|error| match file::refusal(&error) {
                        Some((code, reason)) => Error::Row { index, code, reason },
                        None => failed(error),
                    })?;
                if new > 0 {
                    let [host, kind, payload] =
                        [&batch.hosts, &batch.types, &batch.payloads].map(|column| &column[index]);
                    count(&mut hours, host, kind, batch.times[index], payload);
                }
            }
        }
        hourly::add(&transaction, hours).map_err(failed)?;
        let shipped = events::insert(&transaction, &events).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        // The rows are safe, and the next run goes on with it: what is wrong is told, and no error.
        if let Err(error) = hourly::fill(&mut self.connection) {
            log::warn!("hours_not_filled", database = self.target, error = error.to_string());
        }
        order::sort(&mut self.connection, &mut self.log);
        self.log.write_back(&self.connection, file::SHORT_LOG);
        Ok(shipped)
    }

    fn delete_old_metrics(&mut self, days: u32) -> Result<u64, Error> {
        // Nothing goes before its hour is counted, and hours go whole, so that they can be counted again.
        let filled = hourly::fill(&mut self.connection).and_then(|()| hourly::has_unfilled(&self.connection));
        if filled.map_err(|error| self.failed("delete old metrics", &error))? {
            return Ok(0);
        }
        let before = days_ago(days);
        self.delete_old(|sqlite| sqlite.delete_older(before))
    }

    fn delete_old_hours(&mut self, days: u32) -> Result<u64, Error> {
        let before = days_ago(days);
        self.delete_old(|sqlite| hourly::delete_older(&sqlite.connection, before, DELETE_ROWS))
    }

    fn notes(&self) -> Vec<String> {
        super::schema::again(&self.target, &self.again)
    }

    fn check(&mut self) -> Result<(), Error> {
        let statement = format!("SELECT count(*) FROM {SCHEMA_TABLE}");
        self.connection.query_row(&statement, [], |_| Ok(())).map_err(|error| self.failed("read", &error))
    }
}
