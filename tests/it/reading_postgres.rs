//! What the owner of a PostgreSQL server may have put around the tables: policies, rights, partitions, triggers, encodings,
//! types, and settings that refuse.
#![cfg(feature = "postgres")]

use std::time::{Duration, Instant};

use crate::support::postgres::{Cluster, Database, configured, open, shared};
use crate::support::reading::{Site, file_pipeline, line, names, publish};
use crate::support::rows::sample;
use observability_hub::store::{Error, Store};
use serde_json::json;

/// What the Go version ran.
const GO_TABLE: &str = "CREATE TABLE reading_analytics (id SERIAL PRIMARY KEY, mongo_id TEXT UNIQUE NOT NULL, \
     event_timestamp TIMESTAMPTZ, source TEXT, event_type TEXT, payload JSONB, meta JSONB, created_at TIMESTAMPTZ DEFAULT NOW())";

fn site(database: &Database<'_>, more: &str) -> Site {
    Site::new(|host| format!("[database]\nurl = \"{}\"\n{}", database.url(), file_pipeline(host, more)))
}

/// A run that the database must stop, with no document lost; why it stopped.
fn stopped(site: &Site, database: &Database<'_>, says: &str) -> String {
    let started = Instant::now();
    let answer = site.sync("reading");
    let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!((answer.status, &answer.json()["side"]), (502, &json!("database")), "{reason}");
    assert!(reason.contains(says), "{says}: {reason}");
    assert!(started.elapsed() < Duration::from_secs(20), "what never comes is not waited for: {:?}", started.elapsed());
    assert!(!names(&site.host, ".").iter().all(|name| name == "processed"), "the file waits");
    assert_eq!(database.number("SELECT count(*) FROM dead_letters"), 0, "{reason}");
    reason
}

fn document(id: &str, source: &str) -> String {
    format!("{}\n", json!({"_id": id, "source": source, "timestamp": "2026-01-04T12:00:00Z", "payload": {"a": 1}}))
}

#[test]
fn a_policy_refuses_single_rows_and_where_there_is_none_it_is_named() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("policies");
    let (site, mut superuser) = (site(&database, ""), database.superuser());
    site.synced("reading");
    let force = |table: &str| format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;");
    superuser.batch_execute(&force("reading_analytics")).unwrap();
    publish(&site.host, "a.jsonl", [document("1", "good"), document("2", "evil")].concat().as_bytes());
    stopped(&site, &database, "CREATE POLICY observability_hub ON \"reading_analytics\" TO \"policies\"");
    let policy = "CREATE POLICY good ON reading_analytics USING (true) WITH CHECK (source <> 'evil')";
    superuser.batch_execute(policy).unwrap();
    let result = site.synced("reading");
    assert_eq!((&result["stored"], &result["dead_letters"]), (&json!(1), &json!(1)), "{result}");
    assert!(site.hub(&["dead-letters"]).contains("row-level security"));

    // The table of dead letters has its own.
    superuser.batch_execute(&format!("DELETE FROM dead_letters; {}", force("dead_letters"))).unwrap();
    publish(&site.host, "b.jsonl", document("3", "evil").as_bytes());
    stopped(&site, &database, "CREATE POLICY observability_hub ON \"dead_letters\"");
    // And that of metrics.
    superuser.batch_execute(&force("system_metrics")).unwrap();
    let error = open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap_err();
    assert!(matches!(&error, Error::Rights { remedy, .. } if remedy.contains("CREATE POLICY")), "{error}");
    superuser.batch_execute("CREATE POLICY web ON system_metrics USING (true) WITH CHECK (host = 'web')").unwrap();
    open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
    let error = open(&database.url()).unwrap().insert_metrics(&sample("other", 0), &[]).unwrap_err();
    assert_eq!(error.is_row_refused(), Some(0), "{error}");
}

#[test]
fn the_rights_that_are_missing_are_granted_by_what_is_printed() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("sequences");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!("{GO_TABLE}; GRANT SELECT, INSERT, UPDATE, DELETE ON reading_analytics TO sequences"))
        .unwrap();
    let site = site(&database, "");
    publish(&site.host, "a.jsonl", line(1).as_bytes());
    let grant = "GRANT USAGE ON SEQUENCE reading_analytics_id_seq TO \"sequences\";";
    let reason = stopped(&site, &database, grant);
    superuser.batch_execute("REVOKE INSERT, UPDATE ON reading_analytics FROM sequences").unwrap();
    let both = stopped(&site, &database, "GRANT INSERT, UPDATE ON \"reading_analytics\" TO \"sequences\";");
    assert!(both.contains(grant) && !reason.contains("GRANT INSERT"), "{both}");
    superuser.batch_execute(both.split_once("run: ").unwrap().1).unwrap();
    assert_eq!(site.synced("reading")["stored"], 1);
}

