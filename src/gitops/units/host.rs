use std::path::{Path, PathBuf};

use super::disk::UnitsFolder;
use super::manager::Found;
use super::manifest::Manifest;
use super::plan::Context;
use super::{Desired, Manager, OWN, Plan};
use crate::command::Error as CommandError;
use crate::config::{Config, Repository};
use crate::gitops::Error;
use crate::state::Folder;

/// The host's side of unit deployment: its manager, its units folder, and what the hub installed there.
#[derive(Debug)]
pub(in crate::gitops) struct Host {
    pub manager: Manager,
    pub(super) folder: UnitsFolder,
    /// Where `systemctl enable` makes its links.
    pub(super) enablement: UnitsFolder,
    pub(super) gitops: Folder,
    other_paths: Vec<PathBuf>,
}

impl Host {
    /// Opens the units folder of a manager.
    pub fn open(found: &Found, config: &Config, gitops: &Path) -> Result<Self, Error> {
        let manager = found.manager;
        let (path, enablement) = match manager {
            Manager::System => (config.gitops.units_dir.clone(), PathBuf::from("/etc/systemd/system")),
            Manager::User => (Manager::user_folder(), Manager::user_folder()),
        };
        let (folder, enablement) = (UnitsFolder::open(&path)?, UnitsFolder::open(&enablement)?);
        let real = path.canonicalize().unwrap_or(path);
        let is_other = |other: &PathBuf| other.canonicalize().map_or(true, |other| other != real);
        let other_paths = found.unit_path.iter().filter(|other| is_other(other)).cloned().collect();
        Ok(Self { manager, folder, enablement, gitops: Folder::open(gitops)?, other_paths })
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
            adopt,
        };
        context.plan(desired)
    }

    /// Records what is installed now. `enabled` are the files whose units were enabled in this run.
    pub fn record(&self, plan: &Plan, enabled: &[String]) -> Result<(), Error> {
        let mut manifest = Manifest::read(&self.gitops)?;
        let before = manifest.files.clone();
        for (file, owned) in &plan.files {
            match owned {
                Some(owned) => {
                    let mut owned = owned.clone();
                    owned.enabled_once |= enabled.contains(file);
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
        self.manager == Manager::System && OWN.contains(&unit)
    }

    /// Makes files and links durable that systemctl made.
    pub fn sync(&self) -> Result<(), Error> {
        self.enablement.sync_file_system().map_err(Into::into)
    }

    /// True where the hub installed something for a repository.
    pub fn has_units_of(gitops: &Folder, repository: &str) -> Result<bool, Error> {
        Ok(Manifest::read(gitops)?.of(repository).next().is_some())
    }

    /// Runs a verb on units; a failing job is the deployed commit's fault, not the hub's.
    pub(super) fn job(&self, verb: &[&str], units: &[String]) -> Result<(), Error> {
        let step = |error: CommandError| Error::Step { step: "units", reason: error.to_string() };
        self.manager.act(verb, units).map_err(step)
    }
}
