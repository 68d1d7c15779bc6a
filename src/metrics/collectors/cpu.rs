use std::path::Path;

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::Error;
use crate::metrics::baseline::Past;
use crate::metrics::context::Context;
use crate::metrics::counters::{Counters, Ticks};
use crate::metrics::payload::{Payload, Put, Report, decimal, percent};
use crate::metrics::proc::{MODES, Stat};

const USER: usize = 0;
const SYSTEM: usize = 2;
const IDLE: usize = 3;
const IOWAIT: usize = 4;
/// The modes that add up to the whole time.
const WHOLE: usize = 8;
/// Ticks a second in `/proc/stat` (USER_HZ): 100 on every architecture that Debian has a port for.
const TICKS: f64 = 100.0;
/// An idle counter that goes back less than this many ticks jitters; one that goes back further started anew, because
/// its CPU was switched off and on.
const JITTER: u64 = 300;
/// How many CPUs the line of their sum may stand for where it is the only one.
const MOST_CPUS: f64 = 8192.0;

/// The ticks of each mode since `before`; none where the CPU's counters started anew at an unknown moment, or a mode grew
/// by more than the time that went by, `interval` in seconds of CPU time: lxcfs and some hypervisors let it jump.
///
/// iowait and idle may go back while the CPU stays online, and restart at 0 when it comes back online; the other modes
/// then continue (proc_stat(5); node_exporter and sysstat have met both).
fn increase(before: &Ticks, now: &Ticks, interval: f64) -> Option<Ticks> {
    let back = |mode: usize| before[mode].saturating_sub(now[mode]);
    let restarted = back(IDLE) >= JITTER;
    if restarted && back(USER) > 0 && back(SYSTEM) > 0 {
        return None;
    }
    let mut ticks = [0; 10];
    for mode in 0..MODES.len() {
        ticks[mode] = now[mode].saturating_sub(before[mode]);
    }
    let most = ((interval * TICKS * 1.1) as u64).saturating_add(JITTER);
    if restarted {
        ticks[IDLE] = now[IDLE];
        if back(IOWAIT) > 0 {
            ticks[IOWAIT] = now[IOWAIT];
        }
        // A CPU cannot have been idle for longer than it had time.
        if ticks[IDLE].saturating_add(ticks[IOWAIT]) > most {
            return None;
        }
    }
    ticks.iter().all(|count| *count <= most).then_some(ticks)
}

/// Percent of each mode and of all but idle and iowait (`usage`); `ticks` must not all be 0.
fn shares(ticks: &Ticks) -> Payload {
    let whole: f64 = ticks[..WHOLE].iter().map(|count| *count as f64).sum();
    let mut shares = Map::new();
    shares.put("usage", percent(whole - (ticks[IDLE] as f64 + ticks[IOWAIT] as f64), whole));
    for (name, count) in MODES.iter().zip(ticks) {
        shares.put(name, percent(*count as f64, whole));
    }
    shares
}

/// What a CPU that was not interrupted once since the last run did: its counters do not move.
fn idle() -> Payload {
    let mut ticks = [0; 10];
    ticks[IDLE] = 1;
    shares(&ticks)
}

