//! Rows in SQLite by kind and time: a day of one kind is a few pages, whatever else is in the file, and files of earlier
//! versions get there a little with each run, whenever that is killed.
#![cfg(feature = "sqlite")]

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Host;
use crate::support::rows::row;
use observability_hub::config::Config;
use observability_hub::store::{MetricRow, Store};
use rusqlite::Connection;
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

fn config(host: &Host) -> Config {
    crate::support::rows::config(host, "sqlite:hub.db", "")
}

fn file(host: &Host) -> PathBuf {
    host.state().join("data/hub.db")
}

fn number(host: &Host, sql: &str) -> i64 {
    Connection::open(file(host)).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The rows of a run, as a recorded virtual machine has them.
fn run(host: &str, millis: i64) -> Vec<MetricRow> {
    let recorded = std::fs::read("tests/fixtures/metrics/vm.json").unwrap();
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    let kinds = recorded["metrics"].as_object().unwrap().iter();
    let mut rows: Vec<MetricRow> = kinds.map(|(kind, payload)| row(host, millis, kind, payload.clone())).collect();
    rows[0].payload = json!({"usage": (millis / MINUTE % 100), "modes": {"user": 1.5, "system": 2.5, "idle": 96.0},
        "cpus": {"0": {"usage": 3.25, "user": 1.5, "system": 1.75}, "1": {"usage": 3.25, "user": 1.5, "system": 1.75}}});
    rows
}

/// Pages that a statement reads when nothing is in memory yet, how long it takes, and how many rows it finds.
fn read(host: &Host, sql: &str) -> (u64, Duration, i64) {
    let read = || -> u64 {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    };
    let connection = Connection::open(file(host)).unwrap();
    let (before, begin) = (read(), Instant::now());
    let rows = connection.query_row(&format!("SELECT count(*) FROM ({sql})"), [], |row| row.get(0)).unwrap();
    ((read() - before) / 4096, begin.elapsed(), rows)
}

#[test]
fn a_day_of_one_kind_is_a_few_pages_of_all_days() {
    let host = Host::new();
    let mut store = Store::open(&config(&host)).unwrap();
    let begin = 1_700_000_000_000 / DAY * DAY;
    for hour in 0..9 * 24 {
        let hour = begin + hour * 60 * MINUTE;
        let rows: Vec<MetricRow> = (0..60).flat_map(|minute| run("vm", hour + minute * MINUTE + 250)).collect();
        store.insert_metrics(&rows, &[]).unwrap();
    }
    // Half an hour, as runs bring it.
    for minute in 0..30 {
        store.insert_metrics(&run("vm", begin + 9 * DAY + minute * MINUTE + 250), &[]).unwrap();
    }
    let [from, to] = [begin + 3 * DAY, begin + 4 * DAY].map(|millis| millis / 1000);
    let (half, seen) = (from + 43_200, begin / 1000 + 9 * 86_400 + 1800 - 86_400);
    for (sql, rows, most) in [
        (format!("SELECT usage FROM metrics_cpu WHERE time >= {from} AND time < {to}"), 1440, 200),
        (format!("SELECT usage FROM metrics_cpu WHERE time >= {from} AND time < {to} AND host = 'vm'"), 1440, 200),
        (format!("SELECT * FROM metrics_cpu_each WHERE time >= {from} AND time < {to}"), 2880, 200),
        (format!("SELECT used FROM metrics_memory WHERE time >= {from} AND time < {half} ORDER BY time"), 720, 150),
        (format!("SELECT usage FROM metrics_cpu WHERE time >= {seen}"), 1440, 200),
        ("SELECT usage FROM metrics_cpu WHERE time > 2000000000".to_owned(), 0, 80),
        (
            format!(
                "SELECT time/3600*3600, avg(load1) FROM metrics_load WHERE time BETWEEN {from} AND {to} GROUP BY 1"
            ),
            25,
            200,
        ),
    ] {
        let (pages, took, found) = read(&host, &sql);
        println!("{pages} pages, {took:?}: {sql}");
        assert_eq!(found, rows, "{sql}");
        assert!(pages <= most, "{pages} pages: {sql}");
        let connection = Connection::open(file(&host)).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> = plan.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let whole = |step: &&String| step.starts_with("SCAN system_metrics") && !step.contains("INDEX");
        assert!(!plan.iter().any(|step| whole(&step)), "{sql}: {plan:#?}");
    }
}

/// A file as the version before made it, with so many minutes of four kinds, and a view of the owner's.
fn old_file(host: &Host, minutes: i64) -> i64 {
    drop(Store::open(&config(host)).unwrap());
    let mut old = Connection::open(file(host)).unwrap();
    let views: Vec<(String, String)> = {
        let mut views = old.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'view'").unwrap();
        views.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let of_old = |(name, sql): &(String, String)| {
        let sql = sql.replace("hub_rows AS m", "system_metrics AS m");
        if name == "hub_rows" { format!("DROP VIEW {name};") } else { format!("DROP VIEW {name}; {sql};") }
    };
    let views: String = views.iter().map(of_old).collect();
    let transaction = old.transaction().unwrap();
    transaction
        .execute_batch(&format!(
            "{views} DROP TABLE system_metrics;
             CREATE TABLE system_metrics (
                time INTEGER NOT NULL,
                host TEXT NOT NULL,
                os TEXT NOT NULL,
                metric_type TEXT NOT NULL,
                payload TEXT NOT NULL CHECK (json_valid(payload))
             ) STRICT;
             CREATE UNIQUE INDEX system_metrics_key ON system_metrics (host, time, metric_type);
             UPDATE hub_schema SET version = 1 WHERE object = 'system_metrics';
             CREATE VIEW mine AS SELECT time, host, payload FROM system_metrics WHERE metric_type = 'disk';"
        ))
        .unwrap();
    for minute in 0..minutes {
        for row in run("vm", minute * MINUTE) {
            let sql = "INSERT INTO system_metrics VALUES (?1, ?2, ?3, ?4, ?5)";
            let columns = (row.time.as_millisecond(), row.host, row.os, row.metric_type, row.payload.to_string());
            transaction.execute(sql, columns).unwrap();
        }
    }
    transaction.commit().unwrap();
    number(host, "SELECT count(*) FROM system_metrics")
}

/// How many rows of the old file there are, by the table and by views.
fn old_rows(host: &Host, minutes: i64) {
    let kinds = run("vm", 0).len() as i64;
    let until = minutes * MINUTE;
    for (sql, expected) in [
        (format!("SELECT count(*) FROM system_metrics WHERE time < {until}"), kinds * minutes),
        (format!("SELECT total(time) FROM metrics_cpu WHERE time_ms < {until}"), minutes * (minutes - 1) / 2 * 60),
        (format!("SELECT count(DISTINCT time) FROM mine WHERE time < {until}"), minutes),
        (format!("SELECT count(*) FROM metrics_memory WHERE time < {}", until / 1000), minutes),
        ("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'".to_owned(), 1),
    ] {
        let found: f64 = Connection::open(file(host)).unwrap().query_row(&sql, [], |row| row.get::<_, f64>(0)).unwrap();
        assert_eq!(found, expected as f64, "{sql}");
    }
}

const CONVERTS: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'hub_unsorted'";

#[test]
fn a_file_of_the_version_before_is_converted_a_little_with_each_run() {
    let (host, minutes) = (Host::new(), 8000);
    assert!(old_file(&host, minutes) > 80_000);
    let later = 1_800_000_000_000;
    let mut runs = 0;
    while runs == 0 || number(&host, CONVERTS) == 1 {
        let begin = Instant::now();
        Store::open(&config(&host)).unwrap().insert_metrics(&run("vm", later + runs * MINUTE), &[]).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?} of a debug build", begin.elapsed());
        runs += 1;
        if runs % 4 == 1 {
            old_rows(&host, minutes);
        }
    }
    old_rows(&host, minutes);
    assert!(runs > 1, "{runs}");
    let kinds = run("vm", 0).len() as i64;
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), (minutes + runs) * kinds);
    assert_eq!(number(&host, &format!("SELECT count(*) FROM metrics_cpu WHERE time_ms >= {later}")), runs);
    let (pages, _, found) = read(&host, "SELECT usage FROM metrics_cpu WHERE time >= 6000 AND time < 92400");
    assert!(found == 1440 && pages <= 200, "{found} {pages}");
    // A row that came before is there once, wherever it lies now.
    Store::open(&config(&host)).unwrap().insert_metrics(&run("vm", MINUTE), &[]).unwrap();
    old_rows(&host, minutes);
    // The version before stored rows for a while.
    let old = "INSERT INTO system_metrics (time, host, os, metric_type, payload)
               VALUES (1750000000000, 'vm', 'linux', 'cpu', '{\"usage\": 5}')";
    Connection::open(file(&host)).unwrap().execute(old, []).unwrap();
    drop(Store::open(&config(&host)).unwrap());
    assert_eq!(number(&host, "SELECT count(*) FROM metrics_cpu WHERE time = 1750000000"), 1);
    let mut runs = 0;
    while number(&host, CONVERTS) == 1 {
        Store::open(&config(&host)).unwrap().insert_metrics(&run("vm", later + (100 + runs) * MINUTE), &[]).unwrap();
        runs += 1;
    }
    assert_eq!(number(&host, "SELECT count(*) FROM metrics_cpu WHERE time = 1750000000"), 1);
    old_rows(&host, minutes);
}

