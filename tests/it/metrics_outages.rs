//! system-metrics while the database is down, and killed: every sample is stored once, in order.
#![cfg(feature = "sqlite")]

use std::time::Instant;

use crate::support::Host;
use crate::support::metrics::{
    command, in_order_and_once, kill_at_every_step, nobody, print, run, spooled, spooled_rows, stored, tree_of,
};

#[test]
fn an_outage_of_five_runs_is_replayed_in_order_and_once() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    for _ in 0..5 {
        let lines = run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
        assert!(lines.contains("metrics_spooled"), "{lines}");
    }
    let waiting = spooled_rows(&host);
    assert!(waiting >= 5 * 10 && waiting.is_multiple_of(5), "{waiting}");
    assert_eq!(print(&host, &tree)["metrics"]["run"]["spool"]["rows"], waiting);
    let record = host.json("state/data/metrics/run.json");
    assert_eq!((&record["status"], &record["counts"]["spooled"]), (&"spooled".into(), &(waiting / 5).into()));
    let lines = run(&mut command(&host, &tree), 0);
    assert!(lines.contains(&format!("\"replayed\":{waiting}")), "{lines}");
    run(&mut command(&host, &tree), 0);
    let rows = stored(&host);
    assert_eq!((rows.len(), spooled_rows(&host)), (waiting / 5 * 7, 0));
    in_order_and_once(&rows);
}

#[test]
fn killed_at_any_moment_it_stores_everything_once_and_goes_on() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    let started = Instant::now();
    run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    let whole = started.elapsed();
    for part in 0..40u32 {
        let mut command = command(&host, &tree);
        if part % 2 == 0 {
            command.env("DATABASE_URL", nobody());
        }
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * part / 36);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let waiting = spooled_rows(&host);
    run(&mut command(&host, &tree), 0);
    assert_eq!(spooled_rows(&host), 0);
    let rows = stored(&host);
    assert!(rows.len() > waiting);
    in_order_and_once(&rows);
    let leftovers = std::fs::read_dir(host.path("state/data/metrics")).unwrap();
    let leftovers = leftovers.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert!(leftovers.count() < 40, "unfinished files are not taken for others");
}

#[test]
fn killed_at_every_step_of_a_replay_nothing_is_lost_or_doubled() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    run(&mut command(&host, &tree), 0);
    let waiting = std::cell::RefCell::new(Vec::new());
    let killed = kill_at_every_step(
        || {
            run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
            waiting.replace(spooled(&host));
        },
        || command(&host, &tree),
        |step| {
            run(&mut command(&host, &tree), 0);
            let rows = stored(&host);
            assert!(waiting.borrow().iter().all(|row| rows.contains(row)), "killed at {step}: rows are lost");
            in_order_and_once(&rows);
            assert_eq!(spooled_rows(&host), 0, "killed at {step}");
        },
    );
    assert!(killed.is_none_or(|killed| killed > 10), "{killed:?} steps");
}

#[test]
fn killed_at_every_step_of_spooling_it_keeps_what_waited() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    let before = std::cell::RefCell::new(Vec::new());
    let killed = kill_at_every_step(
        || {
            run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
            before.replace(spooled(&host));
        },
        || {
            let mut command = command(&host, &tree);
            command.env("DATABASE_URL", nobody());
            command
        },
        |step| {
            let after = spooled(&host);
            assert!(
                after.starts_with(&before.borrow()),
                "killed at {step}: {} of {}",
                after.len(),
                before.borrow().len()
            );
            in_order_and_once(&after);
        },
    );
    assert!(killed.is_none_or(|killed| killed > 3), "{killed:?} steps");
    let waiting = spooled(&host);
    run(&mut command(&host, &tree), 0);
    let rows = stored(&host);
    assert_eq!(rows[..waiting.len()], waiting, "all of it, in order");
}

#[test]
fn a_row_that_the_database_refuses_is_set_aside_and_said_to_be_lost() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    let spool = host.path("state/data/metrics/spool");
    let bad = r#"{"time":1795445894000,"host":"h","os":"o","metric_type":"cpu","payload":{"text":"a\u0000b"}}"#;
    let time = jiff::Timestamp::now().as_millisecond();
    std::fs::write(spool.join("000000000000.jsonl"), bad.replace("1795445894000", &time.to_string()) + "\n").unwrap();
    let lines = run(&mut command(&host, &tree), 1);
    assert!(lines.contains("row_refused") && lines.contains("NUL character"), "{lines}");
    assert!(std::fs::read_to_string(spool.join("refused.jsonl")).unwrap().contains("a\\u0000b"));
    run(&mut command(&host, &tree), 0);
    assert_eq!(spooled_rows(&host), 0);
    assert_eq!(host.json("state/data/metrics/spool/losses.json")["refused"], 1);
}
