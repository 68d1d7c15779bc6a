//! Units whose repository is renamed, removed or pruned by accident: they go only where somebody said so.

use crate::gitops::{
    File, Gone, Link, Text, configure, dangling, log, push, repository, service, show, sync, sync_with,
};
use crate::machine::{Machine, describe};

const STATE: &str = "/var/lib/observability-hub/gitops";

fn renamed(name: &str, more: &str) -> String {
    // The forge redirects the remote; the checkout stays where it is.
    repository("infra", more).replacen("acme/infra", name, 1)
}

fn owners(machine: &Machine) -> Vec<String> {
    let manifest: serde_json::Value =
        serde_json::from_str(&machine.read(&format!("{STATE}/manifest.json"))).expect("JSON");
    let files = manifest["files"].as_object().expect("a table");
    files.iter().map(|(file, owned)| format!("{file} {}", owned["repository"].as_str().unwrap_or("?"))).collect()
}

/// What `hub status` and `hub doctor` say of a name.
fn told(machine: &Machine, about: &str) -> [String; 2] {
    let find = |command: &str, list: &str, about: &str, key: &str| {
        let output = machine.run(&["hub", command, "--json"]);
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let found = said[list].as_array().expect("a list").iter().find(|one| one["about"] == about).cloned();
        found.map_or_else(String::new, |one| format!("{}; {}", one[key].as_str().unwrap_or("?"), one["mend"]))
    };
    [find("status", "reasons", about, "reason"), find("doctor", "findings", &format!("repository {about}"), "finding")]
}

#[test]
fn units_do_not_go_by_accident() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "units = \"deploy/systemd\"")]);
    let (a, b) = (service("a", "1"), service("b", "1"));
    let there = [Text("deploy/systemd/a.service", &a), Text("deploy/systemd/b.service", &b), Text("x", "1")];
    push(&machine, "infra", &there);
    sync(&machine, "infra").expect(0);
    let running = |unit: &str| show(&machine, unit, "InvocationID");
    let before = [running("a.service"), running("b.service")];
    log(&machine);
    let gone = || [Gone("deploy/systemd/a.service"), Gone("deploy/systemd/b.service")];
    let cases: Vec<(&str, Vec<File>, &[&str])> = vec![
        (
            "the folder is renamed",
            vec![Gone("deploy/systemd"), Text("deploy/units/a.service", &a), Text("deploy/units/b.service", &b)],
            &["units are in deploy/units now", "units = \"deploy/units\"", "gitops-sync acme/infra --remove-all"],
        ),
        (
            "a folder above is renamed",
            vec![Gone("deploy"), Text("etc/systemd/a.service", &a), Text("etc/systemd/b.service", &b)],
            &["units are in etc/systemd now", "units = \"etc/systemd\""],
        ),
        (
            "the folder is a link",
            vec![Gone("deploy/systemd"), Text("deploy/units/a.service", &a), Link("deploy/systemd", "units")],
            &["deploy/systemd is a link to units", "units = \"FOLDER\""],
        ),
        (
            "a folder above is a link",
            vec![Gone("deploy"), Text("etc/systemd/a.service", &a), Link("deploy", "etc")],
            &["deploy is a link to etc"],
        ),
        ("the folder is a file", vec![Gone("deploy/systemd"), Text("deploy/systemd", "x")], &["all 2 of acme/infra"]),
        (
            "all units go",
            gone().into_iter().collect(),
            &["all 2 of acme/infra: a.service b.service", "gitops-sync acme/infra --remove-all", "units = \"\""],
        ),
        (
            "all units go and a README stays",
            gone().into_iter().chain([Text("deploy/systemd/README.md", "x")]).collect(),
            &["all 2 of acme/infra"],
        ),
        (
            "all units move into a folder below",
            gone()
                .into_iter()
                .chain([Text("deploy/systemd/off/a.service", &a), Text("deploy/systemd/off/b.service", &b)])
                .collect(),
            &["all 2 of acme/infra"],
        ),
    ];
    for (what, files, parts) in cases {
        push(&machine, "infra", &files);
        let run = sync(&machine, "infra").expect(5);
        for part in parts {
            assert!(run.reason().contains(part), "{what}: no {part:?} in {}", run.reason());
        }
        assert_eq!(machine.read("/srv/infra/x"), "1");
        push(&machine, "infra", &[Gone("deploy"), Gone("etc")]);
        push(&machine, "infra", &there[..2]);
        sync(&machine, "infra").expect(0);
    }
    assert_eq!(([running("a.service"), running("b.service")], log(&machine)), (before, Vec::new()));

    // hub.toml names another folder before the commit does.
    configure(&machine, &[repository("infra", "units = \"units\"")]);
    assert!(sync(&machine, "infra").expect(5).reason().contains("units = \"deploy/systemd\""));
    // Without units of its own it leaves them as they are, and takes them away where that is asked for.
    configure(&machine, &[repository("infra", "units = \"\"")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "a.service", "ActiveState"), "active");
    configure(&machine, &[repository("infra", "units = \"deploy/systemd\"")]);
    // One unit of two is an ordinary removal, and so is the last one, though its folder goes with it.
    push(&machine, "infra", &[Gone("deploy/systemd/a.service")]);
    sync(&machine, "infra").expect(0);
    push(&machine, "infra", &[Gone("deploy/systemd/b.service"), Text("units/b.service", &b)]);
    assert!(sync(&machine, "infra").expect(5).reason().contains("units are in units now"));
    push(&machine, "infra", &[Gone("units/b.service")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "b.service", "LoadState"), "not-found");

    push(&machine, "infra", &there);
    sync(&machine, "infra").expect(0);
    push(&machine, "infra", &gone());
    sync(&machine, "infra").expect(5);
    sync_with(&machine, &["--remove-all"]).expect(2);
    sync_with(&machine, &["acme/infra", "--remove-all", "--dry-run"]).expect(0);
    assert_eq!(show(&machine, "a.service", "ActiveState"), "active");
    sync_with(&machine, &["acme/infra", "--remove-all"]).expect(0);
    assert_eq!((show(&machine, "a.service", "LoadState"), dangling(&machine)), ("not-found".into(), String::new()));
    assert_eq!(owners(&machine), [] as [String; 0]);
}

