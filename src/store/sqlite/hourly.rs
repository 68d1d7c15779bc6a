//! `metrics_hourly` in SQLite: a view of rows that hold all numbers of a kind in an hour. A row for each number would be
//! written to hundreds of places a run, and be mostly its own name.
//!
//! What `data` has is said in `courses`. Hours are in seconds since 1970, as views have their times.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::{Value, json};

use super::courses;
use crate::kinds::{HOUR, hour_of};
use crate::store::engine::HOSTS;
use crate::store::hourly::{self, Course, Courses, FILL_TIME, Hours, UNFILLED};

/// The tables, and the view that shows them.
pub(super) const MAKE: &str = "
    CREATE TABLE IF NOT EXISTS hub_keys (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE IF NOT EXISTS hub_hours (
        host TEXT NOT NULL,
        kind TEXT NOT NULL,
        hour INTEGER NOT NULL,
        data TEXT NOT NULL CHECK (json_valid(data)),
        UNIQUE (kind, hour, host)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS hub_unfilled (host TEXT PRIMARY KEY, before INTEGER NOT NULL) STRICT;
    CREATE VIEW IF NOT EXISTS metrics_hourly AS
        SELECT h.host, h.kind, of.key AS label, k.key AS key, h.hour,
            CAST(course.value->>2 AS REAL) AS min,
            COALESCE((course.value->>4) * 1.0 / (course.value->>1), course.value->>2) * 1.0 AS avg,
            CAST(COALESCE(course.value->>3, course.value->>2) AS REAL) AS max,
            course.value->>1 AS samples
        FROM hub_hours AS h CROSS JOIN json_each(h.data) AS of CROSS JOIN json_each(of.value) AS course
            CROSS JOIN hub_keys AS k WHERE k.id = course.value->>0;
";

/// The hours of a host and a kind (the first parameter and the last) from one up to another.
pub(super) const OF_KIND: &str =
    "SELECT hour, data FROM hub_hours WHERE host = ?1 AND hour >= ?2 AND hour < ?3 AND kind = ?4";

/// Has every hour counted that the table has rows of, in place of what was counted of it before.
pub(super) fn leave_unfilled(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.execute_batch(&format!(
        "WITH RECURSIVE {HOSTS}, newest(host, time) AS (
            SELECT host, (SELECT max(time) FROM system_metrics WHERE host = hosts.host) FROM hosts WHERE host IS NOT NULL
         )
         INSERT OR REPLACE INTO {UNFILLED} SELECT host, (time / {HOUR} + 1) * {HOUR} FROM newest"
    ))
}

/// Whether some hours are still to be counted.
pub(super) fn has_unfilled(connection: &Connection) -> Result<bool, Error> {
    connection.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {UNFILLED})"), [], |row| row.get(0))
}

/// Adds what is new to the hours that are counted.
pub(super) fn add(transaction: &Transaction<'_>, hours: Hours) -> Result<(), Error> {
    if hours.is_empty() {
        return Ok(());
    }
    let mut unfilled = transaction.prepare(&format!("SELECT host, before FROM {UNFILLED}"))?;
    let unfilled: HashMap<String, i64> =
        unfilled.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut keys = Keys::of(transaction)?;
    let find = "SELECT data FROM hub_hours WHERE kind = ?1 AND hour = ?2 AND host = ?3";
    let mut find = transaction.prepare(find)?;
    for ((host, kind, hour), courses) in hours {
        if unfilled.get(&host).is_some_and(|before| hour < *before) {
            continue;
        }
        let known = find.query_row(params![kind, hour / 1000, host], |row| row.get::<_, String>(0)).optional()?;
        let mut all = known.map(|data| keys.read(&data)).unwrap_or_default();
        hourly::merge(&mut all, courses);
        put(transaction, &mut keys, (&host, &kind, hour), &all)?;
    }
    Ok(())
}

fn put(
    transaction: &Transaction<'_>,
    keys: &mut Keys,
    (host, kind, hour): (&str, &str, i64),
    courses: &Courses,
) -> Result<(), Error> {
    let data = keys.written(transaction, courses)?;
    let sql = "INSERT INTO hub_hours (host, kind, hour, data) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (kind, hour, host) DO UPDATE SET data = excluded.data";
    transaction.execute(sql, params![host, kind, hour / 1000, data]).map(drop)
}

/// Counts hours that are still to be counted, for a while.
pub(super) fn fill(connection: &mut Connection) -> Result<(), Error> {
    let until = Instant::now() + FILL_TIME;
    while fill_hour(connection)? && Instant::now() < until {}
    Ok(())
}

