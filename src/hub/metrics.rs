use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Error;
use super::instant::{Clock, instant};
use super::terminal::{Terminal, Tone, fit};
use crate::charts::{self, Chart, Line, Lines, Point, Unit, Window};
use crate::config::Config;
use crate::kinds::MINUTE;
use crate::program::print;
use crate::records::history::{self, Told};
use crate::records::milliseconds;
use crate::store::{self, Look};
use crate::{host, state, text};

/// Columns of a line's name.
const NAME: usize = 20;
/// Columns of a value.
const VALUE: usize = 10;
/// Points in what is written for programs.
const POINTS: usize = 120;
/// Events beyond so many are counted.
const MOST_EVENTS: usize = 30;
/// Half of the time that is shown around an instant, in milliseconds.
const AROUND: i64 = 30 * 60_000;
/// From the lowest value to the highest (Unicode, "Block Elements").
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Show how the host was: CPU, memory, disks, network, temperatures, the busiest units, and what happened meanwhile.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "metrics",
    note = "It reads the database that system-metrics fills. A gap is a time in which nothing was measured. Times are in the \
            time zone of this terminal.",
    example = "hub metrics",
    example = "hub metrics --at 03:00",
    example = "hub metrics --since 2d --json"
)]
pub(super) struct Arguments {
    /// an instant: it is shown with half an hour before and after it; 03:00, "yesterday 22:10", 2026-01-31T12:00:00Z
    #[argh(option, arg_name = "TIME")]
    at: Option<String>,
    /// how far back: 30m, 12h, 2d, 4w, or a time as for --at (default: 6h)
    #[argh(option, arg_name = "TIME")]
    since: Option<String>,
    /// another host of the database
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,
    /// one JSON object
    #[argh(switch)]
    json: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// What is shown.
struct Shown {
    host: String,
    window: Window,
    charts: Vec<(&'static Chart, Vec<Line>, usize)>,
    events: Vec<Told>,
    /// Why there may be more events than these.
    unseen: Option<state::Error>,
    clock: Clock,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let clock = Clock::here();
    let terminal = Terminal::stdout();
    let points = if arguments.json { POINTS } else { terminal.width.saturating_sub(NAME + 1 + 3 * VALUE).max(10) };
    let window = window(arguments, &clock, points)?;
    let config = Config::load(arguments.config.as_deref())?;
    let shown = look(&config, arguments.host.as_deref(), window, clock)?;
    print(&if arguments.json { text::json(&shown.value(), true) } else { shown.screen(terminal) });
    Ok(())
}

/// The time that is asked for. A point is of a minute at least.
fn window(arguments: &Arguments, clock: &Clock, points: usize) -> Result<Window, Error> {
    let end = clock.now.as_millisecond().saturating_add(1);
    let at = arguments.at.as_deref().map(|at| instant("--at", at, clock)).transpose()?.map(Timestamp::as_millisecond);
    let since = arguments.since.as_deref().map(|since| instant("--since", since, clock)).transpose()?;
    let (from, until) = match (since.map(Timestamp::as_millisecond), at) {
        (Some(since), _) => (since, end),
        (None, Some(at)) => (at.saturating_sub(AROUND), at.saturating_add(AROUND).min(end)),
        (None, None) => (end.saturating_sub(6 * 60 * MINUTE), end),
    };
    if from >= until {
        return Err(Error::Usage("that time has not come yet".to_owned()));
    }
    let minutes = until.saturating_sub(from).saturating_add(MINUTE - 1) / MINUTE;
    let parts = usize::try_from(minutes).unwrap_or(points).clamp(1, points);
    Ok(Window { from, until, parts, at })
}

fn look(config: &Config, wanted: Option<&str>, window: Window, clock: Clock) -> Result<Shown, Error> {
    let nothing = || {
        Error::Metrics(
            "nothing has been measured yet; system-metrics stores a sample each minute: hub status shows how it is"
                .to_owned(),
        )
    };
    let mut database = match Look::open(config) {
        Err(store::Error::State(error)) if error.is_missing() => return Err(nothing()),
        opened => opened?,
    };
    let own = host::name();
    let host = wanted.unwrap_or(&own).to_owned();
    let hosts = database.hosts()?;
    if hosts.is_empty() {
        return Err(nothing());
    }
    if !hosts.contains(&host) {
        let reason = format!("the database has nothing of {host}; with --host it shows {}", hosts.join(", "));
        return Err(Error::Metrics(reason));
    }
    let mut lines = Lines::new(window);
    charts::read(&mut database, &host, &mut lines)?;
    // What happened elsewhere is told there.
    let (mut events, unseen) = if host == own { history::all(&config.state_dir) } else { (Vec::new(), None) };
    events.retain(|told| told.event.time().is_some_and(|time| window.part(time.as_millisecond()).is_some()));
    Ok(Shown { host, window, charts: lines.finish(), events, unseen, clock })
}

impl Shown {
    fn local(&self, time: i64, form: &str) -> String {
        let time = Timestamp::from_millisecond(time).unwrap_or_default();
        self.clock.zone.to_datetime(time).strftime(form).to_string()
    }

