use postgres::{GenericClient, Row};

use super::events::EventsTable;
use super::hourly::Tables;
use super::keys::unique;
use crate::store::schema::{Object, SCHEMA_TABLE, Version};
use crate::store::views;

/// The version of `system_metrics` that here has nothing to be done after the first.
const FIRST_METRICS: i64 = 2;

/// What kind of server it is, as far as the SQL differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// PostgreSQL as it comes.
    Plain,
    /// The extension `timescaledb` is in the database.
    Timescale,
    /// The extension `citus` is in the database.
    Citus,
}

/// What the server says of itself and of the role.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub kind: Kind,
    /// `hub_schema` is there.
    pub has_schema_table: bool,
    /// Names of the hub's views that a relation has.
    pub taken_views: Vec<String>,
    /// How the database writes characters.
    pub encoding: String,
    /// What there is of `hub_events`.
    pub events: EventsTable,
    /// What there is of `metrics_hourly`.
    pub hourly: Tables,
}

impl Server {
    /// Whether the database takes every character; SQL_ASCII takes any bytes for it.
    pub(super) fn is_utf8(&self) -> bool {
        matches!(self.encoding.as_str(), "UTF8" | "SQL_ASCII")
    }
}

/// What is known of `system_metrics`.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub exists: bool,
    /// It is an ordinary table, not a partitioned one, a foreign one or a hypertable.
    pub plain: bool,
    /// It has a unique index on host, time and metric_type.
    pub unique_key: bool,
    /// It is a hypertable of TimescaleDB.
    pub hypertable: bool,
    /// The type of its column `time`.
    pub time_type: String,
}

impl Metrics {
    /// Whether its times have a time zone; those that have none are in UTC.
    pub(super) fn has_zone(&self) -> bool {
        !self.time_type.ends_with("without time zone")
    }
}

/// Looks at the catalogs in one round trip (two with TimescaleDB); works whatever is there.
pub(super) fn look(client: &mut impl GenericClient) -> Result<(Server, Metrics), postgres::Error> {
    let views: Vec<String> = views::all().map(|view| format!("'{}'", view.name)).collect();
    let row = client.query_typed_one(
        &format!(
            "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb'), \
                    EXISTS (SELECT FROM pg_extension WHERE extname = 'citus'), \
                    to_regclass('{SCHEMA_TABLE}') IS NOT NULL, \
                    c.oid IS NOT NULL, \
                    COALESCE(c.relkind = 'r', FALSE), \
                    COALESCE(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone'), \
                    {}, \
                    ARRAY(SELECT name FROM unnest(ARRAY[{}]) AS name WHERE to_regclass(name) IS NOT NULL), \
                    current_setting('server_encoding'), \
                    {}, \
                    {} \
             FROM (SELECT to_regclass('system_metrics') AS oid) AS wanted \
             LEFT JOIN pg_class AS c ON c.oid = wanted.oid \
             LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'time'",
            unique("c.oid", &["host", "time", "metric_type"]),
            views.join(", "),
            EventsTable::question(),
            Tables::question()
        ),
        &[],
    )?;
    let (server, mut metrics) = read(&row)?;
    if server.kind == Kind::Timescale && metrics.exists {
        let hypertable = client.query_typed_opt(
            "SELECT FROM timescaledb_information.hypertables WHERE hypertable_name = 'system_metrics' \
             AND to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass('system_metrics')",
            &[],
        )?;
        metrics.hypertable = hypertable.is_some();
        metrics.plain &= !metrics.hypertable;
    }
    Ok((server, metrics))
}

fn read(row: &Row) -> Result<(Server, Metrics), postgres::Error> {
    let (timescale, citus, has_schema_table) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let kind = match (timescale, citus) {
        (true, _) => Kind::Timescale,
        (false, true) => Kind::Citus,
        (false, false) => Kind::Plain,
    };
    let metrics = Metrics {
        exists: row.try_get(3)?,
        plain: row.try_get(4)?,
        time_type: row.try_get(5)?,
        unique_key: row.try_get(6)?,
        hypertable: false,
    };
    let (taken_views, encoding, events) = (row.try_get(7)?, row.try_get(8)?, EventsTable::read(row, 9)?);
    let hourly = Tables::read(row, 13)?;
    Ok((Server { kind, has_schema_table, taken_views, encoding, events, hourly }, metrics))
}

/// The rows of `hub_schema` whose objects are there, as one that somebody dropped is made again, and whether `system_metrics` was there before the hub.
pub(super) fn versions(client: &mut impl GenericClient) -> Result<(Vec<Version>, bool), postgres::Error> {
    let views: Vec<String> = views::all().map(|view| format!("'{}'", view.name)).collect();
    // A table may be named with its schema.
    let rows = client.query_typed(
        &format!(
            "SELECT object, version::bigint, oldest::bigint, adopted FROM {SCHEMA_TABLE} WHERE CASE WHEN object = '{}' \
             THEN EXISTS (SELECT FROM unnest(ARRAY[{}]) AS name WHERE to_regclass(name) IS NOT NULL) \
             ELSE to_regclass(array_to_string(ARRAY(SELECT quote_ident(part) \
                                                    FROM unnest(string_to_array(object, '.')) AS part), '.')) \
                  IS NOT NULL END",
            Object::MetricViews.name(),
            views.join(", ")
        ),
        &[],
    )?;
    let mut versions = Vec::new();
    let mut metrics_adopted = false;
    for row in rows {
        let mut version = Version { object: row.try_get(0)?, version: row.try_get(1)?, oldest: row.try_get(2)? };
        if version.object == crate::store::METRICS_TABLE {
            version.version = version.version.max(FIRST_METRICS);
        }
        metrics_adopted |= row.try_get::<_, bool>(3)? && version.object == crate::store::METRICS_TABLE;
        versions.push(version);
    }
    Ok((versions, metrics_adopted))
}
