//! PostgreSQL, alone, with TimescaleDB or with Citus, directly or through PgBouncer in transaction mode.
//! Only what is particular to PostgreSQL is here.
//! No statement outlives its transaction: nothing is prepared by name, no session is set, locks are the transaction's.

mod address;
mod escape;
mod events;
mod explain;
mod hourly;
mod keys;
mod look;
mod metrics;
mod migrate;
mod options;
mod passfile;
mod readings;
mod refused;
mod series;
mod server;
mod session;
mod steps;
mod views;

pub(super) use look::Reader;

use std::time::{Duration, Instant};

use postgres::types::Type;
use postgres::{Client, GenericClient};

use super::Error;
use super::batch::Batch;
use super::engine::{Engine, list_hosts};
use super::events::{Events, Shipped};
use super::readings::MOST_DAYS;
use super::schema::SCHEMA_TABLE;
use crate::config::{Config, DatabaseUrl};
use crate::log;
use address::Address;
use explain::Lack;
use migrate::MIGRATE_LOCK;
use server::{Kind, Metrics, Server};
use session::{LOOK_LIMIT, Session, explain_on};

/// One statement, or one short transaction.
const CALL_LIMIT: Duration = Duration::from_secs(6);
/// How long one call of `delete_old_metrics` begins new batches.
const DELETE_TIME: Duration = Duration::from_secs(2);
/// Rows that one transaction of `delete_old_metrics` deletes.
const DELETE_ROWS: i64 = 5000;
const DELETE_LOCK: i64 = MIGRATE_LOCK + 1;

pub(super) struct Postgres {
    session: Session,
    address: Address,
    metrics: Metrics,
    /// False for a table that the hub did not make, unless hub.toml says how long to keep its rows.
    may_trim: bool,
    server: Server,
    /// What was gone and is made again.
    again: Vec<String>,
}

/// Whether the URL is one that `Postgres::open` understands.
pub(super) fn check_address(url: &DatabaseUrl) -> Result<(), Error> {
    Address::parse(url).map(drop)
}

impl Postgres {
    /// Connects and brings the schema up to date; nothing waits beyond `until`, now or later.
    pub(super) fn open(config: &Config, url: &DatabaseUrl, until: Option<Instant>) -> Result<Self, Error> {
        let address = Address::parse(url)?;
        let mut session = Session::connect(&address, until)?;
        let (server, metrics, adopted, again) = migrate::migrate(&mut session, &address, config)?;
        let may_trim = !adopted || config.metrics.retention_days.is_some();
        Ok(Self { session, address, metrics, may_trim, server, again })
    }

    /// Runs `job` on the connection, its error explained.
    fn call<T: Send + 'static>(
        &mut self,
        act: &str,
        job: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.session.explained(&self.address, CALL_LIMIT, act, job)
    }

    fn failed(&mut self, act: &str, error: &postgres::Error) -> Error {
        explain_on(&mut self.session, &self.address, act, error)
    }

    /// An error on tables, with what the role lacks on them.
    fn failed_on(&mut self, tables: &[&str], act: &str, error: &postgres::Error) -> Error {
        if !explain::is_about_rights(error) {
            return self.failed(act, error);
        }
        let (target, role) = (self.address.target.clone(), explain::quoted(&self.address.role));
        let mut remedies = Vec::new();
        for table in tables.iter().map(|table| explain::table_name(table)) {
            remedies.extend(self.lack(&table).and_then(|lack| lack.remedy(&table, &role)));
        }
        if remedies.is_empty() {
            return self.failed(act, error);
        }
        let (reason, remedies) = (explain::said(error), remedies.join(" "));
        let remedy = format!("as the owner of the tables, run: {remedies}");
        Error::Rights { target, reason: format!("cannot {act}: {reason}"), remedy }
    }

    /// What the role lacks on a table, by its name as SQL writes it; none where that cannot be found out.
    fn lack(&mut self, table: &str) -> Option<Lack> {
        let name = table.to_owned();
        let looked = self.session.call(LOOK_LIMIT, move |client| Lack::look(client, &name));
        let looked = looked.and_then(|looked| looked.map_err(|error| self.failed("look at a table", &error)));
        looked.unwrap_or_else(|error| {
            // The error that is explained by it matters more.
            log::warn!("rights_not_looked_at", table = table, error = error.to_string());
            None
        })
    }
}

