use serde_json::Map;

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::counters::Counters;
use crate::metrics::payload::{Put, Report, put_counters};
use crate::metrics::roots::Roots;
use crate::metrics::{Error, mounts};

/// How many processes there are; none where hidepid hides those of other users (proc(5)). Whoever sees process 1 sees all:
/// of a recorded tree, which may hold a part of it, the mount says whether they were hidden.
fn processes(roots: &Roots) -> Option<usize> {
    let mut count = 0;
    let mut sees_first = false;
    for entry in std::fs::read_dir(&roots.proc).ok()?.flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            count += 1;
            sees_first |= name == "1";
        }
    }
    (sees_first && (roots.is_live() || !mounts::has_hidepid(roots))).then_some(count)
}

/// Collects the `kernel` row: processes, forks, context switches and interrupted work since boot, processes that the
/// kernel killed for want of memory (`oom_kill` of `/proc/vmstat`, since Linux 4.13).
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let stat = context.stat()?;
    let mut notes = Vec::new();
    let mut row = Map::new();
    row.put_some("processes", processes(&context.roots));
    for (key, name) in [("running", "procs_running"), ("blocked", "procs_blocked")] {
        row.put_some(key, stat.values.get(name).copied());
    }
    let mut counters = Counters::default();
    let past = context.past.as_ref();
    let values = [("forks", "processes"), ("context_switches", "ctxt")];
    let values = values.into_iter().filter_map(|(key, name)| Some((key, name, *stat.values.get(name)?)));
    put_counters(&mut row, &mut counters, past, values);
    match context.vmstat() {
        Ok(vmstat) => {
            let kills = vmstat.get("oom_kill").copied();
            if let Some(kills) = kills {
                let before = past.and_then(|past| past.counters.kernel.get("oom_kill").copied());
                row.put("oom_kills", kills);
                row.put_some("oom_kills_new", before.and_then(|before| kills.checked_sub(before)));
                counters.kernel.insert("oom_kill".to_owned(), kills);
            }
        }
        Err(error) if error.is_absent() => {}
        Err(error) => notes.push(error.to_string()),
    }
    Ok(Report { rows: vec![(kinds::kernel::KIND.name, row)], counters, notes, ..Report::default() })
}
