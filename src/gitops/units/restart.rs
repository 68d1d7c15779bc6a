use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::applied::Applied;
use super::manager::Snapshot;
use super::plan::Action;
use super::reach::{Job, ended_by, is_left_out, reach};
use super::restore::Before;
use super::state::UnitState;
use super::unit_name::{is_template, is_worker, unit_of};
use super::{Host, Plan};
use crate::config::RestartRule;
use crate::gitops::Error;
use crate::gitops::git::Change;

/// A running unit that is to take up a change.
#[derive(Clone, Debug)]
pub(super) struct Stale {
    pub unit: String,
    pub reason: String,
    pub file: String,
}

/// What is done with the units that a deployment concerns, by kind.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Sockets, each with the running services that it starts: it does not start under one of them.
    sockets: Vec<(Stale, Vec<String>)>,
    /// New ones that others may need without saying so.
    first: Vec<Stale>,
    reload: Vec<Stale>,
    stop: Vec<Stale>,
    restart: Vec<Stale>,
    start: Vec<Stale>,
}

impl Host {
    /// What a plan's files and the repository's rules concern, and was active before, each unit once.
    pub(super) fn stale(
        &self,
        plan: &Plan,
        rules: &[RestartRule],
        changes: &[Change],
        before: &Before,
    ) -> Result<Vec<Stale>, Error> {
        let mut stale = Vec::new();
        for line in plan.acting().filter(|line| line.stale) {
            let unit = unit_of(&line.file);
            // A packaged unit comes to light where the one that stood over it goes.
            if plan.may_restart(unit) || line.action == Action::Remove && self.is_packaged(unit) {
                for unit in self.units_of(unit)? {
                    let reason = format!("{} changed ({})", line.file, line.reason);
                    stale.push(Stale { unit, reason, file: line.file.clone() });
                }
            }
        }
        for rule in rules {
            let Some(file) = rule.matching(changes) else { continue };
            for unit in rule.units.iter().filter(|unit| plan.may_restart(unit)) {
                for unit in self.units_of(unit)? {
                    stale.push(Stale { unit, reason: format!("{file} changed"), file: file.clone() });
                }
            }
        }
        let mut seen = BTreeSet::new();
        stale.retain(|one| before.was_active(&one.unit) && seen.insert(one.unit.clone()));
        Ok(stale)
    }

    /// A unit, or the instances of a template that are not inactive.
    pub(super) fn units_of(&self, unit: &str) -> Result<Vec<String>, Error> {
        if is_template(unit) { Ok(self.manager.instances(unit)?) } else { Ok(vec![unit.to_owned()]) }
    }

    /// Starts what is new, restarts what is stale, and takes down in `applied` what that can have moved.
    pub(super) fn run_jobs(
        &self,
        plan: &Plan,
        new: &[String],
        stale: Vec<Stale>,
        before: &Before,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let asked = new.iter().chain(stale.iter().map(|one| &one.unit));
        let mut look = self.manager.snapshot(asked.chain(before.active()))?;
        let work = self.sort(plan, new, stale, before, &look, applied);
        applied.moved = self.reach_all(&applied.jobs, &mut look, &before.world)?;
        self.spare_hub(plan, &mut look, applied)?;
        let looks = [&look, &before.world];
        self.work(work, &looks, applied)?;
        self.settle(plan, before, &looks, applied)
    }

    /// Refuses units by which the hub's own would go down, before any of them starts: nobody would be left to take it back.
    fn spare_hub(&self, plan: &Plan, look: &mut Snapshot, applied: &Applied) -> Result<(), Error> {
        if plan.is_own() || plan.desired.files.is_empty() {
            return Ok(());
        }
        let started = applied.moved.iter().filter(|(_, job)| job.start).map(|(unit, _)| unit);
        let units: BTreeSet<String> =
            plan.desired.files.keys().map(|file| unit_of(file).to_owned()).chain(started.cloned()).collect();
        let unseen: Vec<&String> =
            units.iter().filter(|unit| !is_template(unit) && !look.units.contains_key(*unit)).collect();
        look.units.extend(self.manager.show(unseen)?);
        for unit in &units {
            if let Some(own) = ended_by(unit, look).into_iter().find(|ended| self.is_own(ended)) {
                let reason = format!(
                    "{unit} takes {own} down, a unit of the hub itself (Conflicts=, PropagatesStopTo=, RequiredBy= or the like); \
                     take that out of it, or write own = true for the repository in hub.toml if it may stop the hub"
                );
                return Err(Error::Step { step: "units", reason });
            }
        }
        Ok(())
    }

