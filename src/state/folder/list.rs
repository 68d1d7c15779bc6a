//! What is in a folder.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use super::Folder;
use crate::state::Error;

/// More unfinished files than this are taken up by the next call.
const MOST_UNFINISHED: usize = 100_000;

/// What kind of thing a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    Folder,
    /// A link, socket, pipe or device.
    Other,
}

/// A name in a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name, any bytes.
    pub name: OsString,
    /// What it stands for.
    pub kind: EntryKind,
    /// Last change in seconds since 1970.
    pub modified: i64,
    /// The user it belongs to.
    pub owner: u32,
    /// Type and permissions (inode(7)).
    pub mode: u32,
}

impl Folder {
    /// What is in the folder, sorted by name; of more than `limit` entries any so many. Names that begin with a dot are left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn entries(&self, limit: usize) -> Result<Vec<Entry>, Error> {
        self.list(limit, |name| !name.starts_with(b"."))
    }

    /// The entries whose names begin with a dot: files that their writers have not finished, or never will. Of very many any
    /// so many: the folder may be another user's.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Entry>, Error> {
        self.list(MOST_UNFINISHED, |name| name.starts_with(b".") && name != b"." && name != b"..")
    }

    /// What a name stands for; none where there is nothing of that name.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn entry(&self, name: &OsStr) -> Result<Option<Entry>, Error> {
        let stat = match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Error::io("inspect", &self.path.join(name), error)),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Folder,
            _ => EntryKind::Other,
        };
        let (modified, owner, mode) = (stat.st_mtime as i64, stat.st_uid, stat.st_mode);
        Ok(Some(Entry { name: name.to_owned(), kind, modified, owner, mode }))
    }

    fn list(&self, limit: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Entry>, Error> {
        let failed = |error: Errno| Error::io("list", &self.path, error);
        let mut entries = Vec::new();
        for item in fs::Dir::read_from(&self.fd).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = OsStr::from_bytes(item.file_name().to_bytes());
            if !wanted(name.as_bytes()) {
                continue;
            }
            entries.extend(self.entry(name)?);
            if entries.len() == limit {
                break;
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}
