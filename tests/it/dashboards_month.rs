//! The dashboards with a month of three hosts behind them: minutes for four days, hours for thirty. Every
//! question is asked over ranges of every length, finds something on both databases, and says how long it took.
#![cfg(all(feature = "postgres", feature = "sqlite"))]

use std::time::Instant;

use crate::support::Host;
use crate::support::grafana::{Asked, Kind, expanded, on_postgres, on_sqlite, queries};
use crate::support::postgres::{configured, shared};
use crate::support::rows::{config, row};
use observability_hub::store::{EventRow, MetricRow, Store};
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const HOSTS: [&str; 3] = ["db", "pi", "web"];
const CHOSEN: &str = "'db','pi','web'";
const PIPELINE: &str =
    "[[pipeline]]\nname = \"reading\"\nsource = \"file:/srv/inbox\"\ntable = \"reading_analytics\"\n";
/// A panel waits longer for nothing of this; a build without optimisations on a busy machine is slower than a host.
const LONGEST_MILLIS: u128 = 5000;

/// A run of a host with eight processors, four file systems and a dozen units.
fn run(host: &str, millis: i64) -> Vec<MetricRow> {
    let at = (millis / MINUTE % 97) as f64;
    let each = |names: usize, name: &str, value: Value| -> Value {
        (0..names).map(|number| (format!("{name}{number}"), value.clone())).collect()
    };
    let unit = json!({"cpu_percent": at, "memory": 1e6 + at, "read_bytes_per_second": at, "written_bytes_per_second": at,
        "tasks": 3, "restarts": 0});
    let kinds = [
        (
            "cpu",
            json!({"usage": at, "package_temp": at, "core_temps": each(4, "core_", json!(at)),
            "cpus": each(8, "", json!({"usage": at}))}),
        ),
        ("memory", json!({"used_percent": at, "used": 1e9, "total": 4e9})),
        ("disk", each(4, "/srv/", json!({"used_percent": at, "used": 5e9, "free": 4e9}))),
        ("network", each(3, "eth", json!({"rx_bytes_per_second": at, "tx_bytes_per_second": at}))),
        ("load", json!({"load1": at, "load5": at})),
        ("systemd", json!({"failed": 0, "units": []})),
        ("run", json!({"duration_ms": at, "spool": {"rows": 0, "bytes": 0}})),
        ("pressure", each(3, "p", json!({"some": {"avg60": at}, "full": {"avg60": at}}))),
        (
            "disk_io",
            each(3, "sd", json!({"busy_percent": at, "read_bytes_per_second": at, "written_bytes_per_second": at})),
        ),
        ("array", json!({"md0": {"level": "raid1", "state": "clean", "degraded": 0}})),
        ("btrfs", json!({"pool": {"missing": 0, "write_errors": 0}})),
        ("unit", each(12, "u", unit)),
    ];
    kinds.into_iter().map(|(kind, payload)| row(host, millis, kind, payload)).collect()
}

fn deployed(host: &str, millis: i64, commit: i64) -> EventRow {
    EventRow {
        time: jiff::Timestamp::from_millisecond(millis).unwrap(),
        host: host.to_owned(),
        service: "gitops-sync".to_owned(),
        kind: "deployed".to_owned(),
        about: "acme/a".to_owned(),
        status: "deployed".to_owned(),
        reason: None,
        payload: json!({"from": (commit - 1).to_string(), "to": commit.to_string(), "subject": "s", "author": "a"}),
    }
}

/// One run an hour for 30 days, as the hub stores them, and a deployment each sixth hour.
fn store(store: &mut Store, now: i64) {
    let hours: Vec<i64> = ((now - 30 * DAY) / HOUR..=now / HOUR).collect();
    for part in hours.chunks(12) {
        let of = |host| move |hour: &i64| run(host, hour * HOUR);
        let rows: Vec<MetricRow> = HOSTS.iter().flat_map(|host| part.iter().flat_map(of(host))).collect();
        let deployments = part.iter().filter(|hour| *hour % 6 == 0);
        let events: Vec<EventRow> =
            deployments.flat_map(|hour| HOSTS.iter().map(move |host| deployed(host, hour * HOUR, *hour))).collect();
        store.insert_metrics(&rows, &events).unwrap();
    }
}

