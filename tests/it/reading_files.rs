//! The reading pipeline on files and SQLite: what needs no server.
#![cfg(feature = "sqlite")]

use crate::support;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::support::reading::{Site, file_pipeline, inbox, line, names, publish};
use crate::support::{Host, Service, eventually, free_address, send};
use rusqlite::Connection;
use serde_json::{Value, json};

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

#[test]
fn files_become_rows_once_and_are_put_away() {
    let site = site();
    publish(&site.host, "a.jsonl", &lines(0..2500));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&lines(2000..3000)).unwrap();
    publish(&site.host, "b.jsonl.gz", &gz.finish().unwrap());
    publish(&site.host, "ignored.txt", b"not for us");
    let result = site.synced("reading");
    assert_eq!(result["service"], "reading-sync");
    assert_eq!(result["processed_count"], 3500);
    assert_eq!(
        (&result["stored"], &result["unchanged"], &result["dead_letters"]),
        (&json!(3000), &json!(500), &json!(0))
    );
    assert!(result["timestamp"].is_string() && result["http_status"].is_null(), "{result}");
    assert_eq!(count(&site.host, "reading_analytics"), 3000);
    assert_eq!(names(&site.host, "processed"), ["a.jsonl", "b.jsonl.gz"]);
    assert_eq!(names(&site.host, "."), ["ignored.txt", "processed"]);
    let row: (String, i64, String, String, String, String) = database(&site.host)
        .query_row(
            "SELECT mongo_id, event_timestamp, source, event_type, payload, meta FROM reading_analytics WHERE mongo_id LIKE '%2a'
             ORDER BY id LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)),
        )
        .unwrap();
    assert_eq!(row.0, format!("{:024x}", 42));
    assert_eq!(row.1, 1_767_528_000_042);
    assert_eq!((row.2.as_str(), row.3.as_str()), ("agent-0", "cpu_reading"));
    let payload: Value = serde_json::from_str(&row.4).unwrap();
    assert_eq!(payload["value"], 42);
    let meta = json!({"unmapped": {"status": "ingested"}, "host": "web-1", "agent": "1.2.3"});
    assert_eq!(serde_json::from_str::<Value>(&row.5).unwrap(), meta);
    assert_eq!(result["unmapped_fields"], 3500);
    assert_eq!(site.synced("reading")["processed_count"], 0);
    let record = site.host.json("state/reading/run.json");
    assert_eq!((&record["service"], &record["status"]), (&json!("reading-sync"), &json!("nothing")));
    assert_eq!(record["history"][0]["counts"]["processed_count"], 3500);
}

#[test]
fn a_document_that_changed_is_brought_up_to_date() {
    let site = site();
    publish(&site.host, "a.jsonl", b"{\"_id\":1,\"payload\":{\"v\":1}}\n{\"_id\":1,\"payload\":{\"v\":2}}\n");
    assert_eq!(site.synced("reading")["processed_count"], 2);
    publish(&site.host, "a.jsonl", b"{\"_id\":1,\"payload\":{\"v\":3}}\n");
    assert_eq!(site.synced("reading")["stored"], 1);
    let payload: String =
        database(&site.host).query_row("SELECT payload FROM reading_analytics", [], |row| row.get(0)).unwrap();
    assert_eq!(payload, "{\"v\":3}");
    assert_eq!(names(&site.host, "processed"), ["a.jsonl", "a.jsonl.1"], "no file replaces another");
}

#[test]
fn progress_is_streamed_to_whoever_asks_for_lines() {
    let site = site();
    publish(&site.host, "a.jsonl", &lines(0..5000));
    let answer = send(site.admin, "POST", "/api/sync/reading", &[("Accept", "application/x-ndjson")], b"");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/x-ndjson")));
    let text = String::from_utf8(answer.body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, running) = lines.split_last().unwrap();
    assert!(!running.is_empty() && running.iter().all(|line| line["status"] == "running" && line["unit"] == "bytes"));
    assert_eq!((&last["status"], &last["processed_count"]), (&json!("success"), &json!(5000)));
}

