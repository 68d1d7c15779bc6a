use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::Error;
use super::baseline::{Baseline, Standing};
use super::collectors::{Collector, LANES};
use super::context::Context;
use super::counters::{Barred, Counters, StuckMounts};
use super::payload::{Payload, Report};
use super::roots::Roots;
use crate::kinds;
use crate::records::Look;

/// How long the collectors may take together; who has not answered then is left behind.
const LIMIT: Duration = Duration::from_secs(8);
/// How many sentences are remembered as told.
const TOLD: usize = 200;

/// What a collector answered, and how long it took.
type Collected = (Duration, Result<Report, Error>);

/// How one collector did.
#[derive(Debug)]
pub(super) struct Done {
    /// Its name.
    pub collector: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// What went wrong with all of it, or with a part.
    pub problems: Vec<String>,
    /// Those that were not told before in this boot.
    pub fresh: Vec<String>,
    /// False where nothing came of it.
    pub ok: bool,
}

/// Everything a run measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// The rows, in a fixed order.
    pub rows: Vec<(&'static str, Payload)>,
    /// How each collector did.
    pub done: Vec<Done>,
    /// What the next run measures from: this run, or the old baseline where that is to be kept.
    pub baseline: Baseline,
    /// File systems that this user cannot reach.
    pub barred: Barred,
    /// Seconds since the run before.
    pub interval: Option<f64>,
}

/// Measures everything once. `deployed` are the unit files that the hub installed, or why they are not known; `look` is what
/// hub watch saw lately.
///
/// # Errors
/// When no thread can be started.
pub(super) fn measure(
    roots: Roots,
    before: Option<Baseline>,
    wall: jiff::Timestamp,
    deployed: Result<BTreeSet<String>, String>,
    look: Option<Look>,
) -> Result<Measured, Error> {
    let mut context = Context::new(roots, wall, deployed, look);
    let old = before.clone().unwrap_or_default();
    let (stuck, told) = (old.stuck.clone(), old.told.clone());
    let (past, stuck, told, keep) = match before.map(|before| before.standing(&context.moment)) {
        Some(Standing::Since(past)) => (Some(past), stuck, told, false),
        Some(Standing::TooSoon) => (None, stuck, told, true),
        Some(Standing::New) | None => (None, StuckMounts::new(), BTreeSet::new(), false),
    };
    let interval = past.as_ref().map(|past| past.interval);
    (context.past, context.stuck) = (past, stuck);
    let mut measured = run(&Arc::new(context), told)?;
    measured.interval = interval;
    measured.baseline.retention = old.retention;
    if keep {
        let Baseline { stuck, told, .. } = measured.baseline;
        measured.baseline = Baseline { stuck, told, ..old };
    }
    Ok(measured)
}

fn run(context: &Arc<Context>, told: BTreeSet<String>) -> Result<Measured, Error> {
    let (sender, receiver) = mpsc::channel::<(&'static str, Collected)>();
    let deadline = Instant::now() + LIMIT;
    let lane = |lane: &'static [(&'static str, Collector)], context: Arc<Context>, sender: mpsc::Sender<_>| {
        for (name, collector) in lane {
            let started = Instant::now();
            let report = collector(&context);
            // Who listens no more has left this lane behind.
            if sender.send((*name, (started.elapsed(), report))).is_err() {
                return;
            }
        }
    };
    for collectors in LANES {
        let (context, sender) = (context.clone(), sender.clone());
        let thread = std::thread::Builder::new().name("collect".to_owned());
        thread
            .spawn(move || lane(collectors, context, sender))
            .map_err(|source| Error::Start { act: "start a collector's thread", source })?;
    }
    drop(sender);
    let mut answers = BTreeMap::new();
    while let Ok((name, answer)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        answers.insert(name, answer);
    }
    Ok(gather(context, answers, told))
}

/// What the collectors answered, put together. `told` is what was told in this boot of what stays so for long.
fn gather(context: &Context, mut answers: BTreeMap<&'static str, Collected>, mut told: BTreeSet<String>) -> Measured {
    let mut rows: BTreeMap<&'static str, Payload> = BTreeMap::new();
    let mut counters = Counters::default();
    let (mut stuck, mut barred) = (context.stuck.clone(), Barred::new());
    let (mut done, mut additions) = (Vec::new(), Vec::new());
    for (collector, _) in LANES.iter().flat_map(|lane| lane.iter()) {
        let late = || (LIMIT, Err(Error::Late { what: format!("collector {collector}"), seconds: LIMIT.as_secs() }));
        let (duration, report) = answers.remove(collector).unwrap_or_else(late);
        let (ok, problems, lasting) = match report {
            Ok(report) => {
                rows.extend(report.rows);
                counters.merge(report.counters);
                additions.extend(report.additions);
                stuck = report.stuck.unwrap_or(stuck);
                barred.extend(report.barred);
                (true, report.notes, report.lasting)
            }
            Err(error) => (false, vec![error.to_string()], Vec::new()),
        };
        let mut fresh = problems.clone();
        fresh.extend(lasting.iter().filter(|sentence| told.len() < TOLD && told.insert((*sentence).clone())).cloned());
        let problems = problems.into_iter().chain(lasting).collect();
        done.push(Done { collector, duration, problems, fresh, ok });
    }
    for (kind, addition) in additions {
        if let Some(row) = rows.get_mut(kind) {
            row.extend(addition);
        }
    }
    let rows = kinds::ALL.iter().filter_map(|kind| Some((kind.name, rows.remove(kind.name)?))).collect();
    let baseline = Baseline { moment: context.moment.clone(), counters, stuck, told, retention: 0.0 };
    Measured { rows, done, baseline, barred, interval: None }
}
