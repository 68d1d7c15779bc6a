//! The reading pipeline from a MongoDB-wire server to a real PostgreSQL.
#![cfg(all(feature = "mongodb", feature = "postgres"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

#[path = "support/mongo.rs"]
mod mongo;
#[path = "support/reading.rs"]
mod reading;
mod support;

use std::time::Duration;

use mongo::Mongo;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, Regex, Timestamp, doc, oid::ObjectId};
use mongodb::sync::Collection;
use reading::Site;
use serde_json::json;
use support::postgres::{Cluster, Database};
use support::{Host, send};

/// A pipeline of its own: a database in PostgreSQL and one in MongoDB, both of the same name.
struct Pair<'a> {
    database: Database<'a>,
    events: Collection<Document>,
    name: &'static str,
}

impl<'a> Pair<'a> {
    fn new(cluster: &'a Cluster, mongo: &Mongo, name: &'static str) -> Self {
        Self { database: cluster.database(name), events: mongo.collection(name), name }
    }

    fn configuration(&self, more: &str) -> String {
        format!(
            "[database]\nurl = \"{}\"\n[[pipeline]]\nname = \"reading\"\ndatabase = \"{}\"\n{more}\n",
            self.database.url(),
            self.name
        )
    }

    fn site(&self, mongo: &Mongo, more: &str) -> Site {
        let host = Host::new();
        let addresses = "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
        host.configure(&format!("{addresses}{}", self.configuration(more)));
        host.credential("mongo-uri", mongo.uri());
        Site::on(host, small_batches)
    }

    /// Rows, dead letters, documents that wait, documents that are done.
    fn counts(&self) -> [u64; 4] {
        let number = |sql| u64::try_from(self.database.number(sql)).unwrap();
        let documents = |status| self.events.count_documents(doc! { "status": status }).run().unwrap();
        [
            number("SELECT count(*) FROM reading_analytics"),
            number("SELECT count(*) FROM dead_letters"),
            documents("ingested"),
            documents("processed"),
        ]
    }
}

/// FerretDB compares every id of a batch with every document, so that large batches take it minutes.
fn small_batches(command: &mut std::process::Command) {
    command.env("BATCH_SIZE", "100");
}

/// A document of a number: ids, timestamps and payloads of all kinds, every 50th with a key that only dead letters keep.
fn document(number: i32) -> Document {
    let id = match number % 5 {
        0 => Bson::ObjectId(ObjectId::from_bytes([&[0; 8][..], &number.to_be_bytes()].concat().try_into().unwrap())),
        1 => Bson::String(format!("id-{number}")),
        2 => Bson::Int64(i64::from(number)),
        3 => Bson::Document(doc! { "host": "web", "n": number }),
        _ => Bson::Double(f64::from(number) + 0.5),
    };
    let timestamp = match number % 4 {
        0 => Bson::DateTime(DateTime::from_millis(1_767_528_000_000 + i64::from(number))),
        1 => Bson::String("2026-01-04T12:00:00Z".into()),
        2 => Bson::Int64(1_767_528_000),
        _ => Bson::Int64(1_767_528_000_000),
    };
    let payload = match number % 50 {
        49 => doc! { "nul": "a\0b" },
        _ => doc! {
            "value": number, "ratio": 0.25, "big": i64::MAX, "text": "žluťoučký", "null": Bson::Null, "flag": true,
            "at": DateTime::from_millis(1_767_528_000_000), "list": [1, "two", { "three": 3 }],
            "binary": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] },
            "regex": Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() }, "ts": Timestamp { time: 5, increment: 6 },
        },
    };
    doc! { "_id": id, "status": "ingested", "event_type": "cpu", "source": "agent", "timestamp": timestamp,
    "payload": payload, "meta": { "host": "web-1" } }
}

fn fill(events: &Collection<Document>, numbers: std::ops::Range<i32>) {
    let documents: Vec<Document> = numbers.map(document).collect();
    for part in documents.chunks(500) {
        events.insert_many(part).run().unwrap();
    }
}

/// A number from the environment, small by default.
fn amount(name: &str, default: i32) -> i32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

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
    fill(&pair.events, 0..1500);
    pair.events.insert_one(doc! { "_id": "not yet", "status": "draft" }).run().unwrap();
    let site = pair.site(&mongo, "");
    let result = site.synced("reading");
    assert_eq!(
        (&result["processed_count"], &result["stored"], &result["nul_replaced"]),
        (&json!(1500), &json!(1500), &json!(30))
    );
    assert_eq!(pair.counts(), [1500, 0, 0, 1500]);
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
    assert_eq!(site.synced("reading")["processed_count"], 0);
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
    pair.events.update_one(doc! { "_id": "id-6" }, doc! { "$set": { "payload": { "value": "new" } } }).run().unwrap();
    lock.rollback().unwrap();
    assert_eq!(call.join().unwrap().status, 200);
    assert_eq!(pair.counts(), [20, 0, 0, 20]);
    let newest = "SELECT count(*) FROM reading_analytics WHERE payload = '{\"value\": \"new\"}'";
    assert_eq!(pair.database.number(newest), 1, "the newest form is the one that is kept");
}

