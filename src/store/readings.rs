use std::sync::Arc;

/// Which ids of documents are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Every type is told from every other, as in tables of earlier versions.
    Types,
    /// Integers and whole doubles of one value are one, as in MongoDB itself.
    Values,
}

/// One row of a pipeline's table. Texts are free of NUL, JSON is valid: the pipeline has seen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The document's id as text; unique in the table.
    pub mongo_id: String,
    /// The id in its plain form, to be joined with; none where the document has no id.
    pub source_id: Option<String>,
    /// When the event happened, in milliseconds since 1970.
    pub event_timestamp: Option<i64>,
    /// Who sent it.
    pub source: Option<String>,
    /// What kind of event it is.
    pub event_type: Option<String>,
    /// JSON text.
    pub payload: Option<String>,
    /// JSON text.
    pub meta: Option<String>,
}

/// A document that cannot be stored as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The document's id as text; unique among the pipeline's dead letters.
    pub source_id: String,
    /// The file and the line it came from; none for MongoDB.
    pub place: Option<String>,
    /// Why it cannot be stored.
    pub reason: String,
    /// The document as it came: BSON, or the bytes of a line.
    pub document: Vec<u8>,
}

/// What one transaction stores. An id must not be in it twice.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// The pipeline, to which dead letters belong.
    pub pipeline: String,
    /// The table for the rows.
    pub table: String,
    /// The rows; shared, because documents may be large.
    pub rows: Vec<Arc<Reading>>,
    /// The dead letters; one that is there already is counted up and gets the newest reason and document.
    pub rejected: Vec<Rejected>,
    /// Ids whose dead letters go, because their documents are stored now.
    pub settled: Vec<String>,
    /// How far the pipeline is with it.
    pub position: Option<Position>,
}

/// How far a pipeline with a cursor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// What it reads and fills; with another one it begins anew.
    pub source: String,
    /// The cursor's field; with another one it begins anew.
    pub field: String,
    /// The last value of each kind that the field has, and what is done of it, as canonical Extended JSON.
    pub value: String,
    /// How many documents with the last value of all are done; earlier versions kept that value alone.
    pub passed: i64,
}

/// A dead letter without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number, for the operator.
    pub id: i64,
    /// Whose it is.
    pub pipeline: String,
    /// The document's id as text.
    pub source_id: String,
    /// The file and the line it came from, where that is known.
    pub place: Option<String>,
    /// Why it could not be stored the last time.
    pub reason: String,
    /// How often it was tried.
    pub attempts: i64,
    /// Milliseconds since 1970.
    pub first_failed: i64,
    /// Milliseconds since 1970.
    pub last_failed: i64,
    /// The document's length in bytes.
    pub size: i64,
}

/// As much of a dead letter as every version has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its number, for the operator.
    pub id: i64,
    /// Whose it is.
    pub pipeline: String,
    /// The document's id as text.
    pub source_id: String,
    /// Why it could not be stored the last time.
    pub reason: String,
    /// When that was, in milliseconds since 1970.
    pub last_failed: i64,
}

/// The newest dead letters, with this expression for their time: of so many no index is needed but that of the key.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn newest(last_failed: &str, most: u32) -> String {
    format!("SELECT id, pipeline, source_id, reason, {last_failed} FROM {TABLE} ORDER BY id DESC LIMIT {most}")
}

/// The table of dead letters.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const TABLE: &str = "dead_letters";

/// The table of positions.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const POSITIONS: &str = "hub_positions";

/// Longer retention than this is none: two thousand years, and PostgreSQL can still subtract it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const MOST_DAYS: u32 = 1_000_000;
