use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::baseline::{increase, increase_32};
use super::collect::Context;
use super::payload::{Payload, Put, Report, decimal};
use super::{Error, mounts, roots};

/// The columns of `/proc/net/dev` that are kept: key, position after the colon.
const COLUMNS: [(&str, usize); 8] = [
    ("rx_bytes", 0),
    ("tx_bytes", 8),
    ("rx_packets", 1),
    ("tx_packets", 9),
    ("rx_errors", 2),
    ("tx_errors", 10),
    ("rx_drops", 3),
    ("tx_drops", 11),
];
/// ARPHRD_LOOPBACK (if_arp.h).
const LOOPBACK: u32 = 772;
/// How many interfaces may lie on one another (MAX_NEST_DEV of the kernel).
const DEPTH: u32 = 8;

/// An interface's counters since it was registered, in the order of `COLUMNS`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Counters {
    /// The interface's index: one that was removed and made again has another.
    pub index: Option<u32>,
    /// The counters.
    pub values: [u64; 8],
}

/// Reads `/proc/net/dev` (proc_pid_net(5)): the counters by interface, each line for itself; returned with the lines
/// that have another form. Old kernels put no space after the colon.
pub(super) fn parse(bytes: &[u8]) -> (BTreeMap<String, Counters>, Vec<String>) {
    let (mut interfaces, mut unreadable) = (BTreeMap::new(), Vec::new());
    for line in bytes.split(|byte| *byte == b'\n') {
        // The two lines of headings have no colon; an alias (`eth0:1`) has two.
        let Some(colon) = line.iter().rposition(|byte| *byte == b':') else { continue };
        let name = mounts::printable(Path::new(std::ffi::OsStr::new(trimmed(&line[..colon]))));
        match counters(&line[colon + 1..]) {
            Some(values) => drop(interfaces.insert(name, Counters { index: None, values })),
            None => unreadable.push(Error::format("net/dev", format!("line of {name}")).to_string()),
        }
    }
    (interfaces, unreadable)
}

fn trimmed(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes.trim_ascii())
}

fn counters(fields: &[u8]) -> Option<[u64; 8]> {
    let text = std::str::from_utf8(fields).ok()?;
    let numbers: Result<Vec<u64>, _> = text.split_ascii_whitespace().map(str::parse).collect();
    let numbers = numbers.ok()?;
    let mut values = [0; 8];
    for (value, (_, column)) in values.iter_mut().zip(COLUMNS) {
        *value = *numbers.get(column)?;
    }
    Some(values)
}

/// What sysfs says an interface is (Documentation/ABI/testing/sysfs-class-net).
fn kind(folder: &Path) -> Option<&'static str> {
    if folder.join("bonding").is_dir() {
        return Some("bond");
    }
    if folder.join("bridge").is_dir() {
        // A bridge between containers only has no way out of the host; its name and number come and go with them.
        let ports = folder.join("brif");
        let leads_out = |port: &std::ffi::OsString| leads_out(&folder.with_file_name(port), DEPTH);
        return (!ports.is_dir() || roots::names(&ports).iter().any(leads_out)).then_some("bridge");
    }
    is_physical(folder).then_some("physical")
}

/// True where an interface belongs to a device; of a recorded tree that has the links of the class only, the link
/// says it.
fn is_physical(folder: &Path) -> bool {
    let is_outside = |link: &Path| !link.components().any(|part| part.as_os_str() == "virtual");
    roots::is_present(&folder.join("device"))
        || (!folder.exists() && std::fs::read_link(folder).is_ok_and(|link| is_outside(&link)))
}

/// True where an interface is physical, a bond, or lies on such a one, as a VLAN does (`lower_eth0`).
fn leads_out(folder: &Path, depth: u32) -> bool {
    if is_physical(folder) || folder.join("bonding").is_dir() {
        return true;
    }
    let below = |name: &std::ffi::OsString| {
        let lower = name.to_str().and_then(|name| name.strip_prefix("lower_"));
        lower.is_some_and(|lower| leads_out(&folder.with_file_name(lower), depth - 1))
    };
    depth > 0 && roots::names(folder).iter().any(below)
}

