use rusqlite::{Connection, params};

use super::file::has_table;
use crate::store::views::{self, Dialect, View};

/// The table that is there while the file has rows of earlier versions; its number is the last of them.
pub(super) const UNSORTED: &str = "hub_unsorted";

/// The view below all others: the rows as they are found by kind and time. Each part has an index of its own, and the part
/// without one is there only while rows of earlier versions are.
const ROWS: &str = "hub_rows";

struct SqliteViews;

/// `time` is in seconds since 1970, as Grafana's SQLite source takes it; `time_ms` is the indexed column, to be compared
/// with `$__from` and `$__to`.
impl Dialect for SqliteViews {
    const HEAD: &'static str = "time/1000 AS time, time AS time_ms, host, os";
    const ROWS: &'static str = ROWS;
    const PAYLOAD: &'static str = "payload";
    const CREATE: &'static str = "CREATE VIEW";

    // Every run reads all views with the rest of the schema, so they are short; whoever writes here is the hub, and where
    // it has no number it writes null.
    fn number(json: &str, path: &str) -> String {
        if path.is_empty() {
            format!("CAST({json} AS REAL)")
        } else {
            format!("CAST({json}->>'{}' AS REAL)", json_path(path))
        }
    }

    fn text(json: &str, path: &str) -> String {
        format!("{json}->>'{}'", json_path(path))
    }

    fn each(name: &str, json: &str, path: Option<&str>) -> String {
        let path = path.map(|path| format!(",'$.{path}'")).unwrap_or_default();
        // Within `each`, what is no object is no JSON; SQLite may read it before it applies the view's conditions.
        let json = if json == "each.value" { "iif(each.type='object',each.value,'{}')" } else { json };
        format!("json_each({json}{path}) AS {name}")
    }

    fn is_object(name: &str, object: bool) -> String {
        if object {
            format!("{name}.type = 'object'")
        } else {
            format!("{name}.type IN ('integer','real','true','false')")
        }
    }
}

/// A path of names without special characters, as `->>` takes it.
fn json_path(path: &str) -> String {
    if path.contains('.') { format!("$.{path}") } else { path.to_owned() }
}

/// The SQL of the view below all others.
fn rows(has_unsorted: bool) -> String {
    let part = |rest| format!("SELECT time, host, os, metric_type, payload FROM system_metrics {rest}");
    let mut parts = vec![part("WHERE sorted = 1"), part("INDEXED BY system_metrics_new WHERE sorted = 0")];
    parts.extend(has_unsorted.then(|| part("WHERE sorted IS NULL")));
    format!("CREATE VIEW {ROWS} AS {}", parts.join(" UNION ALL "))
}

/// The SQL that makes every view anew but those whose names somebody else has taken.
pub(super) fn sql(foreign: &[&str]) -> String {
    let anew = |view: View| format!("DROP VIEW IF EXISTS {}; {}", view.name, views::statement::<SqliteViews>(view));
    views::all().filter(|view| !foreign.contains(&view.name)).map(anew).collect::<Vec<_>>().join(";\n")
}

/// Makes anew what depends on which rows there are: the view below all others, and those of earlier versions, which read
/// the table itself.
pub(super) fn renew(connection: &Connection) -> Result<(), rusqlite::Error> {
    let has_unsorted = has_table(connection, UNSORTED)?;
    connection.execute_batch(&format!("DROP VIEW IF EXISTS {ROWS}; {}", rows(has_unsorted)))?;
    for view in views::all() {
        let is_old = "SELECT count(*) FROM sqlite_schema
                      WHERE name = ?1 AND type = 'view' AND sql LIKE '%FROM system_metrics AS m%'";
        if connection.query_row(is_old, params![view.name], |row| row.get::<_, bool>(0))? {
            let sql = format!("DROP VIEW {}; {}", view.name, views::statement::<SqliteViews>(view));
            connection.execute_batch(&sql)?;
        }
    }
    Ok(())
}

/// Every view with the SQL that makes it.
pub(super) fn each(has_unsorted: bool) -> impl Iterator<Item = (String, String)> {
    let rows = std::iter::once((ROWS.to_owned(), rows(has_unsorted)));
    rows.chain(views::all().map(|view| (view.name.to_owned(), views::statement::<SqliteViews>(view))))
}
