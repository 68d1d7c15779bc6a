//! What is not deployed, why, and that it touches nothing.

use crate::gitops::{
    Bytes, File, Gone, Link, Text, configure, deployed, log, push, push_to, repository, service, show, sync, sync_with,
};
use crate::machine::{Machine, describe};

/// Everything about the host that a refused commit must not change.
fn fingerprint(machine: &Machine) -> String {
    machine.ok(&[
        "sh",
        "-c",
        "cd /etc/systemd/system && find . -printf '%p %l %s %m %T@\\n' | sort; cat /srv/infra/version; \
         git -c safe.directory=* -C /srv/infra rev-parse HEAD; git -c safe.directory=* -C /srv/infra status --porcelain; \
         systemctl list-units --all --plain --no-legend '*.service' '*.timer' '*.socket' | grep -v -e gitops -e systemd- | sort",
    ])
}

#[test]
fn each_kind_of_unit_that_must_not_be_deployed_is_refused_with_its_reason() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", ""), repository("other", "")]);
    let good = push(&machine, "infra", &[Text("version", "1"), Text("systemd/app.service", &service("app", "1"))]);
    push(&machine, "other", &[Text("systemd/theirs.service", &service("theirs", "1"))]);
    sync(&machine, "infra").expect(0);
    sync(&machine, "other").expect(0);
    machine.write("/etc/systemd/system/local@.service", service("local-%i", "1"));
    machine.write("/etc/systemd/system/foreign.service", service("foreign", "1"));
    machine.ok(&["systemctl", "daemon-reload"]);
    let app = show(&machine, "app.service", "InvocationID");
    log(&machine);
    let before = fingerprint(&machine);

    let plain = service("x", "1");
    let large = format!("{plain}#{}\n", "x".repeat(300 << 10));
    let aliased = |alias: &str| format!("{plain}Alias={alias}\n");
    let (ssh, on_local, own_alias) = (aliased("dbus.service"), aliased("theirs.service"), aliased("no-unit"));
    let broken = "[Service]\nExecStart=/usr/bin/no-such-program\n";
    let empty = "[Service]\nRestart=always\n";
    let cases: Vec<(&str, Vec<File>, &str)> = vec![
        ("a link", vec![Link("systemd/x.service", "/etc/shadow")], "x.service is a link"),
        ("a drop-in that is a link", vec![Link("systemd/app.service.d/x.conf", "/etc/shadow")], "is a link"),
        ("a space", vec![Text("systemd/a b.service", &plain)], "is not a name for a unit"),
        ("a newline", vec![Text("systemd/a\nb.service", &plain)], "is not a name for a unit"),
        ("a dash", vec![Text("systemd/-x.service", &plain)], "is not a name for a unit"),
        ("not UTF-8 in the name", vec![Bytes(b"systemd/\xff.service", plain.as_bytes())], "is not a name for a unit"),
        ("two at signs", vec![Text("systemd/a@b@c.service", &plain)], "is not a name for a unit"),
        (
            "drop-ins for all services",
            vec![Text("systemd/service.d/x.conf", "[Service]\n")],
            "every service of this host",
        ),
        ("the distribution's name", vec![Text("systemd/dbus.service", &plain)], "would replace /"),
        ("the distribution's target", vec![Text("systemd/basic.target", "[Unit]\n")], "would replace /"),
        ("an instance of its template", vec![Text("systemd/getty@tty9.service", &plain)], "would replace /"),
        ("an instance of a local template", vec![Text("systemd/local@1.service", &plain)], "local@.service"),
        ("an alias of a distribution's unit", vec![Text("systemd/x.service", &ssh)], "Alias=dbus.service"),
        ("an alias of another's unit", vec![Text("systemd/x.service", &on_local)], "Alias=theirs.service"),
        ("an alias that is no unit", vec![Text("systemd/x.service", &own_alias)], "Alias=no-unit"),
        ("another repository's", vec![Text("systemd/theirs.service", &plain)], "belongs to the repository acme/other"),
        ("somebody's own unit", vec![Text("systemd/foreign.service", &plain)], "--adopt foreign.service"),
        ("too large", vec![Text("systemd/x.service", &large)], "has more than 262144 bytes"),
        ("not UTF-8", vec![Bytes(b"systemd/x.service", b"[Service]\nExecStart=/bin/\xff\n")], "is not UTF-8"),
        ("a NUL byte", vec![Bytes(b"systemd/x.service", b"[Service]\n\0")], "is not UTF-8"),
        ("no such program", vec![Text("systemd/x.service", broken)], "no-such-program"),
        ("nothing to run", vec![Text("systemd/x.service", empty)], "x.service"),
        (
            "a drop-in that breaks its unit",
            vec![Text("systemd/app.service.d/x.conf", "[Service]\nExecStart=/usr/bin/true\n")],
            "more than one ExecStart=",
        ),
        (
            "a drop-in for nobody's unit",
            vec![Text("systemd/dbus.service.d/x.conf", "[Service]\n")],
            "drop-in for dbus.service",
        ),
    ];
    for (number, (what, mut files, reason)) in cases.into_iter().enumerate() {
        // Each on a branch of its own from the good commit, so that one does not see the other.
        let branch = format!("case-{number}");
        machine.ok(&["git", "-C", "/srv/origin/infra.git", "branch", &branch, &good]);
        configure(&machine, &[repository("infra", &format!("branch = \"{branch}\"")), repository("other", "")]);
        machine.ok(&["runuser", "-u", "hub-checkout", "--", "git", "-C", "/srv/infra", "branch", "-q", "-M", &branch]);
        files.push(Text("version", "2"));
        push_to(&machine, "infra", &branch, &files);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, 5, "{what}: {:#}\n{}", run.result, run.log);
        assert!(run.reason().contains(reason), "{what}: {}", run.reason());
        eprintln!("{what}: {}", run.reason());
        if what == "no such program" {
            let again = sync(&machine, "infra").expect(5);
            assert!(again.reason().contains("is not tried again until the branch moves"), "{}", again.reason());
        }
        assert_eq!(fingerprint(&machine), before, "{what}");
        assert_eq!(deployed(&machine, "infra"), good, "{what}");
    }
    assert_eq!(show(&machine, "app.service", "InvocationID"), app);
    assert_eq!(log(&machine), Vec::<String>::new());
    assert!(machine.ok(&["find", "/var/lib/observability-hub/gitops/staging", "-mindepth", "1"]).is_empty());
}

