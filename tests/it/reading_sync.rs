//! reading-sync as a person at a terminal and as a timer see it.
#![cfg(feature = "sqlite")]

use crate::support;
use std::process::Command;

use crate::support::reading::{Site, file_pipeline, line, publish};

/// A proxy whose inbox has this many documents.
fn site(documents: usize) -> Site {
    let site = Site::new(|host| file_pipeline(host, ""));
    publish(&site.host, "a.jsonl", (0..documents).map(line).collect::<String>().as_bytes());
    site
}

#[test]
fn a_person_at_a_terminal_sees_a_bar_and_a_sentence() {
    let site = site(300);
    let program = site.host.command("reading-sync");
    let mut terminal = Command::new("script");
    let call = format!("{} --url http://{}", program.get_program().display(), site.admin);
    terminal.args(["--quiet", "--return", "--command", &call, "/dev/null"]).env("TERM", "xterm");
    terminal.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = terminal.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("reading [") && shown.contains(" documents, 0 dead letters"), "{shown}");
    assert!(
        shown.contains("reading: 300 documents moved in ") && shown.contains("(300 new or changed rows"),
        "{shown}"
    );
    assert!(!shown.contains("\"msg\""), "{shown}");
}

#[test]
fn a_run_that_takes_longer_than_the_caller_has_goes_on() {
    let site = site(30);
    site.synced("reading");
    publish(&site.host, "b.jsonl", (30..50).map(line).collect::<String>().as_bytes());
    let database = rusqlite::Connection::open(site.host.state().join("data/hub.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = site.reading_sync(&["--deadline", "1"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not done within 1 s; the run goes on in the proxy"), "{said}");
    let output = site.reading_sync(&[]);
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stdout));
    database.execute_batch("ROLLBACK").unwrap();
    support::eventually("the rows are there", || {
        database.query_row("SELECT count(*) FROM reading_analytics", [], |row| row.get::<_, i64>(0)).unwrap() == 50
    });
}

/// Nobody else may be there who writes the log back: system-metrics does so every minute, where it runs.
#[test]
fn the_log_of_the_database_stays_short_over_a_long_run() {
    let site = site(60_000);
    assert_eq!(site.synced("reading")["stored"], 60_000);
    let length = |name: &str| std::fs::metadata(site.host.state().join("data").join(name)).unwrap().len();
    assert!(length("hub.db") > 6 << 20, "{}", length("hub.db"));
    assert!(length("hub.db-wal") < 8 << 20, "{}", length("hub.db-wal"));
}
