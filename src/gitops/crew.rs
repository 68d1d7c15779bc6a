//! Looks at repositories side by side, a thread each, so that a remote that does not answer holds up nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::attempts::Attempts;
use super::job::{Job, Next, Reason, again};
use super::run::{Asked, Run};
use super::turn::Place;
use super::wake::Wake;
use super::{Error, Outcome, Status};
use crate::command::scoped_thread;
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

fn panicked(repository: &Repository) -> Outcome {
    let mut outcome = Outcome::new(&repository.name);
    outcome.status = Status::Failed;
    outcome.retry = true;
    outcome.reason = Some("gitops-sync has a bug: the thread of this repository panicked".to_owned());
    log::error!("failed", repo = repository.name, reason = outcome.reason);
    outcome
}
