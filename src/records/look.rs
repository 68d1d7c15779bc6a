use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::seconds_between;
use crate::log::rfc3339;
use crate::systemd::Units;
use crate::text::FIRST;

/// Of more units that the hub deployed the first are told of: the file is written each minute.
const MOST_UNITS: usize = 100;
/// More failed units are told in one sentence, until there are no more than half as many.
const CROWD: usize = FIRST;

/// `watch/look.json`: what hub watch saw at its last look, for those who do not look themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    /// When, RFC 3339.
    pub at: String,
    /// The units that have failed; none where systemd was not asked, or did not say.
    pub failed: Option<FailedUnits>,
    /// Those of the last look that systemd answered, where it did not answer this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<FailedUnits>,
    /// Others that have: the hub's own, and those that may.
    pub untold: Vec<String>,
    /// How often systemd restarted services by itself: of those that the newest sample tells of, and those that the hub
    /// deployed.
    pub restarts: BTreeMap<String, u32>,
    /// The values of this host that are beyond their limits.
    pub over: Vec<Over>,
    /// Since when each reason is there, RFC 3339, by its key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<String, String>,
    /// The units that the hub deployed, by name, the first of many; none where systemd was not asked, or did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployed: Option<BTreeMap<String, UnitState>>,
}

/// How a unit was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitState {
    /// `active`, `inactive`, `failed` …; empty where systemd does not know the unit.
    pub active: String,
    /// The same in the words of its type: `running`, `waiting` …
    pub sub: String,
    /// Since when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How often systemd restarted it by itself; none of what is no service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
}

/// A value beyond its limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Over {
    /// What names it from one look to the next: `disk//var/full`.
    pub key: String,
    pub about: String,
    /// Whether it is a failure.
    pub is_failed: bool,
    /// A sentence.
    pub reason: String,
    /// What to run.
    pub mend: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// Units that have failed, but for the hub's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedUnits {
    /// How many.
    pub count: usize,
    /// The first of them, by name.
    pub first: Vec<FailedUnit>,
    /// True where they are too many for a sentence each.
    pub is_crowd: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedUnit {
    /// Its name.
    pub unit: String,
    /// Why, in systemd's word: `exit-code`, `timeout` …
    pub result: String,
    /// The exit status of its main process; none of what is no service.
    pub exit_status: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// Whether its log says that there was no room on a disk; none where nobody has looked.
    pub no_space: Option<bool>,
}

impl Look {
    /// Its name in the folder `watch`.
    pub const FILE: &str = "look.json";
    /// For how many seconds it says how the host is.
    pub const HOLDS: u64 = 5 * 60;

    /// The names of the units that are told of, by those that the hub installed: a template is none by itself.
    pub fn told<'a>(files: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let is_unit = |file: &&String| !file.contains('/') && !file.contains("@.");
        let mut names: Vec<String> = files.into_iter().filter(is_unit).cloned().collect();
        names.sort_unstable();
        names.truncate(MOST_UNITS);
        names
    }

    /// The units that had failed when systemd said so last.
    pub fn last_failed(&self) -> Option<&FailedUnits> {
        self.failed.as_ref().or(self.failed_before.as_ref())
    }

    /// True where it was at most so many seconds before `now`.
    pub fn is_within(&self, seconds: u64, now: Timestamp) -> bool {
        self.at.parse().is_ok_and(|at: Timestamp| at <= now && seconds_between(at, now) <= seconds)
    }
}

impl FailedUnits {
    /// What systemd said now; `before` is what it said at the look before.
    pub fn of(units: &Units, before: Option<&Self>) -> Self {
        let most = if before.is_some_and(|before| before.is_crowd) { CROWD / 2 } else { CROWD };
        let no_space = |name: &str, since: &Option<String>| {
            let mut known = before.into_iter().flat_map(|before| &before.first);
            known.find(|known| known.unit == name && known.since == *since)?.no_space
        };
        let told = units.iter().take(FIRST).map(|(name, unit)| FailedUnit {
            unit: name.clone(),
            result: unit.result.clone(),
            exit_status: Some(unit.exit_status.clone()).filter(|_| name.ends_with(".service")),
            since: unit.changed.map(rfc3339),
            no_space: no_space(name, &unit.changed.map(rfc3339)),
        });
        Self { count: units.len(), first: told.collect(), is_crowd: units.len() > most }
    }
}
