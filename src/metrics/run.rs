use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::baseline::Baseline;
use super::collect::{self, Done, Measured};
use super::events::Outgoing;
use super::flush::{self, Flushed};
use super::payload::{Payload, Put, decimal};
use super::roots::Roots;
use super::spool::{self, Depth, Losses, Spool};
use super::{Error, collectors, identity};
use crate::config::Config;
use crate::log;
use crate::program::Exit;
use crate::records::history::{Event, Kind};
use crate::records::{self, Details, Look, counted, installed_units};
use crate::state::{self, Folder, Lock, Record, Run};
use crate::store::MetricRow;

/// When the database is given up and the rows go to the spool, counted from the start of the run. What begins just before
/// may wait for SQLite's lock for five seconds more, within the run's own limit.
const DATABASE_LIMIT: Duration = Duration::from_secs(13);
/// How often old rows are deleted, in seconds.
const RETENTION_EVERY: f64 = 6.0 * 3600.0;
/// Days that rows are kept where hub.toml does not say.
const RETENTION_DAYS: u32 = 14;
/// How many problems of one collector are told.
const PROBLEMS: usize = 5;

/// For how many seconds a look of hub watch says how systemd's units are.
const LOOK_HOLDS: u64 = 2 * 60;

const BASELINE: &str = "baseline.json";

/// A sample with what it takes to show or store it.
#[derive(Debug)]
pub(super) struct Sample {
    /// When it was taken.
    pub time: jiff::Timestamp,
    /// The host's name.
    pub host: String,
    /// The host's operating system.
    pub os: String,
    pub rows: Vec<(&'static str, Payload)>,
}

impl Sample {
    /// As it is stored: without raw counters for which a row has no room, and without what hardly ever changes.
    pub(super) fn stored(mut self) -> Self {
        let stored = |(kind, row)| Some((kind, collectors::stored(kind, row)?));
        self.rows = self.rows.into_iter().filter_map(stored).collect();
        self
    }

    /// As it is left for readers.
    pub(super) fn left(&self) -> records::Sample {
        records::Sample {
            time: log::rfc3339(self.time),
            host: self.host.clone(),
            os: self.os.clone(),
            metrics: self.rows.iter().map(|(kind, row)| ((*kind).to_owned(), Value::Object(row.clone()))).collect(),
        }
    }

    fn into_rows(self) -> Vec<MetricRow> {
        let Self { time, host, os, rows } = self;
        let row = |(kind, payload): (&'static str, Payload)| MetricRow {
            time,
            host: host.clone(),
            os: os.clone(),
            metric_type: kind.to_owned(),
            payload: Value::Object(payload),
        };
        rows.into_iter().map(row).collect()
    }
}

/// The service's folder, as far as it can be used.
struct Place {
    folder: Option<Folder>,
    spool: Option<Spool>,
    problem: Option<String>,
}

impl Place {
    /// Opens `<state>/data/metrics`, made where missing.
    fn open(config: &Config) -> Self {
        let made = Folder::open_or_make(&config.state_dir, 0o755)
            .and_then(|root| root.sub_or_make("data", 0o750))
            .and_then(|data| data.sub_or_make("metrics", 0o750));
        let mut place = Self { folder: None, spool: None, problem: None };
        match made {
            Ok(folder) => {
                match Spool::open(&folder, spool::LIMIT) {
                    Ok(spool) => place.spool = Some(spool),
                    Err(error) => place.problem = Some(error.to_string()),
                }
                place.folder = Some(folder);
            }
            Err(error) => place.problem = Some(error.to_string()),
        }
        place
    }

    /// Opens what is there, and makes nothing: for showing a sample.
    fn look(config: &Config) -> Self {
        let folder = Folder::open(&config.state_dir.join("data/metrics")).ok();
        let has_spool = folder.as_ref().is_some_and(|folder| folder.sub("spool").is_ok());
        let spool = folder.as_ref().filter(|_| has_spool).and_then(|folder| Spool::open(folder, spool::LIMIT).ok());
        Self { folder, spool, problem: None }
    }

