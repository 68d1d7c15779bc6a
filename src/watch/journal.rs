//! What the journal knows and no look can see: starts of the host, and units that failed between two looks.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::{self, Command};
use crate::log::{self, rfc3339};
use crate::records::history::{Event, Kind};
use crate::records::{FailedUnit, Look, counted};
use crate::systemd::is_own;
use crate::text;

/// The messages that are asked for (systemd's catalog): the host is up, a container is, or a user's own manager; and a unit
/// failed with a result.
const STARTED: [&str; 2] = ["b07a249cd024414a82dd00cd181378ff", "eed00a68ffd84e31882105fd973abdd1"];
const FAILED: &str = "d9b373ed55a64feb8242e02dbe79a49c";
/// The journal is read so often: opening all of its files costs more than the rest of a look.
const EVERY: SignedDuration = SignedDuration::from_mins(5);
const LIMIT: Duration = Duration::from_secs(10);
/// One unit's log is read so long: a look has other things to do.
const LOG_LIMIT: Duration = Duration::from_secs(2);
/// Of more entries the newest are read, and of more units the first told.
const MOST: usize = 1000;
const MOST_UNITS: usize = 50;
/// So many logs are read in one look.
const MOST_LOGS: usize = 3;
const SETTLED: SignedDuration = SignedDuration::from_secs(5);

/// How far the journal has been read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Journal {
    cursor: Option<String>,
    at: Option<Timestamp>,
}

impl Journal {
    /// What happened since the journal was read last; nothing where that was a moment ago and nothing `calls` for it.
    ///
    /// # Errors
    /// When journalctl is missing, or cannot read the journal.
    pub fn read(&mut self, now: Timestamp, calls: bool) -> Result<Vec<Event>, command::Error> {
        if !calls && self.at.is_some_and(|at| now.duration_since(at).abs() < EVERY) {
            return Ok(Vec::new());
        }
        self.at = Some(now);
        // It stays where journalctl fails: otherwise a week would be told again.
        let from = match &self.cursor {
            Some(cursor) => format!("--after-cursor={cursor}"),
            None => "--since=-7d".to_owned(),
        };
        let fields = "--output-fields=_PID,MESSAGE_ID,UNIT,UNIT_RESULT,KERNEL_USEC,INITRD_USEC,USERSPACE_USEC";
        let lines = format!("--lines={MOST}");
        let flags = ["--system", "--quiet", "--no-pager", "--output=json", fields, &from, &lines];
        let messages = STARTED.into_iter().chain([FAILED]).map(|message| format!("MESSAGE_ID={message}"));
        let output = Command::new("journalctl", LIMIT).args(flags).args(messages).output_limit(4 << 20).succeed()?;
        let (events, cursor) = events(&output.text());
        self.cursor = cursor.or_else(|| self.cursor.take());
        Ok(events)
    }
}

/// Finds out which units failed because there was no room on a disk, by what they said last. What is known of the look
/// before is not asked for again.
pub fn look_into_logs(look: &mut Look, before: Option<&Look>) {
    let at = before.and_then(|look| look.at.parse::<Timestamp>().ok());
    let before = before.and_then(Look::last_failed).map(|failed| failed.first.as_slice()).unwrap_or_default();
    // The journal has a unit's last words a moment after its end.
    let was_settled = |known: &FailedUnit| {
        let since = known.since.as_ref().and_then(|since| since.parse::<Timestamp>().ok());
        known.no_space == Some(true) || at.zip(since).is_none_or(|(at, since)| at.duration_since(since) > SETTLED)
    };
    let mut asked = 0;
    for one in look.failed.iter_mut().flat_map(|failed| &mut failed.first) {
        let known = before.iter().find(|known| (&known.unit, &known.since) == (&one.unit, &one.since));
        let known = known.filter(|known| was_settled(known));
        one.no_space = known.and_then(|known| known.no_space);
        if one.no_space.is_none() && asked < MOST_LOGS {
            asked += 1;
            // A log that could not be read says nothing, and is not asked at each look again.
            one.no_space = Some(no_space(&one.unit).unwrap_or(false));
        }
    }
}

fn no_space(unit: &str) -> Option<bool> {
    let flags = ["--quiet", "--no-pager", "--output=cat", "--lines=30", "--unit", unit];
    let said = Command::new("journalctl", LOG_LIMIT).args(flags).output_limit(1 << 20).succeed().inspect_err(|error| {
        log::warn!("log_not_read", unit = unit, error = error.to_string());
    });
    Some(text::is_full_disk(&said.ok()?.text()))
}

