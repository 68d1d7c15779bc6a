//! What systemd moves without being asked for it in so many words: units that are raised by a failure, sockets under running
//! services, units that are upheld or triggered; and what others do to units in the same moments.

use crate::gitops::{Gone, Text, configure, push, repository, sync};
use crate::machine::Machine;
use crate::moved::{all_active, failing, install, states, svc};

const GRACE: &str = "health = { grace_seconds = 2 }";

/// Without `[Install]`.
fn quiet(text: &str) -> String {
    text.replace("[Install]\nWantedBy=multi-user.target\n", "")
}

fn late(text: &str) -> String {
    text.replace("/usr/bin/sleep infinity", "/usr/bin/sh -c 'sleep 1; exit 1'")
}

#[test]
fn what_a_failure_raised_goes_and_what_that_pushed_out_comes_back() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    install(&machine, "site.service", &svc("", ""));
    machine.write("/etc/systemd/system/sorry.service", quiet(&svc("Conflicts=site.service", "")));
    machine.write("/etc/systemd/system/pager.service", quiet(&svc("", "")));
    machine.ok(&["systemctl", "daemon-reload"]);
    let app = svc("OnFailure=sorry.service pager.service", "");
    for (what, text) in
        [("at once", app.replace("[Service]", "[Service]\nExecStartPre=/usr/bin/false")), ("late", late(&app))]
    {
        push(&machine, "infra", &[Text("systemd/app.service", &text)]);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, 3, "{what}: {:#}\n{}", run.result, run.log);
        assert_eq!(
            states(&machine, &["site.service", "sorry.service", "pager.service"]),
            ["site.service active", "sorry.service inactive", "pager.service inactive"],
            "{what}"
        );
    }
}

#[test]
fn what_a_new_default_instance_pushed_out_comes_back() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    install(&machine, "site.service", &svc("", ""));
    let app = svc("Conflicts=site.service", "") + "DefaultInstance=one\n";
    let at_once = app.replace("[Service]", "[Service]\nExecStartPre=/usr/bin/false");
    for (what, text) in [("at once", at_once), ("late", late(&app))] {
        push(&machine, "infra", &[Text("systemd/app@.service", &text)]);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, 3, "{what}: {:#}\n{}", run.result, run.log);
        all_active(&machine, what, &["site.service"]);
    }
}

#[test]
fn a_socket_that_went_down_under_its_running_service_comes_back() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    push(&machine, "infra", &[Text("systemd/a.service", &svc("", ""))]);
    sync(&machine, "infra").expect(0);
    machine.write("/etc/systemd/system/b.service", quiet(&svc("", "")));
    let socket = "[Socket]\nListenStream=/run/b.sock\n[Install]\nWantedBy=sockets.target\n";
    install(&machine, "b.socket", &format!("[Unit]\nBindsTo=a.service\nAfter=a.service\n{socket}"));
    machine.ok(&["systemctl", "start", "b.service"]);
    let units = ["a.service", "b.socket", "b.service"];
    let pre = svc("", "ExecStartPre=/usr/bin/false");
    for (what, exit, text) in [("at once", 3, pre), ("late", 3, late(&svc("", ""))), ("well", 0, svc("", "Nice=1"))] {
        push(&machine, "infra", &[Text("systemd/a.service", &text)]);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, exit, "{what}: {:#}\n{}", run.result, run.log);
        all_active(&machine, what, &units);
    }
    assert_eq!(machine.ok(&["systemctl", "--failed", "--plain", "--no-legend"]), "");
}

