//! Kinds of units besides services, units that belong together, and several repositories on one host.

use crate::gitops::{
    File, Gone, SOON, Text, configure, dangling, deployed, log, push, repository, service, show, sync, sync_with,
};
use crate::machine::Machine;

/// The current version of a service, from its log; the log is emptied.
fn happened(machine: &Machine) -> Vec<String> {
    let mut lines = log(machine);
    lines.sort();
    lines
}

#[test]
fn sockets_timers_paths_targets_slices_and_mounts_are_deployed() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let socket = |port: u16| format!("[Socket]\nListenStream=127.0.0.1:{port}\n[Install]\nWantedBy=sockets.target\n");
    let served = service("served", "1").replace("[Install]\nWantedBy=multi-user.target\n", "");
    let mount = |options: &str| {
        format!(
            "[Mount]\nWhat=tmpfs\nWhere=/srv/data\nType=tmpfs\nOptions={options}\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
    push(
        &machine,
        "infra",
        &[
            Text("systemd/served.socket", &socket(7001)),
            Text("systemd/served.service", &served),
            Text("systemd/idle.socket", &socket(7002)),
            Text("systemd/idle.service", &served.replace("served", "idle")),
            Text("systemd/srv-data.mount", &mount("size=1M")),
            Text("systemd/seen.path", "[Path]\nPathExists=/srv/seen\n[Install]\nWantedBy=multi-user.target\n"),
            Text("systemd/seen.service", &service("seen", "1").replace("[Install]\nWantedBy=multi-user.target\n", "")),
            Text("systemd/tick.timer", "[Timer]\nOnActiveSec=1h\n[Install]\nWantedBy=timers.target\n"),
            Text("systemd/tick.service", &service("tick", "1").replace("[Install]\nWantedBy=multi-user.target\n", "")),
            Text("systemd/all.target", "[Unit]\nDescription=All\n[Install]\nWantedBy=multi-user.target\n"),
            Text(
                "systemd/member.service",
                &service("member", "1").replace("multi-user.target", "all.target\n[Service]\nSlice=some.slice"),
            ),
            Text("systemd/some.slice", "[Slice]\nTasksMax=100\n"),
            Text(
                "systemd/fleet@.service",
                &service("fleet-%i", "1").replace("[Install]", "[Install]\nDefaultInstance=main"),
            ),
        ],
    );
    sync(&machine, "infra").expect(0);
    assert_eq!(happened(&machine), ["start fleet-main 1", "start member 1"]);
    for unit in [
        "served.socket",
        "idle.socket",
        "srv-data.mount",
        "seen.path",
        "tick.timer",
        "all.target",
        "fleet@main.service",
    ] {
        assert_eq!(show(&machine, unit, "ActiveState"), "active", "{unit}");
    }
    machine.ok(&["perl", "-MIO::Socket::INET", "-e", "IO::Socket::INET->new('127.0.0.1:7001') or die"]);
    machine.wait_for("the socket's service", SOON, || show(&machine, "served.service", "ActiveState") == "active");
    machine.write("/srv/data/kept", "x");
    log(&machine);

    // A socket whose service runs, one whose service does not, a remount, a timer, a path, a slice, a target.
    push(
        &machine,
        "infra",
        &[
            Text("systemd/served.socket", &socket(7011)),
            Text("systemd/served.service", &served.replace("served 1", "served 2")),
            Text("systemd/idle.socket", &socket(7012)),
            Text("systemd/srv-data.mount", &mount("size=2M")),
            Text("systemd/seen.path", "[Path]\nPathExists=/srv/other\n[Install]\nWantedBy=multi-user.target\n"),
            Text(
                "systemd/tick.timer",
                "[Timer]\nOnActiveSec=100ms\nAccuracySec=1ms\n[Install]\nWantedBy=timers.target\n",
            ),
            Text("systemd/all.target", "[Unit]\nDescription=All of them\n[Install]\nWantedBy=multi-user.target\n"),
            Text("systemd/some.slice", "[Slice]\nTasksMax=200\n"),
            Text(
                "systemd/fleet@.service",
                &service("fleet-%i", "2").replace("[Install]", "[Install]\nDefaultInstance=main"),
            ),
        ],
    );
    let run = sync(&machine, "infra").expect(0);
    machine.wait_for("the timer's service", SOON, || show(&machine, "tick.service", "ActiveState") == "active");
    assert_eq!(
        happened(&machine),
        ["start fleet-main 2", "start served 2", "start tick 1", "stop fleet-main 2", "stop served 2"],
        "{:#}",
        run.result
    );
    let listening = machine.read("/proc/net/tcp");
    for (port, expected) in [(7001, false), (7002, false), (7011, true), (7012, true)] {
        assert_eq!(listening.contains(&format!(":{port:04X} 00000000:0000 0A")), expected, "{port}: {listening}");
    }
    assert!(machine.read("/proc/mounts").lines().any(|line| line.contains("/srv/data") && line.contains("size=2048k")));
    assert_eq!(machine.read("/srv/data/kept"), "x", "the file system was taken away");
    assert_eq!(show(&machine, "all.target", "Description"), "All of them");
    assert_eq!(show(&machine, "some.slice", "TasksMax"), "200");
    machine.write("/srv/seen", "");
    assert_eq!(show(&machine, "seen.service", "ActiveState"), "inactive");
    machine.write("/srv/other", "");
    machine.wait_for("the path's service", SOON, || show(&machine, "seen.service", "ActiveState") == "active");

    // All of it goes.
    let names = [
        "served.socket",
        "served.service",
        "idle.socket",
        "idle.service",
        "srv-data.mount",
        "seen.path",
        "seen.service",
        "tick.timer",
        "tick.service",
        "all.target",
        "member.service",
        "some.slice",
        "fleet@.service",
    ]
    .map(|name| format!("systemd/{name}"));
    push(&machine, "infra", &names.each_ref().map(|name| Gone(name)));
    sync_with(&machine, &["acme/infra", "--remove-all"]).expect(0);
    for name in &names {
        let unit = name.trim_start_matches("systemd/").replace("@.", "@main.");
        assert_eq!(show(&machine, &unit, "ActiveState"), "inactive", "{unit}");
        assert!(!machine.exists(&format!("/etc/{name}").replace("systemd/", "systemd/system/")), "{name}");
    }
    assert!(!machine.read("/proc/mounts").contains("/srv/data"));
    assert_eq!(dangling(&machine), "");
}

#[test]
fn a_unit_that_another_one_pulls_along_restarts_once() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let bound = |version: &str| {
        service("a-front", version).replace("[Unit]\n", "[Unit]\nRequires=z-base.service\nAfter=z-base.service\n")
    };
    let files = |version: &str| {
        [("systemd/a-front.service", bound(version)), ("systemd/z-base.service", service("z-base", version))]
    };
    for version in ["1", "2"] {
        let files = files(version);
        push(&machine, "infra", &files.each_ref().map(|(name, text)| Text(name, text)));
        let run = sync(&machine, "infra").expect(0);
        let expected: &[&str] = match version {
            "1" => &["start a-front 1", "start z-base 1"],
            _ => &["start a-front 2", "start z-base 2", "stop a-front 2", "stop z-base 2"],
        };
        assert_eq!(happened(&machine), expected, "{:#}", run.result);
    }
}

