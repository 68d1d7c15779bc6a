//! The reading pipeline on MongoDB by a cursor's field, what is taken back there, and from which member of a set it reads.
#![cfg(all(feature = "mongodb", feature = "postgres", feature = "sqlite"))]
#![allow(clippy::print_stdout, reason = "a test may fail anywhere, and says what it tried")]

use crate::support;
use crate::support::mongo::Mongo;
use crate::support::mongo_errors;
use crate::support::pair::{Pair, fill, small_batches};
use crate::support::reading::Site;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::json;

/// The servers, or the end of the test where there are none.
macro_rules! servers {
    ($cluster:ident, $mongo:ident) => {
        let Some($cluster) = support::postgres::shared() else { return };
        let Some($mongo) = Mongo::start() else { return };
    };
}

/// An ObjectId that was made so many seconds after an evening of 2026.
fn at(seconds: u32, number: u8) -> ObjectId {
    let [a, b, c, d] = (1_767_528_000 + seconds).to_be_bytes();
    ObjectId::from_bytes([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, number])
}

fn events(seconds: std::ops::Range<u32>) -> Vec<Document> {
    seconds
        .map(|n| doc! { "_id": at(n, 0), "kind": "k", "host": { "name": "h" }, "n": i64::from(n), "status": "mine" })
        .collect()
}

#[test]
fn a_cursor_moves_what_is_new_and_writes_nothing_to_the_source() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "by_id");
    pair.events.insert_many(events(0..350)).run().unwrap();
    let map = "map = { source = \"host.name\", event_type = \"kind\", payload = \"\" }\nselect = { cursor = \"_id\" }";
    let site = pair.site(&mongo, map);
    let before: Vec<Document> =
        pair.events.find(doc! {}).sort(doc! { "_id": 1 }).run().unwrap().map(Result::unwrap).collect();
    let result = site.synced("reading");
    assert_eq!((&result["stored"], &result["processed_count"]), (&json!(350), &json!(350)), "{result}");
    let whole = "SELECT count(*) FROM reading_analytics WHERE source = 'h' AND event_type = 'k' AND meta IS NULL \
                 AND payload ->> 'status' = 'mine' AND payload ->> '_id' = source_id AND payload -> 'host' ->> 'name' = 'h'";
    assert_eq!(pair.database.number(whole), 350);
    let after: Vec<Document> =
        pair.events.find(doc! {}).sort(doc! { "_id": 1 }).run().unwrap().map(Result::unwrap).collect();
    assert_eq!(before, after);
    assert_eq!(site.synced("reading")["processed_count"], 0, "the last one is not read again");
    pair.events.insert_many(events(350..360)).run().unwrap();
    assert_eq!(site.synced("reading")["processed_count"], 10);
    // Written late, behind the position; only an overlap sees it.
    pair.events.insert_one(doc! { "_id": at(340, 9), "late": true }).run().unwrap();
    assert_eq!(site.synced("reading")["processed_count"], 0);
    let configuration = pair.configuration("select = { cursor = \"_id\", overlap = \"1m\" }");
    site.host.configure(&format!("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{configuration}"));
    let site = site.again(small_batches);
    let result = site.synced("reading");
    assert_eq!(result["processed_count"], 62, "the minute before the last: {result}");
    let late = "SELECT count(*) FROM reading_analytics WHERE payload = '{\"late\": true}'";
    assert_eq!(pair.database.number(late), 1);
    assert_eq!(pair.database.number("SELECT count(*) FROM reading_analytics"), 361);
    assert_eq!(
        pair.database.number("SELECT count(*) FROM hub_positions WHERE pipeline = 'reading' AND field = '_id'"),
        1
    );
}

#[test]
fn a_field_that_many_documents_share_loses_none_of_them() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "by_date");
    let of = |n: i32| {
        // 250 of one instant, which is more than two batches, and some around them.
        let millis = if (50..300).contains(&n) { 50 } else { i64::from(n) };
        doc! { "_id": n, "meta": { "at": DateTime::from_millis(1_767_528_000_000 + millis) }, "payload": n }
    };
    pair.events.insert_many((0..400).map(of)).run().unwrap();
    pair.events.insert_one(doc! { "_id": "no date", "payload": 1 }).run().unwrap();
    let host = pair.host(&mongo, "select = { cursor = \"meta.at\", overlap = \"0s\" }");
    let log = host.path("log");
    let site = Site::on(host, |command| {
        small_batches(command);
        command.stderr(std::fs::File::create(&log).unwrap());
    });
    assert_eq!(site.synced("reading")["stored"], 400);
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("documents_without_cursor") && said.contains("\"count\":\"1\""), "{said}");
    assert_eq!(site.synced("reading")["processed_count"], 0);
    pair.events
        .insert_one(doc! { "_id": 1000, "meta": { "at": DateTime::from_millis(1_767_528_000_399) }, "payload": 1 })
        .run()
        .unwrap();
    assert_eq!(site.synced("reading")["stored"], 1, "another one of the last instant");
}