#[test]
fn what_is_upheld_or_triggered_and_fails_is_a_failure() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &["upheld", "timer", "path"].map(|name| repository(name, GRACE)));
    // systemd starts it anew each time, and counts nothing.
    push(
        &machine,
        "upheld",
        &[
            Text("systemd/upheld-a.service", &svc("Upholds=upheld-b.service", "")),
            Text("systemd/upheld-b.service", &quiet(&late(&svc("", "")))),
        ],
    );
    let run = sync(&machine, "upheld").expect(3);
    assert!(run.reason().contains("upheld-b.service"), "{}", run.reason());
    let timer = "[Timer]\nOnActiveSec=0\nAccuracySec=10ms\n[Install]\nWantedBy=timers.target\n";
    let path = "[Path]\nPathExists=/etc/passwd\n[Install]\nWantedBy=paths.target\n";
    for (name, text) in [("timer", timer), ("path", path)] {
        push(
            &machine,
            name,
            &[
                Text(&format!("systemd/{name}-t.{name}"), text),
                Text(
                    &format!("systemd/{name}-t.service"),
                    &quiet(&failing("")).replace("[Service]", "[Service]\nType=oneshot"),
                ),
            ],
        );
        let run = sync(&machine, name);
        assert_eq!(run.exit, 3, "{name}: {:#}\n{}", run.result, run.log);
    }
    assert_eq!(machine.ok(&["systemctl", "--failed", "--plain", "--no-legend"]), "");
}

#[test]
fn a_target_that_is_bound_to_what_fails_is_a_failure_and_comes_back() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    let target = |unit: &str| format!("[Unit]\n{unit}\n[Install]\nWantedBy=multi-user.target\n");
    push(&machine, "infra", &[Text("systemd/app.target", &target(""))]);
    sync(&machine, "infra").expect(0);
    install(&machine, "site.service", &svc("BindsTo=app.target\nAfter=app.target", ""));
    // daemon-reload alone takes a target down that is bound to what is not up.
    for (what, exit, text) in [("late", 3, late(&svc("", ""))), ("well", 0, svc("", ""))] {
        push(
            &machine,
            "infra",
            &[
                Text("systemd/app.target", &target("BindsTo=b.service\nAfter=b.service")),
                Text("systemd/b.service", &quiet(&text)),
            ],
        );
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, exit, "{what}: {:#}\n{}", run.result, run.log);
        all_active(&machine, what, &["app.target", "site.service"]);
    }
    all_active(&machine, "bound", &["b.service"]);
}

#[test]
fn a_unit_whose_stop_fails_leaves_nothing_behind_when_it_goes() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    let stop = svc("", "ExecStop=/usr/bin/false");
    push(&machine, "infra", &[Text("systemd/a.service", &stop), Text("systemd/b.service", &svc("", ""))]);
    sync(&machine, "infra").expect(0);
    push(&machine, "infra", &[Gone("systemd/a.service")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(states(&machine, &["a.service", "b.service"]), ["a.service inactive", "b.service active"]);
    assert_eq!(machine.ok(&["systemctl", "--failed", "--plain", "--no-legend"]), "");
}

#[test]
fn what_somebody_else_enables_in_these_moments_is_theirs() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "health = { grace_seconds = 0 }")]);
    machine.write("/etc/systemd/system/theirs.service", svc("", ""));
    // As systemctl enable and disable do it, but without the manager, which has enough to do.
    let toggle = "cd /etc/systemd/system/multi-user.target.wants; \
                  while test ! -e /srv/enough; do ln -s ../theirs.service theirs.service; sleep 0.03; rm -f theirs.service; sleep 0.03; done; \
                  ln -s ../theirs.service theirs.service; touch /srv/ended";
    machine.ok(&["systemd-run", "--quiet", "--", "/bin/sh", "-c", toggle]);
    for number in 0..4 {
        push(&machine, "infra", &[Text(&format!("systemd/app{number}.service"), &svc("", ""))]);
        sync(&machine, "infra").expect(0);
    }
    machine.write("/srv/enough", "");
    machine.wait_for("the last enable", crate::gitops::SOON, || machine.exists("/srv/ended"));
    assert_eq!(machine.ok(&["systemctl", "is-enabled", "theirs.service"]), "enabled\n");
}
