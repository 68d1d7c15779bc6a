//! A MongoDB collection: documents with `status: "ingested"`, read raw, marked `processed` after the commit.
//! What is read by a cursor's field is in `cursor`; the connection is the same.

use std::collections::HashMap;
use std::time::Duration;

use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::sync::Collection;

use super::batch::{Acknowledge, Batch, BatchLimits, Documents, Opened, Total};
use super::connection::{Connected, SAFE_REPLY, SERVER_TIME, batch, connect, explain, id};
use super::cursor::{self, Cursor};
use super::patience::patiently;
use crate::config::{Config, FieldPath, Pipeline, Select};
use crate::log;
use crate::reading::bson::Raw;
use crate::reading::columns::Rules;
use crate::reading::{Error, bson};
use crate::store::Position;

/// How long the driver looks for a server that can be used; the driver's own 30 s would make a person give up first.
const SELECTION: Duration = Duration::from_secs(10);
/// The same for somebody who only asks how things are.
const CHECK_SELECTION: Duration = Duration::from_secs(3);

/// What `listIndexes` answers where there is no such collection (MongoDB's manual, "Error Codes").
const NAMESPACE_NOT_FOUND: i32 = 26;

/// Opens the collection and makes sure that the server answers.
pub(super) fn open(
    config: &Config,
    pipeline: &Pipeline,
    rules: &Rules,
    position: Option<Position>,
) -> Result<Opened, Error> {
    let connected = connect(config, pipeline, SELECTION)?;
    match &pipeline.select {
        Select::Status => {
            let Connected { documents, target, .. } = connected;
            say_index(&documents, "status", "{status: 1, _id: 1}");
            let reader = Reader { documents: documents.clone(), rules: rules.clone(), target: target.clone() };
            Ok((Box::new(reader), Box::new(Marks { documents, target, marked: Vec::new() })))
        }
        Select::Cursor { field, overlap } => {
            if field.text != "_id" {
                say_index(&connected.documents, &field.text, &format!("{{{:?}: 1, _id: 1}}", field.text));
            }
            let source = format!("{} to {}", connected.name, pipeline.table);
            let cursor = Cursor::open(connected, rules, (field, *overlap), source, position)?;
            Ok((Box::new(cursor), Box::new(cursor::Nothing)))
        }
    }
}

/// Logs in and looks whether the collection can be read; says what is in it.
pub(super) fn check(config: &Config, pipeline: &Pipeline) -> Result<String, Error> {
    let Connected { documents, target, name } = connect(config, pipeline, CHECK_SELECTION)?;
    let failed = |error: DriverError| explain(&target, &error);
    if let Select::Cursor { field: FieldPath { text, .. }, .. } = &pipeline.select {
        let is_there = documents.find_one(doc! {}).max_time(CHECK_SELECTION).run().map_err(failed)?.is_some();
        let state = if is_there { format!("it is read by {text}") } else { "it is empty, or not there yet".to_owned() };
        return Ok(format!("{target}: {name} can be read, {state}"));
    }
    let waiting = documents.find_one(ingested()).max_time(CHECK_SELECTION).run().map_err(failed)?.is_some();
    let is_there = waiting || documents.find_one(doc! {}).max_time(CHECK_SELECTION).run().map_err(failed)?.is_some();
    let state = match (waiting, is_there) {
        (true, _) => "documents wait",
        (_, true) => "nothing waits",
        _ => "it is empty, or not there yet",
    };
    Ok(format!("{target}: {name} can be read, {state}"))
}

/// Asks for the index that keeps every batch from reading the whole collection; the operator makes it.
fn say_index(documents: &Collection<RawDocumentBuf>, field: &str, keys: &str) {
    let on_field = |index: &mongodb::IndexModel| index.keys.keys().next().is_some_and(|key| key == field);
    let name = documents.name();
    let indexes = match documents.list_indexes().run().and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(indexes) => indexes,
        // A collection that is not there yet has none, and nothing to read.
        Err(error) if matches!(&*error.kind, ErrorKind::Command(said) if said.code == NAMESPACE_NOT_FOUND) => return,
        Err(error) => {
            let error = log::printable(error.to_string().as_bytes());
            return log::warn!("indexes_not_listed", collection = name, error = error);
        }
    };
    if !indexes.iter().any(on_field) {
        let make = format!("db.getCollection({name:?}).createIndex({keys})");
        log::warn!("index_missing", collection = name, note = "every run reads the whole collection", make = make);
    }
}