/// The pipeline's rows.
fn rows(pair: &Pair<'_>) -> i64 {
    pair.database.number("SELECT count(*) FROM reading_analytics")
}

#[test]
fn what_the_source_deletes_costs_no_document_behind_it() {
    servers!(cluster, mongo);
    // A collection that forgets its documents after a while: the last one that was read is gone when the next ones come.
    for (name, field) in [("forgets_ids", "_id"), ("forgets_dates", "at")] {
        let pair = Pair::new(&cluster, &mongo, name);
        let of = |n: i32| doc! { "_id": n, "at": DateTime::from_millis(i64::from(n / 10)), "payload": n };
        pair.events.insert_many((0..25).map(of)).run().unwrap();
        let site = pair.site(&mongo, &format!("select = {{ cursor = \"{field}\" }}"));
        assert_eq!(site.synced("reading")["stored"], 25);
        pair.events.delete_many(doc! { "_id": { "$in": [20, 21, 24] } }).run().unwrap();
        pair.events.insert_many((25..33).map(of)).run().unwrap();
        let result = site.synced("reading");
        assert_eq!((&result["stored"], rows(&pair)), (&json!(8), 33), "{field}: {result}");
        assert_eq!(site.synced("reading")["processed_count"], 0, "{field}");
        pair.events.delete_many(doc! {}).run().unwrap();
        assert_eq!(site.synced("reading")["processed_count"], 0, "{field}");
        pair.events.insert_many((40..50).map(of)).run().unwrap();
        assert_eq!((site.synced("reading")["stored"].clone(), rows(&pair)), (json!(10), 43), "{field}");
    }
    // Of one instant, and before the last one in the order of `_id`.
    let pair = Pair::new(&cluster, &mongo, "comes_before");
    let of = |id: i32| doc! { "_id": id, "at": DateTime::from_millis(7), "payload": id };
    pair.events.insert_many((100..400).map(of)).run().unwrap();
    let site = pair.site(&mongo, "select = { cursor = \"at\" }");
    site.synced("reading");
    pair.events.insert_many((0..20).map(of)).run().unwrap();
    site.synced("reading");
    assert_eq!((rows(&pair), site.synced("reading")["processed_count"].as_u64()), (320, Some(0)));
}

#[test]
fn a_collection_that_was_made_anew_is_told() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "anew");
    let host = pair.host(&mongo, "select = { cursor = \"seq\" }");
    let log = host.path("log");
    let site = Site::on(host, |command| {
        command.stderr(std::fs::File::create(&log).unwrap());
    });
    let told = || std::fs::read_to_string(&log).unwrap().contains("position_beyond_the_last");
    let of = |n: i32| doc! { "seq": n, "payload": n };
    pair.events.insert_many((1..10).map(of)).run().unwrap();
    site.synced("reading");
    pair.events.delete_many(doc! {}).run().unwrap();
    site.synced("reading");
    assert!(!told(), "an empty collection, as one is whose readers delete what they have read");
    pair.events.insert_many((1..4).map(of)).run().unwrap();
    assert_eq!(site.synced("reading")["processed_count"], 0);
    assert!(told());
    pair.database.superuser().batch_execute("DELETE FROM hub_positions WHERE pipeline = 'reading'").unwrap();
    assert_eq!(site.synced("reading")["stored"], 3);
}

#[test]
fn values_of_every_kind_are_moved_each_in_its_order() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "cursor_kinds");
    let host = pair.host(&mongo, "select = { cursor = \"_id\" }");
    let log = host.path("log");
    let site = Site::on(host, |command| {
        small_batches(command);
        command.stderr(std::fs::File::create(&log).unwrap());
    });
    let said = || std::fs::read_to_string(&log).unwrap();
    let mut moved = 0;
    // As in a collection where a program wrote ids of its own beside the driver's; whatever sorts last is not all there is.
    for round in 0_u32..3 {
        let number = i32::try_from(round).unwrap();
        let ids: Vec<Bson> = vec![
            at(round, 1).into(),
            format!("many-{round}-z").into(),
            number.into(),
            (f64::from(round) + 0.5).into(),
            // Of other numbers: the server of the tests takes a date for an integer where an id must be unique.
            DateTime::from_millis(i64::from(1000 + round)).into(),
            mongodb::bson::Timestamp { time: 5000 + round, increment: 1 }.into(),
        ];
        let of = |id| doc! { "_id": id, "payload": 1 };
        for number in (0..6).filter(|number| round > 0 || *number < 5) {
            pair.events.insert_one(of(ids[number].clone())).run().unwrap();
            moved += 1;
        }
        pair.events.insert_many((0..150).map(|n| of(format!("many-{round}-{n:04}").into()))).run().unwrap();
        moved += 150;
        let result = site.synced("reading");
        assert_eq!(
            (rows(&pair), site.synced("reading")["processed_count"].as_u64()),
            (moved, Some(0)),
            "{round} {result}"
        );
    }
    assert!(!said().contains("documents_without_cursor"), "{}", said());
    // Between those kinds, and none of them.
    pair.events.insert_one(doc! { "_id": { "host": "web" }, "payload": 1 }).run().unwrap();
    assert_eq!(site.synced("reading")["processed_count"], 0);
    assert!(said().contains("documents_without_cursor") && said().contains("\"count\":\"1\""), "{}", said());
}

