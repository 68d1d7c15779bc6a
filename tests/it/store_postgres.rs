//! The PostgreSQL store on a real server: rows, views, schema, adoption, rights.
#![cfg(feature = "postgres")]

use crate::support;
use std::time::Instant;

use crate::support::postgres::{Cluster, configured, counting_relay, open, shared};
use crate::support::rows::{VIEW_QUERIES, more_kinds, row, sample};
use observability_hub::store::{Error, EventRow, MetricRow, Shipped, Store};
use serde_json::json;

/// What the Go version ran.
const GO_TABLE: &str = "CREATE TABLE IF NOT EXISTS system_metrics (time TIMESTAMPTZ(0) NOT NULL, host TEXT NOT NULL, \
                        os TEXT NOT NULL, metric_type TEXT NOT NULL, payload JSONB NOT NULL)";

#[test]
fn rows_are_stored_once_over_tcp_and_over_the_socket() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("once");
    let rows = sample("web", 1_700_000_000_123);
    for url in [database.url(), database.socket_url()] {
        let mut store = open(&url).unwrap();
        store.insert_metrics(&rows, &[]).unwrap();
        store.insert_metrics(&rows, &[]).unwrap();
        store.insert_metrics(&[], &[]).unwrap();
        store.check().unwrap();
    }
    assert_eq!(database.count(), 4);
    assert_eq!(database.number("SELECT (extract(epoch FROM min(time)) * 1000) FROM system_metrics"), 1_700_000_000_123);
    let payload: String = database
        .superuser()
        .query_one("SELECT payload::text FROM system_metrics WHERE metric_type = 'network'", &[])
        .unwrap()
        .get(0);
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(payload, rows[3].payload);
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_indexes WHERE tablename = 'system_metrics' AND indexdef LIKE '%brin%'"),
        1
    );
}

#[test]
fn views_have_typed_columns() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("views");
    let mut store = open(&database.url()).unwrap();
    store.insert_metrics(&sample("web", 1_700_000_000_000), &[]).unwrap();
    // The Go version wrote null where a collector failed.
    store.insert_metrics(&[row("web", 1, "disk", json!(null)), row("web", 1, "cpu", json!(null))], &[]).unwrap();
    let one = |sql: &str| -> Vec<f64> {
        let rows = database.superuser().query(sql, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(
        one("SELECT usage FROM metrics_cpu WHERE usage IS NOT NULL AND time = to_timestamp(1700000000)"),
        [12.5]
    );
    assert_eq!(one("SELECT celsius FROM metrics_cpu_core_temp WHERE core = 'core_1' AND host = 'web'"), [44.0]);
    assert_eq!(one("SELECT used_percent FROM metrics_memory"), [25.0]);
    assert_eq!(one("SELECT total FROM metrics_disk WHERE mount = '/srv/a \"b\".c'"), [5e12]);
    assert_eq!(one("SELECT rx_bytes FROM metrics_network WHERE interface = 'eth0'"), [7e9]);
    assert_eq!(database.number("SELECT count(*) FROM metrics_disk"), 2);
    assert_eq!(database.number("SELECT count(*) FROM metrics_disk WHERE free IS NULL"), 1, "a text is no number");
}

#[test]
fn every_kind_has_a_view() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("store_kinds");
    open(&database.url()).unwrap().insert_metrics(&more_kinds("web", 1_700_000_000_000), &[]).unwrap();
    for (sql, expected) in VIEW_QUERIES {
        let sql = format!("SELECT ({sql})::double precision");
        assert_eq!(database.superuser().query_one(&sql, &[]).unwrap().get::<_, f64>(0), *expected, "{sql}");
    }
}

