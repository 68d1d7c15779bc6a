//! Commits with more to say than a record or a log line holds.

use serde_json::Value;

use crate::gitops::{Text, configure, push, record, repository, service, sync};
use crate::machine::Machine;

/// How long any record and any reason may be.
const LONGEST_RECORD: usize = 100 << 10;
const LONGEST_REASON: usize = 5 << 10;

/// The refusal names the first of them and counts the rest, wherever it is kept.
#[track_caller]
fn told_shortly(machine: &Machine, parts: &[&str]) {
    let run = sync(machine, "infra").expect(5);
    let text = machine.read("/var/lib/observability-hub/gitops/run.json");
    assert!(text.len() < LONGEST_RECORD, "{}", text.len());
    let checked: Value =
        serde_json::from_str(&machine.read("/var/lib/observability-hub/gitops/checked/acme__infra.json"))
            .expect("JSON");
    let status: Value = serde_json::from_slice(&machine.run(&["hub", "status", "--json"]).stdout).expect("JSON");
    let reasons = status["reasons"].as_array().expect("a list").iter();
    let mut reasons =
        reasons.filter(|reason| reason["about"] == "acme/infra").filter_map(|reason| reason["reason"].as_str());
    let told = reasons.find(|reason| parts.iter().all(|part| reason.contains(part)));
    assert!(told.is_some(), "{status:#}");
    for reason in [Some(run.reason()), checked["reason"].as_str(), record(machine)["error"].as_str(), told] {
        let reason = reason.expect("a reason");
        assert!(reason.len() < LONGEST_REASON && parts.iter().all(|part| reason.contains(part)), "{reason}");
    }
    assert!(run.log.lines().all(|line| line.len() < 4096));
    assert!(run.log.lines().count() < 100, "{}", run.log.lines().count());
    assert_eq!(status["unreadable"], serde_json::json!([]));
}

#[test]
fn tens_of_thousands_of_odd_names_are_counted() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    let names: Vec<String> =
        (0..50_000).map(|number| format!("systemd/odd name \u{202e}{number:05}.service")).collect();
    let files: Vec<_> = names.iter().map(|name| Text(name, "x")).collect();
    push(&machine, "infra", &files);
    told_shortly(&machine, &["is not a name for a unit", "more", "\\u{202e}"]);
    // Drop-ins of which each is refused for itself.
    machine.ok(&["git", "-C", "/srv/origin/infra.git", "update-ref", "refs/heads/main", "refs/heads/main~1"]);
    let names: Vec<String> = (0..900).map(|number| format!("systemd/nobody{number:03}.service.d/x.conf")).collect();
    let files: Vec<_> = names.iter().map(|name| Text(name, "[Service]\n")).collect();
    push(&machine, "infra", &files);
    told_shortly(&machine, &["is a drop-in for nobody000.service", "more"]);
}

#[test]
fn hundreds_of_units_are_all_deployed_and_the_record_names_the_first() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let unit =
        |number: usize| format!("[Unit]\nDescription={number}\n[Service]\nType=oneshot\nExecStart=/usr/bin/true\n");
    let files: Vec<(String, String)> = (0..300).map(|n| (format!("systemd/many{n:03}.service"), unit(n))).collect();
    let files: Vec<_> = files.iter().map(|(name, content)| Text(name, content)).collect();
    push(&machine, "infra", &files);
    let run = sync(&machine, "infra").expect(0);
    assert_eq!(run.first()["units"].as_array().expect("a list").len(), 300, "whoever asked gets all");
    let last = record(&machine);
    let units = last["details"]["repositories"][0]["units"].as_array().expect("a list").clone();
    assert_eq!((units.len(), units[20].as_str()), (21, Some("and 280 more")), "{last:#}");
}
