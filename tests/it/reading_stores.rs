//! The reading pipeline from files to PostgreSQL and to SQLite: the same values in both, and what PostgreSQL refuses.
#![cfg(all(feature = "postgres", feature = "sqlite"))]

use crate::support;
use crate::support::postgres::Database;
use crate::support::reading::{Site, file_pipeline, line, names, publish};
use rusqlite::Connection;
use serde_json::{Value, json};

fn site(url: &str, more: &str) -> Site {
    Site::new(|host| format!("[database]\nurl = \"{url}\"\n{}", file_pipeline(host, more)))
}

type Row = (String, Option<i64>, Option<String>, Option<String>, Option<Value>, Option<Value>);

fn json_of(text: Option<String>) -> Option<Value> {
    text.map(|text| serde_json::from_str(&text).unwrap())
}

fn of_postgres(database: &Database<'_>) -> Vec<Row> {
    let sql = "SELECT mongo_id, (extract(epoch FROM event_timestamp) * 1000)::bigint, source, event_type, payload::text, \
               meta::text FROM reading_analytics ORDER BY mongo_id COLLATE \"C\"";
    let rows = database.superuser().query(sql, &[]).unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), json_of(row.get(4)), json_of(row.get(5))))
        .collect()
}

fn of_sqlite(site: &Site) -> Vec<Row> {
    let connection = Connection::open(site.host.state().join("data/hub.db")).unwrap();
    let sql =
        "SELECT mongo_id, event_timestamp, source, event_type, payload, meta FROM reading_analytics ORDER BY mongo_id";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, json_of(row.get(4)?), json_of(row.get(5)?)))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Documents that the two databases would store differently if they were given them as they are.