#[test]
fn a_partitioned_table_is_named_unless_its_key_can_be_used() {
    let Some(cluster) = shared() else { return };
    let columns = "mongo_id TEXT NOT NULL, event_timestamp TIMESTAMPTZ, source TEXT, event_type TEXT, payload JSONB, meta JSONB, \
                   created_at TIMESTAMPTZ NOT NULL DEFAULT now()";
    let database = cluster.database("by_range");
    let table = format!(
        "SET ROLE by_range; CREATE TABLE reading_analytics ({columns}, UNIQUE (mongo_id, created_at)) PARTITION BY RANGE \
         (created_at); CREATE TABLE rest PARTITION OF reading_analytics DEFAULT"
    );
    database.superuser().batch_execute(&table).unwrap();
    let by_range = site(&database, "");
    publish(&by_range.host, "a.jsonl", line(1).as_bytes());
    stopped(&by_range, &database, "a partitioned table cannot be used");

    // By hash of the key it can be; what is old goes, and nothing that only lies in the same place of another partition.
    for (name, table) in [
        (
            "by_hash",
            format!(
                "CREATE TABLE reading_analytics ({columns}, UNIQUE (mongo_id)) PARTITION BY HASH (mongo_id); \
                 CREATE TABLE one PARTITION OF reading_analytics FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
                 CREATE TABLE two PARTITION OF reading_analytics FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
            ),
        ),
        (
            "inherited",
            format!(
                "CREATE TABLE reading_analytics ({columns}, UNIQUE (mongo_id)); CREATE TABLE one () INHERITS (reading_analytics); \
                 INSERT INTO one SELECT 'child' || n, now(), '', '', '{{}}' FROM generate_series(1, 200) AS n"
            ),
        ),
    ] {
        let database = cluster.database(name);
        database.superuser().batch_execute(&format!("SET ROLE {name}; {table}")).unwrap();
        let site = site(&database, "retention_days = 30");
        let before = database.number("SELECT count(*) FROM reading_analytics");
        let new = jiff::Timestamp::now().to_string();
        let lines = (0..200).map(|n| {
            let time = if n % 3 == 0 { "2020-01-01T00:00:00Z" } else { &new };
            format!("{}\n", json!({"_id": format!("{n}"), "timestamp": time, "payload": n}))
        });
        publish(&site.host, "a.jsonl", lines.collect::<String>().as_bytes());
        let result = site.synced("reading");
        assert_eq!((&result["stored"], &result["expired"]), (&json!(200), &json!(67)), "{name}: {result}");
        assert_eq!(database.number("SELECT count(*) FROM reading_analytics"), before + 133, "{name}");
        assert_eq!(database.number("SELECT count(*) FROM reading_analytics WHERE event_timestamp < '2021-01-01'"), 0);
    }
}

#[test]
fn what_a_trigger_leaves_out_is_a_dead_letter_and_no_success() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("triggers");
    let (site, mut superuser) = (site(&database, ""), database.superuser());
    site.synced("reading");
    let trigger = |name: &str, table: &str, when: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {when} THEN RETURN NULL; END IF; RETURN NEW; \
             END $$; CREATE TRIGGER {name} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {name}();"
        )
    };
    superuser.batch_execute(&trigger("quiet", "reading_analytics", "NEW.source = 'quiet'")).unwrap();
    for _ in 0..2 {
        let documents = [document("1", "good"), document("2", "quiet"), document("3", "good"), document("4", "quiet")];
        publish(&site.host, "a.jsonl", documents.concat().as_bytes());
        let result = site.synced("reading");
        assert_eq!(&result["dead_letters"], &json!(2), "{result}");
        assert_eq!(database.number("SELECT count(*) FROM reading_analytics"), 2);
        assert_eq!(database.number("SELECT count(*) FROM dead_letters WHERE reason LIKE '%a trigger leaves%'"), 2);
    }
    // The place of last resort must not lose them either.
    superuser
        .batch_execute(&format!("DELETE FROM dead_letters; {}", trigger("takes_nothing", "dead_letters", "true")))
        .unwrap();
    publish(&site.host, "b.jsonl", document("5", "quiet").as_bytes());
    stopped(&site, &database, "table dead_letters did not take a row");
}

