//! What the child reads for the page of a host, ready to be drawn.

use jiff::tz::TimeZone;
use rouille::Request;
use serde::{Deserialize, Serialize};

use super::course::{Course, HEIGHT, STEP};
use super::scale::{edges, local};
use crate::charts::{self, Chart, Line, Lines, Window};
use crate::config::Config;
use crate::host;
use crate::kinds::{HOUR, MINUTE};
use crate::proxy::page::database;
use crate::records::history::{self, Told};
use crate::records::{Deployment, short};
use crate::store::{self, Look};
use crate::text;

/// Marks beyond so many are left out, the oldest first.
const MOST_MARKS: usize = 100;
/// Hosts beyond so many are counted only.
const MOST_HOSTS: usize = 20;
/// The longest name of a host that can be asked for, in bytes: a link to it stands in the page, and hostname(7) allows 64.
const LONGEST_HOST: usize = 255;
/// The longest name of a line, and the longest text of a mark, in bytes: another writer's may be of any length.
const LONGEST_NAME: usize = 120;
const LONGEST_TEXT: usize = 500;
/// Rows of a table, each of a part of the time.
const SLICES: usize = 12;
/// Parts of the axis of time, with a label at the ends of each.
const LABELS: usize = 4;

/// How far back a page looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    #[default]
    Day,
    Week,
    Month,
    Year,
}

impl Range {
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// Its name in a link and for people.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Day => ("24h", "24 hours"),
            Self::Week => ("7d", "7 days"),
            Self::Month => ("30d", "30 days"),
            Self::Year => ("1y", "1 year"),
        }
    }

    /// How long a point is of, in milliseconds, and how many there are.
    fn parts(self) -> (i64, usize) {
        match self {
            Self::Day => (10 * MINUTE, 144),
            Self::Week => (HOUR, 168),
            Self::Month => (4 * HOUR, 180),
            Self::Year => (48 * HOUR, 183),
        }
    }

    /// Its points end at round times: those of long ranges at whole hours, which the database has counted.
    fn window(self, now: i64) -> Window {
        let (length, parts) = self.parts();
        let until = (now.div_euclid(length) + 1) * length;
        Window { from: until - length * parts as i64, until, parts, at: None }
    }

    /// How times are written.
    fn form(self) -> &'static str {
        match self {
            Self::Day => "%H:%M",
            Self::Week => "%a %-d %b",
            Self::Month => "%-d %b",
            Self::Year => "%-d %b %Y",
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Asked {
    pub range: Range,
    /// Another host of the database.
    pub host: Option<String>,
}

impl Asked {
    /// By the query of a request; what is no range is the first one, and a name that is too long is one that nobody has.
    pub fn of(request: &Request) -> Self {
        let range = request.get_param("range").unwrap_or_default();
        let range = Range::ALL.into_iter().find(|known| known.names().0 == range).unwrap_or_default();
        let host = request.get_param("host");
        Self { range, host: host.map(|host| text::cut(&host, LONGEST_HOST).into_owned()) }
    }
}

/// How a host was.
#[derive(Debug, Serialize, Deserialize)]
pub struct Host {
    pub host: String,
    /// All that the database has, where there are several.
    pub hosts: Vec<Neighbour>,
    /// How many more it has.
    pub more_hosts: usize,
    /// The time that is shown, in words.
    pub time: String,
    /// The labels of the axis of time.
    pub labels: Vec<String>,
    /// The begins of the rows of tables.
    pub slices: Vec<String>,
    /// Units from the left edge of a drawing to the right one.
    pub width: i32,
    pub charts: Vec<Drawn>,
    pub marks: Vec<Mark>,
    /// Why there may be more marks than these.
    pub unseen: Option<String>,
}

/// A host of the database, by its last hour.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Neighbour {
    pub host: String,
    /// CPU, memory and the fullest file system.
    pub values: [Option<String>; 3],
    /// When it was measured last; none where that is longer ago.
    pub last: Option<String>,
}

/// A chart.
#[derive(Debug, Serialize, Deserialize)]
pub struct Drawn {
    pub title: String,
    /// The values at the upper edge, in the middle, at the lower edge.
    pub edges: [String; 3],
    pub lines: Vec<Drawing>,
    /// How many lines are not shown.
    pub left_out: usize,
}

