//! A document becomes a row.

use serde::{Deserialize, Serialize};

use super::bson::{self, Raw};
use super::columns::{Rules, columns};
use super::json::{Shape, value_text};
use super::key::{hashed, key};
use super::{Rejection, extended};
use crate::config::Json;
use crate::store::Reading;

/// What was changed on the way, because one of the databases, or JSON, cannot hold it. Counted, never silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oddities {
    /// Texts or characters in which NUL became the symbol ␀ (U+2400).
    pub nul_replaced: u64,
    /// NaN and infinities that became texts.
    pub non_finite: u64,
    /// Values whose key came again later in the same object.
    pub duplicate_keys: u64,
    /// Dates outside the years 0 to 9999 that became their milliseconds as text.
    pub dates_out_of_range: u64,
    /// Timestamps of documents that are no time between the years 1 and 9999; `meta` keeps them.
    pub timestamps_kept_in_meta: u64,
    /// Numbers beyond 64 bits that became texts of their digits.
    pub numbers_as_text: u64,
    /// Fields of documents that have no column, and are in the payload or in `meta.unmapped`.
    pub unmapped_fields: u64,
    /// Rows with nothing in them but their key.
    pub empty_rows: u64,
}

impl std::ops::AddAssign for Oddities {
    fn add_assign(&mut self, other: Self) {
        self.nul_replaced += other.nul_replaced;
        self.non_finite += other.non_finite;
        self.duplicate_keys += other.duplicate_keys;
        self.dates_out_of_range += other.dates_out_of_range;
        self.timestamps_kept_in_meta += other.timestamps_kept_in_meta;
        self.numbers_as_text += other.numbers_as_text;
        self.unmapped_fields += other.unmapped_fields;
        self.empty_rows += other.empty_rows;
    }
}

/// How a document lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bson,
    /// A line of Extended JSON, without its end.
    Line,
}

impl Form {
    /// The form of stored bytes: a BSON document begins with its length and ends with zero; a line has no zero byte.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bson::elements(bytes).is_ok() { Self::Bson } else { Self::Line }
    }
}

/// A row, or why there is none and the key that the dead letter gets.
pub(super) type Outcome = Result<Reading, (String, Rejection)>;

/// Transforms a document. `place` tells documents without an id apart: it goes into their key.
pub(super) fn transform(bytes: &[u8], form: Form, place: &str, rules: &Rules, oddities: &mut Oddities) -> Outcome {
    // What is counted in a document that is rejected afterwards did not change anything.
    let mut found = Oddities::default();
    let outcome = match form {
        Form::Bson => row(bytes, place, rules, &mut found),
        Form::Line => match extended::to_bson(bytes) {
            Ok(converted) if converted.beyond > 0 && rules.json == Json::Extended => {
                Err((document_key(&converted.bson, place, rules), Rejection::Number))
            }
            Ok(converted) => {
                found.numbers_as_text = converted.beyond;
                row(&converted.bson, place, rules, &mut found)
            }
            Err(rejection) => Err((hashed("line", place, bytes), rejection)),
        },
    };
    if outcome.is_ok() {
        *oddities += found;
    }
    outcome
}

fn row(document: &[u8], place: &str, rules: &Rules, oddities: &mut Oddities) -> Outcome {
    bson::check(document).map_err(|rejection| (document_key(document, place, rules), rejection))?;
    let unreadable = || hashed("document", place, document);
    columns(document, place, rules, oddities)
        .map_err(|(key, rejection)| (key.map_or_else(unreadable, |key| key.text), rejection))
}

/// The key of a document that cannot be stored: that of its `_id`, where it can be read.
fn document_key(document: &[u8], place: &str, rules: &Rules) -> String {
    plain_key(document, rules).unwrap_or_else(|| hashed("document", place, document))
}

/// The key of a document that cannot be read whole, where its `_id` can be and holds nothing that could be too deep:
/// mended, the document has the same key.
fn plain_key(document: &[u8], rules: &Rules) -> Option<String> {
    let id = bson::find(document, "_id").ok()??;
    let is_plain = !matches!(id, Raw::Document(_) | Raw::Array(_) | Raw::CodeWithScope { .. });
    if is_plain { key(id, rules.keys).ok().map(|key| key.text) } else { None }
}

/// The text of a document for a person: Extended JSON where it can be read, else as much as can be printed.
pub(super) fn readable(bytes: &[u8]) -> String {
    let text = match Form::of(bytes) {
        Form::Bson if bson::check(bytes).is_ok() => {
            value_text(Raw::Document(bytes), Shape::Canonical, &mut Oddities::default()).ok()
        }
        _ => None,
    };
    crate::text::printable(text.as_deref().map_or(bytes, str::as_bytes))
}

#[cfg(test)]
mod tests;
