use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::roots::Roots;

/// File systems without space of their own: kernel interfaces, memory, views of other file systems, read-only images
/// that are always full.
const WITHOUT_SPACE: [&str; 45] = [
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
    "tmpfs",
    "tracefs",
    "usbfs",
];
/// File systems that live on this host and answer from memory although they have no block device number.
const LOCAL: [&str; 9] = ["apfs", "bcachefs", "btrfs", "f2fs", "jffs2", "overlay", "ubifs", "xfs", "zfs"];
/// File systems on a block device whose answer depends on another process or host.
const REMOTE: [&str; 4] = ["fuseblk", "gfs2", "lustre", "ocfs2"];

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
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

    fn has_space(&self) -> bool {
        self.is_layered_root() || !WITHOUT_SPACE.contains(&self.kind.as_str())
    }

    /// True for a root of layers, as containers and hosts with a read-only image have: its space is that of the file
    /// system that holds the writable layer.
    pub fn is_layered_root(&self) -> bool {
        self.kind == "overlay" && self.point == Path::new("/")
    }

    /// The mount point as a key: bytes that are not UTF-8 are written `\xNN`, so that two such points stay two.
    pub fn key(&self) -> String {
        printable(&self.point)
    }
}

/// A path as text; bytes that are not UTF-8 are written `\xNN`.
pub(super) fn printable(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Reads mountinfo (proc_pid_mountinfo(5)). Lines of another form are left out, each for itself.
pub(super) fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, where any number of optional
/// fields stands before the dash and the source may be empty.
fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let (part, point, options) = (fields.next()?, fields.next()?, fields.next()?);
    fields.find(|field| *field == b"-")?;
    let kind = fields.next().filter(|kind| !kind.is_empty())?;
    let (source, super_options) = (fields.next()?, fields.next().unwrap_or_default());
    let is_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
    let device = String::from_utf8(device.to_vec()).ok().filter(|device| device.contains(':'))?;
    Some(Mount {
        point: path(point),
        part: path(part),
        device,
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: printable(&path(source)),
        read_only: is_read_only(options) || is_read_only(super_options),
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        match after.get(..3).filter(|_| *first == b'\\').and_then(octal) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// One mount for each file system that has space: not covered by a later mount at the same point, no bind mount or
/// subvolume beside it. Of several mounts of one device the root wins, then one that shows all of the file system,
/// then the shortest path.
pub(super) fn select(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut visible: BTreeMap<PathBuf, Mount> = BTreeMap::new();
    for mount in mounts {
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
    let bytes = roots.proc("1/mountinfo").or_else(|_| roots.proc("self/mountinfo")).unwrap_or_default();
    parse(&bytes).iter().any(|mount| mount.kind == "fuse.lxcfs" && mount.point.starts_with("/proc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &[u8]) -> Vec<String> {
        select(parse(text)).iter().map(Mount::key).collect()
    }

    #[test]
    fn escapes_odd_bytes_and_empty_sources_are_read() {
        let text = b"1 0 8:1 / /a\\040b\\011c\\134040 rw - ext4 /dev/sda1 rw\n\
            2 0 8:2 / /caf\xe9 rw shared:1 master:2 - ext4 /dev/sda2 ro\n\
            3 0 8:3 / /empty rw -  ext4 rw\nnot a line\n4 0 8:4 / /nosource rw - xfs  rw\n";
        assert_eq!(points(text), ["/a b\tc\\040", "/caf\\xe9", "/nosource"]);
        assert!(parse(text)[1].read_only);
        assert_eq!(parse(text)[1].point.as_os_str().as_bytes(), b"/caf\xe9");
    }

    #[test]
    fn one_row_a_device() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /srv/data /mnt/bind rw - ext4 /dev/sda1 rw\n\
            3 1 0:30 /@home /home rw - btrfs /dev/sdb rw\n4 1 0:30 /@ /pool rw - btrfs /dev/sdb rw\n\
            5 1 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro\n6 1 0:50 / /var/lib/docker/overlay2/x rw - overlay overlay rw\n\
            7 1 8:5 /part /long/path rw - ext4 /dev/sdc rw\n8 1 8:5 / /longer/path rw - ext4 /dev/sdc rw\n";
        assert_eq!(points(text), ["/", "/home", "/longer/path"]);
        let container = b"1 0 0:60 / / rw - overlay overlay rw\n2 1 0:61 / /x rw - overlay overlay rw\n";
        assert_eq!(points(container), ["/"]);
    }

    #[test]
    fn a_covered_mount_is_not_seen() {
        let text = b"1 0 0:1 / / rw - rootfs rootfs rw\n2 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            3 2 0:40 / /net rw - autofs map rw\n4 3 0:41 / /net rw - nfs4 host:/x rw\n\
            5 2 8:9 / /over rw - ext4 /dev/sdd rw\n6 5 0:42 / /over rw - overlay overlay rw\n";
        assert_eq!(points(text), ["/", "/net"]);
    }

    #[test]
    fn lxcfs_makes_a_guest_only_where_it_covers_proc() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(dir.path(), dir.path(), dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("1")).unwrap();
        for (point, is_guest) in [("/var/lib/lxcfs", false), ("/proc/meminfo", true)] {
            let line = format!("1 0 0:45 / {point} rw - fuse.lxcfs lxcfs rw\n");
            std::fs::write(dir.path().join("1/mountinfo"), line).unwrap();
            assert_eq!(has_lxcfs(&roots), is_guest, "{point}");
        }
    }

    #[test]
    fn what_may_hang_is_known() {
        let hangs = |device: &str, kind: &str| {
            let text = format!("1 0 {device} / /x rw - {kind} source rw\n");
            parse(text.as_bytes())[0].may_hang()
        };
        for (device, kind) in
            [("0:50", "nfs4"), ("0:51", "fuse.sshfs"), ("8:1", "fuseblk"), ("0:9", "9p"), ("0:8", "new")]
        {
            assert!(hangs(device, kind), "{kind}");
        }
        for (device, kind) in [("8:1", "ext4"), ("0:30", "btrfs"), ("0:31", "zfs"), ("179:2", "vfat")] {
            assert!(!hangs(device, kind), "{kind}");
        }
    }
}
