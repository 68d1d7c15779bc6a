use super::applied::Applied;
use super::manager::Snapshot;
use super::plan::Plan;
use super::reach::{Job, reach};
use super::{Before, Host};
use crate::gitops::Error;

/// More dependents than this are counted only.
const SHOWN: usize = 20;

impl Host {
    /// What a plan would do to units that run, and what would be restarted or stopped along, a line each.
    pub fn preview(&self, plan: &Plan) -> Result<Vec<String>, Error> {
        let mut before = Before::of(plan);
        self.look_before(&mut before)?;
        let stale = self.stale(plan, &[], &[], &before)?;
        let work = self.sort(plan, &[], stale, &before, &before.world, &mut Applied::default());
        let mut lines = Vec::new();
        for (verb, one) in work.changes() {
            let along = match verb {
                "reload" => String::new(),
                "stop" => along(&one.unit, Job::STOP, &before),
                _ => along(&one.unit, Job::RESTART, &before),
            };
            lines.push(format!("{verb} {}{along}: {}", one.unit, one.reason));
        }
        for line in plan.leaving() {
            let units = self.units_of(&line.file)?;
            for unit in units.iter().filter(|unit| before.was_active(unit)) {
                lines.push(format!("stop {unit}{}: {}", along(unit, Job::STOP, &before), line.reason));
            }
        }
        Ok(lines)
    }
}

/// The running units that a job takes along.
fn along(unit: &str, job: Job, before: &Before) -> String {
    let world: &Snapshot = &before.world;
    let moved = reach(&[(unit.to_owned(), job)], &[world]);
    let stopped = moved.into_iter().filter(|(other, job)| job.stop && other != unit && before.was_active(other));
    let names: Vec<String> = stopped.map(|(other, _)| other).collect();
    match names.len() {
        0 => String::new(),
        count if count > SHOWN => format!(", and with it {} and {} more", names[..SHOWN].join(", "), count - SHOWN),
        _ => format!(", and with it {}", names.join(", ")),
    }
}
