use std::collections::BTreeSet;

use serde::Serialize;

use super::manager::UnitState;
use super::plan::{Action, Line};
use super::restore::Before;
use super::{Host, OWN, Plan, is_template, unit_of};
use crate::config::RestartRule;
use crate::gitops::Error;
use crate::gitops::git::Change;
use crate::log;

/// Something that was done to a unit, and why.
#[derive(Clone, Debug, Serialize)]
pub(in crate::gitops) struct Restart {
    pub unit: String,
    /// `started`, `restarted`, `reloaded`, `stopped`, `enabled`
    pub action: &'static str,
    pub reason: String,
    /// The file whose change caused it.
    pub file: Option<String>,
}

/// What an applied plan did, for the probe and the record.
#[derive(Debug, Default)]
pub(in crate::gitops) struct Applied {
    pub actions: Vec<Restart>,
    /// Files whose units were enabled.
    pub enabled: Vec<String>,
    /// Units that were started or restarted, to be watched.
    pub(super) watched: Vec<String>,
    /// The hub's own units whose turn comes when the result is durable.
    pub own: Vec<String>,
}

impl Applied {
    /// True where something was started or restarted that should be watched.
    pub fn has_watched(&self) -> bool {
        !self.watched.is_empty()
    }

    fn did(&mut self, repository: &str, unit: &str, action: &'static str, reason: &str, file: Option<&str>) {
        log::info!("unit_changed", repo = repository, unit = unit, action = action, reason = reason, file = file);
        let (unit, reason, file) = (unit.to_owned(), reason.to_owned(), file.map(str::to_owned));
        self.actions.push(Restart { unit, action, reason, file });
    }
}

impl Host {
    /// Makes the host what the plan says: stops and removes, installs, reloads once, enables and starts what is new,
    /// restarts what changed. What was done is in `applied` also when a step fails.
    pub fn apply(&self, plan: &Plan, repository: &str, before: &Before, applied: &mut Applied) -> Result<(), Error> {
        if plan.is_idle() {
            return Ok(());
        }
        self.remove(plan, repository, applied)?;
        for line in plan.acting() {
            match plan.desired.files.get(&line.file) {
                Some(wanted) => self.folder.install(&line.file, wanted.content.as_bytes())?,
                None => self.folder.remove(&line.file)?,
            }
            if line.action == Action::Drift {
                log::warn!("drift_repaired", repo = repository, file = line.file, reason = line.reason);
            }
        }
        let started = self.enable(plan, repository, applied)?;
        self.manager.reload()?;
        self.start(plan, repository, &started, applied)?;
        self.restart_changed(plan, repository, before, applied)
    }

    /// Stops and disables the units that go, those that start others first.
    fn remove(&self, plan: &Plan, repository: &str, applied: &mut Applied) -> Result<(), Error> {
        let removed = |line: &&Line| line.action == Action::Remove && unit_of(&line.file) == line.file;
        let mut lines: Vec<&Line> = plan.lines.iter().filter(removed).collect();
        lines.sort_by_key(|line| line.file.ends_with(".service"));
        for line in lines {
            let unit = std::slice::from_ref(&line.file);
            if !matches!(self.folder.look(&line.file)?, super::disk::OnDisk::File(_)) {
                continue;
            }
            if is_template(&line.file) {
                self.job(&["stop"], &self.manager.instances(&line.file)?)?;
                self.job(&["disable", "--no-reload", "--quiet"], unit)?;
            } else if OWN.contains(&line.file.as_str()) {
                self.job(&["disable", "--no-reload", "--quiet"], unit)?;
                continue;
            } else {
                self.job(&["disable", "--now", "--no-reload", "--quiet"], unit)?;
            }
            applied.did(repository, &line.file, "stopped", &line.reason, Some(&line.file));
        }
        Ok(())
    }

    /// Enables what is new and has `[Install]`, once; returns the units to start. Where `[Install]` changed and the
    /// unit is enabled, its links are made anew.
    fn enable(&self, plan: &Plan, repository: &str, applied: &mut Applied) -> Result<Vec<String>, Error> {
        let mut start = Vec::new();
        for line in plan.acting().filter(|line| unit_of(&line.file) == line.file) {
            let Some(wanted) = plan.desired.files.get(&line.file) else { continue };
            let once = plan.files.get(&line.file).and_then(Option::as_ref).is_some_and(|owned| owned.enabled_once);
            let installable = ["WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also"]
                .iter()
                .any(|key| !wanted.install(key).is_empty());
            let default_instance = wanted.install("DefaultInstance").first().map(|instance| (*instance).to_owned());
            if is_template(&line.file) && default_instance.is_none() || !installable {
                continue;
            }
            let unit = std::slice::from_ref(&line.file);
            if once {
                let state = self.manager.show(unit)?;
                if state.get(&line.file).is_some_and(|state| state.file_state == "enabled") {
                    self.job(&["reenable", "--no-reload", "--quiet"], unit)?;
                }
                continue;
            }
            self.job(&["enable", "--no-reload", "--quiet"], unit)?;
            applied.enabled.push(line.file.clone());
            applied.did(repository, &line.file, "enabled", &line.reason, Some(&line.file));
            start.push(match default_instance {
                Some(instance) if is_template(&line.file) => line.file.replacen("@.", &format!("@{instance}."), 1),
                _ => line.file.clone(),
            });
        }
        Ok(start)
    }