#[test]
fn what_cannot_be_stored_is_a_dead_letter_and_stops_nothing() {
    let site = site();
    let deep = format!("{{\"_id\":7,\"payload\":{}1{}}}", "[".repeat(3000), "]".repeat(3000));
    let poison =
        ["not JSON", "{\"_id\":", "[1]", "{\"_id\":{\"$oid\":\"5\"}}", "{\"_id\":8,\"payload\":\"\\ud800\"}", &deep];
    let mut content = poison.join("\n").into_bytes();
    content.extend(b"\n{\"_id\":9,\"payload\":\"\xff\"}\n");
    content.extend(lines(0..50));
    publish(&site.host, "a.jsonl", &content);
    let result = site.synced("reading");
    assert_eq!((&result["processed_count"], &result["dead_letters"]), (&json!(57), &json!(7)), "{result}");
    assert_eq!((count(&site.host, "reading_analytics"), count(&site.host, "dead_letters")), (50, 7));
    let raw: Vec<u8> = database(&site.host)
        .query_row("SELECT document FROM dead_letters WHERE reason LIKE '%nested%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(raw, deep.as_bytes(), "the dead letter is the document as it came");

    let list = site.hub(&["dead-letters"]);
    assert_eq!(list.lines().count(), 7, "{list}");
    assert!(list.contains("nested deeper than 200 levels") && list.contains("not sound Extended JSON"), "{list}");
    assert!(site.hub(&["dead-letters", "show", "1"]).ends_with("not JSON\n"));
    let config = site.host.path("hub.toml").display().to_string();
    for words in [&["list"][..], &["show", "1"], &["retry", "1"]] {
        let (before, after) = ([&["dead-letters", "--config", &config], words], [&["dead-letters"], words]);
        let after = [&after.concat()[..], &["--config", &config]].concat();
        for words in [before.concat(), after] {
            let output = site.host.command("hub").args(&words).env_remove("HUB_CONFIG").output().unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
        }
    }
    assert_eq!(site.hub(&["dead-letters", "--pipeline", "reading", "retry"]).trim(), "0 stored, 7 still dead letters.");
    assert!(site.hub(&["dead-letters", "list"]).contains("tried 4x"));
    site.hub(&["dead-letters", "drop", "1"]);
    assert_eq!(count(&site.host, "dead_letters"), 6);
    let output = site.host.run("hub", &["dead-letters", "drop", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no dead letter 1"));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_document() {
    let site = site();
    publish(&site.host, "a.jsonl", b"\xef\xbb\xbf{\"_id\":1}\r\n{\"_id\":2}\r\n");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"\xef\xbb\xbf{\"_id\":3}\n\xef\xbb\xbf{\"_id\":4}\n").unwrap();
    publish(&site.host, "b.jsonl.gz", &gz.finish().unwrap());
    let result = site.synced("reading");
    // Within a file it is text like any other.
    assert_eq!((&result["stored"], &result["dead_letters"]), (&json!(3), &json!(1)), "{result}");
}

#[test]
fn a_file_that_was_just_written_is_waited_for_and_the_log_says_so() {
    let host = Host::new();
    let listen = "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
    host.configure(&format!("{listen}{}", file_pipeline(&host, "")));
    let log = host.path("log");
    let site = Site::on(host, |command| {
        command.stderr(std::fs::File::create(&log).unwrap());
    });
    std::fs::write(inbox(&site.host).join("a.jsonl"), b"{\"_id\":1}\n").unwrap();
    assert_eq!(site.synced("reading")["stored"], 1);
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("\"msg\":\"waiting_for_file\",\"file\":\"a.jsonl\",\"seconds\":").count(), 1, "{said}");
}

#[test]
fn a_dead_letter_that_can_be_stored_now_becomes_a_row() {
    let site = Site::new(|host| file_pipeline(host, "json = \"extended\""));
    publish(&site.host, "a.jsonl", b"{\"_id\":1,\"payload\":{\"a\":\"x\\u0000\"}}\n{\"payload\":{\"d\":1,\"d\":2}}\n");
    assert_eq!(site.synced("reading")["dead_letters"], 2);
    site.host.configure(&file_pipeline(&site.host, "json = \"plain\""));
    assert_eq!(site.hub(&["dead-letters", "retry", "1"]).trim(), "1 stored, 0 still dead letters.");
    assert_eq!(site.hub(&["dead-letters", "retry"]).trim(), "1 stored, 0 still dead letters.");
    assert_eq!((count(&site.host, "reading_analytics"), count(&site.host, "dead_letters")), (2, 0));
    assert_eq!(site.hub(&["dead-letters"]).trim(), "No dead letters.");
}

/// A run that is going on: a large file, and the line that says that it has begun.
fn begun(site: &Site, documents: usize) -> std::thread::JoinHandle<support::Answer> {
    publish(&site.host, "large.jsonl", &lines(0..documents));
    let admin = site.admin;
    let call = std::thread::spawn(move || send(admin, "POST", "/api/sync/reading", &[], b""));
    site.service.line("sync_started");
    call
}

#[test]
fn a_file_that_is_renamed_while_it_is_read_is_stored_once() {
    let site = site();
    // Without ids, where a row's key has the name of its file in it.
    let lines: String = (0..60_000).map(|n| format!("{{\"number\":{n}}}\n")).collect();
    publish(&site.host, "a.jsonl", lines.as_bytes());
    let admin = site.admin;
    let run = std::thread::spawn(move || send(admin, "POST", "/api/sync/reading", &[], b""));
    let rows = || {
        let found = Connection::open(site.host.state().join("data/hub.db"))
            .and_then(|database| database.query_row("SELECT count(*) FROM reading_analytics", [], |row| row.get(0)));
        found.unwrap_or(0_i64)
    };
    eventually("rows come", || rows() > 0);
    let inbox = inbox(&site.host);
    std::fs::rename(inbox.join("a.jsonl"), inbox.join("b.jsonl")).unwrap();
    assert_eq!(run.join().unwrap().json()["status"], "success");
    site.synced("reading");
    assert_eq!(count(&site.host, "reading_analytics"), 60_000);
    assert_eq!(
        (names(&site.host, "."), names(&site.host, "processed")),
        (vec!["processed".to_owned()], vec!["b.jsonl".to_owned()])
    );
}

#[test]
fn one_run_at_a_time_and_the_stop_of_the_proxy_ends_it() {
    let mut site = site();
    let call = begun(&site, 12_000);
    let busy = site.sync("reading");
    assert_eq!((busy.status, &busy.json()["status"]), (409, &json!("error")));
    assert_eq!(site.reading_sync(&["--pipeline", "reading"]).status.code(), Some(75));
    let pid = site.service.line("sync_started")["pid"].as_u64().unwrap();
    site.service.signal("TERM");
    assert_eq!(site.service.wait(), Some(0));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the run outlives the proxy");
    let cut = call.join().unwrap();
    assert_eq!(cut.status, 503, "{}", cut.json());
    assert!(cut.json()["reason"].as_str().unwrap().contains("the proxy stops"), "{}", cut.json());
    let site = site.again(|_| {});
    site.synced("reading");
    assert_eq!(count(&site.host, "reading_analytics"), 12_000);
}

#[test]
fn a_run_that_is_killed_is_a_503_and_the_next_one_finishes_it() {
    let site = site();
    let call = begun(&site, 15_000);
    let pid = site.service.line("sync_started")["pid"].as_u64().unwrap();
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    let answer = call.join().unwrap();
    assert_eq!((answer.status, &answer.json()["side"]), (503, &json!("pipeline")), "{}", answer.json());
    assert!(answer.json()["reason"].as_str().unwrap().contains("signal 9"));
    assert_eq!(send(site.admin, "GET", "/api/status", &[], b"").status, 200, "the gateway stays up");
    site.synced("reading");
    assert_eq!(count(&site.host, "reading_analytics"), 15_000);
    assert_eq!(names(&site.host, "processed"), ["large.jsonl"]);
}

#[test]
fn a_client_that_goes_away_does_not_end_the_run() {
    let site = site();
    publish(&site.host, "large.jsonl", &lines(0..12_000));
    let mut stream = std::net::TcpStream::connect(site.admin).unwrap();
    let request = format!(
        "POST /api/sync/reading HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nAccept: application/x-ndjson\r\n\r\n",
        site.admin
    );
    stream.write_all(request.as_bytes()).unwrap();
    site.service.line("sync_started");
    drop(stream);
    site.service.line("sync_ended");
    assert_eq!(count(&site.host, "reading_analytics"), 12_000);
}

#[test]
fn reading_sync_tells_what_happened_as_log_lines() {
    let site = site();
    publish(&site.host, "a.jsonl", &[&lines(0..10)[..], b"nonsense\n"].concat());
    let output = site.reading_sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let done = said.iter().find(|line| line["msg"] == "sync_done").unwrap();
    assert_eq!(
        (&done["service"], &done["processed_count"], &done["pipeline"]),
        (&json!("reading-sync"), &json!(11), &json!("reading"))
    );
    assert!(said.iter().any(|line| line["msg"] == "dead_letters" && line["count"] == 1));
}

#[test]
fn hub_up_moves_what_falls_into_the_inbox() {
    let host = Host::new();
    let (listen, admin) = (free_address(), free_address());
    let addresses = format!("[proxy]\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n");
    host.configure(&format!("{addresses}{}", file_pipeline(&host, "")));
    publish(&host, "before.jsonl", &lines(0..10));
    let service: Service = host.start("hub", &["up"]);
    eventually("the file that was there is moved", || names(&host, "processed") == ["before.jsonl"]);
    publish(&host, "later.jsonl", &lines(10..20));
    eventually("a later file is moved", || names(&host, "processed").len() == 2);
    assert_eq!(count(&host, "reading_analytics"), 20);
    drop(service);
}

#[test]
fn a_shell_script_can_do_what_reading_sync_does() {
    let has_curl = Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_curl {
        support::skip::skip("hub_sync of contrib/hub.sh", "curl is missing");
        return;
    }
    let site = site();
    publish(&site.host, "a.jsonl", &lines(0..3000));
    let script = concat!(". ", env!("CARGO_MANIFEST_DIR"), "/contrib/hub.sh; hub_sync \"$1\"");
    let run = |pipeline: &str| {
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", script, "move-readings", pipeline]);
        command.env("HUB_BIN", env!("CARGO_BIN_EXE_hub")).env("HUB_ADMIN", format!("http://{}", site.admin));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said, progress) = run("reading");
    assert_eq!(code, Some(0), "{said}{progress}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["msg"], &said["service"]), (&json!("sync_done"), &json!("move-readings")));
    assert!(said["result"].as_str().unwrap().contains("\"processed_count\":3000"), "{said}");
    assert!(progress.lines().all(|line| line.contains("sync_progress")), "{progress}");
    let (code, said, _) = run("other");
    assert_eq!(code, Some(1));
    assert!(said.contains("sync_failed") && said.contains("no pipeline of this name"), "{said}");
}

#[test]
fn a_run_that_is_killed_leaves_a_record_of_it() {
    let site = site();
    publish(&site.host, "a.jsonl", &lines(0..10));
    site.synced("reading");
    let first = site.service.line("sync_started")["pid"].clone();
    // A file that is being written keeps the next run waiting.
    std::fs::write(inbox(&site.host).join("b.jsonl"), b"{\"_id\":1}\n").unwrap();
    let last = std::thread::scope(|scope| {
        let run = scope.spawn(|| site.run("reading"));
        let is_second = |line: &Value| line["msg"] == "sync_started" && line["pid"] != first;
        let pid = site.service.line_where("of the second run", is_second)["pid"].to_string();
        let killed = Command::new("kill").args(["-9", &pid]).status().unwrap();
        assert!(killed.success());
        run.join().unwrap()
    });
    assert_eq!((&last["status"], &last["side"]), (&json!("error"), &json!("pipeline")), "{last}");
    let record = site.host.json("state/reading/run.json");
    assert_eq!((&record["status"], &record["history"][0]["status"]), (&json!("failed"), &json!("done")));
    assert!(record["error"].as_str().unwrap().contains("signal 9"), "{record}");
}
