//! The logging standard: one JSON object a line on stdout, shorter than 4,096 bytes.
//!
//! journald and `journalctl -o json` keep such a line whole; a longer one would be shown as null. Only `hub up` on a
//! terminal, and what it starts, write short lines for people instead.

mod level;
mod short;

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

pub use self::level::Level;
use crate::text;

/// A line, its priority prefix and its newline stay below this many bytes (`journalctl -o json` without `--all`).
const LINE_LIMIT: usize = 4096;

static SERVICE: OnceLock<String> = OnceLock::new();
static TO_STDERR: AtomicBool = AtomicBool::new(false);
static SHORT: AtomicBool = AtomicBool::new(false);

/// Tells what `hub up` starts that a person reads its lines: `short` in this variable.
pub const LINES: &str = "HUB_LINES";

/// Names the service whose lines this process writes; the first call wins.
pub fn start(service: &str) {
    SERVICE.get_or_init(|| service.to_owned());
}

/// Sends this process's lines to stderr, because its stdout carries a result for a person or a script.
pub fn to_stderr() {
    TO_STDERR.store(true, Ordering::Relaxed);
}

/// Writes this process's lines for the person at the terminal.
pub fn for_people() {
    SHORT.store(true, Ordering::Relaxed);
}

/// True where the person at the terminal reads this process's lines. A pipe gets JSON, whatever was asked for.
pub fn is_for_people() -> bool {
    let is_asked = || SHORT.load(Ordering::Relaxed) || std::env::var_os(LINES).is_some_and(|value| value == "short");
    let is_terminal = || {
        if TO_STDERR.load(Ordering::Relaxed) {
            std::io::stderr().is_terminal()
        } else {
            std::io::stdout().is_terminal()
        }
    };
    is_asked() && is_terminal()
}

/// The RFC 3339 form of an instant: UTC, milliseconds.
pub fn rfc3339(instant: jiff::Timestamp) -> String {
    format!("{instant:.3}")
}

/// The present, as `rfc3339` writes it.
pub fn now() -> String {
    rfc3339(jiff::Timestamp::now())
}

/// Writes one line for this process's service.
///
/// `msg` is a snake_case event name, `fields` are the event's own; use the `info!`, `warn!` and `error!` macros of
/// this module.
pub fn write(level: Level, msg: &str, fields: Map<String, Value>) {
    let service = SERVICE.get().map_or("hub", String::as_str);
    write_as(service, level, msg, fields);
}

/// Writes one line for any service (`hub log --service NAME`).
pub fn write_as(service: &str, level: Level, msg: &str, fields: Map<String, Value>) {
    let stderr = TO_STDERR.load(Ordering::Relaxed);
    let prefix = if is_journal(stderr) { format!("<{}>", level.priority()) } else { String::new() };
    let mut line = prefix.clone();
    if is_for_people() {
        let Some(said) = short::format(
            jiff::tz::TimeZone::system().to_datetime(jiff::Timestamp::now()).time(),
            service,
            level,
            msg,
            &fields,
        ) else {
            return;
        };
        line.push_str(&said);
    } else {
        line.push_str(&format_line(jiff::Timestamp::now(), service, level, msg, fields, LINE_LIMIT - prefix.len() - 1));
    }
    line.push('\n');
    // One write a line keeps lines of several threads and processes whole. Where the stream is gone there is no other
    // place left to report that to.
    let mut stream: Box<dyn Write> =
        if stderr { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout().lock()) };
    let _ = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
}

/// Formats one line without its newline, at most `limit` bytes long.
///
/// Values that do not fit are cut and end with `… (cut, N bytes)`; what still does not fit is left out and counted in
/// `fields_left_out`.
fn format_line(
    time: jiff::Timestamp,
    service: &str,
    level: Level,
    msg: &str,
    fields: Map<String, Value>,
    limit: usize,
) -> String {
    let mut object = Map::new();
    object.insert("time".into(), rfc3339(time).into());
    object.insert("level".into(), level.name().into());
    object.insert("service".into(), cut(service, 64).into());
    object.insert("msg".into(), cut(msg, 256).into());
    let fixed = object.len();
    for (name, value) in fields {
        if !object.contains_key(&name) {
            object.insert(name, value);
        }
    }
    let mut value_limit = limit / 2;
    loop {
        let line = text::json(&object, false);
        if line.len() <= limit {
            return line;
        }
        if value_limit >= 32 {
            for value in object.values_mut().skip(fixed) {
                shorten(value, value_limit);
            }
            value_limit /= 2;
        } else {
            let names: Vec<String> = object.keys().skip(fixed).cloned().collect();
            let keep = names.iter().filter(|name| *name != "fields_left_out").count() / 2;
            let left_out = object.get("fields_left_out").and_then(Value::as_u64).unwrap_or(0);
            let mut dropped = 0u64;
            for name in names.iter().filter(|name| *name != "fields_left_out").skip(keep) {
                object.remove(name);
                dropped += 1;
            }
            object.insert("fields_left_out".into(), (left_out + dropped).into());
        }
    }
}

