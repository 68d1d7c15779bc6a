//! What a source gives, and gets back.

use std::sync::Arc;

use crate::reading::transform::{Oddities, Outcome};
use crate::reading::{Error, Rejection};
use crate::store::{Position, Reading};

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub(in crate::reading) struct BatchLimits {
    pub documents: usize,
    pub bytes: usize,
}

/// A document as it came, and what became of it.
pub(in crate::reading) struct Document {
    pub raw: Vec<u8>,
    /// The file and the line; none for MongoDB.
    pub place: Option<String>,
    pub outcome: Result<Arc<Reading>, (String, Rejection)>,
}

/// What is stored in one transaction and then given back to the source.
#[derive(Default)]
pub(in crate::reading) struct Batch {
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
    pub(in crate::reading) fn add(&mut self, raw: Vec<u8>, place: Option<String>, outcome: Outcome) {
        self.bytes += raw.len();
        self.documents.push(Document { raw, place, outcome: outcome.map(Arc::new) });
    }

    pub(in crate::reading) fn is_full(&self, limits: BatchLimits) -> bool {
        self.documents.len() >= limits.documents || self.bytes >= limits.bytes
    }
}

/// Inode, size and time of change of a file.
pub(in crate::reading) type Identity = [i64; 4];

pub(super) fn identity(metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    [metadata.ino().cast_signed(), metadata.size().cast_signed(), metadata.mtime(), metadata.mtime_nsec()]
}

/// A file that was read to its end.
#[derive(Clone, Debug)]
pub(in crate::reading) struct Finished {
    pub name: std::ffi::OsString,
    /// When it was opened: another file of the name must stay.
    pub identity: Identity,
    /// Why its rest could not be read.
    pub damage: Option<String>,
}

/// How much there is to do, as far as the source knows.
#[derive(Clone, Copy, Debug)]
pub(in crate::reading) struct Total {
    pub amount: u64,
    /// `documents` or `bytes`.
    pub unit: &'static str,
}

/// Gives documents in batches.
pub(in crate::reading) trait Documents: Send {
    /// How much there is to do now.
    fn total(&mut self) -> Result<Total, Error>;

    /// Whether the next batch may be read before the last one is acknowledged. Where not, a batch is what the source
    /// has not got back, and the pass ends when nothing of it was.
    fn reads_ahead(&self) -> bool;

    /// The next batch of this pass; none at the end of it. After that a new pass begins.
    fn next(&mut self, limits: BatchLimits) -> Result<Option<Batch>, Error>;
}

/// Takes note that a batch is stored.
pub(in crate::reading) trait Acknowledge {
    /// Marks the documents, or moves the files, so that they are not read again. Returns how many documents are done;
    /// the others have changed meanwhile and are read once more.
    fn acknowledge(&mut self, batch: &Batch) -> Result<u64, Error>;

    /// The batches so far stay as they are: nothing of them is taken back any more.
    fn settle(&mut self);

    /// Makes the documents that were acknowledged since the last `settle` wait again.
    fn take_back(&mut self) -> Result<(), Error>;
}

/// A reader and its receipts.
pub(in crate::reading) type Opened = (Box<dyn Documents>, Box<dyn Acknowledge>);
