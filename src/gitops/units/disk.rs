use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::unit_name::pointed;
use crate::state::{Error, Folder};

/// Longer files than this are never compared, only replaced or refused.
const LARGEST: usize = 1 << 20;

/// What stands at a unit file's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OnDisk {
    Missing,
    File(Vec<u8>),
    /// A link to /dev/null: the operator masked the unit.
    Masked,
    Link(PathBuf),
    /// A folder, a device, or a file beyond reason.
    Other,
}

/// The folder that unit files are installed into. Links in it are seen, never followed.
#[derive(Debug)]
pub(super) struct UnitsFolder {
    folder: Folder,
}

impl UnitsFolder {
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { folder: Folder::open_or_make(path, 0o755)? })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn sync_file_system(&self) -> Result<(), Error> {
        self.folder.sync_file_system()
    }

    pub fn look(&self, file: &str) -> Result<OnDisk, Error> {
        let Some((drop_ins, name)) = file.split_once('/') else { return look(&self.folder, file) };
        match self.folder.link_target(drop_ins.as_ref())? {
            // What lies behind it is not the hub's, and a link is no drop-in's place.
            Some(_) => Ok(OnDisk::Other),
            None => match self.folder.sub(drop_ins) {
                Ok(folder) => look(&folder, name),
                Err(error) if error.is_missing() => Ok(OnDisk::Missing),
                Err(_) => Ok(OnDisk::Other),
            },
        }
    }

    /// Installs a file atomically; a link in its place is replaced, not followed.
    pub fn install(&self, file: &str, content: &[u8]) -> Result<(), Error> {
        match file.split_once('/') {
            None => self.folder.publish(file, content, 0o644),
            Some((drop_ins, name)) => self.folder.sub_or_make(drop_ins, 0o755)?.publish(name, content, 0o644),
        }
    }

    /// Removes a file, and the drop-in folder that it leaves empty.
    pub fn remove(&self, file: &str) -> Result<(), Error> {
        let Some((drop_ins, name)) = file.split_once('/') else {
            return self.folder.remove(file.as_ref()).map(|_| ());
        };
        let folder = match self.folder.sub(drop_ins) {
            Ok(folder) => folder,
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error),
        };
        folder.remove(name.as_ref())?;
        self.folder.remove_empty_folder(drop_ins).map(|_| ())
    }

    pub fn link(&self, file: &str, target: &Path) -> Result<(), Error> {
        self.remove(file)?;
        match file.split_once('/') {
            None => self.folder.make_link(file, target),
            Some((folder, name)) => self.folder.sub_or_make(folder, 0o755)?.make_link(name, target),
        }
    }

    /// Removes what a killed install left beside a file.
    pub fn remove_unfinished(&self, file: &str) -> Result<(), Error> {
        let (folder, name) = match file.split_once('/') {
            None => (None, file),
            Some((folder, name)) => match self.folder.sub(folder) {
                Ok(folder) => (Some(folder), name),
                Err(_) => return Ok(()),
            },
        };
        folder.as_ref().unwrap_or(&self.folder).remove_unfinished(name)
    }

    /// The links that enable, alias or require the units that `concerns` picks, by link name and by the name they
    /// point to: (`multi-user.target.wants/app.service`, `/etc/systemd/system/app.service`).
    pub fn links(&self, concerns: impl Fn(&str) -> bool) -> Result<Vec<(String, PathBuf)>, Error> {
        let mut links = self.all_links()?;
        links.retain(|(link, target)| {
            let (folder, name) =
                link.split_once('/').map_or((None, link.as_str()), |(folder, name)| (Some(folder), name));
            let pointed = pointed(name, target.file_name().and_then(OsStr::to_str).unwrap_or_default());
            // A link under the unit's own name is its file, not its enablement.
            let own_file = folder.is_none() && concerns(name);
            !own_file && (concerns(name) || concerns(&pointed))
        });
        Ok(links)
    }

    /// Every link in the folder and in the folders of units that others want, require or uphold.
    pub fn all_links(&self) -> Result<Vec<(String, PathBuf)>, Error> {
        let mut links = Vec::new();
        let mut collect = |folder: &Folder, prefix: &str| -> Result<(), Error> {
            for entry in folder.entries(usize::MAX)? {
                let Some(target) = folder.link_target(&entry.name)? else { continue };
                let Some(name) = entry.name.to_str() else { continue };
                links.push((format!("{prefix}{name}"), target));
            }
            Ok(())
        };
        collect(&self.folder, "")?;
        for entry in self.folder.entries(usize::MAX)? {
            let Some(name) = entry.name.to_str() else { continue };
            let lists = [".wants", ".requires", ".upholds"].iter().any(|suffix| name.ends_with(suffix));
            if lists && entry.kind == crate::state::EntryKind::Folder {
                collect(&self.folder.sub(name)?, &format!("{name}/"))?;
            }
        }
        links.sort();
        Ok(links)
    }
}

/// True where the operator masked a unit, in whichever folder and for however long (systemd takes an empty file for a mask
/// too).
pub(super) fn is_masked(folder: &UnitsFolder, others: &[PathBuf], unit: &str) -> Result<bool, Error> {
    let is_mask = |path: PathBuf| path.read_link().is_ok_and(|target| target == Path::new("/dev/null"));
    let here = folder.look(unit)?;
    Ok(here == OnDisk::Masked
        || here == OnDisk::File(Vec::new())
        || others.iter().any(|other| is_mask(other.join(unit))))
}

fn look(folder: &Folder, name: &str) -> Result<OnDisk, Error> {
    if let Some(target) = folder.link_target(name.as_ref())? {
        return Ok(if target == Path::new("/dev/null") { OnDisk::Masked } else { OnDisk::Link(target) });
    }
    match folder.read(name, LARGEST) {
        Ok(Some(content)) => Ok(OnDisk::File(content)),
        Ok(None) => Ok(OnDisk::Missing),
        Err(Error::NotRegular(_) | Error::TooLarge { .. }) => Ok(OnDisk::Other),
        Err(error) => Err(error),
    }
}
