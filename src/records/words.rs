/// The first ten digits of a commit or another long identifier, for people.
pub fn short(commit: &str) -> &str {
    commit.char_indices().nth(10).and_then(|(end, _)| commit.get(..end)).unwrap_or(commit)
}

/// The command that reverts on the branch all that came after one commit, up to another one.
pub fn revert(after: &str, up_to: &str) -> String {
    format!("git revert {}..{}", short(after), short(up_to))
}

/// Seconds from one instant to a later one; 0 when the clock was set back meanwhile.
pub fn seconds_between(from: jiff::Timestamp, to: jiff::Timestamp) -> u64 {
    u64::try_from(to.as_second() - from.as_second()).unwrap_or(0)
}

/// How long ago an RFC 3339 instant was; the text itself where it is none.
pub fn ago(instant: &str, now: jiff::Timestamp) -> String {
    ended_ago(instant, 0, now)
}

/// How long ago a run ended that started at an RFC 3339 instant and took so many milliseconds; the instant's text where
/// it is none.
pub fn ended_ago(started: &str, duration_ms: u64, now: jiff::Timestamp) -> String {
    let duration = jiff::SignedDuration::from_millis(i64::try_from(duration_ms).unwrap_or(i64::MAX));
    let end = started.parse::<jiff::Timestamp>().and_then(|start| start.checked_add(duration));
    end.map_or_else(|_| started.to_owned(), |end| format!("{} ago", span(seconds_between(end, now))))
}

/// A number of seconds in the unit that a person would choose.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number of milliseconds in the unit that a person would choose.
pub fn milliseconds(duration: u64) -> String {
    if duration < 10_000 { format!("{duration} ms") } else { span(duration / 1000) }
}

/// A number of things, whose name takes an `s` where they are several.
pub fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ended_when_it_was_over() {
        let now: jiff::Timestamp = "2026-01-02T03:12:00Z".parse().unwrap();
        assert_eq!(ended_ago("2026-01-02T03:04:00Z", 360_000, now), "2 min ago");
        assert_eq!(ago("2026-01-02T03:04:00Z", now), "8 min ago");
        assert_eq!(ended_ago("yesterday", 1, now), "yesterday");
        assert_eq!((counted(1, "file"), counted(2, "file")), ("1 file".to_owned(), "2 files".to_owned()));
    }
}
