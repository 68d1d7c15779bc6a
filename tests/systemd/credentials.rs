//! What runs takes hub.toml anew, by itself and by `systemctl reload`, and is restarted for other credentials.

use std::time::Duration;

use crate::gitops::{SOON, configure, repository, show, start_hub};
use crate::journal::lines;
use crate::machine::{Machine, describe};
use crate::sockets::{count, listening, told};

const PROXY: &str = "proxy.service";
const GATE: &str = "tailscale-gate.service";
const RENEWS: &str = "hub-credentials.service";
const STORE: &str = "/etc/credstore/webhook-secret";

fn invocation(machine: &Machine, unit: &str) -> String {
    show(machine, unit, "InvocationID")
}

/// Whether the proxy takes a delivery for a repository, signed with what the store has.
fn takes(machine: &Machine, name: &str) -> bool {
    machine.run(&["hub", "webhook-test", &format!("acme/{name}")]).status.success()
}

fn said(machine: &Machine, unit: &str, msg: &str) -> usize {
    lines(machine, unit).iter().filter(|line| line["msg"] == msg).count()
}

fn reasons(machine: &Machine) -> String {
    let output = machine.run(&["hub", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("status is JSON");
    status["reasons"].to_string()
}

#[test]
fn hub_toml_is_taken_by_itself_and_by_reload_and_refused_by_root_where_others_can_write_it() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("web", "")]);
    start_hub(&machine);
    machine.ok(&["systemctl", "start", GATE]);
    let before = [PROXY, GATE].map(|unit| invocation(&machine, unit));
    assert!(takes(&machine, "web") && !takes(&machine, "shop"));
    configure(&machine, &[repository("web", ""), repository("shop", "")]);
    machine.wait_for("the second repository to be known", SOON, || takes(&machine, "shop"));

    // By reload at once, with other addresses; systemd keeps the new sockets and lets go of the old ones.
    let other = "[proxy]\nlisten = \"0.0.0.0:8095\"\n".to_owned() + &repository("web", "");
    machine.write("/etc/observability-hub/hub.toml", &other);
    machine.ok(&["systemctl", "reload", PROXY]);
    machine.wait_for("the new address", SOON, || listening(&machine) == ["0.0.0.0:8095", "127.0.0.1:8086"]);
    machine
        .wait_for("systemd to let go of the old socket", SOON, || show(&machine, PROXY, "NFileDescriptorStore") == "2");
    let status = show(&machine, PROXY, "StatusText");
    assert!(status.starts_with("webhooks on 0.0.0.0:8095"), "{status}");
    machine.wait_for("the gate to follow", SOON, || said(&machine, GATE, "moving") == 1);

    // It is half written, then a stranger's: refused, and told.
    machine.write("/etc/observability-hub/hub.toml", "");
    machine.wait_for("the empty one to be refused", SOON, || {
        show(&machine, PROXY, "StatusText").contains("configuration refused: /etc/observability-hub/hub.toml: is empty")
    });
    assert!(reasons(&machine).contains("hub.toml: is empty"));
    let doctor = machine.run(&["hub", "doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("hub.toml: is empty"), "{}", describe(&doctor));
    machine.write("/etc/observability-hub/hub.toml", &other);
    machine.wait_for("nothing to be wrong any more", SOON, || !reasons(&machine).contains("is refused"));
    machine.ok(&["chmod", "666", "/etc/observability-hub/hub.toml"]);
    machine.ok(&["systemctl", "reload", GATE]);
    machine.wait_for("root to refuse it", SOON, || reasons(&machine).contains("can be written by group or others"));
    machine.ok(&["chmod", "644", "/etc/observability-hub/hub.toml"]);
    machine.wait_for("it to be right again", SOON, || !reasons(&machine).contains("can be written"));
    assert_eq!([PROXY, GATE].map(|unit| invocation(&machine, unit)), before);

    machine.ok(&["systemctl", "restart", PROXY]);
    let kept: Vec<bool> = lines(&machine, PROXY).iter().filter_map(|line| line["sockets_kept"].as_bool()).collect();
    assert_eq!(kept, [false, true]);
    assert_eq!(listening(&machine), ["0.0.0.0:8095", "127.0.0.1:8086"]);
}

#[test]
fn a_changed_credential_restarts_what_runs_with_the_old_one_and_nobody_who_calls_is_refused() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("web", "")]);
    start_hub(&machine);
    machine.ok(&["systemctl", "start", GATE]);
    assert_eq!(show(&machine, "hub-credentials.path", "ActiveState"), "active");
    assert!(takes(&machine, "web"));
    let told = told(&machine, || {
        let before = invocation(&machine, PROXY);
        machine.write(STORE, "another secret of the tests");
        machine.wait_for("the proxy to be restarted", SOON, || {
            invocation(&machine, PROXY) != before && show(&machine, PROXY, "SubState") == "running"
        });
        machine.wait_for("the next secret to be in force", SOON, || takes(&machine, "web"));
    });
    assert!(count(&told, "200") == told.len() && !told.is_empty(), "{told:?}");
    let idle = || machine.wait_for("it to be done", SOON, || show(&machine, RENEWS, "ActiveState") != "activating");
    idle();
    let before = [PROXY, GATE].map(|unit| invocation(&machine, unit));

    // Another program's, the same once more, one that is too short, an empty one: nobody is restarted.
    let runs = || machine.journal(RENEWS).iter().filter(|entry| entry["MESSAGE_ID"] == crate::gitops::STARTING).count();
    for (path, content) in [("/etc/credstore/another-program", "x"), (STORE, "another secret of the tests")] {
        let earlier = runs();
        machine.write(path, content);
        machine.wait_for("it to be looked at", SOON, || runs() > earlier);
        idle();
        assert_eq!(show(&machine, RENEWS, "ActiveState"), "inactive");
    }
    for (content, part) in [("short", "has 5 bytes"), ("", "is empty")] {
        machine.write(STORE, content);
        machine.wait_for("it to be refused", SOON, || {
            lines(&machine, RENEWS)
                .iter()
                .any(|line| line["msg"] == "credentials_refused" && line["error"].to_string().contains(part))
        });
        machine.wait_for("that to be told", SOON, || reasons(&machine).contains("changed credentials were refused"));
        let doctor = machine.run(&["hub", "doctor"]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains(RENEWS), "{}", describe(&doctor));
    }
    let all = machine.ok(&["journalctl", "--no-pager", "-b", "-o", "short-precise", "-n", "150"]);
    assert_eq!([PROXY, GATE].map(|unit| invocation(&machine, unit)), before, "{all}");
    assert_eq!(show(&machine, PROXY, "ActiveState"), "active");

    // A right one, and none: a secret that somebody takes away is used no more.
    machine.write(STORE, "the third secret of the tests");
    machine.wait_for("the third secret to be in force", SOON, || takes(&machine, "web"));
    machine.wait_for("nothing to be told any more", SOON, || !reasons(&machine).contains("credentials were refused"));
    machine.ok(&["rm", STORE]);
    machine.wait_for("no delivery to be taken", SOON, || reasons(&machine).contains("no webhook secret is configured"));

    machine.ok(&["systemctl", "stop", PROXY, GATE]);
    machine.wait_for("the watch to end with them", Duration::from_secs(10), || {
        show(&machine, "hub-credentials.path", "ActiveState") == "inactive"
    });
}
