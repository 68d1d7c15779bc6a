use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::baseline::{increase, increase_32};
use crate::metrics::context::Context;
use crate::metrics::counters::OfDisk;
use crate::metrics::device::{self, folder};
use crate::metrics::payload::{Payload, Put, Report, decimal, percent};
use crate::metrics::{Error, roots};

/// Bytes of a sector in `/proc/diskstats`, whatever the device's own are (Documentation/admin-guide/iostats.rst).
const SECTOR: u64 = 512;
/// Reads `/proc/diskstats` (Documentation/admin-guide/iostats.rst): lines of 7, 14, 18 or 20 fields, each for itself;
/// returned with the lines that have another form.
pub(super) fn parse(bytes: &[u8]) -> (BTreeMap<String, OfDisk>, Vec<String>) {
    let (mut devices, mut unreadable) = (BTreeMap::new(), Vec::new());
    for line in roots::text(bytes).lines().filter(|line| !line.trim().is_empty()) {
        match device(line) {
            Some((name, counters)) => drop(devices.insert(name, counters)),
            None => unreadable.push(Error::format("diskstats", format!("line {line:?}")).to_string()),
        }
    }
    (devices, unreadable)
}

fn device(line: &str) -> Option<(String, OfDisk)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    // What is no number costs what it says, not the line: some kernels print requests below 0 as such.
    let numbers: Vec<Option<u64>> = fields.iter().skip(3).map(|field| field.parse().ok()).collect();
    let identity = format!("{}:{}", fields.first()?.parse::<u32>().ok()?, fields.get(1)?.parse::<u32>().ok()?);
    let name = (*fields.get(2)?).to_owned();
    let counters = match *numbers.as_slice() {
        [reads, read_sectors, writes, write_sectors] => OfDisk {
            identity,
            reads: reads?,
            read_sectors: read_sectors?,
            writes: writes?,
            write_sectors: write_sectors?,
            ..OfDisk::default()
        },
        [reads, _, read_sectors, read_ms, writes, _, write_sectors, write_ms, in_flight, busy_ms, _, ..] => OfDisk {
            identity,
            reads: reads?,
            read_sectors: read_sectors?,
            read_ms,
            writes: writes?,
            write_sectors: write_sectors?,
            write_ms,
            busy_ms,
            // Others print what stands for it in 32 bits.
            in_flight: in_flight.filter(|count| i32::try_from(*count).is_ok()),
        },
        _ => return None,
    };
    Some((name, counters))
}

/// A disk's columns: bytes, requests and time since it was attached, and what they were a second since `before`.
/// A counter that went back means that the device was reset: no rate then.
fn row(now: &OfDisk, before: Option<&OfDisk>, interval: f64) -> Payload {
    let mut row = Map::new();
    row.put("read_bytes", now.read_sectors.saturating_mul(SECTOR));
    row.put("written_bytes", now.write_sectors.saturating_mul(SECTOR));
    row.put("reads", now.reads);
    row.put("writes", now.writes);
    row.put_some("read_ms", now.read_ms);
    row.put_some("write_ms", now.write_ms);
    row.put_some("busy_ms", now.busy_ms);
    row.put_some("in_flight", now.in_flight);
    let Some(before) = before.filter(|before| before.identity == now.identity) else { return row };
    let whole = |before, now| increase(before, now);
    let (Some(reads), Some(writes), Some(read), Some(written)) = (
        whole(before.reads, now.reads),
        whole(before.writes, now.writes),
        whole(before.read_sectors, now.read_sectors),
        whole(before.write_sectors, now.write_sectors),
    ) else {
        return row;
    };
    for (key, count) in [
        ("read_bytes_per_second", read.saturating_mul(SECTOR)),
        ("written_bytes_per_second", written.saturating_mul(SECTOR)),
        ("reads_per_second", reads),
        ("writes_per_second", writes),
    ] {
        row.put(key, decimal(count as f64 / interval, 2));
    }
    let interval_ms = interval * 1000.0;
    let milliseconds = |before: Option<u64>, now: Option<u64>, at_once: f64| {
        let most = (interval_ms * 1.1 * at_once + 100.0) as u64;
        increase_32(before?, now?, most).filter(|increase| *increase <= most)
    };
    let busy = milliseconds(before.busy_ms, now.busy_ms, 1.0);
    row.put_some("busy_percent", busy.map(|busy| percent(busy as f64, interval_ms)));
    // Many requests wait at the same time, so their times add up to more than the interval.
    for (key, count, took) in [
        ("read_wait_ms", reads, milliseconds(before.read_ms, now.read_ms, 4096.0)),
        ("write_wait_ms", writes, milliseconds(before.write_ms, now.write_ms, 4096.0)),
    ] {
        row.put_some(key, took.filter(|_| count > 0).map(|took| decimal(took as f64 / count as f64, 2)));
    }
    row
}

