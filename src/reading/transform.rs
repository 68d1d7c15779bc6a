//! A document becomes a row.

use serde::{Deserialize, Serialize};

use super::bson::{self, Raw};
use super::json::{Shape, value_text, without_nul};
use super::key::{hashed, key};
use super::{Rejection, extended};
use crate::config::Json;
use crate::store::Reading;

/// Numbers below this are seconds since 1970 (until the year 5138), others milliseconds (since 1973).
const FIRST_MILLISECOND: f64 = 1e11;

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
}

impl std::ops::AddAssign for Oddities {
    fn add_assign(&mut self, other: Self) {
        self.nul_replaced += other.nul_replaced;
        self.non_finite += other.non_finite;
        self.duplicate_keys += other.duplicate_keys;
        self.dates_out_of_range += other.dates_out_of_range;
        self.timestamps_kept_in_meta += other.timestamps_kept_in_meta;
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
pub(super) fn transform(bytes: &[u8], form: Form, place: &str, json: Json, oddities: &mut Oddities) -> Outcome {
    // What is counted in a document that is rejected afterwards did not change anything.
    let mut found = Oddities::default();
    let outcome = match form {
        Form::Bson => row(bytes, place, json, &mut found),
        Form::Line => match extended::to_bson(bytes) {
            Ok(document) => row(&document, place, json, &mut found),
            Err(rejection) => Err((hashed("line", place, bytes), rejection)),
        },
    };
    if outcome.is_ok() {
        *oddities += found;
    }
    outcome
}

fn row(document: &[u8], place: &str, json: Json, oddities: &mut Oddities) -> Outcome {
    let unreadable = || hashed("document", place, document);
    bson::check(document).map_err(|rejection| (plain_key(document).unwrap_or_else(unreadable), rejection))?;
    let key = match bson::find(document, "_id") {
        Ok(Some(id)) => key(id).map_err(|rejection| (unreadable(), rejection))?,
        _ => hashed("line", place, document),
    };
    if let Err(rejection) = keys_once(document, json, oddities) {
        return Err((key, rejection));
    }
    columns(document, key.clone(), json, oddities).map_err(|rejection| (key, rejection))
}

/// The key of a document that cannot be read whole, where its `_id` can be and holds nothing that could be too deep:
/// mended, the document has the same key.
fn plain_key(document: &[u8]) -> Option<String> {
    let id = bson::find(document, "_id").ok()??;
    let is_plain = !matches!(id, Raw::Document(_) | Raw::Array(_) | Raw::CodeWithScope { .. });
    if is_plain { key(id).ok() } else { None }
}

/// The keys that become columns. One that is there twice is counted, or refused where nothing may be lost.
fn keys_once(document: &[u8], json: Json, oddities: &mut Oddities) -> Result<(), Rejection> {
    const COLUMNS: [&str; 6] = ["_id", "timestamp", "source", "event_type", "payload", "meta"];
    let mut seen = [false; COLUMNS.len()];
    for element in bson::elements(document)? {
        let (name, _) = element?;
        let Some(column) = COLUMNS.iter().position(|column| name == *column) else { continue };
        if seen[column] && json == Json::Extended {
            return Err(Rejection::DuplicateKey(name.to_owned()));
        }
        oddities.duplicate_keys += u64::from(seen[column]);
        seen[column] = true;
    }
    Ok(())
}

fn columns(document: &[u8], key: String, json: Json, oddities: &mut Oddities) -> Result<Reading, Rejection> {
    let shape = match json {
        Json::Plain => Shape::Plain,
        Json::Extended => Shape::Extended,
    };
    let value = |name| bson::find(document, name);
    let timestamp = value("timestamp")?;
    let event_timestamp = timestamp.and_then(milliseconds);
    let mut meta = value("meta")?.map(|value| value_text(value, shape, oddities)).transpose()?;
    if let (Some(kept), None) = (timestamp.filter(|value| !matches!(value, Raw::Null)), event_timestamp) {
        oddities.timestamps_kept_in_meta += 1;
        let kept = value_text(kept, shape, oddities)?;
        meta = Some(with_timestamp(meta, value("meta")?, &kept)?);
    }
    Ok(Reading {
        mongo_id: key,
        event_timestamp,
        source: value("source")?.map_or(Ok(None), |value| text(value, shape, oddities))?,
        event_type: value("event_type")?.map_or(Ok(None), |value| text(value, shape, oddities))?,
        payload: value("payload")?.map(|value| value_text(value, shape, oddities)).transpose()?,
        meta,
    })
}

/// A column of type text: what is no text in the document is stored as its JSON.
fn text(value: Raw<'_>, shape: Shape, oddities: &mut Oddities) -> Result<Option<String>, Rejection> {
    match value {
        Raw::Null | Raw::Undefined => Ok(None),
        Raw::String(text) => without_nul(text, shape, oddities).map(Some),
        other => value_text(other, shape, oddities).map(Some),
    }
}

/// `meta` with the timestamp that is none: under its own name, with underscores before it where that is taken.
fn with_timestamp(meta: Option<String>, value: Option<Raw<'_>>, kept: &str) -> Result<String, Rejection> {
    let (Some(meta), Some(value)) = (meta, value) else { return Ok(format!("{{\"timestamp\":{kept}}}")) };
    match value {
        Raw::Document(document) => {
            let mut name = "timestamp".to_owned();
            while bson::find(document, &name)?.is_some() {
                name.insert(0, '_');
            }
            let members = meta.strip_prefix('{').unwrap_or_default();
            let comma = if members == "}" { "" } else { "," };
            Ok(format!("{{\"{name}\":{kept}{comma}{members}"))
        }
        Raw::Null | Raw::Undefined => Ok(format!("{{\"timestamp\":{kept}}}")),
        _ => Ok(format!("{{\"timestamp\":{kept},\"meta\":{meta}}}")),
    }
}

/// The time of an event in milliseconds since 1970, from every shape that producers wrote: date, RFC 3339 (without an
/// offset: UTC), seconds and milliseconds as numbers or digits. None outside the years 1 to 9999.
fn milliseconds(value: Raw<'_>) -> Option<i64> {
    let number = |value: f64| {
        let milliseconds = if value.abs() < FIRST_MILLISECOND { value * 1000.0 } else { value };
        // A float has 53 bits, more than a time between the years 1 and 9999 takes.
        (milliseconds.abs() < 1e15).then_some(milliseconds.floor() as i64)
    };
    let milliseconds = match value {
        Raw::DateTime(milliseconds) => Some(milliseconds),
        Raw::Timestamp { seconds, .. } => Some(i64::from(seconds) * 1000),
        Raw::Int32(value) => number(f64::from(value)),
        Raw::Int64(value) if value.unsigned_abs() < FIRST_MILLISECOND as u64 => Some(value * 1000),
        Raw::Int64(value) => Some(value),
        Raw::Double(value) => number(value),
        Raw::String(text) => of_text(text.trim()).or_else(|| {
            let digits = !text.is_empty() && text.trim().bytes().all(|byte| b"+-.0123456789".contains(&byte));
            if digits { text.trim().parse().ok().and_then(number) } else { None }
        }),
        _ => None,
    }?;
    let time = jiff::Timestamp::from_millisecond(milliseconds).ok()?;
    let year = jiff::tz::TimeZone::UTC.to_datetime(time).year();
    (1..=9999).contains(&year).then_some(milliseconds)
}

fn of_text(text: &str) -> Option<i64> {
    // A number is no date, although 20240101 could be read as one.
    if !text.contains('-') && !text.contains(':') {
        return None;
    }
    let instant = text.parse::<jiff::Timestamp>().ok();
    let instant = instant.or_else(|| {
        let local = text.parse::<jiff::civil::DateTime>().ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(local).ok()
    });
    instant.map(jiff::Timestamp::as_millisecond)
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
mod tests {
    use super::*;

    fn of(line: &str, json: Json) -> (Outcome, Oddities) {
        let mut oddities = Oddities::default();
        let outcome = transform(line.as_bytes(), Form::Line, "file:1", json, &mut oddities);
        (outcome, oddities)
    }

    fn plain(line: &str) -> Reading {
        of(line, Json::Plain).0.unwrap()
    }

    #[test]
    fn a_document_of_the_go_version_becomes_its_row() {
        let row = plain(
            r#"{"_id":{"$oid":"5f43a1b2c3d4e5f601020304"},"status":"ingested","event_type":"cpu","source":"agent",
               "timestamp":"2026-01-04T12:00:00Z","payload":{"value":99.0,"f":0.5,"at":{"$date":"2026-01-04T12:00:00.120Z"},
               "id":{"$oid":"5f43a1b2c3d4e5f601020304"},"n":{"$numberLong":"5"}},"meta":{"host":"h"}}"#,
        );
        assert_eq!(row.mongo_id, "5f43a1b2c3d4e5f601020304");
        assert_eq!(row.event_timestamp, Some(1_767_528_000_000));
        assert_eq!((row.source.as_deref(), row.event_type.as_deref()), (Some("agent"), Some("cpu")));
        assert_eq!(
            row.payload.unwrap(),
            r#"{"value":99,"f":0.5,"at":"2026-01-04T12:00:00.12Z","id":"5f43a1b2c3d4e5f601020304","n":5}"#
        );
        assert_eq!(row.meta.unwrap(), r#"{"host":"h"}"#);
    }

    #[test]
    fn timestamps_of_every_shape() {
        let expected = Some(1_767_528_000_000);
        for shape in [
            "1767528000",
            "1767528000000",
            "1767528000.0",
            r#""1767528000""#,
            r#""1767528000000""#,
            r#""2026-01-04T12:00:00Z""#,
            r#""2026-01-04T13:00:00+01:00""#,
            r#""2026-01-04 12:00:00""#,
            r#"{"$date":"2026-01-04T12:00:00Z"}"#,
            r#"{"$numberLong":"1767528000"}"#,
            r#"{"$timestamp":{"t":1767528000,"i":1}}"#,
        ] {
            assert_eq!(plain(&format!(r#"{{"_id":1,"timestamp":{shape}}}"#)).event_timestamp, expected, "{shape}");
        }
        for (meta, kept) in [
            (r#""meta":{"a":1},"#, r#"{"timestamp":"soon","a":1}"#),
            (r#""meta":{"timestamp":1},"#, r#"{"_timestamp":"soon","timestamp":1}"#),
            (r#""meta":[1],"#, r#"{"timestamp":"soon","meta":[1]}"#),
            (r#""meta":{},"#, r#"{"timestamp":"soon"}"#),
            ("", r#"{"timestamp":"soon"}"#),
        ] {
            let row = plain(&format!(r#"{{"_id":1,{meta}"timestamp":"soon"}}"#));
            assert_eq!((row.event_timestamp, row.meta.as_deref()), (None, Some(kept)));
        }
        for number in [i64::MIN, i64::MAX, 9_007_199_254_740_993] {
            let row = plain(&format!(r#"{{"_id":1,"timestamp":{number}}}"#));
            assert_eq!((row.event_timestamp, row.meta), (None, Some(format!(r#"{{"timestamp":{number}}}"#))));
        }
        let far = plain(r#"{"_id":1,"timestamp":{"$date":{"$numberLong":"9223372036854775807"}}}"#);
        assert_eq!(far.meta.as_deref(), Some(r#"{"timestamp":"9223372036854775807"}"#));
    }

    #[test]
    fn what_a_database_cannot_hold_has_one_policy_in_each_shape() {
        let line = r#"{"_id":1,"source":"a\u0000","payload":{"n":{"$numberDouble":"NaN"},"k":"x\u0000","d":1,"d":2,"z":-0.0}}"#;
        let (row, oddities) = of(line, Json::Plain);
        let row = row.unwrap();
        assert_eq!(row.payload.unwrap(), r#"{"n":"NaN","k":"x␀","d":2,"z":0}"#);
        assert_eq!(row.source.unwrap(), "a␀");
        assert_eq!((oddities.nul_replaced, oddities.non_finite, oddities.duplicate_keys), (2, 1, 1));
        for (payload, rejection) in
            [(r#"{"k":"x\u0000"}"#, Rejection::Nul), (r#"{"d":1,"d":2}"#, Rejection::DuplicateKey("d".into()))]
        {
            let (outcome, oddities) = of(&format!(r#"{{"_id":1,"payload":{payload}}}"#), Json::Extended);
            assert_eq!((outcome.unwrap_err().1, oddities), (rejection, Oddities::default()));
        }
        let twice = r#"{"_id":1,"payload":1,"other":1,"other":1,"payload":2}"#;
        let (row, oddities) = of(twice, Json::Plain);
        assert_eq!((row.unwrap().payload.as_deref(), oddities.duplicate_keys), (Some("2"), 1));
        assert_eq!(of(twice, Json::Extended).0.unwrap_err().1, Rejection::DuplicateKey("payload".into()));
        let (row, _) = of(r#"{"_id":1,"payload":{"z":-0.0,"n":{"$numberDouble":"NaN"}}}"#, Json::Extended);
        assert_eq!(row.unwrap().payload.unwrap(), r#"{"z":{"$numberDouble":"-0.0"},"n":{"$numberDouble":"NaN"}}"#);
    }

    #[test]
    fn a_key_that_looks_like_a_type_is_kept_out_of_extended_json() {
        // {_id: 1, payload: {$oid: "5"}}, which only BSON can say.
        let document = b"\x2c\0\0\0\x10_id\0\x01\0\0\0\x03payload\0\x11\0\0\0\x02$oid\0\x02\0\0\x005\0\0\0";
        let document = [&(document.len() as i32).to_le_bytes()[..], &document[4..]].concat();
        let transformed = |json| transform(&document, Form::Bson, "", json, &mut Oddities::default());
        assert_eq!(transformed(Json::Plain).unwrap().payload.unwrap(), r#"{"$oid":"5"}"#);
        assert_eq!(transformed(Json::Extended).unwrap_err().1, Rejection::Ambiguous("$oid".into()));
    }

    #[test]
    fn lines_that_are_no_documents_are_rejected_with_their_own_keys() {
        let mut keys = std::collections::HashSet::new();
        for line in ["", "{", "[1]", r#"{"a":"\ud800"}"#, "nonsense", r#"{"_id":{"$oid":"5"}}"#, "{\"a\":1}x"] {
            let (key, _) = of(line, Json::Plain).0.unwrap_err();
            assert!(keys.insert(key), "{line}");
        }
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(of(&format!(r#"{{"a":{deep}}}"#), Json::Plain).0.unwrap_err().1, Rejection::TooDeep);
    }
}
