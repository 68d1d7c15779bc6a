//! `metrics_hourly` in PostgreSQL: a table, filled along with the rows of a run in one round trip.

use std::collections::HashSet;

use postgres::types::Type;
use postgres::{Client, GenericClient};

use super::events::Parameter;
use super::explain::quoted;
use super::keys::unique;
use crate::kinds::{HOUR, hour_of};
use crate::store::batch::Batch;
use crate::store::engine::HOSTS;
use crate::store::hourly::{self, HOURLY, Hours, UNFILLED};

const KEY: [&str; 5] = ["host", "kind", "label", "key", "hour"];

/// What there is of the two tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    /// There is a relation of the table's name.
    is_there: bool,
    /// The role may write to both, and rows of the table have their key.
    pub is_usable: bool,
    /// The role may make tables.
    may_make: bool,
    /// Hours may be left to be counted.
    pub has_unfilled: bool,
}

impl Tables {
    /// What `look` asks the server, four columns of an answer.
    pub(super) fn question() -> String {
        let oid = format!("to_regclass('{HOURLY}')");
        let may = |table: &str, rights: &[&str]| {
            let rights = rights.iter().map(|right| format!("has_table_privilege(to_regclass('{table}'), '{right}')"));
            rights.collect::<Vec<_>>().join(" AND ")
        };
        format!(
            "{oid} IS NOT NULL, COALESCE({} AND {} AND {}, FALSE), \
             COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE), \
             COALESCE(pg_relation_size(to_regclass('{UNFILLED}')) > 0, FALSE)",
            unique(&oid, &KEY),
            may(HOURLY, &["SELECT", "INSERT", "UPDATE"]),
            may(UNFILLED, &["SELECT", "UPDATE", "DELETE"])
        )
    }

    /// The answer, from a column on.
    pub(super) fn read(row: &postgres::Row, at: usize) -> Result<Self, postgres::Error> {
        Ok(Self {
            is_there: row.try_get(at)?,
            is_usable: row.try_get(at + 1)?,
            may_make: row.try_get(at + 2)?,
            has_unfilled: row.try_get(at + 3)?,
        })
    }

    /// True where it is missing and stays so.
    pub(super) fn cannot_be_made(&self) -> bool {
        !self.is_there && !self.may_make
    }

    /// Why no hours are kept, and what to do; none where they are.
    pub(super) fn problem(&self, role: &str) -> Option<String> {
        let role = quoted(role);
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {HOURLY}, {UNFILLED} TO {role};");
        let make = if self.is_there { String::new() } else { format!("{}; ", statements().join("; ")) };
        let why =
            format!("{HOURLY} is not kept: role {role} may not make it or write to it; run as who may: {make}{grant}");
        (!self.is_usable).then_some(why)
    }
}

/// What makes the tables.
pub(super) fn statements() -> [String; 3] {
    [
        format!(
            "CREATE TABLE IF NOT EXISTS {HOURLY} (host TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL, key TEXT NOT NULL, \
             hour TIMESTAMPTZ NOT NULL, min DOUBLE PRECISION NOT NULL, avg DOUBLE PRECISION NOT NULL, \
             max DOUBLE PRECISION NOT NULL, samples BIGINT NOT NULL, PRIMARY KEY ({})) WITH (fillfactor = 80)",
            KEY.join(", ")
        ),
        format!("CREATE INDEX IF NOT EXISTS {HOURLY}_hour ON {HOURLY} USING brin (hour) WITH (autosummarize = on)"),
        format!("CREATE TABLE IF NOT EXISTS {UNFILLED} (host TEXT PRIMARY KEY, before TIMESTAMPTZ NOT NULL)"),
    ]
}

/// What has the hours counted of rows that are there already. The hosts are found by skipping through the key.
pub(super) fn leave_unfilled() -> String {
    format!(
        "WITH RECURSIVE {HOSTS} \
         INSERT INTO {UNFILLED} SELECT host, to_timestamp((floor(extract(epoch FROM \
           (SELECT max(m.time) FROM system_metrics AS m WHERE m.host = hosts.host)) / 3600) + 1) * 3600) \
         FROM hosts WHERE host IS NOT NULL ON CONFLICT DO NOTHING"
    )
}

/// What every row's time is compared by: in milliseconds, whatever the column makes of it.
const MILLIS: &str = "(extract(epoch FROM time) * 1000)::bigint AS millis";

/// What an insert of rows gives back, for `insert_statement`.
pub(super) fn returning() -> String {
    format!("RETURNING host, metric_type, {MILLIS}")
}

