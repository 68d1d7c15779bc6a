use std::collections::{BTreeMap, HashMap};

use serde_json::Map;

use crate::kinds;
use crate::metrics::Error;
use crate::metrics::baseline::Past;
use crate::metrics::context::Context;
use crate::metrics::counters::Counters;
use crate::metrics::payload::{Payload, Put, Report, percent, put_counters};

/// The counters of `/proc/vmstat` in the `swap` row: key, name. Pages that were swapped, and page faults.
const COUNTERS: [(&str, &str); 4] =
    [("in_pages", "pswpin"), ("out_pages", "pswpout"), ("faults", "pgfault"), ("major_faults", "pgmajfault")];

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
    let rows = if row.is_empty() { Vec::new() } else { vec![(kinds::swap::KIND.name, row)] };
    Ok(Report { rows, counters, notes, ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::proc;

    #[test]
    fn rates_need_a_run_before_and_no_reset() {
        let vmstat =
            proc::vmstat(b"nr_odd -1\npswpin 100\nnr_wrong 18446744073709551615\nx\npswpout 50\npgmajfault 7\n");
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