#[test]
fn views_of_the_version_before_get_the_new_ones_whoever_may_make_them() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("old_views");
    drop(open(&database.url()).unwrap());
    let mut superuser = database.superuser();
    let views = superuser.query("SELECT viewname::text FROM pg_views WHERE viewname LIKE 'metrics\\_%'", &[]).unwrap();
    let first = ["metrics_cpu", "metrics_cpu_core_temp", "metrics_memory", "metrics_disk", "metrics_network"];
    for view in views.iter().map(|row| row.get::<_, String>(0)).filter(|view| !first.contains(&view.as_str())) {
        superuser.batch_execute(&format!("DROP VIEW {view}")).unwrap();
    }
    superuser
        .batch_execute(
            "DROP VIEW metrics_cpu; CREATE VIEW metrics_cpu AS SELECT time, host, os, 1::double precision AS usage, \
             1::double precision AS package_temp FROM system_metrics; ALTER VIEW metrics_cpu OWNER TO old_views; \
             UPDATE hub_schema SET version = 1 WHERE object = 'metric_views'; \
             CREATE TABLE metrics_load (mine int); REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
             ALTER SCHEMA public OWNER TO postgres; REVOKE ALL ON SCHEMA public FROM old_views",
        )
        .unwrap();
    // Who may make no views stores rows all the same.
    open(&database.url()).unwrap().insert_metrics(&more_kinds("web", 0), &[]).unwrap();
    assert_eq!(database.number("SELECT version FROM hub_schema WHERE object = 'metric_views'"), 1);
    superuser.batch_execute("GRANT CREATE ON SCHEMA public TO old_views").unwrap();
    open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
    assert_eq!(database.number("SELECT version FROM hub_schema WHERE object = 'metric_views'"), 3);
    assert_eq!(database.number("SELECT count(*) FROM metrics_cpu WHERE usage = 12.5 AND steal_percent IS NULL"), 1);
    assert_eq!(database.number("SELECT count(*) FROM metrics_pressure"), 2);
    assert_eq!(database.number("SELECT count(mine) FROM metrics_load"), 0, "somebody else's");
    // Old rows lack the kinds and keys that came later.
    let memory = "SELECT count(*) FROM metrics_memory WHERE used = 2e9 AND zfs_arc IS NULL";
    assert_eq!((database.number(memory), database.number("SELECT count(*) FROM metrics_unit")), (1, 0));
}

#[test]
fn a_view_of_somebody_else_is_left_alone() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("foreign_view");
    database
        .superuser()
        .batch_execute("CREATE VIEW metrics_cpu AS SELECT 1 AS mine; CREATE TABLE metrics_disk (a int)")
        .unwrap();
    open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
    assert_eq!(database.number("SELECT mine FROM metrics_cpu"), 1);
    assert_eq!(database.number("SELECT count(*) FROM metrics_disk"), 0);
    assert_eq!(database.number("SELECT count(*) FROM metrics_memory"), 1);
}

#[test]
fn a_refused_row_is_named_and_the_others_are_fine() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("refused");
    let mut store = open(&database.url()).unwrap();
    database.superuser().batch_execute("ALTER TABLE system_metrics ADD CHECK (os <> 'plan9')").unwrap();
    let fine = |n: i64| row("web", n, "cpu", json!({"n": n}));
    for bad in [
        row("web", 37, "cpu", json!({"text": "a\0b"})),
        MetricRow { os: "plan9".into(), ..fine(37) },
        // An index entry has at most about 2.7 kB, and this text does not shrink.
        row(
            &(0..3000u32).map(|n| char::from_u32(0x4e00 + n * 7 % 20000).unwrap()).collect::<String>(),
            37,
            "cpu",
            json!(1),
        ),
    ] {
        let mut rows: Vec<MetricRow> = (0..100).map(fine).collect();
        rows[37] = bad;
        let error = store.insert_metrics(&rows, &[]).unwrap_err();
        assert_eq!(error.is_row_refused(), Some(37), "{error}");
        assert_eq!(database.count(), 0, "all or none");
    }
    let mut rows: Vec<MetricRow> = (0..100).map(fine).collect();
    for index in [0, 99] {
        rows[index].os = "plan9".into();
    }
    assert_eq!(store.insert_metrics(&rows, &[]).unwrap_err().is_row_refused(), Some(0));
    rows.remove(0);
    assert_eq!(store.insert_metrics(&rows, &[]).unwrap_err().is_row_refused(), Some(98));
    rows.remove(98);
    store.insert_metrics(&rows, &[]).unwrap();
    assert_eq!(database.count(), 98);
}

