//! After the jobs: what they took along, and what of that is started again.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::applied::Applied;
use super::manager::Snapshot;
use super::plan::Plan;
use super::probe::is_no_loss;
use super::reach::{Job, is_grouping, reach};
use super::restart::Stale;
use super::state::UnitState;
use super::{Before, Host};
use crate::command::Error as CommandError;
use crate::gitops::Error;

/// The pause between two looks at jobs that others started.
const PAUSE: Duration = Duration::from_millis(100);
/// How long systemd and systemctl may take beside the units themselves.
const MARGIN: Duration = Duration::from_secs(60);

impl Host {
    /// Waits for the jobs that others brought along, and starts again what they took down: what a unit of the commit did not
    /// displace runs again. What was restarted along is noted.
    ///
    /// # Errors
    /// `Step` where something that was taken down does not start.
    pub(super) fn settle(
        &self,
        plan: &Plan,
        before: &Before,
        looks: &[&Snapshot],
        applied: &mut Applied,
    ) -> Result<(), Error> {
        if applied.moved.is_empty() {
            return Ok(());
        }
        self.wait_for_jobs(applied.moved.keys().cloned().collect(), looks)?;
        let groups = before.active().filter(|unit| is_grouping(unit));
        let states = self.manager.show(applied.moved.keys().chain(groups))?;
        self.note_restarted(before, &states, applied);
        let displaced = self.displaced(plan, before, applied, &states);
        let is_lost = |unit: &&String| {
            let Some(now) = states.get(*unit) else { return false };
            let job = applied.moved.get(*unit).copied().unwrap_or(Job::STOP);
            before.was_active(unit)
                && before.lost(unit, now)
                && now.load == "loaded"
                && !is_no_loss(now, job, &[])
                && !self.goes(plan, applied, unit)
                && !displaced.contains_key(*unit)
                && !self.is_workers(unit)
        };
        let stopped = states.keys().filter(is_lost).cloned();
        let (groups, lost): (Vec<String>, Vec<String>) = stopped.partition(|unit| is_grouping(unit));
        let reason = "it was stopped with what it depends on".to_owned();
        let again = |unit: &String| Stale { unit: unit.clone(), reason: reason.clone(), file: String::new() };
        let result = self.start_again(&lost, &states, looks);
        applied.did_all(lost.iter().map(again).collect(), "started");
        result?;
        self.regroup(&groups)?;
        let jobs: Vec<(String, Job)> = lost.into_iter().map(|unit| (unit, Job::START)).collect();
        applied.moved.extend(reach(&jobs, looks).into_iter().filter(|(unit, _)| !states.contains_key(unit)));
        Ok(())
    }

    /// Starts units that are down; a socket with the services that it starts, where these went on without it.
    pub(super) fn start_again(
        &self,
        units: &[String],
        states: &HashMap<String, UnitState>,
        looks: &[&Snapshot],
    ) -> Result<(), Error> {
        let triggered = |unit: &&String| states.get(*unit).map(|state| &state.triggers).into_iter().flatten();
        let is_socket = |unit: &&String| unit.ends_with(".socket");
        let services = self.manager.show(units.iter().filter(is_socket).flat_map(|unit| triggered(&unit)))?;
        let running = |socket: &String| -> Vec<String> {
            let is_up = |unit: &&String| services.get(*unit).is_some_and(UnitState::is_active);
            triggered(&socket).filter(is_up).cloned().collect()
        };
        let (sockets, others): (Vec<String>, Vec<String>) =
            units.iter().cloned().partition(|unit| is_socket(&unit) && !running(unit).is_empty());
        // What needs a socket comes after it.
        let mut result = Ok(());
        for socket in sockets {
            result = result.and(self.restart_socket(&socket, &running(&socket), looks));
        }
        let refuses = |unit: &String| states.get(unit).is_some_and(|state| !state.can_start);
        let (refusing, others): (Vec<String>, Vec<String>) = others.into_iter().partition(refuses);
        result.and(self.job("start", &others, looks)).and(self.pull(&refusing, looks))
    }

