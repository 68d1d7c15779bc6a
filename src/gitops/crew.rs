//! Looks at repositories side by side, a thread each, so that a remote that does not answer holds up nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::attempts::Attempts;
use super::claim::Claim;
use super::run::{Asked, Run};
use super::turn::Place;
use super::wake::Wake;
use super::{Error, Outcome, Status};
use crate::command::{self, Backoff, scoped_thread};
use crate::config::Repository;
use crate::log;
use crate::state::{self, Folder};

/// How many repositories are worked on at once; one place is kept for what is queued or asked for.
const PLACES: usize = 4;
/// A fetch that takes longer waits for its remote most of the time and keeps the place from no queued one, or no due one.
const SLOW: Duration = Duration::from_secs(1);
const SLOW_FOR_DUE: Duration = Duration::from_secs(30);
/// How many are worked on at once when most of them wait for their remotes.
const MOST: usize = 16;
/// How many of one user's: `PLACES` are kept for those of others, whatever that user's commands do.
const MOST_OF_ONE: usize = MOST - PLACES;
/// How long a branch is looked at again that lacks the commit which a delivery says it has.
const BEHIND: Duration = Duration::from_secs(120);
/// How long a run asks again what others say of a commit, and the pauses.
const CHECKS: Duration = Duration::from_secs(180);
const CHECKS_NEW: Duration = Duration::from_secs(15 * 60);
const FIRST_LOOK: Duration = Duration::from_secs(5);
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// A repository to look at.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub repository: &'a Repository,
    /// The user whose the checkout is; none where that is not known yet.
    owner: Option<String>,
    reason: Reason,
    after: Option<String>,
    by: String,
    /// Since when the branch lacks the commit, and how long to wait between two looks.
    behind: Option<(Instant, Backoff)>,
    /// Since when what others say of the commit is waited for, and the same.
    checks: Option<(Instant, Backoff)>,
    not_before: Option<Instant>,
    /// Whether it waits until nothing else is at work: a run was cut off at it, and if that is its fault, no other job is to
    /// pay for it again.
    alone: bool,
    /// What an earlier look came to that was more than that nothing is new.
    earlier: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Due,
    Claimed,
    Asked,
}

impl<'a> Job<'a> {
    fn new(repository: &'a Repository, reason: Reason, by: String) -> Self {
        let (owner, after, behind, checks) = (None, None, None, None);
        Self { repository, owner, reason, after, by, behind, checks, not_before: None, alone: false, earlier: None }
    }

    /// Of a repository that was not looked at for long.
    pub fn due(repository: &'a Repository) -> Self {
        Self::new(repository, Reason::Due, "poll".to_owned())
    }

    /// Of a repository that a person asks for.
    pub fn asked(repository: &'a Repository) -> Self {
        Self::new(repository, Reason::Asked, command::caller())
    }

    /// Of a request.
    pub fn claimed(claim: Claim<'a>) -> Self {
        Self { after: claim.after, ..Self::new(claim.repository, Reason::Claimed, claim.by) }
    }

    fn is_due(&self) -> bool {
        self.reason == Reason::Due
    }
}

struct AtWork<'scope, 'a> {
    job: Job<'a>,
    since: Instant,
    is_busy: Arc<AtomicBool>,
    thread: ScopedJoinHandle<'scope, Option<Outcome>>,
}

impl AtWork<'_, '_> {
    /// When it has waited long for its remote, or for a command of its owner's; none where it is at work itself.
    fn slow_at(&self, slow: Duration) -> Option<Instant> {
        (!self.is_busy.load(Ordering::Relaxed)).then(|| self.since + slow)
    }
}

/// What brings more jobs, given which repositories are at work.
type More<'f, 'a> = &'f mut dyn FnMut(&dyn Fn(&Repository) -> bool) -> Result<Vec<Job<'a>>, Error>;
/// What becomes of a job that is done.
type Done<'f, 'a> = &'f mut dyn FnMut(Job<'a>, Outcome) -> Result<(), Error>;

/// The threads of a run.
pub(super) struct Crew<'a> {
    run: &'a Run<'a>,
    attempts: &'a Attempts,
    wake: Wake,
}

impl<'a> Crew<'a> {
    /// `queue` is watched: what comes meanwhile is worked on at once.
    pub fn new(run: &'a Run<'a>, attempts: &'a Attempts, queue: Option<&Folder>) -> Result<Self, Error> {
        let wake = Wake::new(queue).map_err(|error| Self::failed(run, error))?;
        Ok(Self { run, attempts, wake })
    }

    fn failed(run: &Run, source: std::io::Error) -> Error {
        state::Error::io("wait for what is queued in", run.store.folder.path(), source).into()
    }

