use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::program::Exit;
use crate::{config, state, store};

/// Why one document cannot be stored.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Rejection {
    /// It is no sound BSON.
    #[error("it is not sound BSON: {0}")]
    Bson(String),
    /// It is no JSON.
    #[error("it is not sound Extended JSON: {0}")]
    NotJson(String),
    /// It is JSON, but no document, or no Extended JSON.
    #[error("it is not sound Extended JSON: {0}")]
    Json(String),
    /// It ends before it is complete.
    #[error("it is not sound Extended JSON: it ends before it is complete")]
    Unfinished,
    /// After the document comes more.
    #[error("it is not sound Extended JSON: after the document comes more in the same line")]
    More,
    /// In the shape `extended`: it has a number that no type of BSON holds.
    #[error("it has a number that 64 bits cannot hold, and json = \"extended\" may not round it or make it a text")]
    Number,
    /// It is nested too deeply.
    #[error("it is nested deeper than {} levels", super::bson::DEPTH)]
    TooDeep,
    /// It would take too much memory.
    #[error("it has more than {} values, which no document of MongoDB has", super::json_text::VALUES)]
    TooManyValues,
    /// In the shape `extended`, which loses nothing: a text has a NUL character.
    #[error("a text has a NUL character, which PostgreSQL cannot store and json = \"extended\" may not replace")]
    Nul,
    /// In the shape `extended`: a key is there twice.
    #[error("the key {0:?} is there twice, which PostgreSQL cannot store and json = \"extended\" may not drop")]
    DuplicateKey(String),
    /// In the shape `extended`: a key of the document's own looks like a type.
    #[error("it has a key {0:?} of its own, which Extended JSON would take for a type")]
    Ambiguous(String),
}

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
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration, an environment variable or a credential is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The address of the source: missing, or unusable.
    #[error(transparent)]
    SourceAddress(config::Error),
    /// No pipeline of this name is configured.
    #[error("pipeline {name} is not configured; hub.toml has {}", config::known_names(.known, "[[pipeline]]"))]
    UnknownPipeline {
        name: String,
        /// The configured ones.
        known: Vec<String>,
    },
    /// No pipeline is configured at all.
    #[error("no pipeline is configured; hub.toml has no [[pipeline]] yet (contrib/hub.toml shows one)")]
    NoPipeline,
    /// Another run of the pipeline holds its lock.
    #[error("a run of {0} is going on already; it drains everything, so wait for it")]
    Busy(String),
    /// The source cannot be reached at the moment.
    #[error("{0}")]
    SourceDown(String),
    /// The source refuses, or is set up wrongly.
    #[error("{0}")]
    SourceRefused(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The database refuses every document for the same reason, which is then none of theirs.
    #[error(
        "the database refuses every document alike, {count} in a row, so the table is to blame: {reason}; nothing of them is \
         kept as a dead letter, and the source has them as before; change the table (a column of its owner's takes a \
         default, or has to be allowed to be null) and run again"
    )]
    RefusedAlike {
        /// How many in a row.
        count: u64,
        /// What it says of one of them.
        reason: String,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Something of this process failed.
    #[error("{0}")]
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
