use std::time::Duration;

use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{Client, Transaction};

use super::address::Address;
use super::explain::{quoted, said, table_name};
use super::server::{self, Metrics, Server};
use super::session::{LOOK_LIMIT, Session, explain_on};
use super::steps::{self, Statement};
use crate::config::Config;
use crate::log;
use crate::store::Error;
use crate::store::hourly::{HOURLY, UNFILLED};
use crate::store::schema::{self, Object, SCHEMA_TABLE, Version};
use crate::store::views;

/// The keys of the hub's advisory locks; any number that nobody else is likely to use.
pub(super) const MIGRATE_LOCK: i64 = 0x6f62_735f_6875_6201;

/// The whole update, with the wait for other hosts that do the same.
const MIGRATE_LIMIT: Duration = Duration::from_secs(8);
/// What one statement may take in it.
const SETTINGS: &str = "SET LOCAL lock_timeout = '4s'; SET LOCAL statement_timeout = '4s'";
/// What a statement may take that somebody can run by hand instead. An adopted table has up to three indexes to be made:
/// each is given up, on a large table or behind a lock, before the whole update is.
const BY_HAND: &str = "SET LOCAL lock_timeout = '1500ms'; SET LOCAL statement_timeout = '1500ms'";

/// Why an update stopped, before it is explained.
enum Stop {
    Database(postgres::Error),
    Newer(Version),
}

