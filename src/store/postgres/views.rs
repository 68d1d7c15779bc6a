use crate::store::METRICS_TABLE;
use crate::store::views::Dialect;

pub(super) struct PostgresViews;

impl Dialect for PostgresViews {
    const HEAD: &'static str = "m.time, m.host, m.os";
    const ROWS: &'static str = METRICS_TABLE;
    // The cast is for adopted tables whose payload is json or text.
    const PAYLOAD: &'static str = "m.payload::jsonb";
    // What users built on a view would stop it from being dropped; columns are only ever added at its end.
    const CREATE: &'static str = "CREATE OR REPLACE VIEW";

    fn number(json: &str, path: &str) -> String {
        let json = if path.is_empty() { json.to_owned() } else { format!("{json} #> '{}'", text_array(path)) };
        format!(
            "CASE jsonb_typeof({json}) WHEN 'number' THEN ({json})::double precision \
             WHEN 'boolean' THEN ({json})::boolean::integer::double precision END"
        )
    }

    fn text(json: &str, path: &str) -> String {
        format!("{json} #>> '{}'", text_array(path))
    }

    fn each(name: &str, json: &str, path: Option<&str>) -> String {
        let json = path.map_or_else(|| json.to_owned(), |path| format!("{json} #> '{}'", text_array(path)));
        // The Go version wrote null where a collector failed, and jsonb_each accepts objects only.
        format!("LATERAL jsonb_each(CASE jsonb_typeof({json}) WHEN 'object' THEN {json} END) AS {name}")
    }

    fn is_object(name: &str, object: bool) -> String {
        if object {
            format!("jsonb_typeof({name}.value) = 'object'")
        } else {
            format!("jsonb_typeof({name}.value) IN ('number', 'boolean')")
        }
    }
}

fn text_array(path: &str) -> String {
    format!("{{{}}}", path.replace('.', ","))
}
