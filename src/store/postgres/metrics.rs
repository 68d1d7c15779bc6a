//! Metrics, and what happened, in one transaction.

use std::time::Instant;

use postgres::types::Type;
use postgres::{Client, GenericClient, Row};

use super::hourly::Numbers;
use super::server::{Kind, Metrics};
use super::{CALL_LIMIT, Postgres, SCHEMA_TABLE, events, explain, hourly};
use crate::log;
use crate::store::batch::Batch;
use crate::store::events::{Events, Shipped};
use crate::store::hourly::FILL_TIME;
use crate::store::{Error, METRICS_TABLE};

/// What one call stores.
#[derive(Clone)]
struct Job {
    kind: Kind,
    metrics: Metrics,
    batch: Batch,
    /// None where no hours can be kept.
    numbers: Option<Numbers>,
    events: Option<Events>,
}

impl Postgres {
    /// Counts hours of earlier versions for a while. The rows of the run are safe, and the next run goes on: what is wrong is
    /// told, and no error.
    pub(super) fn fill(&mut self) {
        let until = Instant::now() + FILL_TIME;
        while self.server.hourly.has_unfilled && Instant::now() < until {
            let zone = if self.metrics.has_zone() { "TIMESTAMPTZ" } else { "TIMESTAMP" };
            match self.session.call(CALL_LIMIT, move |client| hourly::fill_hour(client, zone)) {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    let error = self.failed("count hours", &error);
                    return log::warn!("hours_not_filled", error = error.to_string());
                }
                Err(error) => return log::warn!("hours_not_filled", error = error.to_string()),
            }
        }
    }

    /// Stores a batch of metrics, with what happened and its hours in the same transaction.
    pub(super) fn store(&mut self, batch: Batch, events: Events) -> Result<Shipped, Error> {
        let unusable = (!events.times.is_empty()).then(|| self.server.events.problem(&self.address.role)).flatten();
        let has_events = !events.times.is_empty() && unusable.is_none();
        let mut job = Job {
            kind: self.server.kind,
            metrics: self.metrics.clone(),
            numbers: self.server.hourly.is_usable.then(|| Numbers::of(&batch)),
            events: has_events.then_some(events),
            batch,
        };
        // One of the tables may refuse something. The metrics must not wait for events, nor for hours.
        let mut shipped = Shipped { unusable, ..Shipped::default() };
        match self.try_job(&job)? {
            Ok(new) => shipped.new = new,
            Err(error) => match job.events.take() {
                None => self.store_rows(job, &error)?,
                Some(events) => {
                    if let Err(error) = self.try_job(&job)? {
                        self.store_rows(job, &error)?;
                    }
                    shipped = self.call("store events", move |client| events::insert_each(client, &events))?;
                }
            },
        }
        self.fill();
        Ok(shipped)
    }

    /// Tries all of it; what the server refuses is for the caller.
    fn try_job(&mut self, job: &Job) -> Result<Result<Vec<usize>, postgres::Error>, Error> {
        let job = job.clone();
        match self.session.call(CALL_LIMIT, move |client| insert_all(client, &job))? {
            Err(error) if error.as_db_error().is_none() => Err(self.failed("store metrics", &error)),
            done => Ok(done),
        }
    }

    /// Stores the rows alone. Where that is what failed, it says so; else their hours are not counted.
    fn store_rows(&mut self, job: Job, error: &postgres::Error) -> Result<(), Error> {
        self.insert_alone(job.batch)?;
        if job.numbers.is_some() {
            log::warn!("hours_not_kept", database = self.address.target, error = explain::said(error));
        }
        Ok(())
    }

    fn insert_alone(&mut self, batch: Batch) -> Result<(), Error> {
        let sql = insert_statement(&self.metrics);
        let outcome =
            self.session.call(CALL_LIMIT, move |client| match insert(client, &sql, &batch, 0..batch.times.len()) {
                Err(error) if explain::refusal(&error).is_some() => Err(match find_refused(client, &sql, &batch) {
                    Ok(index) => (error, index),
                    Err(lost) => (lost, None),
                }),
                Err(error) => Err((error, None)),
                Ok(()) => Ok(()),
            })?;
        outcome.map_err(|(error, index)| match (index, explain::refusal(&error)) {
            (Some(index), Some((code, reason)))
                if !explain::is_policy(&error)
                    || !self.lack(METRICS_TABLE).is_some_and(|lack| lack.has_no_policy()) =>
            {
                Error::Row { index, code, reason }
            }
            _ => self.failed_on(&[METRICS_TABLE, SCHEMA_TABLE], "store metrics", &error),
        })
    }
}

