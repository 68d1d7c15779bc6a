use procfs::{FromRead, Uptime};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Map;

use super::baseline::Moment;
use super::collect::Context;
use super::payload::{Put, Report, decimal};
use super::roots::{self, Roots};
use super::{Error, clock, cpu, mounts};

/// Reads `/proc/uptime` (proc_uptime(5)): seconds since boot, on CLOCK_BOOTTIME.
///
/// # Errors
/// When there is no number.
pub(super) fn parse(bytes: &[u8]) -> Result<f64, Error> {
    let uptime = Uptime::from_read(bytes).map(|uptime| uptime.uptime).ok().filter(|uptime| uptime.is_finite());
    uptime.ok_or_else(|| Error::format("uptime", "no two numbers"))
}

/// This moment on the clocks of a tree. On the live host the clock is read itself, because `/proc/uptime` has
/// hundredths of a second only; a recorded or foreign tree has its own uptime.
pub(super) fn moment(roots: &Roots, stat: Option<&cpu::Stat>, wall: jiff::Timestamp) -> Moment {
    let boot_id = roots::value(&roots.proc.join("sys/kernel/random/boot_id")).filter(|id| !id.is_empty());
    let boot_time = stat.and_then(|stat| stat.values.get("btime")).and_then(|time| i64::try_from(*time).ok());
    let recorded = if roots.is_live() { None } else { roots.proc("uptime").and_then(|bytes| parse(&bytes)).ok() };
    let clock = recorded.unwrap_or_else(|| {
        let now = clock_gettime(ClockId::Boottime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    });
    Moment { boot_id, boot_time, clock, wall: wall.as_millisecond() as f64 / 1000.0 }
}

/// What kind of container this is, where it can be seen without rights; none where it is none.
pub(super) fn container(roots: &Roots) -> Option<String> {
    if let Some(container) = roots::value(&roots.host("run/systemd/container")).filter(|name| !name.is_empty()) {
        return Some(container);
    }
    if mounts::has_lxcfs(roots) {
        return Some("lxc".to_owned());
    }
    for (file, name) in [(".dockerenv", "docker"), ("run/.containerenv", "podman")] {
        if roots.host(file).exists() {
            return Some(name.to_owned());
        }
    }
    // The host of such containers has both.
    (roots.proc.join("vz").exists() && !roots.proc.join("bc").exists()).then(|| "openvz".to_owned())
}

/// What the host runs in: a container, `vm`, or nothing.
fn virtualization(roots: &Roots) -> Option<String> {
    if let Some(container) = container(roots) {
        return Some(container);
    }
    let hypervisor = roots.sys.join("hypervisor/type").exists();
    (hypervisor || is_guest(roots)).then(|| "vm".to_owned())
}

/// True where the processor says that it is a hypervisor's.
pub(super) fn is_guest(roots: &Roots) -> bool {
    let cpuinfo = roots.proc("cpuinfo").unwrap_or_default();
    let text = roots::text(&cpuinfo);
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_ascii_whitespace().any(|flag| flag == "hypervisor")
}

/// Collects the `time` row: uptime, boot id, whether the clock is set, and how far this sample is from the one before.
///
/// `clock_synchronized` has no key where none of the daemons that `clock` knows answers: who keeps the clock then is not
/// known.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let roots = &context.roots;
    let mut row = Map::new();
    let mut notes = Vec::new();
    match roots.proc("uptime").and_then(|bytes| parse(&bytes)) {
        Ok(uptime) => row.put("uptime", decimal(uptime, 2)),
        Err(error) => notes.push(error.to_string()),
    }
    row.put_some("boot_id", context.moment.boot_id.clone());
    row.put_some("boot_time", context.moment.boot_time);
    row.put_some("clock_synchronized", clock::synchronized(roots));
    if let Some(past) = &context.past {
        row.put("interval", decimal(past.interval, 3));
        row.put("clock_step", decimal(past.clock_step, 3));
    }
    row.put_some("virtualization", virtualization(roots));
    row.put_some("kernel", roots::value(&roots.proc.join("sys/kernel/osrelease")));
    let rows = if row.is_empty() { Vec::new() } else { vec![("time", row)] };
    Ok(Report { rows, notes, ..Report::default() })
}
