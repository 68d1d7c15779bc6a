use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::desired::Desired;
use super::disk::{OnDisk, UnitsFolder};
use super::manifest::{Manifest, Owned, digest};
use super::restore::saved_name;
use super::{OWN, is_template, is_unit_name, template_of, unit_of};
use crate::gitops::Error;
use crate::records::short;
use crate::state::Folder;

/// What is to be done with one unit file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::gitops) enum Action {
    /// New in the commit: installed, enabled and started where it has `[Install]`.
    Add,
    /// Other content in the commit: replaced.
    Change,
    /// Gone from the commit: stopped, disabled, removed.
    Remove,
    /// The host's file is not what the hub installed: replaced, the host's version kept.
    Drift,
    /// Somebody else installed the same file: the hub looks after it from now on.
    Adopt,
    /// Masked by the operator: left alone.
    Masked,
    /// As it should be.
    Keep,
}

impl Action {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Drift => "drift",
            Self::Adopt => "adopt",
            Self::Masked => "masked",
            Self::Keep => "keep",
        }
    }
}

/// One unit file of a plan, with the reason.
#[derive(Clone, Debug, Serialize)]
pub(in crate::gitops) struct Line {
    /// Its place below the units folder.
    pub file: String,
    pub action: Action,
    pub reason: String,
    /// git's name of the content before.
    pub old: Option<String>,
    /// git's name of the content after.
    pub new: Option<String>,
    /// Whether the running unit has other content than the file will have.
    #[serde(skip)]
    pub stale: bool,
}

impl Line {
    /// True where something on the host changes.
    pub fn acts(&self) -> bool {
        !matches!(self.action, Action::Keep | Action::Masked) && (self.action != Action::Adopt || self.stale)
    }
}

/// What is to be done with the unit files of one repository.
#[derive(Debug, Default)]
pub(in crate::gitops) struct Plan {
    pub lines: Vec<Line>,
    pub desired: Desired,
    /// The manifest as it will be.
    pub(super) files: BTreeMap<String, Option<Owned>>,
}

/// What a plan is made from.
pub(super) struct Context<'a> {
    pub repository: &'a str,
    pub commit: &'a str,
    /// The folder of units in the checkout, for links into it.
    pub source: PathBuf,
    pub folder: &'a UnitsFolder,
    pub manifest: &'a Manifest,
    /// The other folders that the manager loads units from.
    pub other_paths: &'a [PathBuf],
    /// What the repositories of hub.toml are called, and were.
    pub known: &'a [String],
    /// Units that `--adopt` names.
    pub adopt: &'a [String],
}

impl Plan {
    /// True where nothing on the host changes.
    pub fn is_idle(&self) -> bool {
        !self.lines.iter().any(Line::acts)
    }

    pub(super) fn acting(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.acts())
    }

    /// True where the unit was enabled for the operator before: what became of that is the operator's.
    pub(super) fn was_enabled_once(&self, file: &str) -> bool {
        self.files.get(file).and_then(Option::as_ref).is_some_and(|owned| owned.enabled_once)
    }

    /// False for units that go with this plan, or are masked.
    pub(super) fn may_restart(&self, unit: &str) -> bool {
        let settled = [Action::Remove, Action::Masked];
        !self.lines.iter().any(|line| line.file == unit && settled.contains(&line.action))
    }

    /// The units (templates included) whose files change.
    pub fn units(&self) -> BTreeSet<String> {
        self.acting().map(|line| unit_of(&line.file).to_owned()).collect()
    }
}

