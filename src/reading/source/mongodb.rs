//! A MongoDB collection: documents with `status: "ingested"`, read raw, marked `processed` after the commit.
//! What is read by a cursor's field is in `cursor`; the connection is the same.

use std::collections::HashMap;
use std::time::Duration;

use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{ClientOptions, ReadPreference, SelectionCriteria};
use mongodb::sync::{Client, Collection};

use super::cursor::{self, Cursor};
use super::{Acknowledge, Batch, Limits, Opened, Read, Total, uri};
use crate::config::{Config, FieldPath, Pipeline, Select};
use crate::log;
use crate::reading::bson::Raw;
use crate::reading::columns::Rules;
use crate::reading::transform::{Form, transform};
use crate::reading::{Error, bson};
use crate::store::Position;

/// How long the driver looks for a server that can be used; the driver's own 30 s would make a person give up first.
const SELECTION: Duration = Duration::from_secs(10);
/// The same for somebody who only asks how things are.
const CHECK_SELECTION: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(10);
/// What the server may take for one reply or one update.
pub(super) const SERVER_TIME: Duration = Duration::from_secs(120);

/// What `listIndexes` answers where there is no such collection (MongoDB's manual, "Error Codes").
const NAMESPACE_NOT_FOUND: i32 = 26;
/// What a server answers that stops, looks for a primary, or took too long: the retryable errors of MongoDB's driver
/// specification "Retryable Reads", and MaxTimeMSExpired.
const PASSING: [i32; 15] = [6, 7, 50, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436, 13388];

/// Documents whose reply is shorter than the 48 MB of a message, however large each of them is.
pub(super) const SAFE_REPLY: usize = 2;

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

pub(super) struct Connected {
    pub documents: Collection<RawDocumentBuf>,
    pub target: String,
    /// Database and collection.
    pub name: String,
}

