use std::time::Instant;

use super::checkout::Checkout;
use super::journal::Entry;
use super::run::{Asked, End, Run};
use super::turn::Turn;
use super::{Error, Outcome, Status, describe};
use crate::config::Repository;
use crate::hint::hint;
use crate::log;
use crate::program::Exit;
use crate::records::short;
use crate::text;

impl Run<'_> {
    /// Brings one repository in sync: fetch, verify, look, plan, journal, apply, probe, record or roll back.
    pub fn sync(&self, asked: Asked) -> Outcome {
        let mut outcome = Outcome::new(&asked.repository.name);
        outcome.by = Some(asked.by.to_owned());
        match self.locks.repository(&asked.repository.name, asked.waits) {
            Ok(Some(_lock)) => {
                self.work(asked, &mut outcome);
                if outcome.status.exit() == Exit::Done && (asked.tidies || outcome.is_untidy) {
                    self.tidy(asked.repository);
                }
            }
            Ok(None) => {
                outcome.status = Status::Busy;
                outcome.reason = Some(Error::Busy.to_string());
                log::warn!("busy", repo = asked.repository.name, reason = outcome.reason);
            }
            Err(error) => {
                outcome.reason = Some(error.to_string());
                outcome.retry = true;
                log::error!("failed", repo = asked.repository.name, reason = outcome.reason);
            }
        }
        outcome
    }

    fn work(&self, asked: Asked, outcome: &mut Outcome) {
        let started = Instant::now();
        let end = self.attempt(asked, outcome);
        self.end(asked.repository, end, started, outcome);
    }

    /// Writes down how a look ended that began at `started`.
    pub(super) fn end(
        &self,
        repository: &Repository,
        end: Result<End, Error>,
        started: Instant,
        outcome: &mut Outcome,
    ) {
        match end {
            Ok((status, reason)) => {
                outcome.status = status;
                outcome.reason = reason;
            }
            Err(error) => {
                let refused = matches!(error, Error::Refused(_) | Error::Unfit { .. });
                outcome.status = if refused { Status::Refused } else { Status::Failed };
                outcome.retry = outcome.status == Status::Failed;
                outcome.reason = Some(error.to_string());
            }
        }
        outcome.duration_ms = started.elapsed().as_millis() as u64;
        self.conclude(repository, outcome);
    }

    fn conclude(&self, repository: &Repository, outcome: &mut Outcome) {
        let word = outcome.status.word();
        outcome.reason = outcome.reason.take().map(|reason| text::cut(&reason, text::LONGEST_REASON).into_owned());
        if !matches!(outcome.status, Status::Deployed | Status::Unchanged) {
            outcome.left_out = self.store.left_out(repository);
        }
        let before = self.store.checked(repository);
        if outcome.status == Status::Failed && outcome.waiting.is_none() {
            // A remote that is away for a moment does not begin the time anew.
            outcome.waiting = before.as_ref().and_then(|before| before.waiting.clone());
        }
        // Who cannot go back has changed nothing of what is known of the branch.
        let is_written = !self.dry_run && (outcome.touched || !self.goes_back);
        if is_written && let Err(error) = self.store.set_checked(repository, outcome) {
            log::error!("state_not_written", repo = repository.name, error = error.to_string());
            if outcome.status.exit() == Exit::Done {
                outcome.status = Status::Failed;
                outcome.reason = Some(error.to_string());
            }
        }
        let is_open = matches!(outcome.status, Status::Refused | Status::Failed) && is_written;
        log::line!(
            if outcome.status.exit() == Exit::Done { log::Level::Info } else { log::Level::Error },
            word,
            repo = repository.name,
            from = outcome.from,
            to = outcome.to,
            reason = outcome.reason,
            units = outcome.not_deployed.as_ref().map(|reason| format!("not deployed: {reason}")),
            left_out = outcome.left_out.as_ref().map(|missing| &missing.said),
            look_again = is_open.then(|| hint("hub", &format!("deploy {}", repository.name))),
            duration_ms = outcome.duration_ms,
        );
        if is_written {
            self.tell(outcome, before.as_ref());
        }
    }

    /// What a look at the repository came to, and why; what it found on the way is noted in `outcome`.
    fn attempt(&self, asked: Asked, outcome: &mut Outcome) -> Result<End, Error> {
        let repository = asked.repository;
        if self.dry_run && self.store.has_former(repository)? {
            let reason =
                format!("the next run takes over what is kept under its former name, then deploys {}", repository.name);
            return Ok((Status::Planned, Some(reason)));
        }
        if self.store.has_former(repository)? {
            let _applying = self.locks.apply()?;
            self.store.take_over(repository)?;
        }
        if self.is_interrupted(repository)? {
            let turn = Turn::wait(&self.locks, asked.place, &repository.name)?;
            if let Some(end) = self.end_of_interrupted(repository, &turn, outcome)? {
                return Ok(end);
            }
        }
        if let Some(end) = self.hold(repository)? {
            return Ok(end);
        }
        let fetched = self.fetch(repository, outcome);
        asked.place.set_busy(true);
        if let Err(Error::Unfit { commit: Some(commit), reason }) = &fetched
            && !self.dry_run
        {
            self.store.set_bad(repository, commit, reason, (true, true))?;
        }
        let fetched = fetched?;
        let is_new = fetched.deployed.as_ref() != Some(&fetched.to);
        if is_new {
            self.describe(&fetched.mirror, outcome);
        }
        self.note_missing(repository, &fetched.mirror)?;
        outcome.is_untidy = fetched.mirror.is_untidy();
        // Of a commit that could not be fetched the mirror knows nothing.
        let has = |after: &str| after == fetched.to || fetched.mirror.is_ancestor(after, &fetched.to).unwrap_or(false);
        outcome.is_behind = asked.after.is_some_and(|after| !has(after));
        if let Some(end) = self.failed_before(repository, &fetched.to)? {
            return Ok(end);
        }
        self.follows(repository, &fetched)?;
        if is_new {
            fetched.mirror.verify(fetched.deployed.as_deref(), &fetched.to)?;
            if let Some(end) = self.wait_for_checks(repository, &fetched.to, asked.place, outcome)? {
                return Ok(end);
            }
        }
        let turn = Turn::wait(&self.locks, asked.place, &repository.name)?;
        // While the remote was asked, somebody may have suspended the repository, or gone back to an older commit.
        if let Some(end) = self.end_of_interrupted(repository, &turn, outcome)? {
            return Ok(end);
        }
        if let Some(end) = self.hold(repository)? {
            return Ok(end);
        }
        if self.store.deployed(repository)?.map(|deployed| deployed.commit) != fetched.deployed {
            return Err(Error::InUse("another commit was made live meanwhile; this one is looked at again".to_owned()));
        }
        // The checkout's user says how long this takes.
        let (plan, passed) = turn.aside(|| self.plan(repository, fetched, outcome), || ())?;
        let mut plan = plan?;
        if passed.is_some() {
            let path = repository.path.display();
            return Err(Error::Slow(format!(
                "the checkout {path} took so long to look at that others were deployed meanwhile"
            )));
        }
        if outcome.from.is_none() {
            outcome.from.clone_from(&plan.look.head);
        }
        if plan.is_idle() {
            if let (false, Some((host, units))) = (self.dry_run, &plan.units) {
                host.record(units, None)?;
            }
            drop(turn);
            outcome.left_out = self.left_out(&plan);
            return Ok((Status::Unchanged, None));
        }
        if self.dry_run {
            outcome.plan = describe::plan(&plan, outcome.not_deployed.as_deref())?;
            return Ok((Status::Planned, None));
        }
        let end = self.deploy(&mut plan, &turn, outcome)?;
        drop(turn);
        if end.0 == Status::Deployed {
            outcome.left_out = self.left_out(&plan);
        }
        Ok(end)
    }

    /// Takes back a deployment that was interrupted; an end where that failed, or where a dry run may not do it.
    fn end_of_interrupted(
        &self,
        repository: &Repository,
        turn: &Turn,
        outcome: &mut Outcome,
    ) -> Result<Option<End>, Error> {
        let Some(entry) = self.journal.interrupted(repository)? else { return Ok(None) };
        if let Some(until) = entry.trial() {
            return self.end_of_trial(repository, &entry, until, turn, outcome);
        }
        let to = short(&entry.to);
        if self.dry_run {
            let reason = format!("the deployment of {to} was interrupted; the next run undoes it first");
            return Ok(Some((Status::Planned, Some(reason))));
        }
        self.end_entry(repository, &entry, "the interrupted deployment", turn, outcome)
    }

    /// Takes back what the journal has, and tells it; an end where that failed. `what` it is, for the sentence.
    pub(super) fn end_entry(
        &self,
        repository: &Repository,
        entry: &Entry,
        what: &str,
        turn: &Turn,
        outcome: &mut Outcome,
    ) -> Result<Option<End>, Error> {
        match self.recover(repository, entry, turn, outcome) {
            Ok(end) => {
                self.tell_cut_off(entry, end);
                // It has put back units as they were owned then.
                self.store.take_over(repository)?;
                Ok(None)
            }
            Err(error) => {
                let back = entry.from.as_deref().map_or("nothing", short);
                let reason = format!("{what} of {} cannot be taken back to {back}: {error}", short(&entry.to));
                Ok(Some((Status::RollbackFailed, Some(reason))))
            }
        }
    }

    /// The end of a repository that somebody holds.
    fn hold(&self, repository: &Repository) -> Result<Option<End>, Error> {
        let Some(hold) = self.store.hold(repository)? else { return Ok(None) };
        let why = hold.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        let resume = format!("{} resumes", hint("hub", &format!("release {}", repository.name)));
        Ok(Some((Status::Held, Some(format!("held by {}{why}; {resume}", hold.told())))))
    }

    /// The end of a commit that failed before.
    fn failed_before(&self, repository: &Repository, to: &str) -> Result<Option<End>, Error> {
        let Some(bad) = self.store.bad(repository)?.filter(|bad| bad.commit == to) else { return Ok(None) };
        let reason = format!(
            "{} failed at {} ({}) and is not tried again until the branch moves, or: {}",
            short(to),
            bad.at,
            bad.reason,
            hint("hub", &format!("retry {}", repository.name))
        );
        if bad.refused {
            return Err(Error::Refused(reason));
        }
        Ok(Some((Status::RolledBack, Some(reason))))
    }

    /// Lets git tidy mirror and checkout; for runs that nobody waits for.
    pub fn tidy(&self, repository: &Repository) {
        let tidied = self
            .mirror(repository)
            .and_then(|mirror| mirror.tidy())
            .and_then(|()| Checkout::find(self.config, repository))
            .and_then(|checkout| if checkout.is_missing() { Ok(()) } else { checkout.tidy() });
        if let Err(error) = tidied {
            log::warn!("tidying_failed", repo = repository.name, error = error.to_string());
        }
    }
}
