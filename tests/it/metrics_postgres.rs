//! system-metrics on a real PostgreSQL: outages, kills, refusals and tables that were there before, end to end.
#![cfg(feature = "postgres")]

use std::cell::RefCell;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::Host;
use crate::support::metrics::{
    command, in_order_and_once, kill_at_every_step, nobody, run, spooled, spooled_rows, tree_of,
};
use crate::support::postgres::{Cluster, Database, counting_relay, free_port, shared};

/// A host whose rows go to a database.
struct Site {
    host: Host,
    tree: std::path::PathBuf,
}

impl Site {
    fn new() -> Self {
        let host = Host::new();
        let tree = tree_of(&host, "pi4");
        Self { host, tree }
    }

    fn command(&self, url: &str) -> Command {
        let mut command = command(&self.host, &self.tree);
        command.env("DATABASE_URL", url);
        command
    }

    /// Runs once; returns the log lines.
    #[track_caller]
    fn run(&self, url: &str) -> String {
        run(&mut self.command(url), 0)
    }
}

/// Every row in the order of the transactions that stored it; within one, PostgreSQL puts a row where there is room.
fn stored(database: &Database<'_>) -> Vec<(i64, String)> {
    let sql = "SELECT (extract(epoch FROM time) * 1000)::bigint, metric_type FROM system_metrics \
               ORDER BY xmin::text::bigint, 1, 2";
    let rows = database.superuser().query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn an_outage_of_five_runs_is_replayed_in_order_and_once() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("metrics_outage");
    let site = Site::new();
    assert!(site.run(&database.url()).contains("metrics_stored"));
    let kinds = database.count() as usize;
    cluster.stop("QUIT");
    for _ in 0..5 {
        let lines = site.run(&database.url());
        assert!(
            lines.contains("metrics_spooled") && lines.contains("127.0.0.1") && lines.contains("refused"),
            "{lines}"
        );
    }
    let mut waiting = spooled(&site.host);
    waiting.sort();
    assert_eq!(waiting.len(), 5 * kinds);
    cluster.run();
    let lines = site.run(&database.url());
    assert!(lines.contains(&format!("\"replayed\":{}", waiting.len())), "{lines}");
    site.run(&database.url());
    let rows = stored(&database);
    assert_eq!((rows.len(), spooled_rows(&site.host)), (8 * kinds, 0));
    assert_eq!(rows[kinds..6 * kinds], waiting);
    in_order_and_once(&rows);
}

#[test]
fn a_database_that_holds_its_caller_costs_seconds_and_no_sample() {
    let Some(cluster) = shared() else { return };
    let site = Site::new();
    let spools = |url: &str, why: &str| {
        let started = Instant::now();
        let lines = site.run(url);
        assert!(lines.contains("metrics_spooled") && lines.contains(why), "{lines}");
        assert!(started.elapsed() < Duration::from_secs(16), "{:?}", started.elapsed());
    };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    spools(&format!("postgres://hub:geheim@{}/hub", silent.local_addr().unwrap()), "no login within 5 s");

    let database = cluster.database("holds");
    drop(crate::support::postgres::open(&database.url()).unwrap());
    let mut other = database.superuser();
    other.batch_execute("BEGIN; LOCK TABLE system_metrics").unwrap();
    spools(&database.url(), "no answer within 6 s");
    other.batch_execute("ROLLBACK").unwrap();

    // Each call is in time, and all of them together are not.
    for _ in 0..3 {
        site.run(&nobody());
    }
    let waiting = spooled_rows(&site.host);
    let (spool, kinds) = (site.host.path("state/data/metrics/spool"), waiting / 5);
    let segment = |number: usize| spool.join(format!("{number:012}.jsonl"));
    let segments = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let mut segments = segments.filter(|path| path.to_str().unwrap().ends_with("1.jsonl"));
    let whole = segments.next().unwrap();
    let text = std::fs::read_to_string(&whole).unwrap();
    std::fs::remove_file(whole).unwrap();
    for (number, lines) in text.split_inclusive('\n').collect::<Vec<_>>().chunks(kinds).enumerate() {
        std::fs::write(segment(number + 1), lines.concat()).unwrap();
    }
    database
        .superuser()
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(4); RETURN NULL; END'; \
             CREATE TRIGGER slow BEFORE INSERT ON system_metrics EXECUTE FUNCTION slow()",
        )
        .unwrap();
    spools(&database.url(), "no answer within");
    assert!(spooled_rows(&site.host) < waiting, "what was in time is stored");
    database.superuser().batch_execute("DROP TRIGGER slow ON system_metrics").unwrap();
    site.run(&database.url());
    let rows = stored(&database);
    assert_eq!((spooled_rows(&site.host), rows.len()), (0, 7 * kinds));
    in_order_and_once(&rows);
}

#[test]
fn killed_at_every_step_of_a_replay_nothing_is_lost_or_doubled() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("metrics_killed");
    let site = Site::new();
    site.run(&database.url());
    let waiting = RefCell::new(Vec::new());
    let killed = kill_at_every_step(
        || {
            site.run(&nobody());
            waiting.replace(spooled(&site.host));
        },
        || site.command(&database.url()),
        |step| {
            site.run(&database.url());
            let rows = stored(&database);
            assert!(waiting.borrow().iter().all(|row| rows.contains(row)), "killed at {step}: rows are lost");
            in_order_and_once(&rows);
            assert_eq!(spooled_rows(&site.host), 0, "killed at {step}");
        },
    );
    assert!(killed.is_none_or(|killed| killed > 5), "{killed:?} steps");
}

