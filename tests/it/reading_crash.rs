//! The reading pipeline killed with SIGKILL: every document ends in exactly one of table and dead letters.
#![cfg(all(feature = "mongodb", feature = "postgres"))]

use crate::support;
use std::hash::{BuildHasher, RandomState};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::Host;
use crate::support::mongo::Mongo;
use crate::support::pair::{amount, fill};
use crate::support::reading::{Site, file_pipeline, line, names, publish};
use mongodb::bson::doc;

/// A moment that has nothing to do with the steps of a run.
fn moment(most: u64) -> Duration {
    let random = RandomState::new().hash_one(0);
    Duration::from_millis(random % most)
}

/// Begins runs and kills the proxy, or the run alone, with SIGKILL at random moments; `prepare` is for its commands.
fn killed(mut site: Site, pipelines: &[String], kills: i32, most: u64, prepare: impl Fn(&mut Command)) -> Site {
    let mut unfinished = 0;
    for kill in 0..kills.unsigned_abs() as usize {
        let (admin, name) = (site.admin, &pipelines[kill % pipelines.len()]);
        // The answer breaks off with the proxy.
        let request = format!("POST /api/sync/{name} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n");
        std::thread::spawn(move || support::send_raw(admin, request.as_bytes()));
        let run = site.service.line("sync_started")["pid"].to_string();
        std::thread::sleep(moment(most));
        unfinished += u32::from(!site.service.lines().iter().any(|line| line["msg"] == "sync_ended"));
        if kill % 3 == 2 {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-9", &run]).stderr(Stdio::null()).status();
        } else {
            site.service.signal("KILL");
        }
        site = site.again(&prepare);
    }
    assert!(unfinished > 2, "{unfinished} of {kills}");
    site
}

/// A line of a number, with an id of one of several kinds.
fn extended(number: i32) -> String {
    let id = match number % 5 {
        0 => return line(number as usize),
        1 => format!("\"{number}\""),
        2 => format!("{{\"$numberLong\":\"{number}\"}}"),
        3 => format!("{{\"host\":\"web\",\"n\":{number},\"long\":\"{}\"}}", "x".repeat(2000)),
        _ => format!("{{\"$date\":{{\"$numberLong\":\"{number}\"}}}}"),
    };
    format!(
        "{{\"_id\":{id},\"timestamp\":{number},\"source\":\"agent\",\"payload\":[1.5,{{\"$numberDouble\":\"NaN\"}},\"ž\"]}}\n"
    )
}

#[test]
fn files_killed_at_any_moment_are_there_once() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("files");
    let documents = amount("HUB_TEST_READING_DOCUMENTS", 50_000);
    let kills = amount("HUB_TEST_READING_KILLS", 12);
    let host = Host::new();
    const FILES: i32 = 10;
    for file in 0..FILES {
        let numbers = (documents * file / FILES)..(documents * (file + 1) / FILES);
        let content: String = numbers
            .map(|number| match number % 50 {
                49 => format!("{{\"_id\":{number},\"payload\":\n"),
                _ => extended(number),
            })
            .collect();
        publish(&host, &format!("{file}.jsonl"), content.as_bytes());
    }
    host.configure(&format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[database]\nurl = \"{}\"\n{}",
        database.url(),
        file_pipeline(&host, "")
    ));
    let site = killed(Site::on(host, |_| {}), &["reading".to_owned()], kills, 1000, |_| {});
    site.synced("reading");
    let all = i64::from(documents);
    let number = |sql: &str| database.number(sql);
    assert_eq!(number("SELECT count(*) FROM reading_analytics"), all - all / 50);
    assert_eq!(number("SELECT count(*) FROM dead_letters"), all / 50);
    assert_eq!(names(&site.host, "processed").len(), FILES as usize);
    assert_eq!(names(&site.host, "."), ["processed"]);
}

#[test]
fn documents_of_mongodb_killed_at_any_moment_are_there_once() {
    let Some(cluster) = support::postgres::shared() else { return };
    let Some(mongo) = Mongo::start() else { return };
    let database = cluster.database("reading_killed");
    let documents = amount("HUB_TEST_READING_DOCUMENTS", 2000);
    let kills = amount("HUB_TEST_READING_KILLS", 12);
    // FerretDB reads a whole collection for every batch, so that one of 50,000 documents takes it too long.
    const PIPELINES: i32 = 10;
    let each = documents / PIPELINES;
    let host = Host::new();
    let mut text = format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[database]\nurl = \"{}\"\n",
        database.url()
    );
    let names: Vec<String> = (0..PIPELINES).map(|number| format!("p{number}")).collect();
    let collections: Vec<_> = names.iter().map(|name| mongo.collection("killed", name)).collect();
    for (name, collection) in names.iter().zip(&collections) {
        fill(collection, 0..each);
        text += &format!(
            "[[pipeline]]\nname = \"{name}\"\ndatabase = \"killed\"\ncollection = \"{name}\"\ntable = \"{name}\"\n\
             json = \"extended\"\n"
        );
    }
    host.configure(&text);
    host.credential("mongo-uri", mongo.uri());
    let batch = (each / 10).max(20).to_string();
    let prepare = |command: &mut Command| {
        command.env("BATCH_SIZE", &batch);
    };
    let longest = if documents > 10_000 { 3000 } else { 600 };
    let site = killed(Site::on(host, prepare), &names, kills, longest, prepare);
    let each = i64::from(each);
    for (name, collection) in names.iter().zip(&collections) {
        site.synced(name);
        let count = |status| collection.count_documents(doc! { "status": status }).run().unwrap();
        assert_eq!((count("ingested"), count("processed")), (0, each as u64), "{name}");
        let rows = database.number(&format!("SELECT count(*) FROM {name}"));
        let dead = database.number(&format!("SELECT count(*) FROM dead_letters WHERE pipeline = '{name}'"));
        assert_eq!((rows, dead), (each - each / 50, each / 50), "{name}");
        let both = format!(
            "SELECT count(*) FROM {name} JOIN dead_letters AS dead ON mongo_id = dead.source_id AND pipeline = '{name}'"
        );
        assert_eq!(database.number(&both), 0, "{name}");
    }
}
