//! How far a cursor's field is read: the last value of each kind, and its text in the database.

use std::cmp::Ordering;

use mongodb::bson::{Bson, DateTime, Document, RawDocument, RawDocumentBuf, doc};
use sha2::{Digest, Sha256};

use super::connection::id;
use crate::random::hex;
use crate::reading::bson;
use crate::reading::json::{Shape, value_text};
use crate::reading::transform::Oddities;
use crate::reading::{Error, Rejection, extended};
use crate::store::Position;

/// The name under which the marks lie in a document.
const MARKS: &str = "marks";

/// Where reading has come to among the values of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub value: Bson,
    /// How many documents with this value are done.
    pub passed: u64,
    /// The hash of the last of them; none where it is not known.
    pub last: Option<String>,
}

impl Mark {
    /// Before all documents with this value.
    pub(super) fn at(value: Bson) -> Self {
        Self { value, passed: 0, last: None }
    }

    fn to_document(&self) -> Document {
        let passed = i64::try_from(self.passed).unwrap_or(i64::MAX);
        let mut document = doc! { "value": &self.value, "passed": passed };
        if let Some(last) = &self.last {
            document.insert("last", last);
        }
        document
    }

    fn of(value: &Bson) -> Option<Self> {
        let document = value.as_document()?;
        let passed = u64::try_from(document.get_i64("passed").ok()?).ok()?;
        let last = document.get_str("last").ok().map(str::to_owned);
        Some(Self { value: document.get("value")?.clone(), passed, last })
    }
}

/// What tells a document from its like: a hash of its `_id`.
pub(super) fn hash(document: &[u8]) -> String {
    hex(&Sha256::digest(id(document).unwrap_or_default()))
}

/// The text of a position: its marks as canonical Extended JSON.
pub(super) fn text<'a>(marks: impl Iterator<Item = &'a Mark>) -> Result<String, Rejection> {
    let marks: Vec<Document> = marks.map(Mark::to_document).collect();
    let unreadable = |error: mongodb::bson::error::Error| Rejection::Bson(error.to_string());
    let document = RawDocumentBuf::try_from(doc! { MARKS: marks }).map_err(unreadable)?;
    let marks = bson::find(document.as_bytes(), MARKS)?.unwrap_or(bson::Raw::Null);
    value_text(marks, Shape::Canonical, &mut Oddities::default())
}

/// The marks of a position. Earlier versions kept one value alone, and how many documents with it were done.
pub(super) fn read(position: &Position) -> Result<Vec<Mark>, Error> {
    let document = extended::to_bson(format!("{{\"{MARKS}\":{}}}", position.value).as_bytes()).ok();
    let document = document.and_then(|document| Document::try_from(RawDocument::from_bytes(&document.bson).ok()?).ok());
    let marks = match document.as_ref().and_then(|document| document.get(MARKS)) {
        Some(Bson::Array(marks)) => marks.iter().map(Mark::of).collect(),
        Some(value) => Some(vec![Mark { passed: position.passed.unsigned_abs(), ..Mark::at(value.clone()) }]),
        None => None,
    };
    marks.ok_or_else(|| Error::Internal(format!("the position {:?} in hub_positions cannot be read", position.value)))
}

/// A whole number that 64 bits hold, of any type.
fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(value) => Some(i64::from(*value)),
        Bson::Int64(value) => Some(*value),
        // Beyond 2^63 no integer is.
        Bson::Double(value) if value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0 => Some(*value as i64),
        _ => None,
    }
}

/// How MongoDB orders two values of one kind: a number of any type has one value. None for what it does not compare.
///
/// Of a decimal, not its last digits count: a document too many that is passed over is noticed, one too few is not.
fn order(one: &Bson, two: &Bson) -> Option<Ordering> {
    let number = |value: &Bson| match value {
        Bson::Double(value) => Some(*value),
        Bson::Decimal128(value) => value.to_string().parse().ok(),
        value => whole(value).map(|value| value as f64),
    };
    match (one, two) {
        (Bson::ObjectId(one), Bson::ObjectId(two)) => Some(one.bytes().cmp(&two.bytes())),
        (Bson::DateTime(one), Bson::DateTime(two)) => Some(one.cmp(two)),
        (Bson::Timestamp(one), Bson::Timestamp(two)) => Some((one.time, one.increment).cmp(&(two.time, two.increment))),
        (Bson::String(one) | Bson::Symbol(one), Bson::String(two) | Bson::Symbol(two)) => Some(one.cmp(two)),
        _ => match (whole(one), whole(two)) {
            (Some(one), Some(two)) => Some(one.cmp(&two)),
            _ => number(one)?.partial_cmp(&number(two)?),
        },
    }
}