#[test]
fn what_the_database_refuses_is_said_and_kept() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("refusing");
    let port = cluster.port;
    let mut superuser = cluster.superuser("postgres");
    for sql in ["CREATE ROLE bare LOGIN PASSWORD 'geheim'", "CREATE DATABASE foreign_owner"] {
        superuser.batch_execute(sql).unwrap();
    }
    let site = Site::new();
    let cases = [
        (format!("postgres://refusing:falsch@127.0.0.1:{port}/refusing"), "password authentication failed"),
        (format!("postgres://refusing:geheim@no-such-host.invalid:{port}/refusing"), "no-such-host.invalid"),
        (format!("postgres://refusing:geheim@127.0.0.1:{}/refusing", free_port()), "refused"),
        (format!("{}?sslmode=require", database.url()), "set ssl = on in postgresql.conf"),
        (format!("postgres://bare:geheim@127.0.0.1:{port}/foreign_owner"), "GRANT CREATE ON SCHEMA public TO"),
        (format!("postgres://refusing:geheim@127.0.0.1:{port}/nowhere"), "CREATE DATABASE"),
    ];
    let mut waiting = 0;
    for (url, says) in &cases {
        let lines = site.run(url);
        assert!(lines.contains("metrics_spooled") && lines.contains(says), "{says}: {lines}");
        assert!(!lines.contains("geheim") && !lines.contains("falsch"), "{lines}");
        let now = spooled_rows(&site.host);
        assert!(now > waiting, "{says}: nothing was kept");
        waiting = now;
    }
    let record = site.host.json("state/data/metrics/run.json");
    assert!(record["status"] == "spooled" && record["error"].as_str().unwrap().contains("nowhere"), "{record}");
    site.run(&database.url());
    assert_eq!(database.count() as usize, waiting / cases.len() * (cases.len() + 1));
}

#[test]
fn a_server_that_takes_tls_only_says_so() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("tls_only");
    let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
    let file = cluster.file("hba", rules);
    let setting = format!("ALTER SYSTEM SET hba_file = '{}'", file.display());
    cluster.superuser("postgres").execute(&setting, &[]).unwrap();
    cluster.stop("QUIT");
    cluster.run();
    let site = Site::new();
    let lines = site.run(&format!("{}?sslmode=disable", database.url()));
    assert!(lines.contains("metrics_spooled") && lines.contains("no encryption"), "{lines}");
    assert!(lines.contains("pg_hba.conf") && spooled_rows(&site.host) > 0, "{lines}");
}

#[test]
fn a_table_of_the_go_version_goes_on_with_its_rows() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("go_table");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "SET ROLE go_table; CREATE TABLE system_metrics (time TIMESTAMPTZ(0) NOT NULL, host TEXT NOT NULL, \
             os TEXT NOT NULL, metric_type TEXT NOT NULL, payload JSONB NOT NULL); \
             INSERT INTO system_metrics SELECT now() - n * interval '1 day', 'pi', 'linux', 'cpu', \
             '{\"usage\": 5, \"package_temp\": 50, \"core_temps\": {}}' FROM generate_series(1, 100) AS n",
        )
        .unwrap();
    let site = Site::new();
    assert!(site.run(&database.url()).contains("metrics_stored"));
    assert_eq!(database.number("SELECT count(*) FROM system_metrics WHERE host = 'pi'"), 100);
    assert_eq!(database.number("SELECT count(*) FROM metrics_cpu WHERE host = 'pi' AND usage = 5"), 100);
    assert_eq!(database.number("SELECT count(*) FROM metrics_cpu WHERE host <> 'pi' AND package_temp > 0"), 1);
    assert_eq!(database.number("SELECT count(*) FROM metrics_temperature WHERE chip = 'cpu_thermal'"), 1);
}

#[test]
fn a_role_without_rights_finds_the_sql_in_the_log() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("rightless");
    let mut superuser = database.superuser();
    superuser.batch_execute("ALTER DATABASE rightless OWNER TO postgres").unwrap();
    let site = Site::new();
    let lines = site.run(&database.url());
    let is_about = |line: &&str| line.contains("metrics_spooled");
    let line: serde_json::Value = serde_json::from_str(lines.lines().find(is_about).unwrap()).unwrap();
    let (_, script) = line["error"].as_str().unwrap().split_once(":\n").unwrap();
    // The line is cut within the views; what stands before is whole.
    let (tables, _) = script.split_once(";\nCREATE OR REPLACE VIEW").unwrap();
    superuser.batch_execute(tables).unwrap();
    let lines = site.run(&database.url());
    assert!(lines.contains("metrics_stored") && lines.contains("GRANT CREATE ON SCHEMA public"), "{lines}");
    assert_eq!(spooled_rows(&site.host), 0);
    superuser.batch_execute("GRANT CREATE ON SCHEMA public TO rightless").unwrap();
    assert!(!site.run(&database.url()).contains("schema_incomplete"));
    assert_eq!(database.number("SELECT count(*) FROM metrics_load"), 3);
}

#[test]
fn a_run_waits_once_for_its_rows() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("turns");
    let site = Site::new();
    site.run(&database.url());
    let (relay, turns) = counting_relay(cluster.port);
    let before = database.count();
    site.run(&format!("postgres://turns:geheim@127.0.0.1:{relay}/turns?sslmode=disable"));
    assert!(database.count() >= before + 10);
    assert_eq!(turns.load(Ordering::SeqCst), 3, "two looks at the schema, one for all rows");
}
