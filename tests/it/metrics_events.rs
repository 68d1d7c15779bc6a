//! What happened on the host reaches the database beside the metrics, each event once, and costs no sample.
#![cfg(all(feature = "postgres", feature = "sqlite"))]

use crate::support;
use std::cell::Cell;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;

use crate::support::Host;
use crate::support::metrics::{command, kill_at_every_step, nobody, run, tree_of};
use crate::support::postgres::{Cluster, Database, counting_relay, shared};
use observability_hub::Folder;
use observability_hub::history::{Event, Kind};
use serde_json::{Value, json};

const SERVICES: [(&str, &str); 6] = [
    ("proxy", "proxy"),
    ("gitops-sync", "gitops"),
    ("tailscale-gate", "gate"),
    ("reading-sync", "reading"),
    ("system-metrics", "data/metrics"),
    ("hub-watch", "watch"),
];

struct Site {
    host: Host,
    tree: PathBuf,
    url: Option<String>,
}

impl Site {
    fn new(database: Option<&Database<'_>>) -> Self {
        let host = Host::new();
        let tree = tree_of(&host, "pi4");
        for (_, folder) in SERVICES {
            std::fs::create_dir_all(host.state().join(folder)).unwrap();
        }
        Self { host, tree, url: database.map(Database::url) }
    }

    fn command(&self) -> Command {
        let mut command = command(&self.host, &self.tree);
        if let Some(url) = &self.url {
            command.env("DATABASE_URL", url);
        }
        command
    }

    #[track_caller]
    fn run(&self) -> String {
        let lines = run(&mut self.command(), 0);
        assert!(lines.contains("\"metrics_stored\"") && !lines.contains("spooled"), "{lines}");
        lines
    }

    fn folder(&self, name: &str) -> Folder {
        Folder::open(&self.host.state().join(name)).unwrap()
    }

    fn happens(&self, folder: &str, kind: Kind, about: &str) {
        Event::new(kind, about, "x").with("n", 1).append(&self.folder(folder));
    }

    /// Appends lines to a history as they are.
    fn write(&self, folder: &str, lines: &[u8]) {
        let path = self.host.state().join(folder).join("history.jsonl");
        let before = std::fs::read(&path).unwrap_or_default();
        std::fs::write(path, [&before[..], lines].concat()).unwrap();
    }

    fn sqlite(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.host.path("state/data/hub.db")).unwrap()
    }

    /// Service and subject of each event, in the order of time.
    fn stored(&self, database: Option<&Database<'_>>) -> Vec<(String, String)> {
        let sql = "SELECT service, about FROM hub_events ORDER BY time, about";
        match database {
            Some(database) => {
                let rows = database.superuser().query(sql, &[]).unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
            None => {
                let connection = self.sqlite();
                let mut query = connection.prepare(sql).unwrap();
                let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                rows.map(Result::unwrap).collect()
            }
        }
    }

    fn abouts(&self, database: Option<&Database<'_>>) -> Vec<String> {
        self.stored(database).into_iter().map(|(_, about)| about).collect()
    }

    fn record(&self) -> Value {
        self.host.json("state/data/metrics/run.json")
    }
}

/// A line of a history that happened so many seconds after an instant.
fn line(second: i64, about: &str) -> String {
    let at = jiff::Timestamp::from_second(1_780_000_000 + second).unwrap();
    json!({"at": at, "kind": "deployed", "about": about, "status": "deployed", "to": about}).to_string() + "\n"
}

fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|number| format!("{number:04}")).collect()
}

