use crate::store::views::{self, Dialect, VIEWS, View};

struct Sqlite;

/// `time` is in seconds since 1970, as Grafana's SQLite source takes it; `time_ms` is the indexed column, to be compared
/// with `$__from` and `$__to`.
impl Dialect for Sqlite {
    const HEAD: &'static str = "m.time / 1000 AS time, m.time AS time_ms, m.host, m.os";
    const PAYLOAD: &'static str = "m.payload";
    const CREATE: &'static str = "CREATE VIEW";

    fn number(json: &str, path: &str) -> String {
        // The value of `each` is no JSON where it is no object.
        if path.is_empty() {
            return format!("CAST({json} AS REAL)");
        }
        let path = json_path(path);
        format!(
            "CASE WHEN json_type({json}, '{path}') IN ('integer', 'real', 'true', 'false') \
             THEN CAST({json} ->> '{path}' AS REAL) END"
        )
    }

    fn text(json: &str, path: &str) -> String {
        format!("{json} ->> '{}'", json_path(path))
    }

    fn each(name: &str, json: &str, path: Option<&str>) -> String {
        let (json, condition) = match json {
            "each.value" => (json, "each.type = 'object'"),
            _ => (json, "TRUE"),
        };
        // SQLite may read this before it applies the view's conditions.
        format!(
            "json_each(CASE WHEN {condition} THEN {json} ELSE '{{}}' END, '{}') AS {name}",
            json_path(path.unwrap_or_default())
        )
    }

    fn is_object(name: &str, object: bool) -> String {
        if object {
            format!("{name}.type = 'object'")
        } else {
            format!("{name}.type IN ('integer', 'real', 'true', 'false')")
        }
    }
}

fn json_path(path: &str) -> String {
    path.split('.').filter(|part| !part.is_empty()).fold("$".to_owned(), |all, part| format!("{all}.\"{part}\""))
}

pub(super) fn sql() -> String {
    let anew = |view: &View| format!("DROP VIEW IF EXISTS {}; {}", view.name, views::statement::<Sqlite>(view));
    VIEWS.iter().map(anew).collect::<Vec<_>>().join(";\n")
}
