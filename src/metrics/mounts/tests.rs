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
    // ext4's words in newer kernels, beside rw.
    for options in ["rw,emergency_ro", "rw,shutdown"] {
        assert!(parse(format!("1 0 8:1 / / rw - ext4 /dev/sda1 {options}\n").as_bytes())[0].read_only, "{options}");
    }
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
fn a_mount_below_a_later_one_is_not_seen_and_one_on_it_is() {
    let text = b"29 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 29 8:17 / /mnt/a/inner rw - xfs /dev/sdb1 rw\n\
        41 40 8:18 / /mnt/a/inner/deep rw - xfs /dev/sdb2 rw\n42 29 8:33 / /mnt/a rw - ext4 /dev/sdc1 rw\n\
        43 42 8:49 / /mnt/a/own rw - ext4 /dev/sdd1 rw\n44 29 8:65 / /mnt/ab rw - ext4 /dev/sde1 rw\n";
    assert_eq!(points(text), ["/", "/mnt/a", "/mnt/a/own", "/mnt/ab"]);
    // A mount on top of another covers what lay in that; a bind mount of the same device elsewhere takes its place.
    let text = b"29 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 29 8:2 / /srv rw - ext4 /dev/sda2 rw\n\
        31 30 8:3 / /srv/x rw - ext4 /dev/sda3 rw\n32 29 8:3 / /long/way/x rw - ext4 /dev/sda3 rw\n\
        33 30 0:50 / /srv rw - tmpfs none rw\n";
    assert_eq!(points(text), ["/", "/long/way/x", "/srv"]);
    // The root of an initramfs, which the real root covers, and a boot folder written down without its parent.
    let text = b"1 1 0:2 / / rw - rootfs rootfs rw\n20 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        21 20 8:2 / /boot rw - ext4 /dev/sda2 rw\n22 20 8:3 / /boot/efi rw - vfat /dev/sda3 rw\n";
    assert_eq!(points(text), ["/", "/boot", "/boot/efi"]);
}

#[test]
fn a_mount_on_a_deleted_folder_is_not_asked_and_the_same_device_elsewhere_is() {
    let text = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /mnt/a//deleted rw - ext4 /dev/sdb1 rw\n\
        3 1 8:2 / /mnt/longer/way rw - ext4 /dev/sdb1 rw\n4 2 8:3 / /mnt/a/b//deleted rw - ext4 /dev/sdc1 rw\n";
    assert_eq!(points(text), ["/", "/mnt/longer/way"]);
}

#[test]
fn memory_that_holds_data_is_measured_and_that_of_sessions_and_containers_is_not() {
    let points_in_memory = |list: &[&str]| {
        let line = |(at, point): (usize, &&str)| format!("{} 1 0:{} / {point} rw - tmpfs tmpfs rw\n", at + 2, at + 30);
        points(list.iter().enumerate().map(line).collect::<String>().as_bytes())
    };
    let all = ["/dev/shm", "/mnt/ram", "/run", "/run/lock", "/run/user/1000", "/srv/cache", "/tmp", "/var/log"];
    assert_eq!(points_in_memory(&all), ["/dev/shm", "/mnt/ram", "/run", "/srv/cache", "/tmp", "/var/log"]);
    let others = ["/sys/fs/cgroup", "/var/lib/docker/containers/x/mounts/shm", "/variable", "/var/lib/kubelet/pods/x"];
    assert!(points_in_memory(&others).is_empty());
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
    for (device, kind) in [("0:50", "nfs4"), ("0:51", "fuse.sshfs"), ("8:1", "fuseblk"), ("0:9", "9p"), ("0:8", "new")]
    {
        assert!(hangs(device, kind), "{kind}");
    }
    for (device, kind) in [("8:1", "ext4"), ("0:30", "btrfs"), ("0:31", "zfs"), ("179:2", "vfat"), ("0:7", "tmpfs")] {
        assert!(!hangs(device, kind), "{kind}");
    }
}
