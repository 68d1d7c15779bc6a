//! Back to a commit that was live before, at once: through the same plan, journal and probe as a deployment, without a word to
//! the remote. The repository is on hold then, so that the branch does not undo it.
//!
//! The right to change the host is all that is waited for. Where another run fetches for the repository meanwhile, it sees the
//! hold, or the other commit, before it changes anything.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::json;

use super::checkout::Checkout;
use super::plan::Fetched;
use super::run::{self, End, Request, Run};
use super::turn::{Place, Turn};
use super::wake::Wake;
use super::{Error, Outcome, Status, describe, worker};
use crate::command;
use crate::config::{Config, Repository};
use crate::hint::hint;
use crate::log;
use crate::program::Exit;
use crate::records::history::{Event, Kind};
use crate::records::versions::{Unfound, Versions};
use crate::records::{Hold, short};

/// What became of a wish to go back.
#[derive(Debug)]
pub struct WentBack {
    /// gitops-sync's exit code for it.
    pub exit: Exit,
    /// What was live before.
    pub from: Option<String>,
    /// What is to be live.
    pub to: Option<String>,
    /// What the branch still has, and is to revert.
    pub went_back_from: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Why it was not done, or what is to be known of it.
    pub reason: Option<String>,
    /// What would be done, or what was done to units, a line each.
    pub lines: Vec<String>,
    /// All of it, as the run record has it.
    pub record: serde_json::Value,
}

/// How to go back.
#[derive(Clone, Copy, Debug)]
pub struct Back<'a> {
    /// The beginning of a commit's name; none for what was live before.
    pub commit: Option<&'a str>,
    /// Show what would be done and change nothing.
    pub dry_run: bool,
    /// Units go to the caller's own manager.
    pub user_units: bool,
}

/// Goes back with a repository.
///
/// # Errors
/// When the state folder cannot be used. Whatever becomes of the repository is no error.
pub fn rollback(config: &Config, repository: &Repository, back: Back) -> Result<WentBack, Error> {
    let gitops = run::folder(config)?;
    let (started, clock) = (log::now(), Instant::now());
    let (dry_run, user_units) = (back.dry_run, back.user_units);
    // What was live once may be so again, whatever it takes away.
    let request = Request { names: Vec::new(), dry_run, adopt: Vec::new(), remove_all: true, user_units };
    let run = Run { goes_back: true, ..Run::open(config, &gitops, &request)? };
    let mut outcome = Outcome::new(&repository.name);
    outcome.by = Some(command::caller());
    let end = run.go_back(repository, back, &mut outcome);
    if let Err(Error::Busy) = end {
        return Err(Error::Busy);
    }
    run.end(repository, end, clock, &mut outcome);
    if let (Status::Deployed | Status::Unchanged, Some(to)) = (outcome.status, &outcome.to) {
        run.tell_hold(repository, &outcome, to);
    }
    let mut exit = outcome.status.exit();
    if outcome.touched {
        let written = worker::write_record(&run, &gitops, started, clock, std::slice::from_ref(&outcome), None);
        worker::look_after_own_units(&run, false)?;
        // What became of the repository says more.
        exit = if exit == Exit::Done && written.is_err() { Exit::Error } else { exit };
    }
    let mut lines = std::mem::take(&mut outcome.plan);
    lines.extend(outcome.units.iter().map(|line| format!("{} {}: {}", line.action.word(), line.file, line.reason)));
    lines.extend(outcome.restarts.iter().map(|done| format!("{} {}: {}", done.action, done.unit, done.reason)));
    Ok(WentBack {
        exit,
        record: json!(outcome),
        from: outcome.from,
        to: outcome.to,
        went_back_from: outcome.went_back_from,
        subject: outcome.about.map(|about| about.subject),
        reason: outcome.reason,
        lines,
    })
}

