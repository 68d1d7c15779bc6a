use std::collections::{BTreeSet, HashMap};

use super::apply::Applied;
use super::manager::UnitState;
use super::restore::Before;
use super::{Host, Plan, is_template, unit_of};
use crate::config::RestartRule;
use crate::gitops::Error;
use crate::gitops::git::Change;
use crate::log;

/// A running unit that is to take up a change.
struct Stale {
    unit: String,
    reason: String,
    file: String,
}

impl Applied {
    fn did_all(&mut self, units: Vec<Stale>, action: &'static str) {
        for one in units {
            self.did(&one.unit, action, &one.reason, Some(&one.file));
            self.watched.push(one.unit);
        }
    }
}

impl Host {
    /// Restarts what a plan's files and the repository's rules concern.
    pub(super) fn restart(
        &self,
        plan: &Plan,
        rules: &[RestartRule],
        changes: &[Change],
        before: &Before,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let mut stale = self.stale_by_files(plan)?;
        stale.extend(self.stale_by_rules(plan, rules, changes)?);
        self.restart_stale(stale, before, applied)
    }

    /// The units whose files the plan changes.
    fn stale_by_files(&self, plan: &Plan) -> Result<Vec<Stale>, Error> {
        let mut stale = Vec::new();
        for line in plan.acting().filter(|line| line.stale && plan.may_restart(unit_of(&line.file))) {
            for unit in self.units_of(unit_of(&line.file))? {
                let reason = format!("{} changed ({})", line.file, line.reason);
                stale.push(Stale { unit, reason, file: line.file.clone() });
            }
        }
        Ok(stale)
    }

    /// The units whose code a commit changes, by the repository's rules.
    fn stale_by_rules(&self, plan: &Plan, rules: &[RestartRule], changes: &[Change]) -> Result<Vec<Stale>, Error> {
        let mut stale = Vec::new();
        for rule in rules {
            let Some(file) = rule.matching(changes) else { continue };
            for unit in rule.units.iter().filter(|unit| plan.may_restart(unit)) {
                for unit in self.units_of(unit)? {
                    stale.push(Stale { unit, reason: format!("{file} changed"), file: file.clone() });
                }
            }
        }
        Ok(stale)
    }

    /// A unit, or the instances of a template that are not inactive.
    pub(super) fn units_of(&self, unit: &str) -> Result<Vec<String>, Error> {
        if is_template(unit) { Ok(self.manager.instances(unit)?) } else { Ok(vec![unit.to_owned()]) }
    }