#[test]
fn old_rows_go_in_batches() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("store_retention");
    let mut store = open(&database.url()).unwrap();
    database
        .superuser()
        .batch_execute(
            "INSERT INTO system_metrics SELECT now() - interval '40 days' - n * interval '1 second', 'old', 'linux', 'cpu', '{}' \
             FROM generate_series(1, 12000) AS n; \
             INSERT INTO system_metrics SELECT now() - n * interval '1 second', 'new', 'linux', 'cpu', '{}' FROM generate_series(1, 10) AS n",
        )
        .unwrap();
    assert_eq!(store.delete_old_metrics(0).unwrap() + store.delete_old_metrics(60).unwrap(), 0);
    // Another host is at it.
    let mut other = database.superuser();
    other.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({})", 0x6f62_735f_6875_6202_i64)).unwrap();
    assert_eq!(store.delete_old_metrics(30).unwrap(), 0);
    other.batch_execute("ROLLBACK").unwrap();
    let mut deleted = 0;
    let deadline = Instant::now() + support::PATIENCE;
    while deleted < 12000 && Instant::now() < deadline {
        deleted += store.delete_old_metrics(30).unwrap();
    }
    assert_eq!((deleted, database.count()), (12000, 10));
}

#[test]
fn old_rows_of_a_partitioned_table_go_by_their_time() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("partitioned");
    let table = GO_TABLE.replace("TIMESTAMPTZ(0)", "TIMESTAMPTZ") + " PARTITION BY RANGE (time)";
    database
        .superuser()
        .batch_execute(&format!(
            "SET ROLE partitioned; {table}; CREATE TABLE rest PARTITION OF system_metrics DEFAULT; \
             INSERT INTO system_metrics SELECT now() - n * interval '1 hour', 'old', 'linux', 'cpu', '{{}}' \
             FROM generate_series(1, 2400) AS n WHERE n NOT BETWEEN 701 AND 740"
        ))
        .unwrap();
    let config = configured(&database.url(), "[metrics]\nretention_days = 30\n");
    let mut store = Store::open(&config).unwrap();
    let mut deleted = 0;
    let deadline = Instant::now() + support::PATIENCE;
    while database.count() > 700 && Instant::now() < deadline {
        deleted += store.delete_old_metrics(30).unwrap();
    }
    assert_eq!((deleted, database.count()), (2400 - 740, 700));
    assert_eq!(store.delete_old_metrics(30).unwrap(), 0);
}