impl From<postgres::Error> for Stop {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// Runs the steps that the database has not seen. Returns what the server has, what `system_metrics` is, and whether
/// it was there before the hub.
pub(super) fn migrate(
    session: &mut Session,
    address: &Address,
    config: &Config,
) -> Result<(Server, Metrics, bool, Vec<String>), Error> {
    let needed = schema::needed(config);
    let looked = session.call(LOOK_LIMIT, |client| {
        let (server, metrics) = server::look(client)?;
        let (versions, adopted) = if server.has_schema_table { server::versions(client)? } else { (Vec::new(), false) };
        Ok::<_, postgres::Error>((server, metrics, versions, adopted))
    })?;
    let (server, metrics, versions, adopted) =
        looked.map_err(|error| explain_on(session, address, "read the schema", &error))?;
    let missing = missing(&needed, &versions, adopted, &server, &metrics)
        .map_err(|version| schema::newer(&address.target, &needed, version))?;
    if missing.iter().all(|(object, _)| cannot_be_made(object, &server)) {
        return Ok((server, metrics, adopted, Vec::new()));
    }
    let foreign_table = metrics.exists;
    let script = script(&missing, &server, &metrics, &address.role);
    let updated = session.call(MIGRATE_LIMIT, {
        let needed = needed.clone();
        move |client| update(client, &needed)
    })?;
    let Updated { server, metrics, adopted, again, warnings } = match updated {
        Ok(updated) => updated,
        Err(Stop::Newer(version)) => return Err(schema::newer(&address.target, &needed, version)),
        Err(Stop::Database(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let role = quoted(&address.role);
            let reason = format!("role {role} may not make what is missing: {}", said(&error));
            // Rows are stored without the newest views too, without what somebody dropped, and without what happened.
            let is_spared = |object: &Object, version| {
                matches!(object, Object::MetricViews | Object::Hourly | Object::Events) || version == object.version()
            };
            if missing.iter().all(|(object, version)| is_spared(object, *version)) {
                let mut server = server;
                server.events.not_made = Some(reason.clone());
                // Why events are not stored is told once, by whoever has some.
                if missing.iter().all(|(object, _)| **object == Object::Events) {
                    return Ok((server, metrics, adopted, Vec::new()));
                }
                let grant = format!(
                    "run GRANT CREATE ON SCHEMA public TO {role}; GRANT INSERT, UPDATE ON {SCHEMA_TABLE} TO {role}; \
                     the views must be the role's own"
                );
                log::warn!(
                    "schema_incomplete",
                    without = "the newest views for panels",
                    error = reason,
                    remedy = grant
                );
                return Ok((server, metrics, adopted, Vec::new()));
            }
            let remedy = if foreign_table {
                format!("run as the owner of system_metrics:\n{script}")
            } else {
                format!("run GRANT CREATE ON SCHEMA public TO {role}; or, as who may:\n{script}")
            };
            return Err(Error::Rights { target: address.target.clone(), reason, remedy });
        }
        Err(Stop::Database(error)) => return Err(explain_on(session, address, "update the schema", &error)),
    };
    for Warning { without, reason, remedy } in warnings {
        let database = &address.target;
        log::warn!("schema_incomplete", database = database, without = without, error = reason, remedy = remedy);
    }
    for object in &again {
        log::warn!("made_again", database = address.target, object = object, error = schema::DROPPED);
    }
    Ok((server, metrics, adopted, again))
}

/// The objects whose steps are still to be run, each with the version it has now: those that lack something of their newest
/// version too, because somebody dropped it.
fn missing<'a>(
    needed: &'a [Object],
    versions: &[Version],
    adopted: bool,
    server: &Server,
    metrics: &Metrics,
) -> Result<Vec<(&'a Object, i64)>, Version> {
    let mut missing = schema::missing(needed, versions)?;
    let lacks = |object: &Object| match object {
        Object::Metrics => !adopted && metrics.exists && !metrics.unique_key,
        Object::MetricViews => views::all().any(|view| !server.taken_views.iter().any(|taken| taken == view.name)),
        Object::Hourly | Object::Events | Object::Readings(_) | Object::DeadLetters | Object::Positions => false,
    };
    for object in needed.iter().filter(|object| lacks(object)) {
        let version = versions.iter().find(|version| version.object == object.name()).map(|version| version.version);
        if version == Some(object.version()) {
            missing.push((object, object.version()));
        }
    }
    Ok(missing)
}

/// Whether an object is missing and stays so, and the hub goes on without it.
fn cannot_be_made(object: &Object, server: &Server) -> bool {
    match object {
        Object::Events => server.events.cannot_be_made(),
        Object::Hourly => server.hourly.cannot_be_made(),
        _ => false,
    }
}

/// What an update went on without.
struct Warning {
    without: &'static str,
    reason: String,
    remedy: String,
}

struct Updated {
    server: Server,
    metrics: Metrics,
    adopted: bool,
    again: Vec<String>,
    warnings: Vec<Warning>,
}

/// One transaction under a lock, so that the first starts of many hosts come one after the other.
fn update(client: &mut Client, needed: &[Object]) -> Result<Updated, Stop> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute(SETTINGS)?;
    transaction.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&MIGRATE_LOCK, Type::INT8)])?;
    // Another host may have been faster.
    let (mut server, mut metrics) = server::look(&mut transaction)?;
    let (versions, mut adopted) =
        if server.has_schema_table { server::versions(&mut transaction)? } else { (Vec::new(), false) };
    if !server.has_schema_table {
        transaction.batch_execute(&schema_table())?;
    }
    let (mut warnings, mut again) = (Vec::new(), Vec::new());
    let missing = missing(needed, &versions, adopted, &server, &metrics).map_err(Stop::Newer)?;
    for (object, version) in missing {
        if cannot_be_made(object, &server) {
            continue;
        }
        let was_there = version == 0 && *object == Object::Metrics && metrics.exists;
        adopted |= was_there;
        let made = version == 0 && is_missing(&mut transaction, object)?;
        let steps = steps::steps(object, version, &server, &metrics);
        let mut lost = Vec::new();
        for statement in &steps {
            lost.extend(run(&mut transaction, statement)?);
        }
        let is_made = lost.len() < steps.len();
        warnings.extend(lost);
        let is_foreign = |name: &&String| views::all().any(|view| view.name == **name && version < view.since);
        let foreign: Vec<&str> = server.taken_views.iter().filter(is_foreign).map(String::as_str).collect();
        if *object == Object::MetricViews && !foreign.is_empty() {
            let reason = format!("relations of these names are there already: {}", crate::text::listed(&foreign, ", "));
            let remedy = "rename them, or make panels of your own".to_owned();
            warnings.push(Warning { without: "some views for panels", reason, remedy });
        }
        if version == object.version() && is_made || version == 0 && !was_there && was_made(&mut transaction, object)? {
            again.push(match object {
                Object::MetricViews if version > 0 => "views of metrics".to_owned(),
                Object::Metrics if version > 0 => "the unique key of system_metrics".to_owned(),
                object => object.name().to_owned(),
            });
        }
        transaction.batch_execute(&record(object, was_there, made))?;
        (server, metrics) = server::look(&mut transaction)?;
    }
    transaction.commit()?;
    Ok(Updated { server, metrics, adopted, again, warnings })
}

