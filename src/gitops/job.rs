//! A repository that a run looks at: who asks for it, and whether it is looked at again.

use std::time::{Duration, Instant};

use super::claim::Claim;
use super::{Outcome, Status};
use crate::command::{self, Backoff};
use crate::config::Repository;
use crate::log;

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
    pub owner: Option<String>,
    pub reason: Reason,
    pub after: Option<String>,
    pub by: String,
    /// Since when the branch lacks the commit, and how long to wait between two looks.
    behind: Option<(Instant, Backoff)>,
    /// Since when what others say of the commit is waited for, and the same.
    checks: Option<(Instant, Backoff)>,
    pub not_before: Option<Instant>,
    /// Whether it waits until nothing else is at work: a run was cut off at it, and if that is its fault, no other job is to
    /// pay for it again.
    pub alone: bool,
    /// What an earlier look came to that was more than that nothing is new.
    earlier: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
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

    pub fn is_due(&self) -> bool {
        self.reason == Reason::Due
    }
}

pub(super) enum Next<'a> {
    /// The branch lacks a commit that it should have soon, or others have not said their word on it.
    Again(Job<'a>),
    Done(Job<'a>, Box<Outcome>),
}

/// A delivery may come before the forge shows its commit to those who fetch; then the branch is looked at again.
pub(super) fn again(mut job: Job<'_>, outcome: Outcome) -> Next<'_> {
    let is_new = outcome.status != Status::Unchanged;
    let told = |job: &mut Job, outcome| if is_new { outcome } else { job.earlier.take().unwrap_or(outcome) };
    // Most checks end within minutes, and the timer comes every five.
    if outcome.is_waiting_newly(CHECKS_NEW)
        && job.reason != Reason::Asked
        && let Some(wait) = next_look(&mut job.checks, (FIRST_LOOK, LONGEST_LOOK), CHECKS)
    {
        job.not_before = Some(Instant::now() + wait);
        return Next::Again(job);
    }
    let Some(after) = job.after.clone().filter(|_| outcome.is_behind) else {
        let outcome = told(&mut job, outcome);
        return Next::Done(job, outcome.into());
    };
    let since = job.behind.as_ref().map_or_else(Instant::now, |(since, _)| *since);
    if let Some(wait) = next_look(&mut job.behind, (Duration::from_secs(1), Duration::from_secs(20)), BEHIND) {
        log::info!("looked_at_again", repo = outcome.repository, lacks = after, wait_s = wait.as_secs());
        job.not_before = Some(Instant::now() + wait);
        job.earlier = is_new.then_some(outcome).or(job.earlier);
        return Next::Again(job);
    }
    let reason = format!(
        "the remote did not show {after}, which a delivery named, for {} s; the branch {} is at {}",
        since.elapsed().as_secs(),
        job.repository.branch,
        outcome.to.as_deref().unwrap_or("an unknown commit")
    );
    log::warn!("delivery_not_seen", repo = outcome.repository, reason = reason);
    let mut outcome = told(&mut job, outcome);
    outcome.reason = Some(outcome.reason.take().map_or_else(|| reason.clone(), |first| format!("{first}; {reason}")));
    Next::Done(job, outcome.into())
}

/// How long to wait until the next look, with the pauses from the first to the longest; none when `limit` is over.
fn next_look(
    looks: &mut Option<(Instant, Backoff)>,
    (first, longest): (Duration, Duration),
    limit: Duration,
) -> Option<Duration> {
    let (since, mut backoff) = looks.take().unwrap_or_else(|| (Instant::now(), Backoff::new(first, longest)));
    let wait = backoff.next_wait();
    if since.elapsed() + wait > limit {
        return None;
    }
    *looks = Some((since, backoff));
    Some(wait)
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
