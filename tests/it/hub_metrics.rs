//! `hub metrics` shows what the database has, on either engine, and changes nothing.
#![cfg(feature = "sqlite")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::sync::LazyLock;

use jiff::Timestamp;
use observability_hub::store::{MetricRow, Store};
use serde_json::{Value, json};

use crate::support::rows::{config, row};
use crate::support::{Host, skip, skipped_without_root};

const MINUTE: i64 = 60_000;

/// When the three hours began that are in the database, in milliseconds since 1970: they ended an hour ago.
fn begin() -> i64 {
    static NOW: LazyLock<i64> = LazyLock::new(|| Timestamp::now().as_millisecond());
    (*NOW / MINUTE - 240) * MINUTE
}

/// An instant so many seconds after it, as it is written.
fn at(seconds: i64) -> String {
    Timestamp::from_millisecond(begin() + seconds * 1000).unwrap().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Three hours in which the processor is at 10 %, for ten minutes at 90 %, and for ten minutes not looked at.
fn three_hours(host: &str) -> Vec<MetricRow> {
    let minute = |minute: i64| {
        let time = begin() + minute * MINUTE;
        let usage = if (60..70).contains(&minute) { 90.0 } else { 10.0 };
        let units = json!({
            "backup.service": {"cpu_percent": if usage > 50.0 { 150.0 } else { 0.0 }, "memory": 5_000_000},
            "quiet.service": {"cpu_percent": 1.5, "memory": 80_000_000},
        });
        vec![
            row(host, time, "cpu", json!({"usage": usage, "modes": {"user": usage / 2.0}, "package_temp": null})),
            row(host, time, "disk", json!({"/": {"used_percent": 50.5}, "/srv/\u{1b}[31m": {"used_percent": 99}})),
            row(host, time, "unit", units),
        ]
    };
    (0..180).filter(|number| !(100..110).contains(number)).flat_map(minute).collect()
}

fn filled(url: &str, host_name: &str) -> Host {
    let host = Host::new();
    let mut store = Store::open(&config(&host, url, "")).unwrap();
    store.insert_metrics(&three_hours(host_name), &[]).unwrap();
    host
}

fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn ask(host: &Host, arguments: &[&str]) -> Output {
    host.command("hub").arg("metrics").args(arguments).env("TZ", "UTC").output().unwrap()
}

fn answer(host: &Host, arguments: &[&str]) -> Value {
    let output = ask(host, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(host: &Host, arguments: &[&str]) -> (Option<i32>, String) {
    let output = ask(host, arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn line<'a>(answer: &'a Value, chart: &str, name: &str) -> &'a Value {
    let charts = answer["charts"].as_array().unwrap();
    let chart = charts.iter().find(|found| found["name"] == chart).unwrap_or_else(|| panic!("{chart}: {answer:#}"));
    let lines = chart["lines"].as_array().unwrap();
    lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {chart:#}"))
}

/// What is the same on both engines.
fn shows_what_there_was(host: &Host) {
    let whole = answer(host, &["--host", "web", "--since", &at(0)]);
    let used = line(&whole, "cpu", "used");
    assert_eq!((&used["samples"], &used["min"], &used["max"]), (&json!(170), &json!(10.0), &json!(90.0)));
    let mean = (160.0 * 10.0 + 10.0 * 90.0) / 170.0;
    assert!((used["mean"].as_f64().unwrap() - mean).abs() < 1e-9, "{used:#}");
    assert_eq!(used["last"], json!({"time": at(179 * 60), "value": 10.0}));
    // Nobody looked at ten minutes: a gap, and no zero.
    let points = used["points"].as_array().unwrap();
    let (begins, ends) = (at(100 * 60), at(108 * 60));
    let is_in_it = |point: &&Value| point["time"].as_str() > Some(&begins) && point["time"].as_str() < Some(&ends);
    let gap: Vec<_> = points.iter().filter(is_in_it).collect();
    assert!(gap.len() > 2 && gap.iter().all(|point| point["samples"] == 0 && point.get("mean").is_none()), "{gap:#?}");
    assert!(points.iter().all(|point| point["samples"] == 0 || point["min"].as_f64() >= Some(10.0)));

    // In the night: the instant, and half an hour around it.
    let night = answer(host, &["--host", "web", "--at", &at(65 * 60 + 30)]);
    assert_eq!((&night["from"], &night["until"]), (&at(35 * 60 + 30).into(), &at(95 * 60 + 30).into()));
    assert_eq!(line(&night, "cpu", "used")["at"], json!({"time": at(65 * 60), "value": 90.0}));
    assert_eq!(line(&night, "cpu", "used")["samples"], 60);
    // In the gap nothing is known, though something was before it.
    let gap = answer(host, &["--host", "web", "--at", &at(105 * 60)]);
    assert_eq!(line(&gap, "cpu", "used")["at"], Value::Null);

    let units = whole["charts"].as_array().unwrap().iter().find(|chart| chart["name"] == "unit_cpu").unwrap();
    assert_eq!(units["lines"][0]["name"], "backup.service", "the busiest comes first");

    let screen = ask(host, &["--host", "web", "--since", &at(0)]);
    let screen = String::from_utf8(screen.stdout).unwrap();
    for text in ["web", " UTC, ", "CPU", "used", "90.0 %", "File systems", "backup.service", "80 MB"] {
        assert!(screen.contains(text), "{text} is not in\n{screen}");
    }
    assert!(!screen.contains('\u{1b}'), "{screen:?}");
}

#[test]
fn a_sqlite_file_is_shown() {
    shows_what_there_was(&filled("sqlite:hub.db", "web"));
}

#[test]
#[cfg(feature = "postgres")]
fn postgresql_is_shown_whatever_type_its_times_have() {
    let Some(cluster) = crate::support::postgres::shared() else { return };
    shows_what_there_was(&filled(&cluster.database("hub_metrics").url(), "web"));
    for (name, kind) in [("hub_metrics_coarse", "TIMESTAMPTZ(0)"), ("hub_metrics_without_zone", "TIMESTAMP")] {
        let database = cluster.database(name);
        let table = format!(
            "CREATE TABLE system_metrics (time {kind} NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL, metric_type TEXT NOT NULL, payload JSONB NOT NULL)"
        );
        let give = format!("{table}; ALTER TABLE system_metrics OWNER TO {name}");
        database.superuser().batch_execute(&give).unwrap();
        shows_what_there_was(&filled(&database.url(), "web"));
    }
}

/// Forty days, a row every ten minutes whose value is the number of its day, of which the rows of the first 26 are gone.
fn shows_what_hours_know(host: &Host, url: &str, forget: impl FnOnce(i64)) {
    const DAY: i64 = 24 * 60 * MINUTE;
    let first = begin() - 40 * DAY;
    let rows: Vec<_> = (0..40 * 144)
        .map(|number| row("web", first + number * 10 * MINUTE, "cpu", json!({"usage": (number / 144) as f64})))
        .collect();
    let mut store = Store::open(&config(host, url, "")).unwrap();
    rows.chunks(1000).for_each(|rows| drop(store.insert_metrics(rows, &[]).unwrap()));
    forget(first + 26 * DAY);
    let shown = answer(host, &["--host", "web", "--since", "45d"]);
    let used = line(&shown, "cpu", "used");
    assert_eq!((&used["samples"], &used["min"], &used["max"]), (&json!(5760), &json!(0.0), &json!(39.0)));
    assert_eq!(used["mean"].as_f64().map(|mean| (mean * 1e6).round() / 1e6), Some(19.5));
    assert_eq!(used["last"]["value"], 39.0);
    // Of an instant whose rows are there yet its own are shown; of one whose rows are gone nothing is known.
    let at = |days: i64| at(-(40 - days) * 24 * 3600 + 3600);
    let near = answer(host, &["--host", "web", "--since", "45d", "--at", &at(30)]);
    let near = line(&near, "cpu", "used");
    assert_eq!((&near["at"], &near["samples"]), (&json!({"time": at(30), "value": 30.0}), &json!(5760)));
    let gone = answer(host, &["--host", "web", "--since", "45d", "--at", &at(3)]);
    let gone = line(&gone, "cpu", "used");
    assert_eq!((&gone["at"], &gone["samples"]), (&Value::Null, &json!(5760)));
}

#[test]
fn a_long_time_is_shown_by_its_hours() {
    let host = Host::new();
    let file = host.state().join("data/hub.db");
    shows_what_hours_know(&host, "sqlite:hub.db", |before| {
        let database = rusqlite::Connection::open(file).unwrap();
        assert!(database.execute("DELETE FROM system_metrics WHERE time < ?1", [before]).unwrap() > 3000);
    });
}

#[test]
#[cfg(feature = "postgres")]
fn a_long_time_is_shown_by_its_hours_on_postgresql() {
    let Some(cluster) = crate::support::postgres::shared() else { return };
    let database = cluster.database("hub_metrics_hours");
    shows_what_hours_know(&Host::new(), &database.url(), |before| {
        let sql = format!("DELETE FROM system_metrics WHERE time < to_timestamp({})", before / 1000);
        assert!(database.superuser().execute(&sql, &[]).unwrap() > 3000);
    });
}

#[test]
fn what_happened_stands_beside_it() {
    let host = filled("sqlite:hub.db", &own_name());
    let folder = host.state().join("gitops");
    std::fs::create_dir_all(&folder).unwrap();
    let event = |at: &str, subject: &str| json!({"at": at, "kind": "deployed", "about": "acme/infra", "status": "deployed", "to": "0123456789abcdef", "subject": subject});
    let events = [event(&at(-1), "too early"), event(&at(90), "new \u{1b}[2J backup")];
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(folder.join("history.jsonl"), lines).unwrap();
    let whole = answer(&host, &["--since", &at(0)]);
    assert_eq!(whole["events"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&whole["events"][0]["service"], &whole["events"][0]["about"]),
        (&"gitops-sync".into(), &"acme/infra".into())
    );
    let screen = String::from_utf8(ask(&host, &["--since", &at(0)]).stdout).unwrap();
    assert!(
        screen.contains(&format!("{}  gitops-sync", &at(90)[11..19]))
            && screen.contains('▲')
            && !screen.contains("too early"),
        "{screen}"
    );
    assert!(!screen.contains('\u{1b}'), "{screen:?}");
}

#[test]
fn what_is_not_there_is_said_and_nothing_is_made() {
    let host = Host::new();
    host.configure("[database]\nurl = \"sqlite:hub.db\"\n");
    let (code, text) = refusal(&host, &[]);
    assert!(code == Some(1) && text.contains("nothing has been measured yet"), "{text}");
    assert!(!host.state().join("data").exists());

    let host = filled("sqlite:hub.db", "web");
    let before = std::fs::read(host.state().join("data/hub.db")).unwrap();
    let (code, text) = refusal(&host, &["--host", "nowhere"]);
    assert!(code == Some(1) && text.contains("nothing of nowhere") && text.contains("--host it shows web"), "{text}");
    for arguments in [["--at", "2090-01-01"], ["--since", "2090-01-01T00:00:00Z"], ["--at", "noon"]] {
        let (code, text) = refusal(&host, &arguments);
        assert!(code == Some(2), "{arguments:?}: {text}");
    }
    // A year in which nothing was measured.
    let screen = String::from_utf8(ask(&host, &["--host", "web", "--at", "2025-01-01"]).stdout).unwrap();
    assert!(screen.contains("Nothing was measured"), "{screen}");
    assert_eq!(std::fs::read(host.state().join("data/hub.db")).unwrap(), before);
}

#[test]
fn rows_that_others_wrote_cost_themselves() {
    let host = filled("sqlite:hub.db", "web");
    let database = rusqlite::Connection::open(host.state().join("data/hub.db")).unwrap();
    let payloads = ["[]", "7", "\"x\"", "{\"usage\": \"many\", \"modes\": [1]}", "{\"usage\": {\"usage\": 1}}", "null"];
    for (number, payload) in payloads.into_iter().enumerate() {
        let time = begin() + 30 * MINUTE + 1 + number as i64;
        let sql =
            "INSERT INTO system_metrics (time, host, os, metric_type, payload) VALUES (?1, 'web', 'linux', 'cpu', ?2)";
        database.execute(sql, rusqlite::params![time, payload]).unwrap();
    }
    drop(database);
    shows_what_there_was(&host);
}

#[test]
fn a_member_of_the_group_may_read() {
    if skipped_without_root() {
        return;
    }
    let host = filled("sqlite:hub.db", "web");
    let data = host.state().join("data");
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(host.state(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(host.path("hub.toml"), PermissionsExt::from_mode(0o644)).unwrap();
    for entry in std::fs::read_dir(&data).unwrap() {
        std::os::unix::fs::chown(entry.unwrap().path(), None, Some(65534)).unwrap();
    }
    std::os::unix::fs::chown(&data, None, Some(65534)).unwrap();
    let as_member = |group: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=12345", &format!("--regid={group}"), "--clear-groups"]);
        command.arg(host.command("hub").get_program()).args(["metrics", "--host", "web", "--since", &at(0)]);
        command.envs(host.command("hub").get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap()
    };
    let member = as_member("65534");
    assert!(member.status.success() && String::from_utf8_lossy(&member.stdout).contains("90.0 %"), "{member:?}");
    let stranger = as_member("12345");
    assert_eq!(stranger.status.code(), Some(1), "{stranger:?}");
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("ermission denied"), "{stranger:?}");
}

#[test]
fn what_is_no_file_is_named_and_not_waited_for() {
    let host = filled("sqlite:hub.db", "web");
    let data = host.state().join("data");
    for name in ["hub.db-journal", "hub.db"] {
        let path = data.join(name);
        let _ = std::fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut command = Command::new("timeout");
        command.arg("20").arg(host.command("hub").get_program()).args(["metrics", "--host", "web"]);
        command.envs(host.command("hub").get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains("is no regular file"), "{name}: {output:?}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_time_zone_is_known_by_its_name() {
    if !std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        return skip::skip("time zones by name", "no /usr/share/zoneinfo; apt-get install tzdata");
    }
    let host = filled("sqlite:hub.db", "web");
    let output = host.command("hub").args(["metrics", "--host", "web"]).env("TZ", "Asia/Tokyo").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(" JST, "), "{output:?}");
}
