use std::time::{Duration, Instant};

use super::checkout::Checkout;
use super::guard::Reached;
use super::journal::{Entry, Step};
use super::lent::Lent;
use super::mirror::Mirror;
use super::plan::Plan;
use super::run::{End, Run};
use super::turn::Turn;
use super::units::{self, Applied, Before, Host, Manager};
use super::{Error, Outcome, Status, commands, guard, probe};
use crate::command;
use crate::config::Repository;
use crate::log;
use crate::records::short;
use crate::text;

impl Run<'_> {
    /// Applies a plan, and takes it back when a step fails.
    pub(super) fn deploy(&self, plan: &mut Plan, turn: &Turn, outcome: &mut Outcome) -> Result<End, Error> {
        let repository = plan.repository;
        probe::check(repository)?;
        let from = plan.look.head.clone();
        let from = from.as_deref();
        let before = before(plan)?;
        // Before anything changes: what does not answer now does not count.
        let changes_units = plan.units.as_ref().is_some_and(|(_, units)| !units.is_idle());
        let reached = if changes_units { self.reached(repository) } else { Reached::default() };
        self.describe(&plan.mirror, outcome);
        outcome.plan_file = self.write_plan(plan, outcome);
        let mut entry = self.journal.begin(repository, (from, &plan.to), before, self.goes_back)?;
        outcome.touched = true;
        let mut applied = Applied::new(&repository.name, outcome.from.as_deref(), Some(&plan.to));
        let result = self.apply(plan, &mut entry, &reached, &mut applied, turn, outcome);
        outcome.restarts.append(&mut applied.actions);
        outcome.noticed.append(&mut applied.noticed);
        let Err(error) = result else {
            // A live commit whose files somebody changed was confirmed before.
            if changes_units && repository.confirm_minutes > 0 && !plan.is_live() {
                return self.try_out(plan, entry, &applied);
            }
            return self.keep(plan, &applied, outcome).map(|()| (Status::Deployed, None));
        };
        log::error!("deployment_failed", repo = repository.name, commit = plan.to, error = error.to_string());
        if self.commands_manager().is_some_and(Manager::is_leaving) {
            // Not the commit's fault: jobs are refused and commands killed. The journal stays for the next run.
            let reason = format!("the host is shutting down; the deployment is begun anew at the next start ({error})");
            return Ok((Status::Failed, Some(reason)));
        }
        // A disk that is full stops neither the way back nor the word of it.
        self.journal.make_room();
        match error {
            // git refused the fast-forward before it touched anything.
            Error::Refused(_) | Error::InUse(_) if entry.step == Step::Checkout => {
                plan.checkout.take_back_way(&plan.yielding)?;
                self.journal.end(repository)?;
                return Err(error);
            }
            // Before anything else, so that the commit is not tried again whatever happens while it is taken back.
            Error::Step { .. } => self.mark_bad(repository, &plan.to, &error, false),
            // Units that do not verify; a live commit's are another matter, since the host has changed, not the commit.
            Error::Refused(_) if entry.step == Step::Verify && !plan.is_live() => {
                self.mark_bad(repository, &plan.to, &error, true);
            }
            // The only error after which a git that was killed may have left its locks.
            Error::Command(command::Error::Deadline { .. }) => {
                plan.checkout.remove_stale_locks(entry.branch(repository))?
            }
            _ => {}
        }
        let host = plan.units.as_ref().map(|(host, _)| host);
        if let Err(cause) = self.take_back(&plan.checkout, host, &entry, false, turn, outcome) {
            // The journal stays: the next run tries again to take it back.
            let back = from.map_or("nothing", short);
            return Ok((Status::RollbackFailed, Some(format!("{error}; going back to {back} failed too: {cause}"))));
        }
        let back = from.map_or_else(|| "an empty checkout".to_owned(), |from| short(from).to_owned());
        let end = match error {
            Error::Step { .. } => Ok((Status::RolledBack, Some(format!("{error}; back on {back}")))),
            Error::LockedOut(_) => {
                if let (Err(_), Some((host, before))) =
                    (self.guard(repository, &reached, Duration::ZERO), host.zip(entry.units.as_ref()))
                {
                    // No job of the deployment took them down, but what it started may have.
                    let mut back = Applied::new(&repository.name, Some(&entry.to), entry.from.as_deref());
                    if let Err(error) = host.start_stopped(before, &mut back) {
                        log::warn!("stopped_units_not_started", repo = repository.name, error = error.to_string());
                    }
                    outcome.restarts.append(&mut back.actions);
                }
                // Where it does not answer now either, something else is to blame.
                let is_to_blame = self.guard(repository, &reached, guard::PATIENCE_BACK).is_ok();
                let beside = if is_to_blame || self.store.is_suspect(repository, &plan.to) {
                    // Once may be chance, and a way back may be slow.
                    self.mark_bad(repository, &plan.to, &error, false);
                    if is_to_blame { "" } else { "; that happened with this commit before" }
                } else {
                    if let Err(error) = self.store.set_suspect(repository, &plan.to) {
                        log::error!("state_not_written", repo = repository.name, error = error.to_string());
                    }
                    "; that did not change it, so the commit is not to blame and is tried once more"
                };
                Ok((Status::RolledBack, Some(format!("{error}; back on {back}{beside}"))))
            }
            // The commit is not to blame when git could not apply it here.
            error => Err(error),
        };
        self.journal.end(repository)?;
        end
    }

    /// Remembers a commit that failed. Where that cannot be written the way back is taken all the same.
    pub(super) fn mark_bad(&self, repository: &Repository, commit: &str, reason: &Error, refused: bool) {
        if self.goes_back {
            // The mark is for the tip of the branch.
            return;
        }
        if let Err(error) = self.store.set_bad(repository, commit, &reason.to_string(), (refused, false)) {
            log::error!("state_not_written", repo = repository.name, error = error.to_string());
        }
    }

    fn apply(
        &self,
        plan: &mut Plan,
        entry: &mut Entry,
        reached: &Reached,
        applied: &mut Applied,
        turn: &Turn,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        if self.bring_code(plan, entry, turn)? {
            self.plan_again(plan, entry, outcome)?;
        }
        let (repository, checkout) = (plan.repository, &plan.checkout);
        let head = plan.look.head.as_deref();
        let live = plan.is_live();
        if let (Some((host, units)), Some(mut before)) = (&plan.units, entry.units.clone()) {
            if !units.is_idle() {
                self.journal.reach(repository, entry, Step::Verify)?;
                let warnings = host.validate(units, &repository.name)?;
                for warning in &warnings {
                    log::warn!("unit_warning", repo = repository.name, warning = warning);
                }
                applied.ignored = Some(units::ignored(&warnings, units));
            }
            if !units.is_idle() || !repository.restart.is_empty() {
                if !repository.build.is_empty() && !live {
                    // What happened while the build ran is not the deployment's.
                    host.look_before(&mut before)?;
                    entry.units = Some(before.clone());
                }
                self.journal.reach(repository, entry, Step::Units)?;
                let lent = match head {
                    Some(head) if plan.takes_code() && host.stops_some(units)? => checkout.lend(head, &plan.changes)?,
                    _ => Lent::default(),
                };
                let stopped = || checkout.take_away(lent);
                host.apply(units, &repository.restart, plan.code_changes(), &before, applied, stopped)?;
            }
        }
        if !repository.after.is_empty() && !live {
            let host = plan.units.as_ref().map(|(host, _)| host);
            let (done, seen) = turn.aside(|| self.own_step(plan, entry, Step::After), || host.map(Host::look))?;
            let mut noted = Ok(());
            if let (Some(host), Some(before), Some(Some(seen))) = (host, &entry.units, seen) {
                let newer = seen.and_then(|seen| host.before_others(before, &seen, &repository.name));
                noted = newer.map(|newer| entry.units = Some(newer));
            }
            done.and(noted)?;
        }
        self.probe(plan, entry, applied)?;
        self.guard(repository, reached, guard::PATIENCE)?;
        plan.units.as_ref().map_or(Ok(()), |(host, _)| host.stop_last(applied))
    }

    /// Brings the commit into the checkout and builds it; true where other repositories were deployed meanwhile.
    fn bring_code(&self, plan: &Plan, entry: &mut Entry, turn: &Turn) -> Result<bool, Error> {
        let (repository, checkout) = (plan.repository, &plan.checkout);
        let head = plan.look.head.as_deref();
        let mut has_passed = false;
        if head != Some(&plan.to) {
            // What it goes back to is there, but for a checkout that was made anew.
            let is_there = self.goes_back && checkout.has(&plan.to)?;
            let transfer = match plan.transfer.take() {
                _ if is_there => None,
                Some(transfer) => Some(transfer),
                None => Some(checkout.clear_incoming().and_then(|()| checkout.transfer(plan.mirror.pack()))?),
            };
            if plan.yielding.takes_built() {
                entry.restored = true;
                self.journal.reach(repository, entry, Step::Checkout)?;
            }
            let forward = || {
                if let Some(transfer) = transfer {
                    checkout.take_in(transfer, &Mirror::revisions(head, &plan.to))?;
                }
                checkout.give_way(&plan.yielding)?;
                if self.goes_back && head.is_some() {
                    checkout.go_back(&plan.to)
                } else {
                    checkout.fast_forward(&plan.look, &plan.to)
                }
            };
            let (moved, passed) = turn.aside(forward, || ())?;
            moved.map_err(|error| checkout.says_full(error))?;
            has_passed |= passed.is_some();
        }
        if !repository.build.is_empty() && !plan.is_live() {
            let (built, passed) = turn.aside(|| self.own_step(plan, entry, Step::Build), || ())?;
            built?;
            has_passed |= passed.is_some();
        }
        Ok(has_passed)
    }

    /// Compares the commit's units with the host once more, and takes down how that is now.
    fn plan_again(&self, plan: &mut Plan, entry: &mut Entry, outcome: &mut Outcome) -> Result<(), Error> {
        if plan.units.is_none() {
            return Ok(());
        }
        self.journal.reach(plan.repository, entry, Step::Verify)?;
        let planned = self.plan_units(plan.repository, &plan.mirror, &plan.to, outcome).and_then(|units| {
            plan.units = units;
            before(plan)
        });
        // Not for ever: the next look says it of the commit, if it still holds.
        entry.units = planned.map_err(|error| match error {
            Error::Refused(reason) | Error::Unfit { reason, .. } => {
                Error::InUse(format!("another repository was deployed meanwhile, and now: {reason}"))
            }
            other => other,
        })?;
        Ok(())
    }

    /// What has to hold at the end of the grace period: the moved units first, then the health URL.
    fn probe(&self, plan: &Plan, entry: &mut Entry, applied: &mut Applied) -> Result<(), Error> {
        let repository = plan.repository;
        if repository.health.url.is_none() && !applied.has_moved() {
            return Ok(());
        }
        self.journal.reach(repository, entry, Step::Health)?;
        let grace = Duration::from_secs(repository.health.grace_seconds);
        let started = Instant::now();
        if let (Some((host, units)), Some(before)) = (&plan.units, &entry.units) {
            host.watch(units, before, applied, grace)?;
        }
        probe::wait_healthy(repository, started + grace)
    }

    /// Makes a deployment that went well the last good one.
    fn keep(&self, plan: &Plan, applied: &Applied, outcome: &Outcome) -> Result<(), Error> {
        self.make_durable(plan, applied)?;
        self.store.add_own(&applied.own)?;
        let ignored = self.ignored(plan, applied)?;
        self.store.set_deployed(plan.repository, &plan.to, ignored, self.goes_back)?;
        if plan.deployed.as_ref() != Some(&plan.to) {
            self.note_live(&plan.mirror, (&plan.to, &log::now()), Some(outcome), self.goes_back);
        }
        self.journal.close(plan.repository)?;
        Ok(())
    }

    /// Makes durable what a deployment has made, and records its units.
    pub(super) fn make_durable(&self, plan: &Plan, applied: &Applied) -> Result<(), Error> {
        let repository = plan.repository;
        let forwarded = plan.look.head.as_ref() != Some(&plan.to);
        // A fast-forward is on disk already; what commands made, or somebody else's commit, may not be.
        if !forwarded || !repository.build.is_empty() || !repository.after.is_empty() {
            plan.checkout.folder()?.sync_file_system()?;
        }
        if let Some((host, units)) = &plan.units {
            if !units.is_idle() {
                host.sync()?;
            }
            host.record(units, Some(applied))?;
        }
        Ok(())
    }

    /// What systemd ignores in the units of the commit.
    pub(super) fn ignored(&self, plan: &Plan, applied: &Applied) -> Result<Vec<String>, Error> {
        Ok(match (&applied.ignored, &plan.units) {
            (Some(ignored), _) => text::first_lines(ignored),
            // The same files as before.
            (None, Some(_)) => {
                self.store.deployed(plan.repository)?.map(|deployed| deployed.ignored).unwrap_or_default()
            }
            (None, None) => Vec::new(),
        })
    }

    fn own_step(&self, plan: &Plan, entry: &mut Entry, step: Step) -> Result<(), Error> {
        let (repository, checkout) = (plan.repository, &plan.checkout);
        entry.local = checkout.persons(&self.store.built(repository))?;
        self.journal.reach(repository, entry, step)?;
        self.command(repository, checkout, step, &plan.to, entry.local.as_deref())
    }

    /// Runs one of the repository's own commands and remembers what it left in files that were no person's before.
    pub(super) fn command(
        &self,
        repository: &Repository,
        checkout: &Checkout,
        step: Step,
        commit: &str,
        persons: Option<&[String]>,
    ) -> Result<(), Error> {
        let result = commands::run(self.config, repository, checkout, self.commands_manager(), step, commit);
        self.note_built(repository, checkout, persons);
        result
    }

    /// Remembers how a command left files. Where that fails, or nobody knows whose they were, they count as a person's.
    pub(super) fn note_built(&self, repository: &Repository, checkout: &Checkout, persons: Option<&[String]>) {
        let mut known = self.store.built(repository);
        let built = persons.map_or_else(|| Ok(Vec::new()), |persons| checkout.built(persons));
        let noted = built.and_then(|built| {
            let is_new = |path: &str| !known.iter().any(|known| known.is_tracked() && known.path == path);
            let tracked = built.iter().filter(|found| found.is_tracked()).map(|found| found.path.as_str());
            let new: Vec<&str> = tracked.filter(|path| is_new(path)).take(5).collect();
            if !new.is_empty() {
                let note = "put back before the next fast-forward; let build and after write files that git ignores";
                log::warn!("commands_changed_tracked_files", repo = repository.name, files = new, note = note);
            }
            // What another step wrote, or an earlier run, stands as it was then or is not taken for built.
            known.retain(|known| !built.iter().any(|found| found.path == known.path));
            known.extend(built);
            self.store.set_built(repository, known).map_err(Into::into)
        });
        if let Err(error) = noted {
            log::warn!("built_files_not_noted", repo = repository.name, error = error.to_string());
        }
    }
}

/// How the host is before the units of a plan are touched; none where there are none.
fn before(plan: &Plan) -> Result<Option<Before>, Error> {
    let Some((host, units)) = &plan.units else { return Ok(None) };
    let concerned = plan.repository.restart.iter().filter(|rule| rule.matching(plan.code_changes()).is_some());
    let others: Vec<String> = concerned.flat_map(|rule| rule.units.clone()).collect();
    host.before(units, &plan.repository.name, &others).map(Some)
}
