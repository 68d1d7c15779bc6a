//! `hub_events`: looked at before it is written to, so that a role that may not, or a table of somebody else's, costs no
//! sample and no error in the server's log each minute.

use postgres::types::{ToSql, Type};
use postgres::{Client, GenericClient, Row};

use super::explain::{quoted, refusal, said};
use super::keys::unique;
use crate::store::events::{EVENTS_TABLE, Events, Shipped};

/// The columns, as the catalogs call their types.
const COLUMNS: [(&str, &str); 8] = [
    ("time", "timestamp with time zone"),
    ("host", "text"),
    ("service", "text"),
    ("kind", "text"),
    ("about", "text"),
    ("status", "text"),
    ("reason", "text"),
    ("payload", "jsonb"),
];
const KEY: [&str; 5] = ["host", "service", "time", "kind", "about"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventsTable {
    /// Its columns with their types; of those that the hub does not know, the ones that every row must fill. None where there
    /// is no such table.
    columns: Option<Vec<String>>,
    /// It has the key that keeps an event from being there twice.
    has_key: bool,
    /// The role may write to it.
    is_writable: bool,
    /// The role may make a table.
    may_make: bool,
    /// Why it was not made, although the role may.
    pub not_made: Option<String>,
}

impl EventsTable {
    /// What `look` asks the server, four columns of an answer.
    pub(super) fn question() -> String {
        let oid = format!("to_regclass('{EVENTS_TABLE}')");
        let names = COLUMNS.map(|(name, _)| format!("'{name}'")).join(", ");
        format!(
            "CASE WHEN {oid} IS NULL THEN NULL ELSE ARRAY(\
               SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = {oid} \
               AND attnum > 0 AND NOT attisdropped AND (attname IN ({names}) \
                    OR attnotnull AND NOT atthasdef AND attidentity = '')) END, \
             {}, \
             COALESCE(has_table_privilege({oid}, 'INSERT') AND has_table_privilege({oid}, 'SELECT'), FALSE), \
             COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE)",
            unique(&oid, &KEY)
        )
    }

    /// The answer, from a column on.
    pub(super) fn read(row: &Row, at: usize) -> Result<Self, postgres::Error> {
        Ok(Self {
            columns: row.try_get(at)?,
            has_key: row.try_get(at + 1)?,
            is_writable: row.try_get(at + 2)?,
            may_make: row.try_get(at + 3)?,
            not_made: None,
        })
    }

    pub(super) fn is_there(&self) -> bool {
        self.columns.is_some()
    }

    /// True where it is missing and stays so.
    pub(super) fn cannot_be_made(&self) -> bool {
        !self.is_there() && !self.may_make
    }

    /// Why nothing can be stored in it, and what to do; none where it can.
    pub(super) fn problem(&self, role: &str) -> Option<String> {
        let role = quoted(role);
        let grant = format!("GRANT SELECT, INSERT ON {EVENTS_TABLE} TO {role};");
        let Some(columns) = &self.columns else {
            let why = self.not_made.clone().unwrap_or_else(|| format!("role {role} may not make {EVENTS_TABLE}"));
            return Some(format!("{why}; run as who may: {}; {grant}", statements().join("; ")));
        };
        let wanted = COLUMNS.map(|(name, kind)| format!("{name} {kind}"));
        let lacks = wanted.iter().find(|column| !columns.contains(column)).map(|column| format!("no column {column}"));
        let more = || {
            let other = columns.iter().find(|column| !wanted.contains(column))?;
            Some(format!("a column {other} that each row must fill"))
        };
        let no_key = || (!self.has_key).then(|| format!("no unique key on {}", KEY.join(", ")));
        if let Some(what) = lacks.or_else(more).or_else(no_key) {
            return Some(format!(
                "there is a relation {EVENTS_TABLE} that the hub did not make: it has {what}; rename it, and the hub makes \
                 its own"
            ));
        }
        (!self.is_writable).then(|| format!("role {role} may not write to {EVENTS_TABLE}; run as its owner: {grant}"))
    }
}

/// What makes the table.
pub(super) fn statements() -> [String; 2] {
    let columns =
        COLUMNS.map(|(name, kind)| format!("{name} {kind}{}", if name == "reason" { "" } else { " NOT NULL" }));
    [
        format!("CREATE TABLE IF NOT EXISTS {EVENTS_TABLE} ({}, UNIQUE ({}))", columns.join(", "), KEY.join(", ")),
        format!("CREATE INDEX IF NOT EXISTS {EVENTS_TABLE}_time ON {EVENTS_TABLE} (time)"),
    ]
}

/// The statement that stores events, with its first parameter's number; what it returns of those that are new is enough to
/// tell them apart.
pub(super) fn insert_statement(first: usize) -> String {
    let names = COLUMNS.map(|(name, _)| name).join(", ");
    let arrays: Vec<String> = (0..COLUMNS.len())
        .map(|at| format!("${}::{}[]", first + at, if at == 0 { "bigint" } else { "text" }))
        .collect();
    format!(
        "INSERT INTO {EVENTS_TABLE} ({names}) SELECT TIMESTAMPTZ 'epoch' + t * INTERVAL '1 millisecond', h, s, k, a, st, r, \
         p::jsonb FROM unnest({}) AS u (t, h, s, k, a, st, r, p) ON CONFLICT ({}) DO NOTHING RETURNING {}",
        arrays.join(", "),
        KEY.join(", "),
        KEY.join(", ")
    )
}

/// What is asked of the rows that are new.
pub(super) const NEW: &str = "SELECT (extract(epoch FROM time) * 1000)::bigint, host, service, kind, about";

/// A value with its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Events {
    pub(super) fn parameters(&self) -> [Parameter<'_>; 8] {
        [
            (&self.times, Type::INT8_ARRAY),
            (&self.hosts, Type::TEXT_ARRAY),
            (&self.services, Type::TEXT_ARRAY),
            (&self.kinds, Type::TEXT_ARRAY),
            (&self.abouts, Type::TEXT_ARRAY),
            (&self.statuses, Type::TEXT_ARRAY),
            (&self.reasons, Type::TEXT_ARRAY),
            (&self.payloads, Type::TEXT_ARRAY),
        ]
    }

    /// The places of the rows that an answer to `NEW` has.
    pub(super) fn places(&self, rows: &[Row]) -> Result<Vec<usize>, postgres::Error> {
        let mut places = Vec::new();
        for row in rows {
            let time: i64 = row.try_get(0)?;
            let (host, service, kind, about): (&str, &str, &str, &str) =
                (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            let is_it = |at: &usize| {
                let texts = [&self.hosts, &self.services, &self.kinds, &self.abouts].map(|column| column[*at].as_str());
                self.times[*at] == time && texts == [host, service, kind, about]
            };
            places.extend((0..self.times.len()).find(is_it));
        }
        Ok(places)
    }

    fn one(&self, at: usize) -> Self {
        let text = |column: &[String]| vec![column[at].clone()];
        Self {
            times: vec![self.times[at]],
            hosts: text(&self.hosts),
            services: text(&self.services),
            kinds: text(&self.kinds),
            abouts: text(&self.abouts),
            statuses: text(&self.statuses),
            reasons: vec![self.reasons[at].clone()],
            payloads: text(&self.payloads),
        }
    }
}

/// Stores events in a statement of their own.
pub(super) fn insert(client: &mut impl GenericClient, events: &Events) -> Result<Vec<usize>, postgres::Error> {
    let sql = format!("WITH events AS ({}) {NEW} FROM events", insert_statement(1));
    events.places(&client.query_typed(&sql, &events.parameters())?)
}

/// Stores each event by itself, where one of them is refused: the others are stored, unless that is because of the table.
pub(super) fn insert_each(client: &mut Client, events: &Events) -> Result<Shipped, postgres::Error> {
    let mut shipped = Shipped::default();
    let mut transaction = client.transaction()?;
    for at in 0..events.times.len() {
        let mut attempt = transaction.savepoint("event")?;
        match insert(&mut attempt, &events.one(at)) {
            Ok(new) => {
                attempt.commit()?;
                shipped.new.extend(new.iter().map(|_| at));
            }
            Err(error) if error.as_db_error().is_none() => return Err(error),
            Err(error) => {
                attempt.rollback()?;
                // A character that the database's encoding lacks, say. Rules that somebody gave the table are no event's fault.
                match refusal(&error).filter(|(code, _)| code.starts_with("22") || code.starts_with("54")) {
                    Some((_, reason)) => shipped.refused.push((at, reason)),
                    None => {
                        shipped.is_refused = true;
                        shipped.unusable = Some(format!("cannot write to {EVENTS_TABLE}: {}", said(&error)));
                        break;
                    }
                }
            }
        }
    }
    transaction.commit()?;
    Ok(shipped)
}
