use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::values::{Json, Name, Source, Table, text_value};

/// `[[pipeline]]`
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its name in `POST /api/sync/<name>`.
    pub name: String,
    /// Where documents come from.
    pub source: Source,
    /// MongoDB database.
    pub database: String,
    /// MongoDB collection.
    pub collection: String,
    /// The table that rows go to.
    pub table: String,
    /// How documents become JSON.
    pub json: Json,
    /// Which fields become columns.
    pub map: Map,
    /// Which documents of MongoDB are read.
    pub select: Select,
    /// Days that rows are kept; 0 keeps all.
    pub retention_days: u32,
}

impl Pipeline {
    /// A pipeline from MongoDB with the defaults of everything.
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            source: Source::MongoDb,
            database: "analytics".to_owned(),
            collection: "events".to_owned(),
            table: "reading_analytics".to_owned(),
            json: Json::Plain,
            map: Map::default(),
            select: Select::default(),
            retention_days: 0,
        }
    }

    /// Whether the hub itself changes the field `status` of the documents that it reads.
    pub fn marks_status(&self) -> bool {
        self.source == Source::MongoDb && self.select == Select::Status
    }
}

/// The place of a field: its name, or names with dots between them where it lies inside of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    /// As it was written; a field may have this whole name, dots included.
    pub text: String,
    /// The names, from the outermost; none where the whole document is meant.
    pub names: Vec<String>,
}

impl FieldPath {
    fn new(text: &str) -> Self {
        let names = if text.is_empty() { Vec::new() } else { text.split('.').map(str::to_owned).collect() };
        Self { text: text.to_owned(), names }
    }

    /// Whether it stands for the whole document.
    pub fn is_whole(&self) -> bool {
        self.names.is_empty()
    }
}

text_value!(FieldPath, |text| {
    if text.is_empty() {
        return Err("is empty; write the name of a field (only payload can be \"\", the whole document)".to_owned());
    }
    field_path(text)
});

/// A path that may be empty.
#[derive(Clone)]
struct PayloadPath(FieldPath);

text_value!(PayloadPath, |text| field_path(text).map(PayloadPath));

fn field_path(text: &str) -> Result<FieldPath, String> {
    let fits = text.is_empty() || text.len() <= 1024 && !text.contains('\0') && text.split('.').all(|n| !n.is_empty());
    fits.then(|| FieldPath::new(text))
        .ok_or_else(|| format!("{text:?} is not the place of a field; write one such as \"created\" or \"created.at\""))
}

/// Which fields become columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// The column `event_timestamp`.
    pub event_timestamp: FieldPath,
    /// The column `source`.
    pub source: FieldPath,
    /// The column `event_type`.
    pub event_type: FieldPath,
    /// The column `payload`; may be the whole document.
    pub payload: FieldPath,
    /// The column `meta`.
    pub meta: FieldPath,
}

impl Default for Map {
    fn default() -> Self {
        MapSection::default().into()
    }
}

#[derive(Clone, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct MapSection {
    event_timestamp: Option<FieldPath>,
    source: Option<FieldPath>,
    event_type: Option<FieldPath>,
    payload: Option<PayloadPath>,
    meta: Option<FieldPath>,
}

impl From<MapSection> for Map {
    fn from(section: MapSection) -> Self {
        let path = |given: Option<FieldPath>, default| given.unwrap_or_else(|| FieldPath::new(default));
        Self {
            event_timestamp: path(section.event_timestamp, "timestamp"),
            source: path(section.source, "source"),
            event_type: path(section.event_type, "event_type"),
            payload: path(section.payload.map(|payload| payload.0), "payload"),
            meta: path(section.meta, "meta"),
        }
    }
}

/// Which documents of MongoDB are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// Those with `status: "ingested"`, which are marked `processed`.
    #[default]
    Status,
    /// Those whose field is beyond the last position; nothing is written to the source.
    Cursor {
        /// A field that only grows.
        field: FieldPath,
        /// How far a run goes back, for documents that were written late.
        overlap: Duration,
    },
}

impl<'de> Deserialize<'de> for Select {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SelectForm)
    }
}

struct SelectForm;

