//! What is wrong leaves the host: from the packaged unit, in its sandbox, by its own account.

use crate::gitops::{Text, configure, push, repository, service, sync};
use crate::journal::nothing_denied;
use crate::machine::{Machine, describe};

const TOLD: &str = "/var/lib/observability-hub/watch/told";
const LOOK: [&str; 3] = ["systemctl", "start", "hub-watch.service"];

#[test]
fn what_was_taken_back_is_told_once_and_that_it_is_mended() {
    let Some(machine) = Machine::boot() else { return };
    let notify = format!("[notify]\ncommand = [\"/usr/bin/tee\", \"-a\", \"{TOLD}\"]\n");
    configure(&machine, &[repository("infra", "health = { grace_seconds = 2 }"), notify]);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    machine.ok(&LOOK);
    machine.run(&["rm", "-f", TOLD]);
    let told = || machine.ok(&["sh", "-c", &format!("cat {TOLD} 2>/dev/null; rm -f {TOLD}")]);

    push(
        &machine,
        "infra",
        &[Text("systemd/bad.service", "[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n")],
    );
    sync(&machine, "infra").expect(3);
    machine.ok(&LOOK);
    let notice = told();
    assert!(notice.contains("acme/infra") && notice.contains("\"kind\":\"raised\""), "{notice}");
    machine.ok(&LOOK);
    assert_eq!(told(), "", "it was told already");

    push(&machine, "infra", &[Text("systemd/bad.service", &service("bad", "1"))]);
    sync(&machine, "infra").expect(0);
    machine.ok(&LOOK);
    let notice = told();
    assert!(notice.contains("acme/infra") && notice.contains("\"kind\":\"cleared\""), "{notice}");

    // Its own account, which no checkout may belong to, and nothing that its sandbox kept it from.
    let owner = ["stat", "-c", "%U:%G %a", "/var/lib/observability-hub/watch/state.json"];
    assert_eq!(machine.ok(&owner), "hub-watch:hub 640\n");
    assert_eq!(machine.ok(&["id", "-nG", "hub-watch"]), "hub-watch systemd-journal hub\n");
    nothing_denied(&machine, &["hub-watch.service"]);
    let touch = "touch /var/lib/observability-hub/watch/x && ! touch /var/lib/observability-hub/x /var/lib/observability-hub/gitops/x";
    let inside = machine.run(&[
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        "-p",
        "User=hub-watch",
        "-p",
        "Group=hub",
        "--",
        "sh",
        "-c",
        touch,
    ]);
    assert!(inside.status.success(), "{}", describe(&inside));
}

#[test]
fn the_timer_looks_each_minute_and_a_notifier_that_is_away_is_said() {
    let Some(machine) = Machine::boot() else { return };
    configure(
        &machine,
        &["[notify]\nurl = \"http://127.0.0.1:9/topic\"\nheartbeat = \"http://127.0.0.1:9/beat\"\n".to_owned()],
    );
    let doctor = machine.run(&["hub", "doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("systemctl enable --now hub-watch.timer"), "{said}");
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "hub-watch.timer"]);
    let record = "/var/lib/observability-hub/watch/run.json";
    machine.wait_for("a look", std::time::Duration::from_secs(90), || {
        machine.run(&["test", "-e", record]).status.success()
    });
    let run = machine.read(record);
    assert!(run.contains("\"status\": \"failed\"") && run.contains("127.0.0.1:9") && !run.contains("/beat"), "{run}");
    let status = machine.run(&["hub", "status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("what this host has to say does not arrive") && said.contains("hub notify test"), "{said}");
    let test = machine.run(&["hub", "notify", "test"]);
    assert!(String::from_utf8_lossy(&test.stderr).contains("not taken: http://127.0.0.1:9/…"), "{}", describe(&test));
}
