//! A folder on the way, and who could have changed what is in it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{Stat, getxattr};
use rustix::io::Errno;

use crate::command::Account;
use crate::state::Error;

pub(super) const STICKY: u32 = 0o1000;

#[derive(Debug)]
pub(super) struct Part {
    pub path: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Whether its access list lets others write it whom the mode does not name.
    pub is_shared: bool,
}

impl Part {
    pub fn of(path: PathBuf, stat: &Stat, fd: BorrowedFd<'_>) -> Self {
        let mode = stat.st_mode & 0o7777;
        // With an access list the group's part of the mode is what anybody in it may have at most (acl(5)).
        let is_shared = mode & 0o020 != 0 && lets_others_write(fd, stat.st_uid);
        Self { path, uid: stat.st_uid, gid: stat.st_gid, mode, is_shared }
    }

    /// True for a folder in which nobody but root can put something in another's place.
    pub fn is_roots(&self) -> bool {
        self.uid == 0 && (self.mode & 0o022 == 0 || self.mode & STICKY != 0)
    }

    pub fn takes_from_root(&self, user: &Account) -> Result<(), Error> {
        if self.is_roots() {
            return Ok(());
        }
        let reason = if self.uid == 0 {
            let run = format!("run: chmod go-w {}", self.path.display());
            format!("others than root can write it, so root makes nothing in it for {}; {run}", user.name)
        } else {
            let owner = name(self.uid);
            let whose = format!("it belongs to {owner}, so root makes nothing in it for {}", user.name);
            let known =
                Account::by_uid(self.uid).map(|owner| format!("write user = \"{}\" in hub.toml, or ", owner.name));
            format!("{whose}; {}choose another path, such as one in /srv", known.unwrap_or_default())
        };
        Err(Error::Untrusted { path: self.path.clone(), reason })
    }
}

/// What is expected at a path's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A folder, opened for reading.
    Folder,
    /// Anything, to be looked at only.
    Any,
}

/// Whether the access list of a folder has an entry by which somebody else than its owner may write it. A list that cannot be
/// read counts as such.
fn lets_others_write(folder: BorrowedFd<'_>, owner: u32) -> bool {
    /// acl(5) and linux/posix_acl_xattr.h: a version, then entries of tag, rights and id.
    const NAMED: [u16; 2] = [0x02, 0x08];
    const WRITE: u16 = 0o2;
    let mut list = [0; 4 + 8 * 512];
    // By its place in /proc: a descriptor that was opened to pass through takes no such question.
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let length = match getxattr(path, c"system.posix_acl_access", &mut list) {
        Ok(length) => length,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return false,
        Err(_) => return true,
    };
    list[..length].get(4..).unwrap_or_default().chunks_exact(8).any(|entry| {
        let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        NAMED.contains(&half(0)) && half(2) & WRITE != 0 && (half(0), id) != (NAMED[0], owner)
    })
}

pub(super) fn name(uid: u32) -> String {
    Account::by_uid(uid).map_or_else(|| format!("user id {uid}"), |user| user.name)
}