/// The other minutes of the last days, straight into the table: those of the hour's first run.
const ON_POSTGRES: &str = "INSERT INTO system_metrics (time, host, os, metric_type, payload) \
     SELECT time + n * interval '1 minute', host, os, metric_type, payload FROM system_metrics, generate_series(1, 59) AS n \
     WHERE time > now() - interval '4 days' AND time = date_trunc('hour', time) AND time + n * interval '1 minute' <= now() ON CONFLICT DO NOTHING; \
     DELETE FROM system_metrics WHERE time < now() - interval '4 days'; ANALYZE system_metrics, metrics_hourly, hub_events";
const ON_SQLITE: &str = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 59) \
     INSERT OR IGNORE INTO system_metrics (time, host, os, metric_type, payload, sorted) \
     SELECT time + n * 60000, host, os, metric_type, payload, 1 FROM system_metrics, n \
     WHERE time > (unixepoch() - 4 * 86400) * 1000 AND time % 3600000 = 0 AND time + n * 60000 <= unixepoch() * 1000 ORDER BY metric_type, 1; \
     DELETE FROM system_metrics WHERE time < (unixepoch() - 4 * 86400) * 1000";

#[test]
fn every_question_over_a_month_of_three_hosts_finds_something_in_time() {
    let Some(cluster) = shared() else { return };
    let (database, host) = (cluster.database("month"), Host::new());
    let file = host.path("month.db");
    let now = jiff::Timestamp::now().as_millisecond();
    store(&mut Store::open(&configured(&database.url(), PIPELINE)).unwrap(), now);
    store(&mut Store::open(&config(&host, &format!("sqlite://{}", file.display()), PIPELINE)).unwrap(), now);
    let (mut client, connection) = (database.superuser(), rusqlite::Connection::open(&file).unwrap());
    client.batch_execute(ON_POSTGRES).unwrap();
    connection.execute_batch(ON_SQLITE).unwrap();
    let reading = |time: &str| {
        format!(
            "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, created_at) VALUES ('m', {time}, 's', 'e', {time})"
        )
    };
    client.batch_execute(&reading("now() - interval '1 hour'")).unwrap();
    connection.execute_batch(&reading("(unixepoch() - 3600) * 1000")).unwrap();
    let dead = "INSERT INTO dead_letters (pipeline, source_id, reason, document) VALUES ('p', 'i', 'r', ";
    client.batch_execute(&format!("{dead} '')")).unwrap();
    connection.execute_batch(&format!("{dead} x'')")).unwrap();
    let ranges = [
        ("6 h", Asked { from: now - 6 * HOUR, to: now, interval: MINUTE }),
        ("24 h", Asked { from: now - DAY, to: now, interval: 2 * MINUTE }),
        ("30 d", Asked { from: now - 30 * DAY, to: now, interval: HOUR }),
        ("a day three weeks ago", Asked { from: now - 21 * DAY, to: now - 20 * DAY, interval: 2 * MINUTE }),
    ];
    let mut times = Vec::new();
    for name in ["host", "services", "gitops", "readings"] {
        for kind in [Kind::Postgres, Kind::Sqlite] {
            for ((panel, target), sql) in queries(kind, name) {
                for (range, asked) in ranges {
                    let (sql, begin) = (expanded(kind, &sql, CHOSEN, asked), Instant::now());
                    let answer = match kind {
                        Kind::Postgres => on_postgres(&mut client, &sql),
                        Kind::Sqlite => on_sqlite(&connection, &sql),
                    };
                    let took = begin.elapsed().as_millis();
                    let what = format!("{name}: {panel} {target} of {range} on {kind:?}");
                    // Three weeks ago there are neither readings nor the newest row of anything.
                    let is_course = answer.first().is_some_and(|row| row.len() == 3) || name != "host";
                    let may_be_empty = range.contains("ago") && (name == "readings" || !is_course);
                    assert!(!answer.is_empty() || may_be_empty, "{what} finds nothing: {sql}");
                    assert!(took < LONGEST_MILLIS, "{what} took {took} ms: {sql}");
                    times.push((took, answer.len(), what));
                }
            }
        }
    }
    assert!(times.len() > 180, "{}", times.len());
    times.sort_by(|a, b| b.cmp(a));
    for (took, rows, what) in &times {
        println!("{took:5} ms {rows:6} rows  {what}");
    }
}
