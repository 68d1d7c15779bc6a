use crate::store::views::Dialect;

pub(super) struct Postgres;

impl Dialect for Postgres {
    const HEAD: &'static str = "m.time, m.host, m.os";
    // The cast is for adopted tables whose payload is json or text.
    const PAYLOAD: &'static str = "m.payload::jsonb";
    const VALUE: &'static str = "each.value";
    // What users built on a view would stop it from being dropped; columns are only ever added at its end.
    const CREATE: &'static str = "CREATE OR REPLACE VIEW";

    fn number(json: &str, path: &str) -> String {
        let json = if path.is_empty() { json.to_owned() } else { format!("{json} #> '{}'", text_array(path)) };
        format!(
            "CASE jsonb_typeof({json}) WHEN 'number' THEN ({json})::double precision \
             WHEN 'boolean' THEN ({json})::boolean::integer::double precision END"
        )
    }

    fn each(path: Option<&str>) -> String {
        let json = path
            .map_or_else(|| Self::PAYLOAD.to_owned(), |path| format!("{} #> '{}'", Self::PAYLOAD, text_array(path)));
        // The Go version wrote null where a collector failed, and jsonb_each accepts objects only.
        format!(" CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof({json}) WHEN 'object' THEN {json} END) AS each")
    }

    fn is_object(object: bool) -> &'static str {
        if object { "jsonb_typeof(each.value) = 'object'" } else { "jsonb_typeof(each.value) IN ('number', 'boolean')" }
    }
}

fn text_array(path: &str) -> String {
    format!("{{{}}}", path.replace('.', ","))
}
