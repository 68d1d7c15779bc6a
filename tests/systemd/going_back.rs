//! `hub rollback`: units go back with the commit, the branch waits for the release, and what does not come up is taken back.

use std::time::Duration;

use crate::gitops::{
    Gone, SOON, Text, configure, deliver, deployed, log, push, repository, service, show, start_hub, sync,
    wait_deployed,
};
use crate::machine::{Machine, describe};

const STATE: &str = "/var/lib/observability-hub/gitops";

fn rollback(machine: &Machine, arguments: &[&str]) -> (i32, String) {
    let output = machine.run_for(&[&["hub", "rollback", "acme/infra"][..], arguments].concat(), None, 4 * SOON);
    (output.status.code().unwrap_or(-1), describe(&output))
}

fn active(machine: &Machine, unit: &str) -> String {
    show(machine, unit, "ActiveState")
}

/// Each commit another version, and what the service is started with.
fn site(machine: &Machine) -> [String; 3] {
    configure(machine, &[repository("infra", "health = { grace_seconds = 2 }")]);
    let secret = |version: &str| service("app", version).replace("[Service]", "[Service]\nEnvironment=KEY=hush");
    let first = push(machine, "infra", &[Text("systemd/app.service", &secret("1")), Text("v", "1")]);
    sync(machine, "infra").expect(0);
    let second = [
        Text("systemd/app.service", &secret("2")),
        Text("systemd/more.service", &service("more", "2")),
        Text("v", "2"),
    ];
    let second = push(machine, "infra", &second);
    sync(machine, "infra").expect(0);
    let third = [
        Text("systemd/app.service", &secret("3")),
        Gone("systemd/more.service"),
        Text("systemd/third.service", &service("third", "3")),
        Text("v", "3"),
    ];
    let third = push(machine, "infra", &third);
    sync(machine, "infra").expect(0);
    start_hub(machine);
    [first, second, third]
}

#[test]
fn units_go_back_and_the_hold_keeps_a_push_away_until_the_release() {
    let Some(machine) = Machine::boot() else { return };
    let [first, second, third] = site(&machine);
    log(&machine);
    let (code, text) = rollback(&machine, &["--dry-run"]);
    assert!(code == 0 && text.contains("third.service") && text.contains("more.service"), "{text}");
    assert_eq!(log(&machine), [] as [String; 0]);
    let (code, text) = rollback(&machine, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("release acme/infra"), "{text}");
    assert_eq!((deployed(&machine, "infra"), machine.read("/srv/infra/v")), (second.clone(), "2".to_owned()));
    assert_eq!(show(&machine, "app.service", "Description"), "app 2");
    assert_eq!(["app", "more"].map(|unit| active(&machine, &format!("{unit}.service"))), ["active", "active"]);
    assert_eq!(show(&machine, "third.service", "LoadState"), "not-found");
    let status =
        machine.ok(&["runuser", "-u", "hub-checkout", "--", "git", "-C", "/srv/infra", "status", "--porcelain"]);
    assert_eq!(status, "");

    // A push while it is on hold.
    let next = push(&machine, "infra", &[Text("systemd/third.service", &service("third", "4")), Text("v", "4")]);
    deliver(&machine, "infra");
    machine.wait_for("the delivery to be taken up", SOON, || {
        machine.read(&format!("{STATE}/checked/acme__infra.json")).contains("held")
    });
    assert_eq!(deployed(&machine, "infra"), second);
    machine.ok(&["hub", "release", "acme/infra"]);
    wait_deployed(&machine, "infra", &next);
    assert_eq!(
        (show(&machine, "third.service", "Description"), active(&machine, "more.service")),
        ("third 4".into(), "inactive".into())
    );

    // The first commit has fewer units; that it takes several away is no reason to refuse it.
    assert_eq!(rollback(&machine, &[&first[..12]]).0, 0);
    assert_eq!((deployed(&machine, "infra"), show(&machine, "app.service", "Description")), (first, "app 1".into()));
    assert_eq!(show(&machine, "third.service", "LoadState"), "not-found");

    // What is kept of it all, for a member of the group hub.
    machine.ok(&["useradd", "--groups", "hub", "reader"]);
    let as_reader = |command: &[&str]| machine.ok(&[&["runuser", "-u", "reader", "--"], command].concat());
    let timeline = as_reader(&["hub", "timeline", "--about", "acme/infra", "--json"]);
    let events: Vec<serde_json::Value> = timeline.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let expected = ["deployed", "deployed", "deployed", "deployed", "held", "released", "deployed", "deployed", "held"];
    assert_eq!(kinds, expected, "{timeline}");
    let back = &events[3];
    assert_eq!((back["from"].as_str(), back["to"].as_str()), (Some(third.as_str()), Some(second.as_str())));
    let restarts = back["restarts"].to_string();
    assert!(restarts.contains("app.service") && restarts.contains("reason"), "{restarts}");
    let plan = as_reader(&["cat", &format!("{STATE}/{}", back["plan"].as_str().unwrap())]);
    assert!(plan.contains("-Description=app 3") && plan.contains("+Description=app 2"), "{plan}");
    assert!(plan.contains("Environment=***") && !plan.contains("hush"), "{plan}");
    let versions = as_reader(&["hub", "versions", "acme/infra"]);
    assert_eq!(versions.lines().filter(|line| line.starts_with("- ")).count(), 3, "{versions}");
    let started = as_reader(&["hub", "timeline", "--about", "proxy", "--json"]);
    assert!(started.contains("\"started\""), "{started}");
}

