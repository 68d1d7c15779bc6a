use std::fmt;
use std::path::{Path, PathBuf};

/// Why something in the state root could not be read or written.
#[derive(Debug)]
pub enum Error {
    /// No environment variable, key or home directory names a state root.
    NoRoot,
    /// `$HUB_STATE_DIR` is not absolute: which folder it names would depend on where the program was started.
    RelativeRoot(PathBuf),
    /// A call on a path failed.
    Io {
        /// What was tried, as a verb.
        act: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file system did not answer.
    NoAnswer {
        /// What was asked for.
        path: PathBuf,
        /// Where it is mounted.
        mount: PathBuf,
        /// Its type.
        kind: String,
        /// How long it was given.
        limit: std::time::Duration,
    },
    /// Something other than a regular file stands at the path.
    NotRegular(PathBuf),
    /// Something other than a folder stands at the path.
    NotFolder(PathBuf),
    /// The file is longer than its reader accepts.
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
    /// Another user than those who should can change the path, or where it leads.
    Untrusted {
        /// Which part of it.
        path: PathBuf,
        /// Who, and what to do.
        reason: String,
    },
    /// The file's content is not what the hub wrote there.
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// An error of the system: what was attempted (a verb) with which path.
    pub(crate) fn io(act: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::Io { act, path: path.to_owned(), source: source.into() }
    }

    /// The same error; where it is the content of a file, with what to do.
    #[must_use]
    pub fn remedied(self, remedy: impl FnOnce() -> String) -> Self {
        match self {
            Self::Content { path, reason } => Self::Content { path, reason: format!("{reason}; {}", remedy()) },
            other => other,
        }
    }

    /// What it is about; none where nothing names a folder.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::NoRoot => None,
            Self::RelativeRoot(path) | Self::NotRegular(path) | Self::NotFolder(path) => Some(path),
            Self::Io { path, .. }
            | Self::NoAnswer { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Untrusted { path, .. }
            | Self::Content { path, .. } => Some(path),
        }
    }

    /// True for a file that is there and is not what its writer left.
    pub fn is_about_content(&self) -> bool {
        matches!(self, Self::Content { .. } | Self::TooLarge { .. } | Self::NotRegular(_))
    }

    /// True where the file system is full or the quota used up.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// True where this user may not do it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// True where the file or folder does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoot => f.write_str("no state folder: set HUB_STATE_DIR, or state_dir in hub.toml, or HOME"),
            Self::RelativeRoot(path) => write!(
                f,
                "environment HUB_STATE_DIR: {:?} is not an absolute path; write one such as \"/srv/hub-state\"",
                path.display().to_string()
            ),
            Self::Io { act, path, source } => write!(f, "cannot {act} {}: {source}", path.display()),
            Self::NoAnswer { path, mount, kind, limit } => write!(
                f,
                "{} did not answer within {} s: {kind} at {} hangs; mount it anew (umount -l {2}), or choose another path",
                path.display(),
                limit.as_secs(),
                mount.display()
            ),
            Self::NotRegular(path) => write!(f, "{} is not a regular file", path.display()),
            Self::NotFolder(path) => write!(f, "{} is no folder of its own; a link is not followed", path.display()),
            Self::TooLarge { path, limit } => write!(f, "{} is longer than {limit} bytes", path.display()),
            Self::Untrusted { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Content { path, reason } => write!(f, "{} is damaged: {reason}", path.display()),
        }
    }
}

impl std::error::Error for Error {}
