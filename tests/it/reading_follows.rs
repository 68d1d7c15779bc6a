//! What an operator and whoever reads the tables get: dead letters, retention, indexes, old tables, refusals of a table.
#![cfg(all(feature = "postgres", feature = "sqlite"))]

use crate::support;
use crate::support::reading::{Site, file_pipeline, line, names, publish};
use rusqlite::Connection;
use serde_json::json;

fn site(url: &str, more: &str) -> Site {
    Site::new(|host| format!("[database]\nurl = \"{url}\"\n{}", file_pipeline(host, more)))
}

fn database(site: &Site) -> Connection {
    Connection::open(site.host.state().join("data/hub.db")).unwrap()
}

fn number(site: &Site, sql: &str) -> i64 {
    database(site).query_row(sql, [], |row| row.get(0)).unwrap()
}

fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn lines(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.map(line).collect::<String>().into_bytes()
}

#[test]
fn a_table_that_refuses_everything_stops_the_run_and_takes_nothing() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("alike");
    let postgres = site(&database.url(), "");
    postgres.synced("reading");
    database.superuser().batch_execute("ALTER TABLE reading_analytics ADD COLUMN site TEXT NOT NULL").unwrap();
    let sqlite = site("sqlite:hub.db", "");
    sqlite.synced("reading");
    let rule =
        "CREATE TRIGGER rule BEFORE INSERT ON reading_analytics BEGIN SELECT RAISE(ABORT, 'no site is given'); END";
    self::database(&sqlite).execute_batch(rule).unwrap();
    for (site, said) in [(&postgres, "column \"site\""), (&sqlite, "no site is given")] {
        // The first file ends among the first thousand refusals.
        publish(&site.host, "a.jsonl", &lines(0..700));
        publish(&site.host, "b.jsonl", &lines(700..20_000));
        let answer = site.sync("reading");
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["side"], &body["dead_letters"]),
            (502, &json!("database"), &json!(0)),
            "{body}"
        );
        assert!(body["reason"].as_str().unwrap().contains(said), "{body}");
        assert_eq!(names(&site.host, "."), ["a.jsonl", "b.jsonl", "processed"]);
    }
    let count = "SELECT (SELECT count(*) FROM dead_letters) + (SELECT count(*) FROM reading_analytics)";
    assert_eq!((database.number(count), number(&sqlite, count)), (0, 0));
    database.superuser().batch_execute("ALTER TABLE reading_analytics ALTER COLUMN site SET DEFAULT 'here'").unwrap();
    self::database(&sqlite).execute_batch("DROP TRIGGER rule").unwrap();
    assert_eq!(
        (&postgres.synced("reading")["stored"], &sqlite.synced("reading")["stored"]),
        (&json!(20_000), &json!(20_000))
    );
}

#[test]
fn refusals_with_rows_between_them_or_fewer_than_a_thousand_are_dead_letters() {
    let site = site("sqlite:hub.db", "");
    site.synced("reading");
    let rule = "CREATE TRIGGER rule BEFORE INSERT ON reading_analytics WHEN NEW.source <> 'agent-1' \
                BEGIN SELECT RAISE(ABORT, 'only agent 1'); END";
    database(&site).execute_batch(rule).unwrap();
    publish(&site.host, "a.jsonl", &lines(0..2100));
    let result = site.synced("reading");
    assert_eq!((&result["stored"], &result["dead_letters"]), (&json!(300), &json!(1800)), "{result}");
    publish(&site.host, "b.jsonl", format!("{}\n", json!({"_id": 1, "source": "x"})).repeat(999).as_bytes());
    assert_eq!(site.synced("reading")["dead_letters"], 1, "one document, sent often");
}