fn ingested() -> Document {
    doc! { "status": "ingested" }
}

struct Reader {
    documents: Collection<RawDocumentBuf>,
    rules: Rules,
    target: String,
}

impl Documents for Reader {
    fn total(&mut self) -> Result<Total, Error> {
        // Without an index it may take long, and it is only for the progress bar.
        let counted = self.documents.count_documents(ingested()).max_time(Duration::from_secs(5)).run();
        Ok(Total { amount: counted.unwrap_or(0), unit: "documents" })
    }

    fn reads_ahead(&self) -> bool {
        false
    }

    /// One bounded query a batch: no cursor waits, and times out, while the database stores.
    fn next(&mut self, limits: BatchLimits) -> Result<Option<Batch>, Error> {
        let read = match self.read(limits) {
            // MongoDB ends a reply at 16 MiB. A server that does not is asked for what fits in any reply.
            Err(error) if matches!(*error.kind, ErrorKind::InvalidResponse { .. }) => {
                self.read(BatchLimits { documents: SAFE_REPLY, ..limits })
            }
            read => read,
        };
        let batch = read.map_err(|error| explain(&self.target, &error))?;
        Ok(if batch.documents.is_empty() { None } else { Some(batch) })
    }
}

impl Reader {
    fn read(&self, limits: BatchLimits) -> Result<Batch, DriverError> {
        let count = u32::try_from(limits.documents).unwrap_or(u32::MAX);
        let find = self.documents.find(ingested()).limit(count.into()).batch_size(count).max_time(SERVER_TIME);
        batch(&mut find.run()?, limits, &self.rules)
    }
}

struct Marks {
    documents: Collection<RawDocumentBuf>,
    target: String,
    /// The ids of what was marked since the last `settle`.
    marked: Vec<Bson>,
}

impl Acknowledge for Marks {
    fn acknowledge(&mut self, batch: &Batch) -> Result<u64, Error> {
        let mut read: HashMap<&[u8], &[u8]> = HashMap::new();
        for document in &batch.documents {
            if let Some(id) = id(&document.raw) {
                read.insert(id, &document.raw);
            }
        }
        let unchanged = self.unchanged(&read)?;
        if unchanged.is_empty() {
            return Ok(0);
        }
        self.marked.extend_from_slice(&unchanged);
        self.mark(unchanged, "ingested", "processed")
    }

    fn settle(&mut self) {
        self.marked.clear();
    }

    fn take_back(&mut self) -> Result<(), Error> {
        let marked = std::mem::take(&mut self.marked);
        if marked.is_empty() {
            return Ok(());
        }
        patiently(|| self.mark(marked.clone(), "processed", "ingested")).map(drop)
    }
}

impl Marks {
    fn mark(&self, ids: Vec<Bson>, from: &str, to: &str) -> Result<u64, Error> {
        let filter = doc! { "_id": { "$in": ids }, "status": from };
        let marked = self.documents.update_many(filter, doc! { "$set": { "status": to } }).run();
        Ok(marked.map_err(|error| explain(&self.target, &error))?.modified_count)
    }

    /// The ids of the documents that are still as they were read: a newer form is read again instead of marked.
    fn unchanged(&self, read: &HashMap<&[u8], &[u8]>) -> Result<Vec<Bson>, Error> {
        let failed = |error: &DriverError| explain(&self.target, error);
        let ids: Vec<Bson> = read.values().filter_map(|raw| id_value(raw)).collect();
        let size = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let find = self.documents.find(doc! { "_id": { "$in": ids }, "status": "ingested" });
        let mut cursor = find.batch_size(size).max_time(SERVER_TIME).run().map_err(|error| failed(&error))?;
        let mut unchanged = Vec::with_capacity(read.len());
        while cursor.advance().map_err(|error| failed(&error))? {
            let now = cursor.current().as_bytes();
            if id(now).and_then(|id| read.get(id)).is_some_and(|before| *before == now) {
                unchanged.extend(id_value(now));
            }
        }
        Ok(unchanged)
    }
}

/// The `_id` as the driver takes it; none where it is too deep for the driver's recursion.
fn id_value(document: &[u8]) -> Option<Bson> {
    if let Some(Raw::Document(inner) | Raw::Array(inner) | Raw::CodeWithScope { scope: inner, .. }) =
        bson::find(document, "_id").ok()?
    {
        bson::check(inner).ok()?;
    }
    RawDocument::from_bytes(document).ok()?.get("_id").ok()??.try_into().ok()
}
