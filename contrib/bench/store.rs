//! What grows with the days and the hosts in a database, and what does not: a file of SQLite with 1, 30 and 365 days of
//! minutes, and one PostgreSQL with 1, 10 and 100 hosts. Rows are this machine's own, without units, with other numbers in
//! each minute.
//!
//! CPU time is user and system time as wait4(2) gives it, of the program that reads; PostgreSQL's own is not in it. Pages are
//! those of 4 KiB that a query reads when none is in the program's memory yet. `HUB_BENCH_DAYS` and `HUB_BENCH_HOSTS` are other sizes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod figures;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use figures::{Runs, figure, median, ms, setting};
use observability_hub::store::{MetricRow, Store};
use postgres::SimpleQueryMessage;
use rusqlite::Connection;
use serde_json::Value;
use support::Host;
use support::postgres::Cluster;
use support::rows::config;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// Days of minutes of each host in PostgreSQL.
const DAYS: i64 = 2;

/// Numbers that are as random as their beginning.
struct Random(u64);

impl Random {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    /// Another value of the same kind: a share of it, a number of bytes near it, or a count that stays.
    fn vary(&mut self, key: &str, value: &mut Value) {
        let stays = ["total", "inodes", "reserved", "boot_time", "online", "ok"].contains(&key);
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(key, value)| self.vary(key, value)),
            Value::Number(number) if !stays => {
                let old = number.as_f64().unwrap_or(0.0);
                if number.is_f64() {
                    *value = ((old * (0.5 + self.share()) * 100.0).round() / 100.0).into();
                } else if old > 100.0 {
                    *value = ((old * (0.95 + 0.1 * self.share())) as u64).into();
                }
            }
            _ => {}
        }
    }
}

/// The rows of a run of this machine.
fn sample() -> Vec<(String, Value)> {
    let host = Host::new();
    for _ in 0..3 {
        assert!(host.command("system-metrics").stdout(Stdio::null()).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(1200));
    }
    let file = Connection::open(host.state().join("data/hub.db")).unwrap();
    let newest = "SELECT metric_type, payload FROM system_metrics WHERE time = (SELECT max(time) FROM system_metrics) \
                  AND metric_type <> 'unit'";
    let mut newest = file.prepare(newest).unwrap();
    let rows = newest.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
    let row = |(kind, payload): (String, String)| {
        let mut payload: Value = serde_json::from_str(&payload).unwrap();
        // What this machine has and another one has not.
        if let Some(collectors) = payload.get_mut("collectors").and_then(Value::as_object_mut) {
            collectors.values_mut().for_each(|of| drop(of.as_object_mut().map(|of| of.remove("problems"))));
        }
        (kind, payload)
    };
    rows.map(|found| row(found.unwrap())).collect()
}

fn run(sample: &[(String, Value)], random: &mut Random, host: &str, time: i64) -> Vec<MetricRow> {
    let row = |(kind, payload): &(String, Value)| {
        let mut row = support::rows::row(host, time, kind, payload.clone());
        row.os = "Debian GNU/Linux 13 (trixie)".to_owned();
        random.vary("", &mut row.payload);
        row
    };
    sample.iter().map(row).collect()
}

/// Stores the minutes from one time up to another, an hour at once but for the newest, whose runs come one by one.
fn fill(store: &mut Store, sample: &[(String, Value)], host: &str, (from, until): (i64, i64)) {
    let mut random = Random(from.unsigned_abs());
    let mut time = from;
    while time < until {
        let count = if until - time <= 90 * MINUTE { 1 } else { 60 };
        let rows: Vec<_> =
            (0..count).flat_map(|minute| run(sample, &mut random, host, time + minute * MINUTE)).collect();
        store.insert_metrics(&rows, &[]).unwrap();
        time += count * MINUTE;
    }
}

/// Pages that a query reads, how long it takes, and how many rows it finds.
fn read(file: &PathBuf, sql: &str) -> (u64, Duration, i64) {
    let read = || -> u64 {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    };
    let connection = Connection::open(file).unwrap();
    let (before, begin) = (read(), Instant::now());
    let rows = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    ((read() - before) / 4096, begin.elapsed(), rows)
}

/// What `hub metrics` takes for some times.
fn screens(host: &Host, name: &str, targets: [Option<f64>; 3]) {
    for (since, target) in ["24h", "30d", "365d"].into_iter().zip(targets) {
        let mut runs = Runs::default();
        for _ in 0..setting("HUB_BENCH_ROUNDS", 5).max(1) {
            let mut command = host.command("hub");
            command.args(["metrics", "--json", "--host", name, "--since", since]);
            runs.add(command);
        }
        runs.show(&format!("hub metrics --since {since}"));
        let cpu = ms(median(&runs.cpu));
        if let Some(most) = target {
            figure("CPU", format!("{cpu:.1} ms"), &format!("<= {most} ms"), cpu <= most);
        }
    }
}

