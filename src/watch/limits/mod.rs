//! Values that are beyond their limits: since when, and whether for long enough. Pure: values and their times come in.
//! Nobody is told anything here.

mod around;
mod measured;
mod reading;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::records::{Over, Sample, seconds_between, span};

pub(super) use around::Around;
use reading::Reading;

/// What is beyond its limit no more is told to be so after this, or after as long as it took to be told.
const BACK: SignedDuration = SignedDuration::from_mins(5);
/// Where nothing was measured for longer, nobody knows what was in between.
const GAP: SignedDuration = SignedDuration::from_mins(5);
/// A sample that is older says nothing of this moment.
const FRESH: u64 = 5 * 60;
/// What is not there any more, such as a file system that was unmounted, is forgotten after as long without it.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// More are not watched: a host with as many file systems is told by some of them.
const MOST: usize = 500;

/// What is known of a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Watched {
    /// Since when it is beyond its limit without a gap.
    beyond: Option<Timestamp>,
    /// Since when it is not, without a gap.
    below: Option<Timestamp>,
    /// When it was measured last.
    seen: Option<Timestamp>,
    /// Since when samples come without it.
    missing: Option<Timestamp>,
    over: Option<Over>,
}

/// All values that are beyond their limits, or on the way, and what is looked at less often.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    values: BTreeMap<String, Watched>,
    /// The time of the sample that was judged last.
    sample: String,
    memory: measured::Memory,
    pub(super) around: Around,
}

impl Thresholds {
    /// Looks at what no sample tells, below the host's root folder.
    pub fn look_around(&mut self, config: &Config, root: &Path, now: Timestamp) {
        self.around.look(config, root, now);
    }

    /// Takes in what was measured and what was looked at; returns what is beyond its limits at `now`.
    pub fn look(&mut self, limits: &config::Limits, sample: Option<&Sample>, now: Timestamp) -> Vec<Over> {
        let mut readings = self.around.readings(limits, now);
        let fresh = sample.filter(|sample| {
            let at: Option<Timestamp> = sample.time.parse().ok();
            // One of a clock that was set back meanwhile may be of any time.
            at.is_some_and(|at| seconds_between(at, now) <= FRESH && seconds_between(now, at) <= FRESH)
        });
        let fresh = fresh.filter(|sample| sample.time != self.sample);
        if let Some(sample) = fresh {
            self.sample.clone_from(&sample.time);
            readings.extend(measured::readings(sample, limits, &mut self.memory, now));
        }
        self.judge(readings, fresh.is_some(), now)
    }

    fn judge(&mut self, readings: Vec<Reading>, has_sample: bool, now: Timestamp) -> Vec<Over> {
        for reading in readings {
            let is_new = !self.values.contains_key(&reading.key);
            if is_new && (reading.is_old || self.values.len() >= MOST) {
                continue;
            }
            let watched = self.values.entry(reading.key.clone()).or_default();
            watched.take(reading, now);
        }
        let around = &self.around;
        self.values.retain(|key, watched| {
            let was_looked_for = around.sees(key) || has_sample && !around.may_have(key);
            let is_gone = was_looked_for && watched.seen != Some(now) && watched.is_gone(now);
            !is_gone && !watched.is_well()
        });
        self.values.values().filter_map(|watched| watched.told(now)).collect()
    }
}

impl Watched {
    fn is_well(&self) -> bool {
        self.over.is_none() && self.beyond.is_none()
    }

    /// It is missing now; true where it was for long enough. Where nobody measured, nothing is gone.
    fn is_gone(&mut self, now: Timestamp) -> bool {
        // What lies ahead is of a clock that was set back.
        let since = self.missing.filter(|since| *since <= now).unwrap_or(now);
        self.missing = Some(since);
        now.duration_since(since) >= FORGOTTEN
    }

    fn take(&mut self, reading: Reading, now: Timestamp) {
        // A gap, or a clock that was set: what was before does not count as without a break.
        if self.seen.is_some_and(|seen| seen > now || now.duration_since(seen) > GAP) {
            (self.beyond, self.below) = (None, None);
        }
        (self.seen, self.missing) = (Some(now), None);
        let Reading { key, about, value, bad, failed, margin, hold, reason, mend, is_old: _ } = reading;
        let beyond = |limit: Option<f64>, is_open: bool| {
            limit.is_some_and(|limit| value >= if is_open { limit - margin } else { limit })
        };
        let was_failed = self.over.as_ref().is_some_and(|over| over.is_failed);
        let is_failed = beyond(failed, was_failed);
        let is_bad = is_failed || beyond(bad, self.over.is_some());
        if is_bad {
            self.below = None;
            let since = *self.beyond.get_or_insert(now);
            if self.over.is_some() || now.duration_since(since) >= hold {
                let since = self.over.as_ref().map_or_else(|| crate::log::rfc3339(since), |over| over.since.clone());
                // What got better within its trouble is as bad as it was told, until it is well again.
                self.over = Some(Over { key, about, is_failed: is_failed || was_failed, reason, mend, since });
            }
            return;
        }
        self.beyond = None;
        let below = *self.below.get_or_insert(now);
        // Turned off, it is not waited for.
        if bad.is_none() && failed.is_none() || now.duration_since(below) >= hold.max(BACK) {
            self.over = None;
        }
    }

    /// As it is told; of what was not measured lately that it was so.
    fn told(&self, now: Timestamp) -> Option<Over> {
        let mut over = self.over.clone()?;
        let age = self.seen.map_or(0, |seen| seconds_between(seen, now));
        if age > FRESH {
            over.reason = format!("{}; that was {} ago, and how it is now is not known", over.reason, span(age));
        }
        Some(over)
    }
}

#[cfg(test)]
mod tests;
