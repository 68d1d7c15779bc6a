use thiserror::Error;

use crate::hint::hint;

/// Why the database did not do what it was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration does not lead to a usable database.
    #[error("{0}")]
    Config(String),
    /// The database cannot be reached or used at the moment; the same call may succeed later.
    #[error("{target}: not available: {reason}")]
    Unavailable {
        /// Which database, without secrets.
        target: String,
        /// What happened.
        reason: String,
    },
    /// The server refuses the login.
    #[error("{target}: login refused: {reason}")]
    Login {
        /// Which database, without secrets.
        target: String,
        /// What the server said, and what to do.
        reason: String,
    },
    /// The role, or the file's owner, may not do what is needed.
    #[error("{target}: {reason}; {remedy}")]
    Rights {
        /// Which database, without secrets.
        target: String,
        /// What was refused.
        reason: String,
        /// What to run, and as whom.
        remedy: String,
    },
    /// The schema was made by a newer program.
    #[error(
        "{target}: the schema of {object} has version {found}, this program knows {known}; install the newer Observability \
         Hub on this host"
    )]
    Newer {
        /// Which database, without secrets.
        target: String,
        /// Which object of the schema.
        object: String,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file is not a sound SQLite database.
    #[error(
        "{target}: damaged: {reason}; {} reads what can be read into a new file; moved away, with its -wal and -shm, it \
         makes room for an empty one",
        hint("hub", "database recover FILE")
    )]
    Damaged {
        /// Which file.
        target: String,
        /// What SQLite said.
        reason: String,
    },
    /// The database refuses one row of a batch for what is in it.
    #[error("row {index} of the batch: {reason}")]
    Row {
        /// The row's place in the batch, from 0.
        index: usize,
        /// What kind of refusal it is, in the words of the engine: an SQLSTATE, or a result code of SQLite.
        code: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder of the database cannot be used.
    #[error("database folder: {0}")]
    State(#[from] crate::state::Error),
    /// A statement failed for another reason.
    #[error("{target}: cannot {act}: {reason}")]
    Statement {
        /// Which database, without secrets.
        target: String,
        /// What was tried, as a verb and its object.
        act: String,
        /// What the database said.
        reason: String,
    },
}

impl Error {
    /// The index of the row that the database refuses for itself; the others of the batch are fine, none is stored.
    pub fn is_row_refused(&self) -> Option<usize> {
        if let Self::Row { index, .. } = self { Some(*index) } else { None }
    }

    /// True where the same call may succeed later without anybody's help: outage, lock, deadline, full disk.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
