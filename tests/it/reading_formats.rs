//! The reading pipeline on files that are not one document a line, and on those that are no text at all.
#![cfg(feature = "sqlite")]

use crate::support;
use crate::support::reading;
use std::io::Write as _;

use crate::support::reading::{Site, file_pipeline, line, names, publish};
use rusqlite::Connection;
use serde_json::{Value, json};

fn site() -> Site {
    Site::new(|host| file_pipeline(host, ""))
}

/// The numbers of the documents that are stored, in order.
fn stored(site: &Site) -> Vec<i64> {
    let database = Connection::open(site.host.state().join("data/hub.db")).unwrap();
    let mut statement =
        database.prepare("SELECT CAST(source_id AS INTEGER) FROM reading_analytics ORDER BY 1").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(content).unwrap();
    gz.finish().unwrap()
}

fn document(number: usize) -> Value {
    json!({"_id": number, "payload": {"text": "a \"quoted\" } ] text", "list": [{"n": number}, []]}})
}

fn pretty(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("{}\n", serde_json::to_string_pretty(&document(number)).unwrap())).collect()
}

#[test]
fn lists_and_documents_over_several_lines_are_read() {
    let site = site();
    let list = |numbers: std::ops::Range<usize>| Value::Array(numbers.map(document).collect());
    // As mongoexport --jsonArray writes it, by hand, compressed, and with nothing in it.
    publish(&site.host, "a.json", list(0..2000).to_string().as_bytes());
    publish(
        &site.host,
        "b.json",
        format!("\u{feff}\n {}\n", serde_json::to_string_pretty(&list(2000..2010)).unwrap()).as_bytes(),
    );
    publish(&site.host, "c.json.gz", &gz(list(2010..4000).to_string().as_bytes()));
    publish(&site.host, "d.json", b" [ ] \n");
    // Documents over several lines, several in one line, both in turns with lines.
    publish(&site.host, "e.json", pretty(4000..4010).as_bytes());
    let several: String = (4010..4020).map(|number| document(number).to_string()).collect();
    publish(&site.host, "f.jsonl", format!("{several} {}\n", document(4020)).as_bytes());
    let mixed = format!(
        "{}{}\r\n{}{} {}",
        pretty(4021..4022),
        document(4022),
        pretty(4023..4024).trim_end(),
        document(4024),
        pretty(4025..4026)
    );
    publish(&site.host, "g.jsonl", mixed.replace('\n', "\r\n").as_bytes());
    // One line that is as long as a file.
    let one: String = (4026..9000).map(|number| document(number).to_string()).collect();
    publish(&site.host, "h.json", one.as_bytes());
    let result = site.synced("reading");
    assert_eq!(
        (&result["stored"], &result["dead_letters"], &result["damaged_files"]),
        (&json!(9000), &json!(0), &json!(null)),
        "{result}"
    );
    assert_eq!(stored(&site), (0..9000).collect::<Vec<_>>());
    assert_eq!(names(&site.host, "."), ["processed"]);
}

#[test]
fn what_is_broken_in_them_is_one_dead_letter_or_one_damaged_file() {
    let site = site();
    // A document over several lines with a mistake, whole ones around it, and one that is cut off.
    let broken = pretty(1..2).replace("\"list\":", "\"list\"");
    publish(&site.host, "a.json", format!("{}{broken}{}{{\n  \"_id\": 3,\n", pretty(0..1), pretty(2..3)).as_bytes());
    // Lines that end too early, before lines that could be taken for what is missing.
    publish(
        &site.host,
        "b.jsonl",
        b"{\"_id\":10,\"a\":\n{\"_id\":11}\n{\"_id\":12}\n{\"_id\":13,\"a\":[\n{\"_id\":14}\n",
    );
    publish(&site.host, "c.jsonl", b"{\"_id\":20}x\n{\"_id\":21}{\"_id\":\n{\"_id\":22} {\"_id\":23}]\n");
    publish(
        &site.host,
        "d.json",
        b"[{\"_id\":30},\n{\"_id\":31},\n7,{\"_id\":{\"$oid\":1}},{\"_id\" 32},{\"_id\":33}]",
    );
    publish(&site.host, "e.json", b"[{\"_id\":40},{\"_id\":41}");
    publish(&site.host, "f.json", b"[{\"_id\":50}{\"_id\":51}]\n");
    let result = site.synced("reading");
    assert_eq!(stored(&site), [0, 2, 11, 12, 14, 21, 22, 30, 31, 40, 41, 50]);
    let list = site.hub(&["dead-letters"]);
    for place in [
        "a.json, line 13:",
        "a.json, line 37:",
        "b.jsonl, line 1:",
        "b.jsonl, line 4:",
        "c.jsonl, line 1:",
        "c.jsonl, line 2, document 2:",
        "c.jsonl, line 3, document 2:",
        "d.json, line 3:",
        "d.json, line 3, document 2:",
    ] {
        let (place, _) = place.rsplit_once(':').unwrap();
        assert!(list.lines().any(|line| line.contains(&format!("  {place}  "))), "{place}\n{list}");
    }
    assert_eq!(list.lines().count(), 9, "{list}");
    assert_eq!((&result["dead_letters"], &result["damaged_files"]), (&json!(9), &json!(3)), "{result}");
    assert_eq!(names(&site.host, "failed"), ["d.json", "e.json", "f.json"]);
}

