//! The SQLite store: what is stored stays, whatever stands in the way is named.
#![allow(clippy::print_stdout, reason = "a test may fail anywhere, and a child talks to its parent")]
#![cfg(feature = "sqlite")]

use crate::support;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Instant;

use crate::support::Host;
use crate::support::rows::{VIEW_QUERIES, more_kinds, row, sample};
use observability_hub::config::Config;
use observability_hub::store::{Error, MetricRow, Store};
use rusqlite::Connection;
use serde_json::json;

fn config(host: &Host) -> Config {
    support::rows::config(host, "sqlite:hub.db", "")
}

fn file(host: &Host) -> PathBuf {
    host.state().join("data/hub.db")
}

/// A second look at the database, as an operator's sqlite3 takes it.
fn number(host: &Host, sql: &str) -> i64 {
    Connection::open(file(host)).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn rows_are_stored_once_however_often_they_are_sent() {
    let host = Host::new();
    let mut store = Store::open(&config(&host)).unwrap();
    for _ in 0..3 {
        store.insert_metrics(&sample("web", 1_700_000_000_123), &[]).unwrap();
    }
    drop(store);
    Store::open(&config(&host)).unwrap().insert_metrics(&sample("web", 1_700_000_000_123), &[]).unwrap();
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), 4);
    assert_eq!(number(&host, "SELECT min(time) FROM system_metrics"), 1_700_000_000_123);
}

#[test]
fn the_file_is_made_as_the_design_says() {
    let host = Host::new();
    drop(Store::open(&config(&host)).unwrap());
    assert_eq!(std::fs::metadata(host.state().join("data")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(std::fs::metadata(file(&host)).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(number(&host, "SELECT auto_vacuum FROM pragma_auto_vacuum"), 2);
    assert_eq!(number(&host, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"), 1);
    assert_eq!(number(&host, "SELECT strict FROM pragma_table_list WHERE name = 'system_metrics'"), 1);
}

#[test]
fn views_have_typed_columns() {
    let host = Host::new();
    let mut store = Store::open(&config(&host)).unwrap();
    store.insert_metrics(&sample("web", 1_700_000_000_123), &[]).unwrap();
    // The Go version wrote null where a collector failed.
    store
        .insert_metrics(
            &[row("web", 1_700_000_060_000, "disk", json!(null)), row("web", 1_700_000_060_000, "cpu", json!(null))],
            &[],
        )
        .unwrap();
    let connection = Connection::open(file(&host)).unwrap();
    let one = |sql: &str| -> Vec<(i64, f64)> {
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(one("SELECT time, usage FROM metrics_cpu WHERE usage IS NOT NULL"), [(1_700_000_000, 12.5)]);
    assert_eq!(one("SELECT time, celsius FROM metrics_cpu_core_temp WHERE core = 'core_1'"), [(1_700_000_000, 44.0)]);
    assert_eq!(one("SELECT time, used_percent FROM metrics_memory"), [(1_700_000_000, 25.0)]);
    assert_eq!(one("SELECT time, total FROM metrics_disk WHERE mount = '/srv/a \"b\".c'"), [(1_700_000_000, 5e12)]);
    assert_eq!(one("SELECT time, rx_bytes FROM metrics_network WHERE interface = 'eth0'"), [(1_700_000_000, 7e9)]);
    assert_eq!(number(&host, "SELECT count(*) FROM metrics_disk"), 2);
}

#[test]
fn every_kind_has_a_view() {
    let host = Host::new();
    // A file of the version before gets the new views, but somebody's own of such a name stays.
    drop(Store::open(&config(&host)).unwrap());
    let connection = Connection::open(file(&host)).unwrap();
    for view in VIEW_QUERIES.iter().map(|(sql, _)| sql.split("FROM ").nth(1).unwrap().split(' ').next().unwrap()) {
        connection.execute_batch(&format!("DROP VIEW IF EXISTS {view}")).unwrap();
    }
    connection
        .execute_batch(
            "UPDATE hub_schema SET version = 1 WHERE object = 'metric_views'; \
             CREATE VIEW metrics_systemd AS SELECT 1 AS failed, 'x.service' AS units",
        )
        .unwrap();
    drop(connection);
    Store::open(&config(&host)).unwrap().insert_metrics(&more_kinds("web", 1_700_000_000_123), &[]).unwrap();
    let connection = Connection::open(file(&host)).unwrap();
    for (sql, expected) in VIEW_QUERIES {
        let found: f64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(found, *expected, "{sql}");
    }
    assert_eq!(
        number(&host, "SELECT count(*) FROM sqlite_schema WHERE sql LIKE 'CREATE VIEW metrics_systemd AS SELECT 1%'"),
        1
    );
}

#[test]
fn a_refused_row_is_named_and_the_others_are_fine() {
    let host = Host::new();
    let mut store = Store::open(&config(&host)).unwrap();
    let mut rows = sample("web", 1_700_000_000_000);
    rows[2].payload = json!({"mount\0": 1});
    assert_eq!(store.insert_metrics(&rows, &[]).unwrap_err().is_row_refused(), Some(2));
    let deep = (0..1100).fold(json!(1), |inner, _| json!([inner]));
    rows[2].payload = deep;
    let error = store.insert_metrics(&rows, &[]).unwrap_err();
    assert_eq!(error.is_row_refused(), Some(2), "{error}");
    assert!(!error.is_unavailable());
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), 0, "all or none");
    rows.remove(2);
    store.insert_metrics(&rows, &[]).unwrap();
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), 3);
}

#[test]
fn old_rows_go_and_their_space_comes_back() {
    let host = Host::new();
    let mut store = Store::open(&config(&host)).unwrap();
    let day = 24 * 3600 * 1000;
    let now = jiff::Timestamp::now().as_millisecond();
    let filler = "x".repeat(2000);
    for host in ["a", "b"] {
        let rows: Vec<MetricRow> =
            (0..2500).map(|n| row(host, now - 40 * day + n, "filler", json!({"filler": filler}))).collect();
        store.insert_metrics(&rows, &[]).unwrap();
        store.insert_metrics(&sample(host, now - 20 * day), &[]).unwrap();
    }
    assert_eq!(store.delete_old_metrics(0).unwrap(), 0);
    assert_eq!(store.delete_old_metrics(50).unwrap(), 0);
    let before = std::fs::metadata(file(&host)).unwrap().len();
    let deleted = std::cell::Cell::new(0);
    let size = || std::fs::metadata(file(&host)).unwrap().len();
    support::eventually("all old rows and their space are gone", || {
        deleted.set(deleted.get() + Store::open(&config(&host)).unwrap().delete_old_metrics(30).unwrap());
        deleted.get() == 5000 && size() < before / 4
    });
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), 8);
}

