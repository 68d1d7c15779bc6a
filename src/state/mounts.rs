//! File systems that may not answer: those of other hosts, of automounters, and of programs (fuse). Whoever asks one that hangs
//! hangs too, sometimes beyond kill(2), so root has a child of its own ask first.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::host::{MountLine, mount_lines};
use crate::text::unescaped;

/// How the names of their types begin (proc_filesystems(5)).
const KINDS: [&str; 14] = [
    "9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "fuse", "gluster", "lustre", "ncp", "nfs", "smb",
    "virtiofs",
];

/// A mounted file system that may not answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    id: String,
    pub point: PathBuf,
    /// Its type, such as `nfs4`.
    pub kind: String,
    /// Whose program answers, where it is a program's and not root's.
    pub user: Option<u32>,
}

/// Those that this process sees, by `/proc/self/mountinfo`.
fn all() -> Vec<Mount> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_lines(&text).filter_map(mount).collect()
}

/// True for the place of one.
pub(crate) fn may_hang_at() -> impl Fn(&Path) -> bool {
    let mounts = all();
    move |path| mounts.iter().any(|mount| mount.point == path)
}

/// True where asking for something at a path, or below it, may hang.
pub(crate) fn may_hang_around(path: &Path) -> bool {
    all().iter().any(|mount| path.starts_with(&mount.point) || mount.point.starts_with(path))
}

/// The number of the mount that an open file is in. Of one that was opened with O_PATH nobody was asked by then, and nobody is
/// now (statx(2), AT_STATX_DONT_SYNC).
pub(super) fn id(fd: BorrowedFd<'_>) -> Option<String> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    match statx(fd, "", flags, StatxFlags::MNT_ID) {
        Ok(found) if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Some(found.stx_mnt_id.to_string()),
        // Before Linux 5.8, and where a user's program keeps root out: proc_pid_fdinfo(5).
        _ => {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
            info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|id| id.trim().to_owned())
        }
    }
}

/// The one with this number.
pub(super) fn find(id: &str) -> Option<Mount> {
    all().into_iter().find(|mount| mount.id == id)
}

fn mount(line: MountLine<'_>) -> Option<Mount> {
    let kind = String::from_utf8_lossy(line.kind).into_owned();
    let options = String::from_utf8_lossy(line.super_options?).into_owned();
    let user = options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
    let user = user.filter(|uid| *uid != 0 && kind.starts_with("fuse"));
    let id = String::from_utf8(line.id.to_vec()).ok()?;
    KINDS.iter().any(|begin| kind.starts_with(begin)).then(|| Mount { id, point: unescaped(line.point), kind, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Option<Mount> {
        mount_lines(line).find_map(mount)
    }

    #[test]
    fn file_systems_that_may_hang_are_told_from_disks() {
        let line = b"36 25 0:31 / /home/a\\040b rw,relatime shared:1 - fuse.sshfs h:/ rw,user_id=1000,group_id=1000,allow_other";
        let (point, kind) = (PathBuf::from("/home/a b"), "fuse.sshfs".to_owned());
        assert_eq!(parse(line), Some(Mount { id: "36".to_owned(), point, kind, user: Some(1000) }));
        let nfs = parse(b"1 2 0:3 /x /home rw master:1 shared:2 - nfs4 server:/home rw,vers=4.2,hard").unwrap();
        assert_eq!((nfs.kind.as_str(), nfs.user), ("nfs4", None));
        assert_eq!(parse(b"1 2 0:3 / /mnt rw - fuse.mergerfs a rw,user_id=0,group_id=0").unwrap().user, None);
        for other in ["1 2 8:1 / / rw - ext4 /dev/sda1 rw", "1 2 0:3 / /run rw shared:4 - tmpfs tmpfs rw", "", "1 2"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