/// The interfaces to report, with what they are. A container has none that sysfs calls physical: there, everything
/// but loopback, what hangs on a bridge of its own, and what is down, as the kernel's own tunnels are, is its way out.
fn select(sys: &Path, names: &[String]) -> BTreeMap<String, &'static str> {
    let class = sys.join("class/net");
    let folder = |name: &str| -> PathBuf { class.join(name) };
    let mut selected = BTreeMap::new();
    for name in names {
        if let Some(kind) = kind(&folder(name)) {
            selected.insert(name.clone(), kind);
        }
    }
    if !selected.is_empty() {
        return selected;
    }
    let is_inner = |name: &str| {
        let folder = folder(name);
        let loopback = roots::number::<u32>(&folder.join("type")) == Some(LOOPBACK) || name == "lo";
        let is_down = roots::value(&folder.join("operstate")).is_some_and(|state| state == "down");
        let has = |name: &str| roots::is_present(&folder.join(name));
        loopback || is_down || has("bridge") || has("brport") || has("master")
    };
    names.iter().filter(|name| !is_inner(name)).map(|name| (name.clone(), "virtual")).collect()
}

/// What an interface that has a speed can move at most, in bytes; none where its speed is not known.
fn most_bytes(folder: &Path, interval: f64) -> Option<u64> {
    let megabits: i64 = roots::number(&folder.join("speed"))?;
    (megabits > 0).then_some((megabits as f64 * 125_000.0 * interval) as u64)
}

/// Increases of all counters; none where one of them was reset. On a kernel of 32 bits (`narrow`: the most that can
/// have been moved) a counter may have wrapped once.
fn increases(before: &Counters, now: &Counters, narrow: Option<u64>) -> Option<[u64; 8]> {
    if before.index != now.index {
        return None;
    }
    let mut increases = [0; 8];
    for (slot, (before, now)) in increases.iter_mut().zip(before.values.iter().zip(now.values)) {
        *slot = match narrow {
            Some(most) => increase_32(*before, now, most)?,
            None => increase(*before, now)?,
        };
    }
    Some(increases)
}

/// An interface's columns: the counters as they are, and what they were a second.
fn row(now: &Counters, rates: Option<([u64; 8], f64)>) -> Payload {
    let mut row = Map::new();
    for ((key, _), value) in COLUMNS.iter().zip(now.values) {
        row.put(key, value);
    }
    if let Some((increases, interval)) = rates {
        for ((key, _), increase) in COLUMNS.iter().zip(increases) {
            row.put(&format!("{key}_per_second"), decimal(increase as f64 / interval, 2));
        }
    }
    row
}

