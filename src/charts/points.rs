use std::collections::HashMap;

use super::table::{ALL, Chart, Source};
use crate::kinds::{Found, Wanted};

/// Lines of one chart beyond so many are left out while samples are read: a host that starts a unit a second must not fill the memory.
const MOST_NAMES: usize = 2000;

/// How old a row may be to say what was at an instant, in milliseconds.
const NEAR: i64 = 3 * 60_000;

/// The time that charts are of, in parts of equal length that each become a point.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its begin, in milliseconds since 1970.
    pub from: i64,
    /// Its end, which does not belong to it.
    pub until: i64,
    /// How many points a line has.
    pub parts: usize,
    /// An instant whose values are asked for, too.
    pub at: Option<i64>,
}

impl Window {
    /// Which point a time belongs to; none outside of the window.
    pub fn part(&self, time: i64) -> Option<usize> {
        if time < self.from || time >= self.until {
            return None;
        }
        let (passed, length) =
            (i128::from(time) - i128::from(self.from), i128::from(self.until) - i128::from(self.from));
        usize::try_from(passed * self.parts as i128 / length).ok().filter(|part| *part < self.parts)
    }

    /// The times of rows that say what was at the instant: two runs may have been missed.
    pub fn near(&self) -> Option<(i64, i64)> {
        self.at.map(|at| (at.saturating_sub(NEAR), at.saturating_add(1)))
    }

    /// When a part begins, in milliseconds since 1970.
    pub fn begin(&self, part: usize) -> i64 {
        let length = i128::from(self.until) - i128::from(self.from);
        let passed = length * part as i128 / self.parts.max(1) as i128;
        i64::try_from(i128::from(self.from) + passed).unwrap_or(self.until)
    }
}

/// The values of one part, or of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The lowest value.
    pub min: f64,
    /// The highest value.
    pub max: f64,
    /// How many there are.
    pub samples: u64,
    sum: f64,
}

impl Point {
    /// So many samples.
    pub fn new(min: f64, mean: f64, max: f64, samples: u64) -> Self {
        Self { min, max, samples, sum: mean * samples as f64 }
    }

    /// The arithmetic mean of the samples.
    pub fn mean(&self) -> f64 {
        self.sum / self.samples as f64
    }

    /// Both together.
    fn and(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            samples: self.samples + other.samples,
            sum: self.sum + other.sum,
        }
    }
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is of.
    pub name: String,
    /// A point for each part of the window; none where nothing was measured, which is a gap and not 0.
    pub points: Vec<Option<Point>>,
    /// All of it.
    pub all: Point,
    /// The time of the newest sample, in milliseconds since 1970, and its value.
    pub last: (i64, f64),
    /// The same of the newest row up to the instant of the window; none where there is none near it.
    pub at: Option<(i64, f64)>,
}

/// Collects what is found to the lines of charts.
#[derive(Debug)]
pub struct Lines {
    window: Window,
    wanted: Wanted,
    /// The chart of each number that is wanted, and its source.
    sources: Vec<(usize, &'static Source)>,
    /// The lines of each, by label.
    lines: Vec<HashMap<String, Line>>,
    /// How many lines each chart has.
    counts: [usize; ALL.len()],
}

impl Lines {
    /// No lines of any chart yet.
    pub fn new(window: Window) -> Self {
        Self::of(window, |_| true)
    }

    /// The same of some charts.
    pub fn of(window: Window, is_shown: impl Fn(&Chart) -> bool) -> Self {
        let charts = ALL.iter().enumerate().filter(|(_, chart)| is_shown(chart));
        let sources: Vec<_> =
            charts.flat_map(|(at, chart)| chart.sources.iter().map(move |source| (at, source))).collect();
        let wanted = Wanted::new(sources.iter().map(|(_, source)| (source.kind.name, source.key)));
        let lines = sources.iter().map(|_| HashMap::new()).collect();
        Self { window, wanted, sources, lines, counts: [0; ALL.len()] }
    }

    /// What they are of.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// What they are made of.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes what was found.
    pub(super) fn add(&mut self, found: &Found<'_>) {
        let Some(part) = self.window.part(found.time).filter(|_| found.samples > 0) else { return };
        let point = Point::new(found.min, found.mean, found.max, found.samples);
        if let Some(line) = self.lines[found.place].get_mut(found.label) {
            line.all = line.all.and(point);
            line.points[part] = Some(line.points[part].map_or(point, |known| known.and(point)));
            if found.time >= line.last.0 {
                line.last = (found.time, found.mean);
            }
            return;
        }
        let (chart, source) = self.sources[found.place];
        if self.counts[chart] < MOST_NAMES {
            self.counts[chart] += 1;
            let mut points = vec![None; self.window.parts];
            points[part] = Some(point);
            let name = name(source, found.label);
            let line = Line { name, points, all: point, last: (found.time, found.mean), at: None };
            self.lines[found.place].insert(found.label.to_owned(), line);
        }
    }

    /// Takes what was found as what was at the instant of the window; it counts nowhere else.
    pub(super) fn add_instant(&mut self, found: &Found<'_>) {
        let line = self.lines[found.place].get_mut(found.label);
        if let Some(line) = line.filter(|line| line.at.is_none_or(|(at, _)| found.time >= at)) {
            line.at = Some((found.time, found.mean));
        }
    }

