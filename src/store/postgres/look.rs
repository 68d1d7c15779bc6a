use std::time::Duration;

use postgres::types::Type;

use super::address::Address;
use super::server;
use super::session::{LOOK_LIMIT, Session, explain_on};
use crate::config::DatabaseUrl;
use crate::store::Error;
use crate::store::engine::{self, HOSTS, Stored};

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

    fn call<T: Send + 'static>(
        &mut self,
        act: &str,
        job: impl FnOnce(&mut postgres::Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.session.call(PIECE_LIMIT, job)?.map_err(|error| explain_on(&mut self.session, &self.address, act, &error))
    }
}

impl engine::Reader for Reader {
    fn hosts(&mut self) -> Result<Vec<String>, Error> {
        self.call("read the hosts", |client| client.query_typed(HOSTS, &[])?.iter().map(|row| row.try_get(0)).collect())
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
        let host = host.to_owned();
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        self.call("read metrics", move |client| {
            let rows = client.query_typed(
                &sql,
                &[(&host, Type::TEXT), (&kinds, Type::TEXT_ARRAY), (&from, Type::INT8), (&until, Type::INT8)],
            )?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
        })
    }
}
