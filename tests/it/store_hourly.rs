//! `metrics_hourly` agrees with the minutes, on both databases: whatever comes twice, late, or from a version before.
#![cfg(all(feature = "sqlite", feature = "postgres"))]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::Host;
use crate::support::metrics::kill_at_every_step;
use crate::support::postgres::{Database, configured, shared};
use crate::support::rows::row;
use observability_hub::store::{MetricRow, Store};
use rusqlite::Connection;
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// Numbers that are as random as their beginning, and the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A run with numbers of every shape, some of which are not there.
fn run(random: &mut Random, host: &str, millis: i64) -> Vec<MetricRow> {
    let mut number = |end| random.below(end) as f64 / 1000.0;
    let mut disks = json!({"/": {"used": number(9_000_000) * 1e9, "read_only": false, "device": "sda"}});
    if millis / MINUTE % 3 == 0 {
        disks["/srv/a \"b\".c"] = json!({"used": 5, "inodes": null, "read_only": true});
    }
    vec![
        row(
            host,
            millis,
            "cpu",
            json!({"usage": number(100_000), "modes": {"user": number(50_000)},
            "core_temps": {"core_0": number(90_000)}, "cpus": {"0": {"usage": number(100_000)}}}),
        ),
        row(host, millis, "disk", disks),
        row(host, millis, "network", json!({"eth0": {"rx_bytes": 7, "rx_bytes_per_second": number(9_000_000)}})),
        row(host, millis, "fan", json!({"nct": {"fan2": number(2_000_000)}})),
        row(host, millis, "kernel", json!(null)),
    ]
}

/// Host, kind, label, key and hour in seconds; min, avg, max and samples.
type Hours = BTreeMap<(String, String, String, String, i64), (f64, f64, f64, i64)>;

/// What the hours should be, from the minutes as the views have them.
const MINUTES: [(&str, &str, &str, &str); 7] = [
    ("metrics_cpu", "cpu", "''", "usage"),
    ("metrics_cpu", "cpu", "''", "modes.user"),
    ("metrics_cpu_each", "cpu", "cpu", "cpus.usage"),
    ("metrics_disk", "disk", "mount", "used"),
    ("metrics_disk", "disk", "mount", "read_only"),
    ("metrics_network", "network", "interface", "rx_bytes_per_second"),
    ("metrics_fan", "fan", "chip || ' ' || sensor", "celsius"),
];

fn expected(hour: &str) -> String {
    let column = |key: &str| match key {
        "modes.user" => "user_percent".to_owned(),
        "celsius" => "rpm".to_owned(),
        key => key.rsplit('.').next().unwrap().to_owned(),
    };
    let part = |(view, kind, label, key): &(&str, &str, &str, &str)| {
        let (column, key) = (column(key), if *key == "celsius" { "rpm" } else { key });
        format!(
            "SELECT host, '{kind}', {label}, '{key}', {hour}, min({column}), avg({column}), max({column}), count({column}) \
             FROM {view} WHERE {column} IS NOT NULL GROUP BY 1, 2, 3, 4, 5"
        )
    };
    MINUTES.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ")
}

const STORED: &str =
    "SELECT host, kind, label, key, HOUR, min, avg, max, samples FROM metrics_hourly WHERE key <> 'core_temps'";

fn file(host: &Host) -> PathBuf {
    host.state().join("data/hub.db")
}

