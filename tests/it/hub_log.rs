//! Shell scripts write the same log lines as the services, whatever bytes they have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::Host;
use serde_json::Value;

/// The line without its time, which is checked for its form.
fn timeless(output: &Output) -> String {
    let line = String::from_utf8(output.stdout.clone()).unwrap();
    let parsed: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let time = parsed["time"].as_str().unwrap();
    let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form, "0000-00-00T00:00:00.000Z");
    line.strip_prefix(&format!("{{\"time\":\"{time}\",")).unwrap().to_owned()
}

fn log(arguments: &[&str]) -> Output {
    Host::new().run("hub", &[&["log"], arguments].concat())
}

#[test]
fn lines_are_those_of_the_standard() {
    for (arguments, expected) in [
        (
            &["--service", "backup", "INFO", "finished", "files=120", "ok=true", "target=/mnt/a b"][..],
            r#""level":"INFO","service":"backup","msg":"finished","files":120,"ok":true,"target":"/mnt/a b"}"#,
        ),
        (
            &["--service", "backup", "warn", "odd", "a=007", "b=-0", "c=1.5", "d==x=", "e=", "f=null", "g=-5"],
            r#""level":"WARN","service":"backup","msg":"odd","a":"007","b":"-0","c":"1.5","d":"=x=","e":"","f":"null","g":-5}"#,
        ),
        (
            &["--service", "b", "error", "help", "--help=x", "-v=1", "text=\"quoted\" \\ \n\t\u{1b}[31m"],
            r#""level":"ERROR","service":"b","msg":"help","--help":"x","-v":1,"text":"\"quoted\" \\ \n\t\u001b[31m"}"#,
        ),
        (&["--service", "b", "--", "debug", "--help"], r#""level":"DEBUG","service":"b","msg":"--help"}"#),
    ] {
        let output = log(arguments);
        assert_eq!(timeless(&output), format!("{expected}\n"));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn what_is_no_line_is_refused_with_the_reason() {
    for (arguments, reason) in [
        (&["--service", "b", "loud", "x"][..], "\"loud\" is not a level; write debug, info, warn or error"),
        (&["--service", "b", "info"], "a line needs LEVEL and MSG"),
        (&["--service", "b", "info", "x", "novalue"], "\"novalue\" is not key=value"),
        (&["--service", "b", "info", "x", "=v"], "\"=v\" is not key=value"),
        (&["--service", "", "info", "x"], "--service has no name"),
        (&["--service", "b", "info", "x", "time=now"], "\"time\" is set by hub log itself"),
        (&["--service", "b", "info", "x", "level=DEBUG"], "\"level\" is set by hub log itself"),
        (&["--service", "b", "info", "x", "service=proxy"], "\"service\" is set by hub log itself"),
        (&["--service", "b", "info", "x", "msg=other"], "\"msg\" is set by hub log itself"),
        (&["info", "x"], "--service"),
    ] {
        let output = log(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(reason), "{arguments:?}: {said}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
    }
}

#[test]
fn long_and_binary_values_stay_one_valid_line() {
    let long = format!("error={}", "\u{1}é\"".repeat(20_000));
    let many: Vec<String> = (0..2000).map(|number| format!("field_{number}={number}")).collect();
    let mut line = vec!["log", "--service", "backup", "error", "failed", "repo=acme/infra", &long];
    line.extend(many.iter().map(String::as_str));
    for count in [7, line.len()] {
        let output = Host::new().run("hub", &line[..count]);
        assert!(output.stdout.len() < 4096, "{}", output.stdout.len());
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
        let parsed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(parsed["repo"], "acme/infra");
    }

    let mut command = Host::new().command("hub");
    command.args(["log", "--service"]).arg(OsStr::from_bytes(b"b\xff")).args(["info", "read"]);
    let output = command.arg(OsStr::from_bytes(b"file=/mnt/\xfe\x80.txt")).output().unwrap();
    assert_eq!(
        timeless(&output),
        "\"level\":\"INFO\",\"service\":\"b\u{fffd}\",\"msg\":\"read\",\"file\":\"/mnt/\u{fffd}\u{fffd}.txt\"}\n"
    );
}

/// Runs a script that reads contrib/hub.sh.
fn script(host: &Host, text: &str, hub: &str) -> Output {
    let file = host.path("nightly backup.sh");
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/hub.sh");
    std::fs::write(&file, format!("set -eu\n. '{}'\n{text}\n", library.display())).unwrap();
    let mut command = Command::new("sh");
    command.arg(&file).env("HUB_BIN", hub).env_remove("HUB_SERVICE").env_remove("JOURNAL_STREAM");
    command.output().unwrap()
}

#[test]
fn the_shell_library_writes_the_same_lines() {
    let host = Host::new();
    let hub = env!("CARGO_BIN_EXE_hub");
    for (text, expected) in [
        ("hub_info done files=3", r#""level":"INFO","service":"nightly backup.sh","msg":"done","files":3}"#),
        ("HUB_SERVICE=nas; hub_debug done", r#""level":"DEBUG","service":"nas","msg":"done"}"#),
        (
            "hub_warn 'two words' 'k=a b'",
            r#""level":"WARN","service":"nightly backup.sh","msg":"two words","k":"a b"}"#,
        ),
        ("hub_error --help", r#""level":"ERROR","service":"nightly backup.sh","msg":"--help"}"#),
        ("hub_log Info x a=", r#""level":"INFO","service":"nightly backup.sh","msg":"x","a":""}"#),
    ] {
        let output = script(&host, text, hub);
        assert_eq!(timeless(&output), format!("{expected}\n"));
        assert_eq!(output.status.code(), Some(0));
    }
    assert_eq!(script(&host, "hub_log loud x", hub).status.code(), Some(2));
}

#[test]
fn a_script_goes_on_without_the_hub() {
    let output = script(&Host::new(), "hub_error lost_disk disk=sda; echo went on", "/nonexistent/hub");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "went on\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("error lost_disk disk=sda") && said.contains("/nonexistent/hub is not installed"), "{said}");
}