#[test]
fn a_renamed_repository_keeps_its_units() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(
        &machine,
        "infra",
        &[Text("systemd/a.service", &service("a", "1")), Text("systemd/b.service", &service("b", "1"))],
    );
    sync(&machine, "infra").expect(0);
    let a = show(&machine, "a.service", "InvocationID");
    // First nobody thinks of it: the units are somebody's who is gone.
    configure(&machine, &[renamed("other/site", "")]);
    let run = sync_with(&machine, &["other/site"]).expect(5);
    for part in ["gone from hub.toml", "formerly = [\"acme/infra\"]", "--adopt a.service", "hub remove acme/infra"] {
        assert!(run.reason().contains(part), "no {part:?} in {}", run.reason());
    }
    configure(&machine, &[renamed("other/site", "formerly = [\"acme/infra\"]")]);
    push(&machine, "infra", &[Text("systemd/b.service", &service("b", "2"))]);
    let run = sync_with(&machine, &["other/site"]).expect(0);
    assert_eq!(run.actions(), ["restarted b.service"]);
    assert_eq!(show(&machine, "a.service", "InvocationID"), a);
    assert_eq!(owners(&machine), ["a.service other/site", "b.service other/site"]);
    assert_eq!(told(&machine, "acme/infra"), ["", ""]);
    // Renamed in the middle of a deployment that the host did not survive.
    push(
        &machine,
        "infra",
        &[
            Text("systemd/b.service", &service("b", "3")),
            Text("systemd/c.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n"),
        ],
    );
    configure(
        &machine,
        &[renamed("other/site", "formerly = [\"acme/infra\"]\nafter = [\"/usr/bin/sleep\", \"infinity\"]")],
    );
    machine.ok(&["systemd-run", "--unit=run", "--collect", "gitops-sync", "other/site"]);
    machine
        .wait_for("the new version of b", crate::gitops::SOON, || show(&machine, "b.service", "Description") == "b 3");
    machine.wait_for("the last step", crate::gitops::SOON, || {
        machine.run(&["grep", "-q", "\"after\"", &format!("{STATE}/journal/other__site.json")]).status.success()
    });
    machine.ok(&["systemctl", "kill", "--signal=KILL", "run.service"]);
    configure(&machine, &[renamed("third/site", "formerly = [\"acme/infra\", \"other/site\"]")]);
    let run = sync_with(&machine, &["third/site"]).expect(0);
    assert!(run.log.contains("interrupted_deployment_undone"), "{}", run.log);
    assert_eq!(owners(&machine), ["a.service third/site", "b.service third/site", "c.service third/site"]);
    assert_eq!(
        (show(&machine, "b.service", "Description"), show(&machine, "a.service", "InvocationID")),
        ("b 3".into(), a)
    );
    assert_eq!(machine.ok(&["find", STATE, "-name", "*acme__infra*", "-o", "-name", "*other__site*"]), "");
    assert_eq!(machine.run(&["systemctl", "is-active", "hub-after-other__site.service"]).stdout, b"inactive\n");
}

