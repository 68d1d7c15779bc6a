//! What the child reads for the pages of deployments: what gitops-sync and hub watch left, and the database.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Repository};
use crate::records::history;
use crate::records::{Deployment, Found, Look, PlanFile, Reader, Request};
use crate::state::{Folder, repository_record};
use crate::text;

/// Lines of a page.
pub const MOST: usize = 50;
/// The longest text of a line, in bytes.
const LONGEST: usize = 2000;
/// Of more units, steps and files the first are shown.
const MOST_UNITS: usize = 30;
const MOST_STEPS: usize = 200;
/// Differences of unit files that are shown, all together, in bytes and in lines: each line is a piece of markup of its own.
const MOST_DIFFERENCES: usize = 32 << 10;
const MOST_LINES: usize = 1000;
/// So long before and after a deployment failures of units are counted.
const FAILURES: SignedDuration = SignedDuration::from_hours(1);

/// Why something around a deployment is not known.
pub const NO_TIME: &str = "its time is not known";
const NO_LOOK: &str = "hub-watch has not looked yet";

/// What the list shows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    pub repositories: Vec<Next>,
    /// Newest first.
    pub lines: Vec<Deployment>,
    /// How many newer ones there are, and how many older ones.
    pub newer: usize,
    pub older: usize,
}

/// What is to come of a repository.
#[derive(Debug, Serialize, Deserialize)]
pub struct Next {
    pub repository: String,
    pub branch: String,
    /// The commit that is live and since when; an error is why that is not known.
    pub live: Result<Option<(String, String)>, String>,
    /// When it was looked at last, what came of it, and why.
    pub checked: Result<Option<(String, String, Option<String>)>, String>,
    pub due: Due,
    /// Who holds it, since when, and why.
    pub hold: Option<(String, String, Option<String>)>,
    /// The commit that failed and is not tried again, and why.
    pub bad: Option<(String, String)>,
    /// The commit that waits for what others say of it, and since when.
    pub waits: Option<(String, String)>,
    /// Until when somebody has to confirm what is live.
    pub confirm_until: Option<String>,
}

/// When it is looked at next.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Due {
    /// A run is at it.
    Now,
    /// A delivery waits for a run.
    Queued,
    /// It could not be fetched: by the next run.
    Again,
    /// Not while it is held; with what waits meanwhile.
    Held,
    /// By the first run after this, RFC 3339, or when a delivery comes.
    At(String),
    /// By the next run.
    Soon,
    Unknown,
}

/// What the page of one deployment shows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Detail {
    pub deployment: Deployment,
    /// What was to be done; an error is why that is not known.
    pub plan: Result<Option<PlanFile>, String>,
    /// How many of its steps and files are not shown.
    pub left_out: usize,
    /// The units that it touched.
    pub units: BTreeSet<String>,
    /// When it began and ended, in milliseconds since 1970.
    pub times: Option<(i64, i64)>,
    /// How often they failed before and after, by hub watch; an error is why that is not known.
    pub failures: Result<BTreeMap<String, [u64; 2]>, String>,
}

/// Reads the list, after the `newer` newest.
///
/// # Errors
/// A sentence: why there is nothing to show.
pub fn list(config: &Config, newer: usize) -> Result<Listed, String> {
    let all = all(config)?;
    let root = root(config)?;
    let repositories = root.map_or_else(Vec::new, |root| {
        let mut reader = Reader::new(&root);
        config.repositories.iter().map(|repository| next(&mut reader, repository)).collect()
    });
    let newer = newer.min(all.len());
    let lines: Vec<Deployment> = all[newer..].iter().take(MOST).cloned().map(short).collect();
    Ok(Listed { repositories, older: all.len() - newer - lines.len(), lines, newer })
}

/// Reads one; none where there is none of this name.
///
/// # Errors
/// A sentence: why that is not known.
pub fn one(config: &Config, id: &str) -> Result<Option<Detail>, String> {
    let Some(deployment) = all(config)?.into_iter().find(|known| known.id == id) else { return Ok(None) };
    let mut left_out = 0;
    let plan = plan(config, &deployment, &mut left_out);
    let units = deployment.touched(plan.as_ref().ok().and_then(Option::as_ref));
    let units: BTreeSet<String> = units.into_iter().take(MOST_UNITS).collect();
    let end: Option<Timestamp> = deployment.at.parse().ok();
    let took = SignedDuration::from_millis(i64::try_from(deployment.took_ms.unwrap_or(0)).unwrap_or(0));
    let times = end.and_then(|end| Some((end.checked_sub(took).ok()?, end)));
    let failures = times.ok_or_else(|| NO_TIME.to_owned()).and_then(|times| failures(config, &units, times));
    let times = times.map(|(begin, end)| (begin.as_millisecond(), end.as_millisecond()));
    Ok(Some(Detail { deployment: short(deployment), plan, left_out, units, times, failures }))
}

