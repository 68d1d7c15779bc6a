//! Where documents come from: a reader that gives them in batches, and a receipt that is given back after the commit.
//! No source knows tables or JSON shapes; a document passes through as it came, beside its transformed row.
//! What a source has not got back is read again by the next run.

#[cfg(feature = "mongodb")]
mod cursor;
mod folder;
mod format;
mod input;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "mongodb")]
mod position;
mod scan;
mod text;
#[cfg(feature = "mongodb")]
mod uri;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::columns::Rules;
use super::transform::{Oddities, Outcome};
use super::{Error, Rejection};
use crate::command::{Backoff, within};
use crate::config::{Config, Pipeline, Source};
use crate::log;
use crate::store::{Position, Reading};

pub use folder::is_input;

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub documents: usize,
    pub bytes: usize,
}

/// A document as it came, and what became of it.
pub(super) struct Document {
    pub raw: Vec<u8>,
    /// The file and the line; none for MongoDB.
    pub place: Option<String>,
    pub outcome: Result<Arc<Reading>, (String, Rejection)>,
}

/// What is stored in one transaction and then given back to the source.
#[derive(Default)]
pub(super) struct Batch {
    pub documents: Vec<Document>,
    pub bytes: usize,
    pub oddities: Oddities,
    /// What was read for it, in the unit of the source.
    pub advanced: u64,
    /// Files that end in this batch.
    pub finished: Vec<Finished>,
    /// How far the source is read with it, where it keeps a position.
    pub position: Option<Position>,
}

impl Batch {
    pub(super) fn add(&mut self, raw: Vec<u8>, place: Option<String>, outcome: Outcome) {
        self.bytes += raw.len();
        self.documents.push(Document { raw, place, outcome: outcome.map(Arc::new) });
    }

    pub(super) fn is_full(&self, limits: Limits) -> bool {
        self.documents.len() >= limits.documents || self.bytes >= limits.bytes
    }
}

/// Inode, size and time of change of a file.
pub(super) type Identity = [i64; 4];

fn identity(metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    [metadata.ino().cast_signed(), metadata.size().cast_signed(), metadata.mtime(), metadata.mtime_nsec()]
}

/// A file that was read to its end.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub name: std::ffi::OsString,
    /// When it was opened: another file of the name must stay.
    pub identity: Identity,
    /// Why its rest could not be read.
    pub damage: Option<String>,
}

/// How much there is to do, as far as the source knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    pub amount: u64,
    /// `documents` or `bytes`.
    pub unit: &'static str,
}

/// Gives documents in batches.
pub(super) trait Read: Send {
    /// How much there is to do now.
    fn total(&mut self) -> Result<Total, Error>;

    /// Whether the next batch may be read before the last one is acknowledged. Where not, a batch is what the source
    /// has not got back, and the pass ends when nothing of it was.
    fn reads_ahead(&self) -> bool;

    /// The next batch of this pass; none at the end of it. After that a new pass begins.
    fn next(&mut self, limits: Limits) -> Result<Option<Batch>, Error>;
}

/// Takes note that a batch is stored.
pub(super) trait Acknowledge {
    /// Marks the documents, or moves the files, so that they are not read again. Returns how many documents are done;
    /// the others have changed meanwhile and are read once more.
    fn acknowledge(&mut self, batch: &Batch) -> Result<u64, Error>;

    /// The batches so far stay as they are: nothing of them is taken back any more.
    fn settle(&mut self);

    /// Makes the documents that were acknowledged since the last `settle` wait again.
    fn take_back(&mut self) -> Result<(), Error>;
}

/// A reader and its receipts.
pub(super) type Opened = (Box<dyn Read>, Box<dyn Acknowledge>);

/// Opens the source of a pipeline; `position` is how far an earlier run has read it.
pub(super) fn open(
    config: &Config,
    pipeline: &Pipeline,
    rules: &Rules,
    position: Option<Position>,
) -> Result<Opened, Error> {
    match &pipeline.source {
        Source::Folder(path) => folder::open(path, rules),
        Source::MongoDb => open_mongodb(config, pipeline, rules, position),
    }
}

