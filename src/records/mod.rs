//! What services leave for readers (design §10): run records, and gitops-sync's files about each repository.
//! Only reading lives here, of files that may be missing, unreadable or damaged; who owns a file writes it.
//! Nothing is shown or judged here beyond what the words that services write down mean.

mod reader;
mod words;

use serde::{Deserialize, Serialize};

use crate::state::Run;

pub use reader::Reader;
pub use words::{ago, milliseconds, seconds_between, short, span};

/// Services and the folders of their run records (design §10).
pub const SERVICES: [(&str, &str); 5] = [
    ("proxy", "proxy"),
    ("gitops-sync", "gitops"),
    ("tailscale-gate", "gate"),
    ("reading-sync", "reading"),
    ("system-metrics", "data/metrics"),
];

/// What gitops-sync says about a repository.
#[derive(Clone, Debug, Serialize)]
pub struct Repository {
    /// `owner/name`
    pub repository: String,
    /// The branch that is deployed.
    pub branch: String,
    /// The commit that is live.
    pub deployed: Option<Deployed>,
    /// When it was last looked at.
    pub checked: Option<Checked>,
    /// The commit that failed.
    pub bad: Option<Bad>,
    /// Who suspended it.
    pub hold: Option<Hold>,
}

/// `gitops/deployed/<file>.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployed {
    /// The commit.
    pub commit: String,
    /// Since when, RFC 3339.
    pub at: String,
}

/// `gitops/checked/<file>.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// When, RFC 3339.
    pub at: String,
    /// What came of it, as in the run record.
    pub status: String,
    /// Why, where there is something to say.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `gitops/bad/<file>.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bad {
    /// The commit.
    pub commit: String,
    /// What failed.
    #[serde(default)]
    pub reason: Option<String>,
    /// When, RFC 3339.
    #[serde(default)]
    pub at: Option<String>,
}

/// `gitops/hold/<file>.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Since when, RFC 3339.
    #[serde(default)]
    pub since: Option<String>,
    /// Whose doing it is.
    #[serde(default)]
    pub by: Option<String>,
    /// What for.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How a run ended, as far as every service's record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was done.
    Done,
    /// There was nothing to do.
    Nothing,
    /// It failed.
    Failed,
}

impl Outcome {
    /// By a run's record.
    pub fn of(run: &Run) -> Self {
        if run.error.is_some() { Self::Failed } else { Self::of_word(&run.status) }
    }

    /// By the word that a service wrote down.
    pub fn of_word(status: &str) -> Self {
        match status {
            "failed" | "refused" | "rolled_back" | "rollback_failed" => Self::Failed,
            "unchanged" | "held" | "planned" | "nothing" => Self::Nothing,
            _ => Self::Done,
        }
    }
}
