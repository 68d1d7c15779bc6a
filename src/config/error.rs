use std::fmt;
use std::path::PathBuf;

use crate::text::without_passwords;

/// What is wrong with the configuration.
#[derive(Debug)]
pub enum Error {
    /// The file that was asked for does not exist.
    Missing(PathBuf),
    /// The file cannot be read.
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// As root: somebody else could change the file.
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// Why it is not trusted and what to do.
        reason: String,
    },
    /// A place in the file is wrong.
    Line {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key, dotted; empty where the text is not TOML.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// An environment variable is wrong.
    Environment {
        /// Which one.
        name: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A credential is there and cannot be read.
    Unreadable {
        /// Its name.
        name: String,
        /// What the system said.
        source: crate::state::Error,
    },
    /// A credential is wrong or missing.
    Credential {
        /// Its name or file.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// What is configured for a repository does not go together.
    Repository {
        /// Its name.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A repository that is not configured was named.
    UnknownRepository {
        /// The name.
        name: String,
        /// The configured ones.
        known: Vec<String>,
    },
    /// A forge's name stands for several repositories of the file.
    AmbiguousRepository {
        /// The name.
        name: String,
        /// What this host calls them.
        meant: Vec<String>,
    },
    /// The state root cannot be found.
    State(String),
}

impl Error {
    /// True where this user may not read it, and another might.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            Self::Unreadable { source, .. } => source.is_denied(),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) if path.as_os_str().is_empty() => {
                f.write_str("--config is empty; name a file, or leave it out")
            }
            Self::Missing(path) => {
                write!(f, "{}: no such file; --config or HUB_CONFIG names it", path.display())
            }
            Self::Read { path, source } => write!(f, "{}: cannot be read: {source}", path.display()),
            Self::Untrusted { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Line { path, line, key, reason } => {
                write!(f, "{}:{line}: ", path.display())?;
                if !key.is_empty() {
                    write!(f, "{key}: ")?;
                }
                // It is told, shown and kept wherever what is wrong with this host is.
                f.write_str(&without_passwords(reason))
            }
            Self::Environment { name, reason } => write!(f, "environment {name}: {reason}"),
            Self::Unreadable { name, source } => write!(f, "credential {name}: {source}"),
            Self::Credential { name, reason } => write!(f, "credential {name}: {reason}"),
            Self::Repository { name, reason } => write!(f, "repository {name}: {reason}"),
            Self::UnknownRepository { name, known } if known.is_empty() => {
                write!(f, "{name} is not configured; hub.toml has no [[repository]] yet")
            }
            Self::UnknownRepository { name, known } => {
                write!(f, "{name} is not configured; hub.toml has {}", known.join(", "))
            }
            Self::AmbiguousRepository { name, meant } => {
                write!(f, "{name} is there more than once; name one by its id: {}", meant.join(", "))
            }
            Self::State(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}