/// The statement that counts the numbers of `rows`, a relation with host, metric_type and millis, with its first parameter's
/// number; `zone` and `time_type` are those of the column of their times. It holds on to what says which hours are counted already.
pub(super) fn insert_statement(rows: &str, (zone, time_type): (&str, &str), first: usize) -> String {
    let parameter = |at: usize| format!("${}", first + at);
    let hour = "TIMESTAMPTZ 'epoch' + n.hour * INTERVAL '1 millisecond'";
    format!(
        "INSERT INTO {HOURLY} AS w ({}, min, avg, max, samples) \
         SELECT n.host, n.kind, n.label, n.key, {hour}, min(n.value), avg(n.value), max(n.value), count(*) \
         FROM unnest({}::bigint[], {}::text[], {}::text[], {}::text[], {}::text[], {}::bigint[], {}::float8[]) \
             AS n (millis, host, kind, label, key, hour, value) \
         JOIN {rows} AS m ON m.host = n.host AND m.metric_type = n.kind AND m.millis = (extract(epoch FROM \
             ({zone} 'epoch' + n.millis * INTERVAL '1 millisecond')::{}) * 1000)::bigint \
         LEFT JOIN (SELECT host, before FROM {UNFILLED} WHERE host = ANY ({}::text[]) FOR SHARE) AS u ON u.host = n.host \
         WHERE u.before IS NULL OR {hour} >= u.before \
         GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5 \
         ON CONFLICT ({}) DO UPDATE SET min = least(w.min, excluded.min), max = greatest(w.max, excluded.max), \
             avg = (w.avg * w.samples + excluded.avg * excluded.samples) / (w.samples + excluded.samples), \
             samples = w.samples + excluded.samples",
        KEY.join(", "),
        parameter(0),
        parameter(1),
        parameter(2),
        parameter(3),
        parameter(4),
        parameter(5),
        parameter(6),
        time_type,
        parameter(1),
        KEY.join(", ")
    )
}

/// Numbers as columns.
#[derive(Clone, Default)]
pub(super) struct Numbers {
    millis: Vec<i64>,
    hosts: Vec<String>,
    kinds: Vec<String>,
    labels: Vec<String>,
    keys: Vec<String>,
    hours: Vec<i64>,
    values: Vec<f64>,
}

impl Numbers {
    pub(super) fn of(batch: &Batch) -> Self {
        let (mut numbers, mut seen) = (Self::default(), HashSet::new());
        for at in 0..batch.times.len() {
            let (millis, mut hours) = (batch.times[at], Hours::new());
            // Of a row that is in the batch twice the table takes the first.
            if !seen.insert((millis, &batch.hosts[at], &batch.types[at])) {
                continue;
            }
            hourly::count(&mut hours, &batch.hosts[at], &batch.types[at], millis, &batch.payloads[at]);
            for ((host, kind, hour), courses) in hours {
                for ((label, key), course) in courses {
                    numbers.millis.push(millis);
                    numbers.hosts.push(host.clone());
                    numbers.kinds.push(kind.clone());
                    numbers.labels.push(label);
                    numbers.keys.push(key);
                    numbers.hours.push(hour);
                    numbers.values.push(course.max);
                }
            }
        }
        numbers
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 7] {
        [
            (&self.millis, Type::INT8_ARRAY),
            (&self.hosts, Type::TEXT_ARRAY),
            (&self.kinds, Type::TEXT_ARRAY),
            (&self.labels, Type::TEXT_ARRAY),
            (&self.keys, Type::TEXT_ARRAY),
            (&self.hours, Type::INT8_ARRAY),
            (&self.values, Type::FLOAT8_ARRAY),
        ]
    }
}

