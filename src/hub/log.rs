use serde_json::{Map, Value};

use super::Error;
use crate::log::{Level, write_as};

/// The fields that every line has; `hub log` sets them itself.
const STANDARD: [&str; 4] = ["time", "level", "service", "msg"];

/// Print one line of the logging standard: JSON, shorter than 4,096 bytes, for shell scripts. Integers and true/false
/// become JSON values, everything else strings.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "log",
    help_triggers("--help"),
    note = "LEVEL is debug, info, warn or error. contrib/hub.sh wraps this for scripts.",
    example = "hub log --service backup info finished files=120 target=/mnt/backup"
)]
pub(super) struct Arguments {
    /// the name of the service that the line is from
    #[argh(option, arg_name = "SERVICE")]
    service: String,
    /// the level, the name of the event and its fields
    #[argh(positional, greedy, arg_name = "LEVEL MSG key=value")]
    words: Vec<String>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let usage = |reason: String| Err(Error::Usage(format!("{reason}; see hub log --help")));
    if arguments.service.is_empty() {
        return usage("--service has no name".to_owned());
    }
    let [level, msg, fields @ ..] = arguments.words.as_slice() else {
        return usage("a line needs LEVEL and MSG".to_owned());
    };
    let Some(level) = Level::from_name(level) else {
        return usage(format!("{level:?} is not a level; write debug, info, warn or error"));
    };
    let mut object = Map::new();
    for field in fields {
        match field.split_once('=') {
            None | Some(("", _)) => return usage(format!("{field:?} is not key=value")),
            Some((key, _)) if STANDARD.contains(&key) => {
                return usage(format!("{key:?} is set by hub log itself; choose another key"));
            }
            Some((key, value)) => object.insert(key.to_owned(), json(value)),
        };
    }
    write_as(&arguments.service, level, msg, object);
    Ok(())
}

/// Integers in canonical form and booleans as such; what looks like a number but is a name (`007`, `1e3`) stays text.
fn json(text: &str) -> Value {
    match text {
        "true" => return true.into(),
        "false" => return false.into(),
        _ => {}
    }
    let signed = text.parse::<i64>().ok().map(|number| (number.to_string(), Value::from(number)));
    let unsigned = || text.parse::<u64>().ok().map(|number| (number.to_string(), Value::from(number)));
    match signed.or_else(unsigned) {
        Some((canonical, number)) if canonical == text => number,
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_and_booleans_are_json() {
        for text in ["0", "-1", "42", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "true"] {
            assert_eq!(json(text).to_string(), text);
            assert!(!json(text).is_string());
        }
        for text in ["", "-0", "+1", "007", "1.5", "1e3", "18446744073709551616", "True", "null", " 1", "0x10", "[1]"] {
            assert_eq!(json(text), Value::from(text));
        }
    }
}
