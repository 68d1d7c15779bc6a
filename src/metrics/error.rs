use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a part of a sample could not be taken or kept.
#[derive(Debug)]
pub enum Error {
    /// A file of the kernel or of the host cannot be read.
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not have the form its documentation gives.
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A child process did not answer.
    Child(crate::command::Error),
    /// Several readers want the same file, and each is told.
    Shared(Arc<Error>),
    /// systemd does not say how its units are, and why.
    Systemd(String),
    /// A collector or a file system did not answer in time.
    Late {
        /// What was asked.
        what: String,
        /// How long it was given, in seconds.
        seconds: u64,
    },
    /// A file in the state folder cannot be read or written.
    State(crate::state::Error),
    /// The folder that `--procfs` names cannot be one, and why.
    Procfs(PathBuf, String),
    /// The program itself cannot do what it needs.
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Format { path, reason } => write!(f, "{} is not as documented: {reason}", path.display()),
            Self::Child(error) => error.fmt(f),
            Self::Shared(error) => error.fmt(f),
            Self::Systemd(reason) => f.write_str(reason),
            Self::Late { what, seconds } => write!(f, "{what} did not answer within {seconds} s"),
            Self::State(error) => error.fmt(f),
            Self::Procfs(path, reason) => {
                write!(f, "no procfs at {}: {reason}; --procfs names where the host's is mounted", path.display())
            }
            Self::Start { act, source } => write!(f, "cannot {act}: {source}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::state::Error> for Error {
    fn from(error: crate::state::Error) -> Self {
        Self::State(error)
    }
}