/// A line of a chart.
#[derive(Debug, Serialize, Deserialize)]
pub struct Drawing {
    pub name: String,
    pub mean: String,
    pub band: String,
    /// The lowest value, the mean, the highest value, the last one.
    pub values: [String; 4],
    /// The mean of each slice; none where nothing was measured.
    pub slices: Vec<Option<String>>,
}

/// What happened at an instant.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mark {
    /// Its place in the drawings.
    pub x: i32,
    pub kind: MarkKind,
    pub at: String,
    pub told: String,
    /// The name of the deployment that it is, in links.
    pub deployment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkKind {
    Deployed,
    RolledBack,
    Booted,
}

/// Reads it.
///
/// # Errors
/// A sentence: why there is nothing to show.
pub fn read(config: &Config, asked: &Asked) -> Result<Host, String> {
    let now = jiff::Timestamp::now().as_millisecond();
    let zone = TimeZone::system();
    let nothing = || "nothing has been measured yet; system-metrics stores a sample each minute".to_owned();
    let mut database = database::open(config).map_err(|error| match error {
        store::Error::State(error) if error.is_missing() => nothing(),
        error => error.to_string(),
    })?;
    let mut names = database.hosts().map_err(|error| error.to_string())?;
    let all = names.len();
    names.retain(|name| name.len() <= LONGEST_HOST);
    let (own, range) = (host::name(), asked.range);
    // A host without a name is one where it has rows.
    let asked = asked.host.as_ref().filter(|name| !name.is_empty() || names.contains(name));
    let wanted = asked.unwrap_or(&own);
    let host = match (names.iter().find(|name| *name == wanted), asked) {
        (Some(name), _) => name.clone(),
        (None, Some(asked)) => return Err(format!("the database has nothing of {asked}")),
        (None, None) => names.first().cloned().ok_or_else(nothing)?,
    };
    let window = range.window(now);
    let mut lines = Lines::of(window, |chart| !chart.name.starts_with("unit_"));
    charts::read(&mut database, &host, &mut lines).map_err(|error| error.to_string())?;
    let charts = lines.finish().into_iter();
    let hosts = if all > 1 { neighbours(&mut database, &names, &own, now, &zone)? } else { Vec::new() };
    // What happened elsewhere is told there.
    let (told, unseen) = if host == own { history::all(&config.state_dir) } else { (Vec::new(), None) };
    let edge = |part: usize, of: usize| local(window.begin(part * window.parts / of), &zone, range.form());
    let offset = |time| zone.to_offset(jiff::Timestamp::from_millisecond(time).unwrap_or_default());
    // In a night in which clocks are changed an hour comes twice.
    let form = if offset(window.from) == offset(window.until) { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M %Z" };
    let whole = |time| local(time, &zone, form);
    Ok(Host {
        time: format!("{} to {}", whole(window.from), local(now, &zone, "%Y-%m-%d %H:%M %Z")),
        labels: (0..=LABELS).map(|part| edge(part, LABELS)).collect(),
        slices: (0..SLICES).map(|part| whole(slice_begin(window, part))).collect(),
        width: STEP * i32::try_from(window.parts).unwrap_or(i32::MAX),
        charts: charts.map(|(chart, lines, left_out)| drawn(chart, &lines, left_out, window)).collect(),
        marks: marks(&told, window, now, &zone),
        unseen: unseen.map(|error| error.to_string()),
        host,
        more_hosts: if all > 1 { all - hosts.len() } else { 0 },
        hosts,
    })
}

fn slice_begin(window: Window, slice: usize) -> i64 {
    window.begin(slice * window.parts / SLICES)
}

fn drawn(chart: &Chart, lines: &[Line], left_out: usize, window: Window) -> Drawn {
    let (bottom, top) = edges(chart, lines);
    let unit = |number: f64| chart.unit.written(number);
    let slice = |line: &Line, slice: usize| {
        let part = |slice: usize| slice * window.parts / SLICES;
        let points = line.points.get(part(slice)..part(slice + 1))?.iter().flatten();
        let (sum, samples) = points.fold((0.0, 0), |(sum, samples), point| {
            (sum + point.mean() * point.samples as f64, samples + point.samples)
        });
        (samples > 0).then(|| unit(sum / samples as f64))
    };
    let drawing = |line: &Line| {
        let Course { mean, band } = Course::of(&line.points, (bottom, top));
        let name = if line.name.is_empty() {
            chart.title.to_owned()
        } else {
            text::cut(&line.name, LONGEST_NAME).into_owned()
        };
        let values = [line.all.min, line.all.mean(), line.all.max, line.last.1].map(unit);
        Drawing { name, mean, band, values, slices: (0..SLICES).map(|at| slice(line, at)).collect() }
    };
    Drawn {
        title: chart.title.to_owned(),
        edges: [top, (top + bottom) / 2.0, bottom].map(unit),
        lines: lines.iter().map(drawing).collect(),
        left_out,
    }
}

/// How hosts were in the last hour, the own one first.
fn neighbours(
    database: &mut Look,
    names: &[String],
    own: &str,
    now: i64,
    zone: &TimeZone,
) -> Result<Vec<Neighbour>, String> {
    let window = Window { from: now - HOUR, until: now + MINUTE, parts: 1, at: None };
    let mut hosts = Vec::new();
    let (first, others): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| *name == own);
    for name in first.into_iter().chain(others).take(MOST_HOSTS) {
        let mut lines = Lines::of(window, |chart| ["cpu", "memory", "space"].contains(&chart.name));
        charts::read(database, name, &mut lines).map_err(|error| error.to_string())?;
        let mut host = Neighbour { host: name.clone(), ..Neighbour::default() };
        let mut last = None;
        for (chart, lines, _) in lines.finish() {
            last = last.max(lines.iter().map(|line| line.last.0).max());
            let (at, found) = match chart.name {
                "cpu" => (0, lines.iter().find(|line| line.name == "used").map(|line| line.all.mean())),
                "memory" => (1, lines.iter().find(|line| line.name == "memory").map(|line| line.last.1)),
                _ => (2, lines.iter().map(|line| line.last.1).max_by(f64::total_cmp)),
            };
            host.values[at] = found.map(|found| chart.unit.written(found));
        }
        host.last = last.map(|last| local(last, zone, "%H:%M"));
        hosts.push(host);
    }
    Ok(hosts)
}