    /// Starts units that refuse to be started by hand (`RefuseManualStart=`), as what another one wants.
    fn pull(&self, units: &[String], looks: &[&Snapshot]) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        let limit = self.limit(units, Job::START, looks);
        let command =
            self.manager.command("systemd-run", limit).args(["--collect", "--quiet", "--property=Type=oneshot"]);
        let names = units.join(" ");
        let command = command.args([format!("--property=Wants={names}"), format!("--property=After={names}")]);
        let result = command.args(["--", "/bin/true"]).name("systemd-run").succeed();
        result.map(drop).map_err(|error| Error::Step { step: "units", reason: error.to_string() })
    }

    /// Makes targets that group the host active again, without starting what they want and somebody stopped.
    pub(super) fn regroup(&self, targets: &[String]) -> Result<(), Error> {
        let step = |error: CommandError| Error::Step { step: "units", reason: error.to_string() };
        self.manager.act(&["start", "--job-mode=ignore-dependencies"], targets, MARGIN).map_err(step)
    }

    /// Waits until none of these units has a job, as long as they allow.
    pub(super) fn wait_for_jobs(&self, units: Vec<String>, looks: &[&Snapshot]) -> Result<(), Error> {
        let state = |unit: &String| looks.iter().find_map(|look| look.units.get(unit));
        // A oneshot that is done when it has ended takes its own time.
        let waits = |unit: &String| !state(unit).is_some_and(UnitState::is_passing) && !self.is_workers(unit);
        let units: Vec<String> = units.into_iter().filter(waits).collect();
        let deadline = Instant::now() + self.limit(&units, Job::RESTART, looks);
        loop {
            let busy = self.manager.busy()?;
            let Some(unit) = units.iter().find(|unit| busy.contains(*unit)) else { return Ok(()) };
            if Instant::now() > deadline {
                let reason = format!("{unit} still has a job after the time that it allows; see: systemctl list-jobs");
                return Err(Error::Step { step: "units", reason });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// How long jobs on these units may take: as long as they and what they bring along allow, and where one of these has no
    /// limit, `gitops.command_timeout_seconds`. That is waited for in any case: each command of a unit has its limit anew, a
    /// service may ask for more (`EXTEND_TIMEOUT_USEC=`), and systemd itself ends what takes too long.
    fn limit(&self, units: &[String], job: Job, looks: &[&Snapshot]) -> Duration {
        let (mut sum, mut longest, mut is_endless) = (Duration::ZERO, self.command_timeout, false);
        let jobs: Vec<(String, Job)> = units.iter().map(|unit| (unit.clone(), job)).collect();
        for (unit, job) in reach(&jobs, looks) {
            // Nothing is known of a unit that was never loaded.
            let Some(state) = looks.iter().find_map(|look| look.units.get(&unit)) else { continue };
            let starts = job.start && (job.stop || !state.is_active());
            let stops = job.stop && state.is_active();
            for limit in [starts.then_some(state.start_limit), stops.then_some(state.stop_limit)].into_iter().flatten()
            {
                match limit {
                    None => is_endless = true,
                    Some(limit) => {
                        sum += limit;
                        longest = longest.max(limit);
                    }
                }
            }
        }
        if is_endless { longest } else { longest.max(sum + MARGIN) }
    }

    /// Runs a verb on units and waits; a failing job is the deployed commit's fault, not the hub's. `looks` say how long
    /// the units may take; without one the units are looked at.
    pub(super) fn job(&self, verb: &str, units: &[String], looks: &[&Snapshot]) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        let job = match verb {
            "stop" => Job::STOP,
            "start" => Job::START,
            _ => Job::RESTART,
        };
        let own;
        let own_look;
        let looks = if looks.is_empty() {
            own = Snapshot { units: self.manager.show(units)? };
            own_look = [&own];
            &own_look
        } else {
            looks
        };
        let step = |error: CommandError| Error::Step { step: "units", reason: error.to_string() };
        let limit = self.limit(units, job, looks);
        self.manager.act(&[verb], &in_order(units, looks), limit).map_err(step)
    }

    pub(super) fn forget_failures(&self, units: &[String]) -> Result<(), Error> {
        self.forget(units, |state| state.active == "failed")
    }

    /// Makes systemd forget how often units were started: it starts none more often than `StartLimitBurst=`, and counts the
    /// restarts of those that are up.
    pub(super) fn forget_starts(&self, units: &[String]) -> Result<(), Error> {
        self.forget(units, |_| true)
    }

    fn forget(&self, units: &[String], is_asked: impl Fn(&UnitState) -> bool) -> Result<(), Error> {
        let look = Snapshot { units: self.manager.show(units)? };
        let asked = |unit: &&String| look.units.get(*unit).is_some_and(&is_asked);
        let asked: Vec<String> = units.iter().filter(asked).cloned().collect();
        let Err(error) = self.manager.set(&["reset-failed"], &asked) else { return Ok(()) };
        // A unit that nothing refers to any more may be gone by itself meanwhile.
        let states = self.manager.show(&asked)?;
        if states.values().any(|state| state.active == "failed") { Err(error.into()) } else { Ok(()) }
    }

    /// Notes what systemd restarted along with what it was asked to restart.
    fn note_restarted(&self, before: &Before, states: &HashMap<String, UnitState>, applied: &mut Applied) {
        let mut along: Vec<&String> = Vec::new();
        for unit in applied.moved.keys() {
            let Some(now) = states.get(unit).filter(|now| now.is_active()) else { continue };
            if before.invocation(unit).is_some_and(|run| *run != now.invocation) && !applied.has_touched(unit) {
                along.push(unit);
            }
        }
        let along: Vec<String> = along.into_iter().cloned().collect();
        for unit in along {
            applied.did(&unit, "restarted", "along with what it depends on", None);
        }
    }
}

/// The units, each after those of them that it needs: `systemctl` sends a request for each, and a unit with `Requisite=` is
/// refused before the other one was asked for.
fn in_order(units: &[String], looks: &[&Snapshot]) -> Vec<String> {
    let mut left: Vec<&String> = units.iter().collect();
    let mut names: BTreeSet<&String> = units.iter().collect();
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let is_next = |unit: &&String| {
            let state = looks.iter().find_map(|look| look.units.get(*unit));
            state.is_none_or(|state| !state.wanted.iter().any(|needed| needed != *unit && names.contains(needed)))
        };
        // Where each waits for another, any may come first.
        let unit = left.remove(left.iter().position(is_next).unwrap_or(0));
        names.remove(unit);
        sorted.push(unit.clone());
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::Block;

    #[test]
    fn what_a_unit_needs_comes_before_it() {
        let blocks = ["Id=a\nRequisite=b", "Id=b\nRequires=c x", "Id=c", "Id=d\nWants=e", "Id=e\nWants=d"];
        let units = blocks.iter().map(|block| UnitState::read(Block::of(block))).map(|state| (state.id.clone(), state));
        let look = Snapshot { units: units.collect() };
        let order =
            |units: &str| in_order(&units.split(' ').map(str::to_owned).collect::<Vec<_>>(), &[&look]).join(" ");
        assert_eq!(order("a b c"), "c b a");
        assert_eq!(order("z d a e c"), "z a c d e");
    }
}
