use super::judge::Judge;
use super::{Cause, Level};
use crate::hint::quoted;
use crate::records::{FailedUnit, Look, Over};
use crate::text::listed;

impl Judge<'_> {
    /// The values of the host that hub watch found beyond their limits.
    pub fn limits(&mut self) {
        let look = self.seen.left.look.get().filter(|look| look.is_within(Look::HOLDS, self.seen.now));
        for Over { key, about, is_failed, reason, mend, since } in look.map(|look| &look.over).into_iter().flatten() {
            let level = if *is_failed { Level::Failed } else { Level::Degraded };
            self.say_since(Some(since), level, key, about, reason, mend);
        }
    }

    /// The host's own units that have failed. Of the hub's each service says more itself.
    pub fn failed_units(&mut self) {
        let Some(failed) = self.seen.failed else { return };
        if failed.is_crowd {
            let left = std::iter::repeat_n("", failed.count.saturating_sub(failed.first.len()));
            let names = listed(failed.first.iter().map(|one| one.unit.as_str()).chain(left), ", ");
            let reason = format!("{} units have failed: {names}", failed.count);
            self.say(Level::Failed, "units/failed", "units", reason, "systemctl --failed");
            return;
        }
        for FailedUnit { unit, result, exit_status, since, no_space } in &failed.first {
            let status = exit_status.as_ref().map(|status| format!(", exit status {status}")).unwrap_or_default();
            let why = if *no_space == Some(true) { "; its log reports that no space is left on a disk" } else { "" };
            let reason = format!("{unit} has failed ({result}{status}){why}");
            let mend = format!("systemctl status {0}; journalctl -u {0} -n 20", quoted(unit));
            self.say_since(since.as_deref(), Level::Failed, format!("unit/{unit}/failed"), unit, reason, mend);
            let full = no_space.unwrap_or_default().then_some(Cause::FullDisk);
            self.comes_of(full.or(Cause::of_end(result, exit_status.as_deref())));
        }
    }
}
