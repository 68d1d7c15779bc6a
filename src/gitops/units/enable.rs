use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::applied::Applied;
use super::desired::Desired;
use super::disk::{OnDisk, is_masked};
use super::plan::Action;
use super::unit_name::{is_template, template_of, unit_of};
use super::{Host, Plan};
use crate::gitops::Error;
use crate::log;
use crate::systemd::install::Install;

/// A unit whose enablement a plan changes.
pub(super) struct Reenabled {
    unit: String,
    /// The links that its old files stand for.
    links: BTreeSet<String>,
    /// The default instance that a template had.
    instance: Option<String>,
}

/// Links in the folder of installed units, with what they point to.
type Links = BTreeMap<String, PathBuf>;

impl Host {
    /// The enabled units whose `[Install]` changes, in their file or a drop-in: their links are to be made anew, the others'
    /// stay as they are.
    pub(super) fn reenabled(&self, plan: &Plan) -> Result<Vec<Reenabled>, Error> {
        let old = self.installed(plan)?;
        let mut changed = Vec::new();
        for unit in plan.concerned() {
            if !old.files.contains_key(&unit) || !plan.was_enabled_once(&unit) || !plan.may_restart(&unit) {
                continue;
            }
            // What the operator wrote there instead may be anything.
            let before = old.install(&unit).unwrap_or_default();
            if Ok(&before) != plan.desired.install(&unit).as_ref() && self.manager.is_enabled(&unit)? {
                let links = before.links().into_keys().collect();
                changed.push(Reenabled { unit, links, instance: before.default_instance });
            }
        }
        Ok(changed)
    }

    /// The plan's files as they are installed now.
    fn installed(&self, plan: &Plan) -> Result<Desired, Error> {
        let mut old = Desired::default();
        for line in &plan.lines {
            let (content, is_link) = match self.folder.look(&line.file)? {
                OnDisk::File(content) => (String::from_utf8_lossy(&content).into_owned(), false),
                OnDisk::Link(target) => (target.to_string_lossy().into_owned(), true),
                _ => continue,
            };
            let object = line.old.clone().unwrap_or_default();
            old.files.insert(line.file.clone(), super::desired::UnitFile { object, content, is_link });
        }
        Ok(old)
    }

    /// Enables what is new and has `[Install]`, once, and makes the links of the reenabled units anew; returns the units to
    /// start.
    ///
    /// # Errors
    /// Where systemd makes another link than the files of the commit stand for; that link is gone again.
    pub(super) fn enable(
        &self,
        plan: &Plan,
        reenabled: &[Reenabled],
        applied: &mut Applied,
    ) -> Result<Vec<String>, Error> {
        let mut before = self.all_links()?;
        for link in reenabled.iter().flat_map(|one| &one.links).filter(|link| before.remove(*link).is_some()) {
            self.enablement.remove(link)?;
        }
        let mut installs = BTreeMap::new();
        for line in plan.acting().filter(|line| unit_of(&line.file) == line.file && line.action != Action::Remove) {
            let install = self.install_of(plan, &line.file)?;
            let is_masked = is_masked(&self.folder, &self.other_paths, &started(&line.file, &install))?;
            if can_be_enabled(&line.file, &install) && !is_masked && !plan.was_enabled_once(&line.file) {
                installs.insert(line.file.clone(), install);
            }
        }
        let new: Vec<String> = installs.keys().cloned().collect();
        for one in reenabled {
            let install = self.install_of(plan, &one.unit)?;
            if can_be_enabled(&one.unit, &install) {
                installs.insert(one.unit.clone(), install);
            }
        }
        let units: Vec<String> = installs.keys().cloned().collect();
        let result = self.set(&["enable", "--no-reload", "--quiet"], &units);
        let made = self.check_links(plan, &before, &installs)?;
        result?;
        let mut start = Vec::new();
        for (unit, install) in &installs {
            let planned = install.links();
            if !planned.is_empty() && !planned.keys().any(|link| made.contains(link)) {
                let reason = "this systemd knows nothing of what its [Install] section has";
                log::warn!("unit_not_enabled", repo = applied.repository(), unit = unit, reason = reason);
                continue;
            }
            let started = started(unit, install);
            if new.contains(unit) {
                let reason = plan.lines.iter().find(|line| line.file == *unit).map_or("", |line| &line.reason);
                applied.did(unit, "enabled", reason, Some(unit));
                applied.enabled.push(unit.clone());
                start.push(started);
            } else if reenabled.iter().any(|one| one.unit == *unit && one.instance != install.default_instance) {
                start.push(started);
            }
        }
        Ok(start)
    }

