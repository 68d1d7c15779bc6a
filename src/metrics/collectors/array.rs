use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::payload::{Payload, Put, Report, decimal};
use crate::metrics::roots::{self, Roots};
use crate::metrics::{Error, device, surroundings};

/// What the kernel can be doing to an array (Documentation/admin-guide/md.rst, sync_action).
const ACTIONS: [&str; 5] = ["recovery", "resync", "check", "repair", "reshape"];

/// Reads `/proc/mdstat`: an array begins with `md0 : active raid1 sda1[0] sdb1[1](F)`; the indented lines after it say how
/// many devices it has and works with (`[2/1] [U_]`), and what is done to it (`recovery = 8.5% (…`, `resync=DELAYED`).
fn parse(text: &str) -> BTreeMap<String, Payload> {
    let mut arrays: BTreeMap<String, Payload> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if let Some((name, rest)) = line.split_once(" : ").filter(|(name, _)| name.starts_with("md")) {
            arrays.insert(name.to_owned(), head(rest));
            current = Some(name.to_owned());
        } else if !line.starts_with([' ', '\t']) {
            current = None;
        } else if let Some(row) = current.as_ref().and_then(|name| arrays.get_mut(name)) {
            rest(line, row);
        }
    }
    arrays
}

fn head(text: &str) -> Payload {
    let mut row = Map::new();
    let (mut failed, mut spare) = (0u64, 0u64);
    for (at, word) in text.split_ascii_whitespace().enumerate() {
        if at == 0 {
            row.put("state", word);
        } else if let Some((disks, active)) = counts(word) {
            put_counts(&mut row, disks, active);
        } else if word.contains('[') {
            failed += u64::from(word.contains("(F)"));
            spare += u64::from(word.contains("(S)"));
        // Some kernels write the details of an array without devices into the same line.
        } else if !word.starts_with('(') && !row.contains_key("level") {
            row.put("level", word);
        }
    }
    row.put("failed", failed);
    // The devices of an array that is not started are all written down as spares.
    if row.get("state").is_some_and(|state| state != "inactive") {
        row.put("spare", spare);
    }
    row
}

/// `[2/1]`: how many devices an array has, and works with.
fn counts(word: &str) -> Option<(u64, u64)> {
    let (disks, active) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
    Some((disks.parse().ok()?, active.parse().ok()?))
}

fn put_counts(row: &mut Payload, disks: u64, active: u64) {
    row.put("disks", disks);
    row.put("active", active);
    row.put("degraded", disks.saturating_sub(active));
}

fn rest(line: &str, row: &mut Payload) {
    for word in line.split_ascii_whitespace() {
        if let Some((disks, active)) = counts(word) {
            put_counts(row, disks, active);
        }
        let is_action =
            |action: &&&str| word.strip_prefix(**action).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        if let Some(action) = ACTIONS.iter().find(is_action) {
            let done = line.split_ascii_whitespace().find_map(|word| word.strip_suffix('%')?.parse().ok());
            row.put("sync", *action);
            row.put_some("sync_percent", done.map(|percent| decimal(percent, 1)));
        }
    }
}

/// What sysfs says more exactly, for whoever may read it.
fn complete(roots: &Roots, name: &str, row: &mut Payload) {
    let block = device::folder(&roots.sys, name);
    let folder = block.join("md");
    row.put_some("state", roots::value(&folder.join("array_state")).filter(|state| !state.is_empty()));
    row.put_some("degraded", roots::number::<u64>(&folder.join("degraded")));
    row.put_some("mismatches", roots::number::<u64>(&folder.join("mismatch_cnt")));
    let number = roots::value(&block.join("dev"));
    row.put_some("name", number.and_then(|number| device::given_name("raid", roots, name, &number)));
}

/// The pools of ZFS, by `/proc/spl/kstat/zfs/POOL/state`. A container sees those of its host.
fn pools(roots: &Roots) -> Vec<(String, Payload)> {
    let folder = roots.proc.join("spl/kstat/zfs");
    let state = |name: &std::ffi::OsString| {
        let state = roots::value(&folder.join(name).join("state"))?.to_ascii_lowercase();
        let mut row = Map::new();
        row.put("level", "zfs");
        row.put("degraded", u64::from(state != "online"));
        row.put("state", state);
        Some((name.to_string_lossy().into_owned(), row))
    };
    let pools: Vec<_> = roots::names(&folder).iter().filter_map(state).collect();
    if pools.is_empty() || surroundings::container(roots).is_some() { Vec::new() } else { pools }
}

/// Collects the `array` row; there is none where the host has no arrays.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let roots = &context.roots;
    let mut payload = Map::new();
    let bytes = roots.proc("mdstat").unwrap_or_default();
    for (name, mut row) in parse(&roots::text(&bytes)) {
        complete(roots, &name, &mut row);
        payload.put(&name, Value::Object(row));
    }
    payload.extend(pools(roots).into_iter().map(|(name, row)| (name, Value::Object(row))));
    let rows = if payload.is_empty() { Vec::new() } else { vec![(kinds::array::KIND.name, payload)] };
    Ok(Report { rows, ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_array_is_read() {
        // Of node_exporter#3198, #308 and #219, and what Unraid has there (#2642).
        let text = "Personalities : [raid1] [raid6]\n\
            md0 : active raid1 sdb1[1] sda1[0](F)\n      1953381376 blocks super 1.2 [2/1] [U_]\n      \
            bitmap: 3/15 pages [12KB], 65536KB chunk\n\n\
            md1 : active (auto-read-only) raid5 sdc1[2](S) sdd1[1] sde1[0]\n      10 blocks level 5, 512k chunk [3/2] [UU_]\n      \
            [=>...................]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec\n\n\
            md2 : inactive sdf[0](S)\n      100 blocks super external:imsm\n\n\
            md3 : active raid0 sdg[0] sdh[1]\n      100 blocks 512k chunks\n\n\
            md4 : active raid5 super 1.2 level 5, 64k chunk, algorithm 2 [4/0] [____]\n\n\
            md127 : active raid1 sdi[0] sdj[1]\n      10 blocks [2/2] [UU]\n        resync=DELAYED\n\n\
            unused devices: <none>\n";
        let expected = serde_json::json!({
            "md0": {"state": "active", "level": "raid1", "failed": 1, "spare": 0, "disks": 2, "active": 1, "degraded": 1},
            "md1": {"state": "active", "level": "raid5", "failed": 0, "spare": 1, "disks": 3, "active": 2, "degraded": 1,
                    "sync": "recovery", "sync_percent": 8.5},
            "md2": {"state": "inactive", "failed": 0},
            "md3": {"state": "active", "level": "raid0", "failed": 0, "spare": 0},
            "md4": {"state": "active", "level": "raid5", "failed": 0, "spare": 0, "disks": 4, "active": 0, "degraded": 4},
            "md127": {"state": "active", "level": "raid1", "failed": 0, "spare": 0, "disks": 2, "active": 2,
                      "degraded": 0, "sync": "resync"},
        });
        assert_eq!(serde_json::json!(parse(text)), expected);
        assert!(parse("Personalities : \nunused devices: <none>\n").is_empty() && parse("").is_empty());
        assert!(parse("sbName=/boot/config/super.dat\nsbVersion=2.9.17\nmdState=STARTED\n").is_empty());
    }
}
