use std::time::Duration;

use postgres::Row;
use postgres::types::Type;

use super::address::Address;
use super::server;
use super::session::{LOOK_LIMIT, Session, explain_on};
use crate::config::DatabaseUrl;
use crate::kinds::Hour;
use crate::store::Error;
use crate::store::engine::{self, Stored, list_hosts};
use crate::store::hourly::{HOURLY, UNFILLED};

/// One piece of what is read.
const PIECE_LIMIT: Duration = Duration::from_secs(10);

/// A connection that only reads.
pub(in crate::store) struct Reader {
    session: Session,
    address: Address,
    has_zone: bool,
}

impl Reader {
    /// Connects, and looks what there is.
    pub(in crate::store) fn open(url: &DatabaseUrl) -> Result<Self, Error> {
        let address = Address::parse(url)?;
        let mut session = Session::connect(&address, None)?;
        let looked = session.call(LOOK_LIMIT, server::look)?;
        let (_, metrics) = looked.map_err(|error| explain_on(&mut session, &address, "read the schema", &error))?;
        Ok(Self { session, address, has_zone: metrics.has_zone() })
    }

    /// Reads what a statement finds whose parameters are the host, the kinds, the begin and the end.
    fn read<T: Send + 'static>(
        &mut self,
        sql: &str,
        (host, from, until): (&str, i64, i64),
        kinds: &[&str],
        row: impl Fn(&Row) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let (sql, host) = (sql.to_owned(), host.to_owned());
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        self.session.explained(&self.address, PIECE_LIMIT, "read metrics", move |client| {
            let rows = client.query_typed(
                &sql,
                &[(&host, Type::TEXT), (&kinds, Type::TEXT_ARRAY), (&from, Type::INT8), (&until, Type::INT8)],
            )?;
            rows.iter().map(row).collect()
        })
    }
}

impl engine::Reader for Reader {
    fn hosts(&mut self) -> Result<Vec<String>, Error> {
        self.session.explained(&self.address, PIECE_LIMIT, "read the hosts", |client| {
            client.query_typed(&list_hosts(), &[])?.iter().map(|row| row.try_get(0)).collect()
        })
    }

    fn samples(&mut self, host: &str, kinds: &[&str], (from, until): (i64, i64)) -> Result<Vec<Stored>, Error> {
        let epoch = if self.has_zone { "TIMESTAMPTZ 'epoch'" } else { "TIMESTAMP 'epoch'" };
        let time = |parameter: u8| format!("{epoch} + ${parameter} * INTERVAL '1 millisecond'");
        let sql = format!(
            "SELECT (extract(epoch FROM time) * 1000)::bigint, metric_type, payload::text FROM system_metrics \
             WHERE host = $1 AND metric_type = ANY ($2) AND time >= {} AND time < {} ORDER BY time",
            time(3),
            time(4)
        );
        self.read(&sql, (host, from, until), kinds, |row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
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

    fn hours(&mut self, host: &str, kinds: &[&str], (from, until): (i64, i64)) -> Result<Vec<Hour>, Error> {
        let time = |parameter: u8| format!("TIMESTAMPTZ 'epoch' + ${parameter} * INTERVAL '1 millisecond'");
        let sql = format!(
            "SELECT (extract(epoch FROM hour) * 1000)::bigint, kind, label, key, min, avg, max, samples::bigint \
             FROM {HOURLY} WHERE host = $1 AND kind = ANY ($2) AND hour >= {} AND hour < {} ORDER BY hour",
            time(3),
            time(4)
        );
        self.read(&sql, (host, from, until), kinds, |row| {
            Ok(Hour {
                time: row.try_get(0)?,
                kind: row.try_get(1)?,
                label: row.try_get(2)?,
                key: row.try_get(3)?,
                min: row.try_get(4)?,
                mean: row.try_get(5)?,
                max: row.try_get(6)?,
                samples: row.try_get::<_, i64>(7)?.unsigned_abs(),
            })
        })
    }
}
