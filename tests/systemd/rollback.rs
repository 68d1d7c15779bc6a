//! What fails is taken back: files, enablement, checkout and running versions.

use crate::gitops::{
    Gone, SOON, Text, configure, dangling, deployed, log, push, record, repository, service, show, start_hub, sync,
};
use crate::machine::{Machine, describe};

/// A service that crashes again and again, a while after each start.
const CRASHING: &str = "[Service]\nExecStart=/usr/bin/sh -c 'echo crash >>/srv/log; sleep 0.2; exit 1'\n\
     Restart=always\nRestartSec=100ms\nStartLimitIntervalSec=0\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn a_crash_looping_unit_is_taken_back_and_an_old_failure_does_not_count() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "health = { grace_seconds = 3 }")]);
    let sick = "[Service]\nExecStart=/usr/bin/false\n[Install]\nWantedBy=multi-user.target\n";
    let files = [
        Text("version", "1"),
        Text("systemd/app.service", &service("app", "1")),
        Text("systemd/other.service", &service("other", "1")),
        Text("systemd/gone.service", &service("gone", "1")),
        // It fails from the beginning; installed by hand, its failure is not the hub's business.
        Text("systemd/sick.service", sick),
    ];
    machine.write("/etc/systemd/system/sick.service", sick);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.run(&["systemctl", "enable", "--now", "sick.service"]);
    machine.wait_for("sick to fail", SOON, || show(&machine, "sick.service", "ActiveState") == "failed");
    let good = push(&machine, "infra", &files);
    sync(&machine, "infra").expect(0);
    start_hub(&machine);
    log(&machine);
    let other = show(&machine, "other.service", "InvocationID");
    let enabled = || machine.ok(&["find", "/etc/systemd/system", "-type", "l", "-printf", "%P -> %l\n"]);
    let mut links: Vec<String> = enabled().lines().map(str::to_owned).collect();
    links.sort();

    let bad = push(
        &machine,
        "infra",
        &[
            Text("version", "2"),
            Text("systemd/app.service", &service("app", "2")),
            Text("systemd/crash.service", CRASHING),
            Text("systemd/sick.service", &sick.replace("false", "false --still")),
            Gone("systemd/gone.service"),
        ],
    );
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("crash.service") && run.reason().contains(&good[..10]), "{}", run.reason());
    let state = |unit: &str| show(&machine, unit, "ActiveState");
    assert_eq!(state("crash.service"), "inactive");
    assert_eq!(show(&machine, "crash.service", "LoadState"), "not-found");
    assert_eq!(state("app.service"), "active");
    assert_eq!(state("gone.service"), "active");
    assert_eq!(show(&machine, "app.service", "Description"), "app 1");
    assert_eq!(show(&machine, "other.service", "InvocationID"), other, "a unit that nothing concerned was restarted");
    let lines: Vec<String> = log(&machine).into_iter().filter(|line| line != "crash").collect();
    assert_eq!(lines.iter().filter(|line| *line == "start gone 1").count(), 1, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "start app 1").count(), 1, "{lines:?}");
    let mut now: Vec<String> = enabled().lines().map(str::to_owned).collect();
    now.sort();
    assert_eq!(now, links);
    assert_eq!(machine.read("/srv/infra/version"), "1");
    assert_eq!(deployed(&machine, "infra"), good);
    assert_eq!(
        machine.ok(&["runuser", "-u", "hub-checkout", "--", "git", "-C", "/srv/infra", "status", "--porcelain"]),
        ""
    );
    // The record tells both ways.
    let actions = run.actions();
    assert!(actions.contains(&"stopped crash.service".to_owned()), "{actions:?}");
    assert_eq!(actions.iter().filter(|action| *action == "restarted app.service").count(), 2, "{actions:?}");

    // The timer's run skips the bad commit, and says so.
    machine.ok(&["rm", "-r", "/var/lib/observability-hub/gitops/checked"]);
    machine.run(&["systemctl", "start", "gitops-sync.service"]);
    let last = record(&machine);
    assert_eq!(last["status"], "rolled_back", "{last:#}");
    assert!(last["error"].as_str().is_some_and(|error| error.contains(&bad[..10]) && error.contains("hub retry")));
    assert_eq!(log(&machine), Vec::<String>::new());

    // The next commit deploys.
    let fixed = CRASHING.replace("sleep 0.2; exit 1", "exec sleep infinity");
    let next = push(&machine, "infra", &[Text("systemd/crash.service", &fixed)]);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), next);
    assert_eq!((state("crash.service"), state("gone.service")), ("active".into(), "inactive".into()));
    assert_eq!(show(&machine, "app.service", "Description"), "app 2");
    assert_eq!(machine.read("/srv/infra/version"), "2");
    assert_eq!(dangling(&machine), "");
}

