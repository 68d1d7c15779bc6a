use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::Error;
use crate::metrics::baseline::increase;
use crate::metrics::context::Context;
use crate::metrics::counters::OfUnit;
use crate::metrics::device;
use crate::metrics::payload::{Payload, Put, Report, decimal};
use crate::metrics::roots;
use crate::systemd::Looked;

/// How many control groups are looked at, and how many names at most to find those that the hub deployed among them.
const MOST: usize = 500;
const MOST_NAMES: usize = 10_000;
/// How many units are told for each of CPU, memory and I/O, and from where on they are busy: percent of a CPU, bytes, bytes
/// a second.
const BUSIEST: usize = 3;
const BUSY_CPU: f64 = 1.0;
const BUSY_MEMORY: u64 = 64_000_000;
const BUSY_IO: f64 = 100_000.0;
/// How many of the units that the hub deployed are told.
const DEPLOYED: usize = 20;

/// A unit's control group, and what is known of it so far.
struct Unit {
    folder: PathBuf,
    name: String,
    /// Percent of one CPU.
    cpu: Option<f64>,
    memory: Option<u64>,
    /// Bytes read and written a second.
    io: Option<(f64, f64)>,
}

impl Unit {
    fn moved(&self) -> f64 {
        self.io.map_or(0.0, |(read, written)| read + written)
    }
}

/// Whether a unit is one that the hub deployed.
fn is_deployed(name: &str, deployed: &BTreeSet<String>) -> bool {
    // An instance has its template's file.
    let template = name.split_once('@').and_then(|(prefix, rest)| {
        let ending = rest.rsplit_once('.')?.1;
        Some(format!("{prefix}@.{ending}"))
    });
    deployed.contains(name) || template.is_some_and(|template| deployed.contains(&template))
}

/// The control groups of services and scopes, by the folders of slices that hold them. What a user's own manager started
/// belongs to its `user@UID.service`.
fn find(slice: &Path, found: &mut Vec<(PathBuf, String)>) {
    let Ok(entries) = std::fs::read_dir(slice) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || found.len() >= MOST_NAMES {
            continue;
        }
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.ends_with(".slice") {
            find(&entry.path(), found);
        } else if name.ends_with(".service") || name.ends_with(".scope") {
            // systemd puts `_` before names that the kernel has a file of.
            found.push((entry.path(), name.strip_prefix('_').unwrap_or(&name).to_owned()));
        }
    }
}

/// `usage_usec` of cpu.stat (Documentation/admin-guide/cgroup-v2.rst).
fn cpu_time(folder: &Path) -> Option<u64> {
    let bytes = roots::read(&folder.join("cpu.stat")).ok()?;
    let text = roots::text(&bytes);
    text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()
}

/// Bytes read and written by io.stat, of devices that lie on others and of those that lie on none each for themselves: the
/// same bytes are counted on every layer. The larger sum is the whole.
fn moved(folder: &Path, mut lies_on_others: impl FnMut(&str) -> bool) -> Option<(u64, u64)> {
    let bytes = roots::read(&folder.join("io.stat")).ok()?;
    let mut sums = [(0u64, 0u64); 2];
    for line in roots::text(&bytes).lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next() else { continue };
        let sum = &mut sums[usize::from(lies_on_others(device))];
        for word in words {
            let number = |prefix| word.strip_prefix(prefix)?.parse::<u64>().ok();
            sum.0 = sum.0.saturating_add(number("rbytes=").unwrap_or(0));
            sum.1 = sum.1.saturating_add(number("wbytes=").unwrap_or(0));
        }
    }
    Some((sums[0].0.max(sums[1].0), sums[0].1.max(sums[1].1)))
}

/// The names of the busiest by `value`, where it is at least `least`.
fn busiest(units: &[Unit], least: f64, value: impl Fn(&Unit) -> f64) -> impl Iterator<Item = usize> {
    let mut order: Vec<(usize, f64)> =
        units.iter().map(&value).enumerate().filter(|(_, value)| *value >= least).collect();
    order.sort_by(|one, two| two.1.total_cmp(&one.1));
    order.into_iter().take(BUSIEST).map(|(at, _)| at)
}