    /// The charts that have lines, with the lines in the order in which they are shown, and how many were left out.
    pub fn finish(self) -> Vec<(&'static Chart, Vec<Line>, usize)> {
        let mut charts: Vec<(&Chart, Vec<Line>, usize)> = ALL.iter().map(|chart| (chart, Vec::new(), 0)).collect();
        for ((chart, _), lines) in self.sources.into_iter().zip(self.lines) {
            let mut lines: Vec<Line> = lines.into_values().collect();
            lines.sort_by(|a, b| a.name.cmp(&b.name));
            charts[chart].1.extend(lines);
        }
        for (chart, lines, left_out) in &mut charts {
            *left_out = lines.len().saturating_sub(chart.most);
            if *left_out == 0 && !chart.busiest_first {
                continue;
            }
            // What was there for a moment counts for a moment.
            let mut totals: Vec<f64> = lines.iter().map(|line| line.all.sum).collect();
            totals.sort_by(|a, b| b.total_cmp(a));
            let least = totals.get(chart.most.wrapping_sub(1)).copied();
            lines.retain(|line| least.is_none_or(|least| line.all.sum >= least));
            if chart.busiest_first {
                lines.sort_by(|a, b| b.all.sum.total_cmp(&a.all.sum));
            }
            lines.truncate(chart.most);
        }
        charts.retain(|(_, lines, _)| !lines.is_empty());
        charts
    }
}

/// What a line is called.
fn name(source: &Source, label: &str) -> String {
    let space = if label.is_empty() || source.name.is_empty() { "" } else { " " };
    format!("{label}{space}{}", source.name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn window() -> Window {
        Window { from: 0, until: 600_000, parts: 10, at: Some(180_000) }
    }

    fn find(lines: &mut Lines, time: i64, kind: &str, payload: &Value, take: fn(&mut Lines, &Found<'_>)) {
        let wanted = lines.wanted().clone();
        wanted.find(kind, &payload.to_string(), &mut |place, label, value| {
            take(lines, &Found::sample(time, place, label, value));
        });
    }

    fn add(lines: &mut Lines, time: i64, kind: &str, payload: &Value) {
        find(lines, time, kind, payload, |lines, found| lines.add(found));
    }

    #[test]
    fn points_have_their_extremes_and_gaps_stay_gaps() {
        let mut lines = Lines::new(window());
        for (time, usage) in [(-1, 99.0), (0, 10.0), (59_999, 30.0), (120_000, 5.5), (599_999, 1.0), (600_000, 99.0)] {
            add(&mut lines, time, "cpu", &json!({"usage": usage, "modes": {"user": null}}));
        }
        assert_eq!(window().near(), Some((0, 180_001)));
        for (time, usage) in [(130_000, 7.0), (120_000, 5.5)] {
            let row = json!({"usage": usage, "package_temp": 40});
            find(&mut lines, time, "cpu", &row, |lines, found| lines.add_instant(found));
        }
        let charts = lines.finish();
        let [(chart, lines, 0)] = charts.as_slice() else { panic!("{charts:?}") };
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((chart.name, line.name.as_str(), line.last), ("cpu", "used", (599_999, 1.0)));
        let of = |part: usize| line.points[part].map(|point| (point.min, point.mean(), point.max, point.samples));
        assert_eq!(of(0), Some((10.0, 20.0, 30.0, 2)));
        assert_eq!((of(1), of(2), of(9)), (None, Some((5.5, 5.5, 5.5, 1)), Some((1.0, 1.0, 1.0, 1))));
        assert_eq!(line.at, Some((130_000, 7.0)));
        assert_eq!((line.all.min, line.all.max, line.all.samples), (1.0, 30.0, 4));
    }

    #[test]
    fn every_object_is_a_line_and_the_busiest_are_kept() {
        let mut lines = Lines::new(window());
        let units: Value =
            (0..40).map(|number| (format!("{number:02}.service"), json!({"cpu_percent": number}))).collect();
        add(&mut lines, 0, "unit", &units);
        add(&mut lines, 1, "temperature", &json!({"nvme": {"Composite": 41}, "k10temp": {"Tctl": 52.5}}));
        add(&mut lines, 1, "disk_io", &json!({"sda": {"read_bytes_per_second": 5, "written_bytes_per_second": 6}}));
        let charts = lines.finish();
        let shown: Vec<(&str, Vec<&str>, usize)> = charts
            .iter()
            .map(|(chart, lines, left_out)| {
                (chart.name, lines.iter().map(|line| line.name.as_str()).collect(), *left_out)
            })
            .collect();
        let units = vec!["39.service", "38.service", "37.service", "36.service", "35.service", "34.service"];
        assert_eq!(
            shown,
            [
                ("disk", vec!["sda written", "sda read"], 0),
                ("temperature", vec!["k10temp Tctl", "nvme Composite"], 0),
                ("unit_cpu", units, 34),
            ]
        );
    }

    #[test]
    fn a_hostile_number_of_names_is_bounded() {
        let mut lines = Lines::new(window());
        let names: Value = (0..10_000).map(|number| (format!("{number}.service"), json!({"memory": number}))).collect();
        add(&mut lines, 0, "unit", &names);
        assert_eq!(lines.lines.iter().map(HashMap::len).sum::<usize>(), MOST_NAMES);
    }
}
