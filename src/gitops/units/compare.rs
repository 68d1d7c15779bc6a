//! What a commit wants, beside what the hub installed and what stands on the disk.

mod names;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::desired::{Desired, UnitFile};
use super::disk::{OnDisk, UnitsFolder, is_masked};
use super::manifest::{Manifest, Owned, digest, saved_name};
use super::mounts::Vital;
use super::plan::{Action, Line, Plan};
use super::unit_name::unit_of;
use crate::gitops::Error;
use crate::hint::hint;
use crate::records::short;
use crate::state::Way;
use crate::systemd::is_own;

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
    /// Whether the repository may deploy the hub's own units.
    pub own: bool,
    /// What no mount of another repository may hide.
    pub vital: &'a Vital,
    /// Units that `--adopt` names.
    pub adopt: &'a [String],
}

/// True where a unit file refuses that its unit is stopped by hand.
fn refuses_stop(content: &[u8]) -> bool {
    let content = String::from_utf8_lossy(content).into_owned();
    UnitFile { object: String::new(), content, is_link: false }.flag("Unit", "RefuseManualStop") == Some(true)
}

impl Context<'_> {
    /// Compares what the commit wants with the manifest and the disk.
    ///
    /// # Errors
    /// `Refused` with everything that forbids the deployment.
    pub fn plan(&self, desired: Desired) -> Result<Plan, Error> {
        let mut problems = desired.problems.clone();
        let mut plan = Plan { own: self.own, ..Plan::default() };
        for (file, wanted) in &desired.files {
            let disk = self.folder.look(file)?;
            let owned = self.manifest.files.get(file);
            let masked = is_masked(self.folder, self.other_paths, unit_of(file))?;
            let judged = match owned {
                _ if !self.own && is_own(unit_of(file)) => Err(format!(
                    "{file} is about a unit of the hub itself; write own = true for the repository in hub.toml if it may \
                     replace the hub"
                )),
                Some(owned) if owned.repository != self.repository => self.of_another(file, owned, wanted, &disk),
                _ if masked => Ok((Action::Masked, "masked on the host".to_owned(), false)),
                Some(owned) => Ok(self.owned(file, owned, wanted, &disk)),
                None => self.unowned(file, wanted, &disk),
            };
            let (action, reason, stale) = match judged {
                Ok((action, reason, stale)) => (action, reason + exception(&desired, file, action), stale),
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
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
                packaged: owned.and_then(|owned| owned.packaged),
            };
            // What stands under a mask is still the version that was installed.
            let stays =
                owned.filter(|owned| action == Action::Masked && content_digest(&disk).as_ref() == Some(&owned.digest));
            plan.files.insert(file.clone(), Some(stays.cloned().unwrap_or(entry)));
            plan.lines.push(Line {
                file: file.clone(),
                action,
                reason,
                old: owned.map(|owned| owned.object.clone()),
                new: Some(wanted.object.clone()),
                stale,
            });
        }
        let units: BTreeSet<&str> = desired.files.keys().map(|file| unit_of(file)).collect();
        for unit in units {
            // What cannot be read is a problem of the commit, which is told already.
            let Ok(install) = desired.install(unit) else { continue };
            for alias in install.alias.iter().filter(|alias| *alias != unit) {
                if let Err(problem) = self.check_alias(&desired, unit, alias) {
                    problems.push(format!("{unit}: Alias={alias}: {problem}"));
                }
            }
        }
        for (file, owned) in self.manifest.of(self.repository) {
            if !desired.files.contains_key(file) {
                let there = self.folder.look(file)?;
                let more = match &there {
                    OnDisk::Masked => "; its mask stays",
                    OnDisk::File(content) if refuses_stop(content) => {
                        "; it refuses to be stopped by hand and is stopped when its file is gone (RefuseManualStop=)"
                    }
                    _ => "",
                };
                let reason = format!("not in {} any more{more}", short(self.commit));
                plan.packaged.extend(owned.packaged.map(|packaged| (file.clone(), packaged)));
                let (old, new) = (Some(owned.object.clone()), None);
                plan.files.insert(file.clone(), None);
                plan.lines.push(Line { file: file.clone(), action: Action::Remove, reason, old, new, stale: true });
            }
        }
        if !problems.is_empty() {
            return Err(Error::Refused(format!("units refused: {}", crate::text::listed(&problems, "; "))));
        }
        plan.desired = desired;
        Ok(plan)
    }

    fn owned(&self, file: &str, owned: &Owned, wanted: &UnitFile, disk: &OnDisk) -> (Action, String, bool) {
        let as_wanted = wanted.is_at(disk);
        match disk {
            _ if as_wanted && owned.object == wanted.object => (Action::Keep, "as it should be".into(), false),
            _ if content_digest(disk).as_ref() == Some(&owned.digest) => {
                (Action::Change, format!("{} -> {}", short(&owned.object), short(&wanted.object)), true)
            }
            _ if as_wanted => (Action::Adopt, "the host has the new content already".into(), false),
            OnDisk::File(found) => {
                let kept = saved_name(file, found);
                (Action::Drift, format!("edited on the host since it was installed; kept in saved/ as {kept}"), true)
            }
            // `systemctl disable` takes an instance's link away; what runs is what the template says in any case.
            OnDisk::Missing => (Action::Drift, "removed on the host since it was installed".into(), !wanted.is_link),
            OnDisk::Link(target) => {
                (Action::Drift, format!("replaced on the host by a link to {}", target.display()), true)
            }
            OnDisk::Masked | OnDisk::Other => {
                (Action::Drift, "replaced on the host by something that is no unit file".into(), true)
            }
        }
    }

    /// A file that another repository owns. Of one that is gone from hub.toml it can be adopted.
    fn of_another(
        &self,
        file: &str,
        owned: &Owned,
        wanted: &UnitFile,
        disk: &OnDisk,
    ) -> Result<(Action, String, bool), String> {
        let owner = &owned.repository;
        if self.known.iter().any(|known| known.eq_ignore_ascii_case(owner)) {
            return Err(format!("{file} belongs to the repository {owner}; remove it there first"));
        }
        if !self.is_adopted(file) {
            return Err(format!(
                "{file} belongs to the repository {owner}, which is gone from hub.toml; where this is that repository under \
                 another name, write formerly = [\"{owner}\"]; else take the unit over with: {}, or remove all units \
                 of the other: {}",
                hint("gitops-sync", &format!("{} --adopt {}", self.repository, unit_of(file))),
                hint("hub", &format!("remove {owner}"))
            ));
        }
        let (action, reason, stale) = self.owned(file, owned, wanted, disk);
        let action = if action == Action::Keep { Action::Adopt } else { action };
        Ok((action, format!("adopted from {owner}: {reason}"), stale))
    }

    fn unowned(&self, file: &str, wanted: &UnitFile, disk: &OnDisk) -> Result<(Action, String, bool), String> {
        let unit = unit_of(file);
        let path = self.folder.path().join(file);
        let adopted = self.is_adopted(file);
        match disk {
            OnDisk::Missing => {
                if unit == file {
                    self.check_shadow(unit)?;
                    self.check_mount(unit)?;
                }
                Ok((Action::Add, "new in the repository".to_owned(), !wanted.is_link))
            }
            _ if wanted.is_at(disk) => Ok((Action::Adopt, "the same file is installed already".to_owned(), false)),
            OnDisk::Link(target) if self.is_into_checkout(target) => {
                let stale = self.linked_content(target).as_deref() != Some(wanted.content.as_bytes());
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
            OnDisk::Masked | OnDisk::Other => Err(format!("{} is no regular file; move it away", path.display())),
            OnDisk::File(_) | OnDisk::Link(_) => Err(format!(
                "{} was not installed by the hub; take it over with: {}",
                path.display(),
                hint("gitops-sync", &format!("{} --adopt {unit}", self.repository))
            )),
        }
    }

    fn is_adopted(&self, file: &str) -> bool {
        self.adopt.iter().any(|name| name == file || name == unit_of(file))
    }

    fn is_own(&self, file: &str) -> bool {
        self.manifest.files.get(file).is_some_and(|owned| owned.repository == self.repository)
    }

    fn is_into_checkout(&self, target: &Path) -> bool {
        let absolute = self.folder.path().join(target);
        absolute.parent().and_then(|parent| parent.canonicalize().ok())
            == self.source.canonicalize().ok().filter(|_| !self.source.as_os_str().is_empty())
    }

    fn linked_content(&self, target: &Path) -> Option<Vec<u8>> {
        let path = self.folder.path().join(target);
        let folder = Way::to_folder(path.parent()?).ok()?.into_folder();
        folder.read(path.file_name()?.to_str()?, 1 << 20).ok().flatten()
    }
}

