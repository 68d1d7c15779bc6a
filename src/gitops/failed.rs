use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use crate::log;
use crate::records::Refusal;
use crate::state::{Error, Folder};
use crate::text;

/// How many refused entries are kept, each with its reason.
const KEPT: usize = 200;
/// So many names are removed in a run, of what is not kept; the next one goes on.
const REMOVED: usize = 100_000;

/// Before a run ends that leaves the queue as it was.
const PAUSE: Duration = Duration::from_secs(5);

/// What was refused, kept for whoever looks into it: an entry of any kind, and its reason beside it. Nothing that somebody
/// put there ends a run.
#[derive(Debug)]
pub(super) struct Failed {
    folder: Folder,
    /// How many entries this run refused.
    count: Cell<usize>,
    /// What can neither be moved nor removed.
    stuck: RefCell<HashSet<OsString>>,
    budget: Cell<usize>,
}

impl Failed {
    /// Opens `failed/`.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open(gitops: &Folder) -> Result<Self, Error> {
        Ok(Self {
            folder: gitops.sub_or_make("failed", 0o750)?,
            count: Cell::default(),
            stuck: RefCell::default(),
            budget: Cell::new(REMOVED),
        })
    }

    /// True for an entry that this run could do nothing about.
    pub fn is_stuck(&self, name: &OsStr) -> bool {
        self.stuck.borrow().contains(name)
    }

    /// Takes an entry out of a folder. The first ones are logged; `end` counts the others.
    pub fn take(&self, from: &Folder, name: &OsStr, reason: &str) {
        let shown = text::name(name.as_encoded_bytes());
        let count = self.count.get() + 1;
        self.count.set(count);
        if count <= text::FIRST {
            log::error!("request_refused", entry = shown, reason = reason);
        }
        let kept = if count <= KEPT { self.keep(from, name, &shown, reason) } else { self.drop(from, name) };
        // Where there is no room to keep it, it goes all the same: it would be found again by each run.
        if let Err(error) = kept
            && let Err(second) = self.drop(from, name)
        {
            let errors = [error, second].map(|error| error.to_string());
            log::error!("request_stuck", entry = shown, error = errors.join("; "), remedy = "remove it by hand");
            self.stuck.borrow_mut().insert(name.to_owned());
        }
    }

    fn keep(&self, from: &Folder, name: &OsStr, shown: &str, reason: &str) -> Result<(), Error> {
        let target = format!("{}-{}", jiff::Timestamp::now().as_microsecond(), std::process::id());
        let note = Refusal { name: shown.to_owned(), reason: format!("{shown} {reason}"), at: log::now() };
        from.move_to(name, &self.folder, OsStr::new(&target))?;
        self.folder.publish_json(&(target + Refusal::ENDING), &note)
    }

    /// Removes an entry that is not kept; one that cannot be removed at once is moved out of the way first.
    fn drop(&self, from: &Folder, name: &OsStr) -> Result<(), Error> {
        let mut budget = self.budget.get();
        let removed = from.remove_tree(name, &mut budget);
        self.budget.set(budget);
        match removed {
            Ok(true) => Ok(()),
            Ok(false) => {
                let target = format!("{}-{}", jiff::Timestamp::now().as_microsecond(), std::process::id());
                from.move_to(name, &self.folder, OsStr::new(&target))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits a little where entries are stuck: the path unit starts the next run as long as the queue is not empty.
    fn rest(&self) {
        if !self.stuck.borrow().is_empty() {
            std::thread::sleep(PAUSE);
        }
    }

    /// Keeps the folder small, at the end of a run: names begin with their time, so the first ones are the oldest. What
    /// cannot be removed is told once and left for the next run.
    pub fn end(&self) {
        self.rest();
        let refused = self.count.get();
        if refused > text::FIRST {
            let (logged, kept) = (text::FIRST, refused.min(KEPT));
            log::error!("requests_refused", count = refused, logged = logged, kept = kept);
        }
        let (mut left, mut first) = (0_usize, None);
        let mut note = |removed: Result<bool, Error>| match removed {
            Ok(true) => {}
            Ok(false) => left += 1,
            Err(error) => {
                left += 1;
                first.get_or_insert(error.to_string());
            }
        };
        let mut budget = self.budget.get();
        note(self.folder.remove_left_trees(&mut budget));
        match self.folder.entries(usize::MAX) {
            Ok(entries) => {
                let excess = entries.len().saturating_sub(2 * KEPT);
                entries[..excess].iter().for_each(|entry| note(self.folder.remove_tree(&entry.name, &mut budget)));
            }
            Err(error) => note(Err(error)),
        }
        if left > 0 {
            let path = self.folder.path().display().to_string();
            let reason = first.unwrap_or_else(|| "they are too many, or somebody goes on filling them".to_owned());
            log::warn!("failed_not_pruned", path = path, entries = left, reason = reason);
        }
    }
}
