use std::path::PathBuf;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// It could not be looked at.
    Skipped,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub level: Level,
    /// What it belongs to: `configuration`, `repository acme/infra` …
    pub about: String,
    pub finding: String,
    /// The command that mends it; none where nothing is to be done.
    pub mend: Option<String>,
}

/// How to see what another user may not; the program's path and `--config` come to it in the end.
pub(super) const AS_ROOT: &str = "sudo hub doctor";

/// What was found so far about one thing.
#[derive(Debug)]
pub(super) struct Findings {
    pub about: String,
    pub all: Vec<Finding>,
}

impl Findings {
    pub fn new(about: impl Into<String>) -> Self {
        Self { about: about.into(), all: Vec::new() }
    }

    pub fn add(&mut self, level: Level, finding: impl Into<String>, mend: Option<String>) {
        self.all.push(Finding { level, about: self.about.clone(), finding: finding.into(), mend });
    }

    pub fn ok(&mut self, finding: impl Into<String>) {
        self.add(Level::Ok, finding, None);
    }

    pub fn skipped(&mut self, finding: impl Into<String>) {
        self.add(Level::Skipped, finding, Some(AS_ROOT.to_owned()));
    }

    pub fn warning(&mut self, finding: impl Into<String>, mend: impl Into<String>) {
        self.add(Level::Warning, finding, Some(mend.into()));
    }

    pub fn problem(&mut self, finding: impl Into<String>, mend: impl Into<String>) {
        self.add(Level::Problem, finding, Some(mend.into()));
    }
}

#[derive(Serialize)]
pub(super) struct Report {
    /// The worst level.
    pub status: Level,
    pub user: String,
    pub configuration: PathBuf,
    pub state_dir: Option<PathBuf>,
    pub findings: Vec<Finding>,
}