    /// For people.
    fn screen(&self, terminal: Terminal) -> String {
        let Window { from, until, parts, at } = self.window;
        let form = "%Y-%m-%d %H:%M";
        let (begin, end) = (self.local(from, form), self.local(until, form));
        let zone = self.clock.zone.to_offset_info(Timestamp::from_millisecond(until).unwrap_or_default());
        let width = (until - from) / parts as i64;
        let mut lines = vec![
            terminal.paint(Tone::Strong, &text::shown(&self.host)),
            format!(
                "{begin} to {end} {}, {} a column: its highest value",
                zone.abbreviation(),
                milliseconds(width.unsigned_abs())
            ),
            String::new(),
        ];
        if self.charts.is_empty() {
            lines.push("Nothing was measured in this time.".to_owned());
        }
        let last = at.map_or_else(|| "last".to_owned(), |at| self.local(at, "%H:%M"));
        for (chart, of_chart, left_out) in &self.charts {
            let head =
                format!("{}{:>VALUE$}{:>VALUE$}{last:>VALUE$}", fit(chart.title, NAME + 1 + parts), "mean", "max");
            lines.push(terminal.paint(Tone::Strong, &head));
            lines.extend(of_chart.iter().map(|line| self.line(chart, line, terminal)));
            if *left_out > 0 {
                lines.push(terminal.paint(Tone::Quiet, &format!("{left_out} with lower values are not shown")));
            }
            lines.push(String::new());
        }
        lines.push(terminal.paint(Tone::Strong, "What happened"));
        if self.host != host::name() {
            lines.push("This host knows its own history only: hub timeline shows it there.".to_owned());
        } else if self.events.is_empty() {
            lines.push("Nothing.".to_owned());
        } else {
            lines.push(format!("{}{}", " ".repeat(NAME + 1), self.marks()));
        }
        let more = self.events.len().saturating_sub(MOST_EVENTS);
        if more > 0 {
            lines.push(format!("{more} earlier ones: hub timeline"));
        }
        lines.extend(self.events[more..].iter().map(|told| {
            let at = told.event.time().map_or(0, Timestamp::as_millisecond);
            told.line_at(&self.local(at, "%d %H:%M:%S"))
        }));
        if let Some(error) = &self.unseen {
            lines.push(terminal.paint(Tone::Warning, &format!("Not all can be read: {error}")));
        }
        lines.join("\n")
    }

