//! One message for one cause: what fails because a disk is full, and the full disk, are told as one thing, whichever was seen
//! first, and until all of it is over. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::health::{Cause, Level, Reason};
use crate::text::listed;

/// In this order; of one reason comes one notice.
const CAUSES: [Cause; 5] = [Cause::FullDisk, Cause::ReadOnly, Cause::Memory, Cause::Configuration, Cause::Database];

/// Whether a reason is a cause itself.
fn is_itself(cause: Cause, Reason { key, .. }: &Reason) -> bool {
    match cause {
        Cause::FullDisk => key.starts_with("disk/") && (key.ends_with("/full") || key.ends_with("/inodes")),
        Cause::ReadOnly => key == "disk///read-only",
        Cause::Memory => key == "memory/oom-kill",
        Cause::Configuration => key == "configuration/invalid",
        Cause::Database => key.starts_with("unit/postgresql"),
    }
}

/// A cause that is told, or something that came of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    /// Under which key all of it is told.
    key: String,
    /// Which reason is the cause itself; none while only what comes of it was seen.
    cause: Option<String>,
}

/// The causes that are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Causes {
    told: BTreeMap<Cause, Told>,
    /// Units that were told by themselves before they were too many for that.
    units: BTreeMap<String, (Level, String, String)>,
    /// What they come of, where that is known.
    units_come_of: BTreeMap<String, Cause>,
}

impl Causes {
    /// The reasons, with what has one cause in one.
    pub fn merge(&mut self, mut reasons: Vec<Reason>) -> Vec<Reason> {
        self.crowd(&mut reasons);
        for cause in CAUSES {
            let told = self.told.remove(&cause);
            // What all of it is told under stays with it, whatever else is wrong with that one by now.
            let is_head = |reason: &Reason| told.as_ref().is_some_and(|told| told.key == reason.key);
            let (mut effects, others): (Vec<Reason>, Vec<Reason>) = reasons
                .into_iter()
                .partition(|reason| !is_itself(cause, reason) && (reason.comes_of == Some(cause) || is_head(reason)));
            reasons = others;
            // The worst comes first. Another one, while the one that was told is over and what came of it is not, is news.
            let known = told.as_ref().and_then(|told| told.cause.as_ref());
            let itself = reasons.iter().position(|reason| match known {
                Some(key) => *key == reason.key,
                None => is_itself(cause, reason),
            });
            let is_told = told.is_some();
            // A cause of which nothing comes is a reason as any other.
            if effects.is_empty() && (!is_told || itself.is_none()) {
                continue;
            }
            let itself = itself.map(|place| reasons.remove(place));
            let first = if itself.is_none() && !effects.is_empty() { Some(effects.remove(0)) } else { None };
            let Some(head) = itself.as_ref().or(first.as_ref()) else { continue };
            let key = told.as_ref().map_or_else(|| head.key.clone(), |told| told.key.clone());
            let abouts = effects.iter().map(|reason| reason.about.as_str());
            let names = listed(abouts.collect::<std::collections::BTreeSet<_>>(), ", ");
            let more = match (names.is_empty(), itself.is_some()) {
                (true, _) => String::new(),
                (false, true) => format!("; by it, these do not do their work: {names}"),
                (false, false) => format!("; so it is with {names}"),
            };
            let level = effects.iter().map(|reason| reason.level).chain([head.level]).max().unwrap_or(head.level);
            let cause_key = itself.as_ref().map(|reason| reason.key.clone()).or_else(|| known.cloned());
            self.told.insert(cause, Told { key: key.clone(), cause: cause_key });
            let merged = Reason { key, level, reason: format!("{}{more}", head.reason), ..head.clone() };
            reasons.push(merged);
        }
        reasons
    }