/// The statement that stores a batch. Where no unique key can stop a row that is there already, it looks first: enough
/// for a replay, which comes from the same host. A column without a time zone has its times in UTC.
fn insert_statement(metrics: &Metrics) -> String {
    let rows = format!(
        "SELECT {} 'epoch' + t * INTERVAL '1 millisecond' AS t, h, o, m, p::jsonb AS p \
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) AS u (t, h, o, m, p)",
        if metrics.has_zone() { "TIMESTAMPTZ" } else { "TIMESTAMP" }
    );
    let into = "INSERT INTO system_metrics (time, host, os, metric_type, payload)";
    if metrics.unique_key {
        return format!("{into} {rows} ON CONFLICT DO NOTHING");
    }
    // The column may be coarser than a millisecond: the Go version made it TIMESTAMPTZ(0).
    let time = format!("r.t::{}", metrics.time_type);
    format!(
        "{into} SELECT DISTINCT ON ({time}, r.h, r.m) r.t, r.h, r.o, r.m, r.p FROM ({rows}) AS r WHERE NOT EXISTS (\
         SELECT FROM system_metrics AS s WHERE s.host = r.h AND s.time = {time} AND s.metric_type = r.m) \
         ON CONFLICT DO NOTHING"
    )
}

/// Stores a batch with its hours and events: in one round trip where the server is known to take a change of several tables
/// in one statement, which distributed tables and hypertables may not. Returns the places of the events that are new.
fn insert_all(client: &mut Client, job: &Job) -> Result<Vec<usize>, postgres::Error> {
    let Job { kind, metrics, batch, numbers, events } = job;
    let (sql, all) = (insert_statement(metrics), 0..batch.times.len());
    if *kind != Kind::Plain && (numbers.is_some() || events.is_some()) {
        let mut transaction = client.transaction()?;
        let rows = run(&mut transaction, &format!("{sql} {}", hourly::returning()), batch, all, Vec::new())?;
        if let Some(numbers) = numbers {
            count_rows(&mut transaction, metrics, numbers, &rows)?;
        }
        let new = events.as_ref().map(|events| events::insert(&mut transaction, events)).transpose()?;
        return transaction.commit().map(|()| new.unwrap_or_default());
    }
    let mut parts = vec![format!("metrics AS ({sql} {})", hourly::returning())];
    let mut more = Vec::new();
    if let Some(numbers) = numbers {
        parts.push(format!("hourly AS ({})", hourly::insert_statement("metrics", times(metrics), 6)));
        more.extend(numbers.parameters());
    }
    let mut select = "SELECT WHERE FALSE".to_owned();
    if let Some(events) = events {
        parts.push(format!("events AS ({})", events::insert_statement(6 + more.len())));
        more.extend(events.parameters());
        select = format!("{} FROM events", events::NEW);
    }
    let rows = run(client, &format!("WITH {} {select}", parts.join(", ")), batch, all, more)?;
    events.as_ref().map_or(Ok(Vec::new()), |events| events.places(&rows))
}

/// How a time is written for its column, and the column's type.
fn times(metrics: &Metrics) -> (&str, &str) {
    (if metrics.has_zone() { "TIMESTAMPTZ" } else { "TIMESTAMP" }, &metrics.time_type)
}