#[test]
fn numbers_of_one_value_and_lists_stop_no_cursor() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "equal_numbers");
    // More than a batch of one value, in every type that a program may have written.
    let value = |n: i32| match n % 3 {
        0 => Bson::Int32(5),
        1 => Bson::Int64(5),
        _ => Bson::Double(5.0),
    };
    pair.events.insert_many((0..250).map(|n| doc! { "_id": n, "a": { "seq": value(n) }, "payload": n })).run().unwrap();
    // A comparison finds a list by its items, wherever it is sorted.
    let lists = (1000..1150).map(|n| match n % 2 {
        0 => doc! { "_id": n, "a": { "seq": [1, 9] } },
        _ => doc! { "_id": n, "a": [{ "seq": 9 }] },
    });
    pair.events.insert_many(lists).run().unwrap();
    pair.events.insert_many((300..350).map(|n| doc! { "_id": n, "a": { "seq": 6 }, "payload": n })).run().unwrap();
    let host = pair.host(&mongo, "select = { cursor = \"a.seq\" }");
    let log = host.path("log");
    let site = Site::on(host, |command| {
        small_batches(command);
        command.stderr(std::fs::File::create(&log).unwrap());
    });
    let result = site.synced("reading");
    assert_eq!((&result["stored"], &result["processed_count"]), (&json!(300), &json!(300)), "{result}");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("documents_without_cursor") && said.contains("\"count\":\"150\""), "{said}");
    pair.events.insert_one(doc! { "_id": 400, "a": { "seq": 7.5 }, "payload": 1 }).run().unwrap();
    assert_eq!(site.synced("reading")["stored"], 1);
    assert_eq!(site.synced("reading")["processed_count"], 0);
}

#[test]
fn what_is_no_cursor_is_refused_with_its_reason() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "no_cursor");
    let refused = |select: &str, said: &[&str]| {
        let site = pair.site(&mongo, select);
        let answer = site.sync("reading");
        let body = answer.json();
        assert_eq!((answer.status, &body["side"]), (502, &json!("source")), "{body}");
        for part in said {
            assert!(body["reason"].as_str().unwrap().contains(part), "{part}: {body}");
        }
    };
    let site = pair.site(&mongo, "select = { cursor = \"seq\" }");
    assert_eq!(site.synced("reading")["processed_count"], 0, "an empty collection");
    pair.events.insert_one(doc! { "_id": 1, "seq": 5, "flag": true }).run().unwrap();
    assert_eq!(site.synced("reading")["stored"], 1);
    refused("select = { cursor = \"seq\", overlap = \"10m\" }", &["\"seq\"", "overlap is for ObjectIds and dates"]);
    refused("select = { cursor = \"flag\" }", &["\"flag\"", "Boolean", "it takes ObjectIds, dates"]);
    refused("select = { cursor = \"missing\" }", &["\"missing\"", "Null"]);
}

#[test]
fn a_killed_run_goes_on_from_the_position_that_its_rows_were_stored_with() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "cursor_killed");
    pair.events.insert_many(events(0..2000)).run().unwrap();
    let mut site = pair.site(&mongo, "select = { cursor = \"_id\" }");
    let (mut kills, mut runs) = (0, 0);
    loop {
        let admin = site.admin;
        let call = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(admin).unwrap();
            let head = format!("POST /api/sync/reading HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n");
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut stream, &mut text);
        });
        let count = || {
            pair.database
                .superuser()
                .query_one("SELECT count(*) FROM reading_analytics", &[])
                .map_or(0, |row| row.get::<_, i64>(0))
        };
        support::eventually("rows come, or all are there", || count() >= (500 * (kills + 1)).min(2000));
        runs += 1;
        if count() >= 2000 || runs > 20 {
            call.join().unwrap();
            break;
        }
        kills += 1;
        site = site.again(small_batches);
        call.join().unwrap();
    }
    site.synced("reading");
    let all = "SELECT count(*) FROM reading_analytics";
    assert_eq!((pair.database.number(all), site.synced("reading")["processed_count"].as_u64()), (2000, Some(0)));
    println!("killed {kills} times");
}