    /// The instances that were templates' default ones and are no more.
    pub(super) fn left_instances(&self, plan: &Plan, reenabled: &[Reenabled]) -> Vec<String> {
        let left = |one: &Reenabled| {
            let old = one.instance.clone()?;
            let now = plan.desired.install(&one.unit).ok()?.default_instance;
            let name = one.unit.replacen("@.", &format!("@{old}."), 1);
            (now != Some(old) && !plan.desired.files.contains_key(&name)).then_some(name)
        };
        reenabled.iter().filter_map(left).collect()
    }

    /// A unit's `[Install]` by the commit, and where the host has drop-ins for it, by these too.
    fn install_of(&self, plan: &Plan, unit: &str) -> Result<Install, Error> {
        let others = self.others_drop_ins(unit, &plan.desired)?;
        let whole = plan.desired.install_with(unit, &others);
        whole.or_else(|_| plan.desired.install(unit)).map_err(Error::Refused)
    }

    /// Compares the links that there are with those that were there and those that were planned. Links of units that
    /// `Also=` took along go, since each unit is enabled for its own sake; any other is an error once it is gone.
    ///
    /// Returns the names of the links that there are.
    fn check_links(
        &self,
        plan: &Plan,
        before: &Links,
        installs: &BTreeMap<String, Install>,
    ) -> Result<BTreeSet<String>, Error> {
        let mut now = self.all_links()?;
        let planned: BTreeMap<String, String> = installs.values().flat_map(Install::links).collect();
        // What somebody else enables or disables in these moments is theirs. Units that `Also=` takes along may take more along.
        let takes_along = installs.values().any(|install| !install.also.is_empty());
        let is_ours = |target: &str| {
            takes_along || installs.keys().any(|unit| unit == target || template_of(unit).as_deref() == Some(target))
        };
        let mut odd = Vec::new();
        for (link, target) in now.clone() {
            let points_to = file_name(&target);
            if !is_ours(points_to)
                || before.get(&link) == Some(&target)
                || planned.get(&link).is_some_and(|file| file == points_to)
            {
                continue;
            }
            self.enablement.remove(&link)?;
            now.remove(&link);
            let is_also = installs.values().flat_map(|install| &install.also).any(|also| {
                let file = if plan.desired.files.get(also).is_some_and(|file| file.is_link) {
                    template_of(also)
                } else {
                    None
                };
                file.as_deref().unwrap_or(also) == points_to
            });
            if !is_also {
                odd.push(format!("{link} -> {}", target.display()));
            }
        }
        // None of these units' other links may go either.
        let is_gone = |link: &String, target: &Path| !now.contains_key(link) && is_ours(file_name(target));
        for (link, target) in before.iter().filter(|(link, target)| is_gone(link, target)) {
            self.enablement.link(link, target)?;
        }
        if odd.is_empty() {
            return Ok(now.into_keys().collect());
        }
        let reason = format!("systemctl enable made links that the commit does not stand for: {}", odd.join(", "));
        Err(Error::Step { step: "units", reason })
    }

    fn all_links(&self) -> Result<Links, Error> {
        Ok(self.enablement.all_links()?.into_iter().collect())
    }
}

/// True where `[Install]` has something for a unit, and a template has an instance that it is for.
fn can_be_enabled(unit: &str, install: &Install) -> bool {
    let lacks_instance = is_template(unit) && install.default_instance.is_none();
    !lacks_instance && (!install.links().is_empty() || !install.also.is_empty())
}

/// The unit file that a link points to.
fn file_name(target: &Path) -> &str {
    target.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The unit that is started where one is enabled: of a template its default instance.
fn started(unit: &str, install: &Install) -> String {
    match (&install.default_instance, unit.split_once("@.")) {
        (Some(instance), Some((name, kind))) => format!("{name}@{instance}.{kind}"),
        _ => unit.to_owned(),
    }
}
