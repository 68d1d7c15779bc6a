//! A command that answers people in words and programs in JSON, asked for both.

use std::process::Output;

use serde_json::Value;

/// Runs it without arguments and with `--json`, which must end alike: the exit code, all that it told people, the JSON.
pub fn ask_twice(run: impl Fn(&[&str]) -> Output) -> (Option<i32>, String, Value) {
    let (people, programs) = (run(&[]), run(&["--json"]));
    let text = String::from_utf8(people.stdout).unwrap() + &String::from_utf8(people.stderr).unwrap();
    let json = serde_json::from_slice(&programs.stdout).unwrap_or_else(|error| panic!("{error}: {programs:?}"));
    assert_eq!(people.status.code(), programs.status.code(), "{text}{json:#}");
    (people.status.code(), text, json)
}
