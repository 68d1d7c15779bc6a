use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{self, Event};
use crate::log;
use crate::state::{Error, Folder, Lock};

/// `gitops/totals.json`: how often what happened to each repository, since its history began. The history forgets its oldest
/// lines, and a count that is to be told to Prometheus must not become less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub repositories: BTreeMap<String, Total>,
}

/// The counts of one repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Total {
    /// How often another commit became live.
    pub deployed: u64,
    /// How often a commit failed and was taken back, whether that could be done or not.
    pub rolled_back: u64,
}

impl Totals {
    /// Its name in the folder `gitops`.
    pub const FILE: &str = "totals.json";
    const LOCK: &str = "totals.lock";

    /// What the lines of the history count up to; what they do not is not counted.
    pub fn of(history: &[Event]) -> Self {
        let mut totals = Self::default();
        for event in history {
            totals.count(event);
        }
        totals
    }

    /// Appends an event to the history in `folder`, and counts it. Where that fails it is told in the log: nobody's deployment
    /// waits for it.
    pub fn append(folder: &Folder, event: &Event) {
        // Runs deploy side by side: what another one appends meanwhile would be in the history, and counted once more by it.
        let before = Lock::wait(folder, Self::LOCK).and_then(|lock| Ok((Self::before(folder)?, lock)));
        event.append(folder);
        let counted = before.and_then(|((known, is_kept), _lock)| {
            let mut totals = known.clone();
            totals.count(event);
            if is_kept && totals == known { Ok(()) } else { folder.publish_json(Self::FILE, &totals) }
        });
        if let Err(error) = counted {
            log::warn!("totals_not_written", kind = event.kind, about = event.about, error = error.to_string());
        }
    }

    /// What was counted so far, and whether that is kept already; else it is what the history counts up to.
    fn before(folder: &Folder) -> Result<(Self, bool), Error> {
        let kept = folder.read_json::<Self>(Self::FILE).unwrap_or_else(|error| {
            log::warn!("totals_replaced", error = error.to_string());
            None
        });
        match kept {
            Some(kept) => Ok((kept, true)),
            None => Ok((Self::of(&history::read(folder)?), false)),
        }
    }

    fn count(&mut self, event: &Event) {
        let total = |total: fn(&mut Total) -> &mut u64| (event.about.clone(), total);
        let (about, field) = match event.kind.as_str() {
            "deployed" => total(|total| &mut total.deployed),
            "rolled_back" | "rollback_failed" => total(|total| &mut total.rolled_back),
            _ => return,
        };
        let count = field(self.repositories.entry(about).or_default());
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::history::Kind;

    fn happen(folder: &Folder, kind: Kind, about: &str) {
        let event = Event::new(kind, about, "").with("list", "x".repeat(20_000));
        Totals::append(folder, &event);
    }

    fn total(folder: &Folder, about: &str) -> (u64, u64) {
        let totals: Totals = folder.read_json(Totals::FILE).unwrap().unwrap();
        let Total { deployed, rolled_back } = totals.repositories[about];
        (deployed, rolled_back)
    }

    #[test]
    fn a_count_begins_with_the_history_and_outlives_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        Event::new(Kind::Deployed, "a", "").append(&folder);
        happen(&folder, Kind::RolledBack, "a");
        happen(&folder, Kind::Held, "a");
        assert_eq!(total(&folder, "a"), (1, 1), "what an older hub did counts, too");
        for _ in 0..150 {
            happen(&folder, Kind::Deployed, "a");
        }
        assert!(history::read(&folder).unwrap().len() < 120, "lines are gone");
        assert_eq!(total(&folder, "a"), (151, 1));
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing_and_a_damaged_count_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folder = &Folder::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| happen(folder, Kind::RollbackFailed, "a")));
            }
        });
        assert_eq!(total(folder, "a"), (0, 40));
        std::fs::write(dir.path().join(Totals::FILE), "{").unwrap();
        happen(folder, Kind::Deployed, "b");
        assert_eq!((total(folder, "a"), total(folder, "b")), ((0, 40), (1, 0)));
    }
}
