//! From a signed delivery to a live commit: the gateway, the queue, the path unit and the worker together.

use std::time::{Duration, Instant};

use crate::gitops::{
    Text, configure, deliver, push, record, repository, service, show, start_hub, starts, wait_deployed,
};
use crate::machine::Machine;

const QUEUE: &str = "/var/lib/observability-hub/proxy/queue";

#[test]
fn a_burst_of_deliveries_and_rubbish_in_the_queue_leave_the_path_unit_active_and_the_tip_deployed() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "0"))]);
    start_hub(&machine);
    let started = Instant::now();
    let mut tip = String::new();
    for number in 1..=20 {
        tip = push(&machine, "infra", &[Text("systemd/app.service", &service("app", &number.to_string()))]);
        deliver(&machine, "infra");
        match number {
            5 => {
                // Whole at once, as the request below: the worker may take it away as soon as it is there.
                machine.ok(&["mkdir", "-p", "/srv/folder/deeper"]);
                machine.ok(&["mv", "/srv/folder", &format!("{QUEUE}/folder")]);
            }
            10 => drop(machine.ok(&["ln", "-s", "/etc/shadow", &format!("{QUEUE}/link.json")])),
            15 => {
                let request = r#"{"repository":"acme/unknown","since":"2026-01-01T00:00:00.000Z","deliveries":["x"]}"#;
                machine.write("/srv/unknown.json", request);
                machine.ok(&["mv", "/srv/unknown.json", &format!("{QUEUE}/acme__unknown.json")]);
            }
            _ => {}
        }
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "the burst took {took:?}; it is to be a burst");
    wait_deployed(&machine, "infra", &tip);
    machine.wait_for("the queue to be empty", Duration::from_secs(30), || {
        machine.ok(&["find", QUEUE, "-mindepth", "1"]).is_empty()
    });
    machine.wait_for("app 20 to run", Duration::from_secs(30), || {
        show(&machine, "app.service", "Description") == "app 20"
            && show(&machine, "app.service", "ActiveState") == "active"
    });
    assert_eq!(show(&machine, "gitops-sync.path", "ActiveState"), "active");
    // Each run takes the grace second; those that came meanwhile share the next one.
    let runs = starts(&machine, "gitops-sync.service");
    eprintln!("20 deliveries in {took:?}: {runs} starts of gitops-sync.service");
    assert!(runs <= 20, "{runs} runs for 20 deliveries");
    let failed = "/var/lib/observability-hub/gitops/failed";
    let reasons = machine.ok(&["sh", "-c", &format!("cat {failed}/*.reason.json")]);
    for name in ["folder", "link.json", "acme__unknown.json"] {
        assert!(reasons.contains(name), "{name} is not in failed/: {reasons}");
    }
    assert_eq!(machine.ok(&["find", failed, "-type", "l", "-lname", "/etc/shadow"]).lines().count(), 1);
    // And the next one still works.
    let tip = push(&machine, "infra", &[Text("note", "after")]);
    deliver(&machine, "infra");
    wait_deployed(&machine, "infra", &tip);
    assert_eq!(record(&machine)["status"], "deployed");
    assert_eq!(machine.read("/srv/infra/note"), "after");
}