fn odd() -> Vec<u8> {
    let long = "x".repeat(20_000);
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let deepest = format!("{}1{}", "[".repeat(199), "]".repeat(199));
    let mut lines = vec![
        format!("{{\"_id\":\"{long}\",\"source\":\"{long}\"}}"),
        format!("{{\"_id\":\"{long}y\"}}"),
        format!("{{\"_id\":\"deep\",\"payload\":{deep}}}"),
        format!("{{\"_id\":\"deepest\",\"payload\":{deepest}}}"),
    ];
    let payloads = [
        r#""a\u0000b""#,
        r#"{"a\u0001":"\u0000"}"#,
        r#"{"d":1,"d":{"e":1,"e":2}}"#,
        r#"{"$numberDouble":"NaN"}"#,
        r#"{"$numberDouble":"-Infinity"}"#,
        "-0.0",
        "0.1",
        "1e300",
        "-1e-300",
        "9223372036854775807",
        "9007199254740993",
        r#"{"$numberDecimal":"1.10"}"#,
        r#"{"$date":{"$numberLong":"-62135596800001"}}"#,
        r#"{"$date":{"$numberLong":"9223372036854775807"}}"#,
        "null",
        "{}",
        "[]",
        r#""\ud83d\ude00\u2028\u007f""#,
        r#"{"":""}"#,
    ];
    let timestamps = ["1767528000.123", r#"{"$date":{"$numberLong":"-62135596800000"}}"#, "1e300", "[1]", "null"];
    lines.extend(payloads.iter().enumerate().map(|(n, payload)| format!("{{\"_id\":{n},\"payload\":{payload}}}")));
    lines.extend(
        timestamps.iter().map(|time| format!("{{\"timestamp\":{time},\"event_type\":5,\"meta\":{{\"a\":1}}}}")),
    );
    (lines.join("\n") + "\n").into_bytes()
}

#[test]
fn both_databases_hold_the_same_values() {
    let Some(cluster) = support::postgres::shared() else { return };
    for (name, shape, dead) in [("plain_values", "json = \"plain\"", 0), ("extended_values", "json = \"extended\"", 3)]
    {
        let database = cluster.database(name);
        let (postgres, sqlite) = (site(&database.url(), shape), site("sqlite:hub.db", shape));
        let results = [&postgres, &sqlite].map(|site| {
            publish(&site.host, "odd.jsonl", &odd());
            let mut result = site.synced("reading");
            result.as_object_mut().unwrap().remove("timestamp");
            result
        });
        assert_eq!(results[0], results[1], "the same is counted");
        assert_eq!((&results[0]["processed_count"], &results[0]["dead_letters"]), (&json!(28), &json!(dead)));
        // The deepest is beyond what this test can parse.
        let shallow = |rows: Vec<Row>| rows.into_iter().filter(|row| row.0 != "\"deepest\"").collect::<Vec<_>>();
        database
            .superuser()
            .execute("UPDATE reading_analytics SET payload = '1' WHERE mongo_id = '\"deepest\"'", &[])
            .unwrap();
        let connection = Connection::open(sqlite.host.state().join("data/hub.db")).unwrap();
        let count = connection.execute("UPDATE reading_analytics SET payload = '1' WHERE mongo_id = '\"deepest\"'", []);
        assert_eq!(count, Ok(1));
        assert_eq!(shallow(of_postgres(&database)), shallow(of_sqlite(&sqlite)));
    }
}

#[test]
fn what_a_rule_of_the_table_refuses_is_a_dead_letter_of_its_own() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("rules");
    let site = site(&database.url(), "");
    site.synced("reading");
    database
        .superuser()
        .batch_execute(
            "CREATE INDEX ON reading_analytics (source);
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.event_type = 'evil' THEN RAISE EXCEPTION 'no evil here'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON reading_analytics FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    // Digits of no pattern, which do not become short enough for an index by being compressed.
    let mut state = 1u64;
    let digits = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:x}")
    });
    let large: String = digits.take(1000).collect();
    let poison =
        format!("{}\n{}\n", json!({"_id": "large", "source": large}), json!({"_id": "evil", "event_type": "evil"}));
    publish(&site.host, "a.jsonl", &[poison.as_bytes(), line(1).as_bytes(), line(2).as_bytes()].concat());
    let result = site.synced("reading");
    assert_eq!((&result["stored"], &result["dead_letters"]), (&json!(2), &json!(2)), "{result}");
    let list = site.hub(&["dead-letters"]);
    assert!(list.contains("SQLSTATE 54000") && list.contains("no evil here"), "{list}");
}

#[test]
fn a_table_of_the_go_version_loses_no_numbers_to_what_is_there_already() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("numbers");
    let sequence = "SELECT last_value FROM reading_analytics_id_seq";
    database
        .superuser()
        .batch_execute(
            "SET ROLE numbers; CREATE TABLE reading_analytics (id SERIAL PRIMARY KEY, mongo_id TEXT UNIQUE NOT NULL, \
             event_timestamp TIMESTAMPTZ, source TEXT, event_type TEXT, payload JSONB, meta JSONB, \
             created_at TIMESTAMPTZ DEFAULT NOW())",
        )
        .unwrap();
    let site = site(&database.url(), "");
    let content: String = (0..50).map(line).collect();
    for expected in [50, 0] {
        publish(&site.host, "a.jsonl", content.as_bytes());
        assert_eq!(site.synced("reading")["stored"], expected);
        assert_eq!(database.number(sequence), 50);
    }
    database.superuser().batch_execute("ALTER SEQUENCE reading_analytics_id_seq MAXVALUE 60").unwrap();
    let content: String = (50..100).map(line).collect();
    publish(&site.host, "b.jsonl", content.as_bytes());
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (502, &json!("database")), "{}", answer.json());
    assert!(answer.json()["reason"].as_str().unwrap().contains("reached maximum value of sequence"));
    assert_eq!(database.number("SELECT count(*) FROM dead_letters"), 0, "no document is to blame");
    assert_eq!(names(&site.host, "."), ["b.jsonl", "processed"]);
}
