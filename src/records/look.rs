use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::seconds_between;
use crate::log::rfc3339;
use crate::systemd::Units;
use crate::text::FIRST;

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
    /// How often systemd restarted services by itself: of those that the newest sample tells of.
    pub restarts: BTreeMap<String, u32>,
    /// The values of this host that are beyond their limits.
    pub over: Vec<Over>,
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
