use serde_json::Map;

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::payload::{Put, Report, decimal};
use crate::metrics::roots::{self, Roots};
use crate::metrics::surroundings::{container, is_guest};
use crate::metrics::{Error, clock, proc};

/// What the host runs in: a container, `vm`, or nothing.
fn virtualization(roots: &Roots) -> Option<String> {
    if let Some(container) = container(roots) {
        return Some(container);
    }
    let hypervisor = roots.sys.join("hypervisor/type").exists();
    (hypervisor || is_guest(roots)).then(|| "vm".to_owned())
}

/// Collects the `time` row: uptime, boot id, whether the clock is set, and how far this sample is from the one before.
///
/// `clock_synchronized` has no key where none of the daemons that `clock` knows answers: who keeps the clock then is not
/// known.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let roots = &context.roots;
    let mut row = Map::new();
    let mut notes = Vec::new();
    match roots.proc("uptime").and_then(|bytes| proc::uptime(&bytes)) {
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
    let rows = if row.is_empty() { Vec::new() } else { vec![(kinds::time::KIND.name, row)] };
    Ok(Report { rows, notes, ..Report::default() })
}