#[test]
fn dead_letters_say_where_they_are_from_and_go_together() {
    let site = site("sqlite:hub.db", "");
    publish(
        &site.host,
        "day 1.jsonl",
        b"{\"_id\":1}\nnot JSON\n{\"_id\":\"x\",\"payload\":{\"$oid\":5}}\n{\"a\":tru}\n{\"_id\":2,}\n",
    );
    assert_eq!(site.synced("reading")["dead_letters"], 4);
    let list = site.hub(&["dead-letters", "list"]);
    for said in [
        "day 1.jsonl, line 2  8 bytes",
        "no value of JSON begins like this: \"not JSON\" (column 1)",
        "day 1.jsonl, line 3",
        "$oid takes 24 hex digits",
        "\"tru}\" (column 6)",
        "day 1.jsonl, line 5",
        "a comma before the end of an object or list",
    ] {
        assert!(list.contains(said), "{said}\n{list}");
    }
    assert!(!list.contains("sha256") && !list.contains("expected ident"), "{list}");
    assert!(site.hub(&["dead-letters", "show", "1"]).contains("place         day 1.jsonl:2\n"));
    assert_eq!(site.hub(&["dead-letters", "retry", "1", "3"]).trim(), "0 stored, 2 still dead letters.");
    let refused = site.host.run("hub", &["dead-letters", "drop"]);
    assert_eq!(refused.status.code(), Some(2), "nothing is dropped by mistake");
    let refused = site.host.run("hub", &["dead-letters", "drop", "1", "99"]);
    assert_eq!((refused.status.code(), number(&site, "SELECT count(*) FROM dead_letters")), (Some(2), 4));
    assert_eq!(site.hub(&["dead-letters", "drop", "1", "3"]).trim(), "Dropped 2 dead letters.");
    assert_eq!(site.hub(&["dead-letters", "drop", "--all", "--pipeline", "reading"]).trim(), "Dropped 2 dead letters.");
    assert_eq!(site.hub(&["dead-letters"]).trim(), "No dead letters.");
}

#[test]
fn dead_letters_of_a_renamed_pipeline_are_seen_and_moved() {
    let site = site("sqlite:hub.db", "json = \"extended\"");
    publish(&site.host, "a.jsonl", b"{\"_id\":1,\"payload\":\"a\\u0000\"}\n{\"_id\":2,\"payload\":\"\\ud800\"}\n");
    assert_eq!(site.synced("reading")["dead_letters"], 2);
    let renamed = file_pipeline(&site.host, "table = \"other\"").replace("name = \"reading\"", "name = \"sensors\"");
    site.host.configure(&format!("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[database]\nurl = \"sqlite:hub.db\"\n{renamed}"));
    let site = site.again(|_| {});
    site.synced("sensors");
    let status = String::from_utf8_lossy(&site.host.run("hub", &["status"]).stdout).into_owned();
    assert!(status.contains("reading (not configured): 2") && status.contains("hub.toml has no such"), "{status}");
    let list = site.hub(&["dead-letters"]);
    assert!(list.contains("reading (not configured)") && list.contains("retry --as NAME"), "{list}");
    assert_eq!(site.hub(&["dead-letters", "--pipeline", "reading", "list"]).lines().count(), 3);
    let retried = site.hub(&["dead-letters", "retry"]);
    assert!(
        retried.contains("0 stored, 0 still") && retried.contains("2 dead letters of reading, which is not configured"),
        "{retried}"
    );
    assert_eq!(site.host.run("hub", &["dead-letters", "retry", "--as", "nobody"]).status.code(), Some(2));
    let moved = site.hub(&["dead-letters", "retry", "--all", "--pipeline", "reading", "--as", "sensors"]);
    assert_eq!(moved.trim(), "1 stored, 1 still dead letters.");
    assert_eq!(number(&site, "SELECT count(*) FROM other"), 1);
    assert_eq!(number(&site, "SELECT count(*) FROM dead_letters WHERE pipeline = 'sensors'"), 1);
}