impl Run<'_> {
    fn go_back(&self, repository: &Repository, back: Back, outcome: &mut Outcome) -> Result<End, Error> {
        let held = match self.locks.attempt()? {
            Some(held) => held,
            None => {
                log::info!("waits", repo = repository.name, reason = "another deployment is at work; it is waited for");
                self.locks.apply()?
            }
        };
        // Whoever has it fetches, or has passed on the right to change the host.
        let own = self.locks.repository(&repository.name, false)?;
        if own.is_none() && self.is_interrupted(repository)? {
            log::error!("busy", repo = repository.name, reason = "a deployment of it is at work");
            return Err(Error::Busy);
        }
        let (is_busy, wake) = (AtomicBool::new(true), Wake::new(None).map_err(|error| self.no_wake(error))?);
        let place = Place { is_busy: &is_busy, wake: &wake };
        let turn = Turn::of(&self.locks, place, &repository.name, held, own.is_some());
        if self.store.has_former(repository)? {
            if self.dry_run {
                let reason = "the next run takes over what is kept under its former name".to_owned();
                return Ok((Status::Planned, Some(reason)));
            }
            self.store.take_over(repository)?;
        }
        if let Some(end) = self.end_whatever_is_open(repository, &turn, outcome)? {
            return Ok(end);
        }
        let mirror = self.mirror(repository)?;
        self.note_missing(repository, &mirror)?;
        let deployed = self.store.deployed(repository)?.map(|deployed| deployed.commit);
        outcome.from.clone_from(&deployed);
        let to = choose(repository, &self.store.versions(repository), deployed.as_deref(), back.commit)?;
        outcome.to = Some(to.clone());
        if !mirror.has(&to)? {
            return Err(Error::Refused(format!(
                "the mirror of {} does not have {} any more: it was made anew, and the branch has been rewritten since",
                repository.name,
                short(&to)
            )));
        }
        self.describe(&mirror, outcome);
        // Whoever signed it may not be trusted any more.
        mirror.verify(None, &to)?;
        let checkout = Checkout::find(self.config, repository)?;
        let began = Instant::now();
        let fetched = Fetched { mirror, checkout, began, look: None, transfer: None, deployed, to: to.clone() };
        let mut plan = self.plan(repository, fetched, outcome)?;
        if self.dry_run {
            outcome.plan = describe::plan(&plan, outcome.not_deployed.as_deref())?;
            return Ok((Status::Planned, None));
        }
        let earlier = self.store.hold(repository)?;
        self.hold_for(repository, outcome, &to, earlier.as_ref())?;
        let end = if plan.is_idle() { Ok((Status::Unchanged, None)) } else { self.deploy(&mut plan, &turn, outcome) };
        let is_back = matches!(end, Ok((Status::Deployed | Status::Unchanged, _)));
        if is_back {
            outcome.left_out = self.left_out(&plan);
        } else if !matches!(end, Ok((Status::RollbackFailed, _))) {
            // Everything is as it was.
            match earlier {
                Some(earlier) => self.store.set_hold(repository, &earlier)?,
                None => self.store.forget_hold(repository)?,
            }
        }
        end
    }

    /// Takes back what was cut off, and what is on trial: who goes back does not confirm it.
    fn end_whatever_is_open(
        &self,
        repository: &Repository,
        turn: &Turn,
        outcome: &mut Outcome,
    ) -> Result<Option<End>, Error> {
        let Some(entry) = self.journal.interrupted(repository)? else { return Ok(None) };
        if self.dry_run {
            let reason =
                format!("the deployment of {} is not at its end; it would be taken back first", short(&entry.to));
            return Ok(Some((Status::Planned, Some(reason))));
        }
        outcome.touched = true;
        self.end_entry(repository, &entry, "the deployment", turn, outcome)
    }

    /// Suspends deployments before anything changes: a run that is cut off then leaves the branch alone.
    fn hold_for(
        &self,
        repository: &Repository,
        outcome: &mut Outcome,
        to: &str,
        earlier: Option<&Hold>,
    ) -> Result<(), Error> {
        let by = outcome.by.clone().unwrap_or_default();
        // The branch is to lose all that was gone back from, not the last step only.
        let first = earlier.and_then(|hold| hold.went_back_from.as_deref()).filter(|first| *first != to);
        let went_back_from = first.or(left_behind(outcome, to)).map(str::to_owned);
        let hold = Hold { since: log::now(), by, reason: Some(hold_reason(outcome, to)), went_back_from };
        outcome.went_back_from.clone_from(&hold.went_back_from);
        self.store.set_hold(repository, &hold).map_err(Into::into)
    }

    fn tell_hold(&self, repository: &Repository, outcome: &Outcome, to: &str) {
        let event = Event::new(Kind::Held, &repository.name, Status::Held.word());
        let event = event.because(Some(hold_reason(outcome, to))).with("by", &outcome.by);
        event.append(&self.store.folder);
    }

    fn no_wake(&self, source: std::io::Error) -> Error {
        crate::state::Error::io("wait in", self.store.folder.path(), source).into()
    }
}

/// The commit that is gone back from; none where another one was not live.
fn left_behind<'a>(outcome: &'a Outcome, to: &str) -> Option<&'a str> {
    outcome.from.as_deref().filter(|from| *from != to)
}

fn hold_reason(outcome: &Outcome, to: &str) -> String {
    match left_behind(outcome, to) {
        Some(from) => format!("hub rollback from {} to {}", short(from), short(to)),
        None => format!("hub rollback to {}", short(to)),
    }
}

fn choose(repository: &Repository, all: &Versions, live: Option<&str>, wanted: Option<&str>) -> Result<String, Error> {
    let name = &repository.name;
    let list = format!("{} lists what was", hint("hub", &format!("versions {name}")));
    let Some(wanted) = wanted else {
        let before = live.and_then(|live| all.before(live));
        return before.map(|version| version.commit.clone()).ok_or_else(|| {
            let live = live.map_or_else(String::new, |live| format!(" before {}", short(live)));
            Error::Refused(format!("nothing of {name} was deployed{live} that it could go back to; {list}"))
        });
    };
    all.find(wanted).map(|version| version.commit.clone()).map_err(|unfound| {
        let wanted = crate::text::shown(wanted);
        Error::Refused(match unfound {
            Unfound::NoName => {
                format!("{wanted} is not the name of a commit; write four of its digits at least; {list}")
            }
            Unfound::Never => format!("{wanted} was not deployed here, or is not among the last 50; {list}"),
            Unfound::Several => format!("{wanted} stands for several commits; write more of it; {list}"),
        })
    })
}