/// Collects the `disk_io` row, by device.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let bytes = match context.roots.proc("diskstats") {
        // Containers of OpenVZ and gVisor have none.
        Err(error) if error.is_absent() => return Ok(Report::default()),
        read => read?,
    };
    let (devices, notes) = parse(&bytes);
    let names: HashSet<String> = devices.keys().cloned().collect();
    let mut report = Report { notes, ..Report::default() };
    let mut payload = Map::new();
    for (name, mut counters) in devices {
        let Some(kind) = device::kind(&name, &context.roots.sys, &names) else { continue };
        if kind == "partition" && counters.reads == 0 && counters.writes == 0 {
            continue;
        }
        let given = device::given_name(kind, &context.roots, &name, &counters.identity);
        let sequence = folder(&context.roots.sys, &name).join("diskseq");
        if let Some(sequence) = roots::value(&sequence) {
            counters.identity = format!("{} #{sequence}", counters.identity);
        }
        let past = context.past.as_ref();
        let before = past.and_then(|past| past.counters.disks.get(&name));
        let mut row = row(&counters, before, past.map_or(0.0, |past| past.interval));
        row.put("kind", kind);
        row.put_some("name", given);
        payload.put(&name, Value::Object(row));
        report.counters.disks.insert(name, counters);
    }
    if !payload.is_empty() {
        report.rows.push((kinds::disk_io::KIND.name, payload));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_is_read_and_a_damaged_one_costs_itself() {
        let text =
            b"   8  0 sda 1 2 3 4 5 6 7 8 9 10 11\n 8 1 sda1 1 2 3 4\n8 16 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n\
            8 32 sdc 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n8 48 sdd 1 2 x 4 5\n8 64 sde 1 2 3\n";
        let (devices, unreadable) = parse(text);
        assert_eq!(devices.keys().collect::<Vec<_>>(), ["sda", "sda1", "sdb", "sdc"]);
        assert_eq!((devices["sdc"].write_sectors, devices["sdc"].busy_ms), (7, Some(10)));
        assert_eq!((devices["sda1"].writes, devices["sda1"].write_sectors, devices["sda1"].busy_ms), (3, 4, None));
        assert_eq!(unreadable.len(), 2);
    }

    #[test]
    fn requests_below_zero_are_not_known() {
        let (devices, _) = parse(
            b"8 0 sda 1 2 3 4 5 6 7 8 4294967295 10 11\n8 16 sdb 1 2 3 4 5 6 7 8 18446744073709551615 10 11\n\
            8 32 sdc 1 2 3 4 5 6 7 8 17 10 11\n8 48 sdd 1 2 3 4 5 6 7 8 -1 10 11 x\n",
        );
        let in_flight: Vec<_> = devices.values().map(|device| device.in_flight).collect();
        assert_eq!(in_flight, [None, None, Some(17), None]);
    }

    #[test]
    fn a_reset_or_another_device_gives_no_rate() {
        let before =
            OfDisk { identity: "8:0".into(), reads: 100, read_sectors: 800, busy_ms: Some(50), ..OfDisk::default() };
        let mut now = OfDisk { reads: 160, read_sectors: 1400, busy_ms: Some(30_050), ..before.clone() };
        let rates = row(&now, Some(&before), 60.0);
        assert_eq!((&rates["reads_per_second"], &rates["read_bytes_per_second"]), (&1.0.into(), &5120.0.into()));
        assert_eq!(rates["busy_percent"], 50.0);
        now.identity = "8:0 #7".into();
        assert!(!row(&now, Some(&before), 60.0).contains_key("reads_per_second"));
        let reset = OfDisk { read_sectors: 3, ..OfDisk { reads: 200, ..before.clone() } };
        assert!(!row(&reset, Some(&before), 60.0).contains_key("reads_per_second"));
    }

    #[test]
    fn time_fields_wrap_at_32_bits_on_every_kernel() {
        let before = OfDisk { identity: "8:0".into(), busy_ms: Some((1 << 32) - 1000), ..OfDisk::default() };
        let now = OfDisk { busy_ms: Some(5000), ..before.clone() };
        assert_eq!(row(&now, Some(&before), 60.0)["busy_percent"], 10.0);
        let reset = OfDisk { busy_ms: Some(5000), ..before.clone() };
        let long_before = OfDisk { busy_ms: Some(1 << 31), ..before };
        assert!(!row(&reset, Some(&long_before), 60.0).contains_key("busy_percent"));
    }
}
