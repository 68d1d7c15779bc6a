use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::OnDisk;
use super::manifest::{Manifest, Owned};
use super::{Host, OWN, Plan, is_template, template_of};
use crate::gitops::Error;
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
    /// Those of them that were active.
    active: BTreeSet<String>,
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
        self.active.contains(unit)
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
            let previous = match self.folder.look(file)? {
                OnDisk::Missing => Previous::Missing,
                OnDisk::Masked => Previous::Link("/dev/null".into()),
                OnDisk::Link(target) => Previous::Link(target),
                OnDisk::File(content) => {
                    let acts = plan.lines.iter().any(|line| line.file == *file && line.acts());
                    if !acts {
                        continue;
                    }
                    let name = format!("{number}-{}", file.replace('/', "__"));
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
        before.links = self.folder.links(|name| concerns(&before.units, name))?;
        for template in before.units.clone().iter().filter(|unit| is_template(unit)) {
            before.units.extend(self.manager.instances(template)?);
        }
        let asked: Vec<String> = before.units.iter().filter(|unit| !is_template(unit)).cloned().collect();
        for (unit, state) in self.manager.show(&asked)? {
            if state.is_failed() {
                before.failed.insert(unit);
            } else if state.is_active() && !state.is_oneshot() {
                before.active.insert(unit);
            }
        }
        Ok(before)
    }

    /// Puts files, enablement and manifest back as they were. What the deployment started and was not active before is
    /// stopped first, while its file is still there.
    pub fn restore_files(&self, before: &Before, repository: &str) -> Result<(), Error> {
        let mut added: Vec<String> = Vec::new();
        for (file, previous) in &before.files {
            if matches!(previous, Previous::Missing) && !file.contains('/') && !OWN.contains(&file.as_str()) {
                match is_template(file) {
                    true => added.extend(self.manager.instances(file)?),
                    false => added.push(file.clone()),
                }
            }
        }
        let states = self.manager.show(&added)?;
        added.retain(|unit| states.get(unit).is_some_and(|state| state.is_active() || state.is_failed()));
        self.job(&["stop"], &added)?;
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
        let now = self.folder.links(|name| concerns(&before.units, name))?;
        for (link, _) in now.iter().filter(|link| !before.links.contains(link)) {
            self.folder.remove(link)?;
        }
        for (link, target) in before.links.iter().filter(|link| !now.contains(link)) {
            self.folder.link(link, target)?;
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
        let failed: Vec<String> =
            added.into_iter().filter(|unit| states.get(unit).is_some_and(|s| s.is_failed())).collect();
        let still = self.manager.show(&failed)?;
        let failed: Vec<String> =
            failed.into_iter().filter(|unit| still.get(unit).is_some_and(|s| s.is_failed())).collect();
        self.manager.act(&["reset-failed"], &failed).map_err(Into::into)
    }

    /// Brings the units that were active back to running the restored version.
    ///
    /// # Errors
    /// When one of them does not come back.
    pub fn restore_jobs(&self, before: &Before) -> Result<(), Error> {
        let own = |unit: &&String| OWN.contains(&unit.as_str());
        let back: Vec<String> = before.active.iter().filter(|unit| !own(unit)).cloned().collect();
        let failed_now = self.manager.show(&back)?;
        let failed: Vec<String> =
            back.iter().filter(|unit| failed_now.get(*unit).is_some_and(|state| state.is_failed())).cloned().collect();
        self.manager.act(&["reset-failed"], &failed)?;
        for unit in &back {
            self.restart(unit, "restart")?;
        }
        let states = self.manager.show(&back)?;
        let down: Vec<&str> = back
            .iter()
            .filter(|unit| !states.get(*unit).is_some_and(|state| state.is_active()))
            .map(String::as_str)
            .collect();
        if down.is_empty() {
            return Ok(());
        }
        Err(Error::Step { step: "rollback", reason: format!("{} did not come back", down.join(", ")) })
    }

    fn saved(&self, repository: &str) -> Result<Folder, Error> {
        let saved = self.gitops.sub_or_make("saved", 0o750)?;
        saved.sub_or_make(&repository_file_name(repository), 0o750).map_err(Into::into)
    }
}

/// True for a unit, an instance of one of the templates, or a template's own name.
fn concerns(units: &BTreeSet<String>, name: &str) -> bool {
    units.contains(name) || template_of(name).is_some_and(|template| units.contains(&template))
}
