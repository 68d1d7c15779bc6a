//! For how long failed runs are tried again: systemd starts the program anew minutes after a failure, without end; the
//! program itself sees when the first of them failed, and says that this was the last.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::run::folder;
use crate::program::Exit;
use crate::{log, state};

/// From the first failure on, the timer's run, tries go on for so long.
const TRIES: Duration = Duration::from_secs(6 * 3600);
/// After a longer pause than this it is another series: `RestartSec=` of the unit is five minutes, and a run that failed
/// may have waited for both sides.
const PAUSE: Duration = Duration::from_secs(30 * 60);

const FILE: &str = "tries.json";

/// What a run of the unit ends with, which began at `started`: a failure after six hours of them is `Busy`, which the unit
/// does not start again after. Of a run by hand nothing is kept.
pub(super) fn end(state_dir: &Path, started: Timestamp, exit: Exit) -> Exit {
    if std::env::var_os("INVOCATION_ID").is_none() || !matches!(exit, Exit::Done | Exit::Error) {
        return exit;
    }
    match count(state_dir, started, exit) {
        Ok(exit) => exit,
        Err(error) => {
            log::warn!("tries_not_kept", error = error.to_string());
            exit
        }
    }
}

fn count(state_dir: &Path, started: Timestamp, exit: Exit) -> Result<Exit, state::Error> {
    let folder = folder(state_dir)?;
    if exit == Exit::Done {
        folder.forget(FILE.as_ref())?;
        return Ok(exit);
    }
    let before: Option<Value> = folder.read(FILE, 4096)?.and_then(|text| serde_json::from_slice(&text).ok());
    let time = |key: &str| before.as_ref()?[key].as_str()?.parse::<Timestamp>().ok();
    let is_within = |from: Timestamp, to: Timestamp, limit: Duration| {
        Duration::try_from(to.duration_since(from)).is_ok_and(|age| age <= limit)
    };
    let series = time("since").filter(|_| time("last").is_some_and(|last| is_within(last, started, PAUSE)));
    let (since, now) = (series.unwrap_or(started), Timestamp::now());
    if !is_within(since, now, TRIES) {
        folder.forget(FILE.as_ref())?;
        let note = "it is tried again when its timer elapses, or by: systemctl restart reading-sync";
        log::error!("given_up", since = log::rfc3339(since), note = note);
        return Ok(Exit::Busy);
    }
    let tries = json!({ "since": log::rfc3339(since), "last": log::rfc3339(now) });
    folder.replace(FILE, tries.to_string().as_bytes(), 0o640)?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    /// A series of tries that a run of now belongs to: when its first failed, and its last.
    fn tries(state: &Path) -> Option<(Timestamp, Timestamp)> {
        let text = std::fs::read(state.join("reading").join(FILE)).ok()?;
        let tries: Value = serde_json::from_slice(&text).unwrap();
        let time = |key: &str| tries[key].as_str().unwrap().parse().unwrap();
        Some((time("since"), time("last")))
    }

    fn ago(minutes: i64) -> Timestamp {
        // Times are kept to the millisecond.
        Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap() - minutes.minutes()
    }

    #[test]
    fn failures_are_tried_again_for_six_hours_from_the_first_on() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |since: Timestamp, last: Timestamp| {
            let text = json!({ "since": log::rfc3339(since), "last": log::rfc3339(last) }).to_string();
            std::fs::write(dir.path().join("reading").join(FILE), text).unwrap();
        };
        let fail = |started| count(dir.path(), started, Exit::Error).unwrap();
        let first = ago(2);
        assert_eq!(fail(first), Exit::Error);
        assert_eq!(tries(dir.path()).unwrap().0, first);
        // Every further one counts from the first, however long a run took.
        keep(ago(300), ago(29));
        let since = tries(dir.path()).unwrap().0;
        assert_eq!(fail(ago(20)), Exit::Error);
        let (kept, last) = tries(dir.path()).unwrap();
        assert_eq!((kept, last > ago(1)), (since, true));
        // The one that ends after six hours is the last, and the next begins anew.
        keep(ago(361), ago(10));
        assert_eq!((fail(ago(5)), tries(dir.path())), (Exit::Busy, None));
        assert_eq!((fail(ago(0)), tries(dir.path()).is_some()), (Exit::Error, true));
    }

    #[test]
    fn another_day_a_success_a_changed_clock_and_a_damaged_file_begin_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reading").join(FILE);
        let started = ago(1);
        assert_eq!(count(dir.path(), started, Exit::Done).unwrap(), Exit::Done);
        let time = |minutes| log::rfc3339(ago(minutes));
        for text in [
            json!({ "since": time(24 * 60), "last": time(18 * 60) }).to_string(),
            json!({ "since": time(-120), "last": time(-60) }).to_string(),
            json!({ "since": 5, "last": time(5) }).to_string(),
            "{\"since\":".to_owned(),
            String::new(),
        ] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(count(dir.path(), started, Exit::Error).unwrap(), Exit::Error, "{text}");
            assert_eq!(tries(dir.path()).unwrap().0, started, "{text}");
        }
        assert_eq!(count(dir.path(), started, Exit::Done).unwrap(), Exit::Done);
        assert!(!path.exists());
    }
}
