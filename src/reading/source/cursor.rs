//! A MongoDB collection read by a field that only grows: nothing is written to it, and the position goes with the rows.

use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::sync::Collection;

use super::mongodb::{Connected, SAFE_REPLY, SERVER_TIME, explain};
use super::{Acknowledge, Batch, Limits, Read, Total};
use crate::config::FieldPath;
use crate::log;
use crate::reading::bson::Raw;
use crate::reading::columns::{Rules, inside};
use crate::reading::json::{Shape, value_text};
use crate::reading::transform::{Form, Oddities, transform};
use crate::reading::{Error, Rejection, extended};
use crate::store::Position;

/// What counting may take; it is only for the progress bar and for a warning.
const COUNT_TIME: Duration = Duration::from_secs(5);

/// Values that MongoDB compares with one another; a comparison finds none of another kind ("Comparison/Sort Order").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ObjectId,
    Date,
    Timestamp,
    Number,
    Text,
}

impl Kind {
    fn of(value: &Bson) -> Option<Self> {
        match value {
            Bson::ObjectId(_) => Some(Self::ObjectId),
            Bson::DateTime(_) => Some(Self::Date),
            Bson::Timestamp(_) => Some(Self::Timestamp),
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => Some(Self::Number),
            Bson::String(_) => Some(Self::Text),
            _ => None,
        }
    }

    /// The lowest value.
    fn lowest(self) -> Bson {
        match self {
            Self::ObjectId => ObjectId::from_bytes([0; 12]).into(),
            Self::Date => DateTime::MIN.into(),
            Self::Timestamp => Timestamp { time: 0, increment: 0 }.into(),
            Self::Number => f64::NEG_INFINITY.into(),
            Self::Text => String::new().into(),
        }
    }
}

/// Reads documents in the order of the field.
pub(super) struct Cursor {
    documents: Collection<RawDocumentBuf>,
    target: String,
    rules: Rules,
    field: FieldPath,
    /// What it reads and fills.
    source: String,
    /// Where the next batch begins; none where the collection is empty.
    from: Option<From>,
    /// The farthest position; reading begins before it where there is an overlap.
    farthest: Option<(Position, Bson)>,
}

/// From this value on, without the first `passed` documents.
#[derive(Clone)]
struct From {
    value: Bson,
    passed: u64,
}

impl Cursor {
    pub(super) fn open(
        connected: Connected,
        rules: &Rules,
        (field, overlap): (&FieldPath, Duration),
        source: String,
        position: Option<Position>,
    ) -> Result<Self, Error> {
        let Connected { documents, target, name } = connected;
        let is_its = |position: &Position| position.source == source && position.field == field.text;
        let farthest = position.filter(|position| is_its(position) && !position.value.is_empty());
        let farthest = farthest.map(|position| value_of(&position).map(|value| (position, value))).transpose()?;
        let mut cursor =
            Self { documents, target, rules: rules.clone(), field: field.clone(), source, from: None, farthest };
        let Some(last) = cursor.end(-1)? else { return Ok(cursor) };
        let refused = |what: String| Err(Error::SourceRefused(format!("{name}: the cursor {:?} {what}", field.text)));
        let Some(kind) = Kind::of(&last) else {
            let what = format!("has values of the type {:?}", last.element_type());
            return refused(format!("{what}; it takes ObjectIds, dates, timestamps, numbers or texts that only grow"));
        };
        if !overlap.is_zero() && !matches!(kind, Kind::ObjectId | Kind::Date) {
            let what = format!("has values of the type {:?}", last.element_type());
            return refused(format!("{what}; overlap is for ObjectIds and dates, so take it out of hub.toml"));
        }
        cursor.say_others(kind)?;
        let before = cursor.farthest.as_ref().filter(|(_, value)| Kind::of(value) == Some(kind));
        cursor.from = Some(match before {
            Some((position, value)) if overlap.is_zero() => {
                From { value: value.clone(), passed: u64::try_from(position.passed).unwrap_or(0) }
            }
            Some((_, value)) => From { value: earlier(value, overlap), passed: 0 },
            None => From { value: kind.lowest(), passed: 0 },
        });
        Ok(cursor)
    }

    /// The first (1) or the last (-1) value of the field; none where there is no document.
    fn end(&self, order: i32) -> Result<Option<Bson>, Error> {
        let failed = |error: DriverError| explain(&self.target, &error);
        let find = self.documents.find_one(doc! {}).sort(doc! { &self.field.text: order }).max_time(SERVER_TIME);
        let Some(document) = find.run().map_err(failed)? else { return Ok(None) };
        self.value(document.as_bytes()).map(Some)
    }

