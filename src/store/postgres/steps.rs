use super::explain::{quoted, table_name};
use super::server::{Kind, Metrics, Server};
use super::views::PostgresViews;
use super::{events, hourly};
use crate::store::readings::POSITIONS;
use crate::store::schema::Object;
use crate::store::views::{self, View};

/// A statement of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub sql: String,
    /// What is lost without it, where the step can go on when it fails.
    pub without: Option<&'static str>,
    /// What the operator runs instead, at leisure, where it failed: the same without a lock that holds off writers.
    pub by_hand: Option<String>,
    /// Whether the step goes on where the role may not do it: the owner of the table can, later.
    pub for_the_owner: bool,
}

fn required(sql: impl Into<String>) -> Statement {
    Statement { sql: sql.into(), without: None, by_hand: None, for_the_owner: false }
}

fn optional(sql: impl Into<String>, without: &'static str) -> Statement {
    Statement { sql: sql.into(), without: Some(without), by_hand: None, for_the_owner: false }
}

/// An index on a table that may have many rows: made by hand, it does not hold off writers meanwhile, but only where the
/// table is `plain`.
fn index(kind: &str, plain: bool, rest: &str, without: &'static str) -> Statement {
    let by_hand = Some(format!("CREATE {kind} {}{rest}", if plain { "CONCURRENTLY " } else { "" }));
    Statement { by_hand, ..optional(format!("CREATE {kind} IF NOT EXISTS {rest}"), without) }
}

/// The statements that lead from version `from` of an object to its newest, for what the server has.
pub(super) fn steps(object: &Object, from: i64, server: &Server, metrics: &Metrics) -> Vec<Statement> {
    match object {
        Object::Metrics if from < 1 && metrics.exists => adopt_metrics(server, metrics),
        Object::Metrics if from < 1 => make_metrics(server),
        // Somebody dropped it.
        Object::Metrics if metrics.exists && !metrics.unique_key => {
            let plain = metrics.plain && server.kind == Kind::Plain;
            vec![Statement { for_the_owner: true, ..index("UNIQUE INDEX", plain, UNIQUE_KEY, NO_KEY) }]
        }
        Object::MetricViews => {
            // Before the hub made a view of this name, a relation of that name is somebody else's.
            // In the newest version only those are made that somebody dropped.
            let is_there = from >= object.version();
            let is_free = |view: &View| {
                let is_taken = server.taken_views.iter().any(|taken| taken == view.name);
                from >= view.since && !is_there || !is_taken
            };
            let views = views::all().filter(is_free).map(views::statement::<PostgresViews>);
            views.map(|sql| optional(sql, "the newest form of this view")).collect()
        }
        Object::Hourly if from < 1 => {
            let made = hourly::statements().into_iter().map(required);
            let history = optional(hourly::leave_unfilled(), "the hours before this version");
            made.chain(metrics.exists.then_some(history)).collect()
        }
        Object::Events if from < 1 && !server.events.is_there() => {
            let made = |sql| Statement { for_the_owner: true, ..optional(sql, "what happened on this host") };
            events::statements().into_iter().map(made).collect()
        }
        Object::Readings(table) if from < 2 => {
            let made = (from < 1).then(|| required(readings(table)));
            made.into_iter().chain(follow(table)).collect()
        }
        Object::DeadLetters if from < 2 => {
            let made = (from < 1).then(|| required(DEAD_LETTERS));
            made.into_iter()
                .chain([add_columns("dead_letters", &["place TEXT"], "the place of dead letters")])
                .collect()
        }
        Object::Positions if from < 1 => vec![required(format!(
            "CREATE TABLE IF NOT EXISTS {POSITIONS} (pipeline TEXT PRIMARY KEY, source TEXT NOT NULL, field TEXT NOT NULL, \
             value TEXT NOT NULL, passed BIGINT NOT NULL)"
        ))],
        _ => Vec::new(),
    }
}

const UNIQUE_KEY: &str = "system_metrics_key ON system_metrics (host, time, metric_type)";
const NO_KEY: &str = "the unique key on host, time and metric_type: rows are there more than once, or too many to look at in \
                      time; every insert looks for its rows first instead";
const HOST_TIME: &str = "system_metrics_host_time ON system_metrics (host, time)";
const BLOCK_RANGES: &str = "system_metrics_time ON system_metrics USING brin (time) WITH (autosummarize = on)";

