//! Where documents come from: a reader that gives them in batches, and a receipt that is given back after the commit.
//! No source knows tables or JSON shapes; a document passes through as it came, beside its transformed row.
//! What a source has not got back is read again by the next run.

mod batch;
#[cfg(feature = "mongodb")]
mod connection;
#[cfg(feature = "mongodb")]
mod cursor;
mod folder;
mod format;
mod input;
#[cfg(feature = "mongodb")]
mod mongodb;
mod patience;
#[cfg(feature = "mongodb")]
mod position;
mod scan;
mod text;
#[cfg(feature = "mongodb")]
mod uri;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use super::columns::Rules;
use crate::command::within;
use crate::config::{Config, Pipeline, Source};
use crate::store::Position;

use batch::Opened;
pub(super) use batch::{Acknowledge, Batch, BatchLimits, Document, Documents, Total};
pub use format::is_input;
pub(super) use patience::{PATIENCE, patiently};

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
    pipeline.source.inbox().map_or(Ok(Vec::new()), folder::unread_files)
}

/// How many damaged files lie in `failed/` of a pipeline's inbox.
pub(super) fn failed_files(pipeline: &Pipeline) -> Result<u64, Error> {
    pipeline.source.inbox().map_or(Ok(0), folder::failed_files)
}

/// The folders that pipelines read files from.
pub fn inboxes(config: &Config) -> Vec<PathBuf> {
    config.pipelines.iter().filter_map(|pipeline| pipeline.source.inbox()).map(Path::to_owned).collect()
}