/// Counts the numbers of rows that were new, in a statement of its own.
fn count_rows(
    client: &mut impl GenericClient,
    metrics: &Metrics,
    numbers: &Numbers,
    rows: &[Row],
) -> Result<(), postgres::Error> {
    let (mut hosts, mut kinds, mut millis): (Vec<String>, Vec<String>, Vec<i64>) = Default::default();
    for row in rows {
        hosts.push(row.try_get(0)?);
        kinds.push(row.try_get(1)?);
        millis.push(row.try_get(2)?);
    }
    let new = "(SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) AS r (host, metric_type, millis))";
    let mut parameters: Vec<events::Parameter<'_>> =
        vec![(&hosts, Type::TEXT_ARRAY), (&kinds, Type::TEXT_ARRAY), (&millis, Type::INT8_ARRAY)];
    parameters.extend(numbers.parameters());
    client.execute_typed(&hourly::insert_statement(new, times(metrics), 4), &parameters).map(drop)
}

fn insert(
    client: &mut impl GenericClient,
    sql: &str,
    batch: &Batch,
    range: std::ops::Range<usize>,
) -> Result<(), postgres::Error> {
    run(client, sql, batch, range, Vec::new()).map(drop)
}

/// Runs a statement on rows of a batch and on `more`. It is one transaction and, with its types said beforehand, one round trip.
fn run(
    client: &mut impl GenericClient,
    sql: &str,
    batch: &Batch,
    range: std::ops::Range<usize>,
    more: Vec<events::Parameter<'_>>,
) -> Result<Vec<Row>, postgres::Error> {
    let times = &batch.times[range.clone()];
    let [hosts, systems, types, payloads] =
        [&batch.hosts, &batch.systems, &batch.types, &batch.payloads].map(|column| &column[range.clone()]);
    let mut parameters: Vec<events::Parameter<'_>> = vec![
        (&times, Type::INT8_ARRAY),
        (&hosts, Type::TEXT_ARRAY),
        (&systems, Type::TEXT_ARRAY),
        (&types, Type::TEXT_ARRAY),
        (&payloads, Type::TEXT_ARRAY),
    ];
    parameters.extend(more);
    client.query_typed(sql, &parameters)
}

/// The first row of a refused batch that is refused: the shortest prefix that fails ends with it. Nothing is stored.
fn find_refused(client: &mut Client, sql: &str, batch: &Batch) -> Result<Option<usize>, postgres::Error> {
    let mut refused = |range: std::ops::Range<usize>| -> Result<bool, postgres::Error> {
        let mut transaction = client.transaction()?;
        let outcome = insert(&mut transaction, sql, batch, range);
        transaction.rollback()?;
        match outcome {
            Ok(()) => Ok(false),
            Err(error) if explain::refusal(&error).is_some() => Ok(true),
            Err(error) => Err(error),
        }
    };
    let (mut fine, mut failing) = (0, batch.times.len());
    while failing - fine > 1 {
        let middle = fine + (failing - fine) / 2;
        if refused(0..middle)? {
            failing = middle;
        } else {
            fine = middle;
        }
    }
    Ok(refused(fine..failing)?.then_some(fine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_follow_what_the_server_has() {
        let plain = Metrics {
            exists: true,
            plain: true,
            unique_key: true,
            hypertable: false,
            time_type: "timestamp with time zone".into(),
        };
        assert!(insert_statement(&plain).ends_with("ON CONFLICT DO NOTHING"));
        assert!(!insert_statement(&plain).contains("NOT EXISTS"));
        let adopted = Metrics { unique_key: false, time_type: "timestamp(0) with time zone".into(), ..plain.clone() };
        assert!(insert_statement(&adopted).contains("s.time = r.t::timestamp(0) with time zone"));
        let without = Metrics { time_type: "timestamp without time zone".into(), ..plain };
        assert!(insert_statement(&without).contains("SELECT TIMESTAMP 'epoch'"));
    }
}
