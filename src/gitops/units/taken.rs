use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::OnDisk;
use super::manifest::Manifest;
use super::plan::Action;
use super::unit_name::{is_template, template_of, unit_of};
use super::{Desired, Host, Plan};
use crate::config::Repository;
use crate::gitops::Error;
use crate::hint::hint;
use crate::state::Folder;
use crate::systemd;

/// How long systemd gets to say which names are taken.
const LIMIT: Duration = Duration::from_secs(30);
/// More drop-ins of one unit are not looked at.
const MOST_DROP_INS: usize = 1000;

impl Host {
    /// Refuses new names that are taken already: by what is active on this host without a file of that name (a mount by
    /// hand, a slice that systemd made), by what always is, by a socket, timer or path that waits for it, or by somebody's
    /// drop-ins, which would be in force.
    pub(super) fn check_new(
        &self,
        plan: &Plan,
        manifest: &Manifest,
        repository: &Repository,
        adopt: &[String],
    ) -> Result<(), Error> {
        let ours = |unit: &str| manifest.files.get(unit).is_some_and(|owned| owned.repository == repository.name);
        // Another instance of a template that is the repository's is the repository's.
        let is_known = |unit: &str| template_of(unit).is_some_and(|template| ours(&template));
        let mut names = BTreeSet::new();
        for line in plan.lines.iter().filter(|line| line.action == Action::Add && unit_of(&line.file) == line.file) {
            names.insert(line.file.clone());
        }
        for unit in plan.concerned() {
            for alias in plan.desired.install(&unit).unwrap_or_default().alias {
                if self.folder.look(&alias)? == OnDisk::Missing {
                    names.insert(alias);
                }
            }
        }
        names.retain(|name| !is_known(name) && !adopt.contains(name) && !self.is_own(name));
        let is_others = |unit: &str| !plan.desired.has_unit(unit) && !ours(unit) && !is_known(unit);
        let mut problems = self.taken(&names, is_others)?;
        for name in &names {
            for path in self.drop_ins(name)?.into_values() {
                let file = path.strip_prefix(self.folder.path()).unwrap_or(&path).to_string_lossy().into_owned();
                if !plan.desired.files.contains_key(&file) && !ours(&file) {
                    problems.push(format!("{name} is new and would get {}, which is not the hub's", path.display()));
                }
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "units refused: {}; choose another name, or take over what is there with: {}",
            problems.join("; "),
            hint("gitops-sync", &format!("{} --adopt UNIT", repository.name))
        )))
    }

    fn taken(&self, names: &BTreeSet<String>, is_others: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
        let mut problems = Vec::new();
        let names: Vec<String> = names
            .iter()
            .map(|name| if is_template(name) { name.replacen("@.", "@*.", 1) } else { name.clone() })
            .collect();
        for batch in names.chunks(200) {
            let systemctl = self.manager.command("systemctl", LIMIT).args(["--no-pager"]);
            let shown = systemd::show(systemctl, &["Id", "ActiveState", "Perpetual", "TriggeredBy"], batch)?;
            for block in shown.blocks() {
                let get = |key: &str| block.get(key);
                let state = get("ActiveState");
                let trigger = get("TriggeredBy").split_whitespace().find(|unit| is_others(unit));
                if get("Perpetual") == "yes" {
                    problems.push(format!("{} is always there on this host", get("Id")));
                } else if !matches!(state, "inactive" | "failed" | "") {
                    problems.push(format!("{} is {state} on this host, and not by the hub", get("Id")));
                } else if let Some(trigger) = trigger {
                    problems.push(format!("{} is what {trigger} starts, which is not the repository's", get("Id")));
                }
            }
        }
        Ok(problems)
    }

    /// The drop-ins that a unit has on this host, by their file names; of several with one name that which is in force.
    fn drop_ins(&self, unit: &str) -> Result<BTreeMap<String, PathBuf>, Error> {
        let mut found = BTreeMap::new();
        let template = template_of(unit);
        let others = self.other_paths.iter().map(PathBuf::as_path);
        let folders: Vec<&Path> = std::iter::once(self.folder.path()).chain(others).collect();
        for owner in [Some(unit), template.as_deref()].into_iter().flatten() {
            for folder in &folders {
                let path = folder.join(format!("{owner}.d"));
                let entries = match Folder::open(&path).and_then(|folder| folder.entries(MOST_DROP_INS)) {
                    Ok(entries) => entries,
                    Err(error) if error.is_missing() => continue,
                    Err(error) => return Err(error.into()),
                };
                for name in
                    entries.iter().filter_map(|entry| entry.name.to_str()).filter(|name| name.ends_with(".conf"))
                {
                    found.entry(name.to_owned()).or_insert_with(|| path.join(name));
                }
            }
        }
        Ok(found)
    }

    /// The drop-ins of a unit that are not the commit's, by their file names, as far as they can be read.
    pub(super) fn others_drop_ins(&self, unit: &str, desired: &Desired) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut others = BTreeMap::new();
        for (name, path) in self.drop_ins(unit)? {
            let is_ours = path.strip_prefix(self.folder.path()).ok().and_then(Path::to_str);
            if is_ours.is_some_and(|file| desired.files.contains_key(file)) {
                continue;
            }
            let folder = path.parent().map(Folder::open).transpose()?;
            // A link, or what is too long: what it says is not asked, and what comes of it is taken back.
            if let Some(Ok(Some(content))) = folder.map(|folder| folder.read(&name, 1 << 20)) {
                others.insert(name, content);
            }
        }
        Ok(others)
    }
}
