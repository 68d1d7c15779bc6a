//! A deployment answers for every unit that its jobs move along, whoever owns it.

use crate::gitops::{File, Gone, Text, configure, push, repository, show, sync, sync_with};
use crate::machine::Machine;

/// A service that runs until it is stopped; `unit` are lines of its `[Unit]`, `service` of its `[Service]`.
pub fn svc(unit: &str, service: &str) -> String {
    format!(
        "[Unit]\n{unit}\n[Service]\nExecStart=/usr/bin/sleep infinity\n{service}\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// A service that ends with an error, at once.
pub fn failing(unit: &str) -> String {
    svc(unit, "").replace("/usr/bin/sleep infinity", "/usr/bin/false")
}

/// Installs and starts a unit that is nobody's.
pub fn install(machine: &Machine, unit: &str, text: &str) {
    machine.write(&format!("/etc/systemd/system/{unit}"), text);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "enable", "--quiet", "--now", unit]);
}

/// The states of units, as `unit state`.
pub fn states(machine: &Machine, units: &[&str]) -> Vec<String> {
    units.iter().map(|unit| format!("{unit} {}", show(machine, unit, "ActiveState"))).collect()
}

pub fn all_active(machine: &Machine, what: &str, units: &[&str]) {
    let expected: Vec<String> = units.iter().map(|unit| format!("{unit} active")).collect();
    assert_eq!(states(machine, units), expected, "{what}");
}

const GRACE: &str = "health = { grace_seconds = 2 }";

#[test]
fn what_a_failed_unit_took_down_is_up_after_the_rollback() {
    let Some(machine) = Machine::boot() else { return };
    let relations = [
        ("requires", "Requires=NAME-a.service\nAfter=NAME-a.service"),
        ("bound", "BindsTo=NAME-a.service\nAfter=NAME-a.service"),
        ("part", "PartOf=NAME-a.service\nWants=NAME-a.service\nAfter=NAME-a.service"),
        ("requisite", "Requisite=NAME-a.service\nAfter=NAME-a.service"),
    ];
    let names: Vec<&str> =
        relations.iter().map(|(name, _)| *name).chain(["levels", "dropin", "foreign", "timer"]).collect();
    configure(&machine, &names.iter().map(|name| repository(name, GRACE)).collect::<Vec<_>>());
    for name in names {
        let a = format!("{name}-a.service");
        let b = if name == "timer" { format!("{name}-b.timer") } else { format!("{name}-b.service") };
        let c = format!("{name}-c@x.service");
        let needs = format!("Requires={a}\nAfter={a}");
        let mut files = vec![(format!("systemd/{a}"), svc("", ""))];
        let mut add = |unit: &str, text: String| files.push((format!("systemd/{unit}"), text));
        let mut watched = vec![a.as_str(), b.as_str()];
        match name {
            "levels" => {
                add(&b, svc(&needs, ""));
                add(&c.replace("@x", "@"), svc(&format!("BindsTo={b}\nAfter={b}"), "") + "DefaultInstance=x\n");
                watched.push(&c);
            }
            "dropin" => {
                add(&b, svc("", ""));
                add(&format!("{b}.d/needs.conf"), format!("[Unit]\n{needs}\n"));
            }
            "timer" => {
                add(
                    &b,
                    format!("[Unit]\n{needs}\n[Timer]\nOnCalendar=2090-01-01\n[Install]\nWantedBy=timers.target\n"),
                );
                add(&b.replace(".timer", ".service"), "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n".into());
            }
            "foreign" => {}
            _ => {
                let lines = relations.iter().find(|(other, _)| *other == name).map_or("", |(_, lines)| lines);
                add(&b, svc(&lines.replace("NAME", name), ""));
            }
        }
        push(&machine, name, &files.iter().map(|(path, text)| Text(path, text)).collect::<Vec<_>>());
        sync(&machine, name).expect(0);
        if name == "foreign" {
            install(&machine, &b, &svc(&needs, ""));
        }
        all_active(&machine, name, &watched);

        push(&machine, name, &[Text(&format!("systemd/{a}"), &svc("", "ExecStartPre=/usr/bin/false"))]);
        let run = sync(&machine, name);
        assert_eq!(run.exit, 3, "{name}: {:#}\n{}", run.result, run.log);
        all_active(&machine, &format!("{name}, rolled back"), &watched);
        // It fails later only, when everything is up.
        let late = svc("", "").replace("sleep infinity", "sh -c 'sleep 1; exit 1'");
        push(&machine, name, &[Text(&format!("systemd/{a}"), &late)]);
        let run = sync(&machine, name);
        assert_eq!(run.exit, 3, "{name}, late: {:#}\n{}", run.result, run.log);
        all_active(&machine, &format!("{name}, rolled back late"), &watched);
        push(&machine, name, &[Text(&format!("systemd/{a}"), &svc("", "Nice=1"))]);
        let run = sync(&machine, name);
        assert_eq!(run.exit, 0, "{name}: {:#}\n{}", run.result, run.log);
        all_active(&machine, &format!("{name}, mended"), &watched);
    }
    assert_eq!(machine.ok(&["systemctl", "--failed", "--plain", "--no-legend"]), "");
}