#[test]
fn large_documents_pass() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "large");
    for number in 0..3 {
        let text = "x".repeat(15 << 20);
        pair.events
            .insert_one(doc! { "_id": number, "status": "ingested", "payload": { "text": text } })
            .run()
            .unwrap();
    }
    let site = pair.site(&mongo, "");
    assert_eq!(site.synced("reading")["stored"], 3);
    assert_eq!(pair.database.number("SELECT min(length(payload->>'text')) FROM reading_analytics"), 15 << 20);
}

#[test]
fn killed_at_any_moment_every_document_is_there_once() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "killed");
    let documents = amount("HUB_TEST_READING_DOCUMENTS", 2000);
    let kills = amount("HUB_TEST_READING_KILLS", 6);
    fill(&pair.events, 0..documents);
    let extended = "json = \"extended\"";
    let mut site = pair.site(&mongo, extended);
    for kill in 0..kills {
        let admin = site.admin;
        // The answer breaks off with the proxy.
        let request = format!("POST /api/sync/reading HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n");
        std::thread::spawn(move || support::send_raw(admin, request.as_bytes()));
        site.service.line("sync_started");
        // A moment that has nothing to do with the steps of a run.
        let moment = Duration::from_millis(u64::from(kill.unsigned_abs()) * 7919 % 400);
        std::thread::sleep(moment);
        site.service.signal("KILL");
        site = site.again(small_batches);
    }
    site.synced("reading");
    let [rows, dead, waiting, done] = pair.counts();
    let all = u64::from(documents.unsigned_abs());
    assert_eq!((rows + dead, dead, waiting, done), (all, all / 50, 0, all));
    let both = "SELECT count(*) FROM reading_analytics JOIN dead_letters ON mongo_id = source_id";
    assert_eq!(pair.database.number(both), 0);
}

#[test]
fn outages_are_named_and_survived() {
    servers!(cluster, mongo);
    let Some(own) = Cluster::start(&[]) else { return };
    drop(cluster);
    let pair = Pair::new(&own, &mongo, "outage");
    fill(&pair.events, 0..800);
    let host = Host::new();
    let addresses = "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
    host.configure(&format!("{addresses}{}", pair.configuration("")));
    host.credential("mongo-uri", mongo.uri());
    let site = Site::on(host, small_batches);
    own.stop("QUIT");
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (503, &json!("database")), "{}", answer.json());
    own.run();

    // PostgreSQL goes away in the middle and comes back: the run waits for it.
    let last = std::thread::scope(|scope| {
        let call = scope.spawn(|| site.run("reading"));
        support::eventually("some rows are stored", || {
            let stored = own.superuser("outage").query_one("SELECT count(*) FROM reading_analytics", &[]);
            stored.is_ok_and(|row| row.get::<_, i64>(0) > 0)
        });
        own.stop("KILL");
        own.run();
        call.join().unwrap()
    });
    assert_eq!(last["status"], "success", "{last}");
    assert_eq!(pair.counts(), [800, 0, 0, 800]);

    if !mongo.stop() {
        return;
    }
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (503, &json!("source")), "{}", answer.json());
    own.stop("QUIT");
    assert_eq!(site.sync("reading").status, 503, "both are down");
    own.run();
    mongo.run();
    assert_eq!(site.synced("reading")["processed_count"], 0);
}

#[test]
fn what_is_wrong_with_either_side_is_named() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "wrong");
    let site = pair.site(&mongo, "");
    let refused = |what: &str, part: &str, side: &str| {
        let answer = site.sync("reading");
        let body = answer.json();
        assert_eq!((answer.status, &body["side"]), (502, &json!(side)), "{what}: {body}");
        assert!(body["reason"].as_str().unwrap().contains(part), "{what}: {body}");
        assert!(!body.to_string().contains("geheim"), "{what}: a password is shown: {body}");
    };
    site.host.credential("mongo-uri", "postgres://u:geheim@h/");
    refused("no MongoDB URI", "no MongoDB URI", "pipeline");
    site.host.credential("mongo-uri", "mongodb://u:geheim@h/?socketTimeoutMS=5");
    refused("an option that the driver refuses", "does not understand", "source");
    let tls = mongo.uri().replace("directConnection", "tls=true&directConnection");
    if tls != mongo.uri() {
        site.host.credential("mongo-uri", &tls);
        let answer = site.sync("reading");
        assert!(matches!(answer.status, 502 | 503) && answer.json()["side"] == "source", "{}", answer.json());
    }
    site.host.credential("mongo-uri", mongo.uri());
    site.synced("reading");

    fill(&pair.events, 0..2);
    let mut superuser = pair.database.superuser();
    superuser.batch_execute("ALTER TABLE reading_analytics OWNER TO postgres").unwrap();
    refused("missing rights", "GRANT SELECT, INSERT, UPDATE, DELETE", "database");
    superuser.batch_execute("ALTER TABLE reading_analytics OWNER TO wrong; ALTER ROLE wrong PASSWORD 'other'").unwrap();
    refused("a wrong password", "password", "database");
    assert_eq!(pair.events.count_documents(doc! { "status": "ingested" }).run().unwrap(), 2, "nothing is lost");
}