impl<'de> Visitor<'de> for SelectForm {
    type Value = Select;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"status\" or { cursor = \"_id\" }")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Select, E> {
        match text {
            "status" => Ok(Select::Status),
            _ => Err(E::custom(format!("{text:?} is not known; write \"status\" or {{ cursor = \"_id\" }}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Select, A::Error> {
        let section = CursorSection::deserialize(MapAccessDeserializer::new(map))?;
        let overlap = section.overlap.map_or(Duration::ZERO, |span| span.0);
        Ok(Select::Cursor { field: section.cursor, overlap })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CursorSection {
    cursor: FieldPath,
    overlap: Option<Span>,
}

/// A length of time such as `90s`, `10m`, `2h` or `1d`.
struct Span(Duration);

/// A longer overlap is no overlap: it would read everything again and again.
const LONGEST_OVERLAP: u64 = 30 * 24 * 3600;

text_value!(Span, |text| {
    let seconds = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let unit = match &text[digits..] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return None,
        };
        text[..digits].parse::<u64>().ok()?.checked_mul(unit).filter(|seconds| *seconds <= LONGEST_OVERLAP)
    };
    seconds(text).map(|seconds| Span(Duration::from_secs(seconds))).ok_or_else(|| {
        format!("{text:?} is not a length of time up to 30 days; write one such as \"90s\", \"10m\", \"2h\" or \"1d\"")
    })
});

/// `[[pipeline]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) name: Name,
    #[serde(default)]
    source: Source,
    database: Option<String>,
    collection: Option<String>,
    table: Option<Table>,
    #[serde(default)]
    json: Json,
    #[serde(default)]
    map: MapSection,
    select: Option<Select>,
    retention_days: Option<u32>,
}

impl Section {
    /// The pipeline; the key that is wrong and why, where something is.
    pub(super) fn check(&self) -> Result<Pipeline, (&'static str, String)> {
        if self.source != Source::MongoDb && self.select.is_some() {
            return Err(("select", "is for MongoDB; files are read once and put away".to_owned()));
        }
        let mut pipeline = Pipeline::new(self.name.0.clone());
        pipeline.source = self.source.clone();
        for (field, given) in [
            (&mut pipeline.database, self.database.as_ref()),
            (&mut pipeline.collection, self.collection.as_ref()),
            (&mut pipeline.table, self.table.as_ref().map(|table| &table.0)),
        ] {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        if let Some(reason) = super::tables::refusal(&pipeline.table) {
            return Err(("table", reason));
        }
        pipeline.json = self.json;
        pipeline.map = self.map.clone().into();
        pipeline.select = self.select.clone().unwrap_or_default();
        pipeline.retention_days = self.retention_days.unwrap_or(0);
        Ok(pipeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(keys: &str) -> Result<Pipeline, String> {
        let text = format!("[[pipeline]]\nname = \"reading\"\n{keys}\n");
        let parsed = super::super::file::parse(std::path::Path::new("hub.toml"), &text);
        parsed.and_then(|file| file.pipelines()).map(|mut all| all.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_map_takes_the_place_of_names() {
        let map =
            r#"map = { event_timestamp = "created.at", source = "host.name", event_type = "kind", payload = "" }"#;
        let map = pipeline(map).unwrap().map;
        assert_eq!(map.event_timestamp.names, ["created", "at"]);
        assert!(map.payload.is_whole() && !map.source.is_whole());
        assert_eq!((map.meta.text.as_str(), map.event_type.text.as_str()), ("meta", "kind"));
        assert_eq!(pipeline("").unwrap().map, Map::default());
    }

    #[test]
    fn a_selection_is_the_status_or_a_cursor() {
        assert_eq!(pipeline("").unwrap().select, Select::Status);
        assert_eq!(pipeline("select = \"status\"").unwrap().select, Select::Status);
        for (text, seconds) in
            [("", 0), (", overlap = \"90s\"", 90), (", overlap = \"10m\"", 600), (", overlap = \"1d\"", 86_400)]
        {
            let Select::Cursor { field, overlap } =
                pipeline(&format!("select = {{ cursor = \"a.b\"{text} }}")).unwrap().select
            else {
                panic!("no cursor");
            };
            assert_eq!((field.names.len(), overlap.as_secs()), (2, seconds));
        }
    }

    #[test]
    fn a_table_may_have_any_name_that_nobody_else_has() {
        for table in
            ["order", "user", "hub", "analytics.dead_letters", "metrics_of_mine", "system_metrics_old", "pgx", "t_view"]
        {
            assert_eq!(pipeline(&format!("table = \"{table}\"")).unwrap().table, table);
        }
        let longest = "t".repeat(63);
        assert_eq!(pipeline(&format!("table = \"{longest}\"")).unwrap().table, longest);
        assert!(pipeline(&format!("table = \"{longest}t\"")).unwrap_err().contains("is not a table"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (keys, expected) in [
            ("map = { paylod = \"x\" }", "hub.toml:3: pipeline[0].map.paylod: unknown field `paylod`, expected one of"),
            ("map = { source = \"\" }", "hub.toml:3: pipeline[0].map.source: is empty; write the name of a field"),
            ("map = { source = \"a..b\" }", "hub.toml:3: pipeline[0].map.source: \"a..b\" is not the place of a field"),
            ("map = \"x\"", "hub.toml:3: pipeline[0].map: is the text \"x\"; write a table"),
            ("select = \"all\"", "hub.toml:3: pipeline[0].select: \"all\" is not known; write \"status\" or"),
            ("select = 5", "hub.toml:3: pipeline[0].select: is the number 5; write \"status\" or { cursor = \"_id\" }"),
            ("select = { cursor = \"\" }", "hub.toml:3: pipeline[0].select.cursor: is empty"),
            ("select = { overlap = \"1m\" }", "hub.toml:3: pipeline[0].select: missing field `cursor`"),
            (
                "select = { cursor = \"_id\", overlap = \"10\" }",
                "hub.toml:3: pipeline[0].select.overlap: \"10\" is not a length of time",
            ),
            (
                "select = { cursor = \"_id\", overlap = \"90d\" }",
                "hub.toml:3: pipeline[0].select.overlap: \"90d\" is not a length of time",
            ),
            ("source = \"file:/srv/in\"\nselect = \"status\"", "hub.toml:1: pipeline[0].select: is for MongoDB"),
            (
                "retention_days = -1",
                "hub.toml:3: pipeline[0].retention_days: is the number -1; write a whole number of days",
            ),
            ("table = \"dead_letters\"", "hub.toml:1: pipeline[0].table: \"dead_letters\" is a name of the hub's own"),
            (
                "table = \"public.hub_schema\"",
                "hub.toml:1: pipeline[0].table: \"public.hub_schema\" is a name of the hub's",
            ),
            (
                "table = \"metrics_disk_io\"",
                "hub.toml:1: pipeline[0].table: \"metrics_disk_io\" is a name of the hub's own",
            ),
            (
                "table = \"dead_letters_pkey\"",
                "hub.toml:1: pipeline[0].table: \"dead_letters_pkey\" is a name of the hub's",
            ),
            ("table = \"pg_class\"", "hub.toml:1: pipeline[0].table: \"pg_class\" is a name of PostgreSQL's own"),
            (
                "table = \"information_schema.t\"",
                "hub.toml:1: pipeline[0].table: \"information_schema.t\" is a name of Post",
            ),
            (
                "table = \"sqlite_sequence\"",
                "hub.toml:1: pipeline[0].table: \"sqlite_sequence\" is a name of SQLite's own",
            ),
            ("table = \"Dead_Letters\"", "hub.toml:3: pipeline[0].table: \"Dead_Letters\" is not a table; write a-z"),
            (
                "table = \"t\"\n[[pipeline]]\nname = \"b\"\ntable = \"t_view\"",
                "hub.toml:4: pipeline[1].table: \"t_view\" and \"t\" clash",
            ),
            (
                "table = \"s.t_pkey\"\n[[pipeline]]\nname = \"b\"\ntable = \"s.t\"",
                "hub.toml:4: pipeline[1].table: \"s.t\" and \"s.t_pkey\" clash",
            ),
            (
                "retention_days = 3\n[[pipeline]]\nname = \"b\"",
                "hub.toml:4: pipeline[1].retention_days: is 0, and the pipeline in line 1 fills the same table with 3",
            ),
        ] {
            let error = pipeline(keys).unwrap_err();
            assert!(error.starts_with(expected), "{keys}\n  gave     {error}\n  expected {expected}");
        }
    }
}
