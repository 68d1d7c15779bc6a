//! A MongoDB collection read by a field that only grows: nothing is written to it, and the position goes with the rows.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::sync::Collection;

use super::batch::{Acknowledge, Batch, BatchLimits, Documents, Total};
use super::connection::{Connected, SAFE_REPLY, SERVER_TIME, batch, explain};
use super::position::{self, Mark, earlier, is_before, is_equal};
use crate::config::FieldPath;
use crate::log;
use crate::reading::Error;
use crate::reading::columns::Rules;
use crate::store::Position;

/// What counting may take; it is only for the progress bar and for a warning.
const COUNT_TIME: Duration = Duration::from_secs(5);

/// Values that MongoDB compares with one another; a comparison finds none of another kind ("Comparison/Sort Order").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Number,
    Text,
    ObjectId,
    Date,
    Timestamp,
}

/// In MongoDB's order.
const KINDS: [Kind; 5] = [Kind::Number, Kind::Text, Kind::ObjectId, Kind::Date, Kind::Timestamp];

impl Kind {
    fn of(value: &Bson) -> Option<Self> {
        match value {
            Bson::ObjectId(_) => Some(Self::ObjectId),
            Bson::DateTime(_) => Some(Self::Date),
            Bson::Timestamp(_) => Some(Self::Timestamp),
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => Some(Self::Number),
            Bson::String(_) | Bson::Symbol(_) => Some(Self::Text),
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

    fn has_overlap(self) -> bool {
        matches!(self, Self::ObjectId | Self::Date)
    }
}

/// Reads documents in the order of the field, one kind of its values after another.
pub(super) struct Cursor {
    documents: Collection<RawDocumentBuf>,
    target: String,
    rules: Rules,
    field: FieldPath,
    overlap: Duration,
    /// What it reads and fills.
    source: String,
    /// The kinds that there are, and where the next batch of each begins.
    kinds: Vec<(Kind, Mark)>,
    /// Which of them is read now.
    at: usize,
    /// How far each kind was ever read; reading begins before it where there is an overlap.
    reached: BTreeMap<Kind, Mark>,
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
        let position = position.filter(|position| is_its(position) && !position.value.is_empty());
        let marks = position.as_ref().map(position::read).transpose()?.unwrap_or_default();
        let reached = marks.into_iter().filter_map(|mark| Some((Kind::of(&mark.value)?, mark))).collect();
        let (rules, field) = (rules.clone(), field.clone());
        let mut cursor = Self { documents, target, rules, field, overlap, source, kinds: Vec::new(), at: 0, reached };
        let (Some(first), Some(last)) = (cursor.end(1)?, cursor.end(-1)?) else { return Ok(cursor) };
        cursor.kinds = cursor.present(&first, &last)?;
        let refused = |what: &str| {
            let what = format!("{:?} has values of the type {:?}; {what}", cursor.field.text, last.element_type());
            Err(Error::SourceRefused(format!("{name}: the cursor {what}")))
        };
        if cursor.kinds.is_empty() {
            return refused("it takes ObjectIds, dates, timestamps, numbers or texts that only grow");
        }
        if !overlap.is_zero() && !cursor.kinds.iter().any(|(kind, _)| kind.has_overlap()) {
            return refused("overlap is for ObjectIds and dates, so take it out of hub.toml");
        }
        if let Some(mark) = Kind::of(&last).and_then(|kind| cursor.reached.get(&kind))
            && is_before(&last, &mark.value)
        {
            let note = "documents were deleted, or the collection was made anew: of what comes before the position nothing \
                        is moved; to begin anew, delete the pipeline's row in hub_positions";
            log::warn!("position_beyond_the_last", cursor = cursor.field.text, collection = name, note = note);
        }
        // Between two kinds there may be values that are none.
        if Kind::of(&first).is_none() || Kind::of(&first) != Kind::of(&last) {
            cursor.say_others();
        }
        Ok(cursor)
    }

    /// The first (1) or the last (-1) value of the field; none where there is no document.
    fn end(&self, order: i32) -> Result<Option<Bson>, Error> {
        let find = self.documents.find_one(doc! {}).sort(doc! { &self.field.text: order }).max_time(SERVER_TIME);
        let Some(document) = find.run().map_err(|error| explain(&self.target, &error))? else { return Ok(None) };
        self.value(document.as_bytes()).map(Some)
    }

    fn value(&self, document: &[u8]) -> Result<Bson, Error> {
        let refused =
            || Error::SourceRefused(format!("{}: {:?} of a document cannot be read", self.target, self.field.text));
        value_in(document, &self.field.names).ok_or_else(refused)
    }

    /// The kinds that the field has values of, between its first value and its last, and where reading begins.
    fn present(&self, first: &Bson, last: &Bson) -> Result<Vec<(Kind, Mark)>, Error> {
        let (first, last) = (Kind::of(first), Kind::of(last));
        let mut kinds = Vec::new();
        for kind in KINDS {
            // What is no kind may lie anywhere in the order.
            if first.is_some_and(|first| kind < first) || last.is_some_and(|last| kind > last) {
                continue;
            }
            let begin = Mark::at(kind.lowest());
            let is_there = || {
                let one = self.documents.find_one(self.beyond(&begin)).max_time(SERVER_TIME);
                one.run().map_err(|error| explain(&self.target, &error))
            };
            if Some(kind) != first && Some(kind) != last && is_there()?.is_none() {
                continue;
            }
            kinds.push((
                kind,
                match self.reached.get(&kind) {
                    Some(mark) if kind.has_overlap() && !self.overlap.is_zero() => {
                        Mark::at(earlier(&mark.value, self.overlap))
                    }
                    Some(mark) => mark.clone(),
                    None => begin,
                },
            ));
        }
        Ok(kinds)
    }

    /// The documents from a mark on, of its kind. A comparison would find a list by each of its items, wherever the list
    /// is sorted.
    fn beyond(&self, mark: &Mark) -> Document {
        if self.field.text == "_id" {
            let comparison = if mark.passed > 0 { "$gt" } else { "$gte" };
            return doc! { "_id": { comparison: &mark.value } };
        }
        let names = &self.field.names;
        let lists = (1..=names.len()).map(|count| doc! { names[..count].join("."): { "$type": "array" } });
        doc! { &self.field.text: { "$gte": &mark.value }, "$nor": lists.collect::<Vec<_>>() }
    }

    /// Warns of documents that no comparison finds.
    fn say_others(&self) {
        let count = |filter: Document| self.documents.count_documents(filter).max_time(COUNT_TIME).run().ok();
        let seen: Option<u64> = self.kinds.iter().map(|(kind, _)| count(self.beyond(&Mark::at(kind.lowest())))).sum();
        let others = count(doc! {}).zip(seen).map(|(all, seen)| all.saturating_sub(seen));
        if others == Some(0) {
            return;
        }
        let count = others.map_or_else(|| "some".to_owned(), |count| count.to_string());
        let note = "they have no such field, or one of another type, and are not moved; select = \"status\" takes all";
        log::warn!("documents_without_cursor", cursor = self.field.text, count = count, note = note);
    }

    /// Reads what comes behind a mark; returned with it is the mark that it was really read from.
    ///
    /// Where documents share a value, those that were read are passed over by their number, and the last of them shows
    /// that they are the same still: otherwise some were deleted or came in between, and all of that value are read.
    fn read(&self, mark: &Mark, limits: BatchLimits) -> Result<(Batch, Mark), DriverError> {
        let count = u32::try_from(limits.documents).unwrap_or(u32::MAX);
        let is_unique = self.field.text == "_id";
        let last = mark.last.as_ref().filter(|_| !is_unique && mark.passed > 0);
        let order = if is_unique {
            doc! { "_id": 1 }
        } else {
            doc! { &self.field.text: 1, "_id": 1 }
        };
        let find = self.documents.find(self.beyond(mark)).sort(order).max_time(SERVER_TIME);
        let (skipped, more) = if last.is_some() { (mark.passed - 1, 1) } else { (0, 0) };
        let find = find.skip(skipped).limit(i64::from(count) + more).batch_size(count.saturating_add(1));
        let mut cursor = find.run()?;
        if let Some(last) = last {
            let is_same = cursor.advance()? && position::hash(cursor.current().as_bytes()) == *last;
            if !is_same {
                return self.read(&Mark::at(mark.value.clone()), limits);
            }
        }
        let batch = batch(&mut cursor, limits, &self.rules)?;
        let from = if is_unique || last.is_some() { mark.clone() } else { Mark::at(mark.value.clone()) };
        Ok((batch, from))
    }

    /// Takes note of a batch of a kind: where the next one begins, and how far the pipeline is with it.
    fn advance(&mut self, kind: Kind, from: &Mark, batch: &mut Batch) -> Result<(), Error> {
        let mut values = Vec::with_capacity(batch.documents.len());
        for document in &batch.documents {
            values.push(self.value(&document.raw)?);
        }
        let (Some(value), Some(document)) = (values.last().cloned(), batch.documents.last()) else { return Ok(()) };
        let same = values.iter().rev().take_while(|other| is_equal(other, &value)).count() as u64;
        // Where all of the batch has the value that the one before ended with, those are passed too.
        let before = if same == values.len() as u64 && is_equal(&from.value, &value) { from.passed } else { 0 };
        let mark = Mark { value, passed: same + before, last: Some(position::hash(&document.raw)) };
        self.kinds[self.at].1 = mark.clone();
        let is_behind = |old: &Mark| !self.overlap.is_zero() && is_before(&mark.value, &old.value);
        if !self.reached.get(&kind).is_some_and(is_behind) {
            self.reached.insert(kind, mark);
        }
        let unreadable = |error| format!("{}: {:?} of a document: {error}", self.target, self.field.text);
        let value = position::text(self.reached.values()).map_err(|error| Error::SourceRefused(unreadable(error)))?;
        let (source, field) = (self.source.clone(), self.field.text.clone());
        batch.position =
            Some(Position { source, field, value, passed: i64::try_from(same + before).unwrap_or(i64::MAX) });
        Ok(())
    }
}

impl Documents for Cursor {
    fn total(&mut self) -> Result<Total, Error> {
        let count = |mark: &Mark| {
            let counted = self.documents.count_documents(self.beyond(mark)).max_time(COUNT_TIME).run();
            let passed = if self.field.text == "_id" { 0 } else { mark.passed };
            counted.unwrap_or(0).saturating_sub(passed)
        };
        Ok(Total { amount: self.kinds.iter().map(|(_, mark)| count(mark)).sum(), unit: "documents" })
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn next(&mut self, limits: BatchLimits) -> Result<Option<Batch>, Error> {
        while let Some((kind, mark)) = self.kinds.get(self.at).cloned() {
            let read = match self.read(&mark, limits) {
                Err(error) if matches!(*error.kind, ErrorKind::InvalidResponse { .. }) => {
                    self.read(&mark, BatchLimits { documents: SAFE_REPLY, ..limits })
                }
                read => read,
            };
            let (mut batch, from) = read.map_err(|error| explain(&self.target, &error))?;
            self.advance(kind, &from, &mut batch)?;
            if !batch.documents.is_empty() {
                return Ok(Some(batch));
            }
            self.at += 1;
        }
        self.at = 0;
        Ok(None)
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