#[test]
fn a_database_that_lacks_characters_takes_the_rest() {
    let Some(cluster) = shared() else { return };
    for (encoding, lacks) in [("LATIN1", "€"), ("LATIN2", "ж")] {
        let name = encoding.to_lowercase();
        let database = Database { cluster: &cluster, name: name.clone() };
        let mut superuser = cluster.superuser("postgres");
        superuser.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'geheim'")).unwrap();
        superuser
            .batch_execute(&format!("CREATE DATABASE {name} OWNER {name} ENCODING '{encoding}' TEMPLATE template0"))
            .unwrap();
        let site = site(&database, "");
        for _ in 0..2 {
            let documents =
                [document("plain", "é"), document("é", "x"), document(&format!("{lacks}1"), "x"), document("2", lacks)];
            publish(&site.host, &format!("{lacks}.jsonl"), documents.concat().as_bytes());
            publish(&site.host, "behind.jsonl", line(1).as_bytes());
            let result = site.synced("reading");
            assert_eq!(&result["dead_letters"], &json!(2), "{result}");
            assert_eq!(names(&site.host, "."), ["processed"], "nothing stands behind it");
        }
        assert_eq!(database.number("SELECT count(*) FROM reading_analytics"), 3);
        let escape = format!("\\u{{{:x}}}", u32::from(lacks.chars().next().unwrap()));
        let sql =
            format!("SELECT count(*) FROM dead_letters WHERE attempts = 2 AND strpos(source_id, '{escape}1') > 0");
        assert_eq!(database.number(&sql), 1);
        let doctor = site.host.run("hub", &["doctor", "--json"]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains(&format!("the encoding {encoding}")));
        let list = site.hub(&["dead-letters"]);
        assert!(list.contains(&format!("{lacks}1")) && list.contains("22P05"), "{list}");
        assert!(site.hub(&["dead-letters", "retry"]).contains('2'));
        assert_eq!(database.number("SELECT count(*) FROM dead_letters"), 2, "the same two");
    }
}

#[test]
fn columns_without_a_time_zone_are_in_utc() {
    let Some(cluster) = Cluster::start(&["timezone=Asia/Tokyo"]) else { return };
    let database = cluster.database("zones");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!(
            "SET ROLE zones; {}; CREATE TABLE system_metrics (time TIMESTAMP NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL, \
             metric_type TEXT NOT NULL, payload JSONB NOT NULL)",
            GO_TABLE.replace("TIMESTAMPTZ", "TIMESTAMP")
        ))
        .unwrap();
    let site = site(&database, "retention_days = 30");
    let now = jiff::Timestamp::now().as_millisecond();
    let fresh = jiff::Timestamp::from_millisecond(now - (30 * 24 * 60 - 60) * 60_000).unwrap();
    let documents = [json!({"_id": "now", "timestamp": fresh.to_string(), "payload": 1}), json!({"_id": "none"})];
    for stored in [2, 0] {
        publish(&site.host, "a.jsonl", documents.clone().map(|document| format!("{document}\n")).concat().as_bytes());
        let result = site.synced("reading");
        assert_eq!(
            (&result["stored"], &result["expired"]),
            (&json!(stored), &json!(null)),
            "an hour is left: {result}"
        );
    }
    let sql = "SELECT count(*) FROM reading_analytics WHERE created_at BETWEEN (now() AT TIME ZONE 'UTC') - interval '5 minutes' \
               AND (now() AT TIME ZONE 'UTC') AND updated_at <= now()";
    assert_eq!(database.number(sql), 2);
    let millis = |sql: &str| database.number(&format!("SELECT extract(epoch FROM ({sql})) * 1000"));
    assert_eq!(
        millis("SELECT event_timestamp FROM reading_analytics WHERE mongo_id LIKE '%now%'"),
        fresh.as_millisecond()
    );

    let config = configured(&database.url(), "[metrics]\nretention_days = 1\n");
    let mut store = Store::open(&config).unwrap();
    for _ in 0..2 {
        store.insert_metrics(&sample("web", now - 23 * 3_600_000), &[]).unwrap();
    }
    assert_eq!((database.count(), millis("SELECT min(time) FROM system_metrics")), (4, now - 23 * 3_600_000));
    assert_eq!((store.delete_old_metrics(1).unwrap(), database.count()), (0, 4));
    store.insert_metrics(&sample("old", now - 25 * 3_600_000), &[]).unwrap();
    assert_eq!((store.delete_old_metrics(1).unwrap(), database.count()), (4, 4));
}

