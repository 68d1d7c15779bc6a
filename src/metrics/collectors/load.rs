use procfs::{FromRead, LoadAverage};
use serde_json::Map;

use crate::kinds;
use crate::metrics::Error;
use crate::metrics::context::Context;
use crate::metrics::payload::{Put, Report, decimal};

/// Reads `/proc/loadavg` (proc_loadavg(5)).
///
/// # Errors
/// When a field is missing or no number.
pub(super) fn parse(bytes: &[u8]) -> Result<LoadAverage, Error> {
    LoadAverage::from_read(bytes).map_err(|error| Error::format("loadavg", error.to_string()))
}

/// Collects the `load` row: averages over 1, 5 and 15 minutes; threads that run now, and all.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let load = parse(&context.roots.proc("loadavg")?)?;
    let mut row = Map::new();
    for (key, average) in [("load1", load.one), ("load5", load.five), ("load15", load.fifteen)] {
        row.put(key, decimal(f64::from(average), 2));
    }
    row.put("running", load.cur);
    row.put("threads", load.max);
    Ok(Report::row(kinds::load::KIND.name, row))
}
