use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::records::history::{self, Event};
use crate::records::{seconds_between, span};
use crate::text::cut;

/// Days that are shown.
pub const DAYS: i64 = 30;
/// Units from the left edge of the picture to the right one.
pub const WIDTH: i64 = 720;
/// Periods beyond so many are left out, the oldest first.
const MOST: usize = 200;
const LONGEST_REASON: usize = 600;

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {}

/// When the gateway was public, the newest last.
#[derive(Debug, Serialize, Deserialize)]
pub struct Periods {
    pub periods: Vec<Period>,
    /// How many older ones are left out.
    pub left_out: usize,
}

/// A time in which it was one way.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Period {
    /// `open`, `closed` or `unreachable`.
    pub state: String,
    pub begin: String,
    /// How long it was.
    pub length: String,
    /// Whether it is so still.
    pub goes_on: bool,
    pub reason: String,
    /// Where it lies in the picture, and how wide it is there.
    pub place: (i64, i64),
}

/// Reads it.
///
/// # Errors
/// A sentence: why the history cannot be read.
pub fn read(config: &Config, _: &Asked) -> Result<Periods, String> {
    let told = history::of(&config.state_dir, "gate").map_err(|error| error.to_string())?;
    Ok(periods(&told, Timestamp::now(), &TimeZone::system()))
}

fn periods(told: &[Event], now: Timestamp, zone: &TimeZone) -> Periods {
    let changes = told.iter().filter_map(|event| {
        let state = match event.kind.as_str() {
            "opened" => "open",
            "closed" => "closed",
            "unreachable" => "unreachable",
            _ => return None,
        };
        // What lies ahead was written by a clock that was wrong.
        event.time().filter(|at| *at <= now).map(|at| (at, state, event.reason.clone().unwrap_or_default()))
    });
    let mut changes: Vec<_> = changes.collect();
    changes.sort_by_key(|(at, ..)| *at);
    let whole = DAYS * 86_400;
    let begin = now.as_second() - whole;
    let x = |at: Timestamp| (at.as_second().max(begin) - begin) * WIDTH / whole;
    let ends = changes.iter().skip(1).map(|(at, ..)| *at).chain([now]);
    let mut periods: Vec<Period> = changes
        .iter()
        .zip(ends)
        .enumerate()
        .filter(|(_, (_, end))| end.as_second() >= begin)
        .map(|(at, ((from, state, reason), end))| Period {
            state: (*state).to_owned(),
            begin: zone.to_datetime(*from).strftime("%Y-%m-%d %H:%M").to_string(),
            length: span(seconds_between(*from, end)),
            goes_on: at + 1 == changes.len(),
            reason: cut(reason, LONGEST_REASON).into_owned(),
            // A moment is seen, too.
            place: (x(*from), (x(end) - x(*from)).max(1)),
        })
        .collect();
    let left_out = periods.len().saturating_sub(MOST);
    periods.drain(..left_out);
    Periods { periods, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lasts_until_the_next_change() {
        let now: Timestamp = "2026-01-31T00:00:00Z".parse().unwrap();
        let event = |at: &str, kind: &str| {
            serde_json::from_value(serde_json::json!({"at": at, "kind": kind, "reason": kind})).unwrap()
        };
        let told: Vec<Event> = [
            event("2025-12-01T00:00:00Z", "opened"),
            event("2025-12-02T00:00:00Z", "closed"),
            event("2026-01-16T00:00:00Z", "opened"),
            event("2026-01-15T23:00:00Z", "unreachable"),
            event("2026-01-20T00:00:00Z", "started"),
            event("2027-01-01T00:00:00Z", "closed"),
            event("nonsense", "closed"),
        ]
        .into();
        let found = periods(&told, now, &TimeZone::UTC);
        let all: Vec<_> =
            found.periods.iter().map(|one| (one.state.as_str(), one.length.as_str(), one.place, one.goes_on)).collect();
        assert_eq!(
            all,
            [
                ("closed", "44 days", (0, 359), false),
                ("unreachable", "60 min", (359, 1), false),
                ("open", "15 days", (360, 360), true),
            ]
        );
        assert_eq!(periods(&[], now, &TimeZone::UTC).periods, []);
    }
}
