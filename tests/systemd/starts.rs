//! What is started, how long that is waited for, and what is left as it is.

use crate::gitops::{Gone, Text, configure, push, repository, show, sync, sync_with};
use crate::machine::Machine;
use crate::moved::{all_active, failing, install, states, svc};

const GRACE: &str = "health = { grace_seconds = 1 }";

#[test]
fn units_that_refuse_to_be_started_or_stopped_by_hand_never_end_a_deployment() {
    let Some(machine) = Machine::boot() else { return };
    for (name, key) in [("start", "RefuseManualStart=yes"), ("stop", "RefuseManualStop=yes")] {
        configure(&machine, &[repository(name, GRACE)]);
        let unit = format!("{name}-shy.service");
        let path = format!("systemd/{unit}");
        let bad = format!("systemd/{name}-bad.service");
        // New, beside one that fails.
        push(&machine, name, &[Text(&path, &svc(key, "")), Text(&bad, &failing(""))]);
        sync(&machine, name).expect(3);
        assert_eq!(show(&machine, &unit, "LoadState"), "not-found");
        // New: installed and enabled, and said that it is not started.
        push(&machine, name, &[Gone(&bad)]);
        let plan = sync_with(&machine, &["--dry-run", &format!("acme/{name}")]).expect(0);
        assert!(plan.first()["units"].to_string().contains("RefuseManual"), "{:#}", plan.result);
        sync(&machine, name).expect(0);
        assert_eq!(machine.ok(&["systemctl", "is-enabled", &unit]), "enabled\n");
        assert_eq!(show(&machine, &unit, "ActiveState"), "inactive");
        // Another unit brings it up; a new one that fails brings it down and up again.
        install(&machine, &format!("{name}-puller.service"), &svc(&format!("Wants={unit}"), ""));
        all_active(&machine, name, &[&unit]);
        push(&machine, name, &[Text(&path, &svc(key, "Nice=1")), Text(&bad, &failing(""))]);
        sync(&machine, name).expect(3);
        all_active(&machine, name, &[&unit]);
        // Changed: taken up by systemd, not restarted.
        push(&machine, name, &[Gone(&bad)]);
        sync(&machine, name).expect(0);
        all_active(&machine, name, &[&unit]);
        assert_eq!(show(&machine, &unit, "NeedDaemonReload"), "no");
        // Removed, beside one that fails, and alone.
        push(&machine, name, &[Gone(&path), Text(&bad, &failing(""))]);
        let run = sync(&machine, name);
        assert_eq!(run.exit, 3, "{name}: {:#}\n{}", run.result, run.log);
        assert!(machine.exists(&format!("/etc/{}", path.replace("systemd/", "systemd/system/"))));
        all_active(&machine, name, &[&unit]);
        push(&machine, name, &[Gone(&bad), Text("readme", "")]);
        let run = sync(&machine, name);
        assert_eq!(run.exit, 0, "{name}: {:#}\n{}", run.result, run.log);
        assert_eq!(show(&machine, &unit, "ActiveState"), "inactive");
        assert_eq!(show(&machine, &unit, "LoadState"), "not-found");
    }
    // A new unit pulls in one that cannot be stopped by hand, and the deployment is taken back.
    configure(&machine, &[repository("pulled", GRACE)]);
    let quiet = svc("RefuseManualStop=yes", "").replace("[Install]\nWantedBy=multi-user.target\n", "");
    push(
        &machine,
        "pulled",
        &[
            Text("systemd/pulled-shy.service", &quiet),
            Text("systemd/pulled-a.service", &svc("Wants=pulled-shy.service", "")),
            Text("systemd/pulled-bad.service", &failing("")),
        ],
    );
    sync(&machine, "pulled").expect(3);
    assert_eq!(
        states(&machine, &["pulled-shy.service", "pulled-a.service"]),
        ["pulled-shy.service inactive", "pulled-a.service inactive"]
    );
}

fn oneshot(unit: &str, service: &str, word: &str) -> String {
    format!(
        "[Unit]\n{unit}\n[Service]\nType=oneshot\nExecStart=/usr/bin/sh -c 'echo {word} >>/srv/ran'\n{service}\n[Install]\nWantedBy=multi-user.target\n"
    )
}

