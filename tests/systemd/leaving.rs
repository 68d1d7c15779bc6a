//! What a commit takes away: it is stopped as it was meant to be, with what it needs for that, and what it took along runs
//! again, whatever cuts the deployment off.

use crate::gitops::{File, Gone, SOON, Text, configure, push, repository, show, sync, sync_with};
use crate::machine::Machine;
use crate::moved::{all_active, failing, install, states, svc};

const GRACE: &str = "health = { grace_seconds = 1 }";
const JOURNAL: &str = "/var/lib/observability-hub/gitops/journal/acme__infra.json";

/// Starts gitops-sync for a repository, and ends it with SIGKILL when `until` prints something.
fn kill_when(machine: &Machine, name: &str, until: &str) {
    let script = format!(
        "gitops-sync acme/{name} >/srv/run.log 2>&1 & worker=$!\n\
         for _ in $(seq 600); do [ -z \"$({until})\" ] || break; kill -0 $worker || break; sleep 0.05; done\n\
         kill -KILL $worker || cat /srv/run.log"
    );
    machine.ok(&["sh", "-c", &script]);
}

#[test]
fn what_goes_is_stopped_with_the_files_that_go_with_it() {
    let Some(machine) = Machine::boot() else { return };
    let build = "build = [\"touch\", \"kept/made\"]";
    configure(&machine, &[repository("infra", &format!("{build}\n{GRACE}"))]);
    let stop = |name: &str| format!("ExecStop=/bin/sh /srv/infra/bin/stop {name}");
    let script = ". /srv/infra/lib/deep/words; echo \"$word $1\" >>/srv/stopped; test ! -e /srv/slow || sleep 20";
    let template = svc("", &stop("instance")).replace("[Install]", "[Install]\nDefaultInstance=x");
    let old: [(&str, String); 10] = [
        ("systemd/old.service", svc("", &stop("service"))),
        ("systemd/late.service", svc("", "")),
        ("systemd/late.service.d/stop.conf", "[Service]\nExecStopPost=/bin/sh /srv/infra/bin/stop post\n".into()),
        ("systemd/many@.service", template),
        ("systemd/stays.service", svc("", "")),
        ("bin/stop", script.into()),
        ("lib/deep/words", "word=stopped".into()),
        // A folder comes in the place of this file, and a file in the place of that folder.
        ("turned", "file".into()),
        ("folder/file", "file".into()),
        ("kept/file", "".into()),
    ];
    let files: Vec<File> = old.iter().map(|(path, text)| Text(path, text)).collect();
    push(&machine, "infra", &files);
    sync(&machine, "infra").expect(0);
    all_active(&machine, "before", &["old.service", "late.service", "many@x.service"]);
    let stopped = || {
        let text = String::from_utf8(machine.run(&["cat", "/srv/stopped"]).stdout).expect("text");
        machine.ok(&["rm", "-f", "/srv/stopped"]);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let all = ["stopped instance", "stopped post", "stopped service"];
    let mut gone: Vec<File> =
        old.iter().filter(|(path, _)| !path.contains("stays")).map(|(path, _)| Gone(path)).collect();
    gone.extend([Text("turned/inside", "1"), Text("folder", "1")]);
    // Refused: nothing was stopped, and the files are gone from no place.
    let bad = format!("{}Requires=nowhere.service\n", "[Unit]\n");
    gone.push(Text("systemd/bad.service", &bad));
    push(&machine, "infra", &gone);
    sync(&machine, "infra").expect(5);
    assert_eq!(stopped(), [""; 0]);
    assert_eq!(machine.read("/srv/infra/lib/deep/words"), "word=stopped");
    // Taken back: they were stopped as they should be, and are there again with all that they need.
    let fails = failing("");
    push(&machine, "infra", &[Text("systemd/bad.service", &fails)]);
    sync(&machine, "infra").expect(3);
    assert_eq!(stopped(), all);
    all_active(&machine, "taken back", &["old.service", "late.service", "many@x.service", "stays.service"]);
    assert_eq!(machine.read("/srv/infra/lib/deep/words"), "word=stopped");
    // Cut off while they are stopped: the same.
    push(&machine, "infra", &[Gone("systemd/bad.service")]);
    machine.write("/srv/slow", "");
    kill_when(&machine, "infra", "cat /srv/stopped 2>/dev/null");
    machine.ok(&["rm", "/srv/slow"]);
    machine.ok(&["hub", "hold", "acme/infra"]);
    sync(&machine, "infra").expect(0);
    assert!(!machine.exists(JOURNAL));
    all_active(&machine, "cut off", &["old.service", "late.service", "many@x.service", "stays.service"]);
    let status =
        machine.ok(&["runuser", "-u", "hub-checkout", "--", "git", "-C", "/srv/infra", "status", "--porcelain"]);
    assert_eq!(status, "?? kept/made\n");
    machine.ok(&["rm", "/var/lib/observability-hub/gitops/hold/acme__infra.json"]);
    stopped();
    // Well: stopped, and nothing is left of it.
    sync(&machine, "infra").expect(0);
    assert_eq!(stopped(), all);
    assert_eq!(show(&machine, "old.service", "LoadState"), "not-found");
    let status =
        machine.ok(&["runuser", "-u", "hub-checkout", "--", "git", "-C", "/srv/infra", "status", "--porcelain"]);
    assert_eq!(status, "?? kept/\n");
    assert!(!machine.exists("/srv/infra/bin") && !machine.exists("/srv/infra/lib"));
    assert_eq!(machine.read("/srv/infra/folder"), "1");
}

#[test]
fn what_systemd_has_forgotten_is_up_again_after_a_kill() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    let quiet = |text: String| text.replace("[Install]\nWantedBy=multi-user.target\n", "");
    push(
        &machine,
        "infra",
        &[
            Text("systemd/aa.service", &svc("", "ExecStop=/usr/bin/sleep 8")),
            Text("systemd/other.service", &svc("", "")),
        ],
    );
    sync(&machine, "infra").expect(0);
    // Nothing refers to it when it is down, and systemd forgets it.
    machine.write("/etc/systemd/system/zz.service", quiet(svc("PartOf=aa.service", "")));
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "zz.service"]);
    push(&machine, "infra", &[Gone("systemd/aa.service")]);
    kill_when(&machine, "infra", "systemctl is-active zz.service | grep -v '^active'");
    machine.ok(&["hub", "hold", "acme/infra"]);
    let run = sync(&machine, "infra");
    assert_eq!(run.exit, 0, "{:#}\n{}", run.result, run.log);
    all_active(&machine, "cut off", &["aa.service", "zz.service"]);
    machine.ok(&["rm", "/var/lib/observability-hub/gitops/hold/acme__infra.json"]);
    sync(&machine, "infra").expect(0);
    assert_eq!(states(&machine, &["aa.service", "zz.service"]), ["aa.service inactive", "zz.service active"]);
}

