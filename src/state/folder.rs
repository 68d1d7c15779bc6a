mod json;
mod list;
mod tree;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Error;
pub use json::roomy;
pub use list::{Entry, EntryKind};

/// An open folder. Every call works on names inside it and follows no link, so that whoever owns a folder above or
/// beside cannot redirect a privileged reader or writer.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    stays: bool,
}

const OPEN_FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    /// A folder that is open already; the path is for messages and child processes.
    pub(super) fn from_parts(fd: OwnedFd, path: &Path) -> Self {
        Self { fd, path: path.to_owned(), stays: false }
    }

    /// From now on nothing is opened in it, or below, that is mounted there: a file system that its user mounts may never answer.
    pub fn staying(self) -> Self {
        Self { stays: true, ..self }
    }

    fn openat(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.stays {
            match fs::openat2(&self.fd, name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
                // Older than Linux 5.6, or a sandbox that does not know it.
                Err(Errno::NOSYS | Errno::PERM) => {}
                opened => return opened,
            }
        }
        fs::openat(&self.fd, name, flags, Mode::empty())
    }

    /// Opens an existing folder; the path itself is trusted, links in it are followed.
    ///
    /// # Errors
    /// When it is missing, not a folder, or not accessible.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fd = fs::open(path, OPEN_FOLDER, Mode::empty()).map_err(|error| Error::io("open", path, error))?;
        Ok(Self { fd, path: path.to_owned(), stays: false })
    }

    /// Opens a folder, made with its parents where missing; `mode` is that of the last one, parents get 0755.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open_or_make(path: &Path, mode: u32) -> Result<Self, Error> {
        match Self::open(path) {
            Err(error) if error.is_missing() => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(|error| Error::io("make", parent, error))?;
                }
                make(fs::CWD, path.as_os_str(), mode, path)?;
                Self::open(path)
            }
            other => other,
        }
    }

    /// Opens a folder inside this one.
    ///
    /// # Errors
    /// When it is missing, a link, not a folder, or not accessible.
    pub fn sub(&self, name: &str) -> Result<Self, Error> {
        self.open_at(name, self.path.join(name))
    }

    /// Opens this folder once more, under the same path.
    ///
    /// # Errors
    /// When it is not accessible.
    pub fn again(&self) -> Result<Self, Error> {
        self.open_at(".", self.path.clone())
    }

    fn open_at(&self, name: &str, path: PathBuf) -> Result<Self, Error> {
        let flags = OPEN_FOLDER | OFlags::NOFOLLOW;
        match self.openat(name, flags) {
            Ok(fd) => Ok(Self { fd, path, stays: self.stays }),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Err(Error::NotFolder(path)),
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    /// Opens a folder inside this one, made with `mode` where missing.
    ///
    /// # Errors
    /// As `sub`, and when it cannot be made.
    pub fn sub_or_make(&self, name: &str, mode: u32) -> Result<Self, Error> {
        match self.sub(name) {
            Err(error) if error.is_missing() => {
                let made = self.sub_for_now(name, mode)?;
                self.sync()?;
                Ok(made)
            }
            other => other,
        }
    }

    /// Makes a folder inside this one that is removed again soon, without waiting for the disk.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn sub_for_now(&self, name: &str, mode: u32) -> Result<Self, Error> {
        make(self.fd.as_fd(), OsStr::new(name), mode, &self.path.join(name))?;
        self.sub(name)
    }

    /// The path it was opened under; for messages and for child processes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Publishes a file: written under a name that begins with a dot, fsynced, renamed over `name`, the folder
    /// fsynced. After a crash `name` is either the old file or the whole new one.
    ///
    /// # Errors
    /// When a step fails; the unfinished file is removed.
    pub fn publish(&self, name: &str, content: &[u8], mode: u32) -> Result<(), Error> {
        self.put(name, content, mode, true)?;
        self.sync()
    }

    /// Replaces a file at once but without waiting for the disk: after a crash of the host it may be the old one, the
    /// new one, or empty. For what is worth nothing then, and is written often.
    ///
    /// # Errors
    /// When a step fails; the unfinished file is removed.
    pub fn replace(&self, name: &str, content: &[u8], mode: u32) -> Result<(), Error> {
        self.put(name, content, mode, false)
    }

    fn put(&self, name: &str, content: &[u8], mode: u32, durably: bool) -> Result<(), Error> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let unfinished = format!(".{name}.{}.{number}", std::process::id());
        let path = self.path.join(name);
        let written = self.create(&unfinished, &path, content, mode, durably).and_then(|()| {
            fs::renameat(&self.fd, unfinished.as_str(), &self.fd, name)
                .map_err(|error| Error::io("publish", &path, error))
        });
        if written.is_err() {
            // The error that matters is the one above; a leftover begins with a dot and is never read.
            let _ = fs::unlinkat(&self.fd, unfinished.as_str(), AtFlags::empty());
        }
        written
    }

    /// Writes the file `name` that becomes `path`, which messages name.
    fn create(&self, name: &str, path: &Path, content: &[u8], mode: u32, durably: bool) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600));
        let fd = match open() {
            // Left by a process that was killed and whose number this one has now.
            Err(Errno::EXIST) => {
                self.remove(OsStr::new(name)).and_then(|_| open().map_err(|e| Error::io("create", path, e)))?
            }
            other => other.map_err(|error| Error::io("create", path, error))?,
        };
        share(self.fd.as_fd(), fd.as_fd());
        let mut file = File::from(fd);
        let step = |result: std::io::Result<()>| result.map_err(|error| Error::io("write", path, error));
        step(file.write_all(content))?;
        step(fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Into::into))?;
        if durably { step(file.sync_all()) } else { Ok(()) }
    }

    /// Writes over the first bytes of a regular file and cuts the rest off: for a file that cannot be replaced because there is
    /// no room for a second one. False where it is missing, or has less room than `content` needs. After a crash it may be torn.
    ///
    /// # Errors
    /// When it is a link or no regular file, or cannot be written.
    pub fn overwrite(&self, name: &str, content: &[u8]) -> Result<bool, Error> {
        let path = self.path.join(name);
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(Error::NotRegular(path)),
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        let stat = fs::fstat(&fd).map_err(|error| Error::io("inspect", &path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotRegular(path));
        }
        let held = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if (content.len() as u64) > held {
            return Ok(false);
        }
        let mut file = File::from(fd);
        let written = file.write_all(content).and_then(|()| file.set_len(content.len() as u64));
        written.and_then(|()| file.sync_all()).map(|()| true).map_err(|error| Error::io("write", &path, error))
    }

    /// Opens a regular file for appending and reading, made where it is missing.
    ///
    /// # Errors
    /// When it is a link or cannot be opened.
    pub fn append(&self, name: &str, mode: u32) -> Result<File, Error> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode));
        let fd = opened.map_err(|error| Error::io("open", &self.path.join(name), error))?;
        share(self.fd.as_fd(), fd.as_fd());
        Ok(File::from(fd))
    }

    /// Reads a regular file of at most `limit` bytes; none where there is no such name.
    ///
    /// # Errors
    /// When it is a link or no regular file, longer than `limit`, or unreadable.
    pub fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        self.read_from(name, 0, limit)
    }

    /// As `read`, from a byte on; nothing where the file is no longer than that.
    ///
    /// # Errors
    /// As `read`, but what counts is how long the rest is.
    pub fn read_from(&self, name: &str, start: u64, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        // NONBLOCK: a pipe in the file's place must not stop the reader.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match self.openat(name, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO | Errno::XDEV) => return Err(Error::NotRegular(path)),
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        let stat = fs::fstat(&fd).map_err(|error| Error::io("inspect", &path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotRegular(path));
        }
        // Nothing is read in vain; what grows meanwhile is found out below.
        if u64::try_from(stat.st_size).is_ok_and(|size| size.saturating_sub(start) > limit as u64) {
            return Err(Error::TooLarge { path, limit });
        }
        let mut content = Vec::new();
        let mut file = File::from(fd);
        let at_start = if start > 0 { file.seek(SeekFrom::Start(start)).map(drop) } else { Ok(()) };
        at_start
            .and_then(|()| file.take(limit as u64 + 1).read_to_end(&mut content))
            .map_err(|error| Error::io("read", &path, error))?;
        if content.len() > limit {
            return Err(Error::TooLarge { path, limit });
        }
        Ok(Some(content))
    }

    /// Moves a name into another folder of the same file system. A link is moved, not followed. After a power cut the name
    /// is in one of the two folders; `sync` of both makes it the second.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn move_to(&self, name: &OsStr, target: &Self, target_name: &OsStr) -> Result<(), Error> {
        fs::renameat(&self.fd, name, &target.fd, target_name)
            .map_err(|error| Error::io("move", &self.path.join(name), error))
    }

    /// Removes a file or link; false where there was none.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &OsStr) -> Result<bool, Error> {
        let removed = self.forget(name)?;
        if removed { self.sync().map(|()| true) } else { Ok(false) }
    }

    /// As `remove`, without waiting for the disk: a power cut may bring the file back. For what is harmless then.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, name: &OsStr) -> Result<bool, Error> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::io("remove", &self.path.join(name), error)),
        }
    }

    /// Where a link points to; none where the name is no link, or nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn link_target(&self, name: &OsStr) -> Result<Option<PathBuf>, Error> {
        match fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(target) => Ok(Some(PathBuf::from(OsStr::from_bytes(target.to_bytes())))),
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("read", &self.path.join(name), error)),
        }
    }

    /// Makes a link.
    ///
    /// # Errors
    /// When the name is taken, or the link cannot be made.
    pub fn make_link(&self, name: &str, target: &Path) -> Result<(), Error> {
        fs::symlinkat(target, &self.fd, name).map_err(|error| Error::io("link", &self.path.join(name), error))?;
        self.sync()
    }

    /// Removes a folder that is empty; false where it is not.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_empty_folder(&self, name: &str) -> Result<bool, Error> {
        match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => self.sync().map(|()| true),
            Err(Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(Error::io("remove", &self.path.join(name), error)),
        }
    }

    /// Removes the unfinished files that a killed `publish` of a name left.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not be removed.
    pub fn remove_unfinished(&self, name: &str) -> Result<(), Error> {
        let prefix = format!(".{name}.");
        for entry in self.unfinished()? {
            let rest = entry.name.to_str().and_then(|found| found.strip_prefix(&prefix));
            if rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')) {
                self.remove(&entry.name)?;
            }
        }
        Ok(())
    }

    /// Makes everything that was written to the folder's file system durable (syncfs(2)): for files that another
    /// program wrote without fsync.
    ///
    /// # Errors
    /// When the call fails.
    pub fn sync_file_system(&self) -> Result<(), Error> {
        fs::syncfs(&self.fd).map_err(|error| Error::io("sync", &self.path, error))
    }

    /// Makes what happened to the folder's names durable.
    ///
    /// # Errors
    /// When fsync fails.
    pub fn sync(&self) -> Result<(), Error> {
        fs::fsync(&self.fd).map_err(|error| Error::io("sync", &self.path, error))
    }
}

fn make(parent: BorrowedFd<'_>, name: &OsStr, mode: u32, path: &Path) -> Result<(), Error> {
    match fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(made) = fs::openat(parent, name, flags, Mode::empty()) {
                share(parent, made.as_fd());
            }
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::io("make", path, error)),
    }
}

/// Gives what root made the group of the folder that it is in: a run by hand has another group than the units, and what it
/// leaves must be there for the services and the members of the group, too.
fn share(folder: BorrowedFd<'_>, made: BorrowedFd<'_>) {
    // Units of root have a group of their own, and some may not call chown(2).
    if !rustix::process::geteuid().is_root() || !rustix::process::getegid().is_root() {
        return;
    }
    if let (Ok(folder), Ok(found)) = (fs::fstat(folder), fs::fstat(made))
        && folder.st_gid != found.st_gid
    {
        // Root without the capability to do so keeps it for itself.
        let _ = fs::fchown(made, None, Some(fs::Gid::from_raw(folder.st_gid)));
    }
}

#[cfg(test)]
mod tests;
