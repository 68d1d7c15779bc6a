//! The reading pipeline on files when something is wrong: unfinished and damaged files, missing rights, wrong names.
#![cfg(feature = "sqlite")]

use crate::support;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::reading::{Site, file_pipeline, inbox, line, names, publish};
use crate::support::{Host, eventually, free_address, send};
use rusqlite::Connection;
use serde_json::json;

fn database(host: &Host) -> Connection {
    Connection::open(host.state().join("data/hub.db")).unwrap()
}

fn count(host: &Host, table: &str) -> i64 {
    database(host).query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

fn lines(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.map(line).collect::<String>().into_bytes()
}

fn site() -> Site {
    Site::new(|host| file_pipeline(host, ""))
}

/// Appends to a file of the inbox, as a program does that writes into it directly.
fn append(site: &Site, name: &str, content: &[u8]) {
    let path = inbox(&site.host).join(name);
    std::fs::File::options().create(true).append(true).open(path).unwrap().write_all(content).unwrap();
}

#[test]
fn a_file_in_the_making_is_waited_for() {
    let site = site();
    let content = lines(0..4);
    append(&site, "half.jsonl", &content[..content.len() - 100]);
    append(&site, "empty.jsonl", b"");
    publish(&site.host, "whole.jsonl", &lines(10..12));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| site.synced("reading"));
        eventually("the finished file is moved at once", || names(&site.host, "processed") == ["whole.jsonl"]);
        append(&site, "half.jsonl", &content[content.len() - 100..]);
        append(&site, "empty.jsonl", &lines(4..6));
        let result = run.join().unwrap();
        assert_eq!((&result["processed_count"], &result["dead_letters"]), (&json!(8), &json!(0)));
    });
    assert_eq!(names(&site.host, "processed"), ["empty.jsonl", "half.jsonl", "whole.jsonl"]);
    assert_eq!(count(&site.host, "reading_analytics"), 8);
}

#[test]
fn what_can_be_read_of_a_damaged_file_is_stored_and_the_file_is_kept() {
    let site = site();
    publish(&site.host, "cut.jsonl", &[&lines(0..4)[..], b"{\"_id\":99,\"pay"].concat());
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&lines(4..5000)).unwrap();
    let gz = gz.finish().unwrap();
    publish(&site.host, "cut.jsonl.gz", &gz[..gz.len() / 2]);
    let long = [b"{\"a\":\"", &vec![b'x'; 65 << 20][..], b"\"}\n", &lines(6000..6002)].concat();
    publish(&site.host, "long.jsonl", &long);
    let result = site.synced("reading");
    assert_eq!((&result["dead_letters"], &result["damaged_files"]), (&json!(1), &json!(2)), "{result}");
    assert!(
        String::from_utf8_lossy(&site.host.run("hub", &["status"]).stdout)
            .contains("reading: 2 damaged files in failed")
    );
    assert_eq!(names(&site.host, "."), ["failed", "processed"]);
    assert_eq!(names(&site.host, "failed"), ["cut.jsonl.gz", "long.jsonl"]);
    let numbers = |range| format!("reading_analytics WHERE payload ->> 'value' BETWEEN {range}");
    assert_eq!(count(&site.host, &numbers("0 AND 3")), 4);
    assert!(count(&site.host, &numbers("4 AND 4999")) > 100);
    assert_eq!(count(&site.host, &numbers("6000 AND 6001")), 2, "what follows a line that is too long");
}

#[test]
fn what_is_wrong_is_named_with_its_side_and_its_status() {
    let site = Site::new(|host| {
        let other = host.path("nowhere");
        let mongo = "[[pipeline]]\nname = \"mongo\"\n";
        let database = "[database]\nurl = \"sqlite:hub.db\"\n";
        format!("{database}{mongo}[[pipeline]]\nname = \"reading\"\nsource = \"file:{}\"\n", other.display())
    });
    let unknown = site.sync("other");
    assert_eq!(unknown.status, 404);
    assert!(unknown.json()["reason"].as_str().unwrap().contains("mongo, reading"), "{}", unknown.json());
    let get = send(site.admin, "GET", "/api/sync/reading", &[], b"");
    assert_eq!((get.status, get.header("Allow")), (405, Some("POST")));
    let missing = site.sync("reading");
    assert_eq!((missing.status, &missing.json()["side"]), (502, &json!("source")), "{}", missing.json());
    assert!(missing.json()["reason"].as_str().unwrap().contains("nowhere"), "{}", missing.json());
    let mongo = site.sync("mongo");
    assert_eq!(mongo.status, 502, "{}", mongo.json());
    let page = send(site.admin, "POST", "/api/sync/reading", &[("Origin", "http://evil.example")], b"");
    assert_eq!(page.status, 403);

    let output = site.reading_sync(&["--pipeline", "reading"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\"side\":\"source\"") && said.contains("nowhere"), "{said}");
    assert_eq!(site.reading_sync(&["--pipeline", "other"]).status.code(), Some(2));
    let down = format!("http://{}", free_address());
    let output = site.host.command("reading-sync").args(["--url", &down, "--deadline", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("is the proxy up?"));

    // The database cannot be made there.
    std::fs::remove_dir_all(site.host.state().join("data")).unwrap();
    std::fs::write(site.host.state().join("data"), "").unwrap();
    let broken = site.sync("reading");
    assert_eq!((broken.status, &broken.json()["side"]), (502, &json!("database")), "{}", broken.json());
}

#[test]
fn what_cannot_be_read_is_named_and_stops_nothing_else() {
    if support::skipped_without_root() {
        return;
    }
    let host = Host::new();
    host.configure(&format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{}",
        file_pipeline(&host, "")
    ));
    publish(&host, "a.jsonl", &lines(0..2));
    publish(&host, "b.jsonl", &lines(2..4));
    std::os::unix::fs::symlink("/etc/hostname", inbox(&host).join("link.jsonl")).unwrap();
    std::fs::set_permissions(inbox(&host).join("a.jsonl"), PermissionsExt::from_mode(0o000)).unwrap();
    let everything = host.path("");
    assert!(Command::new("chown").args(["-hR", "65534:65534"]).arg(&everything).status().unwrap().success());
    let site = Site::on(host, |command| {
        use std::os::unix::process::CommandExt;
        command.uid(65534).gid(65534);
    });
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (502, &json!("source")), "{}", answer.json());
    let reason = answer.json()["reason"].to_string();
    assert!(reason.contains("a.jsonl") && reason.contains("Permission denied"), "{reason}");
    assert_eq!(names(&site.host, "."), ["a.jsonl", "link.jsonl", "processed"]);
    assert_eq!(names(&site.host, "processed"), ["b.jsonl"]);
    assert_eq!(count(&site.host, "reading_analytics"), 2);

    std::fs::set_permissions(inbox(&site.host), PermissionsExt::from_mode(0o000)).unwrap();
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (502, &json!("source")), "{}", answer.json());
    assert!(answer.json()["reason"].as_str().unwrap().contains("let the user of the proxy read and write it"));
    std::fs::set_permissions(inbox(&site.host), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::set_permissions(inbox(&site.host).join("a.jsonl"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(site.synced("reading")["processed_count"], 2);
}