#[test]
fn a_table_that_refuses_everything_leaves_the_documents_as_they_were() {
    servers!(cluster, mongo);
    for (name, select) in [("refused_status", ""), ("refused_cursor", "select = { cursor = \"_id\" }")] {
        let pair = Pair::new(&cluster, &mongo, name);
        let site = pair.site(&mongo, select);
        site.synced("reading");
        pair.database.superuser().batch_execute("ALTER TABLE reading_analytics ADD COLUMN room INT NOT NULL").unwrap();
        // Of one type of id, more than ten batches.
        let of = |n: i32| doc! { "_id": n, "status": "ingested", "payload": { "n": n } };
        pair.events.insert_many((0..1500).map(of)).run().unwrap();
        let answer = site.sync("reading");
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["side"], &body["processed_count"]),
            (502, &json!("database"), &json!(0)),
            "{body}"
        );
        assert!(body["reason"].as_str().unwrap().contains("\"room\""), "{body}");
        assert_eq!(pair.counts(), [0, 0, 1500, 0], "{name}");
        pair.database.superuser().batch_execute("ALTER TABLE reading_analytics DROP COLUMN room").unwrap();
        assert_eq!(site.synced("reading")["stored"], 1500);
    }
}

#[test]
fn one_document_from_mongodb_and_from_a_relaxed_export_has_one_key() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "one_key");
    let ids = [
        Bson::Int64(5),
        Bson::Double(7.0),
        Bson::String("abc".into()),
        doc! { "n": 9_i64 }.into(),
        Bson::Int64(1 << 40),
    ];
    pair.events
        .insert_many(ids.into_iter().map(|id| doc! { "_id": id, "status": "ingested", "payload": 1 }))
        .run()
        .unwrap();
    let inbox = tempfile::tempdir().unwrap();
    let files = format!("[[pipeline]]\nname = \"files\"\nsource = \"file:{}\"\n", inbox.path().display());
    let site = pair.site(&mongo, &files);
    assert_eq!(site.synced("reading")["stored"], 5);
    let lines = "{\"_id\":5,\"payload\":1}\n{\"_id\":7.0,\"payload\":1}\n{\"_id\":\"abc\",\"payload\":1}\n{\"_id\":{\"n\":9},\"payload\":1}\n{\"_id\":1099511627776,\"payload\":1}\n";
    std::fs::write(inbox.path().join(".new"), lines).unwrap();
    let file = std::fs::File::options().write(true).open(inbox.path().join(".new")).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).unwrap();
    std::fs::rename(inbox.path().join(".new"), inbox.path().join("export.jsonl")).unwrap();
    let result = site.synced("files");
    assert_eq!((&result["stored"], &result["unchanged"]), (&json!(0), &json!(5)), "{result}");
    let plain =
        "SELECT count(*) FROM reading_analytics WHERE source_id IN ('5', '7', 'abc', '{\"n\":9}', '1099511627776')";
    assert_eq!(pair.database.number(plain), 5);
}

#[test]
fn documents_are_read_and_marked_on_the_primary_whatever_the_uri_prefers() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("on_primary");
    let set = mongo_errors::replica_set(doc! { "_id": 1, "status": "ingested", "payload": 1 });
    for preference in ["secondary", "secondaryPreferred", "nearest"] {
        let site =
            Site::new(|_| format!("[database]\nurl = \"{}\"\n[[pipeline]]\nname = \"reading\"\n", database.url()));
        site.host.credential("mongo-uri", &format!("{}&readPreference={preference}", set.uri));
        let result = site.run("reading");
        let asked = |member: usize| set.commands(member);
        assert!(asked(0).iter().any(|name| name == "find"), "{preference}: {:?} {result}", asked(0));
        let of_secondary: Vec<String> =
            asked(1).into_iter().filter(|name| name == "find" || name == "update").collect();
        assert_eq!(of_secondary, Vec::<String>::new(), "{preference}: {result}");
    }
}

#[test]
fn a_source_that_comes_back_within_the_run_is_waited_for() {
    let Some(cluster) = support::postgres::shared() else { return };
    let Some(mut mongo) = Mongo::start() else { return };
    let pair = Pair::new(&cluster, &mongo, "comes_back");
    fill(&pair.events, 0..20);
    let site = pair.site(&mongo, "");
    if !mongo.stop() {
        return;
    }
    std::thread::scope(|scope| {
        let run = scope.spawn(|| site.synced("reading"));
        site.service.line("sync_started");
        // Longer than the driver itself looks for a server.
        std::thread::sleep(std::time::Duration::from_secs(12));
        mongo.run();
        assert_eq!(run.join().unwrap()["stored"], 20);
    });
    assert_eq!(pair.counts(), [20, 0, 0, 20]);
}