/// The events of journalctl's lines, in order, and the cursor of the last one.
fn events(text: &str) -> (Vec<Event>, Option<String>) {
    let mut cursor = None;
    let mut events = Vec::new();
    let mut failed: BTreeMap<(String, String), (usize, u64)> = BTreeMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let field = |name: &str| line[name].as_str();
        cursor = field("__CURSOR").map(str::to_owned).or(cursor);
        let Some(at) = field("__REALTIME_TIMESTAMP").and_then(|time| time.parse::<i64>().ok()) else { continue };
        if field("_PID") != Some("1") {
            continue;
        }
        if field("MESSAGE_ID").is_some_and(|message| STARTED.contains(&message)) {
            let took = |name: &str| field(name).and_then(|time| time.parse::<i64>().ok()).unwrap_or(0);
            let up = took("KERNEL_USEC") + took("INITRD_USEC") + took("USERSPACE_USEC");
            events.extend(event(Kind::Booted, "host", "up", at - up));
        } else if let Some(unit) = field("UNIT").filter(|unit| !is_own(unit)) {
            let result = field("UNIT_RESULT").unwrap_or_default().to_owned();
            // A unit that is restarted again and again is one thing that happened.
            let (place, times) = failed.entry((unit.to_owned(), result.clone())).or_insert((events.len(), 0));
            *times += 1;
            match events.get_mut(*place) {
                Some(known) => *known = again(known, *times),
                None => events.extend(event(Kind::UnitFailed, unit, &result, at)),
            }
        }
    }
    events.truncate(MOST_UNITS);
    (events, cursor)
}

/// At so many microseconds since 1970.
fn event(kind: Kind, about: &str, status: &str, at: i64) -> Option<Event> {
    let at = rfc3339(Timestamp::from_microsecond(at).ok()?);
    Some(Event { at, ..Event::new(kind, about, status) })
}

fn again(event: &Event, times: u64) -> Event {
    let reason = format!("{}, {} since", event.status, counted(times, "time"));
    event.clone().because(Some(reason)).with("times", times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, more: Value) -> String {
        let mut line = serde_json::json!({
            "__CURSOR": format!("s={number}"), "_PID": "1", "__REALTIME_TIMESTAMP": (1_700_000_000_000_000 + number).to_string()
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line.to_string() + "\n"
    }

    fn fails(number: u64, unit: &str) -> String {
        line(number, serde_json::json!({"MESSAGE_ID": FAILED, "UNIT": unit, "UNIT_RESULT": "exit-code"}))
    }

    #[test]
    fn starts_and_failed_units_are_told_once_each() {
        let boot = serde_json::json!({"MESSAGE_ID": STARTED[0], "KERNEL_USEC": "1000000", "USERSPACE_USEC": "2000000"});
        let user = serde_json::json!({"MESSAGE_ID": STARTED[1], "_PID": "700"});
        let text = [line(0, boot), line(0, user), fails(1, "a.service"), fails(2, "b.service"), fails(3, "a.service")]
            .concat();
        let hostile = line(4, serde_json::json!({"MESSAGE_ID": FAILED, "UNIT": [97, 255], "UNIT_RESULT": null}));
        let (events, cursor) = events(&format!("{text}{hostile}{}torn", fails(5, "proxy.service")));
        let told: Vec<(&str, &str, &str)> =
            events.iter().map(|event| (event.at.as_str(), event.kind.as_str(), event.about.as_str())).collect();
        assert_eq!(
            told,
            [
                ("2023-11-14T22:13:17.000Z", "booted", "host"),
                ("2023-11-14T22:13:20.000Z", "unit_failed", "a.service"),
                ("2023-11-14T22:13:20.000Z", "unit_failed", "b.service"),
            ]
        );
        assert_eq!(events[1].reason.as_deref(), Some("exit-code, 2 times since"));
        assert_eq!(cursor.as_deref(), Some("s=5"));
        assert_eq!(super::events("").1, None);
    }

    #[test]
    fn a_flood_is_cut() {
        let text: String = (0..MOST as u64).map(|number| fails(number, &format!("u{number}.service"))).collect();
        assert_eq!(events(&text).0.len(), MOST_UNITS);
    }
}