fn make_metrics(server: &Server) -> Vec<Statement> {
    let mut statements = vec![
        required(
            "CREATE TABLE system_metrics (time TIMESTAMPTZ NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL, \
             metric_type TEXT NOT NULL, payload JSONB NOT NULL)",
        ),
        required(format!("CREATE UNIQUE INDEX IF NOT EXISTS {UNIQUE_KEY}")),
    ];
    match server.kind {
        Kind::Timescale => {
            // One host brings a row a minute and kind: shorter chunks would be many and almost empty.
            statements.push(optional(
                "SELECT create_hypertable('system_metrics', 'time', chunk_time_interval => INTERVAL '7 days')",
                "chunks: the table stays an ordinary one",
            ));
            statements.push(optional(
                "ALTER TABLE system_metrics SET (timescaledb.compress, \
                 timescaledb.compress_segmentby = 'host, metric_type', timescaledb.compress_orderby = 'time DESC')",
                "compression, which the Apache edition of TimescaleDB has not",
            ));
            statements.push(optional(
                "SELECT add_compression_policy('system_metrics', INTERVAL '14 days')",
                "compression, which the Apache edition of TimescaleDB has not",
            ));
        }
        Kind::Citus => statements.push(optional(
            "SELECT create_distributed_table('system_metrics', 'host')",
            "distribution over the workers: all rows stay on this node",
        )),
        Kind::Plain => {}
    }
    if server.kind != Kind::Timescale {
        statements.push(required(format!("CREATE INDEX IF NOT EXISTS {BLOCK_RANGES}")));
    }
    statements
}

/// A table of the Go version stays as it is, with its rows; only indexes are added.
fn adopt_metrics(server: &Server, metrics: &Metrics) -> Vec<Statement> {
    // A hypertable is stored as an ordinary table, but is none.
    let plain = metrics.plain && server.kind == Kind::Plain;
    let mut statements = Vec::new();
    if !metrics.unique_key {
        statements.push(index("UNIQUE INDEX", plain, UNIQUE_KEY, NO_KEY));
        statements.push(Statement {
            sql: format!(
                "DO $$ BEGIN IF to_regclass('system_metrics_key') IS NULL THEN \
                 CREATE INDEX IF NOT EXISTS {HOST_TIME}; END IF; END $$"
            ),
            ..index("INDEX", plain, HOST_TIME, "an index on host and time: every insert reads the whole table")
        });
    }
    if plain {
        statements.push(index("INDEX", plain, BLOCK_RANGES, "an index on time"));
    }
    statements
}

/// The identity is a BIGINT: a conflict uses up a number, too.
fn readings(table: &str) -> String {
    let name = table_name(table);
    format!(
        "CREATE TABLE IF NOT EXISTS {name} (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, \
         mongo_id TEXT NOT NULL UNIQUE, event_timestamp TIMESTAMPTZ, source TEXT, event_type TEXT, payload JSONB, \
         meta JSONB, created_at TIMESTAMPTZ NOT NULL DEFAULT now(), source_id TEXT, updated_at TIMESTAMPTZ)"
    )
}

/// What follows downstream asks for: the plain id, the time of the last change, and indexes on what is asked for.
fn follow(table: &str) -> Vec<Statement> {
    let columns = ["source_id TEXT", "updated_at TIMESTAMPTZ"];
    let mut statements = vec![add_columns(&table_name(table), &columns, "source_id and updated_at of readings")];
    for column in ["event_timestamp", "updated_at", "source_id"] {
        statements.push(Statement { for_the_owner: true, ..index_on(table, column) });
    }
    statements
}

/// In the catalog alone, so that a large table takes no longer than an empty one; only a lock may have to be waited for.
fn add_columns(table: &str, columns: &[&str], without: &'static str) -> Statement {
    let columns: Vec<String> = columns.iter().map(|column| format!("ADD COLUMN IF NOT EXISTS {column}")).collect();
    let sql = format!("ALTER TABLE {table} {}", columns.join(", "));
    Statement { by_hand: Some(sql.clone()), for_the_owner: true, ..optional(sql, without) }
}

/// An index on one column of a pipeline's table, where none begins with it.
fn index_on(table: &str, column: &str) -> Statement {
    let (name, bare) = (table_name(table), table.rsplit('.').next().unwrap_or(table));
    let rest = format!("{} ON {name} ({column})", quoted(&index_name(bare, column)));
    let looked = format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] \
         WHERE indrelid = to_regclass('{name}') AND attname = '{column}' AND indpred IS NULL) \
         THEN CREATE INDEX IF NOT EXISTS {rest}; END IF; END $$"
    );
    Statement {
        sql: looked,
        ..index("INDEX", true, &rest, "an index of readings: whoever asks for it reads the whole table")
    }
}

