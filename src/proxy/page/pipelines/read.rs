use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::proxy::page::database;
use crate::records::history;
use crate::text::cut;

/// Days that are shown.
pub const DAYS: usize = 30;
/// Pipelines beyond so many are not counted.
const MOST_PIPELINES: usize = 100;
/// Dead letters beyond so many are counted only, the newest stay.
const MOST_LETTERS: u32 = 20;
/// As much of a reason as is shown, in bytes.
const LONGEST_REASON: usize = 600;

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Whether there are dead letters to look for.
    pub has_letters: bool,
}

/// What pipelines did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pipelines {
    /// The days, the newest last.
    pub days: Vec<String>,
    /// The rows of each day, by pipeline.
    pub rows: BTreeMap<String, Vec<u64>>,
    /// Why there may have been more.
    pub unseen: Option<String>,
    /// The newest dead letters; else why they cannot be told.
    pub letters: Result<Vec<Letter>, String>,
}

/// A document that could not be stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Letter {
    pub id: i64,
    pub pipeline: String,
    pub source_id: String,
    pub reason: String,
    pub at: String,
}

/// Reads it. What cannot be read is a part of it.
///
/// # Errors
/// None; the type is that of all pages.
pub fn read(config: &Config, asked: &Asked) -> Result<Pipelines, String> {
    let zone = TimeZone::system();
    let today = zone.to_datetime(Timestamp::now()).date();
    let mut rows = BTreeMap::new();
    let (told, unseen) = match history::of(&config.state_dir, "reading") {
        Ok(told) => (told, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    for event in told.iter().filter(|event| event.kind == "moved") {
        let stored = event.more.get("counts").and_then(|counts| counts.get("stored")?.as_u64());
        let day = event.time().and_then(|at| place(zone.to_datetime(at).date(), today));
        let (Some(day), Some(stored)) = (day, stored) else { continue };
        if rows.len() < MOST_PIPELINES || rows.contains_key(&event.about) {
            let days: &mut Vec<u64> = rows.entry(event.about.clone()).or_insert_with(|| vec![0; DAYS]);
            days[day] = days[day].saturating_add(stored);
        }
    }
    let day = |ago: usize| today.checked_sub(i64::try_from(ago).unwrap_or(0).days()).unwrap_or(today);
    Ok(Pipelines {
        days: (0..DAYS).rev().map(|ago| day(ago).strftime("%a %-d %b").to_string()).collect(),
        rows,
        unseen,
        letters: if asked.has_letters { letters(config, &zone) } else { Ok(Vec::new()) },
    })
}

/// The place of a day, the newest last; none of one that is not shown, or lies ahead.
fn place(day: Date, today: Date) -> Option<usize> {
    let ago = usize::try_from(today.since(day).ok()?.get_days()).ok()?;
    (DAYS - 1).checked_sub(ago)
}

fn letters(config: &Config, zone: &TimeZone) -> Result<Vec<Letter>, String> {
    let found = database::open(config).and_then(|mut database| database.newest_dead_letters(MOST_LETTERS));
    let letter = |letter: crate::store::Noted| Letter {
        id: letter.id,
        pipeline: letter.pipeline,
        source_id: cut(&letter.source_id, LONGEST_REASON).into_owned(),
        reason: cut(&letter.reason, LONGEST_REASON).into_owned(),
        at: zone
            .to_datetime(Timestamp::from_millisecond(letter.last_failed).unwrap_or_default())
            .strftime("%Y-%m-%d %H:%M")
            .to_string(),
    };
    found.map(|found| found.into_iter().map(letter).collect()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let day = |text: &str| text.parse::<Date>().unwrap();
        let today = day("2026-03-30");
        for (other, expected) in [
            ("2026-03-30", Some(29)),
            ("2026-03-29", Some(28)),
            ("2026-03-01", Some(0)),
            ("2026-02-28", None),
            ("2026-03-31", None),
            ("-009999-01-01", None),
            ("9999-12-31", None),
        ] {
            assert_eq!(place(day(other), today), expected, "{other}");
        }
    }
}