#[test]
fn rows_that_the_version_before_stores_while_a_file_is_converted_are_laid_and_counted() {
    let (host, minutes) = (Host::new(), 8000);
    old_file(&host, minutes);
    let later = 1_800_000_000_000;
    let mut runs = 0;
    let mut run_once = || {
        Store::open(&config(&host)).unwrap().insert_metrics(&run("vm", later + runs * MINUTE), &[]).unwrap();
        runs += 1;
    };
    run_once();
    assert_eq!(number(&host, CONVERTS), 1);
    let old = "INSERT INTO system_metrics (time, host, os, metric_type, payload)
               VALUES (1750000000000, 'vm', 'linux', 'cpu', '{\"usage\": 5}')";
    Connection::open(file(&host)).unwrap().execute(old, []).unwrap();
    let unfilled = "SELECT count(*) FROM hub_unfilled";
    while number(&host, CONVERTS) == 1 || number(&host, unfilled) == 1 {
        run_once();
    }
    assert_eq!(number(&host, "SELECT count(*) FROM metrics_cpu WHERE time = 1750000000"), 1);
    let hour = "SELECT samples FROM metrics_hourly WHERE key = 'usage' AND hour = 1750000000 / 3600 * 3600";
    assert_eq!(number(&host, hour), 1);
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics WHERE sorted IS NULL"), 0);
}

