//! A pipeline from a MongoDB collection to a PostgreSQL database, and documents for it.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, Regex, Timestamp, doc, oid::ObjectId};
use mongodb::sync::Collection;

use super::mongo::Mongo;
use super::reading::Site;
use crate::support::Host;
use crate::support::postgres::{Cluster, Database};

/// A pipeline of its own: a database in PostgreSQL and one in MongoDB, both of the same name.
pub struct Pair<'a> {
    pub database: Database<'a>,
    pub events: Collection<Document>,
    name: &'static str,
}

impl<'a> Pair<'a> {
    pub fn new(cluster: &'a Cluster, mongo: &Mongo, name: &'static str) -> Self {
        Self { database: cluster.database(name), events: mongo.collection(name, "events"), name }
    }

    pub fn configuration(&self, more: &str) -> String {
        format!(
            "[database]\nurl = \"{}\"\n[[pipeline]]\nname = \"reading\"\ndatabase = \"{}\"\n{more}\n",
            self.database.url(),
            self.name
        )
    }

    pub fn host(&self, mongo: &Mongo, more: &str) -> Host {
        let host = Host::new();
        let addresses = "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
        host.configure(&format!("{addresses}{}", self.configuration(more)));
        host.credential("mongo-uri", mongo.uri());
        host
    }

    pub fn site(&self, mongo: &Mongo, more: &str) -> Site {
        Site::on(self.host(mongo, more), small_batches)
    }

    /// Rows, dead letters, documents that wait, documents that are done.
    pub fn counts(&self) -> [u64; 4] {
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

/// A run has to have more than one batch, or nothing is in the middle of it.
pub fn small_batches(command: &mut std::process::Command) {
    command.env("BATCH_SIZE", "100");
}

/// A document of a number: ids, timestamps and payloads of all kinds, every 50th with a key that only dead letters keep.
pub fn document(number: i32) -> Document {
    let id = match number % 7 {
        0 => Bson::ObjectId(ObjectId::from_bytes([&[0; 8][..], &number.to_be_bytes()].concat().try_into().unwrap())),
        1 => Bson::String(format!("id-{number}")),
        2 => Bson::Int64(i64::from(number)),
        3 => Bson::Document(doc! { "host": "web", "n": number }),
        4 => Bson::Double(f64::from(number) + 0.5),
        5 => Bson::DateTime(DateTime::from_millis(i64::from(number))),
        _ => Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: number.to_be_bytes().to_vec() }),
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

pub fn fill(events: &Collection<Document>, numbers: std::ops::Range<i32>) {
    let documents: Vec<Document> = numbers.map(document).collect();
    for part in documents.chunks(500) {
        events.insert_many(part).run().unwrap();
    }
}

/// A number from the environment, small by default.
pub fn amount(name: &str, default: i32) -> i32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