    fn value(&self, document: &[u8]) -> Result<Bson, Error> {
        let refused =
            || Error::SourceRefused(format!("{}: {:?} of a document cannot be read", self.target, self.field.text));
        value_in(document, &self.field.names).ok_or_else(refused)
    }

    /// Warns of documents that no comparison finds.
    fn say_others(&self, kind: Kind) -> Result<(), Error> {
        let first = self.end(1)?;
        if first.as_ref().and_then(Kind::of) == Some(kind) {
            return Ok(());
        }
        let count = |filter: Document| self.documents.count_documents(filter).max_time(COUNT_TIME).run().ok();
        let all = count(doc! {});
        let seen = count(doc! { &self.field.text: { "$gte": kind.lowest() } });
        let count = all.zip(seen).map(|(all, seen)| all.saturating_sub(seen).to_string());
        let note = "they have no such field, or one of another type, and are not moved; select = \"status\" takes all";
        let count = count.unwrap_or_else(|| "some".to_owned());
        log::warn!("documents_without_cursor", cursor = self.field.text, count = count, note = note);
        Ok(())
    }

    fn read(&self, from: &From, limits: Limits) -> Result<Batch, DriverError> {
        let count = u32::try_from(limits.documents).unwrap_or(u32::MAX);
        let order = if self.field.text == "_id" {
            doc! { "_id": 1 }
        } else {
            doc! { &self.field.text: 1, "_id": 1 }
        };
        let find =
            self.documents.find(doc! { &self.field.text: { "$gte": &from.value } }).sort(order).skip(from.passed);
        let mut cursor = find.limit(count.into()).batch_size(count).max_time(SERVER_TIME).run()?;
        let mut batch = Batch::default();
        while !batch.is_full(limits) && cursor.advance()? {
            let raw = cursor.current().as_bytes().to_vec();
            let outcome = transform(&raw, Form::Bson, "", &self.rules, &mut batch.oddities);
            batch.add(raw, None, outcome);
            batch.advanced += 1;
        }
        Ok(batch)
    }

    /// Takes note of a batch: where the next one begins, and how far the pipeline is with it.
    fn advance(&mut self, from: &From, batch: &mut Batch) -> Result<(), Error> {
        let mut values = Vec::with_capacity(batch.documents.len());
        for document in &batch.documents {
            values.push(self.value(&document.raw)?);
        }
        let (Some(last), Some(document)) = (values.last().cloned(), batch.documents.last()) else { return Ok(()) };
        let same = values.iter().rev().take_while(|value| **value == last).count() as u64;
        // Where all of the batch has the value that the one before ended with, those are passed too.
        let before = if same == values.len() as u64 && from.value == last { from.passed } else { 0 };
        let passed = same + before;
        self.from = Some(From { value: last.clone(), passed });
        let position = Position {
            source: self.source.clone(),
            field: self.field.text.clone(),
            value: text_of(&document.raw, &self.field).map_err(|error| {
                Error::SourceRefused(format!("{}: {:?} of a document: {error}", self.target, self.field.text))
            })?,
            passed: i64::try_from(passed).unwrap_or(i64::MAX),
        };
        if self.farthest.as_ref().is_none_or(|(old, value)| is_farther((value, old.passed), (&last, position.passed))) {
            self.farthest = Some((position, last));
        }
        batch.position = self.farthest.as_ref().map(|(position, _)| position.clone());
        Ok(())
    }
}

impl Read for Cursor {
    fn total(&mut self) -> Result<Total, Error> {
        let Some(from) = &self.from else { return Ok(Total { amount: 0, unit: "documents" }) };
        let filter = doc! { &self.field.text: { "$gte": &from.value } };
        let counted = self.documents.count_documents(filter).max_time(COUNT_TIME).run();
        Ok(Total { amount: counted.unwrap_or(0).saturating_sub(from.passed), unit: "documents" })
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn next(&mut self, limits: Limits) -> Result<Option<Batch>, Error> {
        let Some(from) = self.from.clone() else { return Ok(None) };
        let read = match self.read(&from, limits) {
            Err(error) if matches!(*error.kind, ErrorKind::InvalidResponse { .. }) => {
                self.read(&from, Limits { documents: SAFE_REPLY, ..limits })
            }
            read => read,
        };
        let mut batch = read.map_err(|error| explain(&self.target, &error))?;
        self.advance(&from, &mut batch)?;
        Ok(if batch.documents.is_empty() { None } else { Some(batch) })
    }
}

/// The source is not written to; what is read is known by the position.
pub(super) struct Nothing;

impl Acknowledge for Nothing {
    fn acknowledge(&mut self, batch: &Batch) -> Result<u64, Error> {
        Ok(batch.documents.len() as u64)
    }

    fn settle(&mut self) {}