#[test]
fn oneshots_that_remain_run_and_the_others_do_not() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    let stays = "RemainAfterExit=yes";
    let ran = || {
        let text = String::from_utf8(machine.run(&["cat", "/srv/ran"]).stdout).expect("text");
        machine.ok(&["rm", "-f", "/srv/ran"]);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let reloads = format!("{stays}\nExecReload=/usr/bin/sh -c 'echo reload >>/srv/ran'");
    let dependent =
        svc("Requires=setup.service\nAfter=setup.service", "ExecStartPre=/usr/bin/sh -c 'echo dependent >>/srv/ran'");
    push(
        &machine,
        "infra",
        &[
            Text("systemd/setup.service", &oneshot("", stays, "setup")),
            Text("systemd/soft.service", &oneshot("", &reloads, "soft")),
            Text("systemd/kept.service", &oneshot("X-RestartIfChanged=no", stays, "kept")),
            Text("systemd/plain.service", &oneshot("", "", "plain")),
            Text("systemd/dependent.service", &dependent),
            Text("systemd/daemon.service", &svc("", "")),
            Text("systemd/calm.service", &svc("X-RestartIfChanged=false", "")),
        ],
    );
    sync(&machine, "infra").expect(0);
    assert_eq!(ran(), ["dependent", "kept", "setup", "soft"]);
    let calm = show(&machine, "calm.service", "InvocationID");
    push(
        &machine,
        "infra",
        &[
            Text("systemd/setup.service", &oneshot("", stays, "setup-2")),
            Text("systemd/soft.service", &oneshot("", &reloads, "soft-2")),
            Text("systemd/kept.service", &oneshot("X-RestartIfChanged=no", stays, "kept-2")),
            Text("systemd/plain.service", &oneshot("", "", "plain-2")),
            // A service becomes a oneshot.
            Text("systemd/daemon.service", &oneshot("", "", "daemon")),
            Text("systemd/calm.service.d/x.conf", "[Service]\nNice=1\n"),
        ],
    );
    let plan = sync_with(&machine, &["--dry-run", "acme/infra"]).expect(0);
    let lines = plan.first()["plan"].to_string();
    assert!(lines.contains("setup.service") && lines.contains("dependent.service"), "{lines}");
    let run = sync(&machine, "infra").expect(0);
    assert_eq!(ran(), ["dependent", "reload", "setup-2"], "{:#}", run.result);
    assert_eq!(show(&machine, "daemon.service", "ActiveState"), "inactive");
    assert_eq!(show(&machine, "daemon.service", "MainPID"), "0");
    assert_eq!(show(&machine, "calm.service", "InvocationID"), calm);
    all_active(&machine, "oneshots", &["setup.service", "soft.service", "kept.service", "dependent.service"]);
    assert!(run.actions().contains(&"restarted dependent.service".to_owned()), "{:?}", run.actions());
    // One that fails is taken back, with what depends on it.
    push(
        &machine,
        "infra",
        &[Text("systemd/setup.service", &oneshot("", stays, "x").replace("/usr/bin/sh -c", "/usr/bin/false"))],
    );
    sync(&machine, "infra").expect(3);
    all_active(&machine, "oneshots, rolled back", &["setup.service", "dependent.service"]);
    // A new one that fails, too.
    push(
        &machine,
        "infra",
        &[
            Text("systemd/setup.service", &oneshot("", stays, "setup-2")),
            Text("systemd/late.service", &oneshot("", stays, "x").replace("/usr/bin/sh -c", "/usr/bin/false")),
        ],
    );
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("late.service"), "{}", run.reason());
}