/// The name of an index. PostgreSQL would cut a longer one off, and several would have one.
fn index_name(table: &str, column: &str) -> String {
    let name = format!("{table}_{column}");
    if name.len() <= 63 {
        return name;
    }
    use sha2::Digest;
    let digest = sha2::Sha256::digest(table.as_bytes());
    let mark = crate::random::hex(&digest[..4]);
    format!("{}_{mark}_{column}", table.get(..63 - 16 - 9).unwrap_or(table))
}

const DEAD_LETTERS: &str = "CREATE TABLE IF NOT EXISTS dead_letters (\
    id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, pipeline TEXT NOT NULL, source_id TEXT NOT NULL, \
    reason TEXT NOT NULL, document BYTEA NOT NULL, place TEXT, attempts INTEGER NOT NULL DEFAULT 1, \
    first_failed TIMESTAMPTZ NOT NULL DEFAULT now(), last_failed TIMESTAMPTZ NOT NULL DEFAULT now(), \
    UNIQUE (pipeline, source_id))";

#[cfg(test)]
mod tests {
    use super::super::events::EventsTable;
    use super::*;

    fn sql(kind: Kind, exists: bool, unique_key: bool) -> String {
        let server = Server {
            kind,
            has_schema_table: false,
            taken_views: Vec::new(),
            encoding: "UTF8".to_owned(),
            events: EventsTable::default(),
            hourly: hourly::Tables::default(),
        };
        let time_type = "timestamp(0) with time zone".to_owned();
        let metrics = Metrics { exists, plain: true, unique_key, hypertable: false, time_type };
        let statements = steps(&Object::Metrics, 0, &server, &metrics);
        statements.into_iter().map(|statement| statement.sql).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_kind_of_server_gets_its_own_table() {
        for (kind, has, has_not) in [
            (Kind::Plain, "brin", "SELECT"),
            (Kind::Timescale, "create_hypertable", "brin"),
            (Kind::Citus, "create_distributed_table('system_metrics', 'host')", "hypertable"),
        ] {
            let sql = sql(kind, false, false);
            assert!(sql.contains("CREATE TABLE") && sql.contains(UNIQUE_KEY), "{sql}");
            assert!(sql.contains(has) && !sql.contains(has_not), "{sql}");
        }
    }

    #[test]
    fn an_adopted_table_is_never_made_into_something_else() {
        for kind in [Kind::Plain, Kind::Timescale, Kind::Citus] {
            let sql = sql(kind, true, false);
            assert!(sql.contains(UNIQUE_KEY) && !sql.contains("TABLE") && !sql.contains("SELECT"), "{sql}");
        }
        assert!(!sql(Kind::Plain, true, true).contains("UNIQUE"));
    }

    #[test]
    fn every_index_has_a_name_of_its_own() {
        let long = "t".repeat(62);
        let mut names = Vec::new();
        for table in ["t", &format!("{long}a"), &format!("{long}b"), &long] {
            names.extend(["event_timestamp", "updated_at", "source_id"].map(|column| index_name(table, column)));
        }
        assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 12);
    }

    #[test]
    fn somebody_elses_view_is_not_replaced() {
        let taken_views = vec!["metrics_cpu".to_owned(), "metrics_load".to_owned()];
        let server = Server {
            kind: Kind::Plain,
            has_schema_table: false,
            taken_views,
            encoding: "UTF8".to_owned(),
            events: EventsTable::default(),
            hourly: hourly::Tables::default(),
        };
        let metrics =
            Metrics { exists: false, plain: false, unique_key: false, hypertable: false, time_type: String::new() };
        assert_eq!(steps(&Object::MetricViews, 0, &server, &metrics).len(), views::all().count() - 2);
        assert_eq!(
            steps(&Object::MetricViews, 1, &server, &metrics).len(),
            views::all().count() - 1,
            "metrics_load came later"
        );
        assert_eq!(steps(&Object::MetricViews, 2, &server, &metrics).len(), views::all().count());
        assert_eq!(
            steps(&Object::MetricViews, 3, &server, &metrics).len(),
            views::all().count() - 2,
            "those that were dropped"
        );
    }
}
