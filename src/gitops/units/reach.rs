use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::manager::Snapshot;

/// Targets that group the host (systemd.special(7)). Nearly everything requires or wants them, so that what can be reached
/// through them is the host.
const GROUPING: &[&str] = &[
    "basic",
    "bluetooth",
    "cryptsetup",
    "cryptsetup-pre",
    "ctrl-alt-del",
    "default",
    "emergency",
    "exit",
    "factory-reset",
    "final",
    "first-boot-complete",
    "getty",
    "getty-pre",
    "graphical",
    "graphical-session",
    "graphical-session-pre",
    "halt",
    "initrd",
    "integritysetup",
    "integritysetup-pre",
    "kbrequest",
    "kexec",
    "local-fs",
    "local-fs-pre",
    "machines",
    "multi-user",
    "network",
    "network-online",
    "network-pre",
    "nss-lookup",
    "nss-user-lookup",
    "paths",
    "poweroff",
    "printer",
    "reboot",
    "remote-cryptsetup",
    "remote-fs",
    "remote-fs-pre",
    "remote-veritysetup",
    "rescue",
    "rpcbind",
    "shutdown",
    "sigpwr",
    "sleep",
    "slices",
    "smartcard",
    "sockets",
    "sound",
    "swap",
    "sysinit",
    "system-update",
    "time-set",
    "time-sync",
    "timers",
    "umount",
    "veritysetup",
    "veritysetup-pre",
    "xdg-desktop-autostart",
];

/// True for a target that groups the host.
pub(super) fn is_grouping(unit: &str) -> bool {
    let Some(stem) = unit.strip_suffix(".target") else { return false };
    GROUPING.contains(&stem) || stem.starts_with("blockdev@")
}

/// True for what no deployment moves, whatever it depends on: groups of processes, devices, sessions of people.
pub(super) fn is_left_out(unit: &str) -> bool {
    let kinds = [".slice", ".scope", ".device"];
    kinds.iter().any(|kind| unit.ends_with(kind))
        || ["user@", "user-runtime-dir@"].iter().any(|session| unit.starts_with(session))
        || is_grouping(unit)
}

/// What a unit was asked to do, or is made to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub start: bool,
    pub stop: bool,
}

impl Job {
    pub const START: Self = Self { start: true, stop: false };
    pub const STOP: Self = Self { start: false, stop: true };
    pub const RESTART: Self = Self { start: true, stop: true };
}

/// The units that jobs can have moved, and in which way, the asked ones included: systemd passes jobs on in these directions
/// (systemd.unit(5)). The relations are those of all the given looks at the host together.
pub(super) fn reach(jobs: &[(String, Job)], looks: &[&Snapshot]) -> BTreeMap<String, Job> {
    let mut done: BTreeMap<String, Job> = BTreeMap::new();
    let mut open: Vec<(String, Job)> = jobs.to_vec();
    while let Some((unit, job)) = open.pop() {
        let known = done.entry(unit.clone()).or_default();
        let new = Job { start: job.start && !known.start, stop: job.stop && !known.stop };
        if new == Job::default() {
            continue;
        }
        *known = Job { start: known.start || job.start, stop: known.stop || job.stop };
        let whole = *known;
        for state in looks.iter().filter_map(|look| look.units.get(&unit)) {
            let mut pass = |units: &[String], job: Job| {
                let moved = units.iter().filter(|unit| !is_left_out(unit));
                open.extend(moved.map(|unit| (unit.clone(), job)));
            };
            if whole.stop {
                pass(&state.dependents, whole);
                pass(&state.stopped_along, Job::STOP);
            }
            if whole.start {
                pass(&state.wanted, Job::START);
                pass(&state.conflicts, Job::STOP);
                // A timer, path or socket may have its unit started at once.
                pass(&state.triggers, Job::START);
            }
            pass(&state.raised, Job::START);
        }
    }
    done
}

/// The units that go down where this one starts or stops, however that comes about: through the targets that group the host,
/// too.
pub(super) fn ended_by(unit: &str, look: &Snapshot) -> BTreeSet<String> {
    let of = |unit: &str| look.units.get(unit);
    let along = |unit: &str| of(unit).into_iter().flat_map(|state| state.dependents.iter().chain(&state.stopped_along));
    let mut ended = BTreeSet::new();
    let mut open: Vec<&String> = along(unit).chain(of(unit).into_iter().flat_map(|state| &state.conflicts)).collect();
    while let Some(unit) = open.pop() {
        if ended.insert(unit.clone()) {
            open.extend(along(unit));
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::super::state::UnitState;
    use super::*;
    use crate::systemd::Block;

    fn look(blocks: &[&str]) -> Snapshot {
        let units = blocks.iter().map(|block| UnitState::read(Block::of(block))).map(|state| (state.id.clone(), state));
        Snapshot { units: units.collect() }
    }

    #[test]
    fn jobs_travel_as_systemd_passes_them_on() {
        let look = look(&[
            "Id=a.service\nRequiredBy=b.service\nWants=c.service\nRequires=sysinit.target system.slice",
            "Id=b.service\nBoundBy=d.service\nWants=e.service",
            "Id=c.service\nRequiredBy=not-stopped.service\nConflicts=x.service",
            "Id=sysinit.target\nWants=all.service",
            "Id=x.service\nConsistsOf=y.service",
            "Id=t.timer\nTriggers=t.service",
            "Id=t.service\nOnFailure=f.service",
            "Id=f.service\nConflicts=x.service",
        ]);
        let from =
            |unit: &str, job: Job| reach(&[(unit.to_owned(), job)], &[&look]).into_keys().collect::<Vec<_>>().join(" ");
        let reached = |job: Job| from("a.service", job);
        assert_eq!(from("t.timer", Job::STOP), "t.timer");
        assert_eq!(from("t.timer", Job::START), "f.service t.service t.timer x.service y.service");
        assert_eq!(from("t.service", Job::STOP), "f.service t.service x.service y.service");
        assert_eq!(reached(Job::STOP), "a.service b.service d.service");
        assert_eq!(reached(Job::START), "a.service c.service x.service y.service");
        assert_eq!(reached(Job::RESTART), "a.service b.service c.service d.service e.service x.service y.service");
    }

    #[test]
    fn what_ends_with_a_unit_is_found_through_everything() {
        let look = look(&[
            "Id=a.service\nConflicts=sysinit.target shutdown.target\nWants=b.service",
            "Id=b.service\nPropagatesStopTo=c.service",
            "Id=sysinit.target\nRequiredBy=d.service",
            "Id=d.service\nBoundBy=e.timer",
        ]);
        let ended = |unit: &str| ended_by(unit, &look).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(ended("a.service"), "d.service e.timer shutdown.target sysinit.target");
        assert_eq!((ended("b.service").as_str(), ended("e.timer").as_str()), ("c.service", ""));
    }
}