/// Runs a test on both engines.
fn on_both(name: &str, test: impl Fn(&Site, Option<&Database<'_>>)) {
    test(&Site::new(None), None);
    let Some(cluster) = shared() else { return };
    let database = cluster.database(name);
    test(&Site::new(Some(&database)), Some(&database));
}

#[test]
fn what_happened_is_there_once_with_all_that_is_known() {
    on_both("events_whole", |site, database| {
        for (service, folder) in SERVICES {
            site.happens(folder, Kind::Started, service);
        }
        let event = Event::new(Kind::Deployed, "acme/a", "deployed").because(Some("why"));
        event.with("to", "1234").with("list", ["a", "b"]).append(&site.folder("gitops"));
        assert!(site.run().contains("\"events\":7"));
        assert_eq!(site.record()["counts"]["events"], 7);
        for _ in 0..3 {
            assert!(!site.run().contains("\"events\""), "they are there already");
        }
        let mut services: Vec<String> = site.stored(database).into_iter().map(|(service, _)| service).collect();
        services.sort();
        let mut wanted: Vec<&str> = SERVICES.iter().map(|(service, _)| *service).chain(["gitops-sync"]).collect();
        wanted.sort_unstable();
        assert_eq!(services, wanted);
        let sql = "SELECT CASE WHEN host = (SELECT max(host) FROM system_metrics) THEN 'it' END || '|' || kind || '|' || status || '|' || reason || '|' || CAST(payload AS TEXT) \
                   FROM hub_events WHERE about = 'acme/a'";
        let text: String = match database {
            Some(database) => database.superuser().query_one(sql, &[]).unwrap().get(0),
            None => site.sqlite().query_row(sql, [], |row| row.get(0)).unwrap(),
        };
        let (head, payload) = text.rsplit_once('|').unwrap();
        assert_eq!(head, "it|deployed|deployed|why");
        assert_eq!(serde_json::from_str::<Value>(payload).unwrap(), json!({"to": "1234", "list": ["a", "b"]}));
        site.happens("gate", Kind::Opened, "later");
        site.run();
        assert_eq!(site.stored(database).last().unwrap(), &("tailscale-gate".to_owned(), "later".to_owned()));
    });
}

#[test]
fn a_backlog_goes_in_parts_whatever_the_clock_did() {
    on_both("events_backlog", |site, database| {
        // Each is older than the one before it.
        let lines: String = (0..450).rev().map(|number| line(number, &format!("{number:04}"))).collect();
        site.write("gitops", lines.as_bytes());
        site.happens("watch", Kind::Raised, "another");
        let mut before = 0;
        for _ in 0..4 {
            site.run();
            let now = site.abouts(database).len();
            assert!(now - before <= 200, "{before} {now}");
            before = now;
        }
        let mut abouts = site.abouts(database);
        assert_eq!(abouts.pop().unwrap(), "another");
        assert_eq!(abouts, numbers(0..450));
    });
}

#[test]
fn an_outage_and_a_mark_that_was_not_kept_lose_and_double_nothing() {
    on_both("events_outage", |site, database| {
        let marks = site.host.path("state/data/metrics/events.json");
        for number in 0..12 {
            site.write("proxy", line(number, &format!("{number:04}")).as_bytes());
            match number % 3 {
                0 => drop(run(command(&site.host, &site.tree).env("DATABASE_URL", nobody()), 0)),
                // As after kill -9 between the commit and the mark, or with a mark that is damaged, or gone.
                1 => {
                    let before = std::fs::read(&marks).unwrap_or_default();
                    site.run();
                    assert!(number < 9 || !before.is_empty());
                    match number {
                        4 => std::fs::write(&marks, "{\"marks\": 3").unwrap(),
                        7 => std::fs::remove_file(&marks).unwrap(),
                        _ => std::fs::write(&marks, before).unwrap(),
                    }
                }
                _ => drop(site.run()),
            }
        }
        site.run();
        assert_eq!(site.abouts(database), numbers(0..12));
    });
}

#[test]
fn killed_at_every_step_each_event_is_there_once() {
    let number = Cell::new(0);
    let next = || number.replace(number.get() + 1);
    let test = |site: &Site, database: Option<&Database<'_>>| {
        number.set(0);
        let happens = || {
            let number = next();
            site.write("gitops", line(number, &format!("{number:04}")).as_bytes());
        };
        happens();
        site.run();
        let killed = kill_at_every_step(
            happens,
            || site.command(),
            |step| {
                site.run();
                assert_eq!(site.abouts(database), numbers(0..number.get()), "killed at {step}");
            },
        );
        assert!(killed.is_none_or(|killed| killed > 5), "{killed:?} steps");
    };
    on_both("events_killed", test);
}