/// What is marked on every chart: deployments, and starts of the host.
fn marks(told: &[Told], window: Window, now: i64, zone: &TimeZone) -> Vec<Mark> {
    let place = |at: i64| {
        let (passed, length) = (i128::from(at - window.from), i128::from(window.until - window.from));
        i32::try_from(passed * window.parts as i128 * i128::from(STEP) / length).unwrap_or(0)
    };
    let mark = |told: &Told| {
        let event = &told.event;
        let kind = match event.kind.as_str() {
            "deployed" => MarkKind::Deployed,
            "rolled_back" | "rollback_failed" => MarkKind::RolledBack,
            "booted" => MarkKind::Booted,
            _ => return None,
        };
        let at = event.time()?.as_millisecond();
        // What lies ahead was written by a clock that was wrong.
        window.part(at).filter(|_| at <= now)?;
        let part = |key: &str| event.more.get(key).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
        let words = [
            Some(event.about.clone()).filter(|_| kind != MarkKind::Booted),
            part("to").map(|to| short(to).to_owned()),
            part("subject").map(|subject| format!("“{subject}”")),
            part("author").map(|author| format!("by {author}")),
        ];
        let reason = event.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let told = words.into_iter().flatten().collect::<Vec<_>>().join(" ") + &reason;
        let told = text::cut(&told, LONGEST_TEXT).into_owned();
        let deployment = kind != MarkKind::Booted;
        let deployment = deployment.then(|| Deployment::id(&event.at, &event.kind, &event.about));
        Some(Mark { x: place(at), kind, at: local(at, zone, "%Y-%m-%d %H:%M"), told, deployment })
    };
    let mut marks: Vec<Mark> = told.iter().filter_map(mark).collect();
    marks.drain(..marks.len().saturating_sub(MOST_MARKS));
    marks
}

/// Units from the upper edge to the lower one.
pub const TALL: i32 = HEIGHT;