#[test]
fn what_conflicts_pushed_out_comes_back_with_a_rollback_and_stays_down_for_a_well_unit() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &["own", "foreign", "other"].map(|name| repository(name, GRACE)));
    for name in ["own", "foreign"] {
        let (a, d) = (format!("{name}-a.service"), format!("{name}-d.service"));
        let dependent = svc(&format!("Requires={a}\nAfter={a}"), "");
        if name == "own" {
            push(
                &machine,
                name,
                &[Text(&format!("systemd/{a}"), &svc("", "")), Text(&format!("systemd/{d}"), &dependent)],
            );
            sync(&machine, name).expect(0);
        } else {
            install(&machine, &a, &svc("", ""));
            install(&machine, &d, &dependent);
        }
        // It fails at once, and after a second.
        for (what, exec) in [("at once", "/usr/bin/false"), ("late", "/usr/bin/sh -c 'sleep 1; exit 1'")] {
            let b = svc(&format!("Conflicts={a}"), "").replace("/usr/bin/sleep infinity", exec);
            push(&machine, name, &[Text(&format!("systemd/{name}-b.service"), &b)]);
            let run = sync(&machine, name);
            assert_eq!(run.exit, 3, "{name} {what}: {:#}\n{}", run.result, run.log);
            all_active(&machine, &format!("{name} {what}"), &[&a, &d]);
        }
        let b = format!("{name}-b.service");
        push(&machine, name, &[Text(&format!("systemd/{b}"), &svc(&format!("Conflicts={a}"), ""))]);
        let run = sync(&machine, name);
        assert_eq!(run.exit, 0, "{name}: {:#}\n{}", run.result, run.log);
        assert_eq!(
            states(&machine, &[&a, &b, &d]),
            [format!("{a} inactive"), format!("{b} active"), format!("{d} inactive")]
        );
        let named = run.first()["restarts"].to_string();
        assert!(named.contains(&a) && named.contains("onflict"), "{named}");
    }
}

