use std::collections::BTreeSet;

use serde::Serialize;

use super::desired::UnitFile;
use super::disk::OnDisk;
use super::manager::UnitState;
use super::plan::{Action, Line};
use super::restore::{Before, concerns};
use super::{Host, Plan, is_template, unit_of};
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
    /// The commit before; none where there was none.
    pub from: Option<String>,
    /// The commit that is being made live.
    pub to: Option<String>,
}

/// What an applied plan did, for the probe and the record.
#[derive(Debug, Default)]
pub(in crate::gitops) struct Applied {
    repository: String,
    from: Option<String>,
    to: Option<String>,
    pub actions: Vec<Restart>,
    /// Files whose units were enabled.
    pub enabled: Vec<String>,
    /// Units that were started or restarted, to be watched.
    pub(super) watched: Vec<String>,
    /// The hub's own units whose turn comes when the result is durable.
    pub own: Vec<String>,
}

/// A running unit that is to take up a change.
struct Stale {
    unit: String,
    reason: String,
    file: String,
}

impl Applied {
    /// Nothing yet, on the way from one commit of a repository to another.
    pub fn new(repository: &str, from: Option<&str>, to: Option<&str>) -> Self {
        let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
        Self { repository: repository.to_owned(), from, to, ..Self::default() }
    }

    /// True where something was started or restarted that should be watched.
    pub fn has_watched(&self) -> bool {
        !self.watched.is_empty()
    }

    pub(super) fn did(&mut self, unit: &str, action: &'static str, reason: &str, file: Option<&str>) {
        let (from, to) = (self.from.clone(), self.to.clone());
        log::info!(
            "unit_changed",
            repo = self.repository,
            unit = unit,
            action = action,
            reason = reason,
            file = file,
            from = from,
            to = to
        );
        let (unit, reason, file) = (unit.to_owned(), reason.to_owned(), file.map(str::to_owned));
        self.actions.push(Restart { unit, action, reason, file, from, to });
    }
}

impl Host {
    /// Makes the host what the plan says: stops and removes, installs, reloads once, enables and starts what is new,
    /// restarts what changed, by its files or by the repository's rules for its code. What was done is in `applied` also
    /// when a step fails.
    pub fn apply(
        &self,
        plan: &Plan,
        rules: &[RestartRule],
        changes: &[Change],
        before: &Before,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        if !plan.is_idle() {
            self.install(plan, applied)?;
        }
        let mut stale = self.stale_by_files(plan)?;
        stale.extend(self.stale_by_rules(plan, rules, changes)?);
        self.restart_stale(stale, before, applied)
    }

    fn install(&self, plan: &Plan, applied: &mut Applied) -> Result<(), Error> {
        let reenabled = self.install_changed(plan)?;
        self.remove(plan, applied)?;
        for line in plan.acting() {
            match plan.desired.files.get(&line.file) {
                Some(wanted) => self.folder.install(&line.file, wanted.content.as_bytes())?,
                // A mask is the operator's and stays.
                None if self.folder.look(&line.file)? == OnDisk::Masked => {}
                None => self.folder.remove(&line.file)?,
            }
            if line.action == Action::Drift {
                log::warn!("drift_repaired", repo = applied.repository, file = line.file, reason = line.reason);
            }
        }
        self.job(&["reenable", "--no-reload", "--quiet"], &reenabled)?;
        let started = self.enable(plan, applied)?;
        self.manager.reload()?;
        self.start(plan, &started, applied)
    }

    /// The enabled units whose `[Install]` changes: their links are to be made anew, the others' stay as they are.
    fn install_changed(&self, plan: &Plan) -> Result<Vec<String>, Error> {
        let mut changed = Vec::new();
        for line in plan.acting().filter(|line| unit_of(&line.file) == line.file) {
            let Some(wanted) = plan.desired.files.get(&line.file) else { continue };
            let same = match self.folder.look(&line.file)? {
                OnDisk::Missing => true,
                OnDisk::File(found) => {
                    let found = String::from_utf8_lossy(&found).into_owned();
                    let found = UnitFile { object: String::new(), content: found };
                    found.section("Install") == wanted.section("Install")
                }
                _ => false,
            };
            if !same && plan.was_enabled_once(&line.file) && self.manager.is_enabled(&line.file)? {
                changed.push(line.file.clone());
            }
        }
        Ok(changed)
    }

