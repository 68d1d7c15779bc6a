//! Metrics, and what happened, in one transaction.

use postgres::types::Type;
use postgres::{Client, GenericClient, Row};

use super::server::{Kind, Metrics};
use super::{CALL_LIMIT, Postgres, SCHEMA_TABLE, events, explain};
use crate::store::batch::Batch;
use crate::store::events::{Events, Shipped};
use crate::store::{Error, METRICS_TABLE};

impl Postgres {
    /// Stores a batch of metrics, with what happened in the same transaction.
    pub(super) fn store(&mut self, batch: Batch, events: Events) -> Result<Shipped, Error> {
        let unusable = (!events.times.is_empty()).then(|| self.server.events.problem(&self.address.role)).flatten();
        if events.times.is_empty() || unusable.is_some() {
            self.insert_alone(batch)?;
            return Ok(Shipped { unusable, ..Shipped::default() });
        }
        let (sql, kind) = (insert_statement(&self.metrics), self.server.kind);
        let job = {
            let (batch, events) = (batch.clone(), events.clone());
            move |client: &mut Client| insert_both(client, kind, &sql, &batch, &events)
        };
        match self.session.call(CALL_LIMIT, job)? {
            Ok(new) => return Ok(Shipped { new, ..Shipped::default() }),
            Err(error) if error.as_db_error().is_none() => return Err(self.failed("store metrics", &error)),
            // One of the two tables refuses something; the metrics must not wait for events.
            Err(_) => {}
        }
        self.insert_alone(batch)?;
        self.call("store events", move |client| events::insert_each(client, &events))
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

/// Stores a batch with events: in one round trip where the server is known to take a change of two tables in one statement,
/// which distributed tables and hypertables may not. Returns the places of the events that are new.
fn insert_both(
    client: &mut Client,
    kind: Kind,
    sql: &str,
    batch: &Batch,
    events: &Events,
) -> Result<Vec<usize>, postgres::Error> {
    if kind != Kind::Plain {
        let mut transaction = client.transaction()?;
        insert(&mut transaction, sql, batch, 0..batch.times.len())?;
        let new = events::insert(&mut transaction, events)?;
        return transaction.commit().map(|()| new);
    }
    let insert_events = events::insert_statement(6);
    let sql = format!("WITH metrics AS ({sql}), events AS ({insert_events}) {} FROM events", events::NEW);
    events.places(&run(client, &sql, batch, 0..batch.times.len(), events.parameters().to_vec())?)
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