fn sqlite(sample: &[(String, Value)], days: i64) {
    let host = Host::new();
    let now = jiff::Timestamp::now().as_millisecond() / MINUTE * MINUTE;
    let mut store = Store::open(&config(&host, "sqlite:hub.db", "[metrics]\nretention_days = 0\n")).unwrap();
    let begin = Instant::now();
    fill(&mut store, sample, "vm", (now - days * DAY, now));
    let file = host.state().join("data/hub.db");
    Connection::open(&file).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let size = std::fs::metadata(&file).unwrap().len() as f64 / 1e6;
    println!("SQLite, {days} days of minutes: {size:.1} MB, filled in {:.0} s", begin.elapsed().as_secs_f64());
    println!("  {:<58} {:>9.1} MB", "14 days of these", size / days as f64 * 14.0);
    let connection = Connection::open(&file).unwrap();
    let parts = "SELECT name, sum(pgsize), sum(unused) FROM dbstat GROUP BY 1 ORDER BY 2 DESC LIMIT 8";
    if let Ok(mut parts) = connection.prepare(parts) {
        let each = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        for part in parts.query_map([], each).unwrap() {
            let (name, bytes, unused): (String, f64, f64) = part.unwrap();
            println!("    {name:<56} {:>9.1} MB, {:.1} of them unused", bytes / 1e6, unused / 1e6);
        }
    }
    let end = now / DAY * DAY / 1000 - if days > 1 { 86_400 * days / 2 } else { 0 };
    for view in ["cpu", "disk", "run"] {
        let sql = format!("SELECT count(*) FROM metrics_{view} WHERE time >= {} AND time < {end}", end - 86_400);
        let (pages, took, rows) = read(&file, &sql);
        let name = format!("a day of metrics_{view}, {rows} rows, {:.1} ms: pages", ms(took));
        figure(&name, pages.to_string(), "<= 200", pages <= 200);
    }
    screens(&host, "vm", [Some(30.0), Some(60.0), None]);
    let mut runs = Runs::default();
    for _ in 0..setting("HUB_BENCH_ROUNDS", 5).max(1) * 2 {
        runs.add(host.command("system-metrics"));
        std::thread::sleep(Duration::from_millis(700));
    }
    runs.show("a run of system-metrics");
    let begin = Instant::now();
    let gone = store.delete_old_metrics(14).unwrap();
    println!("  {:<58} {:>9.1} ms", format!("one call of retention, {gone} rows"), ms(begin.elapsed()));
}

fn postgresql(sample: &[(String, Value)], hosts: &[i64]) {
    let Some(cluster) = Cluster::start(&["fsync=on", "shared_buffers=128MB"]) else { return };
    let database = cluster.database("bench");
    let now = jiff::Timestamp::now().as_millisecond() / MINUTE * MINUTE;
    let host = Host::new();
    let mut store = Store::open(&config(&host, &database.url(), "")).unwrap();
    let mut filled = 0;
    for count in hosts {
        let begin = Instant::now();
        for number in filled..*count {
            fill(&mut store, sample, &format!("host{number}"), (now - DAYS * DAY, now));
        }
        filled = *count;
        for sql in ["VACUUM ANALYZE", "CHECKPOINT"] {
            database.superuser().batch_execute(sql).unwrap();
        }
        let size = database.number("SELECT pg_database_size(current_database())") as f64 / 1e6;
        println!(
            "PostgreSQL, {count} hosts of {DAYS} days: {size:.1} MB, filled in {:.0} s",
            begin.elapsed().as_secs_f64()
        );
        let mut random = Random(count.unsigned_abs());
        let insert = |minute: i64| {
            let host = format!("host{}", minute % count);
            let rows = run(sample, &mut random, &host, now + (*count + minute) * MINUTE);
            let begin = Instant::now();
            store.insert_metrics(&rows, &[]).unwrap();
            begin.elapsed()
        };
        let inserts: Vec<Duration> = (0..50).map(insert).collect();
        println!("  {:<58} {:>9.1} ms", "a run is stored, of another host each time, median", ms(median(&inserts)));
        for (what, sql) in [
            (
                "a day of metrics_cpu",
                "SELECT usage FROM metrics_cpu WHERE host = 'host0' AND time > now() - INTERVAL '1 day'",
            ),
            (
                "hours of one number",
                "SELECT avg FROM metrics_hourly WHERE host = 'host0' AND kind = 'cpu' AND label = '' AND key = 'usage'",
            ),
        ] {
            let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}");
            let messages = database.superuser().simple_query(&explain).unwrap();
            let plan = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            let plan: Value = serde_json::from_str(plan.unwrap()).unwrap();
            let blocks = |name: &str| plan[0]["Plan"][name].as_f64().unwrap();
            let pages = blocks("Shared Hit Blocks") + blocks("Shared Read Blocks");
            let took = plan[0]["Execution Time"].as_f64().unwrap();
            println!(
                "  {:<58} {pages:>9} pages of 8 KiB, {took:.1} ms",
                format!("{what}, {} rows", plan[0]["Plan"]["Actual Rows"])
            );
        }
        screens(&host, "host0", [None; 3]);
        let begin = Instant::now();
        let gone = store.delete_old_metrics(14).unwrap();
        println!("  {:<58} {:>9.1} ms", format!("retention where nothing is old, {gone} rows"), ms(begin.elapsed()));
    }
    let begin = Instant::now();
    let gone = store.delete_old_metrics(1).unwrap();
    println!("  {:<58} {:>9.1} ms", format!("one call of retention, {gone} rows"), ms(begin.elapsed()));
}

/// Sizes from the environment.
fn sizes(name: &str, usual: &str) -> Vec<i64> {
    let sizes = std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    sizes.split(',').filter(|size| !size.is_empty()).map(|size| size.trim().parse().unwrap()).collect()
}

fn main() {
    println!("store: what grows with days and hosts");
    figures::machine();
    let sample = sample();
    let bytes: usize = sample.iter().map(|(_, payload)| payload.to_string().len()).sum();
    println!("  a run: {} rows, {bytes} bytes of payload", sample.len());
    for days in sizes("HUB_BENCH_DAYS", "1,30,365") {
        sqlite(&sample, days);
    }
    let hosts = sizes("HUB_BENCH_HOSTS", "1,10,100");
    if !hosts.is_empty() {
        postgresql(&sample, &hosts);
    }
}