impl Engine for Postgres {
    fn insert_metrics(&mut self, batch: Batch, events: Events) -> Result<Shipped, Error> {
        self.store(batch, events)
    }

    fn delete_old_metrics(&mut self, days: u32) -> Result<u64, Error> {
        if !self.may_trim {
            return Ok(0);
        }
        // Nothing goes before its hour is counted.
        self.fill();
        let is_usable = self.server.hourly.is_usable;
        if is_usable && self.call("read what is counted", hourly::has_unfilled)? {
            return Ok(0);
        }
        let days = i32::try_from(days).unwrap_or(i32::MAX);
        if self.server.kind == Kind::Timescale && self.metrics.hypertable {
            return self.call("drop old chunks", move |client| drop_old_chunks(client, days)).map(|()| 0);
        }
        // A row's place is unique in a plain table only; of others, the oldest time goes, and twice as much of it each
        // time that was quick.
        let by_rows = self.metrics.plain && self.server.kind != Kind::Citus;
        let until = Instant::now() + DELETE_TIME;
        let (mut deleted, mut hours) = (0, 1);
        let (has_zone, has_key) = (self.metrics.has_zone(), self.metrics.unique_key);
        loop {
            let (batch, is_done) = self.call("delete old metrics", move |client| {
                if by_rows {
                    delete_rows(client, days, has_zone, has_key)
                } else {
                    delete_hours(client, days, hours, has_zone)
                }
            })?;
            deleted += batch;
            if is_done || Instant::now() >= until {
                return Ok(deleted);
            }
            hours = hours.saturating_mul(2);
        }
    }

