use std::collections::BTreeSet;
use std::path::Path;

use super::applied::Applied;
use super::disk::OnDisk;
use super::manifest::Packaged;
use super::plan::{Action, Line};
use super::reach::Job;
use super::restore::Before;
use super::state::UnitState;
use super::unit_name::{concerns, unit_of};
use super::{Host, Plan};
use crate::config::RestartRule;
use crate::gitops::Error;
use crate::gitops::git::Change;
use crate::log;

impl Host {
    /// Makes the host what the plan says, in this order: installs what stays, while the files of what goes are still there;
    /// stops what goes under its own settings and removes it; enables what is new; then, by the new relations, starts what
    /// is new and restarts what changed, by its files or by the repository's rules for its code. What jobs took down along
    /// the way is started again. What was done is in `applied` also when a step fails. `stopped` is called when what goes is
    /// stopped, before anything is started.
    pub fn apply(
        &self,
        plan: &Plan,
        rules: &[RestartRule],
        changes: &[Change],
        before: &Before,
        applied: &mut Applied,
        stopped: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let new = if plan.is_idle() { Vec::new() } else { self.install(plan, applied, stopped)? };
        let stale = self.stale(plan, rules, changes, before)?;
        self.run_jobs(plan, &new, stale, before, applied)
    }

    /// Returns the units that are enabled now, and are to be started.
    fn install(
        &self,
        plan: &Plan,
        applied: &mut Applied,
        stopped: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Vec<String>, Error> {
        let reenabled = self.reenabled(plan)?;
        let mut gone = Vec::new();
        for line in plan.acting() {
            match plan.desired.files.get(&line.file) {
                Some(wanted) if wanted.is_link => self.folder.link(&line.file, Path::new(&wanted.content))?,
                Some(wanted) => self.folder.install(&line.file, wanted.content.as_bytes())?,
                None => gone.push(line),
            }
            if line.action == Action::Drift {
                log::warn!("drift_repaired", repo = applied.repository(), file = line.file, reason = line.reason);
            }
        }
        let leaving: Vec<&Line> = plan.leaving().collect();
        let (mut uncovered, mut late) = (Vec::new(), Vec::new());
        if !leaving.is_empty() {
            uncovered = self.unlink(plan, &leaving)?;
            self.manager.reload()?;
            late = self.stop_leaving(&leaving, applied)?;
        }
        let left = self.left_instances(plan, &reenabled);
        self.job("stop", &left, &[])?;
        for unit in left {
            applied.did(&unit, "stopped", "it is not its template's default instance any more", None);
            applied.jobs.push((unit.clone(), Job::STOP));
            applied.ended.insert(unit);
        }
        stopped()?;
        for line in gone {
            // A mask is the operator's and stays.
            if self.folder.look(&line.file)? != OnDisk::Masked {
                self.folder.remove(&line.file)?;
            }
        }
        self.set(&["reenable", "--no-reload", "--quiet"], &uncovered)?;
        self.note_packaged(plan, applied)?;
        let new = self.enable(plan, &reenabled, applied)?;
        self.manager.reload()?;
        self.job("stop", &late, &[])?;
        // A stop that ends with an error leaves a failed unit that has no file any more.
        let is_stopped = |(unit, job): &(String, Job)| (*job == Job::STOP).then(|| unit.clone());
        self.forget_failures(&applied.jobs.iter().filter_map(is_stopped).collect::<Vec<_>>())?;
        Ok(new)
    }

    /// True where a unit runs whose file goes.
    pub fn stops_some(&self, plan: &Plan) -> Result<bool, Error> {
        let mut units = Vec::new();
        for line in plan.leaving() {
            units.extend(self.units_of(&line.file)?);
        }
        Ok(self.manager.show(&units)?.values().any(UnitState::is_active))
    }

    /// Stops what goes with a deployment that went well and could not have been taken back.
    pub fn stop_last(&self, applied: &mut Applied) -> Result<(), Error> {
        let units = std::mem::take(&mut applied.last);
        let result = self.job("stop", &units, &[]).and_then(|()| self.forget_failures(&units));
        for unit in units {
            applied.did(&unit, "stopped", "not in the commit any more", None);
        }
        result
    }

    /// Takes away the links that enable what goes. Returns the packaged units that come to light and were enabled: their
    /// links are to be made anew.
    fn unlink(&self, plan: &Plan, leaving: &[&Line]) -> Result<Vec<String>, Error> {
        let mut uncovered = Vec::new();
        for line in leaving.iter().filter(|line| self.is_packaged(&line.file)) {
            let was_enabled = match plan.packaged(&line.file) {
                Some(packaged) => packaged.enabled,
                None => self.manager.is_enabled(&line.file)?,
            };
            if was_enabled {
                uncovered.push(line.file.clone());
            }
        }
        // Not `systemctl disable`: it wants the file, which the operator may have removed, and takes `Also=` along.
        let gone: BTreeSet<String> = leaving.iter().map(|line| line.file.clone()).collect();
        for (link, _) in self.enablement.links(|name| concerns(&gone, name))? {
            self.enablement.remove(&link)?;
        }
        Ok(uncovered)
    }

    /// Stops the units that go, those that start others first. Returns those that refuse to be stopped while their files are
    /// there.
    fn stop_leaving(&self, leaving: &[&Line], applied: &mut Applied) -> Result<Vec<String>, Error> {
        let (mut triggers, mut others, mut failed, mut late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for line in leaving {
            if self.is_workers(&line.file) {
                applied.own.push(line.file.clone());
                continue;
            }
            // It goes on with the packaged version, or is stopped, when that has come to light.
            if self.is_packaged(&line.file) {
                continue;
            }
            let units = self.units_of(&line.file)?;
            for (unit, state) in self.manager.show(&units)? {
                let starts_others =
                    [".socket", ".timer", ".path", ".automount"].iter().any(|kind| unit.ends_with(kind));
                match state.active.as_str() {
                    "inactive" => continue,
                    "failed" => {
                        failed.push(unit);
                        continue;
                    }
                    // What could not be started again goes when all is well.
                    _ if !state.can_start => {
                        applied.last.push(unit);
                        continue;
                    }
                    _ if !state.can_stop => late.push(unit.clone()),
                    _ if starts_others => triggers.push(unit.clone()),
                    _ => others.push(unit.clone()),
                }
                applied.jobs.push((unit.clone(), Job::STOP));
                applied.did(&unit, "stopped", &line.reason, Some(&line.file));
            }
        }
        self.job("stop", &triggers, &[])?;
        self.job("stop", &others, &[])?;
        self.forget_failures(&failed)?;
        Ok(late)
    }

    /// Takes down how the packaged units were that new files stand over.
    fn note_packaged(&self, plan: &Plan, applied: &mut Applied) -> Result<(), Error> {
        for line in plan.acting().filter(|line| line.action == Action::Add && unit_of(&line.file) == line.file) {
            if self.is_packaged(&line.file) {
                let enabled = self.manager.is_enabled(&line.file)?;
                let active = self.manager.show([&line.file])?.get(&line.file).is_some_and(UnitState::is_active);
                applied.packaged.insert(line.file.clone(), Packaged { enabled, active });
            }
        }
        Ok(())
    }
}