fn on_sqlite(path: &PathBuf, sql: &str) -> Hours {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let key = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        Ok((key, (row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?)))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn on_postgres(database: &Database<'_>, sql: &str) -> Hours {
    let rows = database.superuser().query(sql, &[]).unwrap();
    let entry = |row: &postgres::Row| {
        let key = (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        (key, (row.get(5), row.get(6), row.get(7), row.get(8)))
    };
    rows.iter().map(entry).collect()
}

#[track_caller]
fn agree(stored: &Hours, expected: &Hours) {
    assert!(!expected.is_empty() && stored.keys().eq(expected.keys()), "{stored:#?}\n{expected:#?}");
    for (key, (min, avg, max, samples)) in stored {
        let right = expected[key];
        assert_eq!((*min, *max, *samples), (right.0, right.2, right.3), "{key:?}");
        assert!((avg - right.1).abs() <= right.1.abs() * 1e-12, "{key:?}: {avg} instead of {}", right.1);
    }
}

fn sqlite_agrees(host: &Host) {
    let stored = on_sqlite(&file(host), &STORED.replace("HOUR", "hour"));
    agree(&stored, &on_sqlite(&file(host), &expected("time / 3600 * 3600")));
}

fn postgres_agrees(database: &Database<'_>) {
    let hour = "extract(epoch FROM hour)::bigint";
    let stored = on_postgres(database, &STORED.replace("HOUR", hour));
    agree(&stored, &on_postgres(database, &expected("extract(epoch FROM date_trunc('hour', time))::bigint")));
}

/// A history of three hosts in the order in which it might come: twice, late, in one batch and by itself.
fn batches(seed: u64) -> Vec<Vec<MetricRow>> {
    let mut random = Random(seed);
    let begin = 1_700_000_000_000;
    let mut runs: Vec<Vec<MetricRow>> = (0..120)
        .map(|_| {
            let (host, minute) = (["web", "db", "new host é"][random.below(3) as usize], random.below(400) as i64);
            run(&mut random, host, begin + minute * MINUTE + 123)
        })
        .collect();
    for _ in 0..40 {
        let (from, to) = (random.below(120) as usize, random.below(120) as usize);
        let mut again = runs[from].clone();
        again.truncate(1 + random.below(5) as usize);
        runs[to].extend(again);
    }
    runs
}

#[test]
fn hours_agree_with_the_minutes_whatever_comes_twice_or_late() {
    let Some(cluster) = shared() else { return };
    for seed in 1..=6 {
        let (host, database) = (Host::new(), cluster.database(&format!("hours{seed}")));
        let mut stores = [
            Store::open(&crate::support::rows::config(&host, "sqlite:hub.db", "")).unwrap(),
            Store::open(&configured(&database.url(), "")).unwrap(),
        ];
        for batch in batches(seed) {
            for store in &mut stores {
                store.insert_metrics(&batch, &[]).unwrap();
            }
        }
        sqlite_agrees(&host);
        postgres_agrees(&database);
        charts_agree(&host, &database);
    }
}

/// Whoever reads hours and rows finds the same in both databases.
fn charts_agree(host: &Host, database: &Database<'_>) {
    let shown = |url: &str, since: &str, name: &str| {
        host.configure(&format!("[database]\nurl = \"{url}\"\n"));
        let shown = host.command("hub").args(["metrics", "--json", "--host", name, "--since", since]).output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let lines = shown["charts"].as_array().unwrap().iter().flat_map(|chart| {
            let name = chart["name"].as_str().unwrap();
            chart["lines"].as_array().unwrap().iter().map(move |line| {
                // What adding in another order makes of a mean is none of ours; the last point is of another instant.
                let mean = (line["mean"].as_f64().unwrap() * 1e6).round();
                format!("{name} {} {} {} {} {mean}", line["name"], line["min"], line["max"], line["samples"])
            })
        });
        lines.collect::<Vec<_>>()
    };
    for name in ["web", "new host é"] {
        let of_all: Vec<Vec<String>> = ["2000-01-01T00:00:00Z", "2023-11-14T22:13:00Z", "2023-11-15T00:30:00Z"]
            .into_iter()
            .map(|since| {
                let [sqlite, postgres] = ["sqlite:hub.db", &database.url()].map(|url| shown(url, since, name));
                assert_eq!(sqlite, postgres, "{name} since {since}");
                sqlite
            })
            .collect();
        assert!(of_all[0].len() > 2 && of_all[0] == of_all[1] && of_all[1] != of_all[2], "{of_all:#?}");
    }
}

/// Kills a run at every step while it counts hours of rows that are there; `unfilled` says how many hosts have some yet.
fn killed_at_every_step(url: &str, host: &Host, before: impl Fn(), unfilled: impl Fn() -> i64, agree: impl Fn()) {
    host.configure(&format!("[database]\nurl = \"{url}\"\n[metrics]\nretention_days = 0\nhourly_days = 0\n"));
    let command = || {
        let mut command = host.command("system-metrics");
        command.stdout(Stdio::null());
        command
    };
    let killed = kill_at_every_step(before, command, |_| {
        let mut store = Store::open(&crate::support::rows::config(host, url, "")).unwrap();
        let mut runs = 0;
        while runs == 0 || unfilled() > 0 {
            // A late row, of an hour that may not be counted yet.
            store.insert_metrics(&run(&mut Random(runs), "web", BEGIN + runs as i64 * HOUR), &[]).unwrap();
            runs += 1;
        }
        agree();
        host.configure(&format!("[database]\nurl = \"{url}\"\n[metrics]\nretention_days = 0\nhourly_days = 0\n"));
    });
    assert!(killed.is_none_or(|killed| killed > 10), "{killed:?}");
}

const BEGIN: i64 = 1_700_000_000_000;

fn three_hours() -> Vec<MetricRow> {
    let mut random = Random(7);
    (0..9).flat_map(|number| run(&mut random, "web", BEGIN + number * 20 * MINUTE + 5)).collect()
}

#[test]
fn killed_at_every_step_hours_are_counted_once_in_sqlite() {
    let host = Host::new();
    let mut store = Store::open(&crate::support::rows::config(&host, "sqlite:hub.db", "")).unwrap();
    store.insert_metrics(&three_hours(), &[]).unwrap();
    drop(store);
    let forget =
        "DROP TABLE hub_hours; DROP VIEW metrics_hourly; DROP TABLE hub_unfilled; PRAGMA journal_mode = DELETE;
                  DELETE FROM hub_schema WHERE object = 'metrics_hourly'";
    Connection::open(file(&host)).unwrap().execute_batch(forget).unwrap();
    let old = std::fs::read(file(&host)).unwrap();
    let before = || {
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(host.state().join(format!("data/hub.db{end}")));
        }
        std::fs::write(file(&host), &old).unwrap();
    };
    let unfilled = || {
        let file = Connection::open(file(&host)).unwrap();
        file.query_row("SELECT count(*) FROM hub_unfilled", [], |row| row.get(0)).unwrap()
    };
    killed_at_every_step("sqlite:hub.db", &host, before, unfilled, || {
        let of_web = |sql: &str| on_sqlite(&file(&host), &format!("SELECT * FROM ({sql}) WHERE host = 'web'"));
        agree(&of_web(&STORED.replace("HOUR", "hour")), &of_web(&expected("time / 3600 * 3600")));
    });
}

#[test]
fn killed_at_every_step_hours_are_counted_once_in_postgresql() {
    let Some(cluster) = shared() else { return };
    let (host, database) = (Host::new(), cluster.database("hourskilled"));
    let mut store = Store::open(&configured(&database.url(), "")).unwrap();
    store.insert_metrics(&three_hours(), &[]).unwrap();
    drop(store);
    let before = || {
        let forget = "DELETE FROM system_metrics WHERE host <> 'web' OR time > '2023-11-15 03:00Z';
                      DROP TABLE metrics_hourly, hub_unfilled; DELETE FROM hub_schema WHERE object = 'metrics_hourly'";
        database.superuser().batch_execute(forget).unwrap();
    };
    let unfilled = || database.number("SELECT count(*) FROM hub_unfilled");
    killed_at_every_step(&database.url(), &host, before, unfilled, || {
        let of_web = |sql: &str| on_postgres(&database, &format!("SELECT * FROM ({sql}) AS m WHERE host = 'web'"));
        let hour = "extract(epoch FROM hour)::bigint";
        let minutes = expected("extract(epoch FROM date_trunc('hour', time))::bigint");
        agree(&of_web(&STORED.replace("HOUR", hour)), &of_web(&minutes));
    });
}

#[test]
fn hours_of_the_version_before_are_counted_with_the_first_runs() {
    let Some(cluster) = shared() else { return };
    let (host, database) = (Host::new(), cluster.database("hoursbefore"));
    let open = || {
        [
            Store::open(&crate::support::rows::config(&host, "sqlite:hub.db", "")).unwrap(),
            Store::open(&configured(&database.url(), "")).unwrap(),
        ]
    };
    for (place, batch) in batches(1).into_iter().take(40).enumerate() {
        for store in &mut open() {
            store.insert_metrics(&batch, &[]).unwrap();
        }
        // Now and then everything that belongs to hours goes, as before there were any.
        if place < 25 && place % 4 == 0 {
            let drop = "DROP TABLE hub_hours; DROP VIEW metrics_hourly; DROP TABLE hub_unfilled;
                        DELETE FROM hub_schema WHERE object = 'metrics_hourly'";
            Connection::open(file(&host)).unwrap().execute_batch(drop).unwrap();
            let drop =
                "DROP TABLE metrics_hourly, hub_unfilled; DELETE FROM hub_schema WHERE object = 'metrics_hourly'";
            database.superuser().batch_execute(drop).unwrap();
        }
    }
    let behind = || {
        let sqlite = Connection::open(file(&host)).unwrap();
        let sqlite: i64 = sqlite.query_row("SELECT count(*) FROM hub_unfilled", [], |row| row.get(0)).unwrap();
        sqlite + database.number("SELECT count(*) FROM hub_unfilled")
    };
    let mut random = Random(9);
    while behind() > 0 {
        // A late row of an hour that may not be counted yet.
        let late = run(&mut random, "web", 1_700_000_000_000 + random_minute(&mut Random(behind() as u64)) * MINUTE);
        for store in &mut open() {
            store.insert_metrics(&late, &[]).unwrap();
        }
    }
    sqlite_agrees(&host);
    postgres_agrees(&database);
    assert_eq!(database.number("SELECT pg_relation_size('hub_unfilled')"), 0, "whoever comes next knows it at once");
}

fn random_minute(random: &mut Random) -> i64 {
    random.below(400) as i64
}

#[test]
fn old_hours_go_and_minutes_stay_until_they_are_counted() {
    let Some(cluster) = shared() else { return };
    let (host, database) = (Host::new(), cluster.database("hoursold"));
    let now = jiff::Timestamp::now().as_millisecond();
    let day = 24 * HOUR;
    for mut store in [
        Store::open(&crate::support::rows::config(&host, "sqlite:hub.db", "")).unwrap(),
        Store::open(&configured(&database.url(), "")).unwrap(),
    ] {
        let mut random = Random(3);
        for days in [800, 700, 20, 2] {
            store.insert_metrics(&run(&mut random, "web", now - days * day), &[]).unwrap();
        }
        assert_eq!(store.delete_old_metrics(14).unwrap(), 15);
        assert_eq!(store.delete_old_hours(0).unwrap(), 0);
        assert!(store.delete_old_hours(730).unwrap() > 0);
        assert_eq!(store.delete_old_hours(730).unwrap(), 0);
    }
    let hours = "SELECT count(DISTINCT hour) FROM metrics_hourly";
    assert_eq!(database.number(hours), 3);
    let connection = Connection::open(file(&host)).unwrap();
    assert_eq!(connection.query_row(hours, [], |row| row.get::<_, i64>(0)).unwrap(), 3);
    // An hour that is left to be counted is, before its minutes go.
    connection.execute_batch("DELETE FROM hub_hours; INSERT INTO hub_unfilled VALUES ('web', 9000000000000)").unwrap();
    database
        .superuser()
        .batch_execute("DELETE FROM metrics_hourly; INSERT INTO hub_unfilled VALUES ('web', 'tomorrow')")
        .unwrap();
    for mut store in [
        Store::open(&crate::support::rows::config(&host, "sqlite:hub.db", "")).unwrap(),
        Store::open(&configured(&database.url(), "")).unwrap(),
    ] {
        let gone = (0..5).map(|_| store.delete_old_metrics(1).unwrap()).find(|gone| *gone > 0);
        assert_eq!(gone, Some(5));
    }
    let hours = "SELECT count(DISTINCT hour) FROM metrics_hourly";
    assert_eq!(connection.query_row(hours, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    assert_eq!((database.number(hours), database.count()), (1, 0));
}

#[test]
fn a_role_that_may_not_make_the_hours_stores_minutes_and_is_told() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("hoursrole");
    drop(Store::open(&configured(&database.url(), "")).unwrap());
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "DROP TABLE metrics_hourly, hub_unfilled; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
             ALTER DATABASE hoursrole OWNER TO CURRENT_USER; REVOKE ALL ON SCHEMA public FROM hoursrole; \
             GRANT USAGE ON SCHEMA public TO hoursrole",
        )
        .unwrap();
    let mut store = Store::open(&configured(&database.url(), "")).unwrap();
    let notes = store.notes().join("\n");
    assert!(notes.contains("metrics_hourly is not kept") && notes.contains("GRANT"), "{notes}");
    store.insert_metrics(&run(&mut Random(1), "web", 0), &[]).unwrap();
    assert_eq!(database.count(), 5);
    // What it is told to run is enough.
    let sql = notes.split("run as who may: ").nth(1).unwrap();
    superuser.batch_execute(sql).unwrap();
    let mut store = Store::open(&configured(&database.url(), "")).unwrap();
    store.insert_metrics(&run(&mut Random(1), "web", HOUR), &[]).unwrap();
    assert!(database.number("SELECT count(*) FROM metrics_hourly") > 4);
    assert!(!store.notes().join("").contains("metrics_hourly"), "{:?}", store.notes());
}
