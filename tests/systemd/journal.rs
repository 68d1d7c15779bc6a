//! What units said in the journal, held against the logging standard. What they should have said is a test's business.
#![allow(clippy::print_stderr, reason = "what a unit said is worth a line")]

use serde_json::Value;

use crate::gitops::STARTING;
use crate::machine::Machine;

/// The lines that a unit's processes logged, of all boots, oldest first, each of them checked: one JSON object with
/// `service`, `level` and `msg`, and the level as the priority of the journal entry.
#[track_caller]
pub fn lines(machine: &Machine, unit: &str) -> Vec<Value> {
    lines_of(machine, unit, false)
}

#[track_caller]
fn lines_of(machine: &Machine, unit: &str, last_start_only: bool) -> Vec<Value> {
    let mut lines = Vec::new();
    for entry in machine.journal(unit) {
        if last_start_only && entry["MESSAGE_ID"] == STARTING && entry["UNIT"] == unit {
            lines.clear();
        }
        let Some(message) = entry["MESSAGE"].as_str().filter(|_| entry["_SYSTEMD_UNIT"] == unit) else { continue };
        let line: Value = serde_json::from_str(message).unwrap_or_else(|_| panic!("{unit}: {message}"));
        let priority = match line["level"].as_str() {
            Some("DEBUG") => "7",
            Some("INFO") => "6",
            Some("WARN") => "4",
            Some("ERROR") => "3",
            other => panic!("{unit}: level {other:?}: {message}"),
        };
        assert_eq!(entry["PRIORITY"], priority, "{message}");
        assert!(line["service"].is_string() && line["msg"].is_string(), "{message}");
        lines.push(line);
    }
    lines
}

/// The line of a unit's last start that complains of `cause`, as an error or a warning.
#[track_caller]
pub fn complaint(machine: &Machine, unit: &str, cause: &str) -> Option<Value> {
    lines_of(machine, unit, true).into_iter().rfind(|line| {
        let texts = [&line["error"], &line["reason"]];
        matches!(line["level"].as_str(), Some("ERROR" | "WARN"))
            && texts.iter().any(|text| text.as_str().is_some_and(|text| text.contains(cause)))
    })
}

/// Fails when the last start of a unit does not complain of `cause`.
#[track_caller]
pub fn complains(machine: &Machine, unit: &str, cause: &str) {
    match complaint(machine, unit, cause) {
        Some(line) => eprintln!("{unit}: {line}"),
        None => panic!("{unit} does not complain of {cause}: {:#?}", lines(machine, unit)),
    }
}

/// What shows when the sandbox denies a system call or a capability, in a service or in a child of it.
const DENIED: [&str; 6] =
    ["SIGSYS", "status=31", "signal: 31", "signal 31", "Bad system call", "Operation not permitted"];

/// Fails when a sandbox denied anything to these units since the boot.
#[track_caller]
pub fn nothing_denied(machine: &Machine, units: &[&str]) {
    machine.ok(&["journalctl", "--sync"]);
    let mut argv = vec!["journalctl", "--no-pager", "-b", "-o", "cat"];
    argv.extend(units.iter().flat_map(|unit| ["-u", unit]));
    let said = machine.ok(&argv);
    assert!(!said.is_empty(), "{units:?} said nothing");
    for sign in DENIED {
        let line = said.lines().find(|line| line.contains(sign));
        assert!(line.is_none(), "{sign}: {line:?}");
    }
}

/// Starts a oneshot that must fail, and returns its exit status.
#[track_caller]
pub fn fails(machine: &Machine, unit: &str) -> String {
    // Not `start`, which waits where a unit is about to be tried again.
    let started = machine.run(&["systemctl", "restart", unit]);
    assert!(!started.status.success(), "{unit} succeeds");
    let state = crate::gitops::show(machine, unit, "ActiveState");
    // reading-sync is tried again after a while.
    let waits = || crate::gitops::show(machine, unit, "SubState").starts_with("auto-restart");
    assert!(state == "failed" || state == "activating" && waits(), "{unit}: {state}");
    crate::gitops::show(machine, unit, "ExecMainStatus")
}
