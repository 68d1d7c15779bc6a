use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::OnDisk;
use super::manager::UnitState;
use super::manifest::{Manifest, Owned, digest};
use super::{Applied, Host, Plan, is_template, template_of};
use crate::gitops::Error;
use crate::records::short;
use crate::state::{Folder, repository_file_name};

/// How the host was before a deployment touched its units: enough to put it back, whatever was reached.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::gitops) struct Before {
    /// What stood at each file's place.
    files: BTreeMap<String, Previous>,
    /// Enablement: the links that concern the units.
    links: Vec<(String, PathBuf)>,
    /// The manifest's entries of the files.
    owned: BTreeMap<String, Option<Owned>>,
    /// Every unit that may be started, stopped or restarted.
    units: BTreeSet<String>,
    /// Those of them that were active, each with the id of its present run.
    active: BTreeMap<String, String>,
    /// Those of them that had failed.
    failed: BTreeSet<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Previous {
    Missing,
    /// The content lies in `saved/<repository>/` under this name.
    File(String),
    Link(PathBuf),
}

impl Before {
    /// True where a unit was active, and is none that runs once.
    pub(super) fn was_active(&self, unit: &str) -> bool {
        self.active.contains_key(unit)
    }

    /// True where a unit had failed already.
    pub(super) fn had_failed(&self, unit: &str) -> bool {
        self.failed.contains(unit)
    }
}

impl Host {
    /// Takes down how the host is, for `restore_files` and `restore_jobs`. `others` are units that restart rules name.
    /// What stands in a file's place is copied to `saved/<repository>/`.
    pub fn before(&self, plan: &Plan, repository: &str, others: &[String]) -> Result<Before, Error> {
        let manifest = Manifest::read(&self.gitops)?;
        let mut before = Before::default();
        let saved = self.saved(repository)?;
        for (number, file) in plan.files.keys().enumerate() {
            before.owned.insert(file.clone(), manifest.files.get(file).cloned());
            if !plan.lines.iter().any(|line| line.file == *file && line.acts()) {
                continue;
            }
            let previous = match self.folder.look(file)? {
                OnDisk::Missing => Previous::Missing,
                OnDisk::Masked => Previous::Link("/dev/null".into()),
                OnDisk::Link(target) => Previous::Link(target),
                OnDisk::File(content) => {
                    let is_ours = manifest.files.get(file).is_some_and(|owned| owned.digest == digest(&content));
                    // What the hub installed is in git; another's version must not be lost with the next deployment.
                    let name = if is_ours { format!("undo-{number}") } else { saved_name(file, &content) };
                    saved.publish(&name, &content, 0o640)?;
                    Previous::File(name)
                }
                OnDisk::Other => {
                    let path = self.folder.path().join(file);
                    return Err(Error::Refused(format!("{} is no unit file; move it away", path.display())));
                }
            };
            before.files.insert(file.clone(), previous);
        }
        before.units = plan.units().into_iter().chain(others.iter().cloned()).collect();
        before.links = self.enablement.links(|name| concerns(&before.units, name))?;
        for template in before.units.clone().iter().filter(|unit| is_template(unit)) {
            before.units.extend(self.manager.instances(template)?);
        }
        let asked: Vec<String> = before.units.iter().filter(|unit| !is_template(unit)).cloned().collect();
        for (unit, state) in self.manager.show(&asked)? {
            if state.is_failed() {
                before.failed.insert(unit);
            } else if state.is_active() && !state.is_oneshot() && state.file_state != "masked" {
                before.active.insert(unit, state.invocation);
            }
        }
        Ok(before)
    }

