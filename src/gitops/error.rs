use std::fmt;

use crate::program::Exit;
use crate::{command, config, state};

/// Why a repository was not brought in sync, or why a run could not do its work.
#[derive(Debug)]
pub enum Error {
    /// Another run holds the lock.
    Busy,
    /// A rule forbids it; the sentence says which and what to do.
    Refused(String),
    /// Somebody else's git is at work in the checkout; worth another try.
    InUse(String),
    /// A look at the checkout was not over in time; worth another try.
    Slow(String),
    /// The remote cannot be reached or does not answer; worth another try.
    Fetch {
        /// From where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The remote answers, and what it has cannot be fetched as it is; it is not asked for again until the branch moves.
    Unfit {
        /// The commit that the branch is at; none where the remote does not say.
        commit: Option<String>,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Nobody says what others say of a commit; worth another try.
    Checks {
        /// The commit.
        commit: String,
        /// What happened, and what to do.
        reason: String,
    },
    /// A file system takes nothing more; the sentence says which.
    Full(String),
    /// The new commit failed in one of its own steps.
    Step {
        /// `build`, `after` or `health`.
        step: &'static str,
        /// What happened.
        reason: String,
    },
    /// The owner of the host could not reach it any more.
    LockedOut(String),
    /// A child process failed.
    Command(command::Error),
    /// The state folder cannot be used.
    State(state::Error),
    /// A credential cannot be used.
    Config(config::Error),
    /// A child process answered something that git's documentation does not allow for.
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another gitops-sync is at work; try again when it is done"),
            Self::Refused(reason)
            | Self::InUse(reason)
            | Self::Slow(reason)
            | Self::Unfit { reason, .. }
            | Self::Full(reason) => f.write_str(reason),
            Self::LockedOut(reason) => write!(f, "the host would be out of reach: {reason}"),
            Self::Fetch { url, reason } => write!(f, "cannot fetch from {url}: {reason}"),
            Self::Checks { commit, reason } => {
                write!(f, "what others say of {commit} cannot be asked, so it is not deployed: {reason}")
            }
            Self::Step { step, reason } => write!(f, "{step} failed: {reason}"),
            Self::Command(error) => error.fmt(f),
            Self::State(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Unexpected { command, output } => write!(f, "{command} answered {output:?}, which is not understood"),
        }
    }
}

impl std::error::Error for Error {}

impl From<command::Error> for Error {
    fn from(error: command::Error) -> Self {
        Self::Command(error)
    }
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        Self::State(error)
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}