    fn start(&self, plan: &Plan, repository: &str, units: &[String], applied: &mut Applied) -> Result<(), Error> {
        let states = self.manager.show(units)?;
        let oneshot = |unit: &str| states.get(unit).is_some_and(UnitState::is_oneshot);
        let (own, units): (Vec<String>, Vec<String>) =
            units.iter().cloned().partition(|unit| OWN.contains(&unit.as_str()));
        applied.own.extend(own);
        let units: Vec<String> = units.into_iter().filter(|unit| !oneshot(unit)).collect();
        self.job(&["start"], &units)?;
        for unit in units {
            let file = plan.desired.files.keys().find(|file| **file == unit).map(String::as_str);
            applied.did(repository, &unit, "started", "new in the repository", file);
            applied.watched.push(unit);
        }
        Ok(())
    }

    fn restart_changed(
        &self,
        plan: &Plan,
        repository: &str,
        before: &Before,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for line in plan.acting().filter(|line| line.stale) {
            let unit = unit_of(&line.file);
            let whole = |action| plan.lines.iter().any(|other| other.file == unit && other.action == action);
            if whole(Action::Add) || whole(Action::Remove) || whole(Action::Masked) || !seen.insert(unit.to_owned()) {
                continue;
            }
            let units = if is_template(unit) { self.manager.instances(unit)? } else { vec![unit.to_owned()] };
            for unit in units {
                let reason = format!("{} changed ({})", line.file, line.reason);
                self.restart_one(&unit, repository, &reason, Some(&line.file), before, applied)?;
            }
        }
        Ok(())
    }

    /// Restarts the units whose code a commit changes, by the repository's rules.
    pub fn restart_by_rules(
        &self,
        rules: &[RestartRule],
        changes: &[Change],
        repository: &str,
        before: &Before,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        for rule in rules {
            let Some(path) = changes.iter().map(|change| &change.path).find(|path| rule.matches(path)) else {
                continue;
            };
            let path = log::printable(path);
            for unit in &rule.units {
                if applied.watched.contains(unit) || applied.own.contains(unit) {
                    continue;
                }
                self.restart_one(unit, repository, &format!("{path} changed"), Some(&path), before, applied)?;
            }
        }
        Ok(())
    }

    fn restart_one(
        &self,
        unit: &str,
        repository: &str,
        reason: &str,
        file: Option<&str>,
        before: &Before,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        if OWN.contains(&unit) {
            applied.own.push(unit.to_owned());
            return Ok(());
        }
        // Oneshots count as not active here: they are neither started nor killed.
        if !before.was_active(unit) {
            return Ok(());
        }
        if let Some(action) = self.restart(unit, "try-restart")? {
            applied.did(repository, unit, action, reason, file);
            applied.watched.push(unit.to_owned());
        }
        Ok(())
    }

    /// Makes a running unit take up its file, in the way its kind needs; none where daemon-reload was enough.
    pub(super) fn restart(&self, unit: &str, verb: &str) -> Result<Option<&'static str>, Error> {
        let this = [unit.to_owned()];
        match unit.rsplit('.').next().unwrap_or_default() {
            "slice" | "target" | "automount" | "swap" if verb == "try-restart" => Ok(None),
            "slice" | "target" | "automount" | "swap" => self.job(&["start"], &this).map(|()| Some("started")),
            // Restarting a mount would take the file system away from who uses it.
            "mount" => {
                let active = self.manager.show(&this)?.get(unit).is_some_and(UnitState::is_active);
                self.job(&[if active { "reload" } else { "start" }], &this).map(|()| Some("reloaded"))
            }
            "socket" => {
                // A socket does not start under a running service of its own; stopped and started it hands over anew.
                let service = [unit.replacen(".socket", ".service", 1)];
                let running = self.manager.show(&service)?.get(&service[0]).is_some_and(UnitState::is_active);
                if running {
                    self.job(&["stop"], &service)?;
                }
                self.job(&["restart"], &this)?;
                if running {
                    self.job(&["start"], &service)?;
                }
                Ok(Some("restarted"))
            }
            _ => self.job(&[verb], &this).map(|()| Some("restarted")),
        }
    }

    /// Restarts the hub's own units without waiting for them, and never the worker that runs this.
    pub fn restart_own(&self, units: &[String]) -> Result<(), Error> {
        let mut units: Vec<String> = units.iter().filter(|unit| *unit != "gitops-sync.service").cloned().collect();
        units.sort();
        units.dedup();
        let states = self.manager.show(&units)?;
        let oneshot = |unit: &String| states.get(unit).is_some_and(UnitState::is_oneshot);
        let (running, idle): (Vec<String>, Vec<String>) = units
            .into_iter()
            .filter(|unit| !oneshot(unit))
            .partition(|unit| states.get(unit).is_some_and(UnitState::is_active));
        self.manager.act(&["restart", "--no-block"], &running)?;
        let enabled = |unit: &String| states.get(unit).is_some_and(|state| state.file_state == "enabled");
        let idle: Vec<String> = idle.into_iter().filter(enabled).collect();
        self.manager.act(&["start", "--no-block"], &idle).map_err(Into::into)
    }
}

impl RestartRule {
    /// True where a changed path is one of the rule's files or lies in one of its folders.
    fn matches(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|rule| {
            let rule = rule.as_bytes();
            match rule.strip_suffix(b"/") {
                Some(folder) => path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/")),
                None => path == rule,
            }
        })
    }
}