    /// Puts files, enablement and manifest back as they were. What the deployment started and was not active before is
    /// stopped first, while its file is still there.
    pub fn restore_files(&self, before: &Before, repository: &str, back: &mut Applied) -> Result<(), Error> {
        let (mut started, mut enabled) = (Vec::new(), Vec::new());
        for (file, owned) in before.owned.iter().filter(|(file, _)| !file.contains('/') && !self.is_own(file)) {
            if matches!(before.files.get(file), Some(Previous::Missing)) {
                started.extend(self.units_of(file)?);
            } else if is_template(file) && before.files.contains_key(file) {
                // Another default instance.
                started.extend(self.units_of(file)?.into_iter().filter(|unit| !before.units.contains(unit)));
            } else if owned.as_ref().is_some_and(|owned| !owned.enabled_once) && !is_template(file) {
                // It may have got its first [Install], and been started for that.
                enabled.push(file.clone());
            }
        }
        let states = self.manager.show(&[started.as_slice(), &enabled].concat())?;
        let is = |unit: &String, what: fn(&UnitState) -> bool| states.get(unit).is_some_and(what);
        started.retain(|unit| is(unit, |state| state.is_active() || state.is_failed()));
        enabled.retain(|unit| !before.was_active(unit) && is(unit, |state| state.is_active() && !state.is_oneshot()));
        started.append(&mut enabled);
        self.job(&["stop"], &started)?;
        for unit in &started {
            back.did(unit, "stopped", "its deployment is taken back", None);
        }
        let saved = self.saved(repository)?;
        for (file, previous) in &before.files {
            self.folder.remove_unfinished(file)?;
            match previous {
                Previous::Missing => self.folder.remove(file)?,
                Previous::Link(target) => self.folder.link(file, target)?,
                Previous::File(name) => {
                    let content = saved.read(name, 1 << 20)?.ok_or_else(|| {
                        Error::Refused(format!("{} is gone; restore {file} by hand", saved.path().join(name).display()))
                    })?;
                    self.folder.install(file, &content)?;
                }
            }
        }
        let now = self.enablement.links(|name| concerns(&before.units, name))?;
        for (link, _) in now.iter().filter(|link| !before.links.contains(link)) {
            self.enablement.remove(link)?;
        }
        for (link, target) in before.links.iter().filter(|link| !now.contains(link)) {
            self.enablement.link(link, target)?;
        }
        let mut manifest = Manifest::read(&self.gitops)?;
        for (file, owned) in &before.owned {
            match owned {
                Some(owned) => manifest.files.insert(file.clone(), owned.clone()),
                None => manifest.files.remove(file),
            };
        }
        manifest.write(&self.gitops)?;
        self.manager.reload()?;
        // A unit that crashed until systemd gave up keeps its failure, and its name, until it is forgotten.
        let still = self.manager.show(&started)?;
        started.retain(|unit| still.get(unit).is_some_and(UnitState::is_failed));
        self.manager.act(&["reset-failed"], &started).map_err(Into::into)
    }

    /// Brings the units that were active back to running the restored version; those that the deployment did not touch
    /// go on running.
    ///
    /// # Errors
    /// When some of them do not come back, with the state that each is in.
    pub fn restore_jobs(&self, before: &Before, back: &mut Applied) -> Result<(), Error> {
        let asked: Vec<String> = before.active.keys().filter(|unit| !self.is_own(unit)).cloned().collect();
        let states = self.manager.show(&asked)?;
        let touched = |unit: &&String| {
            unit.ends_with(".mount")
                || states.get(*unit).is_none_or(|state| !state.is_active() || state.invocation != before.active[*unit])
        };
        let touched: Vec<String> = asked.iter().filter(touched).cloned().collect();
        let failed = |unit: &&String| states.get(*unit).is_some_and(|state| state.active == "failed");
        self.manager.act(&["reset-failed"], &touched.iter().filter(failed).cloned().collect::<Vec<_>>())?;
        let mut problems = Vec::new();
        for unit in &touched {
            let is_active = states.get(unit).is_some_and(UnitState::is_active);
            match self.bring_back(unit, is_active) {
                Ok(()) => back.did(unit, "restarted", "its deployment was taken back", None),
                Err(error) => problems.push(error.to_string()),
            }
        }
        let states = self.manager.show(&touched)?;
        let state = |unit: &String| states.get(unit).map_or("unknown", |state| state.active.as_str());
        let up = |unit: &&String| states.get(*unit).is_some_and(|state| state.is_active() && !state.is_failed());
        let down: Vec<String> =
            touched.iter().filter(|unit| !up(unit)).map(|unit| format!("{unit} is {}", state(unit))).collect();
        if down.is_empty() && problems.is_empty() {
            return Ok(());
        }
        let reason = format!("the last good version does not run: {}", [down, problems].concat().join("; "));
        Err(Error::Step { step: "rollback", reason })
    }

    fn saved(&self, repository: &str) -> Result<Folder, Error> {
        let saved = self.gitops.sub_or_make("saved", 0o750)?;
        saved.sub_or_make(&repository_file_name(repository), 0o750).map_err(Into::into)
    }
}

/// The name under which another's version of a file is kept.
pub(super) fn saved_name(file: &str, content: &[u8]) -> String {
    format!("{}.{}", file.replace('/', "__"), short(&digest(content)))
}

/// True for a unit, an instance of one of the templates, or a template's own name.
pub(super) fn concerns(units: &BTreeSet<String>, name: &str) -> bool {
    units.contains(name) || template_of(name).is_some_and(|template| units.contains(&template))
}