#[test]
fn a_unit_that_was_started_as_often_as_it_may_is_taken_back() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "health = { grace_seconds = 2 }")]);
    let with = |exec: &str| {
        let limit = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n";
        format!("{limit}[Service]\nExecStart={exec}\n[Install]\nWantedBy=multi-user.target\n")
    };
    let good = push(&machine, "infra", &[Text("systemd/app.service", &with("/usr/bin/sleep infinity"))]);
    sync(&machine, "infra").expect(0);
    for exec in ["/usr/bin/sh -c 'sleep 0.3'", "/usr/bin/sh -c 'sleep 0.3; exit 3'"] {
        push(&machine, "infra", &[Text("systemd/app.service", &with(exec))]);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, 3, "{exec}: {:#}\n{}", run.result, run.log);
        assert_eq!(show(&machine, "app.service", "ActiveState"), "active", "{exec}");
        assert_eq!(deployed(&machine, "infra"), good);
    }
    // It is up, and what fails beside it has it started once more.
    let bad = "[Service]\nExecStart=/usr/bin/false\n[Install]\nWantedBy=multi-user.target\n";
    for exec in ["/usr/bin/sleep 90000", "/usr/bin/sleep 80000"] {
        push(&machine, "infra", &[Text("systemd/app.service", &with(exec)), Text("systemd/bad.service", bad)]);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, 3, "{exec}: {:#}\n{}", run.result, run.log);
        assert_eq!(show(&machine, "app.service", "ActiveState"), "active", "{exec}");
        assert_eq!(deployed(&machine, "infra"), good);
    }
}

#[test]
fn every_way_to_fail_is_noticed() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "health = { grace_seconds = 2 }")]);
    let good = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    let with = |exec: &str, more: &str| {
        format!("[Service]\nExecStart={exec}\n{more}\n[Install]\nWantedBy=multi-user.target\n")
    };
    for (what, unit) in [
        ("the program ends with an error", with("/usr/bin/sh -c 'sleep 0.5; exit 3'", "")),
        ("it is never ready", with("/usr/bin/sleep 600", "Type=notify\nTimeoutStartSec=1")),
        (
            "it crashes once, before anyone looks",
            with(
                "/usr/bin/sh -c 'test -e /srv/once || { touch /srv/once; exit 1; }; exec sleep infinity'",
                "Restart=always\nRestartSec=50ms",
            ),
        ),
        ("it ends, though it ran before", with("/usr/bin/sh -c 'sleep 0.3'", "")),
        ("its user does not exist", with("/usr/bin/sleep infinity", "User=nobody-knows")),
    ] {
        machine.ok(&["rm", "-f", "/srv/once"]);
        push(&machine, "infra", &[Text("systemd/app.service", &unit)]);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, 3, "{what}: {:#}\n{}", run.result, run.log);
        assert!(run.reason().contains("app.service"), "{what}: {}", run.reason());
        assert_eq!(show(&machine, "app.service", "ActiveState"), "active", "{what}");
        assert_eq!(show(&machine, "app.service", "Description"), "app 1", "{what}");
        assert_eq!(deployed(&machine, "infra"), good, "{what}");
    }
}

#[test]
fn an_old_version_that_does_not_come_back_is_named_with_its_state() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    // It runs while a file is there that its successor takes away.
    let old = "[Service]\nType=exec\nExecStartPre=/usr/bin/test -e /srv/needed\nExecStart=/usr/bin/sleep infinity\n\
               [Install]\nWantedBy=multi-user.target\n";
    machine.write("/srv/needed", "");
    let good =
        push(&machine, "infra", &[Text("systemd/app.service", old), Text("systemd/b.service", &service("b", "1"))]);
    sync(&machine, "infra").expect(0);
    let new = "[Service]\nExecStartPre=/usr/bin/rm -f /srv/needed\nExecStart=/usr/bin/false\n";
    push(&machine, "infra", &[Text("systemd/app.service", new), Text("systemd/b.service", &service("b", "2"))]);
    let run = sync(&machine, "infra").expect(4);
    assert!(run.reason().contains("app.service is failed"), "{}", run.reason());
    // Everything else is back.
    assert_eq!(show(&machine, "b.service", "Description"), "b 1");
    assert_eq!(show(&machine, "b.service", "ActiveState"), "active");
    assert_eq!(machine.read("/etc/systemd/system/app.service"), old);
    // It is tried again, and said again, until it works.
    let run = sync(&machine, "infra").expect(4);
    assert!(run.reason().contains("app.service is failed"), "{}", run.reason());
    machine.write("/srv/needed", "");
    sync(&machine, "infra").expect(3);
    assert_eq!(show(&machine, "app.service", "ActiveState"), "active");
    assert_eq!(deployed(&machine, "infra"), good);
}