    fn take_back(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The field of a document; null where it has none. Of a type that is no cursor only the type is kept.
fn value_in(document: &[u8], names: &[String]) -> Option<Bson> {
    let (last, outer) = names.split_last()?;
    let mut document = RawDocument::from_bytes(document).ok()?;
    for name in outer {
        document = match document.get(name).ok()? {
            Some(RawBsonRef::Document(inner)) => inner,
            _ => return Some(Bson::Null),
        };
    }
    Some(match document.get(last).ok()? {
        None => Bson::Null,
        // Whatever is deep in them, nobody looks at it.
        Some(RawBsonRef::Document(_)) => Bson::Document(Document::new()),
        Some(RawBsonRef::Array(_)) => Bson::Array(Vec::new()),
        Some(RawBsonRef::JavaScriptCodeWithScope(_)) => Bson::Undefined,
        Some(value) => value.try_into().ok()?,
    })
}

/// The value of a position, from its text.
fn value_of(position: &Position) -> Result<Bson, Error> {
    let document = extended::to_bson(format!("{{\"value\":{}}}", position.value).as_bytes()).ok();
    let value = document.and_then(|document| value_in(&document.bson, &["value".to_owned()]));
    value.ok_or_else(|| Error::Internal(format!("the position {:?} in hub_positions cannot be read", position.value)))
}

/// The text of a field's value, for a position.
fn text_of(document: &[u8], field: &FieldPath) -> Result<String, Rejection> {
    let (value, _) = inside(document, &field.names)?.unwrap_or((Raw::Null, true));
    value_text(value, Shape::Canonical, &mut Oddities::default())
}

/// The value so long before another.
fn earlier(value: &Bson, overlap: Duration) -> Bson {
    match value {
        Bson::ObjectId(id) => {
            // Its first four bytes are seconds since 1970.
            let [a, b, c, d, ..] = id.bytes();
            let seconds = u32::from_be_bytes([a, b, c, d]).saturating_sub(overlap.as_secs() as u32);
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&seconds.to_be_bytes());
            ObjectId::from_bytes(bytes).into()
        }
        Bson::DateTime(time) => {
            DateTime::from_millis(time.timestamp_millis().saturating_sub(overlap.as_millis() as i64)).into()
        }
        other => other.clone(),
    }
}

/// Whether a position lies beyond another one of the same kind of value, or is of another kind.
fn is_farther(old: (&Bson, i64), new: (&Bson, i64)) -> bool {
    let order = match (old.0, new.0) {
        (Bson::ObjectId(old), Bson::ObjectId(new)) => old.bytes().cmp(&new.bytes()),
        (Bson::DateTime(old), Bson::DateTime(new)) => old.cmp(new),
        (Bson::Timestamp(old), Bson::Timestamp(new)) => (old.time, old.increment).cmp(&(new.time, new.increment)),
        (Bson::String(old), Bson::String(new)) => old.cmp(new),
        _ => return true,
    };
    order.then(old.1.cmp(&new.1)).is_lt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_goes_back_in_time() {
        let id = ObjectId::parse_str("5f43a1b2c3d4e5f601020304").unwrap();
        let before = earlier(&id.into(), Duration::from_secs(0x12));
        assert_eq!(before, ObjectId::parse_str("5f43a1a00000000000000000").unwrap().into());
        let time = earlier(&DateTime::from_millis(5000).into(), Duration::from_secs(10));
        assert_eq!(time, DateTime::from_millis(-5000).into());
    }

    #[test]
    fn a_position_goes_on_and_never_back() {
        let date = |millis| Bson::DateTime(DateTime::from_millis(millis));
        assert!(is_farther((&date(1), 5), (&date(2), 1)) && is_farther((&date(2), 1), (&date(2), 2)));
        assert!(!is_farther((&date(2), 1), (&date(1), 9)) && !is_farther((&date(2), 2), (&date(2), 2)));
    }

    #[test]
    fn the_text_of_a_position_gives_its_value_back() {
        for value in [
            r#"{"$oid":"5f43a1b2c3d4e5f601020304"}"#,
            r#"{"$numberLong":"7"}"#,
            r#""a""#,
            r#"{"$date":{"$numberLong":"-5"}}"#,
        ] {
            let document = extended::to_bson(format!(r#"{{"a":{{"b":{value}}}}}"#).as_bytes()).unwrap().bson;
            let names = ["a".to_owned(), "b".to_owned()];
            let field = FieldPath { text: "a.b".to_owned(), names: names.to_vec() };
            let text = text_of(&document, &field).unwrap();
            assert_eq!(text, value);
            let position = Position { source: String::new(), field: String::new(), value: text, passed: 0 };
            assert_eq!(value_of(&position).unwrap(), value_in(&document, &names).unwrap());
        }
    }
}