    /// Restarts what is stale and was running, each unit once. Oneshots count as not running: they are neither started
    /// nor killed.
    fn restart_stale(&self, stale: Vec<Stale>, before: &Before, applied: &mut Applied) -> Result<(), Error> {
        let mut seen: BTreeSet<String> = applied.watched.iter().cloned().collect();
        let (mut sockets, mut mounts, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for one in stale {
            if !before.was_active(&one.unit) || !seen.insert(one.unit.clone()) {
                continue;
            }
            match one.unit.rsplit('.').next().unwrap_or_default() {
                _ if self.is_own(&one.unit) => applied.own.push(one.unit),
                // For these daemon-reload was enough.
                "slice" | "target" | "automount" | "swap" => {}
                "socket" => sockets.push(one),
                "mount" => mounts.push(one),
                _ => others.push(one),
            }
        }
        for one in sockets {
            let (result, services) = self.restart_socket(&one.unit)?;
            applied.did(&one.unit, "restarted", &one.reason, Some(&one.file));
            for service in &services {
                applied.did(service, "restarted", &format!("its socket changed: {}", one.reason), Some(&one.file));
            }
            others.retain(|other: &Stale| !services.contains(&other.unit));
            applied.watched.push(one.unit);
            applied.watched.extend(services);
            result?;
        }
        let names = |units: &[Stale]| units.iter().map(|one| one.unit.clone()).collect::<Vec<_>>();
        let result = self.job(&["reload"], &names(&mounts));
        applied.did_all(mounts, "reloaded");
        result?;
        let result = self.restart_each_once(&names(&others));
        applied.did_all(others, "restarted");
        result
    }

    /// Restarts those of these units that run. One that another of them pulls along is asked for only where that did not
    /// happen: `systemctl` sends a request for each unit, and by the second the first may be done.
    fn restart_each_once(&self, units: &[String]) -> Result<(), Error> {
        if units.len() < 2 {
            return self.job(&["try-restart"], units);
        }
        let before = self.manager.show(units)?;
        let is_pulled = |unit: &String| before.values().any(|state| state.pulled.contains(unit));
        let (pulled, leading): (Vec<String>, Vec<String>) = units.iter().cloned().partition(is_pulled);
        self.job(&["try-restart"], &leading)?;
        let after = self.manager.show(&pulled)?;
        let invocation =
            |states: &HashMap<String, UnitState>, unit: &str| states.get(unit).map(|s| s.invocation.clone());
        let left = |unit: &String| invocation(&before, unit) == invocation(&after, unit);
        self.job(&["try-restart"], &pulled.into_iter().filter(left).collect::<Vec<_>>())
    }

    /// Restarts a socket, and the running services that it starts: it does not start under one of them. Returns those
    /// services with the result.
    fn restart_socket(&self, socket: &str) -> Result<(Result<(), Error>, Vec<String>), Error> {
        let services = self.manager.triggered(socket)?;
        let states = self.manager.show(&services)?;
        let up = |unit: &String| states.get(unit).is_some_and(UnitState::is_active);
        let services: Vec<String> = services.into_iter().filter(up).collect();
        let result = self
            .job(&["stop"], &services)
            .and_then(|()| self.job(&["restart"], &[socket.to_owned()]))
            .and_then(|()| self.job(&["start"], &services));
        Ok((result, services))
    }

    /// Brings a unit that was active back to running its restored file.
    pub(super) fn bring_back(&self, unit: &str, is_active: bool) -> Result<(), Error> {
        let this = [unit.to_owned()];
        match unit.rsplit('.').next().unwrap_or_default() {
            "slice" | "target" | "automount" | "swap" => self.job(&["start"], &this),
            // Restarting a mount would take the file system away from who uses it.
            "mount" => self.job(&[if is_active { "reload" } else { "start" }], &this),
            "socket" => self.restart_socket(unit)?.0,
            _ => self.job(&["restart"], &this),
        }
    }

    /// Restarts the hub's own units without waiting for them, stops those that are gone, and never touches the worker
    /// that runs this.
    pub fn restart_own(&self, units: &[String]) -> Result<(), Error> {
        let mut units: Vec<String> = units.iter().filter(|unit| *unit != "gitops-sync.service").cloned().collect();
        units.sort();
        units.dedup();
        let states = self.manager.show(&units)?;
        let is = |unit: &String, what: fn(&UnitState) -> bool| states.get(unit).is_some_and(what);
        units.retain(|unit| !is(unit, UnitState::is_oneshot));
        let (gone, units): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| is(unit, |s| s.load == "not-found"));
        let (running, idle): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| is(unit, UnitState::is_active));
        let gone: Vec<String> = gone.into_iter().filter(|unit| is(unit, UnitState::is_active)).collect();
        let new: Vec<String> = idle.into_iter().filter(|unit| is(unit, |s| s.file_state == "enabled")).collect();
        for (verb, units) in [("stop", gone), ("restart", running), ("start", new)] {
            self.manager.act(&[verb, "--no-block"], &units)?;
        }
        Ok(())
    }
}

impl RestartRule {
    /// The first changed path that is one of the rule's files or lies in one of its folders.
    pub(in crate::gitops) fn matching(&self, changes: &[Change]) -> Option<String> {
        let is_meant = |path: &[u8]| {
            self.paths.iter().any(|rule| {
                let rule = rule.as_bytes();
                match rule.strip_suffix(b"/") {
                    Some(folder) => path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/")),
                    None => path == rule,
                }
            })
        };
        changes.iter().find(|change| is_meant(&change.path)).map(|change| log::printable(&change.path))
    }
}