#[test]
fn what_is_no_text_of_json_is_one_damaged_file_with_its_reason() {
    let host = support::Host::new();
    host.configure(&format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{}",
        file_pipeline(&host, "")
    ));
    let log = host.path("log");
    let site = Site::on(host, |command| {
        command.stderr(std::fs::File::create(&log).unwrap());
    });
    let text: String = (0..300).map(line).collect();
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    publish(&site.host, "a.jsonl", &[b"\xff\xfe", &wide[..]].concat());
    publish(&site.host, "b.jsonl", &wide);
    publish(&site.host, "c.jsonl.gz", &gz(&text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>()));
    publish(&site.host, "d.json", &gz(text.as_bytes()));
    let csv: String = (0..5000).map(|n| format!("{n}a,\"x\",2026-01-04\n")).collect();
    publish(&site.host, "e.json", csv.as_bytes());
    publish(&site.host, "f.jsonl", b"\x28\xb5\x2f\xfd\x04\x58");
    let result = site.synced("reading");
    assert_eq!(
        (&result["damaged_files"], &result["dead_letters"], &result["stored"]),
        (&json!(6), &json!(0), &json!(0)),
        "{result}"
    );
    let said = std::fs::read_to_string(&log).unwrap();
    for (file, reason) in [
        ("a.jsonl", "it is UTF-16; write UTF-8"),
        ("b.jsonl", "it is UTF-16; write UTF-8"),
        ("c.jsonl.gz", "it is UTF-16; write UTF-8"),
        ("d.json", "its name does not end in .gz"),
        ("e.json", "none of its first 100 lines is JSON"),
        ("f.jsonl", "zstd"),
    ] {
        let told = said.lines().find(|line| line.contains("file_damaged") && line.contains(&format!("\"{file}\"")));
        assert!(told.is_some_and(|line| line.contains(reason)), "{file}: {said}");
    }
}

#[test]
fn what_was_put_behind_one_another_is_read_to_its_end() {
    let site = site();
    let list = |numbers: std::ops::Range<usize>| Value::Array(numbers.map(document).collect());
    // Exports in one file, some compressed for themselves.
    let pretty_list = |numbers| serde_json::to_string_pretty(&list(numbers)).unwrap();
    publish(&site.host, "a.json", format!("{}\n{}\n{}", list(0..3), pretty_list(3..6), list(6..9)).as_bytes());
    let marked = format!("\u{feff}{}\n{}{}\n", document(9), pretty(10..12), list(12..14));
    publish(&site.host, "b.jsonl", marked.as_bytes());
    let members = [gz(b""), gz("\u{feff}".as_bytes()), gz(b"\n \n"), gz(format!("{}\n", list(14..16)).as_bytes())];
    publish(&site.host, "c.json.gz", &[members.concat(), gz(list(16..18).to_string().as_bytes())].concat());
    publish(&site.host, "d.json", format!("\x1e{}\n\x1e{}", document(18), pretty(19..21)).as_bytes());
    // A document over several lines that is broken, and a list among the lines that were looked at for its end.
    let broken = format!("{{\n  \"a\": oops\n}}\n{}\n{}\n", list(21..23), document(23));
    publish(&site.host, "e.json", broken.as_bytes());
    // A log that is not all JSON, and begins with a bracket.
    let log = format!("[2026-01-04 12:00:00] start\n{}\n[INFO] end\n{}\n", document(24), document(25));
    publish(&site.host, "f.jsonl", log.as_bytes());
    let result = site.synced("reading");
    assert_eq!(stored(&site), (0..26).collect::<Vec<_>>());
    assert_eq!((&result["dead_letters"], &result["damaged_files"]), (&json!(3), &json!(null)), "{result}");
    let list = site.hub(&["dead-letters"]);
    for place in ["e.json, line 1", "f.jsonl, line 1", "f.jsonl, line 3"] {
        assert!(list.lines().any(|line| line.contains(&format!("  {place}  "))), "{place}\n{list}");
    }
}

