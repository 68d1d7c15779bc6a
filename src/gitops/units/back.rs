//! The way back of what runs: after the files were put back, the units that were active run their versions again.

use std::collections::{BTreeMap, BTreeSet};

use super::manager::Snapshot;
use super::probe::is_no_loss;
use super::reach::{Job, is_grouping, reach};
use super::state::UnitState;
use super::{Applied, Before, Host};
use crate::gitops::Error;
use crate::log;

/// How often units that are down are started.
const ROUNDS: usize = 3;

impl Host {
    /// Brings the units that were active back: those of the deployment to running the restored version, and whatever its
    /// jobs took down, whoever owns it. What the deployment did not touch goes on running. `moved` is how the host was
    /// before the files were put back.
    ///
    /// # Errors
    /// When some of them do not come back, with the state that each is in.
    pub fn restore_jobs(&self, before: &Before, moved: Option<&Snapshot>, back: &mut Applied) -> Result<(), Error> {
        let mut look = self.manager.snapshot(before.active())?;
        let nothing = Snapshot::default();
        let jobs = before.jobs(&[&look, moved.unwrap_or(&nothing)]);
        self.reach_all(&jobs, &mut look, moved.unwrap_or(&nothing))?;
        let known: Vec<(String, Job)> = before.reached.iter().map(|(unit, job)| (unit.clone(), *job)).collect();
        let reached = reach(&[jobs, known].concat(), &[&look, moved.unwrap_or(&nothing), &before.world]);
        let looks = [&look, moved.unwrap_or(&nothing)];
        let is_down = |unit: &String| look.units.get(unit).is_none_or(|state| !state.is_active());
        let other_run =
            |unit: &String| look.units.get(unit).is_some_and(|s| Some(&s.invocation) != before.invocation(unit));
        let was_up = |unit: &&String| before.was_active(unit) && !self.is_workers(unit);
        // A mount is read again in any case; for the others a new run means that they came up on other files. What another boot
        // started runs on them too, though it was down when the deployment looked: that may have been while the host shut down.
        let is_moved = |unit: &&String| unit.ends_with(".mount") || is_down(unit) || other_run(unit);
        let booted = |unit: &&String| !before.is_of_this_boot() && !is_down(unit) && !self.is_workers(unit);
        let is_touched = |unit: &&String| was_up(unit) && is_moved(unit) || !before.was_active(unit) && booted(unit);
        let touched: Vec<String> = before.units().iter().filter(is_touched).cloned().collect();
        let along = reached.keys().filter(was_up).filter(|unit| is_down(unit) && !before.units().contains(*unit));
        let along: Vec<String> = along.cloned().collect();
        let all: Vec<String> = touched.iter().chain(&along).cloned().collect();
        self.forget_starts(&all)?;
        let (mut problems, started) = self.bring_back(&touched, &looks, back);
        let (more, mut asked) = self.start_along(before, &reached, along, &looks, started, back)?;
        problems.extend(more);
        asked.extend(touched);
        problems.extend(self.stop_pulled_in(before, &reached, back).err().map(|error| error.to_string()));
        self.check_back(before, &reached, &asked, problems)
    }