/// True where an object was made before. What is made in its place is the hub's own.
fn was_made(transaction: &mut Transaction<'_>, object: &Object) -> Result<bool, postgres::Error> {
    let sql = format!("UPDATE {SCHEMA_TABLE} SET adopted = FALSE WHERE object = '{}'", object.name());
    transaction.execute(&sql, &[]).map(|rows| rows > 0)
}

/// Runs a statement; what is lost, where it failed and the update goes on.
fn run(transaction: &mut Transaction<'_>, statement: &Statement) -> Result<Option<Warning>, postgres::Error> {
    let Some(without) = statement.without else {
        return transaction.batch_execute(&statement.sql).map(|()| None);
    };
    let mut attempt = transaction.savepoint("step")?;
    let sql = match statement.by_hand {
        // One round trip; where it fails, the savepoint brings the settings back.
        Some(_) => &format!("{BY_HAND}; {}; {SETTINGS}", statement.sql),
        None => &statement.sql,
    };
    match attempt.batch_execute(sql) {
        Ok(()) => attempt.commit().map(|()| None),
        // Whoever may not do it must be told what to run.
        Err(error) if error.as_db_error().is_none() => Err(error),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) && !statement.for_the_owner => Err(error),
        Err(error) => {
            attempt.rollback()?;
            let sql = statement.by_hand.as_deref().unwrap_or(&statement.sql);
            let twice = error.code() == Some(&SqlState::UNIQUE_VIOLATION);
            let first = if twice { "delete the rows that are there more than once, then " } else { "" };
            Ok(Some(Warning { without, reason: said(&error), remedy: format!("{first}run {sql}") }))
        }
    }
}

fn schema_table() -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {SCHEMA_TABLE} (object TEXT PRIMARY KEY, version INTEGER NOT NULL, \
         oldest INTEGER NOT NULL, adopted BOOLEAN NOT NULL)"
    )
}

/// Whether nothing of the object's name is there.
fn is_missing(transaction: &mut Transaction<'_>, object: &Object) -> Result<bool, postgres::Error> {
    let Object::Readings(table) = object else { return Ok(false) };
    transaction.query_typed_one("SELECT to_regclass($1) IS NULL", &[(&table_name(table), Type::TEXT)])?.try_get(0)
}

fn record(object: &Object, adopted: bool, made: bool) -> String {
    format!(
        "INSERT INTO {SCHEMA_TABLE} (object, version, oldest, adopted) VALUES ('{}', {}, {}, {adopted}) \
         ON CONFLICT (object) DO UPDATE SET version = excluded.version, oldest = excluded.oldest",
        object.name(),
        object.version(),
        object.oldest(made)
    )
}

/// What the owner of the tables runs in psql where the role of the hub may not. The views and hours come last: they are long,
/// a log line is cut, and rows are stored without them.
fn script(missing: &[(&Object, i64)], server: &Server, metrics: &Metrics, role: &str) -> String {
    let role = quoted(role);
    let mut lines = vec![schema_table(), format!("GRANT SELECT, INSERT, UPDATE ON {SCHEMA_TABLE} TO {role}")];
    let (views, tables): (Vec<(&Object, i64)>, Vec<_>) =
        missing.iter().copied().partition(|(object, _)| matches!(object, Object::MetricViews | Object::Hourly));
    for (object, version) in tables.into_iter().chain(views) {
        lines.extend(steps::steps(object, version, server, metrics).into_iter().map(|statement| statement.sql));
        let table = match object {
            Object::MetricViews => None,
            Object::Hourly => Some(format!("{HOURLY}, {UNFILLED}")),
            Object::Readings(table) => Some(table_name(table)),
            other => Some(other.name().to_owned()),
        };
        lines.extend(table.map(|table| format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")));
        lines.push(record(object, *object == Object::Metrics && metrics.exists, false));
    }
    lines.join(";\n") + ";"
}