#[test]
fn what_never_comes_is_not_waited_for() {
    let Some(cluster) = shared() else { return };
    // Class 55: a view that takes no rows, and a table that is published without an identity.
    let database = cluster.database("views_only");
    let (mut superuser, columns) =
        (database.superuser(), "mongo_id, event_timestamp, source, event_type, payload, meta, created_at");
    superuser
        .batch_execute(&format!(
            "SET ROLE views_only; {}; CREATE VIEW reading_analytics AS SELECT DISTINCT {columns} FROM base",
            GO_TABLE.replace("reading_analytics", "base")
        ))
        .unwrap();
    let view = site(&database, "");
    publish(&view.host, "a.jsonl", line(1).as_bytes());
    stopped(&view, &database, "");
    let database = cluster.database("published");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!("SET ROLE published; {}", GO_TABLE.replace("id SERIAL PRIMARY KEY, ", "")))
        .and_then(|()| superuser.batch_execute("RESET ROLE; CREATE PUBLICATION all_of_it FOR ALL TABLES"))
        .unwrap();
    let published = site(&database, "");
    publish(&published.host, "a.jsonl", line(1).as_bytes());
    stopped(&published, &database, "replica identity");
    // Class 25: read-only for good.
    let database = cluster.database("read_only");
    let read_only = site(&database, "");
    read_only.synced("reading");
    database.superuser().batch_execute("ALTER ROLE read_only SET default_transaction_read_only = on").unwrap();
    publish(&read_only.host, "a.jsonl", line(1).as_bytes());
    stopped(&read_only, &database, "ALTER ROLE \"read_only\" RESET default_transaction_read_only");
}

/// Icinga/icinga2#4874 and rocicorp/mono#4216: an hour off in summer, in columns with and without a time zone.
#[test]
fn a_session_in_another_zone_moves_no_time() {
    let Some(cluster) = shared() else { return };
    for (name, column) in
        [("summer", "TIMESTAMPTZ"), ("summer_without", "TIMESTAMP"), ("summer_coarse", "TIMESTAMPTZ(0)")]
    {
        let database = cluster.database(name);
        database
            .superuser()
            .batch_execute(&format!(
                "ALTER ROLE {name} SET timezone = 'Europe/London'; SET ROLE {name}; {}",
                GO_TABLE.replace("event_timestamp TIMESTAMPTZ", &format!("event_timestamp {column}"))
            ))
            .unwrap();
        let site = site(&database, "");
        for stored in [2, 0] {
            let lines = ["2026-07-01T12:00:00Z", "2026-10-25T01:30:00Z"]
                .map(|time| format!("{}\n", json!({"_id": time, "timestamp": time, "payload": 1})));
            publish(&site.host, "a.jsonl", lines.concat().as_bytes());
            assert_eq!(site.synced("reading")["stored"], stored, "{column}");
        }
        let sql = "SELECT sum(extract(epoch FROM event_timestamp)) FROM reading_analytics";
        assert_eq!(database.number(sql), 1_782_907_200 + 1_792_891_800, "{column}");
    }
}

/// pgpartman/pg_partman#132: a trigger that puts rows into child tables and leaves the parent empty.
#[test]
fn rows_that_a_trigger_hands_on_to_a_child_are_not_stored_twice() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("handed_on");
    let site = site(&database, "");
    site.synced("reading");
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE child (UNIQUE (mongo_id)) INHERITS (reading_analytics); ALTER TABLE child OWNER TO handed_on; \
             CREATE FUNCTION hand_on() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO child VALUES (NEW.*); RETURN NULL; END $$; \
             CREATE TRIGGER hand_on BEFORE INSERT ON reading_analytics FOR EACH ROW EXECUTE FUNCTION hand_on()",
        )
        .unwrap();
    publish(&site.host, "a.jsonl", line(1).as_bytes());
    stopped(&site, &database, "a trigger hands the rows");
    assert_eq!(database.number("SELECT count(*) FROM child"), 0, "all or nothing");
}

/// cockroachdb/cockroach#141998: a policy for reading decides over rows that are written, too.
#[test]
fn a_policy_for_reading_refuses_rows_and_loses_none() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("reads");
    let site = site(&database, "");
    site.synced("reading");
    database
        .superuser()
        .batch_execute(
            "ALTER TABLE reading_analytics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; \
             CREATE POLICY adds ON reading_analytics FOR INSERT WITH CHECK (true); \
             CREATE POLICY changes ON reading_analytics FOR UPDATE USING (true); \
             CREATE POLICY reads ON reading_analytics FOR SELECT USING (source = 'mine')",
        )
        .unwrap();
    let documents = [document("1", "mine"), document("2", "theirs")].concat();
    for _ in 0..2 {
        publish(&site.host, "a.jsonl", documents.as_bytes());
        assert_eq!(site.synced("reading")["dead_letters"], 1);
    }
    assert_eq!(database.number("SELECT count(*) FROM reading_analytics WHERE source = 'mine'"), 1);
    assert!(site.hub(&["dead-letters"]).contains("the policies of reading_analytics"));
}
