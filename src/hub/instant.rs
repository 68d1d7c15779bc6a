use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

use super::Error;

/// What is said of a time that cannot be read.
const FORMS: &str = "write 30m, 12h, 2d, 4w or 1h30m for so long ago, 03:00, \"yesterday 22:10\", 2026-01-31, \
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
    let found = match text.strip_suffix(" UTC") {
        _ if text == "now" => Some(clock.now),
        Some(utc) => local(utc.trim_end(), &Clock { zone: TimeZone::UTC, ..*clock }),
        None => {
            text.parse().ok().or_else(|| seconds(text)).or_else(|| ago(text, clock.now)).or_else(|| local(text, clock))
        }
    };
    found.ok_or_else(|| Error::Usage(format!("{flag} {text:?} is no time; {FORMS}")))
}

/// `30m`, `12h`, `2d`, `4w`, `1h30m`, and as systemd takes them: `-1h`, `1 hour ago`. A day has 24 hours here.
fn ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let is_other = text.contains(':') || text.starts_with('+') || text.starts_with('-') && text.ends_with("ago");
    let span: Span = text.parse().ok().filter(|_| !is_other)?;
    let passed = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.abs();
    Some(now.saturating_sub(passed).unwrap_or(Timestamp::MIN))
}

/// Seconds since 1970, as `date +%s` prints them.
fn seconds(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(text.strip_prefix('@')?.parse().ok()?).ok()
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

/// `HH:MM`, `HH:MM:SS`, or with parts of a second.
fn time(text: &str) -> Option<Time> {
    // The library takes the time of a day with its date for one, too.
    if text.contains('.') && text.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte)) {
        return text.parse().ok().filter(|_| text.contains(':'));
    }
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
            ("90s", "2026-10-25T10:58:30Z"),
            ("1h30m", "2026-10-25T09:30:00Z"),
            ("-1h", "2026-10-25T10:00:00Z"),
            ("2d ago", "2026-10-23T11:00:00Z"),
            ("1 hour ago", "2026-10-25T10:00:00Z"),
            ("@1790000000", "2026-09-21T14:13:20Z"),
            ("now", "2026-10-25T11:00:00Z"),
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
            ("2026-01-31 03:00:00.5", "2026-01-31T02:00:00.5Z"),
            ("2026-01-31 03:00:00 UTC", "2026-01-31T03:00:00Z"),
            ("2026-01-31T03:00:00,123456789+01:00", "2026-01-31T02:00:00.123456789Z"),
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
        for text in [
            "",
            "d",
            "2",
            "2y",
            "99999999999999999d",
            "tomorrow",
            "ä",
            "24:00",
            "24:00:00",
            "1:2:3:4",
            "+3:00",
            "+3h",
            "-",
            "@",
            "@x",
            "-1d ago",
        ] {
            let error = instant("--since", text, &clock()).unwrap_err().to_string();
            assert!(error.contains("--since") && error.contains("yesterday 22:10"), "{text}: {error}");
        }
    }
}