    /// Brings units that the deployment itself touched back to running their restored files; returns what went wrong, and
    /// how the start of those ended that were down, which is not the last word.
    fn bring_back(
        &self,
        units: &[String],
        looks: &[&Snapshot],
        back: &mut Applied,
    ) -> (Vec<String>, Result<(), Error>) {
        let state = |unit: &String| looks.iter().find_map(|look| look.units.get(unit));
        let (mut results, mut restarts, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for unit in units {
            let is_active = state(unit).is_some_and(UnitState::is_active);
            let refuses = is_active && state(unit).is_some_and(|state| !state.can_start || !state.can_stop);
            match unit.rsplit('.').next().unwrap_or_default() {
                _ if refuses => {
                    log::warn!("unit_left", unit = unit, note = "it refuses to be started or stopped by hand");
                    continue;
                }
                _ if is_grouping(unit) => continue,
                // A stop may be refused, and then a restart is, too.
                _ if !is_active => starts.push(unit.clone()),
                "slice" | "target" | "automount" | "swap" => {}
                // Restarting a mount would take the file system away from who uses it.
                "mount" => results.push(self.job("reload", std::slice::from_ref(unit), looks)),
                "socket" => {
                    let up = |service: &&String| state(service).is_some_and(UnitState::is_active);
                    let services = state(unit).map(|state| &state.triggers).into_iter().flatten().filter(up);
                    let services: Vec<String> = services.cloned().collect();
                    results.push(self.restart_socket(unit, &services, looks));
                }
                _ => restarts.push(unit.clone()),
            }
            back.did(unit, "restarted", "its deployment was taken back", None);
        }
        let states = starts.iter().filter_map(|unit| Some((unit.clone(), state(unit)?.clone()))).collect();
        let started = self.start_again(&starts, &states, looks);
        results.push(self.restart_each_once(&restarts, looks));
        (results.into_iter().filter_map(|result| result.err().map(|error| error.to_string())).collect(), started)
    }

    /// Starts what is down with the units that came back; one may take another down once more. Returns what went wrong, and
    /// what was started.
    fn start_along(
        &self,
        before: &Before,
        reached: &BTreeMap<String, Job>,
        along: Vec<String>,
        looks: &[&Snapshot],
        mut started: Result<(), Error>,
        back: &mut Applied,
    ) -> Result<(Vec<String>, BTreeSet<String>), Error> {
        let (mut problems, mut asked) = (Vec::new(), BTreeSet::new());
        for _ in 0..ROUNDS {
            if let Err(error) = self.wait_for_jobs(reached.keys().cloned().collect(), looks) {
                problems.push(error.to_string());
            }
            // Where another boot did not start a target, nobody took it down.
            let groups = before.active().filter(|unit| is_grouping(unit) && before.is_of_this_boot());
            let states = self.manager.show(reached.keys().chain(groups))?;
            // A service that was started and ended by itself has done its work.
            let is_left = |unit: &String, state: &UnitState| {
                before.was_active(unit)
                    && !self.is_workers(unit)
                    && !state.is_active()
                    && state.load == "loaded"
                    && !(unit.ends_with(".service") && asked.contains(unit))
            };
            let left = states.iter().filter(|(unit, state)| is_left(unit, state)).map(|(unit, _)| unit.clone());
            let (groups, left): (Vec<String>, Vec<String>) = left.partition(|unit| is_grouping(unit));
            if groups.is_empty() && left.is_empty() {
                break;
            }
            // What did not start before may have lacked what is started now.
            started = self.start_again(&left, &states, looks).and(self.regroup(&groups));
            asked.extend(left);
        }
        problems.extend(started.err().map(|error| error.to_string()));
        for unit in along.iter().filter(|unit| !is_grouping(unit)) {
            back.did(unit, "started", "it was stopped with what it depends on", None);
        }
        Ok((problems, asked))
    }

    /// Stops what was down and came up with the units that came back, because these want it: somebody had stopped it. What
    /// a unit that was active cannot do without stays.
    fn stop_pulled_in(
        &self,
        before: &Before,
        reached: &BTreeMap<String, Job>,
        back: &mut Applied,
    ) -> Result<(), Error> {
        let look = self.manager.snapshot(reached.keys())?;
        let (mut started, mut failed) = (Vec::new(), Vec::new());
        for (unit, state) in &look.units {
            if self.is_workers(unit) || !self.came_up(before, unit, reached) || state.is_on_demand(&[&look.units]) {
                continue;
            }
            let is_needed = || {
                let stopped = reach(&[(unit.clone(), Job::STOP)], &[&look]);
                stopped.keys().any(|other| before.was_active(other))
            };
            if state.is_failed() {
                failed.push(unit.clone());
            } else if state.is_active() && !state.is_passing() && state.can_stop && !state.upheld && !is_needed() {
                started.push(unit.clone());
            }
        }
        self.forget_failures(&failed)?;
        for unit in &started {
            back.did(unit, "stopped", "it was down before its deployment", None);
        }
        self.job("stop", &started, &[&look])
    }

    /// Whether everything that was moved is as it was.
    fn check_back(
        &self,
        before: &Before,
        reached: &BTreeMap<String, Job>,
        asked: &BTreeSet<String>,
        problems: Vec<String>,
    ) -> Result<(), Error> {
        let states = self.manager.show(reached.keys())?;
        // Only what was started again, and ended well, is no loss; a timer or socket does not end by itself.
        let ended = |unit: &String| asked.contains(unit) && unit.ends_with(".service");
        let is_back = |unit: &String, now: &UnitState| {
            now.is_active() && !now.is_failed()
                || now.is_passing()
                || problems.is_empty() && ended(unit) && is_no_loss(now, Job::START, &[])
                || now.load != "loaded" && !now.is_failed()
        };
        let down = reached.keys().filter(|unit| before.was_active(unit) && !self.is_workers(unit)).filter_map(|unit| {
            let state = states.get(unit)?;
            (!is_back(unit, state)).then(|| format!("{unit} is {}", state.active))
        });
        let down: Vec<String> = down.collect();
        if down.is_empty() && problems.is_empty() {
            return Ok(());
        }
        let reason = format!("the last good version does not run: {}", [down, problems].concat().join("; "));
        Err(Error::Step { step: "rollback", reason })
    }
}
