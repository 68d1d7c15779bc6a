use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Error;

/// What is said of a time that cannot be read.
const FORMS: &str = "write 30m, 12h, 2d or 4w for so long ago, 03:00, \"yesterday 22:10\", 2026-01-31, \
                     \"2026-01-31 03:00\", or an instant such as 2026-01-31T12:00:00Z";

/// When and where a person asks.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub now: Timestamp,
    pub zone: TimeZone,
}

impl Clock {
    /// Those of this process.
    pub fn here() -> Self {
        Self { now: Timestamp::now(), zone: TimeZone::system() }
    }
}

/// The instant that a person means, as the value of `flag`. A time of the day without a day is the last one that was; what
/// has no time zone is in that of the clock.
///
/// # Errors
/// When it is no time.
pub(super) fn instant(flag: &str, text: &str, clock: &Clock) -> Result<Timestamp, Error> {
    let text = text.trim();
    let found = text.parse().ok().or_else(|| ago(text, clock.now)).or_else(|| local(text, clock));
    found.ok_or_else(|| Error::Usage(format!("{flag} {text:?} is no time; {FORMS}")))
}

/// `30m`, `12h`, `2d`, `4w`: so long ago.
fn ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let minutes = match text.chars().last()? {
        'm' => 1,
        'h' => 60,
        'd' => 24 * 60,
        'w' => 7 * 24 * 60,
        _ => return None,
    };
    let number: i64 = text[..text.len() - 1].parse().ok()?;
    let minutes = number.checked_mul(minutes).filter(|minutes| (0..1 << 30).contains(minutes))?;
    Some(now.saturating_sub(SignedDuration::from_mins(minutes)).unwrap_or(Timestamp::MIN))
}

/// A day, a time of it, or both.
fn local(text: &str, clock: &Clock) -> Option<Timestamp> {
    let today = clock.zone.to_datetime(clock.now).date();
    let there = |day: Date, time: Time| clock.zone.to_timestamp(day.to_datetime(time)).ok();
    if let Some(time) = time(text) {
        return there(today, time).filter(|time| *time <= clock.now).or_else(|| there(today.yesterday().ok()?, time));
    }
    let (day, rest) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    let day = match day {
        "today" => today,
        "yesterday" => today.yesterday().ok()?,
        day => day.parse().ok()?,
    };
    there(day, time(rest.trim())?)
}

/// `HH:MM` or `HH:MM:SS`.
fn time(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| {
        let is_number = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<i8>().ok().filter(|_| is_number)
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() { None } else { Time::new(hour, minute, second, 0).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        Clock { now: "2026-10-25T12:00:00+01:00".parse().unwrap(), zone }
    }

    #[test]
    fn people_write_times_in_many_ways() {
        for (text, expected) in [
            ("30m", "2026-10-25T10:30:00Z"),
            ("12h", "2026-10-24T23:00:00Z"),
            ("2d", "2026-10-23T11:00:00Z"),
            ("4w", "2026-09-27T11:00:00Z"),
            ("2026-01-30T12:00:00+01:00", "2026-01-30T11:00:00Z"),
            ("03:30", "2026-10-25T02:30:00Z"),
            ("12:00", "2026-10-25T11:00:00Z"),
            ("12:01", "2026-10-24T10:01:00Z"),
            ("3:05:07", "2026-10-25T02:05:07Z"),
            ("yesterday 22:10", "2026-10-24T20:10:00Z"),
            ("yesterday", "2026-10-23T22:00:00Z"),
            ("today 00:30", "2026-10-24T22:30:00Z"),
            ("2026-01-31", "2026-01-30T23:00:00Z"),
            ("2026-01-31 03:00", "2026-01-31T02:00:00Z"),
            ("2026-01-31T03:00", "2026-01-31T02:00:00Z"),
            // The hour that comes twice is the first one, the one that is left out begins an hour later.
            ("2026-10-25 02:30", "2026-10-25T00:30:00Z"),
            ("2026-03-29 02:30", "2026-03-29T01:30:00Z"),
        ] {
            let found = instant("--at", text, &clock());
            assert_eq!(found.map_err(|error| error.to_string()), Ok(expected.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "d", "2", "2y", "-1d", "2 d", "99999999999999999d", "tomorrow", "ä", "24:00", "1:2:3:4", "+3:00"]
        {
            let error = instant("--since", text, &clock()).unwrap_err().to_string();
            assert!(error.contains("--since") && error.contains("yesterday 22:10"), "{text}: {error}");
        }
    }
}