    /// Works until there is nothing left.
    ///
    /// # Errors
    /// The first of `more` and `done`; what is at work is brought to its end, and nothing new is begun.
    pub fn work(&self, jobs: Vec<Job<'a>>, more: More<'_, 'a>, done: Done<'_, 'a>) -> Result<(), Error> {
        let (sender, ended) = mpsc::channel();
        std::thread::scope(|scope| {
            let mut waiting = jobs;
            waiting.iter_mut().for_each(|job| self.mark(job));
            let mut at_work: BTreeMap<&str, AtWork> = BTreeMap::new();
            let mut result = Ok(());
            loop {
                if result.is_ok() {
                    match more(&|repository| at_work.contains_key(repository.name.as_str())) {
                        // What is claimed takes the place of what waited for the same repository.
                        Ok(mut claimed) => {
                            claimed.iter_mut().for_each(|job| self.mark(job));
                            waiting.retain(|job| claimed.iter().all(|new| new.repository.name != job.repository.name));
                            waiting.splice(0..0, claimed);
                        }
                        Err(error) => result = Err(error),
                    }
                }
                if result.is_err() {
                    waiting.clear();
                }
                while let Some(place) = next(&waiting, &at_work) {
                    let job = waiting.remove(place);
                    let name = &job.repository.name;
                    match self.begin(scope, job, &sender) {
                        Ok(begun) => drop(at_work.insert(name, begun)),
                        Err(error) => {
                            result = result.and(Err(error));
                            waiting.clear();
                        }
                    }
                }
                if at_work.is_empty() && waiting.is_empty() {
                    return result;
                }
                if let Err(error) = self.wake.wait(next_look(&waiting, &at_work)) {
                    result = result.and(Err(Self::failed(self.run, error)));
                }
                while let Ok(name) = ended.try_recv() {
                    let Some(AtWork { job, thread, .. }) = at_work.remove(name) else { continue };
                    let outcome = thread.join().ok().flatten().unwrap_or_else(|| panicked(job.repository));
                    match again(job, outcome) {
                        Next::Again(job) => {
                            // A run that is stopped while it waits was not cut off at this repository.
                            self.attempts.end(job.repository);
                            waiting.push(job);
                        }
                        Next::Done(job, outcome) => result = result.and(done(job, *outcome)),
                    }
                }
            }
        })
    }

    fn mark(&self, job: &mut Job<'a>) {
        job.owner = self.run.store.owner(job.repository);
        job.alone = job.reason != Reason::Asked && self.attempts.cut_off(job.repository) > 0;
    }

    fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        job: Job<'a>,
        ended: &Sender<&'a str>,
    ) -> Result<AtWork<'scope, 'a>, Error>
    where
        'a: 'scope,
    {
        let (repository, reason, after, by) = (job.repository, job.reason, job.after.clone(), job.by.clone());
        if reason != Reason::Asked {
            self.attempts.begin(repository);
        }
        let is_busy = Arc::new(AtomicBool::new(false));
        let (busy, ended) = (Arc::clone(&is_busy), ended.clone());
        let thread = scoped_thread(scope, move || {
            let _bell = Bell { wake: &self.wake, name: &repository.name, ended };
            self.run.sync(Asked {
                repository,
                waits: reason != Reason::Asked,
                after: after.as_deref(),
                by: &by,
                tidies: reason == Reason::Due,
                place: Place { is_busy: &busy, wake: &self.wake },
            })
        });
        let thread = thread.map_err(|error| {
            // It was not begun, so it was not cut off.
            self.attempts.end(repository);
            Self::failed(self.run, error)
        })?;
        Ok(AtWork { job, since: Instant::now(), is_busy, thread })
    }
}

/// Says that a thread has ended, however it ended.
struct Bell<'scope, 'a> {
    wake: &'scope Wake,
    name: &'a str,
    ended: Sender<&'a str>,
}

impl Drop for Bell<'_, '_> {
    fn drop(&mut self) {
        // Where nobody listens any more, nobody waits either.
        let _ = self.ended.send(self.name);
        self.wake.ring();
    }
}

/// The place of the job that begins next; none where all have to wait. What is asked for comes before what is due, then those of
/// the user of whom the fewest are at work.
fn next(waiting: &[Job], at_work: &BTreeMap<&str, AtWork>) -> Option<usize> {
    let ready = waiting.iter().enumerate().filter(|(_, job)| !job.alone && may_begin(job, at_work));
    let first = ready.min_by_key(|(_, job)| (job.is_due(), of_owner(job, at_work))).map(|(place, _)| place);
    let others = waiting.iter().any(|job| !job.alone);
    first.or_else(|| {
        waiting.iter().position(|job| job.alone && may_begin(job, at_work)).filter(|_| at_work.is_empty() && !others)
    })
}

/// How many jobs of the same user are at work.
fn of_owner(job: &Job, at_work: &BTreeMap<&str, AtWork>) -> usize {
    at_work.values().filter(|work| work.job.owner == job.owner).count()
}

fn may_begin(job: &Job, at_work: &BTreeMap<&str, AtWork>) -> bool {
    let (slow, places) = if job.is_due() { (SLOW_FOR_DUE, PLACES - 1) } else { (SLOW, PLACES) };
    let now = Instant::now();
    let holds_place = |work: &&AtWork| work.slow_at(slow).is_none_or(|at| at > now);
    job.not_before.is_none_or(|at| at <= now)
        && !at_work.contains_key(job.repository.name.as_str())
        && at_work.len() < MOST
        && of_owner(job, at_work) < MOST_OF_ONE
        && at_work.values().filter(holds_place).count() < places
}