/// All of the history; none where there is none yet.
fn all(config: &Config) -> Result<Vec<Deployment>, String> {
    match history::folder(&config.state_dir, "gitops").and_then(|gitops| Deployment::all(&gitops)) {
        Ok(all) => Ok(all),
        Err(error) if error.is_missing() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

fn root(config: &Config) -> Result<Option<Folder>, String> {
    match Folder::open(&config.state_dir) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// With no text longer than a page bears.
fn short(mut deployment: Deployment) -> Deployment {
    let cut = |text: &mut String| {
        if text.len() > LONGEST {
            *text = text::cut(text, LONGEST).into_owned();
        }
    };
    let Deployment { kind, repository, reason, from, to, subject, author, by, files, acts, .. } = &mut deployment;
    [kind, repository].into_iter().for_each(cut);
    [reason, from, to, subject, author, by].into_iter().flatten().for_each(cut);
    files.truncate(MOST_UNITS);
    files.iter_mut().for_each(cut);
    acts.truncate(MOST_UNITS);
    acts.iter_mut().for_each(|act| [&mut act.unit, &mut act.action, &mut act.reason].into_iter().for_each(cut));
    // A link that is cut leads elsewhere.
    deployment.link = deployment.link.filter(|link| link.len() <= LONGEST);
    deployment
}

fn known<T, U>(found: Found<T>, make: impl FnOnce(T) -> U) -> Result<Option<U>, String> {
    match found {
        Found::There(found) => Ok(Some(make(found))),
        Found::Missing => Ok(None),
        Found::Damaged(why) | Found::Unreadable(why) => Err(why),
    }
}

fn next(reader: &mut Reader<'_>, repository: &Repository) -> Next {
    let found = reader.repository(&repository.name, &repository.branch);
    let file = repository_record(&repository.name);
    let mut waits_in = |folder: &str| !matches!(reader.read::<Request>(folder, &file), Found::Missing);
    let (active, queued, again) = (waits_in("gitops/active"), waits_in("proxy/queue"), waits_in("gitops/retry"));
    let hold = known(found.hold, |hold| (hold.holder().to_owned(), hold.since.clone(), hold.reason.clone()));
    let (mut waits, mut due) = (None, Due::Soon);
    let checked = known(found.checked, |checked| {
        waits = checked.waiting.map(|waiting| (waiting.commit, waiting.since));
        let poll = SignedDuration::from_mins(i64::from(repository.poll_minutes));
        let at = checked.at.parse::<Timestamp>().ok().and_then(|at| at.checked_add(poll).ok());
        due = at.map_or(Due::Unknown, |at| Due::At(crate::log::rfc3339(at)));
        (checked.at, checked.status, checked.reason)
    });
    due = match (active, queued, &hold, again) {
        (true, ..) => Due::Now,
        (_, _, Ok(Some(_)), _) => Due::Held,
        (_, true, ..) => Due::Queued,
        (.., true) => Due::Again,
        _ if checked.is_err() || hold.is_err() => Due::Unknown,
        _ => due,
    };
    Next {
        repository: repository.name.clone(),
        branch: repository.branch.clone(),
        live: known(found.deployed, |live| (live.commit, live.at)),
        bad: known(found.bad, |bad| (bad.commit, bad.reason)).ok().flatten(),
        confirm_until: found.open.take().and_then(|open| open.confirm_until),
        hold: hold.ok().flatten(),
        checked,
        due,
        waits,
    }
}

fn plan(config: &Config, deployment: &Deployment, left_out: &mut usize) -> Result<Option<PlanFile>, String> {
    let Some(path) = &deployment.plan else { return Ok(None) };
    let gitops = history::folder(&config.state_dir, "gitops").map_err(|error| error.to_string())?;
    known(PlanFile::read(&gitops, path), |mut plan| {
        *left_out = plan.plan.len().saturating_sub(MOST_STEPS) + plan.units.len().saturating_sub(MOST_UNITS);
        plan.plan.truncate(MOST_STEPS);
        plan.plan.iter_mut().for_each(|step| *step = text::cut(step, LONGEST).into_owned());
        plan.units.truncate(MOST_UNITS);
        let (mut room, mut lines) = (MOST_DIFFERENCES, MOST_LINES);
        for unit in &mut plan.units {
            let end = unit.diff.match_indices('\n').nth(lines).map_or(unit.diff.len(), |(at, _)| at);
            let shown = text::cut(&unit.diff, end.min(room)).into_owned();
            room = room.saturating_sub(shown.len());
            lines = lines.saturating_sub(shown.lines().count());
            unit.diff = shown;
        }
        plan
    })
}

/// How often units failed in the time before and after, as hub watch counted it in the journal.
fn failures(
    config: &Config,
    units: &BTreeSet<String>,
    (begin, end): (Timestamp, Timestamp),
) -> Result<BTreeMap<String, [u64; 2]>, String> {
    let events = history::folder(&config.state_dir, "watch").and_then(|watch| history::read(&watch));
    let events = events.map_err(|error| if error.is_missing() { NO_LOOK.to_owned() } else { error.to_string() })?;
    let root = root(config)?.ok_or(NO_LOOK)?;
    if let Found::Missing = Reader::new(&root).read::<Look>("watch", Look::FILE) {
        return Err(NO_LOOK.to_owned());
    }
    let mut counts: BTreeMap<String, [u64; 2]> = units.iter().map(|unit| (unit.clone(), [0; 2])).collect();
    for event in events.iter().filter(|event| event.kind == "unit_failed") {
        let (Some(at), Some(counts)) = (event.time(), counts.get_mut(&event.about)) else { continue };
        let times = event.more.get("times").and_then(serde_json::Value::as_u64).unwrap_or(1);
        if at < begin && begin.duration_since(at) <= FAILURES {
            counts[0] = counts[0].saturating_add(times);
        } else if at >= begin && at.duration_since(end) <= FAILURES {
            counts[1] = counts[1].saturating_add(times);
        }
    }
    Ok(counts)
}
