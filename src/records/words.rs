/// The first characters of a commit, as git shows it.
pub fn short(commit: &str) -> &str {
    commit.char_indices().nth(10).and_then(|(end, _)| commit.get(..end)).unwrap_or(commit)
}

/// Seconds from one instant to a later one; 0 when the clock was set back meanwhile.
pub fn seconds_between(from: jiff::Timestamp, to: jiff::Timestamp) -> u64 {
    u64::try_from(to.as_second() - from.as_second()).unwrap_or(0)
}

/// How long ago an RFC 3339 instant was; the text itself where it is none.
pub fn ago(instant: &str, now: jiff::Timestamp) -> String {
    instant.parse().map_or_else(|_| instant.to_owned(), |then| format!("{} ago", span(seconds_between(then, now))))
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
