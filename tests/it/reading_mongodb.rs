//! The reading pipeline from a MongoDB-wire server to a real PostgreSQL: what becomes of documents.
#![cfg(all(feature = "mongodb", feature = "postgres"))]

use crate::support;
use crate::support::mongo::Mongo;
use crate::support::pair::{Pair, amount, document, fill};
use crate::support::reading::Site;
use crate::support::send;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use serde_json::json;

macro_rules! servers {
    ($cluster:ident, $mongo:ident) => {
        let Some($cluster) = support::postgres::shared() else { return };
        #[allow(unused_mut, reason = "only some tests stop it")]
        let Some(mut $mongo) = Mongo::start() else { return };
    };
}

#[test]
fn documents_of_all_kinds_become_rows_and_are_marked() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "kinds");
    let documents = amount("HUB_TEST_READING_DOCUMENTS", 1500);
    let all = u64::from(documents.unsigned_abs());
    fill(&pair.events, 0..documents);
    pair.events.insert_one(doc! { "_id": "not yet", "status": "draft" }).run().unwrap();
    let batch = (documents / 20).clamp(100, 2500).to_string();
    let host = pair.host(&mongo, "");
    // Where a run's own lines go; its standard output is what the proxy reads.
    let log = host.path("log");
    let site = Site::on(host, |command| {
        command.env("BATCH_SIZE", batch).stderr(std::fs::File::create(&log).unwrap());
    });
    let advice = || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().filter(|line| line.contains("index_missing")).map(str::to_owned).collect::<Vec<_>>()
    };
    let result = site.synced("reading");
    let asked: serde_json::Value = serde_json::from_str(&advice()[0]).unwrap();
    let make = "db.getCollection(\"events\").createIndex({status: 1, _id: 1})";
    assert_eq!((&asked["make"], &asked["level"]), (&json!(make), &json!("WARN")), "{asked}");
    assert_eq!(
        (&result["processed_count"], &result["stored"], &result["nul_replaced"]),
        (&json!(all), &json!(all), &json!(all / 50))
    );
    assert_eq!(pair.counts(), [all, 0, 0, all]);
    assert_eq!(pair.database.number("SELECT count(*) FROM reading_analytics WHERE event_timestamp IS NULL"), 0);
    let row = pair
        .database
        .superuser()
        .query_one("SELECT payload::text, meta::text FROM reading_analytics WHERE mongo_id = '\"id-1\"'", &[])
        .unwrap();
    let payload: serde_json::Value = serde_json::from_str(row.get(0)).unwrap();
    assert_eq!(
        payload,
        json!({"value": 1, "ratio": 0.25, "big": i64::MAX, "text": "žluťoučký", "null": null, "flag": true,
               "at": "2026-01-04T12:00:00Z", "list": [1, "two", {"three": 3}], "binary": "AQID", "regex": "/^a/i",
               "ts": "Timestamp(5, 6)"})
    );
    let index = mongodb::IndexModel::builder().keys(doc! { "status": 1, "_id": 1 }).build();
    pair.events.create_index(index).run().unwrap();
    assert_eq!(site.synced("reading")["processed_count"], 0);
    assert_eq!(advice().len(), 1, "once there is one, nothing is said");
}

#[test]
fn poison_in_front_goes_to_dead_letters_and_stops_nothing() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "poison");
    pair.database
        .superuser()
        .batch_execute(
            // A table of the Go version, whose owner has added a rule.
            "SET ROLE poison; CREATE TABLE reading_analytics (id SERIAL PRIMARY KEY, mongo_id TEXT UNIQUE NOT NULL, \
             event_timestamp TIMESTAMPTZ, source TEXT CHECK (source <> 'evil'), event_type TEXT, payload JSONB, \
             meta JSONB, created_at TIMESTAMPTZ)",
        )
        .unwrap();
    let poison: Vec<Document> = (0..100)
        .map(|n| match n % 2 {
            0 => doc! { "_id": n, "status": "ingested", "source": "evil" },
            _ => doc! { "_id": n, "status": "ingested", "payload": { "nul": "a\0" } },
        })
        .collect();
    pair.events.insert_many(poison).run().unwrap();
    fill(&pair.events, 1000..1040);
    let site = pair.site(&mongo, "json = \"extended\"");
    let result = site.synced("reading");
    assert_eq!((&result["dead_letters"], &result["stored"]), (&json!(100), &json!(40)), "{result}");
    assert_eq!(pair.counts(), [40, 100, 0, 140]);
    assert!(site.hub(&["dead-letters"]).contains("the database refuses it"));
    pair.database
        .superuser()
        .batch_execute("ALTER TABLE reading_analytics DROP CONSTRAINT reading_analytics_source_check")
        .unwrap();
    assert_eq!(site.hub(&["dead-letters", "retry"]).trim(), "50 stored, 50 still dead letters.");
    assert_eq!(pair.counts(), [90, 50, 0, 140]);
}

