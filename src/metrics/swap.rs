use std::collections::{BTreeMap, HashMap};

use serde_json::Map;

use super::baseline::{Counters, Past, increase};
use super::collect::Context;
use super::payload::{Payload, Put, Report, decimal, percent};
use super::{Error, roots};

/// The counters of `/proc/vmstat` in the `swap` row: key, name. Pages that were swapped, and page faults.
const COUNTERS: [(&str, &str); 4] =
    [("in_pages", "pswpin"), ("out_pages", "pswpout"), ("faults", "pgfault"), ("major_faults", "pgmajfault")];

/// Reads `/proc/vmstat` (proc_vmstat(5)): counters by name. A line of another form is left out: some kernels show an
/// amount that has run below 0 as such, others as a number near 2^64, and neither may cost the counters beside it.
pub(super) fn parse(bytes: &[u8]) -> HashMap<String, u64> {
    let line = |line: &str| -> Option<(String, u64)> {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    roots::text(bytes).lines().filter_map(line).collect()
}

/// Adds counters and their rates to a row, and the counters to the next baseline. `<key>_per_second` has no key where
/// there is no run before or the counter went back.
pub(super) fn put_counters<'a>(
    row: &mut Payload,
    counters: &mut Counters,
    past: Option<&Past>,
    values: impl IntoIterator<Item = (&'a str, &'a str, u64)>,
) {
    for (key, name, value) in values {
        row.put(key, value);
        counters.kernel.insert(name.to_owned(), value);
        let before = past.and_then(|past| Some((past.counters.kernel.get(name)?, past.interval)));
        let rate = before.and_then(|(before, interval)| Some(increase(*before, value)? as f64 / interval));
        row.put_some(&format!("{key}_per_second"), rate.map(|rate| decimal(rate, 2)));
    }
}

/// The `swap` row: bytes, and counters of pages and faults.
fn row(meminfo: &HashMap<String, u64>, vmstat: &HashMap<String, u64>, past: Option<&Past>) -> (Payload, Counters) {
    let mut row = Map::new();
    if let Some(total) = meminfo.get("SwapTotal").copied() {
        let free = meminfo.get("SwapFree").copied().unwrap_or(0).min(total);
        row.put("total", total);
        row.put("used", total - free);
        row.put("free", free);
        row.put("used_percent", percent((total - free) as f64, total as f64));
        row.put_some("cached", meminfo.get("SwapCached").copied());
    }
    let mut counters = Counters { kernel: BTreeMap::new(), ..Counters::default() };
    let values = COUNTERS.iter().filter_map(|(key, name)| Some((*key, *name, *vmstat.get(*name)?)));
    put_counters(&mut row, &mut counters, past, values);
    (row, counters)
}

/// Collects the `swap` row. One of its two files is enough.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let none = HashMap::new();
    let mut notes = Vec::new();
    let meminfo = context.meminfo().unwrap_or(&none);
    let no_vmstat = HashMap::new();
    let vmstat = context.vmstat().unwrap_or_else(|error| {
        if !error.is_absent() {
            notes.push(error.to_string());
        }
        &no_vmstat
    });
    let (row, counters) = row(meminfo, vmstat, context.past.as_ref());
    let rows = if row.is_empty() { Vec::new() } else { vec![("swap", row)] };
    Ok(Report { rows, counters, notes, ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_a_run_before_and_no_reset() {
        let vmstat = parse(b"nr_odd -1\npswpin 100\nnr_wrong 18446744073709551615\nx\npswpout 50\npgmajfault 7\n");
        let counters =
            Counters { kernel: [("pswpin".into(), 40), ("pswpout".into(), 51)].into(), ..Counters::default() };
        let past = Past { interval: 60.0, counters, clock_step: 0.0 };
        let (row, next) = row(&HashMap::new(), &vmstat, Some(&past));
        assert_eq!(row["in_pages_per_second"], 1.0);
        assert!(!row.contains_key("out_pages_per_second") && !row.contains_key("major_faults_per_second"));
        assert_eq!(next.kernel["pswpout"], 50);
    }

    #[test]
    fn no_swap_is_not_full_and_not_nan() {
        let meminfo = [("SwapTotal".to_owned(), 0), ("SwapFree".to_owned(), 0)].into();
        let (row, _) = row(&meminfo, &HashMap::new(), None);
        assert!(row["used_percent"].is_null() && row["used"] == 0);
    }
}