#[test]
fn files_that_are_moved_and_torn_lines_cost_nothing() {
    on_both("events_moved", |site, database| {
        let mut wanted = Vec::new();
        for part in 0..5 {
            for at in 0..14 {
                let about = format!("{part}-{at:02}");
                // So long that two or three times in between the file is full.
                Event::new(Kind::Refused, &about, "refused")
                    .with("x", "x".repeat(30_000))
                    .append(&site.folder("gitops"));
                wanted.push(about);
            }
            site.run();
            // What a power cut left; the next line makes it one of its own.
            site.write("gitops", &line(part, "torn").as_bytes()[..40]);
            site.run();
        }
        assert!(site.host.path("state/gitops/history.1.jsonl").exists());
        let mut stored = site.abouts(database);
        stored.sort();
        assert_eq!(stored, wanted);
        // Two files' worth in between: what is gone is gone, and that is said once.
        for at in 0..80 {
            Event::new(Kind::Refused, &format!("b-{at:02}"), "refused")
                .with("x", "x".repeat(30_000))
                .append(&site.folder("gitops"));
        }
        let lines = site.run();
        assert!(lines.contains("has not any more what was sent last"), "{lines}");
        for _ in 0..3 {
            assert!(!site.run().contains("has not any more"));
        }
        assert!(site.abouts(database).contains(&"b-79".to_owned()));
        let left = std::fs::read_to_string(site.host.path("state/gitops/history.1.jsonl")).unwrap().lines().count()
            + std::fs::read_to_string(site.host.path("state/gitops/history.jsonl")).unwrap().lines().count();
        assert!(site.abouts(database).len() >= wanted.len() + left - 1);
    });
}

#[test]
fn text_that_no_database_takes_costs_itself_at_most() {
    on_both("events_hostile", |site, database| {
        let lines: [&[u8]; 11] = [
            b"{\"at\": \"2026-01-01T00:00:00Z\", \"kind\": \"a\\u0000b\", \"about\": \"nul\\u0000\", \"reason\": \"\\u0000\", \"\\u0000\": \"\\\\u0000\"}\n",
            b"{\"at\": \"2026-01-01T00:00:01Z\", \"kind\": \"k\", \"about\": \"surrogate\", \"x\": \"\\ud800\"}\n",
            b"{\"at\": \"2026-01-01T00:00:02Z\", \"kind\": \"k\", \"about\": \"\xff\"}\n",
            b"{\"at\": \"yesterday\", \"kind\": \"k\", \"about\": \"no time\"}\n",
            b"{\"at\": \"-009999-01-02T00:00:00Z\", \"kind\": \"k\", \"about\": \"before time\"}\n",
            b"{\"at\": \"2026-01-01T00:00:03Z\", \"kind\": \"k\", \"about\": \"1e999\", \"x\": 1e999}\n",
            b"{\"at\": \"9999-12-30T00:00:00Z\", \"kind\": \"k\", \"about\": \"far\", \"x\": 1e308, \"y\": 18446744073709551615}\n",
            b"[]\nnull\n7\n\n\r\n",
            b"{\"at\": \"2026-01-01T00:00:04Z\", \"kind\": \"k\", \"about\": \"'; DROP TABLE hub_events; --\"}\n",
            b"{\"at\": \"2026-01-01T00:00:05Z\", \"kind\": \"k\", \"about\": \"\\u202e\xf0\x9f\x98\x80\"}\n",
            b"{\"at\": \"2026-01-01T00:00:06Z\", \"kind\": \"k\", \"about\": \"deep\", \"x\": ",
        ];
        lines.iter().for_each(|line| site.write("gitops", line));
        site.write("gitops", ("[".repeat(100_000) + "\n").as_bytes());
        let long = json!({"at": "2026-01-01T00:00:07Z", "kind": "k".repeat(9000), "about": "l".repeat(9000)});
        site.write("gitops", format!("{long}\n").as_bytes());
        let lines = site.run();
        assert!(lines.contains("history_lines_skipped"), "{lines}");
        assert!(!site.run().contains("history_lines_skipped"));
        let abouts = site.abouts(database);
        let starts: Vec<String> = abouts.iter().map(|about| about.chars().take(4).collect()).collect();
        assert_eq!(starts, ["nul\u{fffd}", "'; D", "\u{202e}😀", "llll", "far"]);
        assert_eq!(site.record()["status"], "stored");
    });
}