/// How long a side that is away, a restart or an election for instance, is waited for before the run gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

/// Asks the source until it answers, for as long as a database is waited for.
pub(super) fn patiently<T>(mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let until = std::time::Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    loop {
        let error = match ask() {
            Err(error @ Error::SourceDown(_)) => error,
            other => return other,
        };
        let wait = backoff.next_wait();
        if std::time::Instant::now() + wait > until {
            return Err(error);
        }
        log::warn!("source_away", error = error.to_string(), again_in_ms = wait.as_millis() as u64);
        std::thread::sleep(wait);
    }
}

/// How long a source may take to show itself: a server that accepts a connection and then stops would hold the driver.
const CHECK_LIMIT: Duration = Duration::from_secs(8);

/// Looks whether a pipeline's source can be used, without moving anything: MongoDB takes the login and shows the
/// collection, or the inbox can be opened and read. Takes at most 8 seconds. Returns a sentence for a person.
///
/// # Errors
/// What is wrong with the source or with its configuration, and what to do.
pub fn check_source(config: &Config, pipeline: &Pipeline) -> Result<String, Error> {
    let (thread_config, thread_pipeline) = (config.clone(), pipeline.clone());
    let checked = within(CHECK_LIMIT, move || match &thread_pipeline.source {
        Source::Folder(path) => folder::check(path),
        Source::MongoDb => check_mongodb(&thread_config, &thread_pipeline),
    });
    let checked = checked.map_err(|error| Error::Internal(format!("cannot start a thread: {error}")))?;
    checked.unwrap_or_else(|| {
        Err(Error::SourceDown(format!("the source of {} gives no answer within 8 s", pipeline.name)))
    })
}

#[cfg(feature = "mongodb")]
fn check_mongodb(config: &Config, pipeline: &Pipeline) -> Result<String, Error> {
    mongodb::check(config, pipeline)
}

#[cfg(not(feature = "mongodb"))]
fn check_mongodb(_: &Config, pipeline: &Pipeline) -> Result<String, Error> {
    Err(left_out(pipeline))
}

#[cfg(feature = "mongodb")]
fn open_mongodb(
    config: &Config,
    pipeline: &Pipeline,
    rules: &Rules,
    position: Option<Position>,
) -> Result<Opened, Error> {
    mongodb::open(config, pipeline, rules, position)
}

#[cfg(not(feature = "mongodb"))]
fn open_mongodb(_: &Config, pipeline: &Pipeline, _: &Rules, _: Option<Position>) -> Result<Opened, Error> {
    Err(left_out(pipeline))
}

#[cfg(not(feature = "mongodb"))]
fn left_out(pipeline: &Pipeline) -> Error {
    Error::SourceRefused(format!(
        "pipeline {} reads MongoDB, which this build leaves out; build with: cargo build --release --features mongodb",
        pipeline.name
    ))
}

/// The names of files in a pipeline's inbox that are not read, sorted.
pub(super) fn unread_files(pipeline: &Pipeline) -> Result<Vec<String>, Error> {
    match &pipeline.source {
        Source::Folder(path) => folder::unread_files(path),
        Source::MongoDb => Ok(Vec::new()),
    }
}

/// How many damaged files lie in `failed/` of a pipeline's inbox.
pub(super) fn failed_files(pipeline: &Pipeline) -> Result<u64, Error> {
    match &pipeline.source {
        Source::Folder(path) => folder::failed_files(path),
        Source::MongoDb => Ok(0),
    }
}

/// The folders that pipelines read files from.
pub fn inboxes(config: &Config) -> Vec<PathBuf> {
    let folder = |pipeline: &Pipeline| match &pipeline.source {
        Source::Folder(path) => Some(path.clone()),
        Source::MongoDb => None,
    };
    config.pipelines.iter().filter_map(folder).collect()
}