#[test]
fn the_log_stays_short_over_many_short_runs() {
    let host = Host::new();
    let config = config(&host);
    let log = host.state().join("data/hub.db-wal");
    let mut longest = 0;
    for minute in 0..200 {
        let filler = row("web", minute, "filler", json!({"filler": "x".repeat(8000)}));
        Store::open(&config).unwrap().insert_metrics(&[filler], &[]).unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    assert!((100_000..600_000).contains(&longest), "{longest}");
    // A reader that does not let go delays the next one only.
    let reader = Connection::open(file(&host)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM system_metrics").unwrap();
    for minute in 200..300 {
        let filler = row("web", minute, "filler", json!({"filler": "x".repeat(8000)}));
        Store::open(&config).unwrap().insert_metrics(&[filler], &[]).unwrap();
    }
    drop(reader);
    Store::open(&config).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
    assert!(std::fs::metadata(&log).unwrap().len() < 600_000);
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), 304);
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let host = Host::new();
    drop(Store::open(&config(&host)).unwrap());
    let garbage = "this is no database\n".repeat(500);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(host.state().join(format!("data/hub.db{suffix}")));
    }
    std::fs::write(file(&host), &garbage).unwrap();
    let error = Store::open(&config(&host)).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("hub.db") && error.to_string().contains("hub database recover FILE"), "{error}");
    assert_eq!(std::fs::read_to_string(file(&host)).unwrap(), garbage);
}

#[test]
fn a_newer_schema_is_refused() {
    let host = Host::new();
    drop(Store::open(&config(&host)).unwrap());
    Connection::open(file(&host)).unwrap().execute("UPDATE hub_schema SET version = 7, oldest = 7", []).unwrap();
    let error = Store::open(&config(&host)).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 7, .. }), "{error}");
    Connection::open(file(&host)).unwrap().execute("UPDATE hub_schema SET oldest = 1", []).unwrap();
    Store::open(&config(&host)).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
}