#[test]
fn another_database_gets_what_is_still_known() {
    let Some(cluster) = shared() else { return };
    let (one, two) = (cluster.database("events_one"), cluster.database("events_two"));
    let mut site = Site::new(Some(&one));
    for number in 0..5 {
        site.write("gitops", line(number, &format!("{number:04}")).as_bytes());
    }
    site.run();
    assert_eq!(site.abouts(Some(&one)), numbers(0..5));
    for database in [&two, &one] {
        site.url = Some(database.url());
        site.happens("gate", Kind::Opened, "z");
        site.run();
        site.run();
        assert_eq!(site.abouts(Some(database))[..5], numbers(0..5));
    }
    // Somebody drops the table, or its rows: a restored copy is older than the host.
    for sql in ["DROP TABLE hub_events", "DELETE FROM hub_events WHERE about > '0002'"] {
        one.superuser().batch_execute(sql).unwrap();
        site.run();
        site.run();
        assert_eq!(site.abouts(Some(&one)).len(), 5 + 2, "{sql}");
    }
    // To a file, and the file is thrown away.
    site.url = None;
    for _ in 0..2 {
        site.run();
        site.run();
        assert_eq!(site.abouts(None)[..5], numbers(0..5));
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(site.host.path(&format!("state/data/hub.db{end}")));
        }
    }
}

/// Runs several times: the samples are stored, and `says` is told in the first run alone.
#[track_caller]
fn told_once(site: &Site, says: &str) {
    let lines = site.run();
    assert!(lines.contains("events_not_stored") && lines.contains(says), "{says}: {lines}");
    for _ in 0..3 {
        let lines = site.run();
        assert!(!lines.contains("WARN") && !lines.contains("ERROR"), "{says}: {lines}");
    }
    let reasons = &site.record()["details"]["not_sent"];
    assert!(reasons[0].as_str().unwrap().contains(says), "{reasons}");
    assert_eq!(site.record()["status"], "stored");
}

