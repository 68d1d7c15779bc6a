use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::file::has_table;
use super::{Sqlite, events, hourly, order, views};
use crate::config::Config;
use crate::log;
use crate::store::Error;
use crate::store::events::EVENTS_TABLE;
use crate::store::readings::POSITIONS;
use crate::store::schema::{self, Object, SCHEMA_TABLE, Version};

/// Times are INTEGER milliseconds since 1970; JSON is TEXT.
const METRICS: &str = "
    CREATE TABLE system_metrics (
        time INTEGER NOT NULL,
        host TEXT NOT NULL,
        os TEXT NOT NULL,
        metric_type TEXT NOT NULL,
        payload TEXT NOT NULL CHECK (json_valid(payload)),
        sorted INTEGER
    ) STRICT;
";

const METRICS_KEY: &str = "CREATE UNIQUE INDEX system_metrics_key ON system_metrics (host, time, metric_type);";

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
            payload TEXT {},
            meta TEXT {},
            created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
            source_id TEXT,
            updated_at INTEGER
        ) STRICT;",
        json("payload"),
        json("meta")
    )
}

/// NULL is no JSON for SQLite before 3.45, whose own check would call the file broken.
fn json(column: &str) -> String {
    format!("CHECK ({column} IS NULL OR json_valid({column}))")
}

/// The SQL of a table with the checks of earlier versions loosened so.
pub(super) fn loosened(sql: &str) -> String {
    ["payload", "meta"].iter().fold(sql.to_owned(), |sql, column| {
        sql.replace(&format!("{column} TEXT CHECK (json_valid({column}))"), &format!("{column} TEXT {}", json(column)))
    })
}

/// What belongs to tables that are there, and is not there itself, with the SQL that makes it.
fn gone(
    connection: &Connection,
    needed: &[Object],
    found: &[Version],
) -> Result<Vec<(String, String)>, rusqlite::Error> {
    let mut parts = Vec::new();
    for object in needed.iter().filter(|object| {
        found.iter().any(|version| version.object == object.name() && version.version >= object.version())
    }) {
        match object {
            Object::Metrics => {
                let indexes = [("system_metrics_key", METRICS_KEY)].into_iter().chain(order::INDEXES);
                parts.extend(indexes.map(|(name, sql)| (name.to_owned(), sql.to_owned())));
            }
            Object::MetricViews => parts.extend(views::each(has_table(connection, views::UNSORTED)?)),
            Object::Readings(table) => {
                parts.push((format!("{table}_view"), view(table)));
                parts.extend(indexes(table));
            }
            Object::Hourly | Object::Events | Object::DeadLetters | Object::Positions => {}
        }
    }
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    parts.retain(|(name, _)| !names.contains(name));
    // Of a large table they are for the operator to make.
    let mut kept = Vec::new();
    for (name, sql) in parts {
        let table =
            needed.iter().map(Object::name).find(|table| indexes(table).iter().any(|(index, _)| *index == name));
        if table.is_none_or(|table| has_few_rows(connection, table).unwrap_or(false)) {
            kept.push((name, sql));
        }
    }
    Ok(kept)
}

fn has_few_rows(connection: &Connection, table: &str) -> Result<bool, rusqlite::Error> {
    let last =
        connection.query_row(&format!("SELECT max(id) FROM \"{table}\""), [], |row| row.get::<_, Option<i64>>(0));
    last.map(|last| last.unwrap_or(0) <= FEW_ROWS)
}

/// The hub's tables with checks of earlier versions.
fn strict(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    if !has_table(connection, SCHEMA_TABLE)? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '% TEXT CHECK (json_valid(%' \
         AND name IN (SELECT object FROM {SCHEMA_TABLE})"
    );
    let mut statement = connection.prepare(&sql)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Loosens the checks of a table in the text of the schema alone, as SQLite documents it for a check that is loosened
/// (<https://sqlite.org/lang_altertable.html>): a table that is made anew takes as long as it is large.
fn loosen(transaction: &Transaction<'_>, table: &str) -> Result<(), rusqlite::Error> {
    let find = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let old: String = transaction.query_row(find, [table], |row| row.get(0))?;
    let new = loosened(&old);
    if new == old {
        return Ok(());
    }
    let version: i64 = transaction.pragma_query_value(None, "schema_version", |row| row.get(0))?;
    transaction.pragma_update(None, "writable_schema", true)?;
    let changed = transaction
        .execute("UPDATE sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1", [table, &new])
        .and_then(|_| transaction.pragma_update(None, "schema_version", version + 1));
    transaction.pragma_update(None, "writable_schema", false)?;
    changed?;
    // Whether the schema can be read, and, where that is quick, whether the rows still fit it.
    let last: Option<i64> = transaction.query_row(&format!("SELECT max(id) FROM \"{table}\""), [], |row| row.get(0))?;
    if last.unwrap_or(0) <= FEW_ROWS / 10 {
        let check = format!("PRAGMA integrity_check(\"{table}\")");
        let found: String = transaction.query_row(&check, [], |row| row.get(0))?;
        if found != "ok" {
            // It was damaged before, and that is no reason to stop.
            log::warn!("database_damaged", table = table, error = found, remedy = "run hub database check");
        }
    }
    Ok(())
}

