use serde_json::Map;

use crate::kinds;
use crate::metrics::Error;
use crate::metrics::context::Context;
use crate::metrics::payload::{Put, Report};
use crate::text::FIRST;

/// Collects the `systemd` row: how many units have failed, and the first of their names. There is none where systemd
/// does not run, or where the tree is not this host's.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    if !context.asks_systemd() {
        return Ok(Report::default());
    }
    let (count, mut names) = match context.look.as_ref().and_then(|look| Some((look.failed.as_ref()?, &look.untold))) {
        Some((failed, own)) => (
            failed.count + own.len(),
            failed.first.iter().map(|one| &one.unit).chain(own).cloned().collect::<Vec<String>>(),
        ),
        None => {
            let looked = context.looked(&[])?;
            let names: Vec<String> = looked.failed.keys().cloned().chain(looked.own_failed()).collect();
            (names.len(), names)
        }
    };
    names.sort();
    names.truncate(FIRST);
    let mut row = Map::new();
    row.put("failed", count);
    row.put("units", names);
    Ok(Report::row(kinds::systemd::KIND.name, row))
}
