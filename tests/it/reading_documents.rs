//! Random documents of every type through the pipeline into both databases in both shapes, and an independent program
//! that rebuilds each of them from its row (tests/support/documents.py).
#![cfg(all(feature = "postgres", feature = "sqlite"))]
#![allow(clippy::print_stdout, reason = "a test may fail anywhere, and says what it tried")]

use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::postgres::Database;
use crate::support::reading::{Site, file_pipeline, publish};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Python with pymongo's bson, in the target folder; none, said aloud, where it cannot be had.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pymongo");
    let python = folder.join("bin/python");
    let made = || {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status();
        let pip = || Command::new(&python).args(["-m", "pip", "install", "--quiet", "pymongo==4.20.0"]).status();
        made.is_ok_and(|status| status.success()) && pip().is_ok_and(|status| status.success())
    };
    let works = Command::new(&python).args(["-c", "import bson"]).status().is_ok_and(|status| status.success());
    if works || made() {
        return Some(python);
    }
    support::skip::skip("random documents", "python3 cannot make a virtual environment with pymongo");
    None
}

fn program(python: &Path, arguments: &[&str]) {
    let output = Command::new(python).arg("tests/support/documents.py").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}");
}

/// Rows and dead letters as JSON lines, every column as text.
type Dump = (Vec<Value>, Vec<Value>);

fn of_postgres(database: &Database<'_>) -> Dump {
    let mut client = database.superuser();
    let sql = "SELECT mongo_id, source_id, (extract(epoch FROM event_timestamp) * 1000)::bigint, source, event_type, \
               payload::text, meta::text FROM reading_analytics";
    let rows = client.query(sql, &[]).unwrap();
    let text = |row: &postgres::Row, at: usize| row.get::<_, Option<String>>(at);
    let rows = rows.iter().map(|row| {
        json!({"mongo_id": text(row, 0), "source_id": text(row, 1), "event_timestamp": row.get::<_, Option<i64>>(2),
               "source": text(row, 3), "event_type": text(row, 4), "payload": text(row, 5), "meta": text(row, 6)})
    });
    let letters = client.query("SELECT place, reason, document FROM dead_letters", &[]).unwrap();
    let letters = letters.iter().map(|row| {
        let document = String::from_utf8(row.get(2)).unwrap();
        json!({"place": text(row, 0), "reason": text(row, 1), "document": document})
    });
    (rows.collect(), letters.collect())
}

fn of_sqlite(site: &Site) -> Dump {
    let database = Connection::open(site.host.state().join("data/hub.db")).unwrap();
    let all = |sql: &str, read: fn(&rusqlite::Row<'_>) -> rusqlite::Result<Value>| -> Vec<Value> {
        let mut statement = database.prepare(sql).unwrap();
        statement.query_map([], read).unwrap().map(Result::unwrap).collect()
    };
    fn text(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<String>> {
        row.get(at)
    }
    let rows = all(
        "SELECT mongo_id, source_id, event_timestamp, source, event_type, payload, meta FROM reading_analytics",
        |row| {
            Ok(
                json!({"mongo_id": text(row, 0)?, "source_id": text(row, 1)?, "event_timestamp": row.get::<_, Option<i64>>(2)?,
                      "source": text(row, 3)?, "event_type": text(row, 4)?, "payload": text(row, 5)?, "meta": text(row, 6)?}),
            )
        },
    );
    let letters = all("SELECT place, reason, document FROM dead_letters", |row| {
        let document = String::from_utf8(row.get(2)?).unwrap();
        Ok(json!({"place": text(row, 0)?, "reason": text(row, 1)?, "document": document}))
    });
    (rows, letters)
}

fn write_lines(path: &Path, values: &[Value]) {
    let text: String = values.iter().map(|value| format!("{value}\n")).collect();
    std::fs::write(path, text).unwrap();
}

#[test]
fn every_document_can_be_rebuilt_from_its_row() {
    let (Some(cluster), Some(python)) = (support::postgres::shared(), python()) else { return };
    let count = std::env::var("HUB_TEST_RANDOM_DOCUMENTS").unwrap_or_else(|_| "3000".to_owned());
    let seed = std::env::var("HUB_TEST_SEED").unwrap_or_else(|_| "1".to_owned());
    println!("seed {seed} (HUB_TEST_SEED), {count} documents (HUB_TEST_RANDOM_DOCUMENTS)");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    program(&python, &["make", &seed, &count, &shown("random.jsonl")]);
    let content = std::fs::read(path("random.jsonl")).unwrap();
    for mode in ["plain", "extended"] {
        let database = cluster.database(&format!("random_{mode}"));
        for (engine, url) in [("postgres", database.url()), ("sqlite", "sqlite:hub.db".to_owned())] {
            let json = format!("json = \"{mode}\"");
            let site = Site::new(|host| format!("[database]\nurl = \"{url}\"\n{}", file_pipeline(host, &json)));
            publish(&site.host, "random.jsonl", &content);
            println!("{engine}, {mode}: {}", site.synced("reading"));
            let (rows, letters) = if engine == "postgres" { of_postgres(&database) } else { of_sqlite(&site) };
            write_lines(&path("rows"), &rows);
            write_lines(&path("dead"), &letters);
            program(&python, &["check", &seed, &count, mode, &shown("rows"), &shown("dead")]);
        }
    }
}
