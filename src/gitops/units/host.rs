use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::compare::Context;
use super::disk::UnitsFolder;
use super::manager::Found;
use super::manifest::Manifest;
use super::mounts::Vital;
use super::unit_name::{is_last, unit_of};
use super::{Action, Applied, Desired, Line, Manager, Plan};
use crate::command::Error as CommandError;
use crate::config::{Config, Repository};
use crate::gitops::Error;
use crate::state::{Error as StateError, Folder};
use crate::systemd::is_own;

/// The host's side of unit deployment: its manager, its units folder, and what the hub installed there.
#[derive(Debug)]
pub(in crate::gitops) struct Host {
    pub manager: Manager,
    pub(super) folder: UnitsFolder,
    /// Where `systemctl enable` makes its links.
    pub(super) enablement: UnitsFolder,
    pub(super) gitops: Folder,
    /// The folders that the manager loads units from, and those of them that are not the units folder.
    pub(super) unit_path: Vec<PathBuf>,
    pub(super) other_paths: Vec<PathBuf>,
    /// How long a job may take whose unit has no limit.
    pub(super) command_timeout: Duration,
    /// What the repositories of hub.toml are called, and were.
    known: Vec<String>,
    vital: Vital,
}

impl Host {
    pub fn open(found: &Found, config: &Config, gitops: &Path) -> Result<Self, Error> {
        let manager = found.manager;
        let (path, enablement) = match manager {
            Manager::System => (config.gitops.units_dir.clone(), PathBuf::from("/etc/systemd/system")),
            Manager::User => (Manager::user_folder(), Manager::user_folder()),
        };
        let (folder, enablement) = (UnitsFolder::open(&path)?, UnitsFolder::open(&enablement)?);
        let vital = Vital::of(config, &path);
        let real = path.canonicalize().unwrap_or(path);
        let is_other = |other: &PathBuf| other.canonicalize().map_or(true, |other| other != real);
        let other_paths = found.unit_path.iter().filter(|other| is_other(other)).cloned().collect();
        let known = config.repositories.iter().flat_map(Repository::names).map(str::to_owned).collect();
        let unit_path = found.unit_path.clone();
        let command_timeout = Duration::from_secs(config.gitops.command_timeout_seconds);
        let gitops = Folder::open(gitops)?;
        Ok(Self { manager, folder, enablement, gitops, unit_path, other_paths, command_timeout, known, vital })
    }

    /// Compares what a commit wants with what is installed.
    pub fn plan(
        &self,
        repository: &Repository,
        commit: &str,
        desired: Desired,
        adopt: &[String],
    ) -> Result<Plan, Error> {
        let manifest = Manifest::read(&self.gitops)?;
        let context = Context {
            repository: &repository.name,
            commit,
            source: repository.path.join(&repository.units),
            folder: &self.folder,
            manifest: &manifest,
            other_paths: &self.other_paths,
            known: &self.known,
            own: repository.own || self.manager == Manager::User,
            vital: &self.vital,
            adopt,
        };
        let plan = context.plan(desired)?;
        self.check_new(&plan, &manifest, repository, adopt)?;
        Ok(plan)
    }

    /// Records what is installed now, and what of it this run enabled.
    pub fn record(&self, plan: &Plan, applied: Option<&Applied>) -> Result<(), Error> {
        let mut manifest = Manifest::read(&self.gitops)?;
        let before = manifest.files.clone();
        for (file, owned) in &plan.files {
            match owned {
                Some(owned) => {
                    let mut owned = owned.clone();
                    if let Some(applied) = applied {
                        owned.enabled_once |= applied.enabled.contains(file);
                        owned.packaged = owned.packaged.or(applied.packaged.get(file).copied());
                    }
                    manifest.files.insert(file.clone(), owned);
                }
                None => {
                    manifest.files.remove(file);
                }
            }
        }
        if manifest.files != before {
            manifest.write(&self.gitops)?;
        }
        Ok(())
    }

    /// True for the hub's own units, where they are the host's.
    pub(super) fn is_own(&self, unit: &str) -> bool {
        self.manager == Manager::System && is_own(unit)
    }

    /// True for the worker's own units, where they are the host's: their turn comes when the result is durable.
    pub(super) fn is_workers(&self, unit: &str) -> bool {
        self.manager == Manager::System && is_last(unit)
    }

    /// True where a package, or somebody else, has a unit of the same name that a file in the units folder stands over.
    pub(super) fn is_packaged(&self, file: &str) -> bool {
        self.other_paths.iter().any(|folder| folder.join(file).symlink_metadata().is_ok())
    }

    /// Makes files and links durable that systemctl made.
    pub fn sync(&self) -> Result<(), Error> {
        self.enablement.sync_file_system().map_err(Into::into)
    }

    /// The unit files that the hub installed, by the repository that they belong to.
    pub fn owners(gitops: &Folder) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (file, owned) in Manifest::read(gitops)?.files {
            owners.entry(owned.repository).or_default().push(file);
        }
        Ok(owners)
    }

    /// The unit files that the hub installed for a repository.
    pub fn units_of_repository(gitops: &Folder, repository: &str) -> Result<Vec<String>, Error> {
        Ok(Manifest::read(gitops)?.of(repository).map(|(file, _)| file.clone()).collect())
    }

    /// True where unit files still belong to a repository under a former name.
    pub fn has_units_of_former(gitops: &Folder, repository: &Repository) -> Result<bool, StateError> {
        Ok(Manifest::read(gitops)?.former(repository).next().is_some())
    }

    /// Makes unit files that belong to a repository under a former name its own; returns how many.
    pub fn take_over(gitops: &Folder, repository: &Repository) -> Result<usize, StateError> {
        let mut manifest = Manifest::read(gitops)?;
        let taken = manifest.former(repository).map(|owned| owned.repository.clone_from(&repository.name)).count();
        if taken > 0 {
            manifest.write(gitops)?;
        }
        Ok(taken)
    }

    /// How the units of a repository that is gone are removed; besides, files of the hub's own units, which stay.
    pub fn plan_removal(&self, repository: &str) -> Result<(Plan, Vec<String>), Error> {
        let (mut plan, mut own) = (Plan::default(), Vec::new());
        for (file, owned) in Manifest::read(&self.gitops)?.of(repository) {
            plan.files.insert(file.clone(), None);
            if self.is_own(unit_of(file)) {
                own.push(file.clone());
                continue;
            }
            let reason = format!("the repository {repository} is gone from hub.toml");
            let (action, old) = (Action::Remove, Some(owned.object.clone()));
            plan.lines.push(Line { file: file.clone(), action, reason, old, new: None, stale: true });
        }
        Ok((plan, own))
    }

    /// Changes links or marks of units; where that fails, the deployed commit is at fault, not the hub.
    pub(super) fn set(&self, verb: &[&str], units: &[String]) -> Result<(), Error> {
        let step = |error: CommandError| Error::Step { step: "units", reason: error.to_string() };
        self.manager.set(verb, units).map_err(step)
    }
}
