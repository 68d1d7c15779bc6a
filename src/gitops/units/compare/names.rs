//! Whether a unit may have a name: none that is somebody else's, or that hides what the hub lives on.

use std::ffi::OsStr;
use std::path::Path;

use super::Context;
use crate::gitops::units::desired::Desired;
use crate::gitops::units::disk::OnDisk;
use crate::gitops::units::unit_name::{is_made_up, is_prefix, is_unit_name, template_of};
use crate::systemd::is_own;

impl Context<'_> {
    /// A file of an existing unit's name would replace that unit.
    pub(super) fn check_shadow(&self, unit: &str) -> Result<(), String> {
        // Only who may replace the hub comes here with one.
        if is_own(unit) {
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

    pub(super) fn check_mount(&self, unit: &str) -> Result<(), String> {
        match self.vital.hidden_by(unit).filter(|_| !self.own) {
            None => Ok(()),
            Some(place) => Err(format!(
                "{unit} would hide {}, without which the hub can take nothing back; mount it by hand, or write own = true for the \
                 repository in hub.toml",
                place.display()
            )),
        }
    }

    pub(super) fn check_alias(&self, desired: &Desired, unit: &str, alias: &str) -> Result<(), String> {
        if is_own(alias) {
            return Err("is a unit of the hub itself".to_owned());
        }
        if !is_unit_name(alias) || is_prefix(alias) || is_made_up(alias) {
            return Err("is not a name for it".to_owned());
        }
        self.check_shadow(alias)?;
        let file = [Some(unit.to_owned()), template_of(unit)].into_iter().flatten();
        let file = file.into_iter().find(|name| desired.files.get(name).is_some_and(|file| !file.is_link));
        let ours = |target: &Path| target.file_name().and_then(OsStr::to_str) == Some(file.as_deref().unwrap_or(unit));
        match self.folder.look(alias).map_err(|error| error.to_string())? {
            OnDisk::Missing => Ok(()),
            OnDisk::Link(target) if ours(&target) => Ok(()),
            OnDisk::File(_) if self.is_own(alias) && !desired.files.contains_key(alias) => Ok(()),
            OnDisk::Link(target) if self.gives_up(desired, &target, alias) => Ok(()),
            // What a package left when it went may point nowhere.
            OnDisk::Link(target) => Err(format!(
                "is the name of another unit of this host: {} is a link to {}",
                self.folder.path().join(alias).display(),
                target.display()
            )),
            _ => Err("is the name of another unit of this host".to_owned()),
        }
    }

    /// True where the unit of the repository that a link points to goes, or has that name no more.
    fn gives_up(&self, desired: &Desired, target: &Path, alias: &str) -> bool {
        let Some(unit) = target.file_name().and_then(OsStr::to_str).filter(|unit| self.is_own(unit)) else {
            return false;
        };
        let keeps =
            |unit: &str| desired.install(unit).map_or(true, |install| install.alias.iter().any(|name| name == alias));
        !desired.files.contains_key(unit) || !keeps(unit)
    }
}
