use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::manifest::Packaged;
use super::reach::Job;
use crate::log;

/// Something that was done to a unit, and why.
#[derive(Clone, Debug, Serialize)]
pub(in crate::gitops) struct Restart {
    pub unit: String,
    /// `started`, `restarted`, `reloaded`, `stopped`, `enabled`
    pub action: &'static str,
    pub reason: String,
    /// The file whose change caused it.
    pub file: Option<String>,
    /// The commit before; none where there was none.
    pub from: Option<String>,
    /// The commit that is being made live.
    pub to: Option<String>,
}

/// What an applied plan did, for the probe and the record.
#[derive(Debug, Default)]
pub(in crate::gitops) struct Applied {
    repository: String,
    from: Option<String>,
    to: Option<String>,
    pub actions: Vec<Restart>,
    /// Files whose units were enabled.
    pub(super) enabled: Vec<String>,
    /// Of the files that stand over a packaged unit: how that one was.
    pub(super) packaged: BTreeMap<String, Packaged>,
    /// The units that were asked to start or stop.
    pub(super) jobs: Vec<(String, Job)>,
    /// Those, and all that their jobs can have moved along: they are watched.
    pub(super) moved: BTreeMap<String, Job>,
    /// What else happened to units meanwhile, in sentences.
    pub noticed: Vec<String>,
    /// Units that go and could not be started again: they are stopped when the deployment went well.
    pub(super) last: Vec<String>,
    /// The worker's own units, whose turn comes when the result is durable.
    pub own: Vec<String>,
    /// Instances that nothing in the commit stands for any more.
    pub(super) ended: BTreeSet<String>,
    /// What systemd ignores in the commit's unit files; none where nobody asked it.
    pub ignored: Option<Vec<String>>,
}

impl Applied {
    /// Nothing yet, on the way from one commit of a repository to another.
    pub fn new(repository: &str, from: Option<&str>, to: Option<&str>) -> Self {
        let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
        Self { repository: repository.to_owned(), from, to, ..Self::default() }
    }

    /// True where units were moved, which should be watched.
    pub fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn did(&mut self, unit: &str, action: &'static str, reason: &str, file: Option<&str>) {
        let (from, to) = (self.from.clone(), self.to.clone());
        log::info!(
            "unit_changed",
            repo = self.repository,
            unit = unit,
            action = action,
            reason = reason,
            file = file,
            from = from,
            to = to
        );
        let (unit, reason, file) = (unit.to_owned(), reason.to_owned(), file.map(str::to_owned));
        self.actions.push(Restart { unit, action, reason, file, from, to });
    }

    pub(super) fn has_touched(&self, unit: &str) -> bool {
        self.actions.iter().any(|done| done.unit == unit)
    }
}