/// The `cpu` row: `usage` and `modes` over all CPUs, `cpus` one by one, all in percent of the time since the last run;
/// without a run before, `usage` is null and the others have no key. Each CPU has its raw counters, too, in `seconds`.
///
/// Returned with it: the counters for the next baseline, in which a CPU that is offline keeps its last ones.
fn row(stat: &Stat, past: Option<&Past>) -> (Payload, Counters) {
    let mut all = [0u64; 10];
    let at_once = if stat.is_sum { MOST_CPUS } else { 1.0 };
    let mut cpus = Map::new();
    for (number, now) in &stat.cpus {
        let mut cpu = Map::new();
        if let Some(past) = past
            && let Some(ticks) =
                past.counters.cpus.get(number).and_then(|old| increase(old, now, past.interval * at_once))
        {
            cpu = if ticks[..WHOLE].iter().all(|count| *count == 0) { idle() } else { shares(&ticks) };
            for (sum, count) in all.iter_mut().zip(ticks) {
                *sum = sum.saturating_add(count);
            }
        }
        let seconds =
            MODES.iter().zip(now).map(|(mode, count)| ((*mode).to_owned(), decimal(*count as f64 / TICKS, 2)));
        cpu.put("seconds", seconds.collect::<Payload>());
        cpus.insert(number.to_string(), Value::Object(cpu));
    }
    let mut row = Map::new();
    row.put("usage", Value::Null);
    row.put("package_temp", Value::Null);
    row.put("core_temps", Map::new());
    row.put("online", stat.cpus.len());
    let measured = cpus.values().any(|cpu| cpu.get("usage").is_some());
    if measured {
        let tickless = all[..WHOLE].iter().all(|count| *count == 0);
        let mut modes = if tickless { idle() } else { shares(&all) };
        row.put_some("usage", modes.shift_remove("usage"));
        row.put("modes", modes);
    }
    if !cpus.is_empty() {
        row.put("cpus", cpus);
    }
    let mut counters = Counters::default();
    if let Some(past) = past {
        counters.cpus.clone_from(&past.counters.cpus);
    }
    counters.cpus.extend(stat.cpus.iter().map(|(number, ticks)| (*number, *ticks)));
    (row, counters)
}

/// The row as it is stored, without the raw counters: they would double it.
pub(super) fn stored(mut row: Payload) -> Payload {
    if let Some(cpus) = row.get_mut("cpus").and_then(Value::as_object_mut) {
        cpus.retain(|_, cpu| {
            cpu.as_object_mut().is_some_and(|cpu| {
                cpu.shift_remove("seconds");
                !cpu.is_empty()
            })
        });
        if cpus.is_empty() {
            row.shift_remove("cpus");
        }
    }
    row
}

