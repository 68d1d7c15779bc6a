//! The connection to MongoDB, what its errors mean, and how documents are taken from it.

use std::time::Duration;

use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{ClientOptions, ReadPreference, SelectionCriteria};
use mongodb::sync::{Client, Collection};

use super::batch::{Batch, BatchLimits};
use super::uri;
use crate::config::{Config, Pipeline};
use crate::log;
use crate::reading::columns::Rules;
use crate::reading::transform::{Form, transform};
use crate::reading::{Error, bson};

const CONNECT: Duration = Duration::from_secs(10);
/// What the server may take for one reply or one update.
pub(super) const SERVER_TIME: Duration = Duration::from_secs(120);

/// What a server answers that stops, looks for a primary, or took too long: the retryable errors of MongoDB's driver
/// specification "Retryable Reads", and MaxTimeMSExpired.
const PASSING: [i32; 15] = [6, 7, 50, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436, 13388];

/// Documents whose reply is shorter than the 48 MB of a message, however large each of them is.
pub(super) const SAFE_REPLY: usize = 2;

pub(super) struct Connected {
    pub documents: Collection<RawDocumentBuf>,
    pub target: String,
    /// Database and collection.
    pub name: String,
}

pub(super) fn connect(config: &Config, pipeline: &Pipeline, longest_selection: Duration) -> Result<Connected, Error> {
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

/// Takes documents, as many as there is room for.
pub(super) fn batch(
    cursor: &mut mongodb::sync::Cursor<RawDocumentBuf>,
    limits: BatchLimits,
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
