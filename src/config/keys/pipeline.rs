use super::key::{Key, TEXT, Usual, Value, key};

const FIELD: Value = Value::Text(".");

const MAP: &[Key] = &[
    key("event_timestamp", FIELD, Usual::Is("\"timestamp\""), "The field for the column event_timestamp."),
    key("source", FIELD, Usual::Is("\"source\""), "The field for the column source."),
    key("event_type", FIELD, Usual::Is("\"event_type\""), "The field for the column event_type."),
    key("payload", TEXT, Usual::Is("\"payload\""), "The field for the column payload; \"\" is the whole document."),
    key("meta", FIELD, Usual::Is("\"meta\""), "The field for the column meta."),
];

const CURSOR: &[Key] = &[
    key("cursor", FIELD, Usual::Needed("\"_id\""), "A field that only grows, such as _id or a date."),
    key(
        "overlap",
        Value::Text("^[0-9]+[smhd]$"),
        Usual::Else("nothing", "\"10m\""),
        "How far back a run begins, for documents that were written late: 90s, 10m, 2h or 1d, up to 30 days.",
    ),
];

pub(super) const KEYS: &[Key] = &[
    key(
        "name",
        Value::Text("^[a-z0-9_-]{1,64}$"),
        Usual::Needed("\"reading\""),
        "The name of the pipeline, in commands and in POST /api/sync/NAME.",
    ),
    key(
        "source",
        Value::Text("^(mongodb|file:/.*)$"),
        Usual::Is("\"mongodb\""),
        "Where documents come from: mongodb, or file:/path/to/inbox for a folder of Extended JSON files.",
    ),
    key("database", TEXT, Usual::Is("\"analytics\""), "The database in MongoDB."),
    key("collection", TEXT, Usual::Is("\"events\""), "The collection in MongoDB."),
    key(
        "table",
        Value::Text(r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$"),
        Usual::Is("\"reading_analytics\""),
        "The table that rows go to. It is made when it is missing. It cannot have the name of a table of the hub itself.",
    ),
    key(
        "json",
        Value::Word(&["plain", "extended"]),
        Usual::Is("\"plain\""),
        "How documents become JSON. plain is easy to query. extended is relaxed Extended JSON v2, which loses nothing.",
    ),
    key(
        "map",
        Value::Table(MAP),
        Usual::Is(
            "{ event_timestamp = \"timestamp\", source = \"source\", event_type = \"event_type\", payload = \"payload\", \
             meta = \"meta\" }",
        ),
        "Which field becomes which column. A dot leads into a field that is an object: \"created.at\".",
    ),
    key(
        "select",
        Value::Either(&[Value::Word(&["status"]), Value::Table(CURSOR)]),
        Usual::Is("\"status\""),
        "Which documents of MongoDB are read. \"status\" takes those with status \"ingested\" and marks them \"processed\". \
         A table with a cursor writes nothing to the source.",
    ),
    key(
        "retention_days",
        Value::Whole("days", 0, u32::MAX as u64),
        Usual::Is("0"),
        "How long rows are kept, by event_timestamp, else by created_at; 0 keeps all.",
    ),
];
