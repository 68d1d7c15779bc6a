//! What is open, and what of it is to be told. Pure: looks and their times come in, what is to be told comes out.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::health::{Level, Reason};
use crate::log::rfc3339;
use crate::text;

/// At most so many messages an hour; what comes beyond waits and is told in one.
const MOST_AN_HOUR: usize = 12;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Longer is no list that waits to be told: what comes beyond is counted.
const MOST_UNTOLD: usize = 500;

/// As much of a reason as a message has room for, in bytes.
pub(super) const LONGEST_REASON: usize = 600;

/// What became of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It appeared.
    Raised,
    /// It is a failure now and was none.
    Worse,
    /// It is there still, a day later.
    Still,
    /// It is gone.
    Cleared,
    /// It appeared and went before it could be told.
    Passed,
    /// Nothing is wrong: a commit was deployed.
    Deployed,
}

/// Something to tell of a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What became of it.
    pub kind: Change,
    /// The reason's stable key.
    pub key: String,
    /// How bad it is, or was.
    pub level: Level,
    pub about: String,
    /// Why.
    pub reason: String,
    /// What mends it.
    pub mend: Option<String>,
    /// Since when it is there.
    pub since: Timestamp,
    /// When this was seen.
    pub at: Timestamp,
}

impl News {
    fn is_failure(&self) -> bool {
        self.level == Level::Failed && !matches!(self.kind, Change::Cleared | Change::Passed)
    }
}

/// What is open at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    level: Level,
    about: String,
    reason: String,
    mend: Option<String>,
    since: Timestamp,
    /// When it was last to be told.
    told: Timestamp,
}

/// What is open and what waits to be told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    open: BTreeMap<String, Open>,
    untold: Vec<News>,
    /// How many more there were than `untold` has room for.
    uncounted: u64,
    /// When the last messages were made.
    messages: Vec<Timestamp>,
    /// Nobody was to be told at the last look.
    is_silent: bool,
}

impl Book {
    /// Takes in a look at the host: what is wrong at `now`. What is wrong still is told again after `repeat`. Returns what
    /// appeared and what went. `speaks` is false where nobody is to be told; who is to be told first hears of all that is
    /// open.
    pub fn look(&mut self, reasons: &[Reason], now: Timestamp, repeat: SignedDuration, speaks: bool) -> Vec<News> {
        let changes = self.compare(reasons, now, repeat);
        if !speaks {
            (self.untold, self.uncounted) = (Vec::new(), 0);
        } else if self.is_silent {
            self.untold = self.open.iter().map(|(key, open)| event(Change::Raised, key, open, now)).collect();
        }
        self.is_silent = !speaks;
        changes
    }

    fn compare(&mut self, reasons: &[Reason], now: Timestamp, repeat: SignedDuration) -> Vec<News> {
        let mut changes = Vec::new();
        for reason in reasons {
            // A reason that knows since when it holds may have begun before anybody looked.
            let since = reason.since.as_deref().and_then(|since| since.parse::<Timestamp>().ok());
            let since = since.filter(|since| *since <= now).unwrap_or(now);
            let known = self.open.get(&reason.key);
            let kind = match known {
                None => Some(Change::Raised),
                Some(known) if known.level < reason.level => Some(Change::Worse),
                // A clock that was set back must not make a silence of years.
                Some(known) if now.duration_since(known.told).abs() >= repeat => Some(Change::Still),
                Some(_) => None,
            };
            let open = Open {
                level: reason.level,
                about: reason.about.clone(),
                reason: reason.reason.clone(),
                mend: reason.mend.clone(),
                since: known.map_or(since, |known| known.since.min(since)),
                told: known.filter(|_| kind.is_none()).map_or(now, |known| known.told),
            };
            if let Some(kind) = kind {
                let event = event(kind, &reason.key, &open, now);
                if kind != Change::Still {
                    changes.push(event.clone());
                }
                self.note(event);
            }
            self.open.insert(reason.key.clone(), open);
        }
        let is_there = |key: &String| reasons.iter().any(|reason| reason.key == *key);
        let gone: Vec<String> = self.open.keys().filter(|key| !is_there(key)).cloned().collect();
        for key in gone {
            if let Some(open) = self.open.remove(&key) {
                let event = event(Change::Cleared, &key, &open, now);
                changes.push(event.clone());
                self.note(event);
            }
        }
        changes
    }

    /// Takes in what is to be told and is nothing wrong.
    pub fn news(&mut self, events: Vec<News>) {
        events.into_iter().for_each(|event| self.note(event));
    }

    /// Puts something on the list of what is to be told; what it makes untrue goes from there.
    fn note(&mut self, mut event: News) {
        if let Some(place) =
            self.untold.iter().position(|untold| untold.key == event.key && untold.kind != Change::Passed)
        {
            let untold = self.untold.remove(place);
            match (untold.kind, event.kind) {
                (Change::Raised, Change::Cleared) => event.kind = Change::Passed,
                // That it went was not told, so that it is as it was told last: there.
                (Change::Cleared, Change::Raised) => {
                    event.since = untold.since;
                    event.kind = if untold.level < event.level { Change::Worse } else { Change::Still };
                }
                (Change::Raised, _) => event.kind = Change::Raised,
                _ => {}
            }
        }
        if self.untold.len() < MOST_UNTOLD {
            self.untold.push(event);
        } else {
            self.uncounted += 1;
        }
    }

    /// What is to be told now, in one message, with the number of those beyond; nothing where the hour is full.
    /// In quiet hours, what is no failure waits.
    pub fn tell(&mut self, now: Timestamp, is_quiet: bool) -> Option<(Vec<News>, u64)> {
        // What lies ahead is of a clock that was set back.
        self.messages.retain(|made| *made <= now && now.duration_since(*made) < HOUR);
        let is_due = |event: &News| !is_quiet || event.is_failure();
        if self.messages.len() >= MOST_AN_HOUR || !self.untold.iter().any(is_due) {
            return None;
        }
        let (due, waiting) = std::mem::take(&mut self.untold).into_iter().partition(is_due);
        self.untold = waiting;
        self.messages.push(now);
        Some((due, std::mem::take(&mut self.uncounted)))
    }

    /// Since when each reason is open, RFC 3339, by its key.
    pub fn since(&self) -> BTreeMap<String, String> {
        self.open.iter().map(|(key, open)| (key.clone(), rfc3339(open.since))).collect()
    }

    /// How many reasons are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

fn event(kind: Change, key: &str, open: &Open, at: Timestamp) -> News {
    News {
        kind,
        key: key.to_owned(),
        level: open.level,
        about: open.about.clone(),
        reason: text::cut(&open.reason, LONGEST_REASON).into_owned(),
        mend: open.mend.clone(),
        since: open.since,
        at,
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
