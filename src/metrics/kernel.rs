use serde_json::Map;

use super::Error;
use super::baseline::Counters;
use super::collect::Context;
use super::payload::{Put, Report};
use super::swap;

/// Collects the `kernel` row: processes, forks, context switches and interrupted work since boot, processes that the
/// kernel killed for want of memory (`oom_kill` of `/proc/vmstat`, since Linux 4.13).
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let stat = context.stat()?;
    let mut notes = Vec::new();
    let mut row = Map::new();
    let is_process = |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let folders = std::fs::read_dir(&context.roots.proc).into_iter().flatten();
    let processes = folders.filter(|entry| entry.as_ref().is_ok_and(is_process)).count();
    // A tree without one is a recorded one, or hidepid hides them all.
    row.put_some("processes", (processes > 0).then_some(processes));
    for (key, name) in [("running", "procs_running"), ("blocked", "procs_blocked")] {
        row.put_some(key, stat.values.get(name).copied());
    }
    let mut counters = Counters::default();
    let past = context.past.as_ref();
    let values = [("forks", "processes"), ("context_switches", "ctxt")];
    let values = values.into_iter().filter_map(|(key, name)| Some((key, name, *stat.values.get(name)?)));
    swap::put_counters(&mut row, &mut counters, past, values);
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
        Err(error) => notes.push(error.to_string()),
    }
    Ok(Report { rows: vec![("kernel", row)], counters, notes })
}
