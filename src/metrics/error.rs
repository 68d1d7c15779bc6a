use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Why a part of a sample could not be taken or kept.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of the kernel or of the host cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not have the form its documentation gives.
    #[error("{path} is not as documented: {reason}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A child process did not answer.
    #[error(transparent)]
    Child(crate::command::Error),
    /// Several readers want the same file, and each is told.
    #[error("{0}")]
    Shared(Arc<Error>),
    /// A collector or a file system did not answer in time.
    #[error("{what} did not answer within {seconds} s")]
    Late {
        /// What was asked.
        what: String,
        /// How long it was given, in seconds.
        seconds: u64,
    },
    /// A file in the state folder cannot be read or written.
    #[error(transparent)]
    State(#[from] crate::state::Error),
    /// The folder that `--procfs` names cannot be one, and why.
    #[error("no procfs at {0}: {1}; --procfs names where the host's is mounted")]
    Procfs(PathBuf, String),
    /// The program itself cannot do what it needs.
    #[error("cannot {act}: {source}")]
    Start {
        /// What was tried.
        act: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    pub(super) fn read(path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::Read { path: path.to_owned(), source: source.into() }
    }

    pub(super) fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Format { path: path.into(), reason: reason.into() }
    }

    /// True where the file does not exist, or the kernel was built or started without what it reports
    /// (`/proc/pressure` with `psi=0` answers EOPNOTSUPP).
    pub(super) fn is_absent(&self) -> bool {
        use std::io::ErrorKind::{NotADirectory, NotFound, Unsupported};
        match self {
            Self::Read { source, .. } => {
                matches!(source.kind(), NotFound | NotADirectory | Unsupported)
                    || source.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
            }
            Self::Shared(error) => error.is_absent(),
            _ => false,
        }
    }
}