#[test]
fn what_can_be_read_of_a_damaged_file_is_stored() {
    let site = site();
    // What a crash of the host leaves of a short log, and a compressed one with something behind its end.
    publish(&site.host, "a.jsonl", format!("{}\n{}{}\n", document(0), "\0".repeat(600), document(1)).as_bytes());
    publish(&site.host, "b.jsonl.gz", &[gz(document(2).to_string().as_bytes()), vec![0; 512]].concat());
    let whole = gz(format!("{}\n{}", document(3), document(4)).as_bytes());
    publish(&site.host, "c.jsonl.gz", &whole[..whole.len() - 4]);
    let result = site.synced("reading");
    assert_eq!(stored(&site), [0, 2, 3, 4]);
    assert_eq!((&result["dead_letters"], &result["damaged_files"]), (&json!(1), &json!(2)), "{result}");
    assert_eq!(names(&site.host, "failed"), ["b.jsonl.gz", "c.jsonl.gz"]);
}

#[test]
fn what_follows_a_document_that_is_too_long_is_read_and_nothing_of_it_is_a_dead_letter() {
    let site = site();
    let lines = "    \"0123456789abcdef0123456789abcdef0123456789abcdef\",\n".repeat(1_300_000);
    let long = format!("{{\n  \"_id\": 7,\n  \"list\": [\n{lines}    0\n  ]\n}}");
    publish(&site.host, "a.json", format!("{}\n{long}\n{}\nnot JSON\n", document(0), document(1)).as_bytes());
    publish(&site.host, "b.json", format!("{long} {}\n{long}", document(2)).as_bytes());
    let result = site.synced("reading");
    assert_eq!(stored(&site), [0, 1, 2]);
    assert_eq!((&result["dead_letters"], &result["damaged_files"]), (&json!(1), &json!(2)), "{result}");
    let list = site.hub(&["dead-letters"]);
    assert!(list.contains("  a.json, line 1300009  "), "{list}");
}

#[test]
fn a_short_file_of_another_kind_is_one_damaged_file_too() {
    let site = site();
    publish(&site.host, "a.json", b"id,kind\n1,x\n2,y\n");
    publish(&site.host, "b.json", b"<html>\n<body>404</body></html>\n");
    publish(&site.host, "c.json", b"[INFO] start\n[INFO] end\n");
    // Meant as documents, and a line alone.
    publish(&site.host, "d.json", b"{'a': 1}\n{'a': 2}\n");
    publish(&site.host, "e.json", b"not JSON\n");
    let result = site.synced("reading");
    assert_eq!((&result["dead_letters"], &result["damaged_files"]), (&json!(3), &json!(3)), "{result}");
    assert_eq!(names(&site.host, "failed"), ["a.json", "b.json", "c.json"]);
}

#[test]
fn files_whose_names_differ_in_bytes_that_are_no_text_stay_two() {
    use std::os::unix::ffi::OsStrExt;
    let site = site();
    for byte in [0xfe_u8, 0xff] {
        publish(&site.host, ".made", b"{\"no\":\"id\"}\nnot JSON\n");
        let inbox = reading::inbox(&site.host);
        let name = [&b"a"[..], &[byte], b".jsonl"].concat();
        std::fs::rename(inbox.join(".made"), inbox.join(std::ffi::OsStr::from_bytes(&name))).unwrap();
    }
    let result = site.synced("reading");
    assert_eq!((&result["stored"], &result["dead_letters"]), (&json!(2), &json!(2)), "{result}");
}

#[test]
fn files_of_other_endings_are_named_by_status_and_doctor() {
    let site = site();
    publish(&site.host, "A.JSONL", line(1).as_bytes());
    publish(&site.host, "b.jsonl.zst", b"x");
    publish(&site.host, "c.jsonl", line(2).as_bytes());
    assert_eq!(site.synced("reading")["stored"], 1);
    let status = String::from_utf8_lossy(&site.host.run("hub", &["status"]).stdout).into_owned();
    assert!(status.contains("A.JSONL, b.jsonl.zst"), "{status}");
    let doctor = site.host.run("hub", &["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("A.JSONL, b.jsonl.zst"), "{doctor}");
    std::fs::remove_file(reading::inbox(&site.host).join("A.JSONL")).unwrap();
    std::fs::remove_file(reading::inbox(&site.host).join("b.jsonl.zst")).unwrap();
    site.synced("reading");
    let status = String::from_utf8_lossy(&site.host.run("hub", &["status"]).stdout).into_owned();
    assert!(!status.contains("not read"), "{status}");
}
