//! The Grafana dashboards of contrib/grafana: every SQL query runs on a real PostgreSQL or SQLite with the hub's own tables
//! and finds what was put there, every reference is to something that is provisioned.
#![cfg(all(feature = "postgres", feature = "sqlite"))]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::support::Host;
use crate::support::grafana::{
    Answer, Asked, Kind, dashboards, expanded, folder, on_postgres, on_sqlite, plain, queries,
};
use crate::support::postgres::{configured, shared};
use crate::support::rows::{config, row};
use observability_hub::store::{EventRow, MetricRow, Store};
use serde_json::{Value, json};

const PIPELINE: &str =
    "[[pipeline]]\nname = \"reading\"\nsource = \"file:/srv/inbox\"\ntable = \"reading_analytics\"\n";

/// Everything under a key, wherever it is.
fn under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            if name == key {
                found.push(value);
            }
            under(value, key, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| under(value, key, found)),
        _ => {}
    }
}

/// The whole source of the programs.
fn source(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, text);
        } else {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_event_that_a_panel_asks_for_is_one_that_the_programs_log() {
    let mut text = String::new();
    source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let mut asked = 0;
    for (file, dashboard) in dashboards() {
        let mut queries = Vec::new();
        under(&dashboard, "expr", &mut queries);
        for query in queries.iter().map(|query| query.as_str().unwrap()) {
            for part in query.split("msg=").skip(1) {
                let names = part.trim_start_matches('~').trim_start_matches('"').split('"').next().unwrap();
                for name in names.split('|') {
                    let quoted = match name.strip_suffix(".*") {
                        Some(beginning) => format!("\"{beginning}"),
                        None => format!("\"{name}\""),
                    };
                    assert!(text.contains(&quoted), "{file}: nothing logs {name}");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 5, "{asked}");
}

/// One run of a host: `at` is the number that every value is made of.
fn run(host: &str, millis: i64, at: f64) -> Vec<MetricRow> {
    let kinds = [
        ("cpu", json!({"usage": at, "package_temp": at, "core_temps": {"core_0": at}})),
        ("memory", json!({"used_percent": at})),
        ("disk", json!({"/": {"used_percent": 10.0, "free": 9}, "/srv": {"used_percent": 20.0 + at, "free": 8}})),
        ("network", json!({"eth0": {"rx_bytes": 7, "rx_bytes_per_second": at, "tx_bytes_per_second": at}})),
        ("load", json!({"load1": at})),
        ("systemd", json!({"failed": at, "units": ["x.service"]})),
        ("run", json!({"duration_ms": at, "spool": {"rows": at, "bytes": 0}})),
        ("pressure", json!({"io": {"some": {"avg60": at}}})),
        (
            "unit",
            json!({"db.service": {"cpu_percent": at, "memory": at, "read_bytes_per_second": at, "written_bytes_per_second": at}}),
        ),
        ("array", json!({"md0": {"level": "raid1", "state": "clean", "degraded": 0}})),
        ("btrfs", json!({"pool": {"missing": 0, "write_errors": at}})),
        ("disk_io", json!({"sda": {"busy_percent": at, "read_bytes_per_second": at, "written_bytes_per_second": at}})),
    ];
    kinds.into_iter().map(|(kind, payload)| row(host, millis, kind, payload)).collect()
}

/// What gitops-sync told of two hosts before and at an instant: `web` has three commits behind it, the last one failed, and one
/// that was deployed once more for what somebody had changed; another repository went from it.
fn happened(millis: i64) -> Vec<EventRow> {
    let event = |host: &str, seconds: i64, about: &str, kind: &str, payload: Value| EventRow {
        time: jiff::Timestamp::from_millisecond(millis + seconds * 1000).unwrap(),
        host: host.to_owned(),
        service: "gitops-sync".to_owned(),
        kind: kind.to_owned(),
        about: about.to_owned(),
        status: kind.to_owned(),
        reason: Some("why".to_owned()),
        payload,
    };
    vec![
        event("web", -9, "acme/a", "deployed", json!({"to": "1", "subject": "first", "author": "A"})),
        event(
            "web",
            -8,
            "acme/a",
            "deployed",
            json!({"from": "1", "to": "2", "subject": "second", "author": "B", "by": "C"}),
        ),
        event("web", -7, "acme/a", "deployed", json!({"from": "2", "to": "2", "subject": "second", "author": "B"})),
        event("web", -6, "acme/a", "rolled_back", json!({"from": "2", "to": "3", "subject": "third", "author": "B"})),
        event("web", -5, "acme/gone", "deployed", json!({"to": "8"})),
        event("web", -4, "acme/gone", "removed", json!({})),
        event("web", -3, "acme/held", "held", json!({})),
        event("db", -2, "acme/a", "deployed", json!({"to": "1", "subject": "first", "author": "A"})),
    ]
}

/// The hosts that are chosen, as both sources write several values of a variable.
const HOSTS: &str = "'web','db'";

fn sorted(mut answer: Answer) -> Answer {
    answer.sort();
    answer
}

#[test]
fn every_panel_of_a_host_finds_the_same_on_postgresql_and_on_sqlite() {
    const MINUTE: i64 = 60_000;
    let Some(cluster) = shared() else { return };
    let (database, host) = (cluster.database("dashboards"), Host::new());
    let file = host.path("metrics.db");
    let mut stores = [
        Store::open(&configured(&database.url(), "")).unwrap(),
        Store::open(&config(&host, &format!("sqlite://{}", file.display()), "")).unwrap(),
    ];
    // Ten minutes that ended an hour or two ago, in the middle of a two-minute point; `gone` told nothing for a month.
    let now = jiff::Timestamp::now().as_millisecond();
    let begin = now / (60 * MINUTE) * 60 * MINUTE - 60 * MINUTE;
    for store in &mut stores {
        for (at, minute) in (0..10_i32).zip(0_i64..) {
            store.insert_metrics(&run("web", begin + minute * MINUTE + 1500, f64::from(at)), &[]).unwrap();
            store.insert_metrics(&run("db", begin + minute * MINUTE + 700, f64::from(at) * 10.0), &[]).unwrap();
        }
        let gone = run("gone", begin - 30 * 24 * 60 * MINUTE, 1.0);
        store.insert_metrics(&gone, &happened(begin - 30 * 24 * 60 * MINUTE)).unwrap();
    }
    let mut client = database.superuser();
    let connection = rusqlite::Connection::open(&file).unwrap();
    let (postgres, sqlite) = (queries(Kind::Postgres, "host"), queries(Kind::Sqlite, "host"));
    assert!(postgres.len() > 20 && postgres.keys().eq(sqlite.keys()), "{:?}\n{:?}", postgres.keys(), sqlite.keys());
    let mut ask = |panel: &str, target: &str, asked: Asked| {
        let name = (panel.to_owned(), target.to_owned());
        let [first, second] = [(Kind::Postgres, &postgres[&name]), (Kind::Sqlite, &sqlite[&name])]
            .map(|(kind, sql)| expanded(kind, sql, HOSTS, asked));
        let answers = [on_postgres(&mut client, &first), on_sqlite(&connection, &second)];
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {second}")).unwrap();
        let plan: Vec<String> = plan.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        // Rows of a view that is not made into a part of the query would all be read before the first is chosen.
        let whole = |step: &&String| {
            let reads = |name: &str| step.starts_with(name) && !step.contains("INDEX");
            reads("SCAN metrics_") || reads("SCAN system_metrics") || *step == "MATERIALIZE hub_rows"
        };
        assert!(!plan.iter().any(|step| whole(&step)), "{panel} reads the whole table: {plan:#?}");
        answers
    };
    let hour = Asked { from: begin - 50 * MINUTE, to: begin + 10 * MINUTE, interval: 2 * MINUTE };
    let month = Asked { from: begin - 30 * 24 * 60 * MINUTE, to: begin + 10 * MINUTE, interval: 120 * MINUTE };
    for (panel, target) in postgres.keys() {
        if ["variable", "annotation", "Last sample"].contains(&panel.as_str()) {
            continue;
        }
        for asked in [hour, month] {
            let [first, second] = ask(panel, target, asked);
            assert_eq!(sorted(first.clone()), sorted(second), "{panel} {target}");
            assert!(!first.is_empty(), "{panel} {target} finds nothing");
            for host in ["web", "db"] {
                let tells = first.iter().any(|row| row.iter().any(|cell| cell.split(' ').next() == Some(host)));
                assert!(tells, "{panel} {target} says nothing of {host}: {first:?}");
            }
        }
    }
    let point = |minute: i64, metric: &str, value: f64| {
        vec![plain(Some(((begin + minute * MINUTE) / 1000).to_string())), metric.to_owned(), format!("{value:.6}")]
    };
    // Every run counts in a short range, rates too; the highest of what waits.
    for (panel, name) in [("CPU", ""), ("Received", " eth0"), ("Sent", " eth0"), ("Disks busy", " sda")] {
        let expected = (0..10_i32).step_by(2).zip((0..10).step_by(2)).flat_map(|(at, minute)| {
            let mean = f64::from(at) + 0.5;
            [point(minute, &format!("web{name}"), mean), point(minute, &format!("db{name}"), mean * 10.0)]
        });
        assert_eq!(sorted(ask(panel, "A", hour)[0].clone()), sorted(expected.collect()), "{panel}");
    }
    let waits = sorted(ask("Rows that wait for the database", "A", hour)[0].clone());
    assert_eq!(waits.last().unwrap(), &point(8, "web", 9.0));
    // A month has the mean of the hour, of every run; and the highest of what waits.
    let in_month = |metric: &str, value: f64| point(-(begin / MINUTE).rem_euclid(120), metric, value);
    assert_eq!(sorted(ask("CPU", "A", month)[0].clone()), [in_month("db", 45.0), in_month("web", 4.5)]);
    let waits = sorted(ask("Rows that wait for the database", "A", month)[0].clone());
    assert_eq!(waits, [in_month("db", 90.0), in_month("web", 9.0)]);
    // The newest of each, the fullest first.
    for answer in ask("Fullest file systems", "A", hour) {
        let rows: Vec<[&str; 3]> = answer.iter().map(|row| [&*row[0], &*row[1], &*row[2]]).collect();
        let expected = [
            ["db", "/srv", "110.000000"],
            ["web", "/srv", "29.000000"],
            ["db", "/", "10.000000"],
            ["web", "/", "10.000000"],
        ];
        assert_eq!(rows, expected);
    }
    for answer in ask("Failed units", "A", hour) {
        assert_eq!(answer, [["db", "90.000000"], ["web", "9.000000"]]);
    }
    for answer in ask("Last sample", "A", hour) {
        let ages: Vec<f64> = answer.iter().map(|row| row[1].parse().unwrap()).collect();
        assert!(answer.len() == 2 && answer[0][0] == "db" && answer[1][0] == "web", "{answer:?}");
        assert!(ages.iter().all(|age| (3000.0..7300.0).contains(age)), "{answer:?}");
    }
    let since = |second: i64| plain(Some((begin - 30 * 24 * 60 * MINUTE + second * 1000).to_string()));
    for answer in ask("What runs where", "A", hour) {
        let first = plain(Some("1".to_owned()));
        let second = plain(Some("2".to_owned()));
        assert_eq!(
            answer,
            [
                ["db", "acme/a", &first, &since(-2), "first", "A", ""],
                ["web", "acme/a", &second, &since(-8), "second", "B", "C"]
            ]
        );
    }
    let whole = Asked { from: begin - 31 * 24 * 60 * MINUTE, ..month };
    let [marks, same] = ask("annotation", "Deployments", whole);
    let texts: Vec<&str> = marks.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(texts, same.iter().map(|row| row[1].as_str()).collect::<Vec<_>>());
    assert_eq!(texts.len(), 6, "{texts:?}");
    assert_eq!(texts[3], "web: acme/a rolled back 3 third");
    assert_eq!(texts[4], "web: acme/gone deployed 8 why");
    for answer in ask("variable", "host", hour) {
        assert_eq!(answer, [["db"], ["web"]], "a host that told nothing for a week is not offered");
    }
}

#[test]
fn tables_are_sorted_with_units_and_each_host_has_a_number_of_its_own() {
    for (file, dashboard) in dashboards().into_iter().filter(|(file, _)| file.ends_with("/host")) {
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            let units: BTreeSet<&str> = (panel["fieldConfig"]["overrides"].as_array().unwrap().iter())
                .filter(|entry| entry["properties"][0]["id"] == "unit")
                .map(|entry| entry["matcher"]["options"].as_str().unwrap())
                .collect();
            match panel["type"].as_str().unwrap() {
                // Else Grafana shows the last row alone.
                "stat" => assert_eq!(panel["options"]["reduceOptions"]["values"], true, "{file}: {title}"),
                "timeseries" => assert_eq!(panel["interval"], "1m", "{file}: {title}: no run comes more often"),
                _ if title == "Fullest file systems" => assert_eq!(units, ["free", "used_percent"].into(), "{file}"),
                _ => {}
            }
        }
    }
}

#[test]
fn every_query_about_readings_runs_and_finds_what_was_stored() {
    let Some(cluster) = shared() else { return };
    let (database, host) = (cluster.database("readings_board"), Host::new());
    let file = host.path("readings.db");
    drop(Store::open(&configured(&database.url(), PIPELINE)).unwrap());
    drop(Store::open(&config(&host, &format!("sqlite://{}", file.display()), PIPELINE)).unwrap());
    let (mut client, connection) = (database.superuser(), rusqlite::Connection::open(&file).unwrap());
    let asked = Asked { from: 1_699_999_000_000, to: 1_700_001_000_000, interval: 60_000 };
    for (id, seconds) in [("x", 1_700_000_000_i64), ("y", 1_700_000_030)] {
        let insert = |time: String| {
            format!(
                "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, created_at) \
                 VALUES ('{id}', {time}, 's', {time})"
            )
        };
        client.batch_execute(&insert(format!("to_timestamp({seconds})"))).unwrap();
        connection.execute_batch(&insert(format!("{seconds} * 1000"))).unwrap();
    }
    let dead = "INSERT INTO dead_letters (pipeline, source_id, reason, document) VALUES ('p', 'i', 'r', ";
    client.batch_execute(&format!("{dead} '')")).unwrap();
    connection.execute_batch(&format!("{dead} x'')")).unwrap();
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let mut found = queries(kind, "readings");
        found.retain(|(panel, _), _| panel != "annotation");
        assert!(found.len() >= 6, "{found:?}");
        let mut ask = |sql: &str| match kind {
            Kind::Postgres => on_postgres(&mut client, sql),
            Kind::Sqlite => on_sqlite(&connection, sql),
        };
        let answers: BTreeMap<_, _> =
            found.iter().map(|((panel, _), sql)| (panel.as_str(), ask(&expanded(kind, sql, HOSTS, asked)))).collect();
        assert!(answers.values().all(|answer| !answer.is_empty()), "{answers:?}");
        assert_eq!(answers["Readings stored"], [["2.000000"]]);
        assert_eq!(answers["Dead letters"], [["1.000000"]]);
        assert_eq!(answers["Readings by source"], [["1699999980.000000", "s", "2.000000"]]);
    }
}

#[test]
fn the_dashboards_are_as_their_one_source_writes_them() {
    let output = Command::new(folder().join("make")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn data_sources_exist_panels_have_names_of_their_own_and_do_not_overlap() {
    let files = std::fs::read_dir(folder().join("provisioning/datasources")).unwrap();
    let provisioned: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{file}");
        let mut sources = Vec::new();
        under(&dashboard, "datasource", &mut sources);
        // A folder asks its own database, and the log.
        let databases = ["postgresql", "sqlite"].map(|name| file.starts_with(name));
        for source in sources {
            let uid = source["uid"].as_str().unwrap();
            assert!(
                !(databases[0] && uid.ends_with("-sqlite") || databases[1] && uid.ends_with("-postgres")),
                "{file}: {uid}"
            );
            assert!(provisioned.lines().any(|line| line.trim() == format!("uid: {uid}")), "{file}: {uid}");
        }
        let mut titles = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(titles.insert(panel["title"].as_str().unwrap()), "{file}: {}", panel["title"]);
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(x < 24 && taken.insert((x, y)), "{file}: {} lies on another panel", panel["title"]);
                }
            }
        }
    }
    assert_eq!(uids.len(), 8, "host, services, GitOps and readings, for each database");
}