fn connect(config: &Config, pipeline: &Pipeline, longest_selection: Duration) -> Result<Connected, Error> {
    let uri = config.mongo_uri().map_err(Error::SourceAddress)?;
    let refused = |error: &DriverError| explain("MongoDB", error);
    let wrong = |reason: &str| {
        let form =
            "write mongodb://user:password@host:27017/?… or mongodb+srv://…, reserved characters percent-encoded";
        Error::SourceRefused(format!("MONGO_URI: {reason}; {form}"))
    };
    let uri = uri::prepared(uri.expose()).map_err(|reason| wrong(&reason))?;
    let is_right = |uri: &str| ClientOptions::parse(uri).run().is_ok();
    let mut options = ClientOptions::parse(&uri).run().map_err(|error| match *error.kind {
        ErrorKind::DnsResolve { .. } => refused(&error),
        // The driver repeats pieces of the URI, and any piece may be of a password.
        _ => match uri::culprit(&uri, is_right) {
            Some(option) => wrong(&format!("the driver does not take the value of the option {option}")),
            None => wrong("the driver does not understand it"),
        },
    })?;
    let target: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
    let target = format!("MongoDB at {}", target.join(","));
    let selection = options.server_selection_timeout.map_or(longest_selection, |given| given.min(longest_selection));
    options.server_selection_timeout = Some(selection);
    options.connect_timeout.get_or_insert(CONNECT);
    // A secondary may be behind the primary, where documents are marked: what is compared and what is marked would be two.
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.app_name.get_or_insert_with(|| "observability-hub".to_owned());
    let (database, collection) = config.mongo_names(pipeline);
    let name = format!("{database}.{collection}");
    let failed = |error: DriverError| explain(&target, &error);
    let client = Client::with_options(options).map_err(failed)?;
    let database = client.database(&database);
    database.run_command(doc! { "ping": 1 }).run().map_err(failed)?;
    Ok(Connected { documents: database.collection(&collection), target, name })
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

pub(super) fn explain(target: &str, error: &DriverError) -> Error {
    let reason = log::printable(error.to_string().as_bytes());
    let what = match &*error.kind {
        ErrorKind::Authentication { message, .. } => {
            return Error::SourceRefused(format!(
                "{target}: login refused: {message}; look at MONGO_URI, user, password and authSource"
            ));
        }
        ErrorKind::ServerSelection { message, .. } => message.clone(),
        _ => reason,
    };
    let authentication =
        what.contains("Authentication failed") || what.contains("auth error") || what.contains("AuthenticationFailed");
    if authentication {
        return Error::SourceRefused(format!("{target}: login refused: {what}; look at user, password and authSource"));
    }
    if what.contains("certificate") || what.contains("InvalidContentType") || what.contains("TLS") {
        return Error::SourceRefused(format!("{target}: TLS failed: {what}; look at tls and tlsCAFile in MONGO_URI"));
    }
    match &*error.kind {
        ErrorKind::Command(refused) if PASSING.contains(&refused.code) => {
            Error::SourceDown(format!("{target} cannot serve now: {what}"))
        }
        ErrorKind::Command(_) | ErrorKind::Write(_) | ErrorKind::BulkWrite(_) | ErrorKind::InvalidArgument { .. } => {
            Error::SourceRefused(format!("{target}: {what}"))
        }
        _ => Error::SourceDown(format!("{target} does not answer: {what}")),
    }
}

struct Reader {
    documents: Collection<RawDocumentBuf>,
    rules: Rules,
    target: String,
}

impl Read for Reader {
    fn total(&mut self) -> Result<Total, Error> {
        // Without an index it may take long, and it is only for the progress bar.
        let counted = self.documents.count_documents(ingested()).max_time(Duration::from_secs(5)).run();
        Ok(Total { amount: counted.unwrap_or(0), unit: "documents" })
    }

    fn reads_ahead(&self) -> bool {
        false
    }

    /// One bounded query a batch: no cursor waits, and times out, while the database stores.
    fn next(&mut self, limits: Limits) -> Result<Option<Batch>, Error> {
        let read = match self.read(limits) {
            // MongoDB ends a reply at 16 MiB. A server that does not is asked for what fits in any reply.
            Err(error) if matches!(*error.kind, ErrorKind::InvalidResponse { .. }) => {
                self.read(Limits { documents: SAFE_REPLY, ..limits })
            }
            read => read,
        };
        let batch = read.map_err(|error| explain(&self.target, &error))?;
        Ok(if batch.documents.is_empty() { None } else { Some(batch) })
    }
}

impl Reader {
    fn read(&self, limits: Limits) -> Result<Batch, DriverError> {
        let count = u32::try_from(limits.documents).unwrap_or(u32::MAX);
        let find = self.documents.find(ingested()).limit(count.into()).batch_size(count).max_time(SERVER_TIME);
        batch(&mut find.run()?, limits, &self.rules)
    }
}

/// Takes documents, as many as there is room for.
pub(super) fn batch(
    cursor: &mut mongodb::sync::Cursor<RawDocumentBuf>,
    limits: Limits,
    rules: &Rules,
) -> Result<Batch, DriverError> {
    let mut batch = Batch::default();
    while !batch.is_full(limits) && cursor.advance()? {
        // Raw, and never by serde: that takes documents with keys such as $oid for other types.
        let raw = cursor.current().as_bytes().to_vec();
        let outcome = transform(&raw, Form::Bson, "", rules, &mut batch.oddities);
        batch.add(raw, None, outcome);
        batch.advanced += 1;
    }
    Ok(batch)
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
        super::patiently(|| self.mark(marked.clone(), "processed", "ingested")).map(drop)
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

/// The bytes of a document's `_id`, its type included.
pub(super) fn id(document: &[u8]) -> Option<&[u8]> {
    let mut elements = bson::elements(document).ok()?;
    loop {
        let before = elements.rest();
        let (name, _) = elements.next()?.ok()?;
        if name == "_id" {
            return before.get(..before.len() - elements.rest().len());
        }
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
