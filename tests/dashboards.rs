//! The Grafana dashboards of contrib/grafana: every SQL query runs on a real PostgreSQL with the hub's own tables, every
//! reference is to something that is provisioned.
#![allow(clippy::unwrap_used, clippy::panic, clippy::type_complexity, reason = "a test may fail anywhere")]
#![cfg(feature = "postgres")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::postgres::{configured, shared};
use support::rows::sample;

const PIPELINE: &str =
    "[[pipeline]]\nname = \"reading\"\nsource = \"file:/srv/inbox\"\ntable = \"reading_analytics\"\n";

fn grafana() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/grafana")
}

fn dashboards() -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(grafana().join("dashboards")).unwrap();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.display().to_string(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    };
    entries.map(|entry| read(entry.unwrap().path())).collect()
}

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

/// What Grafana's PostgreSQL data source makes of the macros and variables that the dashboards use.
fn expanded(sql: &str) -> String {
    let mut sql = sql.replace("$host", "'web', 'db'").replace("$__interval", "'1m'");
    let macros: [(&str, fn(&str) -> String); 2] = [
        ("$__timeFilter(", |column| format!("{column} BETWEEN '2023-01-01T00:00:00Z' AND '2024-01-01T00:00:00Z'")),
        ("$__timeGroupAlias(", |arguments| {
            let column = arguments.split(',').next().unwrap();
            format!("floor(extract(epoch FROM {column}) / 60) * 60 AS \"time\"")
        }),
    ];
    for (name, expand) in macros {
        while let Some(start) = sql.find(name) {
            let end = start + sql[start..].find(')').unwrap();
            sql.replace_range(start..=end, &expand(&sql[start + name.len()..end]));
        }
    }
    assert!(!sql.contains('$'), "a macro or variable that this test does not know: {sql}");
    sql
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

#[test]
fn every_sql_query_runs_and_those_about_the_host_find_the_sample() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("dashboards");
    let mut store = observability_hub::store::Store::open(&configured(&database.url(), PIPELINE)).unwrap();
    for minute in 0..3 {
        store.insert_metrics(&sample("web", 1_700_000_000_000 + minute * 60_000)).unwrap();
    }
    let mut client = database.superuser();
    // The collector's kinds that are not among the Go version's.
    for (kind, payload) in [
        ("load", json!({"load1": 0.5})),
        ("systemd", json!({"failed": 1, "units": ["x.service"]})),
        ("run", json!({"duration_ms": 12.5, "spool": {"rows": 0, "bytes": 0}})),
        ("pressure", json!({"io": {"some": {"avg60": 1.5}}})),
        ("unit", json!({"db.service": {"cpu_percent": 1.5, "memory": 5, "read_bytes_per_second": 1, "tasks": 2}})),
        ("array", json!({"md0": {"level": "raid1", "state": "clean", "degraded": 0}})),
        ("btrfs", json!({"pool": {"devices": 2, "missing": 0, "write_errors": 1}})),
        ("disk_io", json!({"sda": {"busy_percent": 2.5, "read_bytes_per_second": 1, "written_bytes_per_second": 2}})),
    ] {
        let insert =
            "INSERT INTO system_metrics VALUES (to_timestamp(1700000000), 'web', 'linux', $1, $2::text::jsonb)";
        client.execute(insert, &[&kind, &payload.to_string()]).unwrap();
    }
    let insert = "INSERT INTO reading_analytics (mongo_id, event_timestamp, source, created_at) \
                  VALUES ('x', to_timestamp(1700000000), 's', to_timestamp(1700000000))";
    client.execute(insert, &[]).unwrap();
    let mut count = 0;
    for (file, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            let mut queries = Vec::new();
            under(panel, "rawSql", &mut queries);
            for query in queries {
                let sql = expanded(query.as_str().unwrap());
                let rows = client.query(&sql, &[]).unwrap_or_else(|error| panic!("{file}: {error}: {sql}"));
                let may_be_empty = sql.contains("dead_letters");
                assert!(may_be_empty || !rows.is_empty(), "{file}: {} finds nothing: {sql}", panel["title"]);
                count += 1;
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if variable["datasource"]["type"] == "postgres" {
                client.query(&expanded(variable["query"].as_str().unwrap()), &[]).unwrap();
            }
        }
    }
    assert!(count >= 15, "{count} queries");
}

#[test]
fn data_sources_exist_panels_have_names_of_their_own_and_do_not_overlap() {
    let provisioned =
        std::fs::read_to_string(grafana().join("provisioning/datasources/observability-hub.yaml")).unwrap();
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{file}");
        let mut sources = Vec::new();
        under(&dashboard, "datasource", &mut sources);
        for source in sources {
            let uid = source["uid"].as_str().unwrap();
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
    assert_eq!(uids.len(), 4, "host, services, GitOps, readings");
}