    /// Stops and disables the units that go, those that start others first.
    fn remove(&self, plan: &Plan, applied: &mut Applied) -> Result<(), Error> {
        let removed = |line: &&Line| line.action == Action::Remove && unit_of(&line.file) == line.file;
        let mut lines: Vec<&Line> = plan.lines.iter().filter(removed).collect();
        lines.sort_by_key(|line| line.file.ends_with(".service"));
        for line in &lines {
            if self.is_own(&line.file) {
                applied.own.push(line.file.clone());
                continue;
            }
            let units = self.running(&line.file)?;
            let states = self.manager.show(&units)?;
            let failed = |unit: &&String| states.get(*unit).is_some_and(|state| state.active == "failed");
            let (failed, up): (Vec<&String>, Vec<&String>) = units.iter().partition(failed);
            let up: Vec<String> = up.into_iter().cloned().collect();
            self.job(&["stop"], &up)?;
            self.job(&["reset-failed"], &failed.into_iter().cloned().collect::<Vec<_>>())?;
            for unit in up {
                applied.did(&unit, "stopped", &line.reason, Some(&line.file));
            }
        }
        // Not `systemctl disable`: it wants the file, which the operator may have removed, and takes `Also=` along.
        let gone: BTreeSet<String> = lines.iter().map(|line| line.file.clone()).collect();
        for (link, _) in self.enablement.links(|name| concerns(&gone, name))? {
            self.enablement.remove(&link)?;
        }
        Ok(())
    }

    /// The unit, or a template's instances, where they are not inactive.
    fn running(&self, unit: &str) -> Result<Vec<String>, Error> {
        if is_template(unit) {
            return self.manager.instances(unit).map_err(Into::into);
        }
        let this = vec![unit.to_owned()];
        let idle = self.manager.show(&this)?.get(unit).is_none_or(|state| state.active == "inactive");
        Ok(if idle { Vec::new() } else { this })
    }

    /// Enables what is new and has `[Install]`, once; returns the units to start.
    fn enable(&self, plan: &Plan, applied: &mut Applied) -> Result<Vec<String>, Error> {
        let mut start = Vec::new();
        for line in plan.acting().filter(|line| unit_of(&line.file) == line.file) {
            let Some(wanted) = plan.desired.files.get(&line.file) else { continue };
            let installable = ["WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also"]
                .iter()
                .any(|key| !wanted.install(key).is_empty());
            let default_instance = wanted.install("DefaultInstance").first().map(|instance| (*instance).to_owned());
            let lacks_instance = is_template(&line.file) && default_instance.is_none();
            if lacks_instance || !installable || plan.was_enabled_once(&line.file) {
                continue;
            }
            self.job(&["enable", "--no-reload", "--quiet"], std::slice::from_ref(&line.file))?;
            applied.enabled.push(line.file.clone());
            applied.did(&line.file, "enabled", &line.reason, Some(&line.file));
            start.push(match default_instance {
                Some(instance) if is_template(&line.file) => line.file.replacen("@.", &format!("@{instance}."), 1),
                _ => line.file.clone(),
            });
        }
        Ok(start)
    }

    fn start(&self, plan: &Plan, units: &[String], applied: &mut Applied) -> Result<(), Error> {
        let states = self.manager.show(units)?;
        let oneshot = |unit: &str| states.get(unit).is_some_and(UnitState::is_oneshot);
        let (own, units): (Vec<String>, Vec<String>) = units.iter().cloned().partition(|unit| self.is_own(unit));
        applied.own.extend(own);
        let units: Vec<String> = units.into_iter().filter(|unit| !oneshot(unit)).collect();
        let result = self.job(&["start"], &units);
        for unit in units {
            let file = plan.desired.files.keys().find(|file| **file == unit).map(String::as_str);
            applied.did(&unit, "started", "new in the repository", file);
            applied.watched.push(unit);
        }
        result
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
        for (verb, action, units) in [("reload", "reloaded", mounts), ("try-restart", "restarted", others)] {
            // One call: a unit that another one pulls along is restarted once.
            let names: Vec<String> = units.iter().map(|one| one.unit.clone()).collect();
            let result = self.job(&[verb], &names);
            for one in units {
                applied.did(&one.unit, action, &one.reason, Some(&one.file));
                applied.watched.push(one.unit);
            }
            result?;
        }
        Ok(())
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
