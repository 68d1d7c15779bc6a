//! One push, exact starts and stops.

use crate::gitops::{Gone, Text, configure, dangling, log, push, repository, service, show, sync};
use crate::machine::Machine;

fn oneshot(name: &str, version: &str) -> String {
    format!(
        "[Service]\nType=oneshot\nExecStart=/usr/bin/sh -c 'echo start {name} {version} >>/srv/log; sleep 600'\n\
         ExecStopPost=/usr/bin/sh -c 'echo stop {name} {version} >>/srv/log'\n[Install]\nWantedBy=multi-user.target\n"
    )
}

#[test]
fn one_push_starts_and_stops_exactly_what_it_must() {
    let Some(machine) = Machine::boot() else { return };
    configure(
        &machine,
        &[repository(
            "infra",
            "restart = [{ paths = [\"app/\", \"one.conf\"], units = [\"code.service\", \"idle.service\"] }]",
        )],
    );
    let template = service("worker-%i", "1");
    push(
        &machine,
        "infra",
        &[
            Text("app/main", "1"),
            Text("systemd/README.md", "not a unit"),
            Text("systemd/running.service", &oneshot("running", "1")),
            Text("systemd/removed.service", &service("removed", "1")),
            Text("systemd/masked.service", &service("masked", "1")),
            Text("systemd/worker@.service", &template),
            Text("systemd/dropped.service", &service("dropped", "1")),
            Text("systemd/code.service", &service("code", "1")),
            Text("systemd/idle.service", &service("idle", "1")),
            Text("systemd/same.service", &service("same", "1")),
        ],
    );
    let run = sync(&machine, "infra").expect(0);
    let mut started = log(&machine);
    started.sort();
    let expected = ["code", "dropped", "idle", "masked", "removed", "same"].map(|name| format!("start {name} 1"));
    assert_eq!(started, expected, "{:#}", run.result);
    // What an operator does meanwhile.
    machine.ok(&["systemctl", "start", "worker@a.service", "worker@b.service"]);
    machine.ok(&["systemctl", "start", "--no-block", "running.service"]);
    machine.ok(&["systemctl", "stop", "idle.service", "masked.service"]);
    machine.ok(&["ln", "-sf", "/dev/null", "/etc/systemd/system/masked.service"]);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.wait_for("the oneshot to run", crate::gitops::SOON, || machine.read("/srv/log").contains("running"));
    log(&machine);
    let same = show(&machine, "same.service", "InvocationID");
    let running = show(&machine, "running.service", "MainPID");

    let to = push(
        &machine,
        "infra",
        &[
            Text("app/main", "2"),
            Text("systemd/new.timer", "[Timer]\nOnCalendar=2030-01-01\n[Install]\nWantedBy=timers.target\n"),
            Text("systemd/new.service", &oneshot("new", "1")),
            Text("systemd/running.service", &oneshot("running", "2")),
            Gone("systemd/removed.service"),
            Text("systemd/masked.service", &service("masked", "2")),
            Text("systemd/worker@.service", &template.replace(" 1", " 2")),
            Text("systemd/dropped.service.d/10-nice.conf", "[Service]\nEnvironment=DROPPED=yes\n"),
        ],
    );
    let run = sync(&machine, "infra").expect(0);
    let mut happened = log(&machine);
    happened.sort();
    assert_eq!(
        happened,
        [
            "start code 1",
            "start dropped 1",
            "start worker-a 2",
            "start worker-b 2",
            "stop code 1",
            "stop dropped 1",
            "stop removed 1",
            "stop worker-a 2",
            "stop worker-b 2",
        ],
        "{:#}",
        run.result
    );
    assert_eq!(show(&machine, "same.service", "InvocationID"), same);
    assert_eq!(show(&machine, "running.service", "MainPID"), running);
    assert_eq!(show(&machine, "new.timer", "ActiveState"), "active");
    assert_eq!(show(&machine, "dropped.service", "Environment"), "DROPPED=yes");
    assert_eq!(machine.ok(&["systemctl", "is-enabled", "new.timer", "new.service"]), "enabled\nenabled\n");
    assert_eq!(show(&machine, "new.service", "ActiveState"), "inactive");
    assert!(!machine.exists("/etc/systemd/system/removed.service"));
    assert_eq!(machine.ok(&["readlink", "/etc/systemd/system/masked.service"]), "/dev/null\n");
    assert_eq!(dangling(&machine), "");
    let mut actions = run.actions();
    actions.sort();
    assert_eq!(
        actions,
        [
            "enabled new.service",
            "enabled new.timer",
            "restarted code.service",
            "restarted dropped.service",
            "restarted worker@a.service",
            "restarted worker@b.service",
            "started new.timer",
            "stopped removed.service",
        ],
        "{:#}",
        run.result
    );
    let record = crate::gitops::record(&machine);
    let result = &record["details"]["repositories"][0];
    assert_eq!(result["restarts"], run.first()["restarts"]);
    for entry in result["restarts"].as_array().expect("a list") {
        assert!(entry["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{entry}");
        assert!(entry["file"].as_str().is_some_and(|file| !file.is_empty()), "{entry}");
        assert!(entry["to"] == to.as_str() && entry["from"] == result["from"], "{entry}");
    }
    // Nothing left to do.
    assert_eq!(sync(&machine, "infra").expect(0).first()["status"], "unchanged");

    // The drop-in goes with its folder, and its unit takes that up; the mask stays where its unit goes.
    push(
        &machine,
        "infra",
        &[Gone("systemd/dropped.service.d/10-nice.conf"), Gone("systemd/masked.service"), Text("one.conf", "x")],
    );
    let run = sync(&machine, "infra").expect(0);
    let mut happened = log(&machine);
    happened.sort();
    assert_eq!(happened, ["start code 1", "start dropped 1", "stop code 1", "stop dropped 1"], "{:#}", run.result);
    assert!(!machine.exists("/etc/systemd/system/dropped.service.d"));
    assert_eq!(show(&machine, "dropped.service", "Environment"), "");
    assert_eq!(machine.ok(&["readlink", "/etc/systemd/system/masked.service"]), "/dev/null\n");

    // A unit and its timer go together.
    push(&machine, "infra", &[Gone("systemd/new.timer"), Gone("systemd/new.service")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "new.timer", "ActiveState"), "inactive");
    assert_eq!(show(&machine, "new.timer", "LoadState"), "not-found");
    assert_eq!(dangling(&machine), "");
}