impl Context<'_> {
    /// Compares what the commit wants with the manifest and the disk.
    ///
    /// # Errors
    /// `Refused` with everything that forbids the deployment.
    pub fn plan(&self, desired: Desired) -> Result<Plan, Error> {
        let mut problems = desired.problems.clone();
        let mut plan = Plan::default();
        for (file, wanted) in &desired.files {
            let disk = self.folder.look(file)?;
            let owned = self.manifest.files.get(file);
            let judged = match owned {
                Some(owned) if owned.repository != self.repository => {
                    self.of_another(file, owned, &wanted.object, wanted.content.as_bytes(), &disk)
                }
                Some(owned) => Ok(self.owned(file, owned, &wanted.object, wanted.content.as_bytes(), &disk)),
                None => self.unowned(file, wanted.content.as_bytes(), &disk),
            };
            let (action, reason, stale) = match judged {
                Ok(judged) => judged,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            if let Err(problem) = self.check_aliases(file, &wanted.install("Alias")) {
                problems.push(problem);
            }
            let entry = Owned {
                repository: self.repository.to_owned(),
                object: wanted.object.clone(),
                digest: digest(wanted.content.as_bytes()),
                commit: match owned {
                    Some(owned) if owned.object == wanted.object => owned.commit.clone(),
                    _ => self.commit.to_owned(),
                },
                // Who had it before the hub decided about its enablement already.
                enabled_once: owned.is_some_and(|owned| owned.enabled_once)
                    || (owned.is_none() && action != Action::Add),
            };
            plan.files.insert(file.clone(), Some(entry));
            plan.lines.push(Line {
                file: file.clone(),
                action,
                reason,
                old: owned.map(|owned| owned.object.clone()),
                new: Some(wanted.object.clone()),
                stale,
            });
        }
        for (file, owned) in self.manifest.of(self.repository) {
            if !desired.files.contains_key(file) {
                let stays = if self.folder.look(file)? == OnDisk::Masked { "; its mask stays" } else { "" };
                let reason = format!("not in {} any more{stays}", short(self.commit));
                let (old, new) = (Some(owned.object.clone()), None);
                plan.files.insert(file.clone(), None);
                plan.lines.push(Line { file: file.clone(), action: Action::Remove, reason, old, new, stale: true });
            }
        }
        if !problems.is_empty() {
            return Err(Error::Refused(format!("units refused: {}", problems.join("; "))));
        }
        plan.desired = desired;
        Ok(plan)
    }

    fn owned(&self, file: &str, owned: &Owned, object: &str, content: &[u8], disk: &OnDisk) -> (Action, String, bool) {
        match disk {
            OnDisk::Masked => (Action::Masked, "masked on the host".to_owned(), false),
            OnDisk::File(found) if found == content && owned.object == object => {
                (Action::Keep, "as it should be".into(), false)
            }
            OnDisk::File(found) if digest(found) == owned.digest => {
                (Action::Change, format!("{} -> {}", short(&owned.object), short(object)), true)
            }
            OnDisk::File(found) if found == content => {
                (Action::Adopt, "the host has the new content already".into(), false)
            }
            OnDisk::File(found) => {
                let kept = saved_name(file, found);
                (Action::Drift, format!("edited on the host since it was installed; kept in saved/ as {kept}"), true)
            }
            OnDisk::Missing => (Action::Drift, "removed on the host since it was installed".into(), true),
            OnDisk::Link(target) => {
                (Action::Drift, format!("replaced on the host by a link to {}", target.display()), true)
            }
            OnDisk::Other => (Action::Drift, "replaced on the host by something that is no unit file".into(), true),
        }
    }

    /// A file that another repository owns. Of one that is gone from hub.toml it can be adopted.
    fn of_another(
        &self,
        file: &str,
        owned: &Owned,
        object: &str,
        content: &[u8],
        disk: &OnDisk,
    ) -> Result<(Action, String, bool), String> {
        let owner = &owned.repository;
        if self.known.iter().any(|known| known.eq_ignore_ascii_case(owner)) {
            return Err(format!("{file} belongs to the repository {owner}; remove it there first"));
        }
        if !self.is_adopted(file) {
            return Err(format!(
                "{file} belongs to the repository {owner}, which is gone from hub.toml; where this is that repository under \
                 another name, write formerly = [\"{owner}\"]; else take the unit over with: gitops-sync {} --adopt {}, or \
                 remove all units of the other: hub remove {owner}",
                self.repository,
                unit_of(file)
            ));
        }
        let (action, reason, stale) = self.owned(file, owned, object, content, disk);
        let action = if action == Action::Keep { Action::Adopt } else { action };
        Ok((action, format!("adopted from {owner}: {reason}"), stale))
    }

    fn is_adopted(&self, file: &str) -> bool {
        self.adopt.iter().any(|name| name == file || name == unit_of(file))
    }

    fn unowned(&self, file: &str, content: &[u8], disk: &OnDisk) -> Result<(Action, String, bool), String> {
        let unit = unit_of(file);
        let path = self.folder.path().join(file);
        let adopted = self.is_adopted(file);
        match disk {
            OnDisk::Masked => Ok((Action::Masked, "masked on the host".to_owned(), false)),
            OnDisk::Missing => {
                if unit == file {
                    self.check_shadow(unit)?;
                }
                Ok((Action::Add, "new in the repository".to_owned(), true))
            }
            OnDisk::File(found) if found == content => {
                Ok((Action::Adopt, "the same file is installed already".to_owned(), false))
            }
            OnDisk::Link(target) if self.is_into_checkout(target) => {
                let stale = self.linked_content(target).as_deref() != Some(content);
                // The link itself gives way to a file in any case.
                Ok((Action::Change, "was a link into the checkout".to_owned(), stale))
            }
            OnDisk::File(found) if adopted => {
                let kept = saved_name(file, found);
                Ok((Action::Change, format!("adopted; the host's version is kept in saved/ as {kept}"), true))
            }
            OnDisk::Link(target) if adopted => {
                Ok((Action::Change, format!("adopted; was a link to {}", target.display()), true))
            }
            OnDisk::Other => Err(format!("{} is no regular file; move it away", path.display())),
            OnDisk::File(_) | OnDisk::Link(_) => Err(format!(
                "{} was not installed by the hub; take it over with: gitops-sync {} --adopt {unit}",
                path.display(),
                self.repository
            )),
        }
    }

    /// A file of an existing unit's name would replace that unit.
    fn check_shadow(&self, unit: &str) -> Result<(), String> {
        if OWN.contains(&unit) {
            return Ok(());
        }
        let template = template_of(unit);
        for name in [Some(unit), template.as_deref()].into_iter().flatten() {
            let found =
                self.other_paths.iter().map(|folder| folder.join(name)).find(|path| path.symlink_metadata().is_ok());
            if let Some(path) = found {
                return Err(format!("{unit} would replace {}; choose another name", path.display()));
            }
        }
        if let Some(template) = template {
            let ours = self.manifest.files.get(&template).is_some_and(|owned| owned.repository == self.repository);
            let there = self.folder.look(&template).map_err(|error| error.to_string())? != OnDisk::Missing;
            if there && !ours {
                let path = self.folder.path().join(&template);
                return Err(format!("{unit} would replace an instance of {}; choose another name", path.display()));
            }
        }
        Ok(())
    }

    fn check_aliases(&self, file: &str, aliases: &[&str]) -> Result<(), String> {
        for alias in aliases {
            if !is_unit_name(alias) || is_template(file) != is_template(alias) {
                return Err(format!("{file}: Alias={alias} is not a name for it"));
            }
            self.check_shadow(alias).map_err(|problem| format!("{file}: Alias={alias}: {problem}"))?;
            let ours = |target: &Path| target.file_name().is_some_and(|name| name == file);
            match self.folder.look(alias).map_err(|error| error.to_string())? {
                OnDisk::Missing => {}
                OnDisk::Link(target) if ours(&target) => {}
                _ => return Err(format!("{file}: Alias={alias} is the name of another unit of this host")),
            }
        }
        Ok(())
    }

    fn is_into_checkout(&self, target: &Path) -> bool {
        let absolute = self.folder.path().join(target);
        absolute.parent().and_then(|parent| parent.canonicalize().ok())
            == self.source.canonicalize().ok().filter(|_| !self.source.as_os_str().is_empty())
    }

    fn linked_content(&self, target: &Path) -> Option<Vec<u8>> {
        let path = self.folder.path().join(target);
        let folder = Folder::open(path.parent()?).ok()?;
        folder.read(path.file_name()?.to_str()?, 1 << 20).ok().flatten()
    }
}