pub(super) fn is_equal(one: &Bson, two: &Bson) -> bool {
    order(one, two) == Some(Ordering::Equal)
}

pub(super) fn is_before(one: &Bson, two: &Bson) -> bool {
    order(one, two) == Some(Ordering::Less)
}

/// The value so long before another.
pub(super) fn earlier(value: &Bson, overlap: std::time::Duration) -> Bson {
    match value {
        Bson::ObjectId(id) => {
            // Its first four bytes are seconds since 1970.
            let [a, b, c, d, ..] = id.bytes();
            let overlap = u32::try_from(overlap.as_secs()).unwrap_or(u32::MAX);
            let seconds = u32::from_be_bytes([a, b, c, d]).saturating_sub(overlap);
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&seconds.to_be_bytes());
            mongodb::bson::oid::ObjectId::from_bytes(bytes).into()
        }
        Bson::DateTime(time) => {
            let overlap = i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX);
            DateTime::from_millis(time.timestamp_millis().saturating_sub(overlap)).into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mongodb::bson::oid::ObjectId;

    use super::*;

    fn date(millis: i64) -> Bson {
        DateTime::from_millis(millis).into()
    }

    #[test]
    fn an_overlap_goes_back_in_time() {
        let id = ObjectId::parse_str("5f43a1b2c3d4e5f601020304").unwrap();
        let before = earlier(&id.into(), Duration::from_secs(0x12));
        assert_eq!(before, ObjectId::parse_str("5f43a1a00000000000000000").unwrap().into());
        assert_eq!(earlier(&date(5000), Duration::from_secs(10)), date(-5000));
        assert!(is_before(&date(1), &date(2)) && !is_before(&date(2), &date(2)) && !is_before(&date(3), &date(2)));
    }

    #[test]
    fn numbers_of_one_value_are_equal_whatever_their_type() {
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        for (one, two) in [
            (Bson::Int32(5), Bson::Int64(5)),
            (Bson::Int64(5), Bson::Double(5.0)),
            (Bson::Double(5.0), decimal("5.00")),
            (Bson::Double(0.5), decimal("5E-1")),
            (Bson::Double(-0.0), Bson::Int32(0)),
            (Bson::Symbol("a".into()), Bson::String("a".into())),
            (date(7), date(7)),
        ] {
            assert!(is_equal(&one, &two) && is_equal(&two, &one), "{one} {two}");
        }
        for (one, two) in [
            (Bson::Int64(9_007_199_254_740_993), Bson::Double(9_007_199_254_740_992.0)),
            (Bson::Int64(9_007_199_254_740_993), Bson::Int64(9_007_199_254_740_992)),
            (Bson::Double(5.5), Bson::Int32(5)),
            (decimal("5.1"), Bson::Int32(5)),
            (Bson::String("5".into()), Bson::Int32(5)),
            (date(7), date(8)),
        ] {
            assert!(!is_equal(&one, &two) && !is_equal(&two, &one), "{one} {two}");
        }
        for (one, two) in [
            (Bson::Int64(i64::MAX - 1), Bson::Int64(i64::MAX)),
            (Bson::Double(4.5), Bson::Int32(5)),
            (decimal("-1E+6000"), Bson::Int64(i64::MIN)),
            (Bson::String("a".into()), Bson::String("ab".into())),
        ] {
            assert!(is_before(&one, &two) && !is_before(&two, &one), "{one} {two}");
        }
    }

    #[test]
    fn the_text_of_a_position_gives_its_marks_back() {
        let marks = [
            Mark { value: Bson::Int64(7), passed: 3, last: Some("ab".into()) },
            Mark::at(Bson::String("a\"\0\u{2028}".into())),
            Mark { value: ObjectId::parse_str("5f43a1b2c3d4e5f601020304").unwrap().into(), passed: 1, last: None },
            Mark::at(date(-5)),
            Mark::at(Bson::Double(0.1)),
            Mark::at(Bson::Decimal128("1.10".parse().unwrap())),
        ];
        let position = |value: &str, passed| Position {
            source: String::new(),
            field: String::new(),
            value: value.to_owned(),
            passed,
        };
        assert_eq!(read(&position(&text(marks.iter()).unwrap(), 0)).unwrap(), marks);
        assert_eq!(read(&position("[]", 0)).unwrap(), []);
        let old = Mark { passed: 4, ..Mark::at(date(5)) };
        assert_eq!(read(&position(r#"{"$date":{"$numberLong":"5"}}"#, 4)).unwrap(), [old]);
        for value in ["", "[1]", "[{\"value\":1}]", "{", "x"] {
            let error = read(&position(value, 0)).unwrap_err().to_string();
            assert!(error.contains("hub_positions cannot be read"), "{error}");
        }
    }
}
