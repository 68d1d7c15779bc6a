use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Sqlite, views};
use crate::config::Config;
use crate::log;
use crate::store::Error;
use crate::store::readings::POSITIONS;
use crate::store::schema::{self, Object, SCHEMA_TABLE, Version};
use crate::store::views::VIEWS;

/// Times are INTEGER milliseconds since 1970; JSON is TEXT.
const METRICS: &str = "
    CREATE TABLE system_metrics (
        time INTEGER NOT NULL,
        host TEXT NOT NULL,
        os TEXT NOT NULL,
        metric_type TEXT NOT NULL,
        payload TEXT NOT NULL CHECK (json_valid(payload))
    ) STRICT;
    CREATE UNIQUE INDEX system_metrics_key ON system_metrics (host, time, metric_type);
";

const DEAD_LETTERS: &str = "
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY,
        pipeline TEXT NOT NULL,
        source_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        document BLOB NOT NULL,
        place TEXT,
        attempts INTEGER NOT NULL DEFAULT 1,
        first_failed INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
        last_failed INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
        UNIQUE (pipeline, source_id)
    ) STRICT;
";

fn readings(table: &str) -> String {
    format!(
        "CREATE TABLE \"{table}\" (
            id INTEGER PRIMARY KEY,
            mongo_id TEXT NOT NULL UNIQUE,
            event_timestamp INTEGER,
            source TEXT,
            event_type TEXT,
            payload TEXT CHECK (json_valid(payload)),
            meta TEXT CHECK (json_valid(meta)),
            created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
            source_id TEXT,
            updated_at INTEGER
        ) STRICT;"
    )
}

/// A table of more rows gets its indexes from the operator: making them would hold every writer off.
const FEW_ROWS: i64 = 500_000;

fn indexes(table: &str) -> String {
    let index = |column| format!("CREATE INDEX IF NOT EXISTS \"{table}_{column}\" ON \"{table}\" ({column});");
    ["event_timestamp", "updated_at", "source_id"].map(index).join(" ")
}

/// The table with times as SQLite's `datetime()` reads them, in UTC.
fn view(table: &str) -> String {
    let time = |column| format!("strftime('%Y-%m-%d %H:%M:%f', {column} / 1000.0, 'unixepoch') AS {column}");
    let [event, created, updated] = ["event_timestamp", "created_at", "updated_at"].map(time);
    format!(
        "CREATE VIEW \"{table}_view\" AS SELECT id, mongo_id, source_id, {event}, source, event_type, payload, meta, \
         {created}, {updated} FROM \"{table}\";"
    )
}

/// The SQL that leads from version `from` of an object to its newest, without the views that are `foreign`.
fn steps(object: &Object, from: i64, foreign: &[&str]) -> String {
    match object {
        Object::Metrics if from < 1 => METRICS.to_owned(),
        Object::MetricViews => views::sql(foreign),
        Object::Readings(table) if from < 1 => readings(table),
        Object::Readings(table) if from < 2 => {
            let add = |column| format!("ALTER TABLE \"{table}\" ADD COLUMN {column};");
            ["source_id TEXT", "updated_at INTEGER"].map(add).concat()
        }
        Object::DeadLetters if from < 1 => DEAD_LETTERS.to_owned(),
        Object::DeadLetters if from < 2 => "ALTER TABLE dead_letters ADD COLUMN place TEXT".to_owned(),
        Object::Positions if from < 1 => format!(
            "CREATE TABLE {POSITIONS} (pipeline TEXT PRIMARY KEY, source TEXT NOT NULL, field TEXT NOT NULL,
             value TEXT NOT NULL, passed INTEGER NOT NULL) STRICT"
        ),
        _ => String::new(),
    }
}