#[test]
fn a_unit_that_fails_along_is_a_failure_and_one_that_fails_beside_it_is_only_named() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &["along", "wants", "target", "beside"].map(|name| repository(name, GRACE)));
    // b starts once only: systemd restarts it along with a.
    let once = svc("Requires=along-a.service\nAfter=along-a.service", "ExecStartPre=/usr/bin/mkdir /srv/once");
    push(&machine, "along", &[Text("systemd/along-a.service", &svc("", "")), Text("systemd/along-b.service", &once)]);
    sync(&machine, "along").expect(0);
    push(&machine, "along", &[Text("systemd/along-a.service", &svc("", "Nice=1"))]);
    machine.ok(&["systemctl", "show", "along-b.service"]);
    let run = sync(&machine, "along");
    // The old version of a cannot bring b back either.
    assert_eq!(run.exit, 4, "{:#}\n{}", run.result, run.log);
    assert!(run.reason().contains("along-b.service"), "{}", run.reason());

    // c is in no job: d wants it, and it fails; d is new, or is a target that gets one more.
    let c = failing("").replace("[Install]\nWantedBy=multi-user.target\n", "");
    push(
        &machine,
        "wants",
        &[Text("systemd/wants-c.service", &c), Text("systemd/wants-d.service", &svc("Wants=wants-c.service", ""))],
    );
    let run = sync(&machine, "wants").expect(3);
    assert!(run.reason().contains("wants-c.service"), "{}", run.reason());
    assert_eq!(machine.ok(&["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "wants-*"]), "");

    let target = |wants: &str| format!("[Unit]\nWants={wants}\n[Install]\nWantedBy=multi-user.target\n");
    let quiet = |text: String| text.replace("[Install]\nWantedBy=multi-user.target\n", "");
    let (one, two) = (quiet(svc("", "")), quiet(svc("", "")));
    push(
        &machine,
        "target",
        &[
            Text("systemd/target-all.target", &target("target-one.service")),
            Text("systemd/target-one.service", &one),
            Text("systemd/target-two.service", &two),
            Text("systemd/target-c.service", &c),
        ],
    );
    sync(&machine, "target").expect(0);
    // An operator's stop is kept, though the target wants it.
    machine.ok(&["systemctl", "stop", "target-one.service"]);
    push(&machine, "target", &[Text("systemd/target-all.target", &target("target-one.service target-two.service"))]);
    sync(&machine, "target").expect(0);
    assert_eq!(
        states(&machine, &["target-all.target", "target-one.service", "target-two.service"]),
        ["target-all.target active", "target-one.service inactive", "target-two.service active"]
    );
    push(
        &machine,
        "target",
        &[Text("systemd/target-all.target.d/more.conf", "[Unit]\nWants=target-c.service\nAfter=target-c.service\n")],
    );
    let run = sync(&machine, "target").expect(3);
    assert!(run.reason().contains("target-c.service"), "{}", run.reason());
    all_active(&machine, "target", &["target-all.target", "target-two.service"]);

    // A stranger that fails in the same seconds.
    let stranger = svc("", "").replace("sleep infinity", "sh -c 'until test -e /srv/fall; do sleep 0.1; done; exit 1'");
    install(&machine, "stranger.service", &stranger);
    push(&machine, "beside", &[Text("systemd/beside.service", &svc("", "ExecStartPre=/usr/bin/touch /srv/fall"))]);
    let run = sync(&machine, "beside").expect(0);
    assert!(run.result.to_string().contains("stranger.service"), "{:#}", run.result);
    assert!(run.log.contains("stranger.service"), "{}", run.log);
}

#[test]
fn what_ran_beside_a_unit_that_goes_still_runs() {
    let Some(machine) = Machine::boot() else { return };
    let names = ["renamed", "required", "foreign", "template", "part"];
    configure(&machine, &names.map(|name| repository(name, GRACE)));
    let files = |files: &[(&str, String)]| -> Vec<(String, String)> {
        files.iter().map(|(name, text)| (format!("systemd/{name}"), text.clone())).collect()
    };
    let texts = |files: &[(String, String)]| -> Vec<(String, String)> { files.to_vec() };
    let push_all = |name: &str, files: &[(String, String)], gone: &[&str]| {
        let files = texts(files);
        let mut all: Vec<File> = files.iter().map(|(path, text)| Text(path, text)).collect();
        all.extend(gone.iter().map(|path| Gone(path)));
        push(&machine, name, &all)
    };
    let needs = |other: &str| format!("Requires={other}\nAfter={other}");

    // A unit gets another name, with what requires it. Its own ExecStop= is run.
    let stop = "ExecStop=/usr/bin/touch /srv/stopped";
    push_all(
        "renamed",
        &files(&[("old.service", svc("", stop)), ("app.service", svc(&needs("old.service"), ""))]),
        &[],
    );
    sync(&machine, "renamed").expect(0);
    let new = files(&[("new.service", svc("", "")), ("app.service", svc(&needs("new.service"), ""))]);
    push_all("renamed", &new, &["systemd/old.service"]);
    sync(&machine, "renamed").expect(0);
    all_active(&machine, "renamed", &["app.service", "new.service"]);
    assert_eq!(show(&machine, "old.service", "LoadState"), "not-found");
    assert!(machine.exists("/srv/stopped"));
    // And what required it requires nothing any more.
    push_all("renamed", &files(&[("app.service", svc("", ""))]), &["systemd/new.service"]);
    sync(&machine, "renamed").expect(0);
    all_active(&machine, "renamed", &["app.service"]);

    // What goes is still required: by a unit of the commit, by somebody's, by an instance.
    for name in ["required", "foreign", "template"] {
        let (a, b) = if name == "template" {
            ("template-a@.service".to_owned(), "template-b.service".to_owned())
        } else {
            (format!("{name}-a.service"), format!("{name}-b.service"))
        };
        let instance = a.replace("@.", "@x.");
        let dependent = svc(&needs(&instance), "");
        push_all(
            name,
            &files(&[(
                &a,
                svc("", "")
                    .replace("[Install]", "[Install]\nDefaultInstance=x")
                    .replace(if name == "template" { "\0" } else { "\nDefaultInstance=x" }, ""),
            )]),
            &[],
        );
        sync(&machine, name).expect(0);
        let mut good = String::new();
        if name == "foreign" {
            install(&machine, &b, &dependent);
        } else {
            good = push_all(name, &files(&[(&b, dependent)]), &[]);
            sync(&machine, name).expect(0);
        }
        all_active(&machine, name, &[&instance, &b]);
        let (before, before_b) = (show(&machine, &instance, "InvocationID"), show(&machine, &b, "InvocationID"));
        push_all(name, &[], &[&format!("systemd/{a}")]);
        let run = sync(&machine, name);
        assert_eq!(run.exit, 5, "{name}: {:#}\n{}", run.result, run.log);
        assert!(
            run.reason().contains(&b) && run.reason().contains(a.trim_end_matches("@.service")),
            "{}",
            run.reason()
        );
        assert_eq!((show(&machine, &instance, "InvocationID"), show(&machine, &b, "InvocationID")), (before, before_b));
        assert!(machine.exists(&format!("/etc/systemd/system/{a}")));
        if name != "foreign" {
            assert_eq!(crate::gitops::deployed(&machine, name), good);
            push_all(name, &[], &[&format!("systemd/{b}")]);
            sync_with(&machine, &["--remove-all", &format!("acme/{name}")]).expect(0);
            assert_eq!(states(&machine, &[&instance, &b]), [format!("{instance} inactive"), format!("{b} inactive")]);
        }
    }

    // What was only part of it, and not the repository's, goes down with it and is started again.
    push_all("part", &files(&[("part-a.service", svc("", "")), ("part-more.service", svc("", ""))]), &[]);
    sync(&machine, "part").expect(0);
    install(&machine, "part-b.service", &svc("PartOf=part-a.service\nAfter=part-a.service", ""));
    push_all("part", &[], &["systemd/part-a.service"]);
    sync(&machine, "part").expect(0);
    all_active(&machine, "part", &["part-b.service", "part-more.service"]);
}