#[test]
fn tables_of_the_go_version_are_adopted_with_their_rows() {
    let Some(cluster) = shared() else { return };
    for (name, duplicates) in [("go_clean", false), ("go_duplicates", true)] {
        let database = cluster.database(name);
        let mut superuser = database.superuser();
        superuser.batch_execute(&format!("SET ROLE {name}; {GO_TABLE}")).unwrap();
        let times = if duplicates { 2 } else { 1 };
        for _ in 0..times {
            superuser
                .batch_execute(
                    "INSERT INTO system_metrics SELECT now() - n * interval '1 day', 'pi', 'linux', kind, 'null' \
                     FROM generate_series(1, 100) AS n, unnest(ARRAY['cpu', 'disk']) AS kind",
                )
                .unwrap();
        }
        let before = database.count();
        let mut store = open(&database.url()).unwrap();
        // The column keeps whole seconds, so .4 s and its replay are the same row.
        let rows: Vec<MetricRow> = [sample("pi", 1_700_000_000_400), sample("pi", 1_700_000_060_600)].concat();
        for _ in 0..3 {
            store.insert_metrics(&rows, &[]).unwrap();
            store.insert_metrics(&[rows.clone(), rows.clone()].concat(), &[]).unwrap();
        }
        assert_eq!(database.count(), before + 8, "{name}");
        let unique = database
            .number("SELECT count(*) FROM pg_indexes WHERE tablename = 'system_metrics' AND indexdef LIKE '%UNIQUE%'");
        assert_eq!(unique, i64::from(!duplicates));
        assert_eq!(store.delete_old_metrics(30).unwrap(), 0, "the hub did not make it");
        assert_eq!(database.count(), before + 8);
        drop(store);
        let mut store = Store::open(&configured(&database.url(), "[metrics]\nretention_days = 30\n")).unwrap();
        assert!(store.delete_old_metrics(30).unwrap() > 0);
        if duplicates {
            // The operator repairs the table; from then on the key does the work.
            superuser.batch_execute("DELETE FROM system_metrics a USING system_metrics b WHERE a.ctid < b.ctid AND (a.host, a.time, a.metric_type) = (b.host, b.time, b.metric_type)").unwrap();
            superuser.batch_execute("CREATE UNIQUE INDEX ON system_metrics (metric_type, host, time)").unwrap();
            let before = database.count();
            let mut store = open(&database.url()).unwrap();
            store.insert_metrics(&sample("key", 0), &[]).unwrap();
            store.insert_metrics(&sample("key", 400), &[]).unwrap();
            assert_eq!(database.count(), before + 4);
        }
    }
}

#[test]
fn a_go_table_whose_indexes_cannot_be_made_in_time_is_adopted_without_them() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("go_busy");
    database.superuser().batch_execute(&format!("SET ROLE go_busy; {GO_TABLE}")).unwrap();
    // A writer that does not end holds off CREATE INDEX, as a table of many millions of rows holds off its end.
    let mut writer = database.superuser();
    let mut writing = writer.transaction().unwrap();
    writing.batch_execute("LOCK TABLE system_metrics IN ROW EXCLUSIVE MODE").unwrap();
    let mut store = open(&database.url()).unwrap();
    store.insert_metrics(&sample("pi", 1_700_000_000_400), &[]).unwrap();
    store.insert_metrics(&sample("pi", 1_700_000_000_400), &[]).unwrap();
    assert_eq!(database.count(), 4);
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'system_metrics'";
    assert_eq!(database.number(indexes), 0);
    writing.commit().unwrap();
    // What the log says to run.
    writer
        .batch_execute(
            "CREATE UNIQUE INDEX CONCURRENTLY system_metrics_key ON system_metrics (host, time, metric_type)",
        )
        .unwrap();
    let mut store = open(&database.url()).unwrap();
    store.insert_metrics(&sample("pi", 1_700_000_000_400), &[]).unwrap();
    assert_eq!(database.count(), 4);
}