/// Collects the `cpu` row; its temperatures are added by `sensors`.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let stat = context.stat()?;
    let (row, counters) = row(stat, context.past.as_ref());
    let path = Path::new("stat");
    let notes = stat.unreadable.iter().map(|name| Error::format(path, format!("line {name}")).to_string()).collect();
    Ok(Report { rows: vec![(kinds::cpu::KIND.name, row)], counters, notes, ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::proc;

    const STAT: &[u8] = b"cpu  30 0 0 300 0 0 0 0 0 0\ncpu0 10 0 0 100 0 0 0 0 0 0\ncpu2 20 0 0 200 0 0 0 0 0 0\n\
        intr 1 2 3\nctxt 77\nbtime 1700000000\nprocesses 5\n";

    fn past(cpus: &[(u32, Ticks)]) -> Past {
        let counters = Counters { cpus: cpus.iter().copied().collect(), ..Counters::default() };
        Past { interval: 60.0, counters, clock_step: 0.0 }
    }

    fn usage(before: &[(u32, Ticks)], now: &[(u32, Ticks)]) -> Value {
        let stat = Stat { cpus: now.iter().copied().collect(), ..Stat::default() };
        row(&stat, Some(&past(before))).0["usage"].clone()
    }

    #[test]
    fn cpus_keep_their_numbers_and_the_sum_line_is_left_out() {
        let stat = proc::stat(STAT).unwrap();
        assert_eq!(stat.cpus.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert_eq!((stat.values["ctxt"], stat.values["btime"]), (77, 1_700_000_000));
        assert_eq!(proc::stat(b"cpu  30 0 0 300\n").unwrap().cpus[&0][3], 300);
        assert!(proc::stat(b"intr 0\n").is_err());
    }

    #[test]
    fn one_damaged_line_costs_one_cpu() {
        let stat = proc::stat(b"cpu0 1 2 3 4\ncpu1 x y z\ncpu2 1 2 3 4 5 6 7 8 9 10 11\n").unwrap();
        assert_eq!((stat.cpus.len(), stat.unreadable.as_slice()), (2, ["cpu1".to_owned()].as_slice()));
    }

    #[test]
    fn guest_time_is_counted_once() {
        let (before, now) = ([0; 10], [50, 0, 0, 50, 0, 0, 0, 0, 40, 0]);
        assert_eq!(usage(&[(0, before)], &[(0, now)]), 50.0);
    }

    #[test]
    fn idle_and_iowait_that_go_back_a_little_count_nothing() {
        let (before, now) = ([0, 0, 0, 1000, 90, 0, 0, 0, 0, 0], [100, 0, 0, 998, 40, 0, 0, 0, 0, 0]);
        assert_eq!(usage(&[(0, before)], &[(0, now)]), 100.0);
    }

    #[test]
    fn a_cpu_that_returns_counts_idle_from_zero_and_the_rest_onwards() {
        let (before, now) = ([100, 0, 0, 90_000, 500, 0, 0, 0, 0, 0], [200, 0, 0, 280, 20, 0, 0, 0, 0, 0]);
        assert_eq!(usage(&[(0, before)], &[(0, now)]), 25.0);
    }

    #[test]
    fn a_mode_that_jumps_costs_its_cpu_the_rate_and_no_sum_wraps() {
        let (quiet, busy) = ([0; 10], [600, 0, 0, 5400, 0, 0, 0, 0, 0, 0]);
        for mode in 0..MODES.len() {
            for jump in [7000, 1 << 40, u64::MAX] {
                let mut wild = busy;
                wild[mode] = jump;
                assert_eq!(usage(&[(0, quiet)], &[(0, wild)]), Value::Null, "{mode} {jump}");
                assert_eq!(usage(&[(0, quiet), (1, quiet)], &[(0, wild), (1, busy)]), 10.0, "{mode} {jump}");
            }
        }
        // Idle restarted near the end of its counter, and two modes that add up to 0 in 64 bits.
        let before = [100, 0, 100, u64::MAX, u64::MAX, 0, 0, 0, 0, 0];
        assert_eq!(
            usage(&[(0, before)], &[(0, [100, 0, 100, u64::MAX - 900, u64::MAX - 1, 0, 0, 0, 0, 0])]),
            Value::Null
        );
        let half = 1 << 63;
        assert_eq!(usage(&[(0, quiet)], &[(0, [half, half, 0, 100, 0, 0, 0, 0, 0, 0])]), Value::Null);
        // The sum of 64 CPUs, where no single one is listed.
        let stat = proc::stat(b"cpu  76800 0 0 307200\n").unwrap();
        assert_eq!(row(&stat, Some(&past(&[(0, quiet)]))).0["usage"], 20.0);
    }

    #[test]
    fn counters_that_all_restarted_give_no_rate() {
        let (before, now) = ([100, 0, 100, 90_000, 0, 0, 0, 0, 0, 0], [10, 0, 10, 280, 0, 0, 0, 0, 0, 0]);
        assert_eq!(usage(&[(0, before)], &[(0, now)]), Value::Null);
    }

    #[test]
    fn a_cpu_without_interrupts_is_idle_and_a_new_one_is_left_out() {
        let same = [1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
        assert_eq!(usage(&[(0, same)], &[(0, same)]), 0.0);
        let stat = Stat { cpus: [(0, same), (1, same)].into(), ..Stat::default() };
        let (row, counters) = row(&stat, Some(&past(&[(0, same), (3, same)])));
        let row = stored(row);
        assert_eq!(row["cpus"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0"]);
        assert_eq!(counters.cpus.keys().copied().collect::<Vec<_>>(), [0, 1, 3], "the offline one is kept");
    }

    #[test]
    fn the_first_run_has_no_rates() {
        let (row, _) = row(&proc::stat(STAT).unwrap(), None);
        assert_eq!(row["cpus"]["2"]["seconds"]["idle"], 2.0);
        assert_eq!(
            Value::Object(stored(row)),
            serde_json::json!({"usage": null, "package_temp": null, "core_temps": {}, "online": 2})
        );
    }
}