    fn line(&self, chart: &Chart, line: &Line, terminal: Terminal) -> String {
        let top = chart.top.filter(|_| line.all.min >= 0.0).unwrap_or(line.all.max).max(line.all.max);
        // What is below zero, as in a frost, has a course too.
        let bottom = line.all.min.min(0.0);
        let blocks: String =
            line.points.iter().map(|point| point.map_or(' ', |point| block(point.max, bottom, top))).collect();
        let last = if self.window.at.is_some() { line.at } else { Some(line.last) };
        let last = last.map_or_else(|| "-".to_owned(), |(_, value)| shown(chart.unit, value));
        format!(
            "{} {}{:>VALUE$}{:>VALUE$}{last:>VALUE$}",
            fit(&text::shown(&line.name), NAME),
            terminal.paint(Tone::Good, &blocks),
            shown(chart.unit, line.all.mean()),
            shown(chart.unit, line.all.max)
        )
    }

    /// Where in the lines something happened.
    fn marks(&self) -> String {
        let mut marks = vec![' '; self.window.parts];
        for time in self.events.iter().filter_map(|told| told.event.time()) {
            if let Some(part) = self.window.part(time.as_millisecond()) {
                marks[part] = '▲';
            }
        }
        marks.into_iter().collect::<String>().trim_end().to_owned()
    }

    /// For programs.
    fn value(&self) -> Value {
        let time = |time: i64| crate::log::rfc3339(Timestamp::from_millisecond(time).unwrap_or_default());
        let value = |(at, value): (i64, f64)| json!({ "time": time(at), "value": value });
        let of = |point: &Point| json!({ "min": point.min, "mean": point.mean(), "max": point.max, "samples": point.samples });
        let line = |line: &Line| {
            let points = line.points.iter().enumerate().map(|(part, point)| {
                let mut value = point.as_ref().map_or_else(|| json!({ "samples": 0 }), of);
                value["time"] = time(self.window.begin(part)).into();
                value
            });
            let mut object = of(&line.all);
            object["name"] = line.name.as_str().into();
            object["points"] = points.collect();
            object["last"] = value(line.last);
            object["at"] = line.at.map_or(Value::Null, value);
            object
        };
        let charts = self.charts.iter().map(|(chart, lines, left_out)| {
            json!({
                "name": chart.name,
                "unit": unit(chart.unit),
                "lines": lines.iter().map(line).collect::<Value>(),
                "left_out": left_out,
            })
        });
        json!({
            "host": self.host,
            "from": time(self.window.from),
            "until": time(self.window.until),
            "at": self.window.at.map(time),
            "charts": charts.collect::<Value>(),
            "events": self.events.iter().map(Told::value).collect::<Value>(),
        })
    }
}

fn block(value: f64, bottom: f64, top: f64) -> char {
    let share = if top > bottom { ((value - bottom) / (top - bottom)).clamp(0.0, 1.0) } else { 0.0 };
    BLOCKS[((share * 7.0).round() as usize).min(7)]
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Percent => "percent",
        Unit::Bytes => "bytes",
        Unit::Rate => "bytes/s",
        Unit::Celsius => "°C",
    }
}

/// A value in a few characters; a share with its tenths, so that they stand below each other.
fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Percent if value.abs() < 1e5 => format!("{value:.1} %"),
        unit => unit.written(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_is_drawn_whatever_its_values_are() {
        for (values, bottom, top, expected) in [
            (&[0.0, 50.0, 100.0][..], 0.0, 100.0, "▁▅█"),
            (&[-20.0, -10.0, -5.5], -20.0, -5.5, "▁▆█"),
            (&[0.0, -10.0, 0.0], -10.0, 0.0, "█▁█"),
            (&[0.0, 0.0], 0.0, 0.0, "▁▁"),
            (&[-5.0, -5.0], -5.0, -5.0, "▁▁"),
            (&[-1e308, 1e308], -1e308, 1e308, "▁▁"),
        ] {
            let drawn: String = values.iter().map(|value| block(*value, bottom, top)).collect();
            assert_eq!(drawn, expected, "{values:?}");
        }
        for unit in [Unit::Percent, Unit::Bytes, Unit::Rate, Unit::Celsius] {
            for value in [1e308, -1e308, f64::INFINITY, f64::NAN, 9.3e18, -40.0, 0.0, 123_456.7] {
                assert!(shown(unit, value).chars().count() < VALUE, "{unit:?} {value}");
            }
        }
    }
}