fn shorten(value: &mut Value, limit: usize) {
    let length = value.to_string().len();
    if length <= limit {
        return;
    }
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    *value = Value::String(cut(&text, limit));
}

/// The beginning of `text` such that its JSON form, control characters escaped, takes about `limit` bytes.
fn cut(text: &str, limit: usize) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' || text::is_hidden(c) => 6 * c.len_utf16(),
        c => c.len_utf8(),
    };
    if text.chars().map(escaped).sum::<usize>() <= limit {
        return text.to_owned();
    }
    let note = format!("… (cut, {} bytes)", text.len());
    let mut room = limit.saturating_sub(note.len());
    let mut kept = String::new();
    for c in text.chars() {
        match room.checked_sub(escaped(c)) {
            Some(rest) => room = rest,
            None => break,
        }
        kept.push(c);
    }
    kept + &note
}

/// True where lines go to the journal: `$JOURNAL_STREAM` names the device and inode of the stream (systemd.exec(5)).
fn is_journal(stderr: bool) -> bool {
    static ANSWERS: [OnceLock<bool>; 2] = [OnceLock::new(), OnceLock::new()];
    *ANSWERS[usize::from(stderr)].get_or_init(|| {
        let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
        let stat = if stderr { rustix::fs::fstat(std::io::stderr()) } else { rustix::fs::fstat(std::io::stdout()) };
        stat.is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
    })
}

/// Builds the fields of a line and writes it; the level macros call this.
#[macro_export]
#[doc(hidden)]
macro_rules! log_line {
    ($level:expr, $msg:expr $(, $name:ident = $value:expr)* $(,)?) => {{
        #[allow(unused_mut)]
        let mut fields = serde_json::Map::new();
        $( fields.insert(stringify!($name).to_owned(), serde_json::json!($value)); )*
        // A field without a value says nothing.
        fields.retain(|_, value| !value.is_null());
        $crate::log::write($level, $msg, fields);
    }};
}

/// `info!("event_name", field = value, …)`: the normal course of things.
#[macro_export]
#[doc(hidden)]
macro_rules! log_info { ($($all:tt)*) => { $crate::log_line!($crate::log::Level::Info, $($all)*) }; }
/// `warn!("event_name", field = value, …)`: something to look at, the work goes on.
#[macro_export]
#[doc(hidden)]
macro_rules! log_warn { ($($all:tt)*) => { $crate::log_line!($crate::log::Level::Warn, $($all)*) }; }
/// `error!("event_name", field = value, …)`: work was not done.
#[macro_export]
#[doc(hidden)]
macro_rules! log_error { ($($all:tt)*) => { $crate::log_line!($crate::log::Level::Error, $($all)*) }; }

pub use crate::text::printable;
pub use crate::{log_error as error, log_info as info, log_line as line, log_warn as warn};

#[cfg(test)]
mod tests {
    use super::*;

    fn line(msg: &str, fields: Value) -> String {
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        format_line(jiff::Timestamp::UNIX_EPOCH, "proxy", Level::Info, msg, fields, LINE_LIMIT - 1)
    }

    #[test]
    fn a_line_has_the_four_standard_fields_first() {
        assert_eq!(
            line("started", serde_json::json!({"port": 8085})),
            r#"{"time":"1970-01-01T00:00:00.000Z","level":"INFO","service":"proxy","msg":"started","port":8085}"#
        );
    }

    #[test]
    fn long_values_are_cut_and_say_so() {
        for value in ["x".repeat(100_000), "\u{1}".repeat(50_000), "é\"\\".repeat(30_000)] {
            let line = line("big", serde_json::json!({"repo": "acme/infra", "error": value}));
            assert!(line.len() < LINE_LIMIT, "{}", line.len());
            let parsed: Value = serde_json::from_str(&line).unwrap();
            assert!(parsed["error"].as_str().unwrap().contains("(cut, "), "{line}");
            assert_eq!(parsed["repo"], "acme/infra");
        }
    }

    #[test]
    fn too_many_fields_are_left_out_and_counted() {
        let fields: Map<String, Value> = (0..2000).map(|i| (format!("field_{i}"), i.into())).collect();
        let line = line("many", Value::Object(fields));
        assert!(line.len() < LINE_LIMIT);
        let parsed: Value = serde_json::from_str(&line).unwrap();
        let kept = parsed.as_object().unwrap().len() as u64 - 5;
        assert_eq!(parsed["fields_left_out"].as_u64().unwrap() + kept, 2000);
    }

    #[test]
    fn fields_cannot_replace_the_standard_ones() {
        let line = line("real", serde_json::json!({"msg": "forged", "level": "DEBUG"}));
        assert!(line.contains(r#""level":"INFO","service":"proxy","msg":"real""#));
    }
}