#[test]
fn a_repository_that_is_gone_from_the_configuration_is_named_adopted_from_and_removed() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("old", ""), repository("infra", "")]);
    machine.write("/etc/systemd/system/taken.service", service("taken", "theirs"));
    let unit = |name: &str| service(name, "1");
    let (one, two, timer) =
        (unit("one"), unit("two"), "[Timer]\nOnCalendar=2030-01-01\n[Install]\nWantedBy=timers.target\n");
    push(
        &machine,
        "old",
        &[
            Text("systemd/one.service", &one),
            Text("systemd/two.service", &two),
            Text("systemd/two.service.d/nice.conf", "[Service]\nNice=3\n"),
            Text("systemd/two.timer", timer),
            Text("systemd/three.service", &unit("three")),
            Text("systemd/taken.service", &unit("taken")),
            Text("systemd/worker@.service", &unit("worker-%i")),
        ],
    );
    push(&machine, "infra", &[Text("systemd/app.service", &unit("app"))]);
    sync_with(&machine, &["acme/old", "--adopt", "taken.service"]).expect(0);
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "start", "worker@x.service"]);
    assert!(String::from_utf8_lossy(&machine.run(&["hub", "remove", "acme/old"]).stderr).contains("still in hub.toml"));

    configure(&machine, &[repository("infra", "")]);
    for said in told(&machine, "acme/old") {
        assert!(said.contains("gone from hub.toml and still owns 7 unit files: one.service"), "{said}");
        assert!(said.contains("hub remove acme/old"), "{said}");
    }
    // What another repository brings now may be taken over, each unit by its name.
    let first = show(&machine, "one.service", "InvocationID");
    let three = service("three", "2");
    push(&machine, "infra", &[Text("systemd/one.service", &one), Text("systemd/three.service", &three)]);
    sync(&machine, "infra").expect(5);
    sync_with(&machine, &["acme/infra", "--adopt", "one.service"]).expect(5);
    let run = sync_with(&machine, &["acme/infra", "--adopt", "one.service", "--adopt", "three.service"]).expect(0);
    assert_eq!(run.actions(), ["restarted three.service"]);
    assert_eq!(show(&machine, "one.service", "InvocationID"), first);
    assert!(owners(&machine).contains(&"one.service acme/infra".to_owned()), "{:?}", owners(&machine));

    // An operator's edit of what goes is kept.
    machine.write("/etc/systemd/system/two.service", service("two", "by hand"));
    log(&machine);
    let before = machine.ok(&["find", "/etc/systemd/system", STATE, "-printf", "%p %T@\n"]);
    let planned = machine.ok(&["hub", "remove", "Acme/OLD", "--dry-run"]);
    assert!(planned.contains("to stop and remove two.timer") && !planned.contains("one.service"), "{planned}");
    assert_eq!(before, machine.ok(&["find", "/etc/systemd/system", STATE, "-printf", "%p %T@\n"]));
    // Killed while a unit stops, and begun again.
    machine.write("/etc/systemd/system/two.service.d/slow.conf", "[Service]\nExecStop=/usr/bin/sleep 3\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemd-run", "--unit=remove", "--collect", "hub", "remove", "acme/old"]);
    machine.wait_for("a unit to stop", crate::gitops::SOON, || {
        show(&machine, "two.service", "ActiveState") == "deactivating"
    });
    let busy = machine.run(&["hub", "remove", "acme/old"]);
    assert_eq!(busy.status.code(), Some(75), "{}", describe(&busy));
    machine.ok(&["systemctl", "kill", "--signal=KILL", "remove.service"]);
    machine.wait_for("it to end", crate::gitops::SOON, || show(&machine, "remove.service", "ActiveState") != "active");
    assert!(told(&machine, "acme/old")[0].contains("gone from hub.toml"));
    let said = machine.ok(&["hub", "remove", "acme/old"]);
    assert!(said.contains("its checkout stays") && said.contains("saved/acme__old"), "{said}");
    for name in ["two.service", "two.timer", "taken.service", "worker@x.service"] {
        assert_ne!(show(&machine, name, "ActiveState"), "active", "{name}");
        assert!(!machine.exists(&format!("/etc/systemd/system/{name}")), "{name}");
    }
    assert_eq!(machine.ok(&["ls", "/etc/systemd/system/two.service.d"]), "slow.conf\n");
    assert_eq!(dangling(&machine), "");
    assert_eq!(owners(&machine), ["app.service acme/infra", "one.service acme/infra", "three.service acme/infra"]);
    assert_eq!(show(&machine, "one.service", "InvocationID"), first);
    let left = machine.ok(&["find", STATE, "-name", "*acme__old*"]);
    assert_eq!(left.trim(), format!("{STATE}/saved/acme__old"));
    assert_eq!(
        machine.ok(&["sh", "-c", &format!("cat {STATE}/saved/acme__old/two.service.*")]),
        service("two", "by hand")
    );
    assert!(machine.exists("/srv/old/.git"));
    assert_eq!(told(&machine, "acme/old"), ["", ""]);
    let again = machine.run(&["hub", "remove", "acme/nobody"]);
    assert_eq!(again.status.code(), Some(2), "{}", describe(&again));
}

