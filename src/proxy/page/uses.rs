//! What units used over a time, by the rows of kind `unit`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::database;
use crate::charts::Unit;
use crate::config::Config;
use crate::host;
use crate::kinds::{Found, HOUR, Wanted, hour_of, unit};
use crate::store::{self, Look};

/// The keys, in the order of `Use`.
const KEYS: [&str; 3] = ["cpu_percent", "memory", "restarts"];

/// What a unit used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// Percent of one CPU.
    pub cpu: Mean,
    /// Bytes.
    pub memory: Mean,
    /// How often systemd had restarted it by itself, at the begin and at the end.
    pub restarts: Ends,
}

/// The mean and the highest of many values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    sum: f64,
    samples: u64,
    highest: f64,
}

/// The oldest and the newest of many values, each with its time in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ends(Option<((i64, f64), (i64, f64))>);

impl Mean {
    fn add(&mut self, found: &Found<'_>) {
        self.highest = if self.samples == 0 { found.max } else { self.highest.max(found.max) };
        self.sum += found.mean * found.samples as f64;
        self.samples += found.samples;
    }

    /// The mean; none where nothing was measured.
    pub fn mean(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.sum / self.samples as f64)
    }

    pub fn highest(&self) -> Option<f64> {
        (self.samples > 0).then_some(self.highest)
    }
}

impl Ends {
    fn add(&mut self, found: &Found<'_>) {
        let (first, last) = ((found.time, found.min), (found.time, found.max));
        self.0 = Some(match self.0 {
            None => (first, last),
            Some((oldest, newest)) => {
                (if first.0 < oldest.0 { first } else { oldest }, if last.0 >= newest.0 { last } else { newest })
            }
        });
    }

    /// How many more there are at the end; none where nothing was measured. A unit that somebody started counts anew.
    pub fn more(&self) -> Option<u64> {
        let ((_, before), (_, after)) = self.0?;
        Some(if after >= before { after - before } else { after } as u64)
    }
}

/// What units used before something and after it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Around {
    pub by: By,
    pub units: BTreeMap<String, [Option<Use>; 2]>,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    Minutes,
    /// Cheaper, and kept for longer.
    Hours,
}

/// Reads what units used in the last 24 hours that are counted, and in the one that goes on.
///
/// # Errors
/// A sentence: why that is not known.
pub fn read_day(config: &Config, units: &BTreeSet<String>) -> Result<BTreeMap<String, Use>, String> {
    let mut database = database::open(config).map_err(|error| error.to_string())?;
    let now = jiff::Timestamp::now().as_millisecond();
    let times = (hour_of(now) - 24 * HOUR, now + HOUR);
    read(&mut database, units, times, By::Hours).map_err(|error| error.to_string())
}

/// Reads what units used before and after something that began and ended at these times (milliseconds since 1970): by minutes
/// while the database has them, then by hours.
///
/// # Errors
/// A sentence: why that is not known.
pub fn read_around(config: &Config, units: &BTreeSet<String>, (begin, end): (i64, i64)) -> Result<Around, String> {
    let mut database = database::open(config).map_err(|error| error.to_string())?;
    let mut found = Around { by: By::Minutes, units: BTreeMap::new() };
    for by in [By::Minutes, By::Hours] {
        found.by = by;
        for (place, times) in around(begin, end, by).into_iter().enumerate() {
            let uses = read(&mut database, units, times, by).map_err(|error| error.to_string())?;
            for (unit, used) in uses {
                found.units.entry(unit).or_default()[place] = Some(used);
            }
        }
        let mut has_hours = || database.counted_from(&host::name()).map(|from| from.is_some());
        if !found.units.is_empty() || !has_hours().map_err(|error| error.to_string())? {
            break;
        }
    }
    Ok(found)
}

/// What these units of this host used from one time up to another (milliseconds since 1970), by their names.
fn read(
    database: &mut Look,
    units: &BTreeSet<String>,
    times: (i64, i64),
    by: By,
) -> Result<BTreeMap<String, Use>, store::Error> {
    let wanted = Wanted::new(KEYS.map(|key| (unit::KIND.name, key)));
    let mut uses: BTreeMap<String, Use> = BTreeMap::new();
    let mut take = |found: Found<'_>| {
        if !units.contains(found.label) {
            return;
        }
        let used = uses.entry(found.label.to_owned()).or_default();
        match KEYS.get(found.place) {
            Some(&"cpu_percent") => used.cpu.add(&found),
            Some(&"memory") => used.memory.add(&found),
            _ => used.restarts.add(&found),
        }
    };
    match by {
        By::Minutes => database.samples(&host::name(), &wanted, times, &mut take)?,
        By::Hours => database.hours(&host::name(), &wanted, times, &mut take)?,
    }
    Ok(uses)
}

/// The time before a begin and the one after an end, in milliseconds since 1970: half an hour each, or three whole hours
/// that have nothing of what lies between.
fn around(begin: i64, end: i64, by: By) -> [(i64, i64); 2] {
    match by {
        By::Minutes => [(begin - HOUR / 2, begin), (end, end + HOUR / 2)],
        By::Hours => {
            let (first, last) = (hour_of(begin), hour_of(end) + HOUR);
            [(first - 3 * HOUR, first), (last, last + 3 * HOUR)]
        }
    }
}

/// Percent of a CPU, for people.
pub fn percent(value: Option<f64>) -> String {
    known(value.map(|value| Unit::Percent.written(value)))
}

/// Bytes, for people.
pub fn bytes(value: Option<f64>) -> String {
    known(value.map(|value| Unit::Bytes.written(value)))
}

/// A number of times, for people.
pub fn number(value: Option<u64>) -> String {
    known(value.map(|value| value.to_string()))
}

fn known(shown: Option<String>) -> String {
    shown.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// What is said where something is not seen.
pub const UNKNOWN: &str = "not known";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_weighted_and_restarts_begin_anew_with_the_unit() {
        let mut used = Use::default();
        assert_eq!((used.cpu.mean(), used.cpu.highest(), used.restarts.more()), (None, None, None));
        let hour = |time, mean, max, samples| Found { time, place: 0, label: "", min: 0.0, mean, max, samples };
        used.cpu.add(&hour(0, 10.0, 90.0, 60));
        used.cpu.add(&hour(1, 40.0, 50.0, 30));
        assert_eq!((used.cpu.mean(), used.cpu.highest()), (Some(20.0), Some(90.0)));
        for (values, more) in [([3.0, 3.0, 5.0], 2), ([7.0, 0.0, 1.0], 1), ([2.0, 2.0, 2.0], 0)] {
            let mut ends = Ends::default();
            // In no order.
            for at in [1, 2, 0] {
                ends.add(&Found::sample(at, 2, "", values[at as usize]));
            }
            assert_eq!(ends.more(), Some(more), "{values:?}");
        }
    }

    #[test]
    fn hours_around_a_deployment_have_nothing_of_it() {
        let minute = HOUR / 60;
        assert_eq!(
            around(90 * minute, 95 * minute, By::Minutes),
            [(60 * minute, 90 * minute), (95 * minute, 125 * minute)]
        );
        assert_eq!(around(90 * minute, 125 * minute, By::Hours), [(-2 * HOUR, HOUR), (3 * HOUR, 6 * HOUR)]);
    }
}