    /// The baseline of the run before; none where there is none, or it is damaged: the next run has one again.
    fn baseline(&self) -> Option<Baseline> {
        let folder = self.folder.as_ref()?;
        folder.read_json::<Baseline>(BASELINE).unwrap_or_else(|error| {
            log::warn!("baseline_unreadable", error = error.to_string());
            None
        })
    }

    fn depth(&self) -> (Depth, Losses) {
        let Some(spool) = &self.spool else { return Default::default() };
        let depth = spool.depth().unwrap_or_else(|error| {
            log::warn!("spool_unreadable", error = error.to_string());
            Depth::default()
        });
        (depth, spool.losses())
    }
}

/// Takes a sample. Returned with it: what the next run measures from, and how each collector did.
fn take(config: &Config, place: &Place, roots: Roots) -> Result<(Sample, Measured), Error> {
    let started = Instant::now();
    let now = jiff::Timestamp::now();
    // Databases keep times in milliseconds; a row must have the same time however often it is sent.
    let time = jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
    let os = identity::os(&roots);
    let mut measured = collect::measure(roots, place.baseline(), time, deployed(config), look(config, time))?;
    let mut rows = std::mem::take(&mut measured.rows);
    let (depth, losses) = place.depth();
    rows.push(("run", own(&measured, depth, losses, started.elapsed())));
    Ok((Sample { time, host: crate::host::name(), os, rows }, measured))
}

/// The unit files that the hub installed, or why they are not known.
fn deployed(config: &Config) -> Result<BTreeSet<String>, String> {
    match Folder::open(&config.state_dir).and_then(|root| installed_units(&root)) {
        Err(error) if !error.is_missing() => Err(error.to_string()),
        read => Ok(read.unwrap_or_default()),
    }
}

/// What hub watch saw lately; none where it has not looked, or its folder may not be read.
fn look(config: &Config, now: jiff::Timestamp) -> Option<Look> {
    let watch = Folder::open(&config.state_dir).and_then(|root| root.sub("watch")).ok()?;
    let look: Look = watch.read_json(Look::FILE).ok().flatten()?;
    look.is_within(LOOK_HOLDS, now).then_some(look)
}

/// The `run` row: how the run itself went so far, in milliseconds; what waits in the spool, what was lost since the
/// state folder was made.
fn own(measured: &Measured, depth: Depth, losses: Losses, duration: Duration) -> Payload {
    let milliseconds = |duration: Duration| decimal(duration.as_secs_f64() * 1000.0, 3);
    let mut collectors = Map::new();
    for Done { collector, duration, problems, ok, .. } in &measured.done {
        let mut done = Map::new();
        done.put("ok", *ok);
        done.put("ms", milliseconds(*duration));
        if !problems.is_empty() {
            done.put("problems", shortened(problems));
        }
        collectors.put(collector, done);
    }
    let mut row = Map::new();
    row.put("duration_ms", milliseconds(duration));
    row.put_some("interval", measured.interval.map(|interval| decimal(interval, 3)));
    row.put("collectors", collectors);
    row.put("spool", serde_json::json!({"rows": depth.rows, "bytes": depth.bytes}));
    row.put("dropped", losses.dropped);
    row.put("refused", losses.refused);
    let stuck = measured.baseline.stuck.iter().map(|(mount, stuck)| (mount.clone(), decimal(stuck.since, 0)));
    let stuck: Payload = stuck.collect();
    if !stuck.is_empty() {
        row.put("stuck", stuck);
    }
    row
}

fn shortened(problems: &[String]) -> Vec<String> {
    let mut told: Vec<String> = problems.iter().take(PROBLEMS).cloned().collect();
    if problems.len() > PROBLEMS {
        told.push(format!("and {} more", problems.len() - PROBLEMS));
    }
    told
}

fn log_problems(measured: &Measured) {
    for Done { collector, fresh, ok, .. } in &measured.done {
        if !fresh.is_empty() {
            let event = if *ok { "collector_incomplete" } else { "collector_failed" };
            log::warn!(event, collector = collector, error = shortened(fresh).join("; "));
        }
    }
}

/// Takes a sample for a person to look at; writes nothing.
///
/// # Errors
/// When no collector can be started.
pub(super) fn show(config: &Config, roots: Roots) -> Result<Sample, Error> {
    let (sample, measured) = take(config, &Place::look(config), roots)?;
    log_problems(&measured);
    Ok(sample)
}

/// Takes a sample and stores it: in the database, or in the spool while that cannot be used.
///
/// Returns 0 where everything is stored or spooled, 1 where samples were lost, 75 where another run is at work.
pub(super) fn store(config: &Config, roots: Roots) -> Exit {
    let started = Instant::now();
    let place = Place::open(config);
    if let Some(error) = &place.problem {
        log::error!("state_folder_unusable", error = error);
    }
    let lock = match place.folder.as_ref().map(|folder| Lock::attempt(folder, "lock")) {
        Some(Ok(None)) => {
            log::warn!("busy", error = "another run of system-metrics is at work; this one ends");
            return Exit::Busy;
        }
        Some(Ok(lock)) => lock,
        // A folder that cannot be written keeps nobody from the database.
        Some(Err(error)) => {
            log::error!("lock_failed", error = error.to_string());
            None
        }
        None => None,
    };
    let (sample, measured) = match take(config, &place, roots) {
        Ok(taken) => taken,
        Err(error) => {
            log::error!("sample_failed", error = error.to_string());
            return Exit::Error;
        }
    };
    log_problems(&measured);
    // Before the database, which may keep this waiting.
    if let Some(folder) = &place.folder
        && let Err(error) = folder.renew_json(records::Sample::FILE, &sample.left())
    {
        log::error!("newest_sample_not_written", error = error.to_string());
    }
    let sample = sample.stored();
    let (time, kinds) = (sample.time, sample.rows.len() - 1);
    if kinds == 0 {
        log::error!("sample_empty", error = "no collector could measure anything; see the lines above");
    }
    let baseline = measured.baseline;
    // A baseline that is kept because this run is too close to it has the clock of the run before.
    let now = time.as_millisecond() as f64 / 1000.0;
    let due = (now - baseline.retention).abs() > RETENTION_EVERY;
    let days = config.metrics.retention_days.unwrap_or(RETENTION_DAYS);
    let retention = due.then_some((days, config.metrics.hourly_days));
    let deadline = started + DATABASE_LIMIT;
    let outgoing = Outgoing::gather(config, place.folder.as_ref(), &sample.host, time);
    let rows = (sample.into_rows(), outgoing.rows.clone());
    let mut flushed = flush::flush(config, place.spool.as_ref(), rows, time, deadline, retention);
    let (events, not_sent) = outgoing.settle(place.folder.as_ref(), flushed.shipped.take());
    let retention = if due && flushed.error.is_none() { now } else { baseline.retention };
    let exit = if flushed.is_whole() && kinds > 0 { Exit::Done } else { Exit::Error };
    if let Some(folder) = &place.folder {
        if let Err(error) = save(folder, &Baseline { retention, ..baseline }) {
            log::error!("baseline_not_saved", error = error.to_string());
        }
        let waiting = if flushed.error.is_some() { place.depth().0.rows } else { 0 };
        let mut run = record(time, started.elapsed(), kinds, &flushed, waiting);
        run.counts.put("events", events);
        if !measured.barred.is_empty() || !not_sent.is_empty() {
            run.details = records::Metrics { barred: measured.barred.clone(), not_sent }.written();
        }
        tell(folder, &run);
        if let Err(error) = Record::add_lazily(folder, "system-metrics", run) {
            log::error!("run_record_not_written", error = error.to_string());
        }
    }
    say(&flushed, events, started.elapsed());
    drop(lock);
    exit
}

/// Appends to the history that rows were lost, where the run before lost none.
fn tell(folder: &Folder, run: &Run) {
    // A damaged record is told of where it is replaced.
    let before = || Record::read(folder).ok().flatten();
    if run.status == "lost" && before().is_none_or(|before| before.last.status != "lost") {
        let event = Event::new(Kind::SamplesLost, "", &run.status).because(run.error.as_deref());
        event.with("counts", &run.counts).append(folder);
    }
}

/// A baseline is worth nothing after a crash of the host, because its boot id is another one then: it replaces the old
/// one at once but need not reach the disk, which spares an SD card a write a minute.
fn save(folder: &Folder, baseline: &Baseline) -> Result<(), state::Error> {
    let path = || folder.path().join(BASELINE);
    let bytes = serde_json::to_vec(baseline)
        .map_err(|error| state::Error::Content { path: path(), reason: error.to_string() })?;
    folder.replace(BASELINE, &bytes, 0o640)
}

/// The run as `run.json` has it. `waiting` are the rows in the spool now.
fn record(time: jiff::Timestamp, duration: Duration, kinds: usize, flushed: &Flushed, waiting: u64) -> Run {
    let status = match flushed {
        _ if kinds == 0 => "failed",
        flushed if !flushed.is_whole() => "lost",
        flushed if flushed.spooled > 0 => "spooled",
        _ => "stored",
    };
    let mut counts = Map::new();
    for (key, count) in [
        ("stored", flushed.stored),
        ("spooled", flushed.spooled),
        ("replayed", flushed.replayed),
        ("dropped", flushed.dropped),
        ("refused", flushed.refused),
        ("waiting", waiting),
    ] {
        counts.put(key, count);
    }
    Run {
        started: log::rfc3339(time),
        duration_ms: duration.as_millis() as u64,
        status: status.to_owned(),
        counts,
        error: flushed.error.clone().or_else(|| lost(flushed)),
        details: Value::Null,
    }
}

/// What was lost of a run that reached its database; none where nothing was.
fn lost(flushed: &Flushed) -> Option<String> {
    let Flushed { dropped, refused, .. } = flushed;
    let words = || format!("{} lost from the spool, {refused} refused by the database", counted(*dropped, "row"));
    (!flushed.is_whole()).then(words)
}

fn say(flushed: &Flushed, events: u64, duration: Duration) {
    let Flushed { stored, spooled, replayed, dropped, refused, error, .. } = flushed;
    let duration_ms = duration.as_millis() as u64;
    if !flushed.is_whole() {
        log::error!(
            "samples_lost",
            stored = stored,
            spooled = spooled,
            replayed = replayed,
            dropped = dropped,
            refused = refused,
            error = error,
            duration_ms = duration_ms
        );
    } else if *spooled > 0 {
        log::warn!("metrics_spooled", spooled = spooled, replayed = replayed, error = error, duration_ms = duration_ms);
    } else {
        let replayed = (*replayed > 0).then_some(replayed);
        let events = (events > 0).then_some(events);
        log::info!("metrics_stored", stored = stored, replayed = replayed, events = events, duration_ms = duration_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_lost_rows_says_how_many_where_the_database_is_up() {
        let flushed = Flushed { stored: 9, dropped: 1, refused: 2, ..Flushed::default() };
        let run = record(jiff::Timestamp::UNIX_EPOCH, Duration::ZERO, 12, &flushed, 0);
        assert_eq!(run.status, "lost");
        assert_eq!(run.error.unwrap(), "1 row lost from the spool, 2 refused by the database");
        let whole = Flushed { stored: 12, ..Flushed::default() };
        assert_eq!(record(jiff::Timestamp::UNIX_EPOCH, Duration::ZERO, 12, &whole, 0).error, None);
    }
}
