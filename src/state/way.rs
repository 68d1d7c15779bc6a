//! Opening a path that the configuration names: nobody but root and the path's user decides where it leads.
//!
//! A path that another user can change is no path but a question to that user. So root walks it part by part, by
//! descriptor, follows only links of its own in folders of its own, and is told who could have changed a part.

mod part;
mod walk;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, Stat, fchown, fstat, mkdirat, open, openat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use uzers::os::unix::GroupExt;

use self::part::{End, Part, STICKY, name};
use self::walk::Walk;
use super::{Error, Folder};
use crate::command::Account;

/// What a path led to, and whose the folders on the way are.
#[derive(Debug)]
pub struct Way {
    fd: OwnedFd,
    found: Stat,
    path: PathBuf,
    /// The folders that were passed, the root folder first; empty where a user other than root went by itself.
    passed: Vec<Part>,
}

impl Way {
    /// Opens a folder for reading. A user other than root opens it with the user's own rights, and links are followed.
    ///
    /// # Errors
    /// `Untrusted` at a link that is not root's own in a folder of root's own; when it is missing (`is_missing`), no
    /// folder, or not accessible for root and for the owner of the folder that it is in.
    pub fn to_folder(path: &Path) -> Result<Self, Error> {
        if geteuid().is_root() {
            return Self::go(path, End::Folder, None);
        }
        let failed = |error: Errno| Error::io("open", path, error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(failed)?;
        let found = fstat(&fd).map_err(failed)?;
        Ok(Self { fd, found, path: path.to_owned(), passed: Vec::new() })
    }

    /// Makes a folder with its parents, which are root's and have the mode 0755, and gives it to a user. Nothing is made
    /// where another user than root could have put something in the way.
    ///
    /// # Errors
    /// As `to_folder`, and when it cannot be made there or exists.
    pub fn make_folder(path: &Path, user: &Account) -> Result<(), Error> {
        let failed = |error: Errno| Error::io("make", path, error);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(failed(Errno::EXIST)) };
        let parent = Self::go(parent, End::Folder, Some(user))?;
        parent.require_roots_for(user)?;
        // Given away under another name: a run that is killed leaves either nothing or all of it.
        let unfinished = [OsStr::new(".hub-"), name].join(OsStr::new(""));
        match unlinkat(&parent.fd, &unfinished, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        mkdirat(&parent.fd, &unfinished, Mode::from_raw_mode(0o755)).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&parent.fd, &unfinished, flags, Mode::empty()).map_err(failed)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
        fchown(&made, Some(uid), Some(gid)).map_err(failed)?;
        renameat_with(&parent.fd, &unfinished, &parent.fd, name, RenameFlags::NOREPLACE).map_err(failed)
    }

    /// Says whether root would make something for a user in a folder that is there.
    ///
    /// # Errors
    /// As `to_folder`, and `Untrusted` with the folder in which another user could have put something in the way.
    pub fn takes_from_root(folder: &Path, user: &Account) -> Result<(), Error> {
        Self::go(folder, End::Folder, None)?.require_roots_for(user)
    }

    fn require_roots_for(&self, user: &Account) -> Result<(), Error> {
        let own = Part::of(self.path.clone(), &self.found, self.fd.as_fd());
        self.passed.iter().chain([&own]).try_for_each(|part| part.takes_from_root(user))
    }

    fn go(path: &Path, end: End, make: Option<&Account>) -> Result<Self, Error> {
        let (fd, found, passed) = Walk::begin(path, end, make)?.go()?;
        Ok(Self { fd, found, path: path.to_owned(), passed })
    }

    /// The user id of what is at the end.
    pub fn owner(&self) -> u32 {
        self.found.st_uid
    }

    /// Where the path led to; none where the kernel does not say.
    pub fn real_path(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).ok()
    }

    /// The folder at the end.
    pub fn into_folder(self) -> Folder {
        Folder::from_parts(self.fd, &self.path)
    }

    /// Says whether root and this user alone could have changed where the path leads: all folders on the way are theirs,
    /// and nobody else can write them, but where the sticky bit keeps what they hold. What is at the end is not judged.
    ///
    /// # Errors
    /// `Untrusted`, with the folder, whose it is, and what to do.
    pub fn is_kept_by(&self, user: Option<&Account>) -> Result<(), Error> {
        for part in &self.passed {
            let theirs = part.uid == 0 || user.is_some_and(|user| user.uid == part.uid);
            if !theirs {
                let (whose, to) = (name(part.uid), user.map_or_else(|| "root".to_owned(), |user| user.name.clone()));
                let reason = format!(
                    "it belongs to {whose}, who decides where {} leads; chown it to root{}, or choose another path",
                    self.path.display(),
                    if to == "root" { String::new() } else { format!(" or {to}") }
                );
                return Err(Error::Untrusted { path: part.path.clone(), reason });
            }
            let is_private =
                || user.is_some_and(|user| part.uid == user.uid && !part.is_shared && is_private_group(user, part.gid));
            // Whose group it is takes files to find out.
            let writable = part.mode & 0o002 != 0 || part.mode & 0o020 != 0 && !is_private();
            if part.mode & STICKY == 0 && writable {
                let reason = format!(
                    "others than its owner can write it, and decide where {} leads; run: chmod go-w {}",
                    self.path.display(),
                    part.path.display()
                );
                return Err(Error::Untrusted { path: part.path.clone(), reason });
            }
        }
        Ok(())
    }

    /// Says whether nobody but root could have changed where the path leads, or what is there.
    ///
    /// # Errors
    /// As `is_kept_by`.
    fn is_roots(&self) -> Result<(), Error> {
        self.is_kept_by(None)?;
        let path = self.path.display();
        if self.found.st_uid != 0 {
            let reason =
                format!("it belongs to {}, and root obeys it; run: chown root: {path}", name(self.found.st_uid));
            return Err(Error::Untrusted { path: self.path.clone(), reason });
        }
        if self.found.st_mode & 0o022 != 0 {
            let reason = format!("others than root can write it, and root obeys it; run: chmod go-w {path}");
            return Err(Error::Untrusted { path: self.path.clone(), reason });
        }
        Ok(())
    }
}

/// Says whether what is at a path, and where the path leads, are root's alone. Links are followed where root has put them.
///
/// # Errors
/// `Untrusted` with what is wrong, others where the path cannot be walked.
pub fn require_roots(path: &Path) -> Result<(), Error> {
    let path = std::path::absolute(path).map_err(|source| Error::io("resolve", path, source))?;
    Way::go(&path, End::Any, None)?.is_roots()
}

/// A group that has the name of its user, as useradd(8) makes one for each, and no other member.
fn is_private_group(user: &Account, gid: u32) -> bool {
    let is_theirs = |name: &OsStr| name == OsStr::new(&user.name);
    gid == user.gid
        && uzers::get_group_by_gid(gid)
            .is_some_and(|group| is_theirs(group.name()) && group.members().iter().all(|member| is_theirs(member)))
}
