use serde::{Deserialize, Serialize};

use super::Found;
use crate::state::{Error, Folder};

/// The longest file, in bytes: differences of a quarter of a mebibyte, escaped, and what would be done.
const LONGEST: usize = 4 << 20;

/// `gitops/plans/<repository>/<time>-<commit>.json`: what a deployment was to do, as gitops-sync keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanFile {
    /// `owner/name`
    pub repository: String,
    /// When it was made, RFC 3339.
    pub at: String,
    /// The commit that was live; none where there was none.
    pub from: Option<String>,
    /// The commit that was to be live.
    pub to: String,
    /// What would be done, a line each.
    pub plan: Vec<String>,
    /// The unit files that change.
    pub units: Vec<Difference>,
}

/// One unit file that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// Its place below the units folder.
    pub file: String,
    /// What is done to it: `add`, `change`, `remove` …
    pub action: String,
    /// Why.
    pub reason: String,
    /// As `diff -u` writes it, without its head, and without what may be secret.
    pub diff: String,
}

impl PlanFile {
    /// The folder in gitops-sync's.
    pub const FOLDER: &str = "plans";

    /// The one that a line of the history names by its path in gitops-sync's folder. A path that leads anywhere else is none.
    pub fn read(gitops: &Folder, path: &str) -> Found<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let [Self::FOLDER, repository, file] = parts.as_slice() else { return Found::Missing };
        if [repository, file].iter().any(|part| part.starts_with('.') || part.contains('\0')) {
            return Found::Missing;
        }
        let read = || gitops.sub(Self::FOLDER)?.sub(repository)?.read_json_within(file, LONGEST);
        match read() {
            Ok(Some(plan)) => Found::There(plan),
            Ok(None) => Found::Missing,
            Err(error) if error.is_missing() => Found::Missing,
            Err(error) if error.is_about_content() => Found::Damaged(Error::to_string(&error)),
            Err(error) => Found::Unreadable(error.to_string()),
        }
    }
}
