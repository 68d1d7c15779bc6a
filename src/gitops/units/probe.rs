use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::apply::Applied;
use super::manager::UnitState;
use super::{Before, Host};
use crate::gitops::Error;

/// The pause between two looks at the watched units.
const PAUSE: Duration = Duration::from_millis(500);

impl Host {
    /// Watches the units that were started or restarted until the grace period is over.
    ///
    /// A unit is well while it has not failed, does not restart, and is active where it was active before. Units that
    /// had failed before do not count.
    ///
    /// # Errors
    /// `Step` at the first unit that is not well.
    pub fn watch(&self, applied: &Applied, before: &Before, grace: Duration) -> Result<(), Error> {
        let watched: Vec<String> = applied.watched.iter().filter(|unit| !before.had_failed(unit)).cloned().collect();
        if watched.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + grace;
        let mut states = self.manager.show(&watched)?;
        loop {
            for unit in &watched {
                if let Some(reason) = ill(unit, &states, before) {
                    return Err(Error::Step { step: "health", reason });
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(PAUSE));
            states = self.manager.show(&watched)?;
        }
    }
}

fn ill(unit: &str, now: &HashMap<String, UnitState>, before: &Before) -> Option<String> {
    let now = now.get(unit)?;
    if now.is_failed() {
        return Some(format!("{unit} failed ({}); see: journalctl -u {unit}", now.result));
    }
    // A start by hand sets the count back to nothing, so that even one restart came after it.
    if now.restarts > 0 {
        return Some(format!("{unit} keeps restarting; see: journalctl -u {unit}"));
    }
    (before.was_active(unit) && !now.is_active()).then(|| format!("{unit} was active and is {} now", now.active))
}