impl UnitFile {
    /// True where this file, or link, stands at its place already.
    fn is_at(&self, disk: &OnDisk) -> bool {
        match disk {
            OnDisk::File(found) => !self.is_link && found == self.content.as_bytes(),
            OnDisk::Link(target) => self.is_link && target == Path::new(&self.content),
            _ => false,
        }
    }
}

/// The digest of a file, or of what a link points to, as the manifest has it.
fn content_digest(disk: &OnDisk) -> Option<String> {
    match disk {
        OnDisk::File(found) => Some(digest(found)),
        OnDisk::Link(target) => Some(digest(target.as_os_str().as_bytes())),
        _ => None,
    }
}

/// What a plan says of a file whose unit is not started or restarted like others.
fn exception(desired: &Desired, file: &str, action: Action) -> &'static str {
    let unit = unit_of(file);
    let is = |key: &str| desired.flag(unit, "Unit", key) == Some(true);
    match action {
        Action::Keep | Action::Masked | Action::Remove => "",
        Action::Add if unit == file && (is("RefuseManualStart") || is("RefuseManualStop")) => {
            "; not started: it refuses to be started or stopped by hand (RefuseManualStart=, RefuseManualStop=)"
        }
        Action::Add if unit == file => "",
        _ if desired.keeps_running(unit) => "; not restarted: X-RestartIfChanged=no",
        _ if is("RefuseManualStart") || is("RefuseManualStop") => {
            "; not restarted: it refuses to be started or stopped by hand (RefuseManualStart=, RefuseManualStop=)"
        }
        _ => "",
    }
}