#[test]
fn a_conversion_that_is_killed_at_any_write_converges() {
    let (host, minutes) = (Host::new(), 300);
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        crate::support::skip::skip(
            "a kill at every step",
            "strace is not installed, or may not trace; apt-get install strace",
        );
        return;
    }
    old_file(&host, minutes);
    host.configure("[metrics]\nretention_days = 0\n");
    let old = std::fs::read(file(&host)).unwrap();
    let (mut killed, mut when) = (0, 1);
    loop {
        let command = host.command("system-metrics");
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]);
        traced.arg("-e").arg(format!("inject=pwrite64:signal=KILL:when={when}")).arg(command.get_program());
        traced.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(name, value),
                None => traced.env_remove(name),
            };
        }
        let status = traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        if number(&host, "SELECT count(*) FROM sqlite_schema WHERE name = 'hub_rows'") == 1 {
            old_rows(&host, minutes);
        }
        if status.signal() != Some(9) {
            break;
        }
        killed += 1;
        when += 1 + when / 6;
        // Half of them begin with the old file, the others where the one before was killed.
        if killed % 2 == 0 {
            for suffix in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(host.state().join(format!("data/hub.db{suffix}")));
            }
            std::fs::write(file(&host), &old).unwrap();
        }
    }
    assert!(killed > 10, "{killed}");
    while number(&host, CONVERTS) == 1 {
        assert!(host.command("system-metrics").stdout(Stdio::null()).status().unwrap().success());
    }
    old_rows(&host, minutes);
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics WHERE sorted IS NULL"), 0);
}
