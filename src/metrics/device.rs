use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::roots::{self, Roots};

/// Devices in memory or on files of another device, floppy and optical drives; each name is followed by a number.
const NO_DISKS: [&str; 5] = ["loop", "ram", "zram", "fd", "sr"];

/// The folder of a device in sysfs: `/` in its name (cciss/c0d0) is `!` there.
pub(super) fn folder(sys: &Path, name: &str) -> PathBuf {
    sys.join("block").join(name.replace('/', "!"))
}

/// Takes `prefix` and a number off a name; the rest, where the name begins so.
fn after_number<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let number = name.strip_prefix(prefix)?;
    let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < number.len()).then_some(rest)
}

/// What a device is: `disk`, `mapped` (on top of others, as those of device-mapper are), `raid`, `volume` (of ZFS), or the
/// boot `partition` that eMMC has as a device of its own; none where it is not reported.
///
/// sysfs lists whole devices in `/sys/block` and their partitions elsewhere. Where it does not know the device at all, a
/// partition is told by its name: that of another device, and a number.
pub(super) fn kind(name: &str, sys: &Path, others: &HashSet<String>) -> Option<&'static str> {
    let numbered = |prefix: &str| after_number(name, prefix) == Some("");
    if NO_DISKS.iter().any(|prefix| numbered(prefix)) {
        return None;
    }
    let block = folder(sys, name);
    if roots::is_present(&block) {
        // A drive without a medium has no sectors. A path to a disk that has several is counted with it.
        let is_path = roots::number::<u8>(&block.join("hidden")) == Some(1);
        if is_path || roots::number::<u64>(&block.join("size")) == Some(0) {
            return None;
        }
    } else {
        let path = after_number(name, "nvme").and_then(|rest| after_number(rest, "c"));
        if path.is_some_and(|rest| rest.starts_with('n')) || is_part(name, sys, others) {
            return None;
        }
    }
    let emmc = after_number(name, "mmcblk").unwrap_or_default();
    Some(if ["boot", "rpmb", "gp"].iter().any(|part| emmc.starts_with(part)) {
        "partition"
    } else if numbered("md") || block.join("md").is_dir() {
        "raid"
    } else if numbered("zd") {
        "volume"
    } else if numbered("dm-") || numbered("drbd") || !roots::names(&block.join("slaves")).is_empty() {
        "mapped"
    } else {
        "disk"
    })
}

/// True where the device of a number (`254:0`) is made of others, as those of device-mapper and md are.
pub(super) fn lies_on_others(sys: &Path, number: &str) -> bool {
    !roots::names(&sys.join("dev/block").join(number).join("slaves")).is_empty()
}

fn is_part(name: &str, sys: &Path, others: &HashSet<String>) -> bool {
    if sys.join("class/block").join(name.replace('/', "!")).join("partition").exists() {
        return true;
    }
    let disk = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if disk == name {
        return false;
    }
    let ends_in_digit = |name: &str| name.ends_with(|c: char| c.is_ascii_digit());
    let parent = match disk.strip_suffix('p').filter(|base| ends_in_digit(base)) {
        Some(base) => base,
        None => disk,
    };
    others.contains(parent)
}

/// What its owner calls a device whose own name is a number: by device-mapper, or by udev's database, where its links are
/// and what mdadm knows.
pub(super) fn given_name(kind: &str, roots: &Roots, name: &str, number: &str) -> Option<String> {
    if kind == "mapped" {
        return roots::value(&folder(&roots.sys, name).join("dm/name")).filter(|name| !name.is_empty());
    }
    let (key, link) = match kind {
        "raid" => ("E:MD_DEVNAME=", "S:md/"),
        "volume" => ("", "S:zvol/"),
        _ => return None,
    };
    let udev = roots::read(&roots.host(&format!("run/udev/data/b{number}"))).ok()?;
    let text = roots::text(&udev);
    let find = |prefix: &str| text.lines().filter(|_| !prefix.is_empty()).find_map(|line| line.strip_prefix(prefix));
    find(key).or_else(|| find(link)).map(str::to_owned)
}

/// True where the device of a chip, or the one that it belongs to, is switched off to save power
/// (Documentation/ABI/testing/sysfs-devices-power).
pub(super) fn sleeps(folder: &Path) -> bool {
    ["", "device", "device/device"].iter().any(|device| {
        let status = roots::value(&folder.join(device).join("power/runtime_status"));
        status.is_some_and(|status| matches!(status.as_str(), "suspended" | "suspending"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_sysfs_partitions_are_told_by_their_names() {
        let names =
            ["sda", "sda1", "mmcblk0", "mmcblk0p1", "nvme0n1", "nvme0n1p2", "xvda1", "loop0", "zram0", "dm-0", "sr0"];
        let others: HashSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let disks: Vec<&str> =
            names.into_iter().filter(|name| kind(name, Path::new("/nonexistent"), &others).is_some()).collect();
        assert_eq!(disks, ["sda", "mmcblk0", "nvme0n1", "xvda1", "dm-0"]);
    }

    #[test]
    fn every_device_has_a_kind_and_paths_to_one_have_none() {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("sda/size", "100"),
            ("nvme0n1/hidden", "0"),
            ("nvme0c0n1/hidden", "1"),
            ("dm-0/dm/name", "vg0-root"),
            ("bcache0/slaves/sda", ""),
            ("md_d0/md/level", "raid1"),
            ("md127/size", "100"),
            ("zd16/size", "100"),
            ("mmcblk0boot1/size", "8192"),
            ("mmcblk0rpmb/size", "8192"),
            ("sr0/size", "2097151"),
        ] {
            let file = dir.path().join("block").join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        let of = |name: &str, sys: &Path| kind(name, sys, &HashSet::new());
        for (name, expected) in [
            ("sda", Some("disk")),
            ("nvme0n1", Some("disk")),
            ("nvme0c0n1", None),
            ("nvme1c3n2", None),
            ("dm-0", Some("mapped")),
            ("bcache0", Some("mapped")),
            ("md_d0", Some("raid")),
            ("md127", Some("raid")),
            ("zd16", Some("volume")),
            ("mmcblk0boot1", Some("partition")),
            ("mmcblk0rpmb", Some("partition")),
            ("sr0", None),
        ] {
            assert_eq!(of(name, dir.path()), expected, "{name}");
        }
        assert_eq!((of("nvme0c0n1", Path::new("/nonexistent")), of("sr1", Path::new("/nonexistent"))), (None, None));
    }
}