#[test]
fn a_table_that_cannot_be_used_costs_no_sample() {
    let Some(cluster) = Cluster::start(&["log_min_messages=error"]) else { return };
    let database = cluster.database("events_rights");
    let site = Site::new(Some(&database));
    site.run();
    let mut superuser = database.superuser();
    let mut sql = |sql: &str| superuser.batch_execute(sql).unwrap();
    sql(
        "DROP TABLE hub_events; ALTER DATABASE events_rights OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    site.happens("gitops", Kind::Deployed, "a");
    told_once(&site, "may not make hub_events");
    // What the log says is what helps.
    let reason = site.record()["details"]["not_sent"][0].as_str().unwrap().to_owned();
    sql(reason.split_once("run as who may: ").unwrap().1);
    site.run();
    assert_eq!(site.abouts(Some(&database)), ["a"]);
    assert_eq!(site.record()["details"], Value::Null);
    sql("REVOKE INSERT ON hub_events FROM events_rights");
    site.happens("gitops", Kind::Deployed, "b");
    told_once(&site, "may not write to hub_events");
    for (table, says) in [
        ("CREATE TABLE hub_events (id INT)", "no column time timestamp with time zone"),
        ("CREATE VIEW hub_events AS SELECT now() AS time", "no column host text"),
        (
            "CREATE TABLE hub_events (time TIMESTAMPTZ, host TEXT, service TEXT, kind TEXT, about TEXT, status TEXT, \
             reason TEXT, payload JSONB)",
            "no unique key",
        ),
        (
            "CREATE TABLE hub_events (time TIMESTAMPTZ, host TEXT, service TEXT, kind TEXT, about TEXT, status TEXT, \
             reason TEXT, payload JSONB, site TEXT NOT NULL, UNIQUE (about, kind, time, service, host))",
            "a column site text that each row must fill",
        ),
    ] {
        sql(
            "DO $$ BEGIN EXECUTE (SELECT CASE relkind WHEN 'v' THEN 'DROP VIEW' ELSE 'DROP TABLE' END || ' hub_events' \
             FROM pg_class WHERE relname = 'hub_events'); END $$",
        );
        sql(table);
        sql("GRANT ALL ON hub_events TO events_rights");
        told_once(&site, says);
    }
    let log = std::fs::read_to_string(cluster.socket_folder().join("log")).unwrap();
    assert!(!log.contains("ERROR:"), "nothing is tried that the server refuses: {log}");
    // A rule of somebody's: tried once, and not again each minute.
    sql(
        "DROP TABLE hub_events; CREATE TABLE hub_events (time TIMESTAMPTZ, host TEXT, service TEXT, kind TEXT, about TEXT, \
         status TEXT, reason TEXT, payload JSONB, UNIQUE (host, service, time, kind, about), CHECK (about <> 'b')); \
         GRANT ALL ON hub_events TO events_rights",
    );
    told_once(&site, "violates check constraint");
    sql("ALTER TABLE hub_events DROP CONSTRAINT hub_events_about_check");
    site.run();
    assert!(!site.abouts(Some(&database)).contains(&"b".to_owned()), "not before the hour is over");
    let marks = site.host.path("state/data/metrics/events.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&marks).unwrap()).unwrap();
    kept["refused"] = (kept["refused"].as_i64().unwrap() - 3600).into();
    std::fs::write(&marks, kept.to_string()).unwrap();
    site.run();
    site.run();
    assert_eq!(site.abouts(Some(&database)), ["a", "b"]);
    let kinds = database.number("SELECT count(DISTINCT metric_type) FROM system_metrics");
    assert_eq!(database.count() % kinds, 0);
}

#[test]
fn a_file_with_another_table_of_this_name_costs_no_sample() {
    for (table, says) in [
        ("CREATE TABLE hub_events (id INTEGER)", "has no column named time"),
        (
            "CREATE TABLE HUB_EVENTS (time, host, service, kind, about, status, reason, payload)",
            "ON CONFLICT clause does not match",
        ),
        (
            "CREATE TABLE hub_events (time, host, service, kind, about, status, reason, payload CHECK (payload = 1), \
             UNIQUE (host, service, time, kind, about))",
            "CHECK constraint failed",
        ),
    ] {
        let site = Site::new(None);
        std::fs::create_dir_all(site.host.path("state/data")).unwrap();
        site.sqlite().execute_batch(table).unwrap();
        site.happens("gitops", Kind::Deployed, "a");
        told_once(&site, says);
        site.sqlite().execute_batch("ALTER TABLE hub_events RENAME TO mine").unwrap();
        site.run();
        assert_eq!(site.abouts(None), ["a"], "{table}");
    }
}

#[test]
fn a_character_that_the_database_lacks_costs_its_event() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("events_latin");
    let mut superuser = cluster.superuser("postgres");
    superuser.batch_execute("DROP DATABASE events_latin").unwrap();
    superuser
        .batch_execute("CREATE DATABASE events_latin OWNER events_latin ENCODING 'LATIN1' TEMPLATE template0")
        .unwrap();
    let mut site = Site::new(Some(&database));
    for (number, about) in ["a", "é", "€", "z"].iter().enumerate() {
        site.write("gitops", line(number as i64, about).as_bytes());
    }
    let lines = site.run();
    assert_eq!(lines.matches("event_refused").count(), 1, "{lines}");
    assert!(!site.run().contains("event_refused"));
    assert_eq!(site.abouts(Some(&database)), ["a", "é", "z"]);
    assert_eq!(site.record()["status"], "stored");
    // The last line of a history is sent again with each run, but not what was refused.
    for (number, about) in [(4, "€€"), (5, "y"), (6, "€€€")] {
        site.write("gitops", line(number, about).as_bytes());
        site.write("gate", line(number, "g").as_bytes());
        let lines = site.run();
        assert_eq!(lines.contains("event_refused"), about.contains('€'), "{about}: {lines}");
        for _ in 0..2 {
            let lines = site.run();
            assert!(!lines.contains("ERROR") && !lines.contains("\"events\""), "{about}: {lines}");
        }
    }
    assert_eq!(site.abouts(Some(&database)), ["a", "é", "z", "g", "g", "y", "g"]);
    // Another database may take it.
    let other = cluster.database("events_not_latin");
    site.url = Some(other.url());
    site.run();
    site.run();
    let all = ["a", "é", "€", "z", "g", "€€", "g", "y", "g", "€€€"];
    assert_eq!(site.abouts(Some(&other)), all);
    assert!(!site.run().contains("\"events\""));
}

#[test]
fn a_host_that_gets_another_name_sends_nothing_twice_but_its_last_lines() {
    on_both("events_renamed", |site, database| {
        for number in 0..9 {
            for folder in ["gitops", "gate"] {
                site.write(folder, line(number, &format!("{folder}{number}")).as_bytes());
            }
        }
        site.run();
        // What is there came under another name.
        let sql = "UPDATE hub_events SET host = 'before'";
        match database {
            Some(database) => database.superuser().batch_execute(sql).unwrap(),
            None => site.sqlite().execute_batch(sql).unwrap(),
        }
        let marks = site.host.path("state/data/metrics/events.json");
        let mut kept: Value = serde_json::from_slice(&std::fs::read(&marks).unwrap()).unwrap();
        kept["marks"].as_object_mut().unwrap().values_mut().for_each(|mark| mark["host"] = "before".into());
        std::fs::write(&marks, kept.to_string()).unwrap();
        site.write("gitops", line(9, "gitops9").as_bytes());
        for _ in 0..4 {
            assert!(!site.run().contains("events_sent_anew"));
        }
        let abouts = site.abouts(database);
        assert_eq!(abouts.len(), 19 + 2, "{abouts:?}");
        // Under its new name it knows another database as before.
        let sql = "DELETE FROM hub_events";
        match database {
            Some(database) => database.superuser().batch_execute(sql).unwrap(),
            None => site.sqlite().execute_batch(sql).unwrap(),
        }
        assert!(site.run().contains("events_sent_anew"));
        site.run();
        assert_eq!(site.abouts(database).len(), 19);
    });
}

#[test]
fn events_cost_no_round_trip() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("events_turns");
    let mut site = Site::new(Some(&database));
    site.run();
    let (relay, turns) = counting_relay(cluster.port);
    site.url = Some(format!("postgres://events_turns:geheim@127.0.0.1:{relay}/events_turns?sslmode=disable"));
    for about in ["a", "b"] {
        site.happens("gitops", Kind::Deployed, about);
        let before = turns.load(Ordering::SeqCst);
        site.run();
        assert_eq!(turns.load(Ordering::SeqCst) - before, 3, "two looks at the schema, one for all rows");
    }
    // One transaction: both tables have its number.
    let same =
        "SELECT count(*) FROM hub_events AS e WHERE EXISTS (SELECT FROM system_metrics AS m WHERE m.xmin = e.xmin)";
    assert_eq!(database.number(same), 2);
}

#[test]
fn a_folder_that_may_not_be_read_is_told_and_the_others_are_sent() {
    if !rustix::process::geteuid().is_root() {
        return support::skip::skip("a folder of another user's", "it takes root");
    }
    let site = Site::new(None);
    for folder in ["data", "data/metrics"] {
        chown(site.host.state().join(folder), Some(65534), Some(65534)).unwrap();
    }
    for path in [site.host.path(""), site.host.state()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(site.host.path("state/gitops"), PermissionsExt::from_mode(0o700)).unwrap();
    site.happens("gitops", Kind::Deployed, "a");
    site.happens("proxy", Kind::Started, "b");
    std::fs::set_permissions(site.host.path("state/proxy/history.jsonl"), PermissionsExt::from_mode(0o644)).unwrap();
    told_once(&site, "the history of gitops-sync is not sent to the database");
    assert_eq!(site.abouts(None), ["b"]);
    let doctor = site.host.run("hub", &["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("the history of gitops-sync is not sent"), "{said}");
    std::fs::set_permissions(site.host.path("state/gitops"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(site.host.path("state/gitops/history.jsonl"), PermissionsExt::from_mode(0o644)).unwrap();
    site.run();
    assert_eq!(site.abouts(None), ["a", "b"]);
}
