use std::fmt;

use serde::{Deserialize, Serialize};

use crate::program::Exit;
use crate::{config, state, store};

/// Why one document cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// It is no sound BSON.
    Bson(String),
    /// It is no JSON.
    NotJson(String),
    /// It is JSON, but no document, or no Extended JSON.
    Json(String),
    /// It ends before it is complete.
    Unfinished,
    /// After the document comes more.
    More,
    /// In the shape `extended`: it has a number that no type of BSON holds.
    Number,
    /// It is nested too deeply.
    TooDeep,
    /// It would take too much memory.
    TooManyValues,
    /// In the shape `extended`, which loses nothing: a text has a NUL character.
    Nul,
    /// In the shape `extended`: a key is there twice.
    DuplicateKey(String),
    /// In the shape `extended`: a key of the document's own looks like a type.
    Ambiguous(String),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bson(reason) => write!(f, "it is not sound BSON: {reason}"),
            Self::NotJson(reason) | Self::Json(reason) => write!(f, "it is not sound Extended JSON: {reason}"),
            Self::Unfinished => f.write_str("it is not sound Extended JSON: it ends before it is complete"),
            Self::More => f.write_str("it is not sound Extended JSON: after the document comes more in the same line"),
            Self::Number => f.write_str(
                "it has a number that 64 bits cannot hold, and json = \"extended\" may not round it or make it a text",
            ),
            Self::TooDeep => write!(f, "it is nested deeper than {} levels", super::bson::DEPTH),
            Self::TooManyValues => {
                write!(f, "it has more than {} values, which no document of MongoDB has", super::json_text::VALUES)
            }
            Self::Nul => f.write_str(
                "a text has a NUL character, which PostgreSQL cannot store and json = \"extended\" may not replace",
            ),
            Self::DuplicateKey(key) => write!(
                f,
                "the key {key:?} is there twice, which PostgreSQL cannot store and json = \"extended\" may not drop"
            ),
            Self::Ambiguous(key) => {
                write!(f, "it has a key {key:?} of its own, which Extended JSON would take for a type")
            }
        }
    }
}

impl std::error::Error for Rejection {}

/// Which side of a pipeline failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where documents come from.
    Source,
    /// Where rows go to.
    Database,
    /// The pipeline's own process, or its bookkeeping.
    Pipeline,
}

/// Why a run stopped.
#[derive(Debug)]
pub enum Error {
    /// The configuration, an environment variable or a credential is wrong.
    Config(config::Error),
    /// The address of the source: missing, or unusable.
    SourceAddress(config::Error),
    /// No pipeline of this name is configured.
    UnknownPipeline {
        /// The name.
        name: String,
        /// The configured ones.
        known: Vec<String>,
    },
    /// No pipeline is configured at all.
    NoPipeline,
    /// Another run of the pipeline holds its lock.
    Busy(String),
    /// The source cannot be reached at the moment.
    SourceDown(String),
    /// The source refuses, or is set up wrongly.
    SourceRefused(String),
    /// The database.
    Store(store::Error),
    /// The database refuses every document for the same reason, which is then none of theirs.
    RefusedAlike {
        /// How many in a row.
        count: u64,
        /// What it says of one of them.
        reason: String,
    },
    /// The state folder.
    State(state::Error),
    /// Something of this process failed.
    Internal(String),
}

impl Error {
    /// True where this user may not read what it takes, and another might.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Config(error) | Self::SourceAddress(error) => error.is_denied(),
            Self::State(error) => error.is_denied(),
            _ => false,
        }
    }

    /// Which side it is about.
    pub fn side(&self) -> Side {
        match self {
            Self::SourceDown(_) | Self::SourceRefused(_) | Self::SourceAddress(_) => Side::Source,
            Self::Store(_) | Self::RefusedAlike { .. } => Side::Database,
            _ => Side::Pipeline,
        }
    }

    /// The status of the HTTP answer: 503 where the same call may succeed later, 502 where a side refuses.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::UnknownPipeline { .. } | Self::NoPipeline => 404,
            Self::Busy(_) => 409,
            Self::Store(error) if error.is_unavailable() => 503,
            Self::SourceDown(_) | Self::State(_) | Self::Internal(_) => 503,
            Self::SourceRefused(_)
            | Self::Store(_)
            | Self::RefusedAlike { .. }
            | Self::Config(_)
            | Self::SourceAddress(_) => 502,
        }
    }

    /// The exit code of a program that ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::SourceAddress(_) => Exit::Config,
            Self::UnknownPipeline { .. } | Self::NoPipeline => Exit::Usage,
            Self::Busy(_) => Exit::Busy,
            _ => Exit::Error,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) | Self::SourceAddress(error) => error.fmt(f),
            Self::UnknownPipeline { name, known } if known.is_empty() => {
                write!(f, "pipeline {name} is not configured; hub.toml has no [[pipeline]] yet")
            }
            Self::UnknownPipeline { name, known } => {
                write!(f, "pipeline {name} is not configured; hub.toml has {}", known.join(", "))
            }
            Self::NoPipeline => {
                f.write_str("no pipeline is configured; hub.toml has no [[pipeline]] yet (contrib/hub.toml shows one)")
            }
            Self::Busy(name) => write!(f, "a run of {name} is going on already; it drains everything, so wait for it"),
            Self::SourceDown(reason) | Self::SourceRefused(reason) | Self::Internal(reason) => f.write_str(reason),
            Self::Store(error) => error.fmt(f),
            Self::RefusedAlike { count, reason } => write!(
                f,
                "the database refuses every document alike, {count} in a row, so the table is to blame: {reason}; nothing \
                 of them is kept as a dead letter, and the source has them as before; change the table (a column of its \
                 owner's takes a default, or has to be allowed to be null) and run again"
            ),
            Self::State(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        Self::State(error)
    }
}
