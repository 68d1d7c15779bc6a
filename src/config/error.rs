use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::text::without_passwords;

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum Error {
    /// The file that was asked for does not exist.
    #[error("{}", missing(.0))]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// As root: somebody else could change the file.
    #[error("{path}: {reason}")]
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// Why it is not trusted and what to do.
        reason: String,
    },
    /// A place in the file is wrong. It is told, shown and kept wherever what is wrong with this host is.
    #[error("{path}:{line}: {key}{}{}", if .key.is_empty() { "" } else { ": " }, without_passwords(.reason))]
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
    #[error("environment {name}: {reason}")]
    Environment {
        /// Which one.
        name: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A credential is there and cannot be read.
    #[error("credential {name}: {source}")]
    Unreadable {
        /// Its name.
        name: String,
        /// What the system said.
        source: crate::state::Error,
    },
    /// A credential is wrong or missing.
    #[error("credential {name}: {reason}")]
    Credential {
        /// Its name or file.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// What is configured for a repository does not go together.
    #[error("repository {name}: {reason}")]
    Repository {
        /// Its name.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A repository that is not configured was named.
    #[error("{name} is not configured; hub.toml has {}", known_names(.known, "[[repository]]"))]
    UnknownRepository {
        /// The name.
        name: String,
        /// The configured ones.
        known: Vec<String>,
    },
    /// A forge's name stands for several repositories of the file.
    #[error("{name} is there more than once; name one by its id: {}", .meant.join(", "))]
    AmbiguousRepository {
        /// The name.
        name: String,
        /// What this host calls them.
        meant: Vec<String>,
    },
    /// The state root cannot be found.
    #[error("{0}")]
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

fn missing(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        return "--config is empty; name a file, or leave it out".to_owned();
    }
    format!("{}: no such file; --config or HUB_CONFIG names it", path.display())
}

/// The names that hub.toml has in tables called `table`, as the end of a sentence.
pub(crate) fn known_names(known: &[String], table: &str) -> String {
    if known.is_empty() { format!("no {table} yet") } else { known.join(", ") }
}