#[test]
fn two_branches_of_one_repository_have_units_and_builds_of_their_own() {
    let Some(machine) = Machine::boot() else { return };
    let build = "build = [\"/usr/bin/sh\", \"-c\", \"echo $HUB_REPOSITORY > built\"]";
    let second = repository("infra", &format!("{build}\nbranch = \"staging\"\nid = \"acme/infra@staging\""))
        .replace("path = \"/srv/infra\"", "path = \"/srv/staging\"");
    configure(&machine, &[repository("infra", build), second]);
    push(&machine, "infra", &[Text("systemd/a.service", &service("a", "1")), Text("lock", "1")]);
    let staging = [Text("systemd/a-staging.service", &service("a-staging", "1")), Text("built", "tracked")];
    crate::gitops::push_to(&machine, "infra", "staging", &staging);
    crate::gitops::start_hub(&machine);
    machine.ok(&["hub", "webhook-test", "acme/infra"]);
    machine.ok(&["hub", "webhook-test", "Acme/Infra@staging"]);
    for unit in ["a.service", "a-staging.service"] {
        machine.wait_for(unit, crate::gitops::SOON, || show(&machine, unit, "ActiveState") == "active");
    }
    for (id, checkout) in [("acme__infra", "infra"), ("acme__infra@staging", "staging")] {
        machine.wait_for(id, crate::gitops::SOON, || machine.exists(&format!("{STATE}/deployed/{id}.json")));
        assert_eq!(machine.read(&format!("/srv/{checkout}/built")), "acme/infra\n");
    }
    machine.wait_for("the worker to end", crate::gitops::SOON, || {
        show(&machine, "gitops-sync.service", "ActiveState") != "activating"
    });
    assert_eq!(owners(&machine), ["a-staging.service acme/infra@staging", "a.service acme/infra"]);
    // The build's own change does not block the next commit, and units are not the other's to take.
    crate::gitops::push_to(
        &machine,
        "infra",
        "staging",
        &[Text("built", "other"), Text("systemd/a.service", &service("a", "2"))],
    );
    let run = sync_with(&machine, &["acme/infra@staging"]).expect(5);
    assert!(run.reason().contains("a.service belongs to the repository acme/infra;"), "{}", run.reason());
    crate::gitops::push_to(&machine, "infra", "staging", &[Gone("systemd/a.service")]);
    sync_with(&machine, &["acme/infra@staging"]).expect(0);
    assert_eq!(machine.read("/srv/staging/built"), "acme/infra\n");
}

#[test]
fn a_repository_that_went_in_the_middle_of_its_first_deployment_is_named_and_removed() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/etc/systemd/system/taken.service", service("taken", "theirs"));
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "taken.service"]);
    configure(&machine, &[repository("infra", "after = [\"/usr/bin/sleep\", \"infinity\"]")]);
    push(
        &machine,
        "infra",
        &[Text("systemd/a.service", &service("a", "1")), Text("systemd/taken.service", &service("taken", "1"))],
    );
    machine.ok(&["systemd-run", "--unit=run", "--collect", "gitops-sync", "acme/infra", "--adopt", "taken.service"]);
    machine.wait_for("the last step", crate::gitops::SOON, || {
        machine.run(&["grep", "-q", "\"after\"", &format!("{STATE}/journal/acme__infra.json")]).status.success()
    });
    machine.ok(&["systemctl", "kill", "--signal=KILL", "run.service"]);
    assert_eq!(show(&machine, "a.service", "ActiveState"), "active");
    configure(&machine, &[]);
    for said in told(&machine, "acme/infra") {
        assert!(
            said.contains("2 unit files: a.service taken.service") && said.contains("hub remove acme/infra"),
            "{said}"
        );
    }
    machine.ok(&["hub", "remove", "acme/infra", "--dry-run"]);
    assert_eq!(show(&machine, "a.service", "ActiveState"), "active");
    machine.ok(&["hub", "remove", "acme/infra"]);
    assert_eq!(show(&machine, "a.service", "LoadState"), "not-found");
    // What was somebody's before is that again.
    assert_eq!(machine.read("/etc/systemd/system/taken.service"), service("taken", "theirs"));
    assert_eq!(show(&machine, "taken.service", "Description"), "taken theirs");
    assert_eq!(show(&machine, "taken.service", "ActiveState"), "active");
    assert_eq!((told(&machine, "acme/infra"), dangling(&machine)), ([String::new(), String::new()], String::new()));
    assert_eq!(machine.run(&["systemctl", "is-active", "hub-after-acme__infra.service"]).stdout, b"inactive\n");
}