#[test]
fn somebody_elses_table_is_not_touched() {
    let host = Host::new();
    std::fs::create_dir(host.state().join("data")).unwrap();
    Connection::open(file(&host))
        .unwrap()
        .execute_batch("CREATE TABLE system_metrics (a); INSERT INTO system_metrics VALUES (1)")
        .unwrap();
    let error = Store::open(&config(&host)).unwrap_err();
    assert!(error.to_string().contains("did not make"), "{error}");
    assert_eq!(number(&host, "SELECT a FROM system_metrics"), 1);
}

#[test]
fn a_link_in_the_files_place_is_not_followed() {
    let host = Host::new();
    std::fs::create_dir(host.state().join("data")).unwrap();
    std::fs::write(host.path("elsewhere"), "").unwrap();
    std::os::unix::fs::symlink(host.path("elsewhere"), file(&host)).unwrap();
    assert!(matches!(Store::open(&config(&host)), Err(Error::Rights { .. })));
    assert_eq!(std::fs::metadata(host.path("elsewhere")).unwrap().len(), 0);
}

#[test]
fn a_locked_database_is_waited_for_then_reported() {
    let host = Host::new();
    let mut store = Store::open(&config(&host)).unwrap();
    let other = Connection::open(file(&host)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.insert_metrics(&sample("web", 0), &[]).unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("lock"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    store.insert_metrics(&sample("web", 0), &[]).unwrap();
    store.check().unwrap();
}

#[test]
fn many_first_starts_at_once_end_with_one_schema() {
    let host = Host::new();
    let config = config(&host);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let config = &config;
            scope
                .spawn(move || Store::open(config).unwrap().insert_metrics(&sample(&format!("h{n}"), 0), &[]).unwrap());
        }
    });
    assert_eq!(number(&host, "SELECT count(DISTINCT host) FROM system_metrics"), 8);
    assert_eq!(number(&host, "SELECT auto_vacuum FROM pragma_auto_vacuum"), 2);
}

#[test]
fn pipelines_bring_their_tables() {
    let host = Host::new();
    drop(Store::open(&config(&host)).unwrap());
    let pipelines = "[[pipeline]]\nname = \"reading\"\n[[pipeline]]\nname = \"other\"\ntable = \"lab.order\"\n";
    drop(Store::open(&support::rows::config(&host, "sqlite:hub.db", pipelines)).unwrap());
    for table in ["reading_analytics", "\"lab.order\"", "dead_letters"] {
        assert_eq!(number(&host, &format!("SELECT count(*) FROM {table}")), 0);
    }
}

/// Runs this test binary's own ignored test `name` as a child: for what a process does to itself.
fn child(host: &Host, name: &str, wrapper: &[&str]) -> std::process::Command {
    let me = std::env::current_exe().unwrap();
    let mut command = match wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = std::process::Command::new(program);
            command.args(arguments).arg(me);
            command
        }
        None => std::process::Command::new(me),
    };
    command
        .args(["--ignored", "--exact", &format!("store_sqlite::{name}"), "--nocapture"])
        .env("HUB_TEST_HOST", host.path(""));
    command
}

fn parents_config() -> Config {
    let root = PathBuf::from(std::env::var_os("HUB_TEST_HOST").expect("started by another test"));
    support::rows::config_in(&root.join("hub.toml"), &root.join("state"), "sqlite:hub.db", "")
}

#[test]
#[ignore = "the child of what_is_stored_survives_kill_9"]
fn child_that_inserts_for_ever() {
    let mut store = Store::open(&parents_config()).unwrap();
    for n in 0.. {
        store.insert_metrics(&sample("web", n * 1000), &[]).unwrap();
        println!("\nstored {n}");
    }
}