#[test]
fn a_health_url_that_does_not_answer_takes_units_back_too() {
    let Some(machine) = Machine::boot() else { return };
    configure(
        &machine,
        &[repository("infra", "health = { grace_seconds = 3, url = \"http://127.0.0.1:9000/healthz\" }")],
    );
    let web = |status: &str| {
        format!(
            "[Unit]\nDescription=web {status}\n[Service]\nExecStart=/usr/bin/perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:9000\", \
             Listen => 5, ReuseAddr => 1) or die; while (my $c = $s->accept) {{ sysread $c, my $b, 4096; print $c \"HTTP/1.1 {status}\\\\r\\\\nContent-Length: 0\\\\r\\\\nConnection: close\\\\r\\\\n\\\\r\\\\n\"; close $c }}'\n\
             [Install]\nWantedBy=multi-user.target\n"
        )
    };
    push(&machine, "infra", &[Text("systemd/web.service", &web("200 OK"))]);
    let run = sync(&machine, "infra");
    let journal = machine.run(&["journalctl", "--no-pager", "-u", "web.service"]);
    assert_eq!(run.exit, 0, "{:#} {}", run.result, describe(&journal));
    push(&machine, "infra", &[Text("systemd/web.service", &web("500 Broken"))]);
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("healthz") && run.reason().contains("500"), "{}", run.reason());
    assert_eq!(show(&machine, "web.service", "Description"), "web 200 OK");
    assert_eq!(show(&machine, "web.service", "ActiveState"), "active");
}

#[test]
fn a_unit_that_got_its_first_install_section_is_stopped_and_disabled_again() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "after = [\"/usr/bin/test\", \"!\", \"-e\", \"bad\"]")]);
    let without = service("late", "1").replace("[Install]\nWantedBy=multi-user.target\n", "");
    push(&machine, "infra", &[Text("systemd/late.service", &without)]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "late.service", "ActiveState"), "inactive");
    push(&machine, "infra", &[Text("bad", ""), Text("systemd/late.service", &service("late", "2"))]);
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("after"), "{}", run.reason());
    assert_eq!(log(&machine), ["start late 2", "stop late 2"]);
    assert_eq!(show(&machine, "late.service", "ActiveState"), "inactive");
    assert_eq!(dangling(&machine), "");
    assert!(!machine.exists("/etc/systemd/system/multi-user.target.wants/late.service"));
    push(&machine, "infra", &[Gone("bad")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(log(&machine), ["start late 2"]);
    assert_eq!(machine.ok(&["systemctl", "is-enabled", "late.service"]), "enabled\n");
}

#[test]
fn a_first_deployment_that_fails_leaves_nothing() {
    let Some(machine) = Machine::boot() else { return };
    // Units may lie in another folder than the links that enable them.
    let folder = "/usr/local/lib/systemd/system";
    configure(&machine, &[format!("[gitops]\nunits_dir = \"{folder}\"\n"), repository("infra", "")]);
    let units = |exec: &str| format!("[Service]\nExecStart={exec}\n[Install]\nWantedBy=multi-user.target\n");
    let files = [
        Text("systemd/app.service", &service("app", "1")),
        Text("systemd/app.service.d/a.conf", "[Service]\nNice=1\n"),
        Text("systemd/bad.service", &units("/usr/bin/false")),
    ];
    push(&machine, "infra", &files);
    sync(&machine, "infra").expect(3);
    assert_eq!(log(&machine), ["start app 1", "stop app 1"]);
    assert_eq!(machine.ok(&["find", folder, "-mindepth", "1"]), "");
    let links = machine.ok(&["find", "/etc/systemd/system", "-name", "app*", "-o", "-name", "bad*"]);
    assert_eq!(links, "");
    assert_eq!(machine.ok(&["find", "/srv/infra", "-mindepth", "1", "-not", "-path", "*/.git*"]), "");
    assert_eq!(show(&machine, "bad.service", "LoadState"), "not-found");
    assert_eq!(machine.ok(&["systemctl", "--failed", "--plain", "--no-legend"]), "");
    push(&machine, "infra", &[Text("systemd/bad.service", &units("/usr/bin/sleep infinity"))]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "app.service", "FragmentPath"), format!("{folder}/app.service"));
    assert_eq!(machine.ok(&["systemctl", "is-enabled", "app.service", "bad.service"]), "enabled\nenabled\n");
    push(&machine, "infra", &[Gone("systemd/bad.service")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(dangling(&machine), "");
}

#[test]
fn a_unit_that_ran_before_it_was_to_be_enabled_takes_up_its_new_version() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let without = service("late", "1").replace("[Install]\nWantedBy=multi-user.target\n", "");
    push(&machine, "infra", &[Text("systemd/late.service", &without)]);
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "start", "late.service"]);
    push(&machine, "infra", &[Text("systemd/late.service", &service("late", "2"))]);
    sync(&machine, "infra").expect(0);
    assert_eq!(log(&machine), ["start late 1", "stop late 2", "start late 2"]);
    assert_eq!(machine.ok(&["systemctl", "is-enabled", "late.service"]), "enabled\n");
}