/// Counts one hour of a host that nobody else is at; false where there is none.
pub(super) fn fill_hour(client: &mut Client, zone: &str) -> Result<bool, postgres::Error> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute("SET LOCAL statement_timeout = '2s'")?;
    let next = format!(
        "SELECT host, (extract(epoch FROM before) * 1000)::bigint FROM {UNFILLED} LIMIT 1 FOR UPDATE SKIP LOCKED"
    );
    let Some(next) = transaction.query_typed_opt(&next, &[])? else {
        // A table of no length says to whoever comes next that nothing is left. Only its owner may cut it.
        let left = format!("SELECT EXISTS (SELECT FROM {UNFILLED})");
        if !transaction.query_typed_one(&left, &[])?.try_get::<_, bool>(0)? {
            let mut attempt = transaction.savepoint("cut")?;
            match attempt.batch_execute(&format!("TRUNCATE {UNFILLED}")) {
                Ok(()) => attempt.commit()?,
                Err(error) if error.as_db_error().is_some() => attempt.rollback()?,
                Err(error) => return Err(error),
            }
        }
        return transaction.commit().map(|()| false);
    };
    let (host, before): (String, i64) = (next.try_get(0)?, next.try_get(1)?);
    let at = |parameter: u8| format!("{zone} 'epoch' + ${parameter} * INTERVAL '1 millisecond'");
    let newest = format!(
        "SELECT (floor(extract(epoch FROM max(time)) * 1000))::bigint FROM system_metrics WHERE host = $1 AND time < {}",
        at(2)
    );
    let newest = transaction.query_typed_one(&newest, &[(&host, Type::TEXT), (&before, Type::INT8)])?;
    let Some(newest) = newest.try_get::<_, Option<i64>>(0)? else {
        transaction.execute_typed(&format!("DELETE FROM {UNFILLED} WHERE host = $1"), &[(&host, Type::TEXT)])?;
        return transaction.commit().map(|()| true);
    };
    let hour = hour_of(newest);
    let rows = format!(
        "SELECT metric_type, payload::text, {MILLIS} FROM system_metrics WHERE host = $1 AND time >= {} AND time < {}",
        at(2),
        at(3)
    );
    let range = [
        (&host as &(dyn postgres::types::ToSql + Sync), Type::TEXT),
        (&hour, Type::INT8),
        (&(hour + HOUR), Type::INT8),
    ];
    let mut hours = Hours::new();
    for row in transaction.query_typed(&rows, &range)? {
        let payload: Option<&str> = row.try_get(1)?;
        hourly::count(&mut hours, &host, row.try_get(0)?, row.try_get(2)?, payload.unwrap_or_default());
    }
    put(&mut transaction, &hours)?;
    let done =
        format!("UPDATE {UNFILLED} SET before = TIMESTAMPTZ 'epoch' + $2 * INTERVAL '1 millisecond' WHERE host = $1");
    transaction.execute_typed(&done, &[(&host, Type::TEXT), (&hour, Type::INT8)])?;
    transaction.commit().map(|()| true)
}

/// Stores whole hours, in place of what there is of them.
fn put(client: &mut impl GenericClient, hours: &Hours) -> Result<(), postgres::Error> {
    let mut texts: [Vec<&str>; 4] = Default::default();
    let (mut times, mut samples, mut numbers): (Vec<i64>, Vec<i64>, [Vec<f64>; 3]) = Default::default();
    for ((host, kind, hour), courses) in hours {
        for ((label, key), course) in courses {
            for (column, text) in texts.iter_mut().zip([host, kind, label, key]) {
                column.push(text);
            }
            for (column, number) in numbers.iter_mut().zip([course.min, course.mean(), course.max]) {
                column.push(number);
            }
            times.push(*hour);
            samples.push(course.samples);
        }
    }
    let sql = format!(
        "INSERT INTO {HOURLY} ({}, min, avg, max, samples) \
         SELECT h, k, l, y, TIMESTAMPTZ 'epoch' + t * INTERVAL '1 millisecond', lo, mean, hi, n \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::float8[], $7::float8[], $8::float8[], \
             $9::bigint[]) AS u (h, k, l, y, t, lo, mean, hi, n) \
         ON CONFLICT ({}) DO UPDATE SET min = excluded.min, avg = excluded.avg, max = excluded.max, samples = excluded.samples",
        KEY.join(", "),
        KEY.join(", ")
    );
    let [hosts, kinds, labels, keys] = &texts;
    let [least, mean, most] = &numbers;
    client
        .execute_typed(
            &sql,
            &[
                (hosts, Type::TEXT_ARRAY),
                (kinds, Type::TEXT_ARRAY),
                (labels, Type::TEXT_ARRAY),
                (keys, Type::TEXT_ARRAY),
                (&times, Type::INT8_ARRAY),
                (least, Type::FLOAT8_ARRAY),
                (mean, Type::FLOAT8_ARRAY),
                (most, Type::FLOAT8_ARRAY),
                (&samples, Type::INT8_ARRAY),
            ],
        )
        .map(drop)
}

/// Whether hours are left to be counted.
pub(super) fn has_unfilled(client: &mut Client) -> Result<bool, postgres::Error> {
    client.query_typed_one(&format!("SELECT EXISTS (SELECT FROM {UNFILLED})"), &[])?.try_get(0)
}

/// Deletes a batch of old hours: how many.
pub(super) fn delete(client: &mut impl GenericClient, days: i32, most: i64) -> Result<u64, postgres::Error> {
    let sql = format!(
        "DELETE FROM {HOURLY} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {HOURLY} \
         WHERE hour < now() - make_interval(days => $1) LIMIT {most}))"
    );
    client.execute_typed(&sql, &[(&days, Type::INT4)])
}
