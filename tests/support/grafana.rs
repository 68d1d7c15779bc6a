//! The dashboards of contrib/grafana, and what Grafana makes of their questions before a database sees them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Which database a dashboard asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Sqlite,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/grafana")
}

/// Every dashboard, by `<folder>/<name>`.
pub fn dashboards() -> BTreeMap<String, Value> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path();
    let folders = std::fs::read_dir(folder().join("dashboards")).unwrap().map(read);
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(read));
    let load = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.with_extension("");
        let names: Vec<String> = name.iter().rev().take(2).map(|part| part.to_string_lossy().into_owned()).collect();
        (
            format!("{}/{}", names[1], names[0]),
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name:?}: {error}")),
        )
    };
    files.map(load).collect()
}

/// The SQL of a dashboard by panel and target, of its variables and its annotations too.
pub fn queries(kind: Kind, name: &str) -> BTreeMap<(String, String), String> {
    let (folder, key) = match kind {
        Kind::Postgres => ("postgresql", "rawSql"),
        Kind::Sqlite => ("sqlite", "rawQueryText"),
    };
    let dashboard = &dashboards()[&format!("{folder}/{name}")];
    let mut found = BTreeMap::new();
    let mut add = |of: &Value, name: &Value, sql: Option<&str>| {
        let names = [of, name].map(|name| name.as_str().unwrap().to_owned());
        sql.map(|sql| found.insert(names.into(), sql.to_owned()));
    };
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["queryText"], target["rawQueryText"], "the source reads the one, its editor the other");
            add(&panel["title"], &target["refId"], target[key].as_str());
        }
    }
    for marks in dashboard["annotations"]["list"].as_array().unwrap() {
        add(&"annotation".into(), &marks["name"], marks["target"][key].as_str());
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let is_sql = variable["datasource"]["type"].as_str().is_some_and(|kind| kind != "loki");
        add(&"variable".into(), &variable["name"], variable["query"].as_str().filter(|_| is_sql));
    }
    found
}

/// What a panel is asked for: the range and the interval, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub from: i64,
    pub to: i64,
    pub interval: i64,
}

/// What Grafana, and its source for the database, make of the variables and macros that the dashboards use. Variables are
/// replaced first; PostgreSQL's source has macros, the dashboards use none of SQLite's.
pub fn expanded(kind: Kind, sql: &str, hosts: &str, asked: Asked) -> String {
    let Asked { from, to, interval } = asked;
    let (second, minute) = (interval / 1000, interval / 60_000);
    let mut sql = match kind {
        Kind::Postgres => sql.replace("$host", hosts),
        Kind::Sqlite => sql.replace("${host:sqlstring}", hosts),
    };
    let text = if second % 60 == 0 { format!("{minute}m") } else { format!("{second}s") };
    let variables = [("$__interval_ms", interval.to_string()), ("$__interval", text)];
    let ends = [("$__from", from.to_string()), ("$__to", to.to_string())];
    for (name, value) in variables.into_iter().chain(ends.into_iter().filter(|_| kind == Kind::Sqlite)) {
        sql = sql.replace(name, &value);
    }
    if kind == Kind::Postgres {
        while let Some(start) = sql.find("$__") {
            let open = start + sql[start..].find('(').unwrap();
            let close = open + sql[open..].find(')').unwrap();
            let arguments: Vec<&str> = sql[open + 1..close].split(',').map(str::trim).collect();
            sql = format!(
                "{}{}{}",
                &sql[..start],
                of_postgres(&sql[start + 3..open], &arguments, asked),
                &sql[close + 1..]
            );
        }
    }
    assert!(!sql.contains('$'), "a macro or variable that this test does not know: {sql}");
    sql
}

fn of_postgres(name: &str, arguments: &[&str], Asked { from, to, .. }: Asked) -> String {
    let quoted = |millis| format!("'{}'", jiff::Timestamp::from_millisecond(millis).unwrap());
    match (name, arguments) {
        ("timeFrom", [""]) => quoted(from),
        ("timeTo", [""]) => quoted(to),
        ("unixEpochFrom", [""]) => (from / 1000).to_string(),
        ("unixEpochTo", [""]) => (to / 1000).to_string(),
        ("timeFilter", [column]) => format!("{column} BETWEEN {} AND {}", quoted(from), quoted(to)),
        ("timeGroupAlias", [column, length]) => {
            let (number, unit) = length.split_at(length.len() - 1);
            let seconds = number.parse::<i64>().unwrap() * if unit == "m" { 60 } else { 1 };
            format!("floor(extract(epoch from {column})/{seconds})*{seconds} AS \"time\"")
        }
        _ => panic!("a macro that this test does not know: {name} {arguments:?}"),
    }
}

/// A row of an answer: numbers with six digits, whatever type the database has them in.
pub type Answer = Vec<Vec<String>>;

pub fn plain(text: Option<String>) -> String {
    let text = text.unwrap_or_default();
    text.parse::<f64>().map_or(text, |number| format!("{number:.6}"))
}

pub fn on_postgres(client: &mut postgres::Client, sql: &str) -> Answer {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    let rows = messages.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|at| plain(row.get(at).map(str::to_owned))).collect()).collect()
}

pub fn on_sqlite(connection: &rusqlite::Connection, sql: &str) -> Answer {
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    let columns = statement.column_count();
    let cell = |row: &rusqlite::Row<'_>, at| {
        let value: rusqlite::types::Value = row.get(at).unwrap();
        plain(match value {
            rusqlite::types::Value::Null => None,
            rusqlite::types::Value::Integer(number) => Some(number.to_string()),
            rusqlite::types::Value::Real(number) => Some(number.to_string()),
            rusqlite::types::Value::Text(text) => Some(text),
            rusqlite::types::Value::Blob(bytes) => panic!("{bytes:?}"),
        })
    };
    let rows = statement.query_map([], |row| Ok((0..columns).map(|at| cell(row, at)).collect())).unwrap();
    rows.map(Result::unwrap).collect()
}
