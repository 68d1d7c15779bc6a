//! Deployments that take long by their own repository's doing, and those that have their turn meanwhile.

use std::time::Duration;

use serde_json::Value;

use crate::gitops::{Run, Text, configure, deployed, push, repository, service, show, sync};
use crate::machine::Machine;

/// A turn is passed on after 30 seconds.
const PASSED: Duration = Duration::from_secs(90);
const WAITS: &str = "until [ -e /srv/go ]; do sleep 0.2; done";

/// A machine on which a slow repository, with these `settings`, and another one are deployed, each with a unit of its own.
fn two(settings: &str) -> Option<Machine> {
    let machine = Machine::boot()?;
    configure(&machine, &[repository("slow", settings), repository("other", "")]);
    push(&machine, "slow", &[Text("file", "1"), Text("systemd/slow.service", &service("slow", "1"))]);
    push(&machine, "other", &[Text("systemd/other.service", &service("other", "1"))]);
    machine.ok(&["touch", "/srv/go"]);
    sync(&machine, "slow").expect(0);
    sync(&machine, "other").expect(0);
    Some(machine)
}

/// Runs the slow repository in a unit of its own until its turn was passed on, deploys the other one, and lets it go on.
fn meanwhile(machine: &Machine, deploy: impl FnOnce()) -> Value {
    machine.run(&["rm", "-f", "/srv/go", "/srv/said", "/srv/run"]);
    let script = "gitops-sync --json acme/slow >/srv/said.new 2>/srv/run; mv /srv/said.new /srv/said";
    machine.ok(&["touch", "/srv/run"]);
    machine.ok(&["systemd-run", "--quiet", "--collect", "sh", "-c", script]);
    machine.wait_for("the turn is passed on", PASSED, || machine.read("/srv/run").contains("turn_passed_on"));
    deploy();
    machine.ok(&["touch", "/srv/go"]);
    machine.wait_for("it ends", PASSED, || machine.exists("/srv/said"));
    serde_json::from_str(&machine.read("/srv/said")).expect("JSON")
}

#[test]
fn units_are_compared_again_when_others_had_their_turn() {
    let Some(machine) = two(&format!("build = [\"sh\", \"-c\", \"{WAITS}\"]")) else { return };
    // What the other repository brings meanwhile is left alone, and both are live in the end.
    let commit = push(&machine, "slow", &[Text("systemd/slow.service", &service("slow", "2"))]);
    let result = meanwhile(&machine, || {
        push(&machine, "other", &[Text("systemd/second.service", &service("second", "1"))]);
        sync(&machine, "other").expect(0);
    });
    assert_eq!(result["repositories"][0]["status"], "deployed", "{result:#}");
    assert_eq!(deployed(&machine, "slow"), commit);
    for unit in ["slow.service", "other.service", "second.service"] {
        assert_eq!(show(&machine, unit, "ActiveState"), "active", "{unit}");
    }
    // A unit that the other repository has taken meanwhile is refused, and the checkout goes back.
    push(&machine, "slow", &[Text("systemd/both.service", &service("both", "slow"))]);
    let result = meanwhile(&machine, || {
        push(&machine, "other", &[Text("systemd/both.service", &service("both", "other"))]);
        sync(&machine, "other").expect(0);
    });
    let reason = result["repositories"][0]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("another repository was deployed meanwhile") && reason.contains("both.service"),
        "{result:#}"
    );
    assert_eq!(deployed(&machine, "slow"), commit);
    assert_eq!(machine.ok(&["git", "-c", "safe.directory=*", "-C", "/srv/slow", "rev-parse", "HEAD"]).trim(), commit);
    assert!(machine.read("/etc/systemd/system/both.service").contains("other"));
    assert_eq!(machine.ok(&["ls", "/var/lib/observability-hub/gitops/journal"]), "");
}

#[test]
fn what_others_did_meanwhile_is_not_taken_back_with_a_failed_deployment() {
    let Some(machine) = two(&format!("after = [\"sh\", \"-c\", \"{WAITS}; ! grep -q 2 file\"]")) else { return };
    push(&machine, "slow", &[Text("file", "2"), Text("systemd/slow.service", &service("slow", "2"))]);
    let mut other = String::new();
    let result = meanwhile(&machine, || {
        // One that is new and would be moved by the slow one's jobs, one that goes, one that changes.
        let bound = service("bound", "1").replace("[Service]", "PartOf=slow.service\n[Service]");
        let files = [Text("systemd/bound.service", &bound), Text("systemd/other.service", &service("other", "2"))];
        push(&machine, "other", &files);
        sync(&machine, "other").expect(0);
        other = show(&machine, "other.service", "InvocationID");
    });
    assert_eq!(result["repositories"][0]["status"], "rolled_back", "{result:#}");
    for unit in ["slow.service", "other.service", "bound.service"] {
        assert_eq!(show(&machine, unit, "ActiveState"), "active", "{unit}: {result:#}");
    }
    assert_eq!(show(&machine, "other.service", "InvocationID"), other, "it goes on running");
    assert!(machine.read("/etc/systemd/system/slow.service").contains('1'));
    let run: Run = sync(&machine, "other").expect(0);
    assert_eq!(run.first()["status"], "unchanged");
}
