use std::collections::HashMap;

use serde_json::Map;

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::payload::{Payload, Put, Report, percent};
use crate::metrics::{Error, roots, surroundings};

/// The fields that the `memory` row takes over as they are, with their key.
const FIELDS: [(&str, &str); 10] = [
    ("free", "MemFree"),
    ("buffers", "Buffers"),
    ("cached", "Cached"),
    ("shared", "Shmem"),
    ("slab", "Slab"),
    ("slab_reclaimable", "SReclaimable"),
    ("dirty", "Dirty"),
    ("writeback", "Writeback"),
    ("committed", "Committed_AS"),
    ("anonymous", "AnonPages"),
];

/// Memory that can be had without swapping where the kernel does not say (before 3.14): the kernel's own formula
/// (si_mem_available in mm/show_mem.c), with the low watermark taken as 5/4 of `reserve`, vm.min_free_kbytes in bytes.
fn estimate(fields: &HashMap<String, u64>, reserve: u64) -> u64 {
    let get = |name: &str| fields.get(name).copied().unwrap_or(0);
    let low = reserve.saturating_mul(5) / 4;
    let files = match (fields.get("Active(file)"), fields.get("Inactive(file)")) {
        (Some(active), Some(inactive)) => active.saturating_add(*inactive),
        _ => (get("Cached").saturating_add(get("Buffers"))).saturating_sub(get("Shmem")),
    };
    let kept = |size: u64| size - (size / 2).min(low);
    get("MemFree").saturating_sub(low).saturating_add(kept(files)).saturating_add(kept(get("SReclaimable")))
}

/// The cache of ZFS (ARC): its size in bytes, and how much of it the kernel can have back.
struct ZfsArc {
    size: u64,
    reclaimable: u64,
}

/// Reads `/proc/spl/kstat/zfs/arcstats`: `name type value`. The cache shrinks down to `c_min`; it is no page cache, so that
/// the kernel does not count it as available.
fn arc(bytes: &[u8]) -> Option<ZfsArc> {
    let text = roots::text(bytes);
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some(name)).then(|| words.nth(1)?.parse::<u64>().ok()).flatten()
        })
    };
    let size = value("size")?;
    Some(ZfsArc { size, reclaimable: size.saturating_sub(value("c_min")?) })
}

/// The `memory` row, in bytes. `used` is what is neither free nor to be had back: total less available, and less what ZFS
/// gives back.
///
/// # Errors
/// When the total is missing or 0.
fn row(fields: &HashMap<String, u64>, reserve: u64, arc: Option<ZfsArc>) -> Result<Payload, Error> {
    let total = fields.get("MemTotal").copied().filter(|total| *total > 0);
    let total = total.ok_or_else(|| Error::format("meminfo", "no MemTotal"))?;
    let stated = fields.get("MemAvailable").copied();
    let available = stated.unwrap_or_else(|| estimate(fields, reserve)).min(total);
    // A cache that is larger than all memory is another host's, or none.
    let arc = arc.filter(|arc| arc.size <= total);
    let reclaimable = arc.as_ref().map_or(0, |arc| arc.reclaimable);
    let used = (total - available).saturating_sub(reclaimable);
    let mut row = Map::new();
    row.put("total", total);
    row.put("available", available);
    row.put("used", used);
    row.put("used_percent", percent(used as f64, total as f64));
    if stated.is_none() {
        row.put("available_estimated", true);
    }
    if let Some(arc) = arc {
        row.put("zfs_arc", arc.size);
        row.put("zfs_arc_reclaimable", arc.reclaimable);
    }
    for (key, name) in FIELDS {
        row.put_some(key, fields.get(name).copied());
    }
    Ok(row)
}

/// Collects the `memory` row.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let fields = context.meminfo()?;
    let reserve = roots::number::<u64>(&context.roots.proc.join("sys/vm/min_free_kbytes")).unwrap_or(0);
    // A container sees the cache of its host, and its own memory.
    let host_has = || context.roots.proc("spl/kstat/zfs/arcstats").ok().and_then(|bytes| arc(&bytes));
    let arc = host_has().filter(|_| surroundings::container(&context.roots).is_none());
    Ok(Report::row(kinds::memory::KIND.name, row(fields, reserve.saturating_mul(1024), arc)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::proc;

    #[test]
    fn used_is_what_is_not_available() {
        let row = row(
            &proc::meminfo(b"MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 250 kB\nHugePages_Total: 0\n"),
            0,
            None,
        )
        .unwrap();
        assert_eq!((&row["used"], &row["used_percent"]), (&(750 * 1024).into(), &75.0.into()));
        assert!(!row.contains_key("available_estimated"));
    }

    #[test]
    fn without_memavailable_it_is_estimated_and_more_than_free() {
        let text =
            b"MemTotal: 1000 kB\nMemFree: 100 kB\nActive(file): 200 kB\nInactive(file): 100 kB\nSReclaimable: 40 kB\n";
        let row = row(&proc::meminfo(text), 10 * 1024, None).unwrap();
        assert_eq!(row["available"], 1024 * 100 - 12800 + (1024 * 300 - 12800) + (1024 * 40 - 12800));
        assert_eq!(row["available_estimated"], true);
    }

    #[test]
    fn a_cache_of_zfs_larger_than_the_memory_is_not_of_it() {
        let fields = proc::meminfo(b"MemTotal: 1000 kB\nMemAvailable: 250 kB\n");
        let used = |size: u64| {
            let row = row(&fields, 0, Some(ZfsArc { size, reclaimable: 400 * 1024 })).unwrap();
            (row["used"].clone(), row.get("zfs_arc").cloned())
        };
        assert_eq!(used(1000 * 1024), ((350 * 1024).into(), Some((1000 * 1024).into())));
        assert_eq!(used(1000 * 1024 + 1), ((750 * 1024).into(), None));
    }

    #[test]
    fn odd_files_of_containers_never_wrap_around() {
        let row =
            row(&proc::meminfo(b"MemTotal: 10 kB\nMemAvailable: 900 kB\nMemFree 3\nbad line\n"), 0, None).unwrap();
        assert_eq!((&row["used"], &row["available"]), (&0.into(), &10240.into()));
        assert!(super::row(&proc::meminfo(b"MemTotal: 0 kB\n"), 0, None).is_err());
        assert!(super::row(&proc::meminfo(b""), 0, None).is_err());
    }
}