#[test]
fn repositories_share_a_host_and_a_failing_one_does_not_stop_the_other() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("one", ""), repository("two", "")]);
    let first = push(&machine, "one", &[Text("systemd/one.service", &service("one", "1"))]);
    let second = push(&machine, "two", &[Text("systemd/two.service", &service("two", "1"))]);
    let run = sync_with(&machine, &[]).expect(0);
    assert_eq!(run.result["repositories"].as_array().map(Vec::len), Some(2), "{:#}", run.result);
    assert_eq!((deployed(&machine, "one"), deployed(&machine, "two")), (first.clone(), second));
    let broken: [File; 2] = [
        Text("systemd/one.service", &service("one", "2")),
        Text("systemd/more.service", "[Service]\nExecStart=/usr/bin/false\n[Install]\nWantedBy=multi-user.target\n"),
    ];
    push(&machine, "one", &broken);
    let fine = push(&machine, "two", &[Text("systemd/two.service", &service("two", "2"))]);
    let run = sync_with(&machine, &["acme/one", "acme/two"]).expect(3);
    assert_eq!(run.result["repositories"][0]["status"], "rolled_back");
    assert_eq!(run.result["repositories"][1]["status"], "deployed");
    assert_eq!((deployed(&machine, "one"), deployed(&machine, "two")), (first, fine));
    assert_eq!(show(&machine, "one.service", "Description"), "one 1");
    // A unit that moves from one repository to another.
    push(&machine, "two", &[Text("systemd/one.service", &service("one", "3"))]);
    sync(&machine, "two").expect(5);
    push(&machine, "one", &[Gone("systemd/one.service"), Gone("systemd/more.service")]);
    sync(&machine, "one").expect(0);
    sync(&machine, "two").expect(0);
    assert_eq!(show(&machine, "one.service", "Description"), "one 3");
    assert_eq!(show(&machine, "one.service", "ActiveState"), "active");
}
