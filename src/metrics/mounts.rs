use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::roots::Roots;
use crate::host::{MountLine, is_read_only, mount_lines};
use crate::text::{exact, unescaped};

/// File systems without space of their own: kernel interfaces, memory, views of other file systems, read-only images
/// that are always full.
const WITHOUT_SPACE: [&str; 44] = [
    "aufs",
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cramfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "ecryptfs",
    "efivarfs",
    "erofs",
    "fuse.fuse-overlayfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
    "fuse.squashfuse",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "none",
    "nsfs",
    "overlay",
    "pipefs",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "shiftfs",
    "smackfs",
    "sockfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "usbfs",
];
/// File systems that live on this host and answer from memory although they have no block device number.
const LOCAL: [&str; 10] = ["apfs", "bcachefs", "btrfs", "f2fs", "jffs2", "overlay", "tmpfs", "ubifs", "xfs", "zfs"];
/// Where file systems in memory are that a host can run out of: systemd's own of these names, and what somebody mounted
/// where data is.
const IN_MEMORY: [&str; 3] = ["/tmp", "/run", "/dev/shm"];
const DATA: [&str; 4] = ["/srv", "/var", "/data", "/mnt"];
/// What container managers mount below them comes and goes with their containers.
const CONTAINERS: [&str; 9] = [
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/incus",
    "/var/lib/kubelet",
    "/var/lib/lxc",
    "/var/lib/lxcfs",
    "/var/lib/lxd",
    "/var/lib/machines",
    "/var/snap",
];
/// File systems on a block device whose answer depends on another process or host.
const REMOTE: [&str; 4] = ["fuseblk", "gfs2", "lustre", "ocfs2"];

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its number, and that of the mount that it lies on.
    pub id: u64,
    pub parent: u64,
    /// Where it is mounted.
    pub point: PathBuf,
    /// What part of the file system is mounted there; `/` for all of it.
    pub part: PathBuf,
    /// Major and minor number of the device, `8:1`.
    pub device: String,
    /// Name of the file system type.
    pub kind: String,
    /// What is mounted: a device, a host and path, a pool.
    pub source: String,
    /// True where nothing can be written to it.
    pub read_only: bool,
}

impl Mount {
    /// True where asking for its space may wait for another process or host.
    pub fn may_hang(&self) -> bool {
        let kind = self.kind.as_str();
        let unnumbered = self.device.starts_with("0:");
        REMOTE.contains(&kind) || (unnumbered && !LOCAL.contains(&kind))
    }

    /// True where the folder that it lies on was deleted, in another mount namespace for instance: no path leads there.
    fn is_lost(&self) -> bool {
        self.point.as_os_str().as_bytes().ends_with(b"//deleted")
    }

    fn has_space(&self) -> bool {
        let below = |folders: &[&str]| folders.iter().any(|folder| self.point.starts_with(folder));
        if self.kind == "tmpfs" {
            let is_named = IN_MEMORY.iter().any(|point| self.point == Path::new(point));
            return is_named || (below(&DATA) && !below(&CONTAINERS));
        }
        self.is_layered_root() || !WITHOUT_SPACE.contains(&self.kind.as_str())
    }

    /// True for a root of layers, as containers and hosts with a read-only image have: its space is that of the file
    /// system that holds the writable layer.
    pub fn is_layered_root(&self) -> bool {
        self.kind == "overlay" && self.point == Path::new("/")
    }

    /// The mount point as a key.
    pub fn key(&self) -> String {
        exact(self.point.as_os_str().as_bytes())
    }
}

/// Reads mountinfo (proc_pid_mountinfo(5)). Lines of another form are left out, each for itself.
pub(super) fn parse(bytes: &[u8]) -> Vec<Mount> {
    mount_lines(bytes).filter_map(mount).collect()
}

fn mount(line: MountLine<'_>) -> Option<Mount> {
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    if line.kind.is_empty() {
        return None;
    }
    Some(Mount {
        id: number(line.id)?,
        parent: number(line.parent)?,
        point: unescaped(line.point),
        part: unescaped(line.part),
        device: String::from_utf8(line.device.to_vec()).ok().filter(|device| device.contains(':'))?,
        kind: String::from_utf8_lossy(line.kind).into_owned(),
        source: exact(unescaped(line.source).as_os_str().as_bytes()),
        read_only: is_read_only(line.options) || is_read_only(line.super_options.unwrap_or_default()),
    })
}

