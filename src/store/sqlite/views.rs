use crate::store::views::{self, Dialect, View};

struct Sqlite;

/// `time` is in seconds since 1970, as Grafana's SQLite source takes it; `time_ms` is the indexed column, to be compared
/// with `$__from` and `$__to`.
impl Dialect for Sqlite {
    const HEAD: &'static str = "time/1000 AS time, time AS time_ms, host, os";
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

/// The SQL that makes every view anew but those whose names somebody else has taken.
pub(super) fn sql(foreign: &[&str]) -> String {
    let anew = |view: View| format!("DROP VIEW IF EXISTS {}; {}", view.name, views::statement::<Sqlite>(view));
    views::all().filter(|view| !foreign.contains(&view.name)).map(anew).collect::<Vec<_>>().join(";\n")
}

/// Every view with the SQL that makes it.
pub(super) fn each() -> impl Iterator<Item = (String, String)> {
    views::all().map(|view| (view.name.to_owned(), views::statement::<Sqlite>(view)))
}