/// Collects the `unit` row: the units of systemd that use most, and those that the hub deployed, by their control groups
/// of version 2. There is none where the host has another version.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let root = context.roots.sys.join("fs/cgroup");
    if !roots::is_present(&root.join("cgroup.controllers")) {
        return Ok(Report::default());
    }
    let mut groups = Vec::new();
    find(&root, &mut groups);
    if let (true, Ok(deployed)) = (groups.len() > MOST, &context.deployed) {
        groups.sort_by_cached_key(|(_, name)| !is_deployed(name, deployed));
    }
    groups.truncate(MOST);
    // Time that all CPUs of the host together do not have is none: the counter jumped.
    let cpus = context.stat().map_or(1.0, |stat| if stat.is_sum { f64::INFINITY } else { stat.cpus.len() as f64 });
    let most = |interval: f64| (interval + 1.0) * 1.1 * cpus * 1e6;
    let mut layers: BTreeMap<String, bool> = BTreeMap::new();
    let mut report = Report::default();
    let past = context.past.as_ref();
    let mut units = Vec::new();
    for (folder, name) in groups {
        let usage = cpu_time(&folder);
        let io = moved(&folder, |number| {
            *layers.entry(number.to_owned()).or_insert_with(|| device::lies_on_others(&context.roots.sys, number))
        });
        let before = past.and_then(|past| Some((past.counters.units.get(&name)?, past.interval)));
        let cpu = before.and_then(|(before, interval)| {
            let microseconds = increase(before.0?, usage?)? as f64;
            (microseconds <= most(interval)).then_some(microseconds / interval / 1e4)
        });
        let io_rate = before.and_then(|(before, interval)| {
            let (read, written) = io?;
            let rate = |before, now| increase(before, now).map(|bytes| bytes as f64 / interval);
            Some((rate(before.1?, read)?, rate(before.2?, written)?))
        });
        let (read, written) = io.unzip();
        report.counters.units.insert(name.clone(), OfUnit(usage, read, written));
        units.push(Unit { memory: roots::number(&folder.join("memory.current")), folder, name, cpu, io: io_rate });
    }
    let mut told: BTreeSet<usize> = busiest(&units, BUSY_CPU, |unit| unit.cpu.unwrap_or(0.0)).collect();
    told.extend(busiest(&units, BUSY_MEMORY as f64, |unit| unit.memory.unwrap_or(0) as f64));
    told.extend(busiest(&units, BUSY_IO, Unit::moved));
    match &context.deployed {
        Ok(deployed) => {
            let ours = units.iter().enumerate().filter(|(_, unit)| is_deployed(&unit.name, deployed));
            told.extend(ours.map(|(at, _)| at).take(DEPLOYED));
        }
        Err(error) => report.lasting.push(format!("the units that the hub deployed are not known: {error}")),
    }
    let told: Vec<&Unit> = told.iter().filter_map(|at| units.get(*at)).collect();
    let restarts = restarts(context, &told);
    let mut payload = Map::new();
    for unit in told {
        let mut row = row(unit);
        row.put_some("restarts", restarts.get(&unit.name).copied());
        payload.put(&unit.name, Value::Object(row));
    }
    if !payload.is_empty() {
        report.rows.push((kinds::unit::KIND.name, payload));
    }
    Ok(report)
}

/// How often systemd restarted services by itself; none of those that cannot be asked for: in a recorded tree, and where
/// systemd does not answer, which the `systemd` row tells.
fn restarts(context: &Context, units: &[&Unit]) -> BTreeMap<String, u32> {
    if !context.asks_systemd() {
        return BTreeMap::new();
    }
    if let Some(look) = &context.look {
        return look.restarts.clone();
    }
    let names = units.iter().map(|unit| unit.name.clone()).filter(|name| name.ends_with(".service"));
    context.looked(&names.collect::<Vec<_>>()).map(Looked::restarts).unwrap_or_default()
}

fn row(unit: &Unit) -> Payload {
    let mut row = Map::new();
    row.put_some("cpu_percent", unit.cpu.map(|percent| decimal(percent, 2)));
    row.put_some("memory", unit.memory);
    if let Some((read, written)) = unit.io {
        row.put("read_bytes_per_second", decimal(read, 0));
        row.put("written_bytes_per_second", decimal(written, 0));
    }
    row.put_some("tasks", roots::number::<u64>(&unit.folder.join("pids.current")));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let folder = root.join(path);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn services_and_scopes_are_found_below_slices_only() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "init.scope",
            "system.slice/ssh.service",
            "system.slice/system-getty.slice/getty@tty1.service",
            "system.slice/_memory.service",
            "system.slice/dev-sda.swap",
            "user.slice/user-0.slice/user@0.service/app.slice/inner.service",
            "kubepods/pod1.service",
        ] {
            group(dir.path(), path, &[]);
        }
        let mut found = Vec::new();
        find(dir.path(), &mut found);
        let mut names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["getty@tty1.service", "init.scope", "memory.service", "ssh.service", "user@0.service"]);
    }

    #[test]
    fn bytes_are_counted_on_one_layer() {
        let dir = tempfile::tempdir().unwrap();
        let text = "254:0 rbytes=1000 wbytes=2000 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=900 wbytes=2100\n\
            8:16 rbytes=50\n254:1 \nodd\n8:32 wbytes=18446744073709551615 wbytes=x\n";
        group(dir.path(), "a", &[("io.stat", text), ("cpu.stat", "usage_usec 42\nuser_usec 40\n")]);
        let folder = dir.path().join("a");
        assert_eq!(moved(&folder, |device| device.starts_with("254:")), Some((1000, u64::MAX)));
        assert_eq!(cpu_time(&folder), Some(42));
        assert_eq!(moved(dir.path(), |_| false), None);
    }

    #[test]
    fn instances_of_a_deployed_template_are_the_hub_s() {
        let deployed = ["app.service".to_owned(), "work@.service".to_owned()].into();
        for (name, is_ours) in [
            ("app.service", true),
            ("work@1.service", true),
            ("work@a@b.service", true),
            ("work@1.scope", false),
            ("other.service", false),
        ] {
            assert_eq!(is_deployed(name, &deployed), is_ours, "{name}");
        }
    }
}
