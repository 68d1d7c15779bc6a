use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::counters::{Counters, StuckMounts};

/// Two runs closer together than this give no rates: the kernel counts CPU time in hundredths of a second.
const SHORTEST: f64 = 0.5;
/// How far the boot time that the kernel derives from the wall clock may move within one boot, in seconds.
const BOOT_TIME_DRIFT: i64 = 2;

/// When a sample was taken, on clocks that nobody can set.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Moment {
    /// `/proc/sys/kernel/random/boot_id`; none where the tree has none.
    pub boot_id: Option<String>,
    /// `btime` of `/proc/stat`, seconds since 1970: tells boots apart where there is no boot id.
    pub boot_time: Option<i64>,
    /// CLOCK_BOOTTIME in seconds: since boot, time in suspend included, never set.
    pub clock: f64,
    /// The wall clock in seconds since 1970.
    pub wall: f64,
}

impl Moment {
    fn same_boot(&self, other: &Self) -> bool {
        match (&self.boot_id, &other.boot_id) {
            (Some(one), Some(two)) => one == two,
            (None, None) => match (self.boot_time, other.boot_time) {
                (Some(one), Some(two)) => (one - two).abs() <= BOOT_TIME_DRIFT,
                _ => false,
            },
            _ => false,
        }
    }
}

/// What `baseline.json` holds between two runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Baseline {
    /// When the counters were read.
    pub moment: Moment,
    pub counters: Counters,
    /// File systems that did not answer.
    #[serde(default)]
    pub stuck: StuckMounts,
    /// What was told of what stays so for long, in this boot.
    #[serde(default)]
    pub told: BTreeSet<String>,
    /// When old rows were deleted last, seconds since 1970.
    #[serde(default)]
    pub retention: f64,
}

/// The run before, as far as rates can be measured from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// Seconds since then; more than 0.
    pub interval: f64,
    /// What was counted then.
    pub counters: Counters,
    /// By how many seconds the wall clock has moved against CLOCK_BOOTTIME since then.
    pub clock_step: f64,
}

/// How a new run stands to the baseline.
#[derive(Debug)]
pub(super) enum Standing {
    /// No rate can be measured: first run, another boot, or a clock that went back. The new counters replace it.
    New,
    /// Too close for a rate; the baseline is kept so that a later run has one.
    TooSoon,
    /// Rates are measured from here.
    Since(Past),
}

impl Baseline {
    /// How a run at `now` stands to this baseline.
    pub fn standing(self, now: &Moment) -> Standing {
        let interval = now.clock - self.moment.clock;
        if !self.moment.same_boot(now) || !interval.is_finite() || interval < 0.0 {
            return Standing::New;
        }
        if interval < SHORTEST {
            return Standing::TooSoon;
        }
        let clock_step = now.wall - self.moment.wall - interval;
        Standing::Since(Past { interval, counters: self.counters, clock_step })
    }
}

/// The increase of a counter that only a restart of what it counts can lower; none after one, because how much was
/// counted before it is not known.
pub(super) fn increase(before: u64, now: u64) -> Option<u64> {
    now.checked_sub(before)
}

/// The increase of a counter of 32 bits that may have wrapped once: taken for a wrap only where not more than `most`
/// can have been counted since.
pub(super) fn increase_32(before: u64, now: u64, most: u64) -> Option<u64> {
    const WRAP: u64 = 1 << 32;
    if let Some(increase) = now.checked_sub(before) {
        return Some(increase);
    }
    let wrapped = now.checked_add(WRAP)?.checked_sub(before)?;
    (before < WRAP && now < WRAP && wrapped <= most && most < WRAP).then_some(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: Option<&str>, boot_time: i64, clock: f64, wall: f64) -> Moment {
        Moment { boot_id: boot.map(str::to_owned), boot_time: Some(boot_time), clock, wall }
    }

    fn interval(before: Moment, now: Moment) -> Option<f64> {
        match (Baseline { moment: before, ..Baseline::default() }).standing(&now) {
            Standing::Since(past) => Some(past.interval),
            _ => None,
        }
    }

    #[test]
    fn another_boot_gives_no_interval() {
        assert_eq!(interval(moment(Some("a"), 1, 10.0, 0.0), moment(Some("a"), 1, 70.0, 0.0)), Some(60.0));
        assert_eq!(interval(moment(Some("a"), 1, 10.0, 0.0), moment(Some("b"), 1, 70.0, 0.0)), None);
        assert_eq!(interval(moment(Some("a"), 1, 10.0, 0.0), moment(None, 1, 70.0, 0.0)), None);
    }

    #[test]
    fn without_a_boot_id_the_boot_time_tells_boots_apart() {
        assert_eq!(interval(moment(None, 1000, 10.0, 0.0), moment(None, 1001, 70.0, 0.0)), Some(60.0));
        assert_eq!(interval(moment(None, 1000, 10.0, 0.0), moment(None, 1030, 70.0, 0.0)), None);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_no_interval() {
        assert_eq!(interval(moment(Some("a"), 1, 70.0, 0.0), moment(Some("a"), 1, 10.0, 60.0)), None);
        let same = Baseline { moment: moment(Some("a"), 1, 70.0, 0.0), ..Baseline::default() };
        assert!(matches!(same.standing(&moment(Some("a"), 1, 70.1, 0.0)), Standing::TooSoon));
    }

    #[test]
    fn a_step_of_the_wall_clock_is_seen_and_changes_no_interval() {
        let before = Baseline { moment: moment(Some("a"), 1, 10.0, 1000.0), ..Baseline::default() };
        let Standing::Since(past) = before.standing(&moment(Some("a"), 1, 70.0, 4660.0)) else { panic!("same boot") };
        assert_eq!((past.interval, past.clock_step), (60.0, 3600.0));
    }

    #[test]
    fn only_a_plausible_decrease_is_a_wrap() {
        let near = (1 << 32) - 100;
        assert_eq!(increase(5, 3), None);
        assert_eq!(increase_32(near, 50, 1_000_000), Some(150));
        assert_eq!(increase_32(near, 50, 149), None);
        // A gigabit link can wrap more than once in a minute.
        assert_eq!(increase_32(near, 50, 7_500_000_000), None);
        assert_eq!(increase_32(1 << 33, 50, 1_000_000), None);
        assert_eq!(increase_32(u64::MAX, u64::MAX - 1, 1_000_000), None);
    }
}