#[test]
fn a_start_may_take_as_long_as_the_unit_allows() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &["[gitops]\ncommand_timeout_seconds = 4\n".to_owned(), repository("infra", GRACE)]);
    assert_eq!(show(&machine, "gitops-sync.service", "TimeoutStartUSec"), "infinity");
    let slow =
        |seconds: u32, limit: &str| svc("", &format!("ExecStartPre=/usr/bin/sleep {seconds}\nTimeoutStartSec={limit}"));
    // Longer than a command may take, and allowed by the unit.
    push(&machine, "infra", &[Text("systemd/slow.service", &slow(6, "1min"))]);
    sync(&machine, "infra").expect(0);
    all_active(&machine, "slow", &["slow.service"]);
    // A unit without a limit of its own.
    push(&machine, "infra", &[Text("systemd/endless.service", &slow(600, "infinity"))]);
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("endless.service"), "{}", run.reason());
    assert_eq!(show(&machine, "endless.service", "LoadState"), "not-found");
    all_active(&machine, "slow", &["slow.service"]);
    // A unit that is slow and only moved along: it is waited for, and its failure counts.
    let along = |pre: &str| {
        svc("Requires=slow.service\nAfter=slow.service", &format!("ExecStartPre=/usr/bin/{pre}\nTimeoutStartSec=1min"))
    };
    push(&machine, "infra", &[Gone("systemd/endless.service"), Text("systemd/slow.service", &svc("", ""))]);
    sync(&machine, "infra").expect(0);
    install(&machine, "along.service", &along("true"));
    machine.write("/etc/systemd/system/along.service", along("sh -c 'sleep 5; test -e /srv/good'"));
    machine.ok(&["systemctl", "daemon-reload"]);
    push(&machine, "infra", &[Text("systemd/slow.service", &svc("", "Nice=1"))]);
    let run = sync(&machine, "infra");
    assert!(run.exit == 4 && run.reason().contains("along.service"), "{:#}\n{}", run.result, run.log);
    machine.write("/srv/good", "");
    sync(&machine, "infra").expect(3);
    all_active(&machine, "along", &["slow.service", "along.service"]);
}

#[test]
fn what_systemd_analyze_is_wrong_about_is_a_warning() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    machine.ok(&["sh", "-c", "mkdir -p /srv/root/opt /srv/bound && cp -L --parents /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 /srv/root/ && cp /usr/bin/sleep /srv/root/opt/here-only && cp /usr/bin/sleep /srv/bound/here-only"]);
    let of = |program: &str, unit: &str, service: &str| svc(unit, service).replace("/usr/bin/sleep", program);
    push(
        &machine,
        "infra",
        &[
            Text("systemd/rooted.service", &of("/opt/here-only", "", "RootDirectory=/srv/root")),
            Text("systemd/bound.service", &of("/opt/bound/here-only", "", "BindReadOnlyPaths=/srv/bound:/opt/bound")),
            Text("systemd/found.service", &of("here-only", "", "ExecSearchPath=/srv/bound")),
            Text("systemd/elsewhere.service", &of("/opt/no-such", "ConditionPathExists=/opt/no-such", "")),
            Text("systemd/asserted.service", &of("/opt/no-such", "", "")),
            Text("systemd/asserted.service.d/c.conf", "[Unit]\nConditionHost=elsewhere\n"),
            Text(
                "systemd/worker@.service",
                &of("/srv/%i/here-only", "", "").replace("[Install]", "[Install]\nDefaultInstance=bound"),
            ),
        ],
    );
    let run = sync(&machine, "infra").expect(0);
    assert!(run.log.contains("unit_warning") && run.log.contains("here-only"), "{}", run.log);
    all_active(&machine, "verified", &["rooted.service", "bound.service", "found.service", "worker@bound.service"]);
    assert_eq!(show(&machine, "elsewhere.service", "ActiveState"), "inactive");
    // The start shows the rest, and what is wrong besides is still refused.
    push(&machine, "infra", &[Text("systemd/rooted.service", &of("/opt/nowhere", "", "RootDirectory=/srv/root"))]);
    sync(&machine, "infra").expect(3);
    all_active(&machine, "verified", &["rooted.service"]);
    push(
        &machine,
        "infra",
        &[
            Text("systemd/rooted.service", &of("/opt/here-only", "", "RootDirectory=/srv/root")),
            Text("systemd/plain.service", &of("/opt/no-such", "", "")),
        ],
    );
    let run = sync(&machine, "infra").expect(5);
    assert!(run.reason().contains("plain.service"), "{}", run.reason());
}
