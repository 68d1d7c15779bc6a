//! The hub deploys itself: last, without waiting, and never the worker that does it.

use std::path::Path;

use crate::gitops::{
    Gone, SOON, Text, configure, dangling, deliver, deployed, push, record, repository, service, show, start_hub,
    starts, sync, sync_with, wait_deployed,
};
use crate::machine::Machine;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_push_that_changes_the_hubs_own_units_is_recorded_and_the_next_delivery_works() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("hub", "own = true")]);
    let names = ["gitops-sync.service", "gitops-sync.path", "gitops-sync.timer", "proxy.service"];
    // Where contrib/install puts them; the package has them in /usr/lib, whence they come back when these are removed.
    for name in names {
        machine.ok(&["mv", &format!("/usr/lib/systemd/system/{name}"), "/etc/systemd/system/"]);
    }
    machine.ok(&["systemctl", "daemon-reload"]);
    let of = |mark: &str| {
        names.map(|name| (format!("systemd/{name}"), shipped(name).replace("[Unit]\n", &format!("[Unit]\n# {mark}\n"))))
    };
    let push_all = |mark: &str| {
        let files = of(mark);
        push(&machine, "hub", &files.each_ref().map(|(name, content)| Text(name, content)))
    };
    // The installed files, equal: adopted, nothing restarted.
    machine.ok(&["systemctl", "enable", "--now", "gitops-sync.timer"]);
    start_hub(&machine);
    let proxy = show(&machine, "proxy.service", "InvocationID");
    let files = names.map(|name| (format!("systemd/{name}"), shipped(name)));
    let adopted = push(&machine, "hub", &files.each_ref().map(|(name, content)| Text(name, content)));
    deliver(&machine, "hub");
    wait_deployed(&machine, "hub", &adopted);
    assert_eq!(show(&machine, "proxy.service", "InvocationID"), proxy);

    // All of them change.
    let mut before = proxy;
    for mark in ["one", "two"] {
        let changed = push_all(mark);
        deliver(&machine, "hub");
        wait_deployed(&machine, "hub", &changed);
        machine.wait_for("a new proxy", SOON, || {
            let now = show(&machine, "proxy.service", "InvocationID");
            now != before && show(&machine, "proxy.service", "SubState") == "running"
        });
        before = show(&machine, "proxy.service", "InvocationID");
        let run = record(&machine);
        assert_eq!(
            (&run["status"], &run["details"]["repositories"][0]["to"]),
            (&"deployed".into(), &changed.clone().into()),
            "{run:#}"
        );
        for name in names {
            assert!(machine.read(&format!("/etc/systemd/system/{name}")).contains(&format!("# {mark}")), "{name}");
            assert_eq!(show(&machine, name, "NeedDaemonReload"), "no", "{name}");
        }
        for name in ["gitops-sync.path", "gitops-sync.timer"] {
            assert_eq!(show(&machine, name, "ActiveState"), "active", "{name}");
        }
        assert!(!machine.exists("/var/lib/observability-hub/gitops/own-units.json"));
        assert_eq!(show(&machine, "gitops-sync.service", "Result"), "success");
    }
    // One run each, none of them cut off: a killed one would leave its journal and be done again.
    assert!(starts(&machine, "gitops-sync.service") <= 6);
    let log = machine.journal("gitops-sync.service");
    assert!(!log.iter().any(|entry| entry["MESSAGE"].as_str().is_some_and(|text| text.contains("interrupted"))));

    // An operator's stop is kept, and a removed unit goes.
    machine.ok(&["systemctl", "stop", "gitops-sync.timer"]);
    let files = of("three");
    let mut removal: Vec<_> = files.iter().map(|(name, content)| Text(name, content)).collect();
    removal[3] = Gone("systemd/proxy.service");
    let last = push(&machine, "hub", &removal);
    deliver(&machine, "hub");
    wait_deployed(&machine, "hub", &last);
    machine.wait_for("the proxy to stop", SOON, || show(&machine, "proxy.service", "ActiveState") == "inactive");
    assert!(!machine.exists("/etc/systemd/system/proxy.service"));
    assert!(!machine.exists("/etc/systemd/system/multi-user.target.wants/proxy.service"));
    assert_eq!(show(&machine, "gitops-sync.timer", "ActiveState"), "inactive");
    assert_eq!(show(&machine, "gitops-sync.path", "ActiveState"), "active");
}

#[test]
fn the_gateway_is_probed_like_any_other_unit_and_a_packaged_unit_comes_back_as_it_was() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("hub", "own = true\nhealth = { grace_seconds = 2 }")]);
    start_hub(&machine);
    let marked = |name: &str| shipped(name).replace("[Unit]\n", "[Unit]\n# ours\n");
    let (proxy, timer) = (marked("proxy.service"), marked("system-metrics.timer"));
    let names = ["proxy.service", "system-metrics.timer"];
    let packaged = names.map(|name| show(&machine, name, "FragmentPath"));
    push(&machine, "hub", &[Text("systemd/proxy.service", &proxy), Text("systemd/system-metrics.timer", &timer)]);
    sync(&machine, "hub").expect(0);
    for name in names {
        assert_eq!(show(&machine, name, "FragmentPath"), format!("/etc/systemd/system/{name}"));
        assert_eq!(show(&machine, name, "ActiveState"), "active", "{name}");
    }
    // A gateway that does not run is taken back.
    let broken = proxy.replace("ExecStart=/usr/bin/proxy", "ExecStart=/usr/bin/false");
    assert_ne!(broken, proxy);
    push(&machine, "hub", &[Text("systemd/proxy.service", &broken)]);
    let run = sync(&machine, "hub").expect(3);
    assert!(run.reason().contains("proxy.service"), "{}", run.reason());
    assert_eq!(show(&machine, "proxy.service", "ActiveState"), "active");
    // The packaged ones come to light: one ran and was enabled, the other not.
    push(&machine, "hub", &[Gone("systemd/proxy.service"), Gone("systemd/system-metrics.timer")]);
    sync_with(&machine, &["--remove-all", "acme/hub"]).expect(0);
    assert_eq!(names.map(|name| show(&machine, name, "FragmentPath")), packaged);
    assert_eq!(names.map(|name| show(&machine, name, "ActiveState")), ["active", "inactive"]);
    assert_eq!(names.map(|name| show(&machine, name, "UnitFileState")), ["enabled", "disabled"]);
    assert_eq!(dangling(&machine), "");
}

