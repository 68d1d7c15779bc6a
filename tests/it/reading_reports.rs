//! What other movers of documents lost, by public reports of their users, on this one. Each line names the report.
#![cfg(feature = "sqlite")]

use crate::support::reading::{Site, file_pipeline, publish};
use rusqlite::Connection;
use serde_json::Value;

/// Payload and event_timestamp of the only row of a line.
fn row(json: &str, line: &str) -> (Option<String>, Option<i64>, String) {
    let site = Site::new(|host| file_pipeline(host, &format!("json = \"{json}\"")));
    publish(&site.host, "a.json", line.as_bytes());
    let result = site.synced("reading");
    assert_eq!(result["stored"], 1, "{line}: {result}");
    let database = Connection::open(site.host.state().join("data/hub.db")).unwrap();
    let sql = "SELECT payload, event_timestamp, source_id FROM reading_analytics";
    database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

#[test]
fn numbers_dates_and_names_of_public_reports_are_whole() {
    let uuid = r#"{"$binary":{"base64":"0LOZegkHTSm2haVb6p/nJw==","subType":"04"}}"#;
    for (report, line, payload, time, id) in [
        // A long is rounded like a double of JavaScript.
        ("appsmithorg/appsmith#5743", r#"{"_id":1,"n":861658154331799552}"#, r#"{"n":861658154331799552}"#, None, "1"),
        // A whole double comes with an exponent, which no column of integers takes.
        ("dimitri/pgloader#373", r#"{"_id":1,"n":2.173631433e+09}"#, r#"{"n":2173631433}"#, None, "1"),
        // The double below the least integer.
        (
            "PeerDB-io/peerdb#3322",
            r#"{"_id":1,"n":{"$numberDouble":"-9223372036854775808"}}"#,
            r#"{"n":-9223372036854775808}"#,
            None,
            "1",
        ),
        // A UUID as an id is bytes that nobody can join.
        (
            "PostHog/posthog#55818",
            &format!(r#"{{"_id":{uuid},"payload":1}}"#),
            "1",
            None,
            "d0b3997a-0907-4d29-b685-a55bea9fe727",
        ),
        (
            "haohanyang/mongodb-datasource#59",
            &format!(r#"{{"_id":1,"u":{uuid}}}"#),
            r#"{"u":"d0b3997a-0907-4d29-b685-a55bea9fe727"}"#,
            None,
            "1",
        ),
        // One date of a year that the language has not ends the whole run.
        (
            "Maltcommunity/mongo-connector-postgresql#3",
            r#"{"_id":1,"timestamp":{"$date":{"$numberLong":"-62135597377000"}},"payload":1}"#,
            "1",
            None,
            "1",
        ),
        (
            "elastic/connectors#3476",
            r#"{"_id":1,"d":{"$date":{"$numberLong":"-4611686018427388000"}}}"#,
            r#"{"d":"-4611686018427388000"}"#,
            None,
            "1",
        ),
        // Dates before 1970 become null.
        (
            "mariadb-connector-nodejs#287",
            r#"{"_id":1,"timestamp":{"$date":"1969-12-31T23:59:59.5Z"},"payload":1}"#,
            "1",
            Some(-500),
            "1",
        ),
        // Fields with dots in their names are missing.
        (
            "kobotoolbox/kpi#1348",
            r#"{"_id":1,"A_5.1_respondent_name":"x","a":{"b.c":1}}"#,
            r#"{"A_5.1_respondent_name":"x","a":{"b.c":1}}"#,
            None,
            "1",
        ),
        // An object within is a text afterwards; a text that looks like one has to stay one.
        (
            "t8y2/dbx#8558",
            r#"[{"_id":1,"valueMap":{"field1":"10147E"},"s":"{\"a\":1}","t":"ISODate(\"2026-09-08T07:11:25.458Z\")"}]"#,
            r#"{"valueMap":{"field1":"10147E"},"s":"{\"a\":1}","t":"ISODate(\"2026-09-08T07:11:25.458Z\")"}"#,
            None,
            "1",
        ),
        // An export of the same tool is refused for its $date.
        (
            "mongo-express#653",
            r#"{"_id":{"$oid":"5fda28190d4b6097afba6340"},"sent_date":{ "$date" : "2020-12-12T02:01:00.000Z" }}"#,
            r#"{"sent_date":"2020-12-12T02:01:00Z"}"#,
            None,
            "5fda28190d4b6097afba6340",
        ),
        // The smallest of a measurement becomes zero.
        (
            "dimitri/pgcopydb#552",
            r#"{"_id":1,"amount":0.00000000000000006938893903907228}"#,
            r#"{"amount":6.938893903907228e-17}"#,
            None,
            "1",
        ),
        // Decimals lose their trailing zeros.
        ("mongodb/mongoid#4363", r#"{"_id":1,"d":{"$numberDecimal":"1.2300"}}"#, r#"{"d":"1.2300"}"#, None, "1"),
    ] {
        let (stored, at, source_id) = row("plain", line);
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(stored.as_deref().map(value), Some(value(payload)), "{report}");
        assert_eq!((at, source_id.as_str()), (time, id), "{report}");
        let (stored, at, _) = row("extended", line);
        assert!(stored.is_some() && at == time, "{report}");
    }
}
