use std::fmt::Write;

use serde_json::{Map, Value};

use super::level::Level;
use crate::text;

/// The column in which a line begins to speak; the longest service is `system-metrics`.
const NAMES: usize = 15;
/// So much of a commit tells it apart, as git itself shows it.
const COMMIT: usize = 12;
/// What only programs ask for.
const FOR_PROGRAMS: [&str; 5] = ["alive", "duration_ms", "instance", "sockets_kept", "state_dir"];
/// Fields whose values say by themselves what they are.
const SENTENCES: [&str; 8] = ["child", "effect", "error", "note", "pipeline", "reason", "remedy", "repo"];

/// A line for people who watch `hub up` on a terminal: the time here, who speaks, what happened, then the fields. None for
/// the end of a run that went well, which has said so itself.
pub(super) fn format(
    now: jiff::civil::Time,
    service: &str,
    level: Level,
    msg: &str,
    fields: &Map<String, Value>,
) -> Option<String> {
    if level == Level::Info && msg == "run_ended" {
        return None;
    }
    let word = match level {
        Level::Debug | Level::Info => "",
        Level::Warn => "warning: ",
        Level::Error => "error: ",
    };
    let mut line = format!(
        "{}  {service:<NAMES$} {word}{}",
        format_args!("{:02}:{:02}:{:02}", now.hour(), now.minute(), now.second()),
        msg.replace('_', " ")
    );
    for (name, value) in fields.iter().filter(|(name, _)| !FOR_PROGRAMS.contains(&name.as_str())) {
        let name = if SENTENCES.contains(&name.as_str()) { String::new() } else { name.replace('_', " ") + " " };
        // Writing to a string cannot fail.
        let _ = write!(line, "; {name}{}", shown(value));
    }
    if let Some(milliseconds) = fields.get("duration_ms").and_then(Value::as_u64).filter(|time| *time >= 100) {
        let _ = write!(line, "; {}.{} s", milliseconds / 1000, milliseconds % 1000 / 100);
    }
    Some(text::sentence(&line))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            text[..COMMIT].to_owned()
        }
        Value::String(text) => text.clone(),
        Value::Bool(is_so) => if *is_so { "yes" } else { "no" }.to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, msg: &str, fields: Value) -> Option<String> {
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        format(jiff::civil::Time::midnight(), "gitops-sync", level, msg, &fields)
    }

    #[test]
    fn a_person_reads_what_happened_and_nothing_for_programs() {
        let fields = serde_json::json!({
            "repo": "acme/infra", "to": "1656b22d587e6f68188dfca7753d43c8e56c07eb", "pid": 7, "duration_ms": 1460
        });
        let said = line(Level::Info, "deployed", fields).unwrap();
        assert_eq!(said, "00:00:00  gitops-sync     deployed; acme/infra; to 1656b22d587e; pid 7; 1.4 s");
        let fields = serde_json::json!({"error": "two\nlines\u{1b}[2J", "units": ["a", "b"]});
        let said = line(Level::Error, "sync_failed", fields).unwrap();
        assert!(said.ends_with("error: sync failed; two | lines\\u{1b}[2J; units a, b"), "{said}");
        assert_eq!(line(Level::Info, "run_ended", serde_json::json!({})), None);
        assert!(line(Level::Warn, "run_ended", serde_json::json!({})).is_some());
    }
}
