//! The values at the edges of a chart, and how times are written.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::charts::{Chart, Line};

/// The largest edge of a chart.
const LARGEST: f64 = 1e300;

/// The lowest and the highest value of a chart, so that the one in the middle is a round number, too.
pub fn edges(chart: &Chart, lines: &[Line]) -> (f64, f64) {
    // Beyond that no round number is left above it; only a row that somebody else wrote has it.
    let finite = |values: &mut dyn Iterator<Item = f64>, first: f64, worse: fn(f64, f64) -> f64| {
        values.filter(|value| value.is_finite()).map(|value| value.clamp(-LARGEST, LARGEST)).fold(first, worse)
    };
    let highest = finite(&mut lines.iter().map(|line| line.all.max), 0.0, f64::max);
    let lowest = finite(&mut lines.iter().map(|line| line.all.min), 0.0, f64::min);
    let top = match chart.top {
        Some(top) if highest <= top => top,
        _ => round(highest),
    };
    // What is below zero, as in a frost, has a course too.
    (if lowest < 0.0 { -round(-lowest) } else { 0.0 }, top)
}

/// The next round number.
fn round(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let found = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].into_iter().map(|digit| digit * power).find(|round| *round >= value);
    found.filter(|round| *round > 0.0 && round.is_finite()).unwrap_or(1.0)
}

/// A time of milliseconds since 1970, as a clock on this host shows it.
pub fn local(time: i64, zone: &TimeZone, form: &str) -> String {
    let time = Timestamp::from_millisecond(time).unwrap_or_default();
    time.to_zoned_datetime(zone.clone()).strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_on_which_clocks_are_set_has_every_hour() {
        let Ok(zone) = TimeZone::get("Europe/Berlin") else { return };
        for (night, clocks) in [
            ("2026-10-24T23:30:00Z", ["01:30", "02:30", "02:30", "03:30"]),
            ("2026-03-28T23:30:00Z", ["00:30", "01:30", "03:30", "04:30"]),
        ] {
            let begin = night.parse::<Timestamp>().unwrap().as_millisecond();
            let shown: Vec<_> = (0..4).map(|hour| local(begin + hour * 3_600_000, &zone, "%H:%M")).collect();
            assert_eq!(shown, clocks, "{night}");
        }
        assert_eq!(local(i64::MAX, &zone, "%Y"), "1970", "no time at all");
    }

    #[test]
    fn edges_are_round_whatever_the_values_are() {
        for (highest, rounded) in [
            (0.0, 1.0),
            (0.03, 0.04),
            (1.0, 1.0),
            (1.1, 2.0),
            (999.0, 1000.0),
            (5.1e6, 6e6),
            (f64::MAX, 1.0),
            (f64::NAN, 1.0),
        ] {
            assert!((round(highest) - rounded).abs() < rounded / 1e9, "{highest}: {}", round(highest));
        }
    }
}
