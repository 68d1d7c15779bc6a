use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::disk::OnDisk;
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
    /// What systemd ignores in the commit's unit files; none where nobody asked it.
    pub ignored: Option<Vec<String>>,
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

    pub(super) fn repository(&self) -> &str {
        &self.repository
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
        self.restart(plan, rules, changes, before, applied)
    }

    fn install(&self, plan: &Plan, applied: &mut Applied) -> Result<(), Error> {
        let reenabled = self.reenabled(plan)?;
        self.remove(plan, applied)?;
        let left = self.left_instances(plan, &reenabled);
        self.job(&["stop"], &left)?;
        for unit in left {
            applied.did(&unit, "stopped", "it is not its template's default instance any more", None);
        }
        for line in plan.acting() {
            match plan.desired.files.get(&line.file) {
                Some(wanted) if wanted.is_link => self.folder.link(&line.file, Path::new(&wanted.content))?,
                Some(wanted) => self.folder.install(&line.file, wanted.content.as_bytes())?,
                // A mask is the operator's and stays.
                None if self.folder.look(&line.file)? == OnDisk::Masked => {}
                None => self.folder.remove(&line.file)?,
            }
            if line.action == Action::Drift {
                log::warn!("drift_repaired", repo = applied.repository, file = line.file, reason = line.reason);
            }
        }
        let started = self.enable(plan, &reenabled, applied)?;
        self.manager.reload()?;
        self.start(plan, &started, applied)
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

    fn start(&self, plan: &Plan, units: &[String], applied: &mut Applied) -> Result<(), Error> {
        let states = self.manager.show(units)?;
        // What runs already is restarted instead, as stale.
        let idle = |unit: &String| states.get(unit).is_some_and(|state| !state.is_oneshot() && !state.is_active());
        let (own, units): (Vec<String>, Vec<String>) = units.iter().cloned().partition(|unit| self.is_own(unit));
        applied.own.extend(own);
        let units: Vec<String> = units.into_iter().filter(idle).collect();
        let result = self.job(&["start"], &units);
        for unit in units {
            let file = plan.desired.files.keys().find(|file| **file == unit).map(String::as_str);
            applied.did(&unit, "started", "new in the repository", file);
            applied.watched.push(unit);
        }
        result
    }
}