/// Counts one hour of a host; false where none is left.
fn fill_hour(connection: &mut Connection) -> Result<bool, Error> {
    if !has_unfilled(connection)? {
        return Ok(false);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let next = format!("SELECT host, before FROM {UNFILLED} LIMIT 1");
    let next = transaction.query_row(&next, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((host, before)): Option<(String, i64)> = next else { return Ok(false) };
    let newest = "SELECT max(time) FROM system_metrics WHERE host = ?1 AND time < ?2";
    let newest: Option<i64> = transaction.query_row(newest, params![host, before], |row| row.get(0))?;
    match newest.map(hour_of) {
        None => {
            transaction.execute(&format!("DELETE FROM {UNFILLED} WHERE host = ?1"), [&host])?;
        }
        Some(hour) => {
            let mut hours = Hours::new();
            let rows =
                "SELECT metric_type, time, payload FROM system_metrics WHERE host = ?1 AND time >= ?2 AND time < ?3";
            let mut rows = transaction.prepare(rows)?;
            let mut rows = rows.query(params![host, hour, hour + HOUR])?;
            while let Some(row) = rows.next()? {
                // What is no text any more, in a damaged file, has no numbers.
                let texts = [row.get_ref(0)?, row.get_ref(2)?].map(|text| text.as_str().unwrap_or_default());
                hourly::count(&mut hours, &host, texts[0], row.get(1)?, texts[1]);
            }
            drop(rows);
            let mut keys = Keys::of(&transaction)?;
            for ((host, kind, hour), courses) in &hours {
                put(&transaction, &mut keys, (host, kind, *hour), courses)?;
            }
            let done = format!("UPDATE {UNFILLED} SET before = ?2 WHERE host = ?1");
            transaction.execute(&done, params![host, hour])?;
        }
    }
    transaction.commit()?;
    Ok(true)
}

/// Deletes a batch of hours before one; how many rows went.
pub(super) fn delete_older(connection: &Connection, before: i64, most: u16) -> Result<usize, Error> {
    connection.execute(
        "WITH RECURSIVE kinds(kind) AS (
            SELECT min(kind) FROM hub_hours
            UNION ALL
            SELECT (SELECT min(kind) FROM hub_hours WHERE kind > kinds.kind) FROM kinds WHERE kind IS NOT NULL
         )
         DELETE FROM hub_hours WHERE rowid IN (
            SELECT old.rowid FROM kinds CROSS JOIN hub_hours AS old
            WHERE old.kind = kinds.kind AND old.hour < ?1 LIMIT ?2
         )",
        params![before / 1000, most],
    )
}

/// The numbers of keys.
struct Keys {
    ids: HashMap<String, i64>,
    names: HashMap<i64, String>,
}

impl Keys {
    fn of(connection: &Connection) -> Result<Self, Error> {
        let mut statement = connection.prepare("SELECT key, id FROM hub_keys")?;
        let ids: HashMap<String, i64> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let names = ids.iter().map(|(key, id)| (*id, key.clone())).collect();
        Ok(Self { ids, names })
    }

    fn id(&mut self, transaction: &Transaction<'_>, key: &str) -> Result<i64, Error> {
        if let Some(id) = self.ids.get(key) {
            return Ok(*id);
        }
        let sql = "INSERT INTO hub_keys (key) VALUES (?1) RETURNING id";
        let id = transaction.query_row(sql, [key], |row| row.get(0))?;
        self.ids.insert(key.to_owned(), id);
        self.names.insert(id, key.to_owned());
        Ok(id)
    }

    /// The courses of a row.
    fn read(&self, data: &str) -> Courses {
        let mut courses = Courses::new();
        courses::each(data, &|id| self.names.contains_key(&id), &mut |label, id, course| {
            courses.extend(self.names.get(&id).map(|key| ((label.to_owned(), key.clone()), course)));
        });
        courses
    }

    fn written(&mut self, transaction: &Transaction<'_>, courses: &Courses) -> Result<String, Error> {
        let mut labels: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for ((label, key), course) in courses {
            let Course { samples, min, max, sum } = *course;
            let id = self.id(transaction, key)?;
            let entry = if min == max {
                json!([id, samples, short(min)])
            } else {
                json!([id, samples, short(min), short(max), short(sum)])
            };
            labels.entry(label).or_default().push(entry);
        }
        Ok(json!(labels).to_string())
    }
}

/// A number as short as it can be written: whole ones without a point, while a double holds them exactly.
fn short(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { json!(number as i64) } else { json!(number) }
}