#[test]
fn readers_of_the_table_get_indexes_times_and_what_has_changed() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("follow");
    let (postgres, sqlite) = (site(&database.url(), ""), site("sqlite:hub.db", ""));
    for site in [&postgres, &sqlite] {
        publish(
            &site.host,
            "a.jsonl",
            b"{\"_id\":\"a b\",\"timestamp\":1767528000.25,\"payload\":1}\n{\"_id\":5,\"payload\":2}\n",
        );
        site.synced("reading");
        // A clock of milliseconds has to go on.
        std::thread::sleep(std::time::Duration::from_millis(10));
        publish(&site.host, "b.jsonl", b"{\"_id\":5.0,\"payload\":3}\n");
        assert_eq!(site.synced("reading")["stored"], 1);
    }
    let changed = "SELECT count(*) FROM reading_analytics WHERE source_id = '5' AND updated_at > created_at";
    let same = "SELECT count(*) FROM reading_analytics WHERE source_id = 'a b' AND updated_at - created_at < ";
    assert_eq!((database.number(changed), number(&sqlite, changed)), (1, 1));
    assert_eq!(database.number(&format!("{same} interval '1 second'")), 1);
    assert_eq!(number(&sqlite, &format!("{same} 1000")), 1);
    let indexes = "SELECT count(*) FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] \
                   WHERE indrelid = 'reading_analytics'::regclass AND attname IN ('event_timestamp', 'updated_at', 'source_id')";
    assert_eq!(database.number(indexes), 3);
    let of_sqlite = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'reading_analytics' \
                     AND sql LIKE 'CREATE INDEX%'";
    assert_eq!(number(&sqlite, of_sqlite), 3);
    let times = texts(
        &self::database(&sqlite),
        "SELECT datetime(event_timestamp) || ' ' || event_timestamp FROM reading_analytics_view WHERE event_timestamp IS NOT NULL",
    );
    assert_eq!(times, ["2026-01-04 12:00:00 2026-01-04 12:00:00.250"]);
    let today =
        "SELECT count(*) FROM reading_analytics_view WHERE date(created_at) = date('now') AND updated_at IS NOT NULL";
    assert!(number(&sqlite, today) > 0);
}

#[test]
fn rows_are_kept_for_as_long_as_the_pipeline_says() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("retention");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let day = |days: i64| now - days * 86_400;
    for url in [database.url(), "sqlite:hub.db".to_owned()] {
        let site = site(&url, "retention_days = 7");
        let content: String = [0, 6, 8, 400]
            .into_iter()
            .map(|days| format!("{}\n", json!({"_id": days, "timestamp": day(days), "payload": 1})))
            .collect();
        publish(&site.host, "a.jsonl", format!("{content}{{\"_id\":\"no time\",\"payload\":1}}\n").as_bytes());
        let result = site.synced("reading");
        assert_eq!((&result["stored"], &result["expired"]), (&json!(5), &json!(2)), "{result}");
        let left = "SELECT count(*) FROM reading_analytics WHERE source_id IN ('0', '6', 'no time')";
        let left = if url.starts_with("sqlite") { number(&site, left) } else { database.number(left) };
        assert_eq!(left, 3);
        assert_eq!(site.synced("reading")["expired"], json!(null));
    }
}

