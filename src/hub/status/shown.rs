//! What `hub status` shows, and prints as JSON.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::health::{Funnel, Level, Reason, Service};
use crate::records::{self, Found, Pipeline, Queue, Trouble};

#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub status: Level,
    pub reasons: Vec<Reason>,
    pub time: String,
    pub host: String,
    pub version: &'static str,
    pub configuration: Configuration,
    pub state_dir: Option<PathBuf>,
    pub services: Vec<Service>,
    pub repositories: Vec<Repository>,
    pub queue: Queue,
    pub pipelines: Vec<Pipeline>,
    pub funnel: Found<Funnel>,
    /// Files and folders that are there and cannot be read.
    pub unreadable: Vec<Trouble>,
    #[serde(skip)]
    pub now: Timestamp,
    /// Nothing has run here, and nothing is configured.
    #[serde(skip)]
    pub is_fresh: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Repository {
    pub level: Level,
    #[serde(flatten)]
    pub known: records::Repository,
}

#[derive(Debug, Serialize)]
pub(super) struct Configuration {
    pub path: PathBuf,
    /// None where the file does not exist and the defaults are in force.
    pub found: bool,
    pub error: Option<String>,
}
