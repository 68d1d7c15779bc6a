use crate::store::views::{self, Dialect, VIEWS, View};

struct Sqlite;

/// `time` is in seconds since 1970, as Grafana's SQLite source takes it; `time_ms` is the indexed column, to be compared
/// with `$__from` and `$__to`.
impl Dialect for Sqlite {
    const HEAD: &'static str = "m.time / 1000 AS time, m.time AS time_ms, m.host, m.os";
    const PAYLOAD: &'static str = "m.payload";
    const CREATE: &'static str = "CREATE VIEW";
    const VALUE: &'static str = "each.value";

    fn number(json: &str, path: &str) -> String {
        let path = json_path(path);
        if json == Self::VALUE && path == "$" {
            return format!("CAST({json} AS REAL)");
        }
        format!(
            "CASE WHEN json_type({json}, '{path}') IN ('integer', 'real', 'true', 'false') \
             THEN CAST({json} ->> '{path}' AS REAL) END"
        )
    }

    fn each(path: Option<&str>) -> String {
        format!(", json_each(m.payload, '{}') AS each", json_path(path.unwrap_or_default()))
    }

    fn is_object(object: bool) -> &'static str {
        if object { "each.type = 'object'" } else { "each.type IN ('integer', 'real', 'true', 'false')" }
    }
}

fn json_path(path: &str) -> String {
    path.split('.').filter(|part| !part.is_empty()).fold("$".to_owned(), |all, part| format!("{all}.\"{part}\""))
}

pub(super) fn sql() -> String {
    let anew = |view: &View| format!("DROP VIEW IF EXISTS {}; {}", view.name, views::statement::<Sqlite>(view));
    VIEWS.iter().map(anew).collect::<Vec<_>>().join(";\n")
}