/// How long nothing can change by itself; none for ever.
fn next_look(waiting: &[Job], at_work: &BTreeMap<&str, AtWork>) -> Option<Duration> {
    let now = Instant::now();
    let begins = waiting.iter().filter_map(|job| job.not_before);
    let slow = if waiting.iter().all(Job::is_due) { SLOW_FOR_DUE } else { SLOW };
    let slows = at_work.values().filter(|_| !waiting.is_empty()).filter_map(|work| work.slow_at(slow));
    begins.chain(slows).filter(|at| *at > now).min().map(|at| at - now + Duration::from_millis(1))
}

enum Next<'a> {
    /// The branch lacks a commit that it should have soon, or others have not said their word on it.
    Again(Job<'a>),
    Done(Job<'a>, Box<Outcome>),
}

/// A delivery may come before the forge shows its commit to those who fetch; then the branch is looked at again.
fn again(mut job: Job<'_>, outcome: Outcome) -> Next<'_> {
    let is_new = outcome.status != Status::Unchanged;
    let told = |job: &mut Job, outcome| if is_new { outcome } else { job.earlier.take().unwrap_or(outcome) };
    // Most checks end within minutes, and the timer comes every five.
    if outcome.is_waiting_newly(CHECKS_NEW) && job.reason != Reason::Asked {
        let first = || (Instant::now(), Backoff::new(FIRST_LOOK, LONGEST_LOOK));
        let (since, mut backoff) = job.checks.take().unwrap_or_else(first);
        let wait = backoff.next_wait();
        if since.elapsed() + wait <= CHECKS {
            job.checks = Some((since, backoff));
            job.not_before = Some(Instant::now() + wait);
            return Next::Again(job);
        }
    }
    let Some(after) = job.after.clone().filter(|_| outcome.is_behind) else {
        let outcome = told(&mut job, outcome);
        return Next::Done(job, outcome.into());
    };
    let first = || (Instant::now(), Backoff::new(Duration::from_secs(1), Duration::from_secs(20)));
    let (since, mut backoff) = job.behind.take().unwrap_or_else(first);
    let wait = backoff.next_wait();
    if since.elapsed() + wait <= BEHIND {
        log::info!("looked_at_again", repo = outcome.repository, lacks = after, wait_s = wait.as_secs());
        job.behind = Some((since, backoff));
        job.not_before = Some(Instant::now() + wait);
        job.earlier = is_new.then_some(outcome).or(job.earlier);
        return Next::Again(job);
    }
    let reason = format!(
        "the remote did not show {after}, which a delivery told of, for {} s; the branch {} is at {}",
        since.elapsed().as_secs(),
        job.repository.branch,
        outcome.to.as_deref().unwrap_or("an unknown commit")
    );
    log::warn!("delivery_not_seen", repo = outcome.repository, reason = reason);
    let mut outcome = told(&mut job, outcome);
    outcome.reason = Some(outcome.reason.take().map_or_else(|| reason.clone(), |first| format!("{first}; {reason}")));
    Next::Done(job, outcome.into())
}

fn panicked(repository: &Repository) -> Outcome {
    let mut outcome = Outcome::new(&repository.name);
    outcome.status = Status::Failed;
    outcome.retry = true;
    outcome.reason = Some("gitops-sync has a bug: the thread of this repository panicked".to_owned());
    log::error!("failed", repo = repository.name, reason = outcome.reason);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_commit_that_does_not_show_is_waited_for_two_minutes_and_then_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hub.toml");
        std::fs::write(&file, "[[repository]]\nname = \"acme/infra\"\nurl = \"/srv/o.git\"\npath = \"/srv/infra\"\n")
            .unwrap();
        let config = Config::load(Some(&file)).unwrap();
        let behind = |status| Outcome { status, is_behind: true, ..Outcome::new("acme/infra") };
        let mut job =
            Job::claimed(Claim { repository: &config.repositories[0], after: Some("1".repeat(40)), by: String::new() });
        let mut waits = Vec::new();
        for status in [Status::Unchanged, Status::Deployed, Status::Unchanged] {
            let Next::Again(again) = again(job, behind(status)) else { panic!("given up at {status:?}") };
            waits.push(again.not_before.unwrap().saturating_duration_since(Instant::now()).as_secs_f64().round());
            job = again;
        }
        assert_eq!(waits, [1.0, 2.0, 4.0]);
        let (since, backoff) = job.behind.take().unwrap();
        job.behind = Some((since.checked_sub(BEHIND).unwrap(), backoff));
        let Next::Done(_, outcome) = again(job, behind(Status::Unchanged)) else { panic!("not given up") };
        // What was deployed meanwhile is what the record tells of.
        assert_eq!(outcome.status, Status::Deployed);
        let reason = outcome.reason.unwrap();
        assert!(reason.contains("did not show 1111") && reason.contains("the branch main is at"), "{reason}");
    }
}