    /// Units that were told by themselves stay as they were while they are too many for a reason each.
    fn crowd(&mut self, reasons: &mut Vec<Reason>) {
        let is_unit = |reason: &&Reason| reason.key.starts_with("unit/");
        if reasons.iter().any(|reason| reason.key == "units/failed") {
            let kept = self.units.iter().map(|(key, (level, about, reason))| Reason {
                key: key.clone(),
                level: *level,
                about: about.clone(),
                reason: reason.clone(),
                comes_of: self.units_come_of.get(key).copied(),
                ..Reason::default()
            });
            reasons.extend(kept);
        } else {
            let units = reasons.iter().filter(is_unit);
            self.units_come_of =
                units.clone().filter_map(|reason| Some((reason.key.clone(), reason.comes_of?))).collect();
            self.units = units
                .map(|reason| (reason.key.clone(), (reason.level, reason.about.clone(), reason.reason.clone())))
                .collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(key: &str, level: Level, text: &str) -> Reason {
        let about = key.split('/').next().unwrap().to_owned();
        Reason { key: key.to_owned(), level, about, reason: text.to_owned(), ..Reason::default() }
    }

    fn disk(mount: &str, level: Level) -> Reason {
        reason(&format!("disk/{mount}/full"), level, "it is full")
    }

    fn fails(key: &str) -> Reason {
        Reason { comes_of: Some(Cause::FullDisk), ..reason(key, Level::Failed, "write x: No space left on device") }
    }

    fn keys(causes: &mut Causes, reasons: &[Reason]) -> Vec<(String, Level)> {
        causes.merge(reasons.to_vec()).into_iter().map(|reason| (reason.key, reason.level)).collect()
    }

    fn failed(key: &str) -> (String, Level) {
        (key.to_owned(), Level::Failed)
    }

    #[test]
    fn a_full_disk_and_what_fails_by_it_are_one_until_all_is_over() {
        let mut causes = Causes::default();
        let (full, other) = (disk("/", Level::Degraded), reason("proxy/stopped", Level::Failed, "it does not run"));
        assert_eq!(keys(&mut causes, std::slice::from_ref(&full)), [("disk///full".to_owned(), Level::Degraded)]);
        let all = [full.clone(), fails("gitops/last-run"), fails("metrics/lost"), other.clone()];
        assert_eq!(keys(&mut causes, &all), [failed("proxy/stopped"), failed("disk///full")]);
        let merged = causes.merge(all.to_vec()).pop().unwrap();
        assert!(merged.reason.ends_with("by it, these do not do their work: gitops, metrics"), "{}", merged.reason);
        // The disk has room again, and services are still to be restarted; then they are, one by one.
        assert_eq!(keys(&mut causes, &[fails("gitops/last-run"), fails("metrics/lost")]), [failed("disk///full")]);
        assert_eq!(keys(&mut causes, &[fails("metrics/lost")]), [failed("disk///full")]);
        assert_eq!(keys(&mut causes, &[other]), [failed("proxy/stopped")]);
        assert_eq!(causes, Causes::default());
    }

    #[test]
    fn what_was_seen_before_its_cause_is_told_under_one_key_too() {
        let mut causes = Causes::default();
        let (a, b) = (fails("unit/a.service/failed"), fails("unit/b.service/failed"));
        assert_eq!(keys(&mut causes, std::slice::from_ref(&a)), [failed("unit/a.service/failed")]);
        let full = disk("/", Level::Failed);
        for reasons in [&[a.clone(), b.clone()][..], &[a.clone(), b.clone(), full.clone()], &[full.clone(), b], &[full]]
        {
            assert_eq!(keys(&mut causes, reasons), [failed("unit/a.service/failed")], "{reasons:?}");
        }
        assert_eq!(keys(&mut causes, &[]), []);
    }

    #[test]
    fn two_full_disks_are_two() {
        let mut causes = Causes::default();
        let (one, two) = (disk("/", Level::Failed), disk("/srv", Level::Failed));
        assert_eq!(keys(&mut causes, &[one.clone(), fails("a/x")]), [failed("disk///full")]);
        let both = [two.clone(), one, fails("a/x")];
        assert_eq!(keys(&mut causes, &both), [failed("disk//srv/full"), failed("disk///full")]);
        assert_eq!(keys(&mut causes, &[two.clone(), fails("a/x")]), [failed("disk//srv/full"), failed("disk///full")]);
        assert_eq!(keys(&mut causes, std::slice::from_ref(&two)), [failed("disk//srv/full")]);
        assert_eq!(keys(&mut causes, &[]), []);
        // The other way round: what came of it ends first.
        assert_eq!(keys(&mut causes, &[disk("/", Level::Failed), fails("a/x")]), [failed("disk///full")]);
        let both = [disk("/", Level::Failed), two.clone()];
        assert_eq!(keys(&mut causes, &both), [failed("disk//srv/full"), failed("disk///full")]);
        assert_eq!(keys(&mut causes, &[two]), [failed("disk//srv/full")]);
    }

    #[test]
    fn one_key_is_one_reason_whatever_is_wrong_with_it_by_now() {
        let mut causes = Causes::default();
        let (a, b) = (fails("unit/a.service/failed"), fails("unit/b.service/failed"));
        assert_eq!(keys(&mut causes, &[a, b.clone()]), [failed("unit/a.service/failed")]);
        let other = reason("unit/a.service/failed", Level::Failed, "exit status 1");
        let full = disk("/", Level::Degraded);
        for reasons in [&[other.clone(), b.clone()][..], &[other.clone(), b, full.clone()], &[other, full]] {
            assert_eq!(keys(&mut causes, reasons), [failed("unit/a.service/failed")], "{reasons:?}");
        }
    }

    #[test]
    fn units_that_become_too_many_are_not_well_again() {
        let mut causes = Causes::default();
        let unit = reason("unit/a.service/failed", Level::Failed, "a has failed");
        assert_eq!(keys(&mut causes, std::slice::from_ref(&unit)).len(), 1);
        let crowd = reason("units/failed", Level::Failed, "21 units have failed");
        for _ in 0..2 {
            let all = keys(&mut causes, std::slice::from_ref(&crowd));
            assert_eq!(all, [failed("units/failed"), failed("unit/a.service/failed")]);
        }
        assert_eq!(keys(&mut causes, &[unit]).len(), 1);
        assert_eq!(keys(&mut causes, &[]), []);
    }
}