/// The mounts that a path still leads to. One that was mounted later on the same mount, at a folder above, covers those
/// below it: asked by their path, it would answer in their place.
fn uncovered(mounts: Vec<Mount>) -> Vec<Mount> {
    let numbers: HashMap<u64, usize> = mounts.iter().enumerate().map(|(at, mount)| (mount.id, at)).collect();
    let mut last: HashMap<(u64, &Path), usize> = HashMap::new();
    for (at, mount) in mounts.iter().enumerate() {
        last.insert((mount.parent, &mount.point), at);
    }
    let is_covered = |at: usize, mount: &Mount| {
        if mount.is_lost() {
            return true;
        }
        let later = |above: &Path| last.get(&(mount.parent, above)).is_some_and(|later| *later > at);
        // What lies on itself, or on a mount that is not listed, is a root; roots do not cover one another.
        let is_root = mount.parent == mount.id || !numbers.contains_key(&mount.parent);
        !is_root && mount.point.ancestors().any(later)
    };
    let mut covered: Vec<bool> = mounts.iter().enumerate().map(|(at, mount)| is_covered(at, mount)).collect();
    // What lies on a covered mount is covered with it.
    let mut grows = covered.contains(&true);
    while grows {
        grows = false;
        for (at, mount) in mounts.iter().enumerate() {
            let below = numbers.get(&mount.parent).is_some_and(|parent| covered[*parent]);
            grows |= below && !covered[at];
            covered[at] |= below;
        }
    }
    mounts.into_iter().zip(covered).filter(|(_, covered)| !covered).map(|(mount, _)| mount).collect()
}

/// One mount for each file system that has space: not covered by a later mount, no bind mount or subvolume beside it. Of
/// several mounts of one device the root wins, then one that shows all of the file system, then the shortest path.
pub(super) fn select(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut visible: BTreeMap<PathBuf, Mount> = BTreeMap::new();
    for mount in uncovered(mounts) {
        visible.insert(mount.point.clone(), mount);
    }
    let rank = |mount: &Mount| {
        let length = mount.point.as_os_str().len();
        (mount.point != Path::new("/"), mount.part != Path::new("/"), length)
    };
    let mut devices: BTreeMap<String, Mount> = BTreeMap::new();
    for mount in visible.into_values().filter(Mount::has_space) {
        match devices.get_mut(&mount.device) {
            Some(chosen) if rank(chosen) <= rank(&mount) => {}
            Some(chosen) => *chosen = mount,
            None => drop(devices.insert(mount.device.clone(), mount)),
        }
    }
    let mut chosen: Vec<Mount> = devices.into_values().collect();
    chosen.sort_by(|one, two| one.point.cmp(&two.point));
    chosen
}

/// The host's mounts: those of process 1, or this process's own where hidepid hides process 1 (proc(5)). A prefix that
/// is the path of the host's root, as seen from a container, is taken off.
///
/// # Errors
/// When neither can be read, or holds no mount.
pub(super) fn read(roots: &Roots) -> Result<Vec<Mount>, Error> {
    let listed = |process: &str| {
        let mounts = parse(&roots.proc(&format!("{process}/mountinfo"))?);
        let path = roots.proc.join(process).join("mountinfo");
        if mounts.is_empty() { Err(Error::format(path, "no line of a mount")) } else { Ok(mounts) }
    };
    let mut mounts = listed("1").or_else(|_| listed("self"))?;
    if roots.root != Path::new("/") {
        for mount in &mut mounts {
            if let Ok(inside) = mount.point.strip_prefix(&roots.root) {
                mount.point = Path::new("/").join(inside);
            }
        }
    }
    Ok(select(mounts))
}

/// Where a mount is reached from here.
pub(super) fn reach(roots: &Roots, mount: &Mount) -> PathBuf {
    roots.root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point))
}

/// True where the tree is that of an LXC container: lxcfs covers files of its `/proc` (lxcfs(1)). On the host of such
/// containers it is mounted too, elsewhere.
pub(super) fn has_lxcfs(roots: &Roots) -> bool {
    parse(&listed(roots)).iter().any(|mount| mount.kind == "fuse.lxcfs" && mount.point.starts_with("/proc"))
}

/// True where `/proc` was mounted so that it hides the processes of other users (proc(5), hidepid 2 and 4).
pub(super) fn has_hidepid(roots: &Roots) -> bool {
    let is_hiding = |options: &[u8]| {
        let mut options = options.split(|byte| *byte == b',').filter_map(|option| option.strip_prefix(b"hidepid="));
        options.any(|value| matches!(value, b"2" | b"4" | b"invisible" | b"ptraceable"))
    };
    mount_lines(&listed(roots))
        .any(|line| line.kind == b"proc" && line.point == b"/proc" && line.super_options.is_some_and(is_hiding))
}

fn listed(roots: &Roots) -> Vec<u8> {
    roots.proc("1/mountinfo").or_else(|_| roots.proc("self/mountinfo")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