#[test]
fn a_removal_waits_for_nobody_and_takes_nothing_from_a_run_at_work() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", GRACE)]);
    push(&machine, "infra", &[Text("systemd/app.service", &svc("", ""))]);
    sync(&machine, "infra").expect(0);
    // A remote that accepts and never answers, in a configuration of its own.
    let listen = "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(9418, INADDR_LOOPBACK)) or die; listen(S, 9); sleep 600";
    machine.ok(&["systemd-run", "--quiet", "--unit=silent", "perl", "-e", listen]);
    let config = machine.read("/etc/observability-hub/hub.toml");
    machine.write("/etc/old.toml", config.replace("/srv/origin/infra.git", "git://127.0.0.1/infra.git"));
    machine.ok(&["systemd-run", "--quiet", "--unit=at-work", "gitops-sync", "--config", "/etc/old.toml", "acme/infra"]);
    let fetching = "git fetch";
    machine.wait_for("the fetch", SOON, || machine.run(&["pgrep", "-f", fetching]).status.success());
    machine.write("/etc/observability-hub/hub.toml", "");
    let refused = machine.run(&["hub", "remove", "acme/infra"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("at work"), "{refused:?}");
    all_active(&machine, "refused", &["app.service"]);
    machine.ok(&["systemctl", "stop", "at-work.service"]);
    machine.ok(&["hub", "remove", "acme/infra"]);
    assert_eq!(show(&machine, "app.service", "LoadState"), "not-found");
    assert_eq!(machine.ok(&["find", "/var/lib/observability-hub/gitops", "-name", "*acme__infra*"]), "");
}

#[test]
fn a_unit_that_could_not_be_started_again_is_not_stopped_by_a_new_version() {
    let Some(machine) = Machine::boot() else { return };
    let refusals = [
        ("start", "RefuseManualStart=yes"),
        ("stop", "RefuseManualStop=yes"),
        ("both", "RefuseManualStart=yes\nRefuseManualStop=yes"),
    ];
    configure(&machine, &refusals.map(|(name, _)| repository(name, GRACE)));
    for (name, keys) in refusals {
        let unit = format!("{name}-shy.service");
        let path = format!("systemd/{unit}");
        push(&machine, name, &[Text(&path, &svc(keys, ""))]);
        sync(&machine, name).expect(0);
        install(&machine, &format!("{name}-puller.service"), &svc(&format!("Wants={unit}"), ""));
        all_active(&machine, name, &[&unit]);
        let run_id = show(&machine, &unit, "InvocationID");
        // A broken version, which refuses as before, or does not any more.
        for (what, text) in [
            ("refuses", failing(keys)),
            ("open", failing("")),
            ("late", svc("", "").replace("/usr/bin/sleep infinity", "/usr/bin/sh -c 'sleep 0.5; exit 1'")),
        ] {
            push(&machine, name, &[Text(&path, &text)]);
            let plan = sync_with(&machine, &["--dry-run", &format!("acme/{name}")]);
            let run = sync(&machine, name);
            eprintln!(
                "{name} {what}: exit {} {:?} {} same run {} plan {}",
                run.exit,
                run.actions(),
                run.reason(),
                show(&machine, &unit, "InvocationID") == run_id,
                plan.first()["plan"]
            );
            all_active(&machine, &format!("{name} {what} {} {}", run.exit, run.reason()), &[&unit]);
            push(&machine, name, &[Text(&path, &svc(keys, ""))]);
            sync(&machine, name).expect(0);
            all_active(&machine, &format!("{name} {what}"), &[&unit]);
        }
    }
}