    /// All that jobs can move; the units on the way that were not loaded are looked at, too.
    pub(super) fn reach_all(
        &self,
        jobs: &[(String, Job)],
        look: &mut Snapshot,
        other: &Snapshot,
    ) -> Result<BTreeMap<String, Job>, Error> {
        loop {
            let moved = reach(jobs, &[look, other]);
            let unseen: Vec<&String> = moved.keys().filter(|unit| !look.units.contains_key(*unit)).collect();
            if unseen.is_empty() {
                return Ok(moved);
            }
            look.units.extend(self.manager.show(unseen)?);
        }
    }

    /// Decides what is done with each unit, and notes the jobs.
    pub(super) fn sort(
        &self,
        plan: &Plan,
        new: &[String],
        stale: Vec<Stale>,
        before: &Before,
        look: &Snapshot,
        applied: &mut Applied,
    ) -> Work {
        let mut work = Work::default();
        let up = |unit: &String| look.units.get(unit).is_some_and(UnitState::is_active);
        let running =
            |socket: &UnitState| -> Vec<String> { socket.triggers.iter().filter(|unit| up(unit)).cloned().collect() };
        let mut jobs = Vec::new();
        for one in stale {
            let Some(state) = look.units.get(&one.unit) else { continue };
            let unit = one.unit.clone();
            let is_gone = self.goes(plan, applied, &unit);
            match unit.rsplit('.').next().unwrap_or_default() {
                _ if self.is_workers(&unit) => applied.own.push(unit),
                _ if plan.desired.keeps_running(&unit) => {}
                // For these daemon-reload was enough; what they want now and did not before is started.
                kind @ ("slice" | "target" | "automount" | "swap" | "mount") => {
                    work.start.extend(newly_wanted(&one, state, before, look));
                    if !state.is_active() {
                        // daemon-reload ended it, since it is bound to what is down now; it is started again in the end.
                        jobs.push((unit, Job::RESTART));
                    } else if kind == "mount" {
                        work.reload.push(one);
                    }
                }
                // It takes up the change when systemd next starts it.
                _ if !state.can_start || !state.can_stop => {}
                // A service that ran becomes a oneshot: the old process ends, the new one has its own time.
                _ if is_gone || state.is_passing() => {
                    jobs.push((unit, Job::STOP));
                    work.stop.push(one);
                }
                "socket" => {
                    let services = running(state);
                    jobs.extend(services.iter().chain([&unit]).map(|unit| (unit.clone(), Job::RESTART)));
                    work.sockets.push((one, services));
                }
                _ if state.kind == "oneshot" && state.can_reload => work.reload.push(one),
                _ => {
                    jobs.push((unit, Job::RESTART));
                    work.restart.push(one);
                }
            }
        }
        for unit in new {
            let Some(state) = look.units.get(unit) else { continue };
            let file = plan.desired.files.keys().find(|file| *file == unit).cloned().unwrap_or_default();
            let one = Stale { unit: unit.clone(), reason: "new in the repository".to_owned(), file };
            if self.is_workers(unit) {
                applied.own.push(unit.clone());
            } else if state.is_passing() || state.is_active() || !state.can_start || !state.can_stop {
                // What runs already is restarted, as stale; what could not be stopped again is not started.
            } else if unit.ends_with(".socket") && !running(state).is_empty() {
                let services = running(state);
                jobs.extend(services.iter().chain([unit]).map(|unit| (unit.clone(), Job::RESTART)));
                work.sockets.push((one, services));
            } else if [".service", ".timer", ".path", ".target"].iter().any(|kind| unit.ends_with(kind)) {
                work.start.push(one);
            } else {
                work.first.push(one);
            }
        }
        let started = work.first.iter().chain(&work.start);
        jobs.extend(started.map(|one| (one.unit.clone(), Job::START)));
        let in_socket: BTreeSet<&String> = work.sockets.iter().flat_map(|(_, services)| services).collect();
        work.restart.retain(|one| !in_socket.contains(&one.unit));
        applied.jobs.extend(jobs);
        work
    }

    fn work(&self, work: Work, looks: &[&Snapshot], applied: &mut Applied) -> Result<(), Error> {
        for (one, services) in work.sockets {
            let result = self.restart_socket(&one.unit, &services, looks);
            applied.did(&one.unit, "restarted", &one.reason, Some(&one.file));
            for service in &services {
                applied.did(service, "restarted", &format!("its socket changed: {}", one.reason), Some(&one.file));
            }
            result?;
        }
        let stopped: Vec<String> = work.stop.iter().map(|one| one.unit.clone()).collect();
        self.work_on("stop", "stopped", work.stop, looks, applied)?;
        // For a oneshot, the signal that ends the service that it was is a failure.
        self.forget_failures(&stopped)?;
        self.work_on("start", "started", work.first, looks, applied)?;
        self.work_on("reload", "reloaded", work.reload, looks, applied)?;
        let names: Vec<String> = work.restart.iter().map(|one| one.unit.clone()).collect();
        let result = self.restart_each_once(&names, looks);
        applied.did_all(work.restart, "restarted");
        result?;
        self.work_on("start", "started", work.start, looks, applied)
    }

