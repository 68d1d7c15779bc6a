//! Removing what somebody else may have filled, and may still be filling.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;

use super::Folder;
use crate::state::Error;

/// How the names begin that inner folders get while they are removed.
const MOVED: &str = ".tree.";
/// How often a folder is emptied again that somebody fills meanwhile.
const ROUNDS: usize = 3;

impl Folder {
    /// Removes what stands under a name, a folder with everything in it: by descriptor, following no link, however deep it
    /// is, and entering no other file system. At most `budget` names are removed, and counted from it.
    ///
    /// Returns false where something is left, because the budget is used up or somebody goes on filling the folder.
    ///
    /// # Errors
    /// When a part cannot be removed; the rest may be gone.
    pub fn remove_tree(&self, name: &OsStr, budget: &mut usize) -> Result<bool, Error> {
        if self.unlink(name)? {
            *budget = budget.saturating_sub(1);
            return Ok(true);
        }
        // Inner folders are moved up and wait here, so that a deep tree needs neither a deep stack nor many descriptors.
        let mut waiting = vec![name.to_owned()];
        let mut whole = true;
        while let Some(folder) = waiting.pop() {
            whole &= self.remove_folder(&folder, &mut waiting, budget)?;
        }
        Ok(whole)
    }

    /// Makes a name free at once, whatever stands under it, and removes that as `remove_tree` does. What is left of it then
    /// has another name, and `remove_left_trees` goes on with it.
    ///
    /// # Errors
    /// As `remove_tree`.
    pub fn clear_away(&self, name: &OsStr, budget: &mut usize) -> Result<bool, Error> {
        if self.unlink(name)? {
            return Ok(true);
        }
        let moved = moved();
        self.move_to(name, self, &moved)?;
        self.remove_tree(&moved, budget)
    }

    /// What an interrupted `remove_tree` left of a tree is removed as well.
    ///
    /// # Errors
    /// As `remove_tree`.
    pub fn remove_left_trees(&self, budget: &mut usize) -> Result<bool, Error> {
        let mut whole = true;
        for entry in self.unfinished()? {
            if entry.name.as_bytes().starts_with(MOVED.as_bytes()) {
                whole &= self.remove_tree(&entry.name, budget)?;
            }
        }
        Ok(whole)
    }

    /// False for a folder.
    fn unlink(&self, name: &OsStr) -> Result<bool, Error> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::ISDIR) => Ok(false),
            Err(error) => Err(Error::io("remove", &self.path.join(name), error)),
        }
    }

    fn remove_folder(&self, name: &OsStr, waiting: &mut Vec<OsString>, budget: &mut usize) -> Result<bool, Error> {
        let path = self.path.join(name);
        let failed = |error: Errno| Error::io("remove", &path, error);
        let flags = super::OPEN_FOLDER | fs::OFlags::NOFOLLOW;
        for _ in 0..ROUNDS {
            let fd = match fs::openat(&self.fd, name, flags, fs::Mode::empty()) {
                Ok(fd) => fd,
                // Somebody has put something else there.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return self.unlink(name),
                Err(error) => return Err(failed(error)),
            };
            let device = |fd| fs::fstat(fd).map(|stat| stat.st_dev).map_err(failed);
            if device(&self.fd)? != device(&fd)? {
                return Err(failed(Errno::XDEV));
            }
            for item in fs::Dir::read_from(&fd).map_err(failed)? {
                let item = item.map_err(failed)?;
                let inner = item.file_name();
                if matches!(inner.to_bytes(), b"." | b"..") {
                    continue;
                }
                let Some(left) = budget.checked_sub(1) else { return Ok(false) };
                *budget = left;
                match fs::unlinkat(&fd, inner, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR) => {
                        let moved = moved();
                        match fs::renameat(&fd, inner, &self.fd, moved.as_os_str()) {
                            Ok(()) => waiting.push(moved),
                            Err(Errno::NOENT) => {}
                            Err(error) => return Err(failed(error)),
                        }
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
            match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(true),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(false)
    }
}

/// A name for what is removed, of which there is no other.
fn moved() -> OsString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{MOVED}{}.{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)).into()
}
