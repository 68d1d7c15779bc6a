use thiserror::Error;

use crate::program::Exit;
use crate::{command, config, state};

/// Why a repository was not brought in sync, or why a run could not do its work.
#[derive(Debug, Error)]
pub enum Error {
    /// Another run holds the lock.
    #[error("another gitops-sync is at work; try again when it is done")]
    Busy,
    /// A rule forbids it; the sentence says which and what to do.
    #[error("{0}")]
    Refused(String),
    /// Somebody else's git is at work in the checkout; worth another try.
    #[error("{0}")]
    InUse(String),
    /// A look at the checkout was not over in time; worth another try.
    #[error("{0}")]
    Slow(String),
    /// The remote cannot be reached or does not answer; worth another try.
    #[error("cannot fetch from {url}: {reason}")]
    Fetch {
        /// From where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The remote answers, and what it has cannot be fetched as it is; it is not asked for again until the branch moves.
    #[error("{reason}")]
    Unfit {
        /// The commit that the branch is at; none where the remote does not say.
        commit: Option<String>,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Nobody says what others say of a commit; worth another try.
    #[error("the checks of {commit} cannot be read, so it is not deployed: {reason}")]
    Checks {
        /// The commit.
        commit: String,
        /// What happened, and what to do.
        reason: String,
    },
    /// A file system takes nothing more; the sentence says which.
    #[error("{0}")]
    Full(String),
    /// The new commit failed in one of its own steps.
    #[error("{step} failed: {reason}")]
    Step {
        /// `build`, `after` or `health`.
        step: &'static str,
        /// What happened.
        reason: String,
    },
    /// The owner of the host could not reach it any more.
    #[error("the host would be out of reach: {0}")]
    LockedOut(String),
    /// A child process failed.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A credential cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A child process answered something that git's documentation does not allow for.
    #[error("{command} answered {output:?}, which is not understood")]
    Unexpected {
        /// Which command.
        command: &'static str,
        /// What it said.
        output: String,
    },
}

impl Error {
    /// The exit code for a program that fails with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Busy => Exit::Busy,
            Self::Refused(_) | Self::Unfit { .. } => Exit::Refused,
            _ => Exit::Error,
        }
    }

    /// True where this user may not read what it takes, and another might.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::State(error) => error.is_denied(),
            Self::Config(error) => error.is_denied(),
            _ => false,
        }
    }

    pub(super) fn unexpected(command: &'static str, output: &[u8]) -> Self {
        Self::Unexpected { command, output: crate::log::printable(&output[..output.len().min(200)]) }
    }
}
