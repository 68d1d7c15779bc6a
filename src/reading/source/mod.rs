//! Where documents come from: a reader that gives them in batches, and a receipt that is given back after the commit.
//! No source knows tables or JSON shapes; a document passes through as it came, beside its transformed row.
//! What a source has not got back is read again by the next run.

mod folder;
#[cfg(feature = "mongodb")]
mod mongodb;

use std::path::PathBuf;

use super::Error;
use super::transform::{Form, Oddities, Outcome, transform};
use crate::config::{Config, Json, Pipeline, Source};

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
    pub outcome: Outcome,
}

/// What is stored in one transaction and then given back to the source.
#[derive(Default)]
pub(super) struct Batch {
    pub documents: Vec<Document>,
    pub bytes: usize,
    pub oddities: Oddities,
    /// Bytes of the source that were read for it, where the source counts bytes.
    pub advanced: u64,
    /// Files that end in this batch.
    pub finished: Vec<Finished>,
}

impl Batch {
    pub(super) fn push(&mut self, raw: Vec<u8>, form: Form, place: &str, json: Json) {
        self.bytes += raw.len();
        let outcome = transform(&raw, form, place, json, &mut self.oddities);
        self.documents.push(Document { raw, outcome });
    }

    pub(super) fn is_full(&self, limits: Limits) -> bool {
        self.documents.len() >= limits.documents || self.bytes >= limits.bytes
    }
}

/// A file that was read to its end.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub name: std::ffi::OsString,
    /// Inode, size and time of change when it was opened: another file of the name must stay.
    pub identity: [i64; 4],
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
}

/// A reader and its receipts.
pub(super) type Opened = (Box<dyn Read>, Box<dyn Acknowledge>);

/// Opens the source of a pipeline.
pub(super) fn open(config: &Config, pipeline: &Pipeline) -> Result<Opened, Error> {
    match &pipeline.source {
        Source::Folder(path) => folder::open(path, pipeline.json),
        Source::MongoDb => open_mongodb(config, pipeline),
    }
}

#[cfg(feature = "mongodb")]
fn open_mongodb(config: &Config, pipeline: &Pipeline) -> Result<Opened, Error> {
    mongodb::open(config, pipeline)
}

#[cfg(not(feature = "mongodb"))]
fn open_mongodb(_: &Config, pipeline: &Pipeline) -> Result<Opened, Error> {
    Err(Error::SourceRefused(format!(
        "pipeline {} reads MongoDB, which this build leaves out; build with: cargo build --release --features mongodb",
        pipeline.name
    )))
}

/// The folders that pipelines read files from.
pub fn inboxes(config: &Config) -> Vec<PathBuf> {
    let folder = |pipeline: &Pipeline| match &pipeline.source {
        Source::Folder(path) => Some(path.clone()),
        Source::MongoDb => None,
    };
    config.pipelines.iter().filter_map(folder).collect()
}