#[test]
fn a_document_that_changes_between_read_and_mark_is_read_again() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "changed");
    fill(&pair.events, 0..3);
    let site = pair.site(&mongo, "");
    site.synced("reading");
    fill(&pair.events, 3..20);
    // The rows cannot be stored while the table is locked: read, and not yet marked.
    let mut superuser = pair.database.superuser();
    let mut lock = superuser.transaction().unwrap();
    lock.batch_execute("LOCK TABLE reading_analytics IN SHARE MODE").unwrap();
    let admin = site.admin;
    let call = std::thread::spawn(move || send(admin, "POST", "/api/sync/reading", &[], b""));
    support::eventually("the batch waits for the lock", || {
        pair.database.number("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0
    });
    pair.events.update_one(doc! { "_id": "id-8" }, doc! { "$set": { "payload": { "value": "new" } } }).run().unwrap();
    lock.rollback().unwrap();
    assert_eq!(call.join().unwrap().status, 200);
    assert_eq!(pair.counts(), [20, 0, 0, 20]);
    let newest = "SELECT count(*) FROM reading_analytics WHERE payload = '{\"value\": \"new\"}'";
    assert_eq!(pair.database.number(newest), 1, "the newest form is the one that is kept");
}

#[test]
fn a_poison_document_that_is_mended_between_read_and_mark_is_a_row_and_no_dead_letter() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "mended");
    let site = pair.site(&mongo, "json = \"extended\"");
    site.synced("reading");
    fill(&pair.events, 40..60);
    let mut superuser = pair.database.superuser();
    let mut lock = superuser.transaction().unwrap();
    lock.batch_execute("LOCK TABLE dead_letters IN SHARE MODE").unwrap();
    let admin = site.admin;
    let call = std::thread::spawn(move || send(admin, "POST", "/api/sync/reading", &[], b""));
    support::eventually("the batch waits for the lock", || {
        pair.database.number("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0
    });
    let poison = document(49);
    let mended = doc! { "$set": { "payload": { "nul": "none any more" } } };
    pair.events.update_one(doc! { "_id": poison.get("_id").unwrap() }, mended).run().unwrap();
    lock.rollback().unwrap();
    assert_eq!(call.join().unwrap().status, 200);
    assert_eq!(pair.counts(), [20, 0, 0, 20]);
}

#[test]
fn large_documents_pass() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "large");
    // MongoDB's own limit is 16 MiB for the whole document.
    let length = (16 << 20) - 200;
    for number in 0..3 {
        let text = "x".repeat(length);
        pair.events
            .insert_one(doc! { "_id": number, "status": "ingested", "payload": { "text": text } })
            .run()
            .unwrap();
    }
    let site = pair.site(&mongo, "");
    assert_eq!(site.synced("reading")["stored"], 3);
    assert_eq!(pair.database.number("SELECT min(length(payload->>'text')) FROM reading_analytics"), length as i64);
}

/// A document of this number that is nested so deeply, made without recursion.
fn nested(number: i32, depth: usize) -> RawDocumentBuf {
    let mut inner = vec![5, 0, 0, 0, 0];
    let wrap = |inner: &[u8], before: &[u8], name: &[u8]| {
        let length = i32::try_from(4 + before.len() + 1 + name.len() + 1 + inner.len() + 1).unwrap();
        [&length.to_le_bytes()[..], before, b"\x03", name, b"\0", inner, b"\0"].concat()
    };
    for _ in 2..depth {
        inner = wrap(&inner, b"", b"a");
    }
    let before = [b"\x10_id\0", &number.to_le_bytes()[..], b"\x02status\0\x09\0\0\0ingested\0"].concat();
    RawDocumentBuf::from_bytes(wrap(&inner, &before, b"payload")).unwrap()
}

#[test]
fn deep_documents_are_rows_or_dead_letters_and_never_the_end_of_the_run() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "nested");
    let raw = pair.events.clone_with_type::<RawDocumentBuf>();
    let depths = [50, 99, 150, 200, 201, 1000];
    // A server has a limit of its own; what it takes has to be dealt with.
    let taken: Vec<usize> =
        depths.into_iter().filter(|depth| raw.insert_one(nested(*depth as i32, *depth)).run().is_ok()).collect();
    assert!(taken.contains(&99), "{taken:?}");
    let site = pair.site(&mongo, "");
    site.synced("reading");
    let sound = taken.iter().filter(|depth| **depth <= 200).count() as u64;
    let all = taken.len() as u64;
    assert_eq!(pair.counts(), [sound, all - sound, 0, all], "{taken:?}");
}
