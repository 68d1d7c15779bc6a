use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::baseline::{increase, increase_32};
use crate::metrics::context::Context;
use crate::metrics::counters::OfInterface;
use crate::metrics::payload::{Payload, Put, Report, decimal};
use crate::metrics::{Error, interface, roots};
use crate::text::exact;

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
/// How far a counter may go back without having started anew, as a share of itself and at most: drivers add up what their
/// queues counted while those go on counting.
const BACK_SHARE: u64 = 1000;
const BACK: u64 = 65_536;
/// Reads `/proc/net/dev` (proc_pid_net(5)): the counters by interface, each line for itself; returned with the lines
/// that have another form. Old kernels put no space after the colon.
pub(super) fn parse(bytes: &[u8]) -> (BTreeMap<String, OfInterface>, Vec<String>) {
    let (mut interfaces, mut unreadable) = (BTreeMap::new(), Vec::new());
    for line in bytes.split(|byte| *byte == b'\n') {
        // The two lines of headings have no colon; an alias (`eth0:1`) has two.
        let Some(colon) = line.iter().rposition(|byte| *byte == b':') else { continue };
        let name = exact(line[..colon].trim_ascii());
        match counters(&line[colon + 1..]) {
            Some(values) => drop(interfaces.insert(name, OfInterface { index: None, values })),
            None => unreadable.push(Error::format("net/dev", format!("line of {name}")).to_string()),
        }
    }
    (interfaces, unreadable)
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

/// What an interface that has a speed can move at most, in bytes; none where its speed is not known.
fn most_bytes(folder: &Path, interval: f64) -> Option<u64> {
    let megabits: i64 = roots::number(&folder.join("speed"))?;
    (megabits > 0).then_some((megabits as f64 * 125_000.0 * interval) as u64)
}

/// Increases of all counters; none where one of them was reset. One that went back a little counted nothing. On a kernel
/// of 32 bits (`narrow`: the most that can have been moved) a counter may have wrapped once.
fn increases(before: &OfInterface, now: &OfInterface, narrow: Option<u64>) -> Option<[u64; 8]> {
    if before.index != now.index {
        return None;
    }
    let mut increases = [0; 8];
    for (slot, (before, now)) in increases.iter_mut().zip(before.values.iter().zip(now.values)) {
        let back = before.saturating_sub(now);
        *slot = match narrow {
            _ if back > 0 && back <= (before / BACK_SHARE).clamp(1, BACK) => 0,
            Some(most) => increase_32(*before, now, most)?,
            None => increase(*before, now)?,
        };
    }
    Some(increases)
}

/// An interface's columns: the counters as they are, and what they were a second.
fn row(now: &OfInterface, rates: Option<([u64; 8], f64)>) -> Payload {
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
    let selected = interface::select(&context.roots, &names);
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
        report.rows.push((kinds::network::KIND.name, payload));
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
    fn a_counter_that_goes_back_a_little_counts_nothing() {
        let counters = |rx, drops| OfInterface { index: Some(2), values: [rx, 0, 0, 0, 0, 0, drops, 0] };
        let all = |one, two, narrow| increases(&one, &two, narrow).map(|all| (all[0], all[6]));
        for narrow in [None, Some(750_000_000)] {
            assert_eq!(all(counters(1000, 7), counters(61_000, 6), narrow), Some((60_000, 0)));
            assert_eq!(all(counters(4_000_000, 7), counters(3_999_000, 9), narrow), Some((0, 2)));
        }
        assert_eq!(all(counters(4_000_000, 7), counters(3_990_000, 9), None), None, "it started anew");
        assert_eq!(all(counters(1000, 700), counters(61_000, 6), None), None);
    }

    #[test]
    fn a_decrease_is_a_reset_or_on_32_bits_a_plausible_wrap() {
        let counters = |rx, index| OfInterface { index: Some(index), values: [rx, 0, 0, 0, 0, 0, 0, 0] };
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
