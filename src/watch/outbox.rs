//! Notices that wait for their way: kept until they were taken, in order, each at least once.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Notice, Unsent};

/// More do not wait: nobody reads a hundred messages.
const MOST: usize = 100;
/// Older ones are news to nobody.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A notice that is refused for what it is holds up the others no longer than this.
const REFUSED: SignedDuration = SignedDuration::from_hours(1);
/// The longest pause that a server is believed to ask for.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(6);

/// What waits for one way out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outbox {
    waiting: Vec<Notice>,
    /// Notices that were given up.
    lost: u64,
    /// Before this nothing is tried: the server said so.
    not_before: Option<Timestamp>,
    /// Since when it does not work, and why.
    failing: Option<(Timestamp, String)>,
    /// Since when the oldest notice is refused for what it is.
    refused: Option<Timestamp>,
}

/// What became of a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    Taken,
    /// It was given up.
    Lost,
    Waits,
}

impl Outbox {
    /// Lets a notice wait for its turn.
    pub fn put(&mut self, notice: Notice) {
        self.waiting.push(notice);
        if self.waiting.len() > MOST {
            self.lost += (self.waiting.len() - MOST) as u64;
            self.waiting.drain(..self.waiting.len() - MOST);
        }
    }

    /// The notice whose turn it is; none where none waits, or the server asked for a pause.
    pub fn next(&mut self, now: Timestamp) -> Option<Notice> {
        let count = self.waiting.len();
        self.waiting.retain(|notice| now.duration_since(notice.at) < LONGEST);
        self.lost += (count - self.waiting.len()) as u64;
        // A clock that was set back must not make the pause longer than it can be.
        if self.not_before.is_some_and(|time| time > now && time.duration_since(now) <= LONGEST_PAUSE) {
            return None;
        }
        let mut notice = self.waiting.first()?.clone();
        if self.lost > 0 {
            notice.text.push_str(&format!("\n\n{} earlier notices could not be sent and are lost", self.lost));
        }
        Some(notice)
    }

    /// Takes down how the try of `next` ended.
    pub fn tried(&mut self, result: Result<(), Unsent>, now: Timestamp) -> Sent {
        match result {
            Ok(()) => {
                self.waiting.remove(0);
                (self.lost, self.not_before, self.failing, self.refused) = (0, None, None, None);
                Sent::Taken
            }
            Err(unsent) => {
                let pause = unsent.retry_after.map(|pause| pause.min(LONGEST_PAUSE));
                self.not_before = pause.and_then(|pause| now.checked_add(pause).ok());
                let since = self.failing.take().map_or(now, |(since, _)| since);
                self.failing = Some((since, unsent.reason));
                self.refused = unsent.is_final.then(|| self.refused.unwrap_or(now));
                if self.refused.is_none_or(|since| now.duration_since(since) < REFUSED) {
                    return Sent::Waits;
                }
                self.waiting.remove(0);
                (self.lost, self.refused) = (self.lost + 1, None);
                Sent::Lost
            }
        }
    }

    /// The one that was put in last.
    #[cfg(test)]
    pub(super) fn newest(&self) -> Option<&Notice> {
        self.waiting.last()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Since when this way does not work, and why.
    pub fn failing(&self) -> Option<&(Timestamp, String)> {
        self.failing.as_ref()
    }
}
