//! Files of `/proc` that several collectors read.

use std::collections::{BTreeMap, HashMap};

use procfs::{FromRead, Uptime};

use super::counters::Ticks;
use super::{Error, roots};

/// The modes of a `cpu` line in the order of proc_stat(5). The last two are contained in `user` and `nice`.
pub(super) const MODES: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];

/// What `/proc/stat` says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stat {
    /// The CPUs that are online, by their number.
    pub cpus: BTreeMap<u32, Ticks>,
    /// True where CPU 0 is the sum of all, for want of single ones.
    pub is_sum: bool,
    /// Numbers of the other lines, by their name.
    pub values: BTreeMap<String, u64>,
    /// Lines of CPUs that could not be read.
    pub unreadable: Vec<String>,
}

/// Reads `/proc/stat` (proc_stat(5)).
///
/// The line `cpu`, the sum of the CPUs that are online, is taken only where no single CPU is listed: it goes back
/// whenever a CPU goes offline.
///
/// # Errors
/// When no line of a CPU can be read.
pub(super) fn stat(bytes: &[u8]) -> Result<Stat, Error> {
    let text = roots::text(bytes);
    let mut stat = Stat::default();
    let mut whole = None;
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(' ') else { continue };
        match name.strip_prefix("cpu") {
            Some("") => whole = ticks(rest),
            Some(number) => match (number.parse(), ticks(rest)) {
                (Ok(number), Some(ticks)) => drop(stat.cpus.insert(number, ticks)),
                _ => stat.unreadable.push(name.to_owned()),
            },
            None if matches!(name, "intr" | "softirq") => {}
            None => drop(rest.trim().parse().map(|value| stat.values.insert(name.to_owned(), value))),
        }
    }
    if stat.cpus.is_empty()
        && let Some(ticks) = whole
    {
        stat.cpus.insert(0, ticks);
        stat.is_sum = true;
    }
    if stat.cpus.is_empty() { Err(Error::format("stat", "no line of a CPU")) } else { Ok(stat) }
}

/// The counters of a line; kernels before 2.6.33 have fewer modes.
fn ticks(text: &str) -> Option<Ticks> {
    let mut ticks = [0; 10];
    let mut count = 0;
    for (slot, field) in ticks.iter_mut().zip(text.split_ascii_whitespace()) {
        *slot = field.parse().ok()?;
        count += 1;
    }
    (count >= 4).then_some(ticks)
}

/// Reads `/proc/meminfo` (proc_meminfo(5)): bytes by name. Lines of another form are left out: a container's file may
/// lack any of them.
pub(super) fn meminfo(bytes: &[u8]) -> HashMap<String, u64> {
    let text = roots::text(bytes);
    let line = |line: &str| -> Option<(String, u64)> {
        let (name, rest) = line.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        let unit = if words.next() == Some("kB") { 1024 } else { 1 };
        Some((name.trim().to_owned(), number.saturating_mul(unit)))
    };
    text.lines().filter_map(line).collect()
}

/// Reads `/proc/vmstat` (proc_vmstat(5)): counters by name. A line of another form is left out: some kernels show an
/// amount that has run below 0 as such, others as a number near 2^64, and neither may cost the counters beside it.
pub(super) fn vmstat(bytes: &[u8]) -> HashMap<String, u64> {
    let line = |line: &str| -> Option<(String, u64)> {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    roots::text(bytes).lines().filter_map(line).collect()
}

/// Reads `/proc/uptime` (proc_uptime(5)): seconds since boot, on CLOCK_BOOTTIME.
///
/// # Errors
/// When there is no number.
pub(super) fn uptime(bytes: &[u8]) -> Result<f64, Error> {
    let uptime = Uptime::from_read(bytes).map(|uptime| uptime.uptime).ok().filter(|uptime| uptime.is_finite());
    uptime.ok_or_else(|| Error::format("uptime", "no two numbers"))
}
