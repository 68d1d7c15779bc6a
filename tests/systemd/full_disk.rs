//! A state disk that fills up while units are deployed.

use crate::gitops::{
    SOON, Text, configure, deliver, deployed, push, record, repository, service, show, start_hub, sync, wait_deployed,
};
use crate::machine::Machine;

const STATE: &str = "/var/lib/observability-hub";

#[test]
fn a_unit_that_fails_on_a_full_disk_is_taken_back_and_told() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["mount", "-t", "tmpfs", "-o", "size=12M,mode=0755", "tmpfs", STATE]);
    machine.ok(&["systemd-tmpfiles", "--create", "observability-hub.conf"]);
    configure(&machine, &[repository("infra", "health = { grace_seconds = 2 }")]);
    let good = push(&machine, "infra", &[Text("version", "1"), Text("systemd/app.service", &service("app", "1"))]);
    start_hub(&machine);
    deliver(&machine, "infra");
    wait_deployed(&machine, "infra", &good);
    let fill = format!("ExecStartPre=-/usr/bin/dd if=/dev/zero of={STATE}/full bs=4k status=none\n");
    let failing = |exec: &str| {
        format!("[Unit]\nDescription=app 2\n[Service]\n{fill}ExecStart={exec}\n[Install]\nWantedBy=multi-user.target\n")
    };
    // Fails at its start, and a while after it; taken up by the path unit, and by hand.
    for (exec, by_hand) in [("/usr/bin/false", true), ("/usr/bin/sh -c 'sleep 0.5; exit 1'", false)] {
        let bad = push(&machine, "infra", &[Text("version", "2"), Text("systemd/app.service", &failing(exec))]);
        if by_hand {
            sync(&machine, "infra").expect(3);
        } else {
            deliver(&machine, "infra");
            // Not the record of the run before.
            machine.wait_for("the rollback", SOON, || {
                let status = machine.run(&["hub", "status"]).stdout;
                String::from_utf8_lossy(&status).contains(&bad[..10]) && record(&machine)["status"] == "rolled_back"
            });
            machine.wait_for("the worker to end", SOON, || {
                show(&machine, "gitops-sync.service", "ActiveState") != "activating"
            });
        }
        assert_eq!(show(&machine, "app.service", "ActiveState"), "active", "{exec}");
        assert_eq!(show(&machine, "app.service", "Description"), "app 1", "{exec}");
        assert_eq!(machine.read("/srv/infra/version"), "1");
        assert_eq!(deployed(&machine, "infra"), good);
        let last = record(&machine);
        assert_eq!(last["status"], "rolled_back", "{last:#}");
        let status = String::from_utf8_lossy(&machine.run(&["hub", "status"]).stdout).into_owned();
        assert!(status.contains(&bad[..10]), "{status}");
        machine.ok(&["rm", "-f", &format!("{STATE}/full")]);
        sync(&machine, "infra").expect(3);
    }
    // Nothing new is begun where there would be no way back.
    machine.run(&["dd", "if=/dev/zero", &format!("of={STATE}/full"), "bs=4k", "status=none"]);
    machine.ok(&["rm", "-f", &format!("{STATE}/gitops/reserve")]);
    machine.run(&["dd", "if=/dev/zero", &format!("of={STATE}/full2"), "bs=4k", "status=none"]);
    let next = push(&machine, "infra", &[Text("version", "3"), Text("systemd/app.service", &service("app", "3"))]);
    assert_eq!(sync(&machine, "infra").exit, 1);
    assert_eq!(show(&machine, "app.service", "Description"), "app 1");
    machine.ok(&["rm", "-f", &format!("{STATE}/full"), &format!("{STATE}/full2")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), next);
}