#[test]
fn a_role_without_rights_is_told_the_sql_to_run() {
    let Some(cluster) = shared() else { return };
    for adopted in [false, true] {
        let name = if adopted { "rightless_go" } else { "rightless" };
        let database = cluster.database(name);
        let mut superuser = database.superuser();
        superuser.batch_execute(&format!("ALTER DATABASE {name} OWNER TO postgres")).unwrap();
        if adopted {
            superuser.batch_execute(&format!("{GO_TABLE}; GRANT SELECT, INSERT ON system_metrics TO {name}")).unwrap();
        }
        let config = configured(&database.url(), "[[pipeline]]\nname = \"reading\"\n");
        let error = Store::open(&config).unwrap_err();
        assert!(!error.is_unavailable());
        let Error::Rights { remedy, .. } = &error else { panic!("{error}") };
        assert_eq!(remedy.contains(&format!("GRANT CREATE ON SCHEMA public TO \"{name}\"")), !adopted, "{remedy}");
        let (_, script) = remedy.split_once('\n').unwrap();
        superuser.batch_execute(script).unwrap();
        let mut store = Store::open(&config).unwrap();
        store.insert_metrics(&sample("web", 0), &[]).unwrap();
        store.check().unwrap();
        store.delete_old_metrics(1).unwrap();
        assert_eq!(database.count(), if adopted { 4 } else { 0 });
        superuser.batch_execute(&format!("REVOKE INSERT ON system_metrics FROM {name}")).unwrap();
        let error = store.insert_metrics(&sample("web", 1), &[]).unwrap_err();
        assert!(
            error.to_string().contains(&format!("TO \"{name}\"")) && matches!(error, Error::Rights { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_newer_schema_is_refused_only_when_it_says_so() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("newer");
    drop(open(&database.url()).unwrap());
    database.superuser().batch_execute("UPDATE hub_schema SET version = 9").unwrap();
    open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
    database.superuser().batch_execute("UPDATE hub_schema SET oldest = 9").unwrap();
    assert!(matches!(open(&database.url()), Err(Error::Newer { found: 9, .. })));
}

#[test]
fn pipelines_bring_their_tables_and_keep_those_of_the_go_version() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("pipelines");
    drop(open(&database.url()).unwrap());
    database
        .superuser()
        .batch_execute(
            "SET ROLE pipelines; CREATE SCHEMA lab; CREATE TABLE reading_analytics (id SERIAL PRIMARY KEY, mongo_id TEXT UNIQUE NOT NULL, \
             event_timestamp TIMESTAMPTZ, source TEXT, event_type TEXT, payload JSONB, meta JSONB, created_at TIMESTAMPTZ DEFAULT NOW()); \
             INSERT INTO reading_analytics (mongo_id) VALUES ('a')",
        )
        .unwrap();
    let pipelines = "[[pipeline]]\nname = \"reading\"\n[[pipeline]]\nname = \"other\"\ntable = \"lab.order\"\n";
    drop(Store::open(&configured(&database.url(), pipelines)).unwrap());
    drop(Store::open(&configured(&database.url(), pipelines)).unwrap());
    assert_eq!(database.number("SELECT count(*) FROM reading_analytics"), 1);
    assert_eq!(database.number("SELECT count(*) FROM lab.\"order\""), 0);
    assert_eq!(database.number("SELECT count(*) FROM dead_letters"), 0);
    assert_eq!(database.number("SELECT count(*) FROM hub_schema"), 7);
}

#[test]
fn first_starts_of_many_hosts_do_not_clash() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("first_starts");
    let config = configured(&database.url(), "[[pipeline]]\nname = \"reading\"\n");
    std::thread::scope(|scope| {
        for n in 0..20 {
            let config = &config;
            scope
                .spawn(move || Store::open(config).unwrap().insert_metrics(&sample(&format!("h{n}"), 0), &[]).unwrap());
        }
    });
    assert_eq!(database.count(), 80);
}

#[test]
fn all_rows_of_a_run_take_one_round_trip() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("roundtrip");
    drop(open(&database.url()).unwrap());
    let (relay, turns) = counting_relay(cluster.port);
    let turns = || turns.load(std::sync::atomic::Ordering::SeqCst);
    let mut store = open(&format!("postgres://roundtrip:geheim@127.0.0.1:{relay}/roundtrip?sslmode=disable")).unwrap();
    assert_eq!(turns(), 2, "a look at the catalogs and at the versions");
    let rows: Vec<MetricRow> = (0..20).flat_map(|n| sample("web", n)).collect();
    store.insert_metrics(&rows, &[]).unwrap();
    assert_eq!((turns(), database.count()), (3, 80));
}

/// Rows and an event are stored together, twice, and are there once.
#[track_caller]
fn with_an_event(store: &mut Store, database: &support::postgres::Database<'_>) {
    let event = EventRow {
        time: jiff::Timestamp::UNIX_EPOCH,
        host: "web".to_owned(),
        service: "proxy".to_owned(),
        kind: "started".to_owned(),
        about: String::new(),
        status: "started".to_owned(),
        reason: None,
        payload: json!({}),
    };
    for new in [vec![0], vec![]] {
        let shipped = store.insert_metrics(&sample("web", 0), std::slice::from_ref(&event)).unwrap();
        assert_eq!(shipped, Shipped { new, ..Shipped::default() });
    }
    assert_eq!((database.count(), database.number("SELECT count(*) FROM hub_events")), (4, 1));
}

/// A stand-in: Debian has no TimescaleDB. It has the functions and views that the hub uses, with TimescaleDB's
/// signatures, and writes down the calls; it proves the SQL that is chosen, not what TimescaleDB does with it.
#[test]
fn timescaledb_and_citus_get_their_own_sql() {
    let Some(cluster) = Cluster::start(&["allow_system_table_mods=on"]) else { return };
    let extension = |name: &str| {
        format!(
            "CREATE TABLE calls (call text); GRANT ALL ON calls TO PUBLIC; \
             INSERT INTO pg_extension SELECT 99999, '{name}', 10, oid, true, '2.0', NULL, NULL FROM pg_namespace WHERE nspname = 'public';"
        )
    };
    let database = cluster.database("timescale");
    database
        .superuser()
        .batch_execute(&(extension("timescaledb") + "
            CREATE SCHEMA timescaledb_information; GRANT USAGE ON SCHEMA timescaledb_information TO PUBLIC;
            CREATE TABLE timescaledb_information.hypertables (hypertable_schema name, hypertable_name name);
            CREATE TABLE timescaledb_information.jobs (proc_name name, hypertable_name name, config jsonb);
            GRANT ALL ON ALL TABLES IN SCHEMA timescaledb_information TO PUBLIC;
            CREATE FUNCTION create_hypertable(relation regclass, time_column_name name, chunk_time_interval anyelement) RETURNS void LANGUAGE sql AS
                $$ INSERT INTO timescaledb_information.hypertables VALUES ('public', 'system_metrics'); INSERT INTO calls VALUES (format('hypertable %s %s %s', $1, $2, $3)) $$;
            CREATE FUNCTION add_compression_policy(hypertable regclass, compress_after interval) RETURNS void LANGUAGE sql AS
                $$ INSERT INTO calls VALUES (format('compress %s', $2)) $$;
            CREATE FUNCTION remove_retention_policy(relation regclass, if_exists boolean) RETURNS void LANGUAGE sql AS
                $$ DELETE FROM timescaledb_information.jobs $$;
            CREATE FUNCTION add_retention_policy(relation regclass, drop_after interval) RETURNS void LANGUAGE sql AS
                $$ INSERT INTO timescaledb_information.jobs VALUES ('policy_retention', 'system_metrics', jsonb_build_object('drop_after', $2)); INSERT INTO calls VALUES (format('retention %s', $2)) $$;
            CREATE FUNCTION drop_chunks(relation regclass, older_than interval) RETURNS SETOF text LANGUAGE sql AS
                $$ INSERT INTO calls VALUES (format('drop %s', $2)); SELECT 'chunk' $$"))
        .unwrap();
    let mut store = open(&database.url()).unwrap();
    with_an_event(&mut store, &database);
    for days in [30, 30, 7] {
        assert_eq!(store.delete_old_metrics(days).unwrap(), 0);
    }
    // As the Apache edition answers.
    database
        .superuser()
        .batch_execute(
            "CREATE OR REPLACE FUNCTION add_retention_policy(relation regclass, drop_after interval) RETURNS void LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'functionality not supported under the current license' USING ERRCODE = '0A000'; END $$",
        )
        .unwrap();
    drop(store);
    open(&database.url()).unwrap().delete_old_metrics(5).unwrap();
    let calls: Vec<String> =
        database.superuser().query("SELECT call FROM calls", &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let expected = [
        "hypertable system_metrics time 7 days",
        "compress 14 days",
        "retention 30 days",
        "retention 7 days",
        "drop 5 days",
    ];
    assert_eq!(calls, expected);
    assert_eq!(database.count(), 4, "rows are for chunks to drop");

    let database = cluster.database("citus");
    database
        .superuser()
        .batch_execute(&(extension("citus") + "
            CREATE FUNCTION create_distributed_table(table_name regclass, distribution_column text) RETURNS void LANGUAGE sql AS
                $$ INSERT INTO calls VALUES (format('distribute %s %s', $1, $2)) $$"))
        .unwrap();
    let mut store = open(&database.url()).unwrap();
    with_an_event(&mut store, &database);
    assert_eq!(store.delete_old_metrics(30).unwrap(), 4);
    assert_eq!(database.number("SELECT count(*) FROM calls WHERE call = 'distribute system_metrics host'"), 1);
}

#[test]
fn what_somebody_dropped_is_made_again_and_is_the_hub_s() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("dropped");
    let mut superuser = database.superuser();
    // A table that the hub adopted, and its own one after it.
    superuser
        .batch_execute(
            "CREATE TABLE system_metrics (time TIMESTAMPTZ NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL, \
             metric_type TEXT NOT NULL, payload JSONB NOT NULL); ALTER TABLE system_metrics OWNER TO dropped",
        )
        .unwrap();
    drop(open(&database.url()).unwrap());
    assert_eq!(database.number("SELECT count(*) FROM hub_schema WHERE adopted"), 1);
    for _ in 0..2 {
        superuser.batch_execute("DROP TABLE system_metrics CASCADE").unwrap();
        open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
        assert_eq!(database.number("SELECT count(*) FROM metrics_disk"), 2, "its views went with it");
        assert_eq!(database.number("SELECT count(*) FROM hub_schema WHERE adopted"), 0);
    }
}

#[test]
fn parts_that_somebody_dropped_are_made_again_and_named() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("parts");
    let config = configured(&database.url(), "[[pipeline]]\nname = \"reading\"\nsource = \"file:/srv/inbox\"\n");
    let mut superuser = database.superuser();
    assert_eq!(Store::open(&config).unwrap().notes(), [""; 0]);
    for (drop, name, note) in [
        ("DROP VIEW metrics_cpu", "metrics_cpu", "views of metrics"),
        ("DROP VIEW metrics_fan, metrics_load", "metrics_load", "views of metrics"),
        ("DROP INDEX system_metrics_key", "system_metrics_key", "unique key of system_metrics"),
        ("DROP TABLE dead_letters", "dead_letters", "dead_letters"),
        ("DROP TABLE reading_analytics", "reading_analytics", "reading_analytics"),
    ] {
        superuser.batch_execute(drop).unwrap();
        let mut store = Store::open(&config).unwrap();
        assert!(
            store.notes().iter().any(|said| said.contains(note) && said.contains("made again")),
            "{:?}",
            store.notes()
        );
        store.insert_metrics(&sample("web", 0), &[]).unwrap();
        store.insert_metrics(&sample("web", 0), &[]).unwrap();
        assert_eq!(database.number(&format!("SELECT count(*) FROM pg_class WHERE oid = to_regclass('{name}')")), 1);
        assert_eq!((database.count(), Store::open(&config).unwrap().notes().len()), (4, 0), "{name}");
    }
    superuser.batch_execute("DROP VIEW metrics_fan; CREATE TABLE metrics_fan (mine int)").unwrap();
    assert_eq!(Store::open(&config).unwrap().notes(), [""; 0], "somebody else's is left alone");
    // A role that owns nothing goes on without what it may not make.
    superuser
        .batch_execute(
            "DROP VIEW metrics_cpu; DROP INDEX system_metrics_key; ALTER TABLE system_metrics OWNER TO postgres; \
             GRANT ALL ON system_metrics TO parts; REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER SCHEMA public OWNER TO postgres",
        )
        .unwrap();
    for time in [1, 1, 2] {
        Store::open(&config).unwrap().insert_metrics(&sample("web", time), &[]).unwrap();
    }
    assert_eq!(database.count(), 12);
}
