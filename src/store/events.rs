use super::batch::nuls;
use crate::text;

/// The table of what happened, beside the metrics.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const EVENTS_TABLE: &str = "hub_events";

/// How long a word of the key may be, and what an event is about, in bytes: an index takes no more than 2,704 of a row
/// (PostgreSQL manual, "11.2.1. B-Tree").
const LONGEST_WORD: usize = 100;
const LONGEST_ABOUT: usize = 1000;

/// One row of `hub_events`.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// When it happened; stored in milliseconds, what is finer is cut off.
    pub time: jiff::Timestamp,
    /// The host's name.
    pub host: String,
    /// The service whose history has it.
    pub service: String,
    /// What happened, in one word.
    pub kind: String,
    /// To what.
    pub about: String,
    /// How it is now, in one word.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// The kind's own fields.
    pub payload: serde_json::Value,
}

/// What became of events that went with metrics. Metrics are stored whatever is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipped {
    /// Those that were not there before, by their place.
    pub new: Vec<usize>,
    /// Those that the database refuses for what is in them: the place, and why.
    pub refused: Vec<(usize, String)>,
    /// Why no others are stored.
    pub unusable: Option<String>,
    /// True where the database said so, and not a look at the table, which may be taken each minute.
    pub is_refused: bool,
}

/// Events as columns. What no database can store is replaced: an event is for showing.
#[cfg_attr(not(any(feature = "postgres", feature = "sqlite")), expect(dead_code, reason = "no engine reads it"))]
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    /// Milliseconds since 1970.
    pub times: Vec<i64>,
    pub hosts: Vec<String>,
    pub services: Vec<String>,
    pub kinds: Vec<String>,
    pub abouts: Vec<String>,
    pub statuses: Vec<String>,
    pub reasons: Vec<Option<String>>,
    /// JSON texts.
    pub payloads: Vec<String>,
}

impl Events {
    pub(super) fn new(rows: &[EventRow]) -> Self {
        let words = |field: fn(&EventRow) -> &String, longest| -> Vec<String> {
            rows.iter().map(|row| storable(text::cut(field(row), longest).into_owned())).collect()
        };
        Self {
            times: rows.iter().map(|row| row.time.as_millisecond()).collect(),
            hosts: words(|row| &row.host, LONGEST_WORD),
            services: words(|row| &row.service, LONGEST_WORD),
            kinds: words(|row| &row.kind, LONGEST_WORD),
            abouts: words(|row| &row.about, LONGEST_ABOUT),
            statuses: words(|row| &row.status, LONGEST_WORD),
            reasons: rows.iter().map(|row| row.reason.clone().map(storable)).collect(),
            payloads: rows.iter().map(|row| without_nul(row.payload.to_string())).collect(),
        }
    }
}

/// PostgreSQL has no NUL character in a text ("8.3. Character Types").
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

fn without_nul(mut json: String) -> String {
    let found: Vec<usize> = nuls(&json).collect();
    for at in found {
        json.replace_range(at..at + 6, "\\ufffd");
    }
    json
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_stored_is_replaced_and_what_is_too_long_is_cut() {
        let row = EventRow {
            time: jiff::Timestamp::UNIX_EPOCH,
            host: "h".into(),
            service: "s\0".into(),
            kind: "k".repeat(9000),
            about: "ä".repeat(9000),
            status: String::new(),
            reason: Some("\0".into()),
            payload: json!({"\0a\0": ["\\u0000", "\0\0", "\\\0"]}),
        };
        let events = Events::new(&[row]);
        assert_eq!((events.services[0].as_str(), events.reasons[0].as_deref()), ("s\u{fffd}", Some("\u{fffd}")));
        assert!(events.kinds[0].len() < 200 && events.abouts[0].len() < 1100);
        let payload: serde_json::Value = serde_json::from_str(&events.payloads[0]).unwrap();
        assert_eq!(payload, json!({"\u{fffd}a\u{fffd}": ["\\u0000", "\u{fffd}\u{fffd}", "\\\u{fffd}"]}));
    }
}