    fn delete_old_hours(&mut self, days: u32) -> Result<u64, Error> {
        if !self.server.hourly.is_usable {
            return Ok(0);
        }
        let days = i32::try_from(days.min(MOST_DAYS)).unwrap_or(i32::MAX);
        let until = Instant::now() + DELETE_TIME;
        let mut deleted = 0;
        loop {
            let batch = self.call("delete old hours", move |client| {
                let mut transaction = client.transaction()?;
                let may = may_delete(&mut transaction)?;
                let gone = if may { hourly::delete(&mut transaction, days, DELETE_ROWS)? } else { 0 };
                transaction.commit().map(|()| gone)
            })?;
            deleted += batch;
            if batch < DELETE_ROWS.unsigned_abs() || Instant::now() >= until {
                return Ok(deleted);
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let encoding = &self.server.encoding;
        let encoding = (!self.server.is_utf8()).then(|| {
            format!(
                "{}: the database has the encoding {encoding}: documents with characters that it lacks become dead \
                 letters; a database made with ENCODING 'UTF8' TEMPLATE template0 takes all",
                self.address.target
            )
        });
        let hours = self.server.hourly.problem(&self.address.role);
        let hours = hours.map(|problem| format!("{}: {problem}", self.address.target));
        encoding.into_iter().chain(hours).chain(super::schema::again(&self.address.target, &self.again)).collect()
    }

    fn check(&mut self) -> Result<(), Error> {
        self.call("read the schema", |client| {
            client.query_typed(&format!("SELECT count(*) FROM {SCHEMA_TABLE}"), &[]).map(|_| ())
        })
    }
}

/// Takes the lock of whoever trims, for this transaction; false where another host is at it.
fn may_delete(transaction: &mut impl GenericClient) -> Result<bool, postgres::Error> {
    let row = transaction.query_typed_one("SELECT pg_try_advisory_xact_lock($1)", &[(&DELETE_LOCK, Type::INT8)])?;
    row.try_get(0)
}

/// Rows older than so many days, for a place in a statement whose first parameter they are.
fn old(has_zone: bool) -> String {
    let now = if has_zone { "now()" } else { "(now() AT TIME ZONE 'UTC')" };
    format!("time < {now} - make_interval(days => $1)")
}

/// Where old rows lie, at most a batch of them. The key begins with the host: from host to host it answers at once, also where
/// nothing is old, while for all hosts together the planner may read the whole of it.
fn old_rows(has_zone: bool, has_key: bool) -> String {
    let old = old(has_zone);
    if !has_key {
        return format!("SELECT ctid FROM system_metrics WHERE {old} LIMIT {DELETE_ROWS}");
    }
    format!(
        "SELECT rows.ctid FROM ({}) AS known CROSS JOIN LATERAL (\
             SELECT ctid FROM system_metrics WHERE host = known.host AND {old} ORDER BY time LIMIT {DELETE_ROWS}) AS rows \
         LIMIT {DELETE_ROWS}",
        list_hosts()
    )
}

/// Deletes a batch of old rows: how many, and whether it was the last one.
fn delete_rows(client: &mut Client, days: i32, has_zone: bool, has_key: bool) -> Result<(u64, bool), postgres::Error> {
    let mut transaction = client.transaction()?;
    if !may_delete(&mut transaction)? {
        return Ok((0, true));
    }
    let rows = old_rows(has_zone, has_key);
    let sql = format!("DELETE FROM system_metrics WHERE ctid = ANY (ARRAY({rows}))");
    let deleted = transaction.execute_typed(&sql, &[(&days, Type::INT4)])?;
    transaction.commit()?;
    Ok((deleted, deleted < DELETE_ROWS.unsigned_abs()))
}

/// Deletes the oldest hours of what is old: how many rows, and whether nothing old is left. Two statements, because
/// Citus does not take a look at the whole table inside a change of it.
fn delete_hours(client: &mut Client, days: i32, hours: i32, has_zone: bool) -> Result<(u64, bool), postgres::Error> {
    let mut transaction = client.transaction()?;
    if !may_delete(&mut transaction)? {
        return Ok((0, true));
    }
    let old = old(has_zone);
    let oldest = format!("SELECT (extract(epoch FROM min(time)) * 1000)::bigint FROM system_metrics WHERE {old}");
    let oldest: Option<i64> = transaction.query_typed_one(&oldest, &[(&days, Type::INT4)])?.try_get(0)?;
    let Some(oldest) = oldest else { return Ok((0, true)) };
    let until = oldest.saturating_add(i64::from(hours) * 3_600_000);
    let kind = if has_zone { "TIMESTAMPTZ" } else { "TIMESTAMP" };
    let sql =
        format!("DELETE FROM system_metrics WHERE {old} AND time <= {kind} 'epoch' + $2 * INTERVAL '1 millisecond'");
    let deleted = transaction.execute_typed(&sql, &[(&days, Type::INT4), (&until, Type::INT8)])?;
    transaction.commit()?;
    Ok((deleted, false))
}

/// Lets TimescaleDB drop whole chunks: by its policy, made anew when the days have changed; where the edition has no
/// policies, at once.
fn drop_old_chunks(client: &mut Client, days: i32) -> Result<(), postgres::Error> {
    let mut transaction = client.transaction()?;
    if !may_delete(&mut transaction)? {
        return Ok(());
    }
    let days = [(&days as &(dyn postgres::types::ToSql + Sync), Type::INT4)];
    let policy = transaction.query_typed_opt(
        "SELECT FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention' \
         AND hypertable_name = 'system_metrics' AND (config ->> 'drop_after')::interval = make_interval(days => $1)",
        &days,
    )?;
    if policy.is_some() {
        return transaction.commit();
    }
    let mut attempt = transaction.savepoint("policy")?;
    let made =
        attempt.query_typed("SELECT remove_retention_policy('system_metrics', if_exists => TRUE)", &[]).and_then(
            |_| attempt.query_typed("SELECT add_retention_policy('system_metrics', make_interval(days => $1))", &days),
        );
    match made {
        Ok(_) => attempt.commit()?,
        Err(error) if error.code() == Some(&postgres::error::SqlState::FEATURE_NOT_SUPPORTED) => {
            attempt.rollback()?;
            transaction.query_typed("SELECT drop_chunks('system_metrics', make_interval(days => $1))", &days)?;
        }
        Err(error) => return Err(error),
    }
    transaction.commit()
}