#[test]
fn what_is_stored_survives_kill_9() {
    use std::io::BufRead;
    let host = Host::new();
    let mut stored = -1;
    for round in 0..10 {
        let mut running =
            child(&host, "child_that_inserts_for_ever", &[]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufReader::new(running.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = lines.filter_map(|line| line.strip_prefix("stored ").and_then(|n| n.parse::<i64>().ok()));
        let last = seen.by_ref().nth(20 + round * 13).unwrap();
        running.kill().unwrap();
        stored = stored.max(last).max(seen.last().unwrap_or(-1));
        running.wait().unwrap();
        let count = number(&host, "SELECT count(*) FROM system_metrics");
        assert!(count >= (stored + 1) * 4 && count % 4 == 0, "{count} rows for {stored}");
        assert_eq!(number(&host, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    }
    Store::open(&config(&host)).unwrap().insert_metrics(&sample("after", 0), &[]).unwrap();
}

#[test]
#[ignore = "the child of tests that run it as another user or on another file system"]
fn child_that_inserts_once() {
    match Store::open(&parents_config()).and_then(|mut store| store.insert_metrics(&sample("child", 0), &[])) {
        Ok(_) => println!("\nchild: stored"),
        Err(error) => println!("\nchild: unavailable={} {error}", error.is_unavailable()),
    }
}

fn said(mut command: std::process::Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("child: ").map(str::to_owned))
        .unwrap_or_else(|| panic!("{output:?}"))
}

const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

#[test]
fn a_run_as_root_leaves_what_the_owner_of_the_folder_can_use() {
    if support::skipped_without_root() {
        return;
    }
    let host = Host::new();
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(host.state().join("data")).unwrap();
    std::os::unix::fs::chown(host.state().join("data"), Some(65534), Some(65534)).unwrap();
    let mut store = Store::open(&config(&host)).unwrap();
    store.insert_metrics(&sample("root", 0), &[]).unwrap();
    for name in ["hub.db", "hub.db-wal", "hub.db-shm"] {
        let metadata = std::fs::metadata(host.state().join("data").join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (65534, 0o640), "{name}");
    }
    assert_eq!(said(child(&host, "child_that_inserts_once", &AS_NOBODY)), "stored");
    drop(store);
    assert_eq!(said(child(&host, "child_that_inserts_once", &AS_NOBODY)), "stored");
    Store::open(&config(&host)).unwrap().insert_metrics(&sample("root", 1), &[]).unwrap();
}

#[test]
fn a_file_of_another_user_and_a_folder_without_rights_are_named() {
    if support::skipped_without_root() {
        return;
    }
    let host = Host::new();
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    drop(Store::open(&config(&host)).unwrap());
    std::fs::set_permissions(host.state().join("data"), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["hub.db", "hub.db-wal", "hub.db-shm"] {
        std::fs::set_permissions(host.state().join("data").join(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    let said = said(child(&host, "child_that_inserts_once", &AS_NOBODY));
    assert!(said.contains("unavailable=false") && said.contains("must belong to that user"), "{said}");
}

#[test]
fn a_full_file_system_is_named_and_the_database_stays_whole() {
    if support::skipped_without_root() {
        return;
    }
    let host = Host::new();
    let data = host.state().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(_mount) = support::rows::SmallFileSystem::mount(&data, "400k") else { return };
    let mut store = Store::open(&config(&host)).unwrap();
    let mut stored = 0;
    let error = loop {
        let row = row("web", stored, "filler", json!({"filler": "x".repeat(20_000)}));
        match store.insert_metrics(&[row], &[]) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100);
    };
    assert!(error.is_unavailable() && error.to_string().contains("full"), "{error}");
    drop(store);
    assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), stored);
    assert_eq!(number(&host, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
}

#[test]
fn a_read_only_file_system_is_named() {
    if support::skipped_without_root() {
        return;
    }
    let host = Host::new();
    let data = host.state().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(mount) = support::rows::SmallFileSystem::mount(&data, "4m") else { return };
    let mut store = Store::open(&config(&host)).unwrap();
    store.insert_metrics(&sample("web", 0), &[]).unwrap();
    drop(store);
    mount.read_only();
    let error =
        Store::open(&config(&host)).and_then(|mut store| store.insert_metrics(&sample("web", 1), &[])).unwrap_err();
    assert!(error.to_string().contains("read-write"), "{error}");
}

#[test]
fn what_somebody_dropped_is_made_again() {
    let host = Host::new();
    let pipeline = "[[pipeline]]\nname = \"reading\"\nsource = \"file:/srv/inbox\"\ntable = \"reading_analytics\"\n";
    let config = support::rows::config(&host, "sqlite:hub.db", pipeline);
    drop(Store::open(&config).unwrap());
    for dropped in ["system_metrics", "dead_letters", "reading_analytics"] {
        // The views stay where their table goes.
        Connection::open(file(&host)).unwrap().execute_batch(&format!("DROP TABLE {dropped}")).unwrap();
        Store::open(&config).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
        assert_eq!(number(&host, &format!("SELECT count(*) FROM {dropped} WHERE false")), 0);
        assert_eq!(number(&host, "SELECT count(*) FROM metrics_disk"), 2, "{dropped}");
    }
}

#[test]
fn parts_that_somebody_dropped_are_made_again_and_named() {
    let host = Host::new();
    let pipeline = "[[pipeline]]\nname = \"reading\"\nsource = \"file:/srv/inbox\"\ntable = \"reading_analytics\"\n";
    let config = support::rows::config(&host, "sqlite:hub.db", pipeline);
    assert_eq!(Store::open(&config).unwrap().notes(), [""; 0]);
    for (kind, name) in [
        ("VIEW", "metrics_cpu"),
        ("VIEW", "metrics_collector"),
        ("VIEW", "reading_analytics_view"),
        ("INDEX", "system_metrics_key"),
        ("INDEX", "reading_analytics_event_timestamp"),
        ("TABLE", "dead_letters"),
        ("TABLE", "reading_analytics"),
    ] {
        Connection::open(file(&host)).unwrap().execute_batch(&format!("DROP {kind} {name}")).unwrap();
        let mut store = Store::open(&config).unwrap();
        assert!(
            store.notes().iter().any(|note| note.contains(name) && note.contains("made again")),
            "{:?}",
            store.notes()
        );
        store.insert_metrics(&sample("web", 0), &[]).unwrap();
        store.insert_metrics(&sample("web", 0), &[]).unwrap();
        assert_eq!(number(&host, &format!("SELECT count(*) FROM sqlite_schema WHERE name = '{name}'")), 1);
        assert_eq!(number(&host, "SELECT count(*) FROM system_metrics"), 4, "{name}");
        assert_eq!(Store::open(&config).unwrap().notes(), [""; 0]);
    }
    // A relation of somebody else's in a view's place is left alone.
    let connection = Connection::open(file(&host)).unwrap();
    connection.execute_batch("DROP VIEW metrics_fan; CREATE TABLE metrics_fan (mine)").unwrap();
    assert_eq!(Store::open(&config).unwrap().notes(), [""; 0]);
    assert_eq!(number(&host, "SELECT count(*) FROM pragma_table_info('metrics_fan') WHERE name = 'mine'"), 1);
}

#[test]
#[ignore = "the child of a_reader_that_holds_the_log_is_told_once_and_does_not_slow_writers_down"]
fn child_that_inserts_many() {
    let mut store = Store::open(&parents_config()).unwrap();
    let begin = Instant::now();
    let documents = (0..20_000u32).collect::<Vec<_>>();
    for part in documents.chunks(100) {
        let rows = part.iter().map(|number| {
            std::sync::Arc::new(observability_hub::store::Reading {
                mongo_id: format!("{}-{number}", std::process::id()),
                source_id: None,
                event_timestamp: None,
                source: Some("x".repeat(1000)),
                event_type: None,
                payload: None,
                meta: None,
            })
        });
        let batch = observability_hub::store::Readings {
            pipeline: "a".to_owned(),
            table: "a".to_owned(),
            rows: rows.collect(),
            ..Default::default()
        };
        store.insert_readings(&std::sync::Arc::new(batch)).unwrap();
    }
    println!("\ntook: {}", begin.elapsed().as_millis());
}

#[test]
fn a_reader_that_holds_the_log_is_told_once_and_does_not_slow_writers_down() {
    let host = Host::new();
    let pipeline = "[[pipeline]]\nname = \"a\"\nsource = \"file:/srv/inbox\"\ntable = \"a\"\n";
    drop(Store::open(&support::rows::config(&host, "sqlite:hub.db", pipeline)).unwrap());
    let log = || std::fs::metadata(host.state().join("data/hub.db-wal")).map_or(0, |metadata| metadata.len());
    let run = || {
        let output = child(&host, "child_that_inserts_many", &[]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let took = text.lines().find_map(|line| line.strip_prefix("took: ")).unwrap_or_else(|| panic!("{text}"));
        (took.parse::<u64>().unwrap(), text.matches("log_held").count())
    };
    let (alone, said) = run();
    assert_eq!(said, 0);
    let reader = Connection::open(file(&host)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let seen: i64 = reader.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
    let (held, said) = run();
    assert_eq!((said, reader.query_row("SELECT count(*) FROM a", [], |row| row.get(0))), (1, Ok(seen)));
    assert!(held < alone * 4 + 2000, "{alone} ms alone, {held} ms with a reader");
    // Many short programs say it when the log has doubled, not each time.
    let before = log();
    assert!(before > 8 << 20, "{before}");
    let short = || said_of(child(&host, "child_that_inserts_once", &[])).matches("log_held").count();
    assert_eq!((0..5).map(|_| short()).sum::<usize>(), 0);
    // When the reader is gone, the next program empties it.
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    assert_eq!(short(), 0);
    assert_eq!(log(), 0);
}

fn said_of(mut command: std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