#[test]
fn tables_of_before_keep_their_keys_and_get_what_is_new() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("before");
    // One of the Go version, and what version 1 of the hub had made beside it.
    database
        .superuser()
        .batch_execute(
            "SET ROLE before; CREATE TABLE reading_analytics (id SERIAL PRIMARY KEY, mongo_id TEXT UNIQUE NOT NULL, \
             event_timestamp TIMESTAMPTZ, source TEXT, event_type TEXT, payload JSONB, meta JSONB, created_at TIMESTAMPTZ); \
             CREATE TABLE dead_letters (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, pipeline TEXT NOT NULL, \
             source_id TEXT NOT NULL, reason TEXT NOT NULL, document BYTEA NOT NULL, attempts INTEGER NOT NULL DEFAULT 1, \
             first_failed TIMESTAMPTZ NOT NULL DEFAULT now(), last_failed TIMESTAMPTZ NOT NULL DEFAULT now(), \
             UNIQUE (pipeline, source_id)); \
             INSERT INTO reading_analytics (mongo_id, payload) VALUES ('{\"$numberInt\":\"5\"}', '1'); \
             INSERT INTO dead_letters (pipeline, source_id, reason, document) VALUES ('reading', 'x', 'why', 'x')",
        )
        .unwrap();
    let postgres = site(&database.url(), "");
    let sqlite = site("sqlite:hub.db", "");
    sqlite.synced("reading");
    self::database(&sqlite)
        .execute_batch(
            "DROP VIEW reading_analytics_view; DROP TABLE reading_analytics; DROP TABLE dead_letters;
             CREATE TABLE reading_analytics (id INTEGER PRIMARY KEY, mongo_id TEXT NOT NULL UNIQUE, event_timestamp INTEGER,
             source TEXT, event_type TEXT, payload TEXT CHECK (json_valid(payload)), meta TEXT CHECK (json_valid(meta)),
             created_at INTEGER NOT NULL DEFAULT 0) STRICT;
             CREATE TABLE dead_letters (id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL, source_id TEXT NOT NULL,
             reason TEXT NOT NULL, document BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 1,
             first_failed INTEGER NOT NULL DEFAULT 0, last_failed INTEGER NOT NULL DEFAULT 0, UNIQUE (pipeline, source_id)) STRICT;
             UPDATE hub_schema SET version = 1, oldest = 1 WHERE object IN ('reading_analytics', 'dead_letters');
             INSERT INTO reading_analytics (mongo_id, payload) VALUES ('{\"$numberInt\":\"5\"}', '1');
             INSERT INTO dead_letters (pipeline, source_id, reason, document) VALUES ('reading', 'x', 'why', CAST('x' AS BLOB))",
        )
        .unwrap();
    let keys = "SELECT count(*) FROM reading_analytics WHERE source_id = '5' AND updated_at IS NOT NULL";
    for site in [&postgres, &sqlite] {
        publish(&site.host, "a.jsonl", b"{\"_id\":5,\"payload\":1}\n{\"_id\":5.0,\"payload\":1}\n{\"_id\":{\"$numberLong\":\"5\"},\"payload\":1}\nx\n");
        let result = site.synced("reading");
        assert_eq!((&result["stored"], &result["dead_letters"]), (&json!(3), &json!(1)), "{result}");
        let list = site.hub(&["dead-letters"]);
        assert!(list.contains("  x  1 bytes") && list.contains("a.jsonl, line 4"), "{list}");
    }
    assert_eq!((database.number(keys), number(&sqlite, keys)), (3, 3), "every type has its own key, as before");
    assert_eq!(database.number("SELECT count(*) FROM reading_analytics"), 3);
}

#[test]
fn a_table_of_somebody_else_is_used_as_it_is_until_its_owner_changes_it() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("owned");
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE reading_analytics (id SERIAL PRIMARY KEY, mongo_id TEXT UNIQUE NOT NULL, \
             event_timestamp TIMESTAMPTZ, source TEXT, event_type TEXT, payload JSONB, meta JSONB, created_at TIMESTAMPTZ); \
             GRANT SELECT, INSERT, UPDATE, DELETE ON reading_analytics TO owned; \
             GRANT USAGE ON SEQUENCE reading_analytics_id_seq TO owned; GRANT CREATE ON SCHEMA public TO owned",
        )
        .unwrap();
    let host = support::Host::new();
    let rest = file_pipeline(&host, "");
    host.configure(&format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[database]\nurl = \"{}\"\n{rest}",
        database.url()
    ));
    let log = host.path("log");
    let site = Site::on(host, |command| {
        command.stderr(std::fs::File::create(&log).unwrap());
    });
    publish(&site.host, "a.jsonl", &lines(0..5));
    assert_eq!(site.synced("reading")["stored"], 5);
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("ADD COLUMN IF NOT EXISTS source_id TEXT"), "{said}");
    let mut superuser = database.superuser();
    superuser.batch_execute("ALTER TABLE reading_analytics ADD COLUMN IF NOT EXISTS source_id TEXT, ADD COLUMN IF NOT EXISTS updated_at TIMESTAMPTZ").unwrap();
    publish(&site.host, "b.jsonl", &lines(5..9));
    assert_eq!(site.synced("reading")["stored"], 4);
    assert_eq!(
        database.number("SELECT count(*) FROM reading_analytics WHERE source_id = mongo_id AND updated_at IS NOT NULL"),
        4
    );
}