/// Collects the `network` row, by interface.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    // `net` is a link to this process's own network namespace; seen from a container, process 1 has the host's.
    let dev = context.roots.proc("1/net/dev").or_else(|_| context.roots.proc("net/dev"))?;
    let (interfaces, notes) = parse(&dev);
    let names: Vec<String> = interfaces.keys().cloned().collect();
    let selected = select(&context.roots.sys, &names);
    let mut report = Report { notes, ..Report::default() };
    let mut payload = Map::new();
    for (name, mut now) in interfaces {
        let Some(kind) = selected.get(&name) else { continue };
        let folder = context.roots.sys.join("class/net").join(&name);
        now.index = roots::number(&folder.join("ifindex"));
        let past = context.past.as_ref();
        let rates = past.and_then(|past| {
            let before = past.counters.interfaces.get(&name)?;
            let narrow = context.narrow.then(|| most_bytes(&folder, past.interval).unwrap_or(u64::MAX));
            Some((increases(before, &now, narrow)?, past.interval))
        });
        let mut row = row(&now, rates);
        row.put("kind", *kind);
        row.put_some(
            "up",
            roots::value(&folder.join("operstate")).filter(|state| state != "unknown").map(|state| state == "up"),
        );
        let speed = roots::number::<i64>(&folder.join("speed")).filter(|speed| *speed > 0);
        row.put_some("speed_mbps", speed);
        payload.put(&name, Value::Object(row));
        report.counters.interfaces.insert(name, now);
    }
    if !payload.is_empty() {
        report.rows.push(("network", payload));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &[u8] = b"Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
        \x20   lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  eth0:100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\nbad: 1 2 x\n\
        w\xff0: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n";

    #[test]
    fn lines_are_read_each_for_itself() {
        let (interfaces, unreadable) = parse(DEV);
        assert_eq!(interfaces.keys().collect::<Vec<_>>(), ["eth0", "lo", "w\\xff0"]);
        assert_eq!(interfaces["eth0"].values, [100, 200, 2, 5, 3, 6, 4, 7]);
        assert_eq!(unreadable.len(), 1);
    }

    #[test]
    fn sysfs_tells_what_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class/net");
        for path in [
            "veth1/device",
            "br0/bridge",
            "br0/brif/veth1",
            "docker0/bridge",
            "docker0/brif/vethabc",
            "vethabc/brport",
            "bond0/bonding",
            "bond0.10/lower_bond0",
            "vmbr10/bridge",
            "vmbr10/brif/bond0.10",
            "wg0",
            "lo",
        ] {
            std::fs::create_dir_all(class.join(path)).unwrap();
        }
        let names: Vec<String> = ["veth1", "br0", "docker0", "vethabc", "bond0", "bond0.10", "vmbr10", "wg0", "lo"]
            .map(str::to_owned)
            .to_vec();
        let selected = select(dir.path(), &names);
        let expected = [("bond0", "bond"), ("br0", "bridge"), ("veth1", "physical"), ("vmbr10", "bridge")];
        assert_eq!(selected.iter().map(|(name, kind)| (name.as_str(), *kind)).collect::<Vec<_>>(), expected);
        // Inside a container.
        let names: Vec<String> = ["wg0", "lo", "docker0", "vethabc"].map(str::to_owned).to_vec();
        assert_eq!(select(dir.path(), &names).keys().collect::<Vec<_>>(), ["wg0"]);
        assert_eq!(
            select(Path::new("/nonexistent"), &["lo".into(), "eth0".into()]).keys().collect::<Vec<_>>(),
            ["eth0"]
        );
    }

    #[test]
    fn links_that_lead_nowhere_still_say_what_they_are_links_to() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class/net");
        std::fs::create_dir_all(class.join("wlan0")).unwrap();
        for (name, target) in [
            ("eth0", "../../devices/pci0000:00/0000:00:03.0/net/eth0"),
            ("docker0", "../../devices/virtual/net/docker0"),
            ("wlan0/device", "../../../mmc1:0001:1"),
        ] {
            std::os::unix::fs::symlink(target, class.join(name)).unwrap();
        }
        let names: Vec<String> = ["docker0", "eth0", "lo", "wlan0"].map(str::to_owned).to_vec();
        assert_eq!(select(dir.path(), &names).keys().collect::<Vec<_>>(), ["eth0", "wlan0"]);
    }

    #[test]
    fn in_a_container_tunnels_that_are_down_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class/net");
        for (name, state) in [("tunl0", "down"), ("sit0", "down"), ("eth0", "up"), ("wg0", "unknown")] {
            std::fs::create_dir_all(class.join(name)).unwrap();
            std::fs::write(class.join(name).join("operstate"), state).unwrap();
        }
        let names: Vec<String> = ["eth0", "lo", "sit0", "tunl0", "wg0"].map(str::to_owned).to_vec();
        assert_eq!(select(dir.path(), &names).keys().collect::<Vec<_>>(), ["eth0", "wg0"]);
    }

    #[test]
    fn a_decrease_is_a_reset_or_on_32_bits_a_plausible_wrap() {
        let counters = |rx, index| Counters { index: Some(index), values: [rx, 0, 0, 0, 0, 0, 0, 0] };
        let near = (1 << 32) - 1000;
        assert_eq!(increases(&counters(near, 2), &counters(500, 2), None), None);
        assert_eq!(increases(&counters(near, 2), &counters(500, 2), Some(750_000_000)).map(|all| all[0]), Some(1500));
        assert_eq!(
            increases(&counters(near, 2), &counters(500, 2), Some(u64::MAX)),
            None,
            "more than one wrap is possible"
        );
        assert_eq!(increases(&counters(1, 2), &counters(500, 3), None), None, "another interface of that name");
    }
}
