use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why something in the state root could not be read or written.
#[derive(Debug, Error)]
pub enum Error {
    /// No environment variable, key or home directory names a state root.
    #[error("no state folder: set HUB_STATE_DIR, or state_dir in hub.toml, or HOME")]
    NoRoot,
    /// `$HUB_STATE_DIR` is not absolute: which folder it names would depend on where the program was started.
    #[error(
        "environment HUB_STATE_DIR: {:?} is not an absolute path; write one such as \"/srv/hub-state\"",
        .0.display().to_string()
    )]
    RelativeRoot(PathBuf),
    /// A call on a path failed.
    #[error("cannot {act} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        act: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file system did not answer.
    #[error(
        "{path} did not answer within {} s: {kind} at {mount} hangs; mount it anew (umount -l {mount}), or choose another path",
        .limit.as_secs()
    )]
    NoAnswer {
        /// What was asked for.
        path: PathBuf,
        mount: PathBuf,
        /// Its type.
        kind: String,
        /// How long it was given.
        limit: std::time::Duration,
    },
    /// Something other than a regular file stands at the path.
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// Something other than a folder stands at the path.
    #[error("{0} is no folder of its own; a link is not followed")]
    NotFolder(PathBuf),
    /// The file is longer than its reader accepts.
    #[error("{path} is longer than {limit} bytes")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
    /// Another user than those who should can change the path, or where it leads.
    #[error("{path}: {reason}")]
    Untrusted {
        /// Which part of it.
        path: PathBuf,
        /// Who, and what to do.
        reason: String,
    },
    /// The file's content is not what the hub wrote there.
    #[error("{path} is damaged: {reason}")]
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