    fn work_on(
        &self,
        verb: &str,
        word: &'static str,
        units: Vec<Stale>,
        looks: &[&Snapshot],
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let names: Vec<String> = units.iter().map(|one| one.unit.clone()).collect();
        let result = self.job(verb, &names, looks);
        applied.did_all(units, word);
        result
    }

    /// Restarts these units. One that another of them pulls along is asked for only where that did not happen: `systemctl`
    /// sends a request for each unit, and by the second the first may be done.
    pub(super) fn restart_each_once(&self, units: &[String], looks: &[&Snapshot]) -> Result<(), Error> {
        if units.len() < 2 {
            return self.job("restart", units, looks);
        }
        let before = self.manager.show(units)?;
        let is_pulled = |unit: &String| before.values().any(|state| state.dependents.contains(unit));
        let (pulled, leading): (Vec<String>, Vec<String>) = units.iter().cloned().partition(is_pulled);
        self.job("restart", &leading, looks)?;
        let after = self.manager.show(&pulled)?;
        let run = |states: &HashMap<String, UnitState>, unit: &str| states.get(unit).map(|s| s.invocation.clone());
        let is_left = |unit: &String| {
            run(&before, unit) == run(&after, unit) || !after.get(unit).is_some_and(UnitState::is_active)
        };
        self.job("restart", &pulled.into_iter().filter(is_left).collect::<Vec<_>>(), looks)
    }

    /// Restarts a socket, and the running services that it starts: it does not start under one of them. It is closed first, or
    /// a connection that waits would start them anew meanwhile.
    pub(super) fn restart_socket(&self, socket: &str, services: &[String], looks: &[&Snapshot]) -> Result<(), Error> {
        let socket = [socket.to_owned()];
        self.job("stop", &socket, looks)
            .and_then(|()| self.job("stop", services, looks))
            .and_then(|()| self.job("start", &socket, looks))
            .and_then(|()| self.job("start", services, looks))
    }

    /// Restarts the worker's own units without waiting for them, stops those that are gone, and never touches the worker that
    /// runs this.
    pub fn restart_own(&self, units: &[String]) -> Result<(), Error> {
        let mut units: Vec<String> = units.iter().filter(|unit| !is_worker(unit)).cloned().collect();
        units.sort();
        units.dedup();
        let states = self.manager.show(&units)?;
        let is = |unit: &String, what: fn(&UnitState) -> bool| states.get(unit).is_some_and(what);
        units.retain(|unit| !is(unit, |state| state.kind == "oneshot"));
        let (gone, units): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| is(unit, |s| s.load == "not-found"));
        let (running, idle): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| is(unit, UnitState::is_active));
        let gone: Vec<String> = gone.into_iter().filter(|unit| is(unit, UnitState::is_active)).collect();
        let new: Vec<String> = idle.into_iter().filter(|unit| is(unit, |s| s.file_state == "enabled")).collect();
        for (verb, units) in [("stop", gone), ("restart", running), ("start", new)] {
            self.manager.set(&[verb, "--no-block"], &units)?;
        }
        Ok(())
    }
}

impl Work {
    /// What happens to units that run, with the verb.
    pub fn changes(&self) -> impl Iterator<Item = (&'static str, &Stale)> {
        let restarts = self.sockets.iter().map(|(one, _)| one).chain(&self.restart).map(|one| ("restart", one));
        let reloads = self.reload.iter().map(|one| ("reload", one));
        restarts.chain(reloads).chain(self.stop.iter().map(|one| ("stop", one)))
    }
}

/// What a unit that ran and is not restarted wants now, and did not before.
fn newly_wanted(one: &Stale, state: &UnitState, before: &Before, look: &Snapshot) -> Vec<Stale> {
    let Some(was) = before.world.units.get(&one.unit) else { return Vec::new() };
    let is_new = |unit: &&String| {
        let is_idle = look.units.get(*unit).is_none_or(|state| state.can_start && !state.is_active());
        !was.wanted.contains(unit) && !is_left_out(unit) && is_idle
    };
    let reason = format!("{} wants it now", one.unit);
    let new = state.wanted.iter().filter(is_new);
    new.map(|unit| Stale { unit: unit.clone(), reason: reason.clone(), file: one.file.clone() }).collect()
}

impl Applied {
    pub(super) fn did_all(&mut self, units: Vec<Stale>, action: &'static str) {
        for one in units {
            self.did(
                &one.unit,
                action,
                &one.reason,
                Some(&one.file).filter(|file| !file.is_empty()).map(String::as_str),
            );
        }
    }
}