#[test]
fn an_old_commit_that_does_not_come_up_any_more_is_taken_back() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "health = { grace_seconds = 2 }")]);
    machine.write("/srv/needed", "");
    let needs = service("app", "1").replace("[Service]", "[Service]\nExecStartPre=/usr/bin/test -e /srv/needed");
    push(&machine, "infra", &[Text("systemd/app.service", &needs), Text("v", "1")]);
    sync(&machine, "infra").expect(0);
    let second = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "2")), Text("v", "2")]);
    sync(&machine, "infra").expect(0);
    machine.ok(&["rm", "/srv/needed"]);
    let (code, text) = rollback(&machine, &[]);
    assert_eq!(code, 3, "{text}");
    assert_eq!((deployed(&machine, "infra"), machine.read("/srv/infra/v")), (second.clone(), "2".to_owned()));
    assert_eq!(
        (show(&machine, "app.service", "Description"), active(&machine, "app.service")),
        ("app 2".into(), "active".into())
    );
    assert!(!machine.exists(&format!("{STATE}/hold/acme__infra.json")));
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), second);
}

#[test]
fn killed_while_it_goes_back_the_host_converges() {
    let Some(machine) = Machine::boot() else { return };
    let [first, _, third] = site(&machine);
    let mut cut_off = 0;
    for round in 1..=6 {
        let to = if round % 2 == 1 { &first } else { &third };
        // The probe takes two seconds of it.
        let after = Duration::from_millis(350 * round).as_secs_f64().to_string();
        let kill = ["timeout", "--signal=KILL", &after, "hub", "rollback", "acme/infra", to.as_str()];
        machine.run_for(&kill, None, SOON);
        cut_off += usize::from(machine.exists(&format!("{STATE}/journal/acme__infra.json")));
        // The timer's run undoes it, or finds it done; the branch waits.
        machine.run(&["systemctl", "start", "gitops-sync.service"]);
        let live = deployed(&machine, "infra");
        let version = machine.read("/srv/infra/v");
        assert_eq!(version, if live == first { "1" } else { "3" }, "round {round}");
        assert_eq!(show(&machine, "app.service", "Description"), format!("app {version}"), "round {round}");
        assert_eq!(active(&machine, "app.service"), "active", "round {round}");
        let (code, text) = rollback(&machine, &[to.as_str()]);
        assert_eq!(code, 0, "round {round}: {text}");
        assert_eq!(&deployed(&machine, "infra"), to, "round {round}");
        let expected = if *to == first { "not-found" } else { "loaded" };
        assert_eq!(show(&machine, "third.service", "LoadState"), expected, "round {round}");
    }
    assert!(cut_off >= 2, "{cut_off}");
}
