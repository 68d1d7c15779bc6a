use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::types::Type;

use super::address::Address;
use super::series::{Hour, Series};
use super::server;
use super::session::{LOOK_LIMIT, Session, explain_on};
use crate::config::DatabaseUrl;
use crate::kinds::{Found, Wanted};
use crate::store::Error;
use crate::store::engine::{self, Take, list_hosts};
use crate::store::hourly::{HOURLY, UNFILLED};
use crate::store::readings::{Noted, newest};

/// One piece of what is read.
const PIECE_LIMIT: Duration = Duration::from_secs(10);

/// Rows that one question gives: a quarter of a day of one host, some megabytes.
const PIECE: i64 = 6 * 3_600_000;
/// The same of hours: a month.
const HOURS: i64 = 31 * 24 * 3_600_000;

/// A connection that only reads.
pub(in crate::store) struct Reader {
    session: Session,
    address: Address,
    has_zone: bool,
}

impl Reader {
    /// Connects, and looks what there is; nothing waits beyond `until`, now or later.
    pub(in crate::store) fn open(url: &DatabaseUrl, until: Option<Instant>) -> Result<Self, Error> {
        let address = Address::parse(url)?;
        let mut session = Session::connect(&address, until)?;
        let looked = session.call(LOOK_LIMIT, server::look)?;
        let (_, metrics) = looked.map_err(|error| explain_on(&mut session, &address, "read the schema", &error))?;
        Ok(Self { session, address, has_zone: metrics.has_zone() })
    }

    /// Asks in a transaction's time.
    fn ask<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.session.explained(&self.address, PIECE_LIMIT, "read metrics", job)
    }
}

/// A time in parts of at most this length.
fn pieces((from, until): (i64, i64), length: i64) -> impl Iterator<Item = (i64, i64)> {
    let next = move |begin: i64| (begin < until).then(|| (begin, begin.saturating_add(length).min(until)));
    std::iter::successors(next(from), move |(_, end)| next(*end))
}

impl engine::Reader for Reader {
    fn hosts(&mut self) -> Result<Vec<String>, Error> {
        self.session.explained(&self.address, PIECE_LIMIT, "read the hosts", |client| {
            client.query_typed(&list_hosts(), &[])?.iter().map(|row| row.try_get(0)).collect()
        })
    }

    fn newest_dead_letters(&mut self, most: u32) -> Result<Vec<Noted>, Error> {
        let sql = newest("(extract(epoch FROM last_failed) * 1000)::bigint", most);
        self.session.explained(&self.address, PIECE_LIMIT, "read dead letters", move |client| {
            let rows = client.query_typed(&sql, &[])?;
            let letter = |row: &postgres::Row| {
                let (id, pipeline, source_id) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                Ok(Noted { id, pipeline, source_id, reason: row.try_get(3)?, last_failed: row.try_get(4)? })
            };
            rows.iter().map(letter).collect()
        })
    }

    fn samples(&mut self, host: &str, wanted: &Wanted, (from, until): (i64, i64), take: Take<'_>) -> Result<(), Error> {
        let epoch = if self.has_zone { "TIMESTAMPTZ 'epoch'" } else { "TIMESTAMP 'epoch'" };
        let time = |parameter: u8| format!("{epoch} + ${parameter} * INTERVAL '1 millisecond'");
        let sql = format!(
            "SELECT (extract(epoch FROM time) * 1000)::bigint, metric_type, payload::text FROM system_metrics \
             WHERE host = $1 AND metric_type = ANY ($2) AND time >= {} AND time < {}",
            time(3),
            time(4)
        );
        let of_host = host.to_owned();
        let oldest = self.ask(move |client| {
            let sql =
                "SELECT (floor(extract(epoch FROM min(time)) * 1000))::bigint FROM system_metrics WHERE host = $1";
            client.query_typed_one(sql, &[(&of_host, Type::TEXT)])?.try_get::<_, Option<i64>>(0)
        })?;
        let Some(oldest) = oldest else { return Ok(()) };
        for (from, until) in pieces((from.max(oldest), until), PIECE) {
            let (sql, host, kinds) = (sql.clone(), host.to_owned(), wanted.kinds());
            let rows = self.ask(move |client| {
                client.query_typed(
                    &sql,
                    &[(&host, Type::TEXT), (&kinds, Type::TEXT_ARRAY), (&from, Type::INT8), (&until, Type::INT8)],
                )
            })?;
            for row in &rows {
                let stored = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, Option<&str>>(2)?));
                let stored: Result<(i64, &str, _), postgres::Error> = stored();
                let (time, kind, payload) =
                    stored.map_err(|error| explain_on(&mut self.session, &self.address, "read metrics", &error))?;
                wanted.find(kind, payload.unwrap_or_default(), &mut |place, label, value| {
                    take(Found::sample(time, place, label, value));
                });
            }
        }
        Ok(())
    }

    fn counted_from(&mut self, host: &str) -> Result<Option<i64>, Error> {
        let is_there = format!("SELECT to_regclass('{HOURLY}') IS NOT NULL AND to_regclass('{UNFILLED}') IS NOT NULL");
        let before = format!("SELECT (extract(epoch FROM before) * 1000)::bigint FROM {UNFILLED} WHERE host = $1");
        let host = host.to_owned();
        self.session.explained(&self.address, PIECE_LIMIT, "read which hours are counted", move |client| {
            if !client.query_typed_one(&is_there, &[])?.try_get::<_, bool>(0)? {
                return Ok(None);
            }
            let row = client.query_typed_opt(&before, &[(&host, Type::TEXT)])?;
            row.map_or(Ok(Some(i64::MIN)), |row| row.try_get(0).map(Some))
        })
    }

    fn hours(&mut self, host: &str, wanted: &Wanted, (from, until): (i64, i64), take: Take<'_>) -> Result<(), Error> {
        let (of_host, kinds) = (host.to_owned(), wanted.kinds());
        let series = self.ask(move |client| Series::of(client, &of_host, kinds))?;
        let series = Arc::new(series.wanted(wanted));
        for (from, until) in pieces((from.max(series.oldest), until), HOURS) {
            let (series, of_host) = (Arc::clone(&series), host.to_owned());
            let hours = {
                let series = Arc::clone(&series);
                self.ask(move |client| series.hours(client, &of_host, (from, until)))?
            };
            for hour in hours {
                let Some((place, label)) = series.get(hour.series) else { continue };
                let Hour { time, min, mean, max, samples, .. } = hour;
                take(Found { time, place, label, min, mean, max, samples });
            }
        }
        Ok(())
    }
}