/// A table of more rows gets its indexes from the operator: making them would hold every writer off.
const FEW_ROWS: i64 = 500_000;

/// By their names.
fn indexes(table: &str) -> [(String, String); 3] {
    ["event_timestamp", "updated_at", "source_id"].map(|column| {
        let name = format!("{table}_{column}");
        let sql = format!("CREATE INDEX IF NOT EXISTS \"{name}\" ON \"{table}\" ({column});");
        (name, sql)
    })
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
        Object::Metrics if from < 1 => [METRICS, METRICS_KEY, order::INDEXES[0].1, order::INDEXES[1].1].concat(),
        Object::MetricViews => views::sql(foreign),
        Object::Hourly if from < 1 => hourly::MAKE.to_owned(),
        Object::Events if from < 1 && foreign.is_empty() => events::MAKE.to_owned(),
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
        let strict = strict(&self.connection).map_err(|error| self.failed("read the schema of", &error))?;
        let gone = gone(&self.connection, &needed, &found);
        let gone = gone.map_err(|error| self.failed("read the schema of", &error))?;
        let missing_now = missing(&self.target, &needed, &found)?;
        let is_sorted = missing_now.iter().all(|(object, _)| **object != Object::Metrics);
        let unmarked = if is_sorted { order::has_unmarked(&self.connection) } else { Ok(false) };
        let unmarked = unmarked.map_err(|error| self.failed("read", &error))?;
        if missing_now.is_empty() && strict.is_empty() && gone.is_empty() && !unmarked {
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
            let foreign = foreign(&transaction, object, version).map_err(failed)?;
            if *object == Object::MetricViews && !foreign.is_empty() {
                let reason =
                    format!("relations of these names are there already: {}", crate::text::listed(&foreign, ", "));
                log::warn!("schema_incomplete", database = target, without = "some views for panels", error = reason);
            }
            transaction.execute_batch(&steps(object, version, &foreign)).map_err(failed)?;
            if *object == Object::Hourly {
                hourly::leave_unfilled(&transaction).map_err(failed)?;
            }
            if *object == Object::Metrics {
                if version == 1 {
                    order::adopt(&transaction).map_err(failed)?;
                }
                views::renew(&transaction).map_err(failed)?;
            }
            if version == 0 && is_known(&transaction, object).map_err(failed)? {
                self.again.push(object.name().to_owned());
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
        if order::has_unmarked(&transaction).map_err(failed)? {
            order::leave_unsorted(&transaction).map_err(failed)?;
            hourly::leave_unfilled(&transaction).map_err(failed)?;
        }
        for table in self::strict(&transaction).map_err(failed)? {
            loosen(&transaction, &table).map_err(failed)?;
        }
        let found = versions(&transaction).map_err(failed)?;
        for (name, sql) in self::gone(&transaction, &needed, &found).map_err(failed)? {
            transaction.execute_batch(&sql).map_err(failed)?;
            self.again.push(name);
        }
        transaction.commit().map_err(failed)?;
        for name in &self.again {
            log::warn!("made_again", database = target, object = name, error = schema::DROPPED);
        }
        Ok(())
    }
}

/// What follows downstream asks for: indexes, and a view with times that can be read.
fn follow(transaction: &Transaction<'_>, target: &str, table: &str) -> Result<(), rusqlite::Error> {
    let incomplete = |without: &str, reason: &str, remedy: &str| {
        log::warn!("schema_incomplete", database = target, without = without, error = reason, remedy = remedy);
    };
    let indexes = indexes(table).map(|(_, sql)| sql).join(" ");
    if has_few_rows(transaction, table)? {
        transaction.execute_batch(&indexes)?;
    } else {
        incomplete("indexes of readings", "the table has many rows", &format!("run {indexes}"));
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
    let views: Vec<String> = crate::store::views::all().map(|view| format!("'{}'", view.name)).collect();
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

/// The names that the hub has not used for an object up to version `from`, but that are there; of objects without which the hub
/// goes on.
fn foreign(connection: &Connection, object: &Object, from: i64) -> Result<Vec<&'static str>, rusqlite::Error> {
    let mut names: Vec<&str> = match object {
        Object::MetricViews => {
            crate::store::views::all().filter(|view| view.since > from).map(|view| view.name).collect()
        }
        Object::Events if from < 1 => vec![EVENTS_TABLE],
        _ => return Ok(Vec::new()),
    };
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema")?;
    let taken: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    names.retain(|name| taken.iter().any(|taken| taken.eq_ignore_ascii_case(name)));
    Ok(names)
}

/// The Go version never wrote SQLite, so a table of that name is somebody else's.
fn refuse_foreign(connection: &Connection, target: &str, object: &Object) -> Result<(), Error> {
    if matches!(object, Object::MetricViews | Object::Events) {
        return Ok(());
    }
    let name = object.name();
    match has_table(connection, name) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::Config(format!(
            "{target}: has a table {name} that the hub did not make; name another file in database.url"
        ))),
        Err(error) => Err(super::file::explain(target, "read the schema of", &error)),
    }
}