#[test]
fn no_mount_of_an_ordinary_repository_hides_what_the_hub_lives_on() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let first = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    let mount = |point: &str| {
        format!("[Mount]\nWhat=tmpfs\nWhere={point}\nType=tmpfs\n[Install]\nWantedBy=multi-user.target\n")
    };
    for (unit, point) in [
        ("var-lib-observability\\x2dhub.mount", "/var/lib/observability-hub"),
        ("var-lib.mount", "/var/lib"),
        ("var-lib-observability\\x2dhub-gitops-journal.mount", "/var/lib/observability-hub/gitops/journal"),
        ("etc-systemd-system.mount", "/etc/systemd/system"),
        ("etc-observability\\x2dhub.mount", "/etc/observability-hub"),
        ("usr-bin.mount", "/usr/bin"),
    ] {
        let path = format!("systemd/{unit}");
        push(&machine, "infra", &[Text(&path, &mount(point))]);
        let run = sync(&machine, "infra").expect(5);
        assert!(run.reason().contains(&format!("{unit} would hide")), "{}", run.reason());
        assert_eq!(deployed(&machine, "infra"), first);
        push(&machine, "infra", &[Gone(&path)]);
    }
    let automount = "[Automount]\nWhere=/etc/credstore\n[Install]\nWantedBy=multi-user.target\n";
    let files = [
        Text("systemd/etc-credstore.automount", automount),
        Text("systemd/etc-credstore.mount", &mount("/etc/credstore")),
    ];
    push(&machine, "infra", &files);
    assert!(sync(&machine, "infra").expect(5).reason().contains("etc-credstore.automount would hide"));
    let files = [
        Gone("systemd/etc-credstore.automount"),
        Gone("systemd/etc-credstore.mount"),
        Text("systemd/srv-data.mount", &mount("/srv/data")),
    ];
    let last = push(&machine, "infra", &files);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), last);
    assert_eq!(show(&machine, "srv-data.mount", "ActiveState"), "active");
}

#[test]
fn no_unit_of_an_ordinary_repository_takes_the_hub_down() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let first = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    start_hub(&machine);
    let units = ["proxy.service", "gitops-sync.path"];
    let up = || units.map(|unit| show(&machine, unit, "InvocationID"));
    let before = up();
    let with = |unit: &str, install: &str| {
        format!(
            "[Unit]\n{unit}\n[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n{install}\n"
        )
    };
    for (file, content, takes) in [
        ("x.service", with("Conflicts=gitops-sync.service", ""), "x.service takes gitops-sync.service down"),
        ("x.service", with("PropagatesStopTo=a.service gitops-sync.path", ""), "x.service takes gitops-sync.path down"),
        ("x.service", with("", "RequiredBy=proxy.service"), "x.service takes proxy.service down"),
        ("x.service", with("DefaultDependencies=no\nConflicts=sysinit.target", ""), "x.service takes "),
        // By a template's specifier, and what another unit starts.
        (
            "x@.service",
            with("Conflicts=%i.service", "DefaultInstance=proxy"),
            "x@proxy.service takes proxy.service down",
        ),
        ("app.service", with("Wants=x@proxy.service", ""), "x@proxy.service takes proxy.service down"),
    ] {
        let path = format!("systemd/{file}");
        let template = with("Conflicts=%i.service", "").replace("WantedBy=multi-user.target", "");
        let mut files = vec![Text(&path, &content)];
        if file == "app.service" {
            files.push(Text("systemd/x@.service", &template));
        }
        push(&machine, "infra", &files);
        let run = sync(&machine, "infra").expect(3);
        assert!(run.reason().contains(takes), "{content}: {}", run.reason());
        assert_eq!(up(), before, "{content}");
        assert_eq!(deployed(&machine, "infra"), first);
        assert!(!machine.exists(&format!("/etc/systemd/system/{file}")) || file == "app.service");
        assert_eq!(show(&machine, "app.service", "ActiveState"), "active");
        push(
            &machine,
            "infra",
            &[Gone(&path), Gone("systemd/x@.service"), Text("systemd/app.service", &service("app", "1"))],
        );
    }
    // What goes down at a shutdown only, and needs the hub, may.
    let fine = with("Conflicts=shutdown.target rescue.target\nRequires=proxy.service\nPartOf=proxy.service", "");
    let last = push(&machine, "infra", &[Text("systemd/x.service", &fine)]);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), last);
    // The host's owner may say otherwise.
    configure(&machine, &[repository("infra", "own = true")]);
    push(&machine, "infra", &[Text("systemd/x.service", &with("Conflicts=tailscale-gate.service", ""))]);
    sync(&machine, "infra").expect(0);
}