#[test]
fn a_person_sees_what_would_be_done() {
    let Some(machine) = Machine::boot() else { return };
    configure(
        &machine,
        &[repository(
            "infra",
            "restart = [{ paths = [\"app/\"], units = [\"app.service\"] }]\nafter = [\"/usr/bin/true\"]",
        )],
    );
    let files = [
        Text("app/main", "1"),
        Text("systemd/app.service", &service("app", "1")),
        Text("systemd/gone.service", &service("gone", "1")),
        Text("systemd/edited.service", &service("edited", "1")),
    ];
    push(&machine, "infra", &files);
    sync(&machine, "infra").expect(0);
    machine.write("/etc/systemd/system/edited.service", service("edited", "by hand"));
    let program = "[Service]\nExecStart=/srv/infra/app/new\n[Install]\nWantedBy=multi-user.target\n";
    push(
        &machine,
        "infra",
        &[
            Text("app/main", "2"),
            Text("app/new", "#!/bin/sh\nexec sleep infinity\n"),
            Text("systemd/app.service", &service("app", "2")),
            Text("systemd/new.service", program),
            Gone("systemd/gone.service"),
        ],
    );
    log(&machine);
    let output = machine.run(&["gitops-sync", "--dry-run", "acme/infra"]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{table}");
    assert!(output.status.success(), "{}", describe(&output));
    for part in [
        "acme/infra",
        "planned",
        "change app.service: ",
        "add    new.service: new in the repository",
        "remove gone.service: not in ",
        "drift  edited.service: edited on the host",
        "M app/main",
        "restart where running: app.service (app/main changes)",
        "after: /usr/bin/true",
        "/srv/infra/app/new",
    ] {
        assert!(table.contains(part), "{part:?} is missing in\n{table}");
    }
    assert_eq!(log(&machine), Vec::<String>::new());
    assert_eq!(machine.read("/srv/infra/app/main"), "1");
    let run = sync_with(&machine, &["--dry-run", "acme/infra"]).expect(0);
    let units = run.first()["units"].as_array().expect("units").clone();
    let pairs: Vec<_> = units
        .iter()
        .map(|line| format!("{} {}", line["action"].as_str().unwrap_or("?"), line["file"].as_str().unwrap_or("?")))
        .collect();
    assert_eq!(pairs, ["change app.service", "drift edited.service", "add new.service", "remove gone.service"]);
}

#[test]
fn a_damaged_list_of_units_names_what_mends_it() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(
        &machine,
        "infra",
        &[Text("systemd/a.service", &service("a", "1")), Text("systemd/b.service", &service("b", "1"))],
    );
    sync(&machine, "infra").expect(0);
    let list = "/var/lib/observability-hub/gitops/manifest.json";
    machine.write(list, "{\"torn");
    push(&machine, "infra", &[Text("readme", "1")]);
    let run = sync(&machine, "infra").expect(1);
    assert!(run.reason().contains(list) && run.reason().contains("remove this file"), "{}", run.reason());
    machine.ok(&["rm", list]);
    sync(&machine, "infra").expect(0);
    assert!(machine.read(list).contains("b.service"));
    push(&machine, "infra", &[Gone("systemd/b.service")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "b.service", "LoadState"), "not-found");
}
