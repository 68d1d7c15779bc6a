use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::desired::Desired;
use super::manifest::{Owned, Packaged};
use super::unit_name::{template_of, unit_of};

/// What is to be done with one unit file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::gitops) enum Action {
    /// New in the commit: installed, enabled and started where it has `[Install]`.
    Add,
    /// Other content in the commit: replaced.
    Change,
    /// Gone from the commit: stopped, disabled, removed.
    Remove,
    /// The host's file is not what the hub installed: replaced, the host's version kept.
    Drift,
    /// Somebody else installed the same file: the hub looks after it from now on.
    Adopt,
    /// Masked by the operator: left alone.
    Masked,
    /// As it should be.
    Keep,
}

impl Action {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Drift => "drift",
            Self::Adopt => "adopt",
            Self::Masked => "masked",
            Self::Keep => "keep",
        }
    }
}

/// One unit file of a plan, with the reason.
#[derive(Clone, Debug, Serialize)]
pub(in crate::gitops) struct Line {
    /// Its place below the units folder.
    pub file: String,
    pub action: Action,
    pub reason: String,
    /// git's name of the content before.
    pub old: Option<String>,
    /// git's name of the content after.
    pub new: Option<String>,
    /// Whether the running unit has other content than the file will have.
    #[serde(skip)]
    pub stale: bool,
}

impl Line {
    /// True where something on the host changes.
    pub fn acts(&self) -> bool {
        !matches!(self.action, Action::Keep | Action::Masked) && (self.action != Action::Adopt || self.stale)
    }
}

/// What is to be done with the unit files of one repository.
#[derive(Debug, Default)]
pub(in crate::gitops) struct Plan {
    pub lines: Vec<Line>,
    pub desired: Desired,
    /// Whether it may touch the hub's own units.
    pub(super) own: bool,
    /// The manifest as it will be.
    pub(super) files: BTreeMap<String, Option<Owned>>,
    /// Of the files that go: the packaged units that come to light, as they were.
    pub(super) packaged: BTreeMap<String, Packaged>,
}

impl Plan {
    /// True where nothing on the host changes.
    pub fn is_idle(&self) -> bool {
        !self.lines.iter().any(Line::acts)
    }

    /// True where it may touch the hub's own units.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    pub(super) fn acting(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.acts())
    }

    /// True where the unit was enabled for the operator before: what became of that is the operator's.
    pub(super) fn was_enabled_once(&self, file: &str) -> bool {
        self.files.get(file).and_then(Option::as_ref).is_some_and(|owned| owned.enabled_once)
    }

    /// False for units that go with this plan, or are masked.
    pub(super) fn may_restart(&self, unit: &str) -> bool {
        let settled = [Action::Remove, Action::Masked];
        !self.lines.iter().any(|line| line.file == unit && settled.contains(&line.action))
    }

    /// The units of the commit for which a file, a drop-in or the template changes.
    pub(super) fn concerned(&self) -> BTreeSet<String> {
        let changed = self.units();
        let is_changed = |unit: &&String| {
            changed.contains(*unit) || template_of(unit).is_some_and(|template| changed.contains(&template))
        };
        let units = self.desired.files.keys().filter(|file| unit_of(file) == *file);
        units.filter(is_changed).cloned().collect()
    }

    /// True for a unit whose file goes with this plan, or the file of its template.
    pub(super) fn takes_away(&self, unit: &str) -> bool {
        let gone = |name: &str| self.lines.iter().any(|line| line.file == name && line.action == Action::Remove);
        gone(unit) || template_of(unit).is_some_and(|template| gone(&template) && !self.desired.has(unit))
    }

    /// The unit files that go, drop-ins left out.
    pub(super) fn leaving(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.action == Action::Remove && unit_of(&line.file) == line.file)
    }

    /// How the packaged unit was that a file stood over.
    pub(super) fn packaged(&self, file: &str) -> Option<Packaged> {
        self.packaged.get(file).copied()
    }

    /// The units (templates included) whose files change.
    pub fn units(&self) -> BTreeSet<String> {
        self.acting().map(|line| unit_of(&line.file).to_owned()).collect()
    }
}
