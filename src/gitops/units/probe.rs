use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::applied::Applied;
use super::plan::Plan;
use super::reach::{Job, is_left_out};
use super::state::UnitState;
use super::{Before, Host};
use crate::gitops::Error;
use crate::log;

/// The pause between two looks at the watched units.
const PAUSE: Duration = Duration::from_millis(500);
/// More units than this are counted only, where they are named for a record.
const NAMED: usize = 20;

/// A unit that was active before and is not now, and what a well unit of the commit has to do with it.
type Displaced = HashMap<String, String>;

impl Host {
    /// Watches all units that the deployment moved, whoever owns them, until the grace period is over.
    ///
    /// A unit is well while it has not failed, does not restart, and is active where it was active before. Units that
    /// had failed before do not count, nor do those that a well unit of the commit displaces by `Conflicts=`: they are
    /// named. So is what failed meanwhile and was not moved.
    ///
    /// # Errors
    /// `Step` at the first unit that is not well.
    pub fn watch(&self, plan: &Plan, before: &Before, applied: &mut Applied, grace: Duration) -> Result<(), Error> {
        if applied.moved.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + grace;
        let mut first: Option<HashMap<String, UnitState>> = None;
        loop {
            let states = self.manager.show(applied.moved.keys())?;
            let first = first.get_or_insert_with(|| states.clone());
            let displaced = self.displaced(plan, before, applied, &states);
            for (unit, job) in applied.moved.iter().filter(|(unit, _)| !self.goes(plan, applied, unit)) {
                if !displaced.contains_key(unit)
                    && let Some(reason) = self.ill(unit, *job, [first, &states], before)
                {
                    return Err(Error::Step { step: "health", reason });
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for (unit, by) in displaced {
                    applied.did(&unit, "stopped", &format!("{by} is well and conflicts with it"), None);
                }
                return self.notice_others(before, applied);
            }
            std::thread::sleep(left.min(PAUSE));
        }
    }

    /// Why a unit that was moved is not well; none where it is, or where it does not count.
    fn ill(
        &self,
        unit: &str,
        job: Job,
        [first, states]: [&HashMap<String, UnitState>; 2],
        before: &Before,
    ) -> Option<String> {
        let now = states.get(unit)?;
        if before.had_failed(unit) || self.is_workers(unit) {
            return None;
        }
        if now.is_failed() {
            return Some(format!("{unit} failed ({}); see: journalctl -u {unit}", now.result));
        }
        // A start by hand sets the count back to nothing, so that even one restart came after it. One that went on counting
        // restarted by itself before, too.
        let was = before.world.units.get(unit);
        let was_restarting = was.is_some_and(|was| was.restarts > 0 && now.restarts >= was.restarts);
        let is_restarting = now.restarts > 0 && !was_restarting && before.invocation(unit) != Some(&now.invocation);
        // What upholds it has it started anew without counting.
        let is_other_run =
            first.get(unit).is_some_and(|first| !first.invocation.is_empty() && first.invocation != now.invocation);
        if is_restarting || now.upheld && !now.is_passing() && is_other_run {
            return Some(format!("{unit} keeps restarting; see: journalctl -u {unit}"));
        }
        let is_lost =
            before.was_active(unit) && !now.is_active() && !is_no_loss(now, job, &[states, &before.world.units]);
        is_lost.then(|| format!("{unit} was active and is {} now; see: journalctl -u {unit}", now.active))
    }

    /// True for a unit that is not to run any more. A packaged one that comes to light goes on as it was.
    pub(super) fn goes(&self, plan: &Plan, applied: &Applied, unit: &str) -> bool {
        let stays = self.is_packaged(unit) && plan.packaged(unit).is_none_or(|packaged| packaged.active);
        plan.takes_away(unit) && !stays || applied.ended.contains(unit)
    }

    /// The units that are down because a well unit of the commit conflicts with them, and those that cannot run without
    /// them, each with that unit.
    pub(super) fn displaced(
        &self,
        plan: &Plan,
        before: &Before,
        applied: &Applied,
        states: &HashMap<String, UnitState>,
    ) -> Displaced {
        let of_commit = |unit: &&String| plan.desired.has_unit(unit);
        let well = |unit: &String| states.get(unit).is_some_and(|now| now.is_active() && !now.is_failed());
        let is_lost =
            |unit: &&String| before.was_active(unit) && states.get(*unit).is_some_and(|now| before.lost(unit, now));
        let lost: BTreeSet<&String> = applied.moved.keys().filter(is_lost).collect();
        let mut displaced = Displaced::new();
        for unit in applied.moved.keys().filter(of_commit).filter(|unit| well(unit)) {
            for other in &states[unit].conflicts {
                if lost.contains(other) {
                    displaced.insert(other.clone(), unit.clone());
                }
            }
        }
        loop {
            let by =
                |unit: &&String| states.get(*unit)?.wanted.iter().find_map(|needed| displaced.get(needed)).cloned();
            let more: Vec<(String, String)> = lost
                .iter()
                .filter(|unit| !displaced.contains_key(**unit))
                .filter_map(|unit| Some(((*unit).clone(), by(unit)?)))
                .collect();
            if more.is_empty() {
                return displaced;
            }
            displaced.extend(more);
        }
    }

    /// Names what failed meanwhile and was not moved.
    fn notice_others(&self, before: &Before, applied: &mut Applied) -> Result<(), Error> {
        let is_other =
            |unit: &String| !before.had_failed(unit) && !applied.moved.contains_key(unit) && !is_left_out(unit);
        let others: Vec<String> = self.manager.failed()?.into_iter().filter(is_other).collect();
        for unit in others.iter().take(NAMED) {
            log::warn!("unit_failed_beside", unit = unit, note = "this deployment did not move it");
            applied.noticed.push(format!("{unit} failed meanwhile; this deployment did not move it"));
        }
        if others.len() > NAMED {
            applied.noticed.push(format!("{} more units failed meanwhile", others.len() - NAMED));
        }
        Ok(())
    }
}

/// True where nobody is the worse for it that a unit is not active any more: a oneshot that is done, a service that ended by
/// itself when it had nothing to do.
pub(super) fn is_no_loss(now: &UnitState, job: Job, looks: &[&HashMap<String, UnitState>]) -> bool {
    let ended_well = now.result == "success" || now.result.is_empty();
    now.is_passing() || ended_well && (!job.stop || now.is_on_demand(looks))
}
