//! The text of a notice.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{Change, News};
use crate::health::Level;
use crate::records::{counted, seconds_between, span};
use crate::text;

/// ntfy makes a file of a text that is longer than 4096 bytes (docs.ntfy.sh, "Limitations"), Discord takes 2000 characters.
const LONGEST: usize = 1800;
/// A line on the screen of a phone.
const LONGEST_TITLE: usize = 120;
/// Of a reason, while a notice waits: a hundred of twenty events each may, for each way.
const LONGEST_WAITING: usize = 300;

/// One message to people, about one or several reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same however often it is sent.
    pub id: String,
    /// When it was made.
    pub at: Timestamp,
    /// This host's name.
    pub host: String,
    /// How bad it is; healthy where it tells only of what is gone.
    pub level: Level,
    /// In one line.
    pub title: String,
    /// What, since when, why, and what mends it.
    pub text: String,
    /// What it tells, for programs.
    pub events: Vec<News>,
}

impl Notice {
    /// The message that tells these events; `more` were too many to be kept.
    ///
    /// # Errors
    /// When the system has no random bytes for the id.
    pub fn new(host: &str, mut events: Vec<News>, more: u64, now: Timestamp, zone: &TimeZone) -> std::io::Result<Self> {
        let is_there = |event: &&News| !matches!(event.kind, Change::Cleared | Change::Passed | Change::Deployed);
        let level = events.iter().filter(is_there).map(|event| event.level).max().unwrap_or(Level::Healthy);
        let there = events.iter().filter(is_there).count();
        let title = match events.as_slice() {
            [event] if more == 0 => format!("{host}: {} {}", event.about, word(event)),
            _ => {
                let problems = (there > 0).then(|| counted(there as u64 + more, "problem"));
                let deployed = events.iter().filter(|event| event.kind == Change::Deployed).count();
                let gone = events.len() - there - deployed;
                let gone = (gone > 0).then(|| format!("{gone} gone"));
                let deployed = (deployed > 0).then(|| format!("{deployed} deployed"));
                let all: Vec<String> = problems.into_iter().chain(gone).chain(deployed).collect();
                format!("{host}: {}", all.join(", "))
            }
        };
        let mut sorted: Vec<&News> = events.iter().collect();
        sorted.sort_by_key(|event| (!is_there(event), std::cmp::Reverse(event.level)));
        let (mut text, mut left) = (String::new(), more);
        for (number, event) in sorted.iter().enumerate() {
            let part = paragraph(event, now, zone);
            if text.len() + part.len() > LONGEST {
                left += (sorted.len() - number) as u64;
                break;
            }
            text.push_str(&part);
        }
        if left > 0 {
            text.push_str(&format!("and {left} more; run: hub status"));
        }
        // Lists in records are of so many everywhere; the text has counted the others.
        events.truncate(text::FIRST);
        for event in &mut events {
            event.reason = text::cut(&event.reason, LONGEST_WAITING).into_owned();
        }
        Ok(Self {
            id: format!("msg_{}", crate::random::id()?),
            at: now,
            host: host.to_owned(),
            level,
            title: text::cut(&text::shown(&title), LONGEST_TITLE).into_owned(),
            text: text.trim_end().to_owned(),
            events,
        })
    }
}

/// What became of a reason, in a word.
fn word(event: &News) -> &'static str {
    match event.kind {
        Change::Cleared => "is well again",
        Change::Passed => "was not well",
        Change::Deployed => "deployed",
        _ if event.level == Level::Failed => "failed",
        _ => "needs a look",
    }
}

fn paragraph(event: &News, now: Timestamp, zone: &TimeZone) -> String {
    let time = |at: Timestamp| at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
    let lasted = |until: Timestamp| span(seconds_between(event.since, until));
    let when = match event.kind {
        Change::Cleared | Change::Passed => {
            format!("from {} for {}, until {}", time(event.since), lasted(event.at), time(event.at))
        }
        Change::Still => format!("since {}, for {}", time(event.since), lasted(now)),
        Change::Raised | Change::Worse => format!("since {}", time(event.since)),
        Change::Deployed => format!("at {}", time(event.since)),
    };
    // The reason is what was wrong: on a phone it must not read as if it still were.
    let was = if matches!(event.kind, Change::Cleared) { "; it was" } else { "" };
    let mut lines = vec![format!("{} {}{was}: {}", event.about, word(event), event.reason), when];
    if let Some(mend) = event.mend.as_ref().filter(|_| !matches!(event.kind, Change::Cleared | Change::Passed)) {
        lines.push(text::cut(mend, LONGEST / 4).into_owned());
    }
    let lines: Vec<String> = lines.iter().map(|line| text::shown(line).into_owned()).collect();
    lines.join("\n") + "\n\n"
}