impl Sqlite {
    /// Runs the steps that the file has not seen, in one transaction.
    pub(super) fn migrate(&mut self, config: &Config) -> Result<(), Error> {
        let needed = schema::needed(config);
        let found = versions(&self.connection).map_err(|error| self.failed("read the schema of", &error))?;
        if missing(&self.target, &needed, &found)?.is_empty() {
            return Ok(());
        }
        let target = self.target.clone();
        let failed = |error: rusqlite::Error| super::file::explain(&target, "update the schema of", &error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {SCHEMA_TABLE} (
                    object TEXT PRIMARY KEY, version INTEGER NOT NULL, oldest INTEGER NOT NULL
                 ) STRICT"
            ))
            .map_err(failed)?;
        // Another program may have been faster.
        let found = versions(&transaction).map_err(failed)?;
        for (object, version) in missing(&self.target, &needed, &found)? {
            if version == 0 {
                refuse_foreign(&transaction, &self.target, object)?;
            }
            let foreign =
                if *object == Object::MetricViews { foreign_views(&transaction, version) } else { Ok(Vec::new()) };
            let foreign = foreign.map_err(failed)?;
            if !foreign.is_empty() {
                let reason =
                    format!("relations of these names are there already: {}", crate::text::listed(&foreign, ", "));
                log::warn!("schema_incomplete", database = target, without = "some views for panels", error = reason);
            }
            transaction.execute_batch(&steps(object, version, &foreign)).map_err(failed)?;
            if version == 0 && is_known(&transaction, object).map_err(failed)? {
                log::warn!("made_again", database = target, object = object.name(), error = schema::DROPPED);
            }
            if let Object::Readings(table) = object
                && version < 2
            {
                follow(&transaction, &target, table).map_err(failed)?;
            }
            transaction
                .execute(
                    &format!("INSERT OR REPLACE INTO {SCHEMA_TABLE} (object, version, oldest) VALUES (?1, ?2, ?3)"),
                    params![object.name(), object.version(), object.oldest(version == 0)],
                )
                .map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

/// What follows downstream asks for: indexes, and a view with times that can be read.
fn follow(transaction: &Transaction<'_>, target: &str, table: &str) -> Result<(), rusqlite::Error> {
    let incomplete = |without: &str, reason: &str, remedy: &str| {
        log::warn!("schema_incomplete", database = target, without = without, error = reason, remedy = remedy);
    };
    let last: Option<i64> = transaction.query_row(&format!("SELECT max(id) FROM \"{table}\""), [], |row| row.get(0))?;
    if last.unwrap_or(0) <= FEW_ROWS {
        transaction.execute_batch(&indexes(table))?;
    } else {
        incomplete("indexes of readings", "the table has many rows", &format!("run {}", indexes(table)));
    }
    let name = format!("{table}_view");
    if has_table(transaction, &name)? {
        incomplete(
            "the view of readings",
            &format!("there is a relation {name} already"),
            &format!("run {}", view(table)),
        );
        return Ok(());
    }
    transaction.execute_batch(&view(table))
}

fn missing<'a>(target: &str, needed: &'a [Object], found: &[Version]) -> Result<Vec<(&'a Object, i64)>, Error> {
    schema::missing(needed, found).map_err(|version| schema::newer(target, needed, version))
}

/// The rows of `hub_schema` whose objects are there: one that somebody dropped is made again. None in a database that has
/// no such table yet.
fn versions(connection: &Connection) -> Result<Vec<Version>, rusqlite::Error> {
    if !has_table(connection, SCHEMA_TABLE)? {
        return Ok(Vec::new());
    }
    let views: Vec<String> = VIEWS.iter().map(|view| format!("'{}'", view.name)).collect();
    let sql = format!(
        "SELECT object, version, oldest FROM {SCHEMA_TABLE} WHERE EXISTS (SELECT 1 FROM sqlite_schema
         WHERE name = object COLLATE NOCASE OR object = '{}' AND name IN ({}))",
        Object::MetricViews.name(),
        views.join(", ")
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement
        .query_map([], |row| Ok(Version { object: row.get(0)?, version: row.get(1)?, oldest: row.get(2)? }))?;
    rows.collect()
}

/// True where it was made before.
fn is_known(connection: &Connection, object: &Object) -> Result<bool, rusqlite::Error> {
    let sql = format!("SELECT 1 FROM {SCHEMA_TABLE} WHERE object = ?1");
    Ok(connection.query_row(&sql, [object.name()], |_| Ok(())).optional()?.is_some())
}

fn has_table(connection: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    let found = connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = ?1", [name], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

/// The names of views that the hub has not made up to version `from`, but that are there.
fn foreign_views(connection: &Connection, from: i64) -> Result<Vec<&'static str>, rusqlite::Error> {
    let mut foreign = Vec::new();
    for view in VIEWS.iter().filter(|view| view.since > from) {
        if has_table(connection, view.name)? {
            foreign.push(view.name);
        }
    }
    Ok(foreign)
}

/// The Go version never wrote SQLite, so a table of that name is somebody else's.
fn refuse_foreign(connection: &Connection, target: &str, object: &Object) -> Result<(), Error> {
    let name = if *object == Object::MetricViews { return Ok(()) } else { object.name() };
    match has_table(connection, name) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::Config(format!(
            "{target}: has a table {name} that the hub did not make; name another file in database.url"
        ))),
        Err(error) => Err(super::file::explain(target, "read the schema of", &error)),
    }
}
