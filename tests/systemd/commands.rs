//! `build` and `after` as transient units of the repository's user.

use std::time::Instant;

use crate::gitops::{Text, configure, log, push, repository, service, sync};
use crate::machine::Machine;

#[test]
fn commands_run_as_transient_units_of_their_user() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["groupadd", "extra"]);
    machine.ok(&["useradd", "--create-home", "--groups", "extra", "builder"]);
    let argv = r#"build = ["./build.sh", "$HOME", "${PATH}", "$$", "100%", "%n %%", "a b", "", "\\x41", "\"q\"", "é"]"#;
    configure(
        &machine,
        &[repository(
            "infra",
            &format!(
                "user = \"builder\"\n{argv}\nafter = [\"sh\", \"-c\", \"echo after >>/srv/log; cat /proc/self/cgroup >/srv/builder/after\"]"
            ),
        )],
    );
    machine.ok(&["install", "-d", "-o", "builder", "/srv/builder"]);
    machine.ok(&["install", "-m", "666", "/dev/null", "/srv/log"]);
    // fast-import makes files without the executable bit.
    let script = "#!/bin/sh\nexec >/srv/builder/out\nprintf '%s\\n' \"$@\"\necho \"home=$HOME user=$USER repo=$HUB_REPOSITORY commit=$HUB_COMMIT pwd=$PWD\"\n\
                  id -un; id -Gn; cat /proc/self/cgroup\n(setsid sleep 7777 &)\necho build >>/srv/log\n";
    push(&machine, "infra", &[Text("build.sh", script), Text("systemd/app.service", &service("app", "1"))]);
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("build.sh"), "a file that cannot be executed: {}", run.reason());
    // As a real repository has it.
    machine.ok(&["rm", "-rf", "/srv/w"]);
    machine.ok(&["git", "clone", "--quiet", "/srv/origin/infra.git", "/srv/w"]);
    machine.ok(&["chmod", "+x", "/srv/w/build.sh"]);
    machine.ok(&["git", "-C", "/srv/w", "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qam", "x"]);
    machine.ok(&["git", "-C", "/srv/w", "push", "--quiet", "origin", "main"]);
    let commit = machine.ok(&["git", "-C", "/srv/w", "rev-parse", "HEAD"]);
    let commit = commit.trim();
    sync(&machine, "infra").expect(0);
    let out = machine.read("/srv/builder/out");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..10], ["$HOME", "${PATH}", "$$", "100%", "%n %%", "a b", "", "\\x41", "\"q\"", "é"], "{out}");
    assert_eq!(
        lines[10],
        format!("home=/home/builder user=builder repo=acme/infra commit={commit} pwd=/srv/infra"),
        "{out}"
    );
    assert_eq!(lines[11], "builder");
    assert!(lines[12].split(' ').any(|group| group == "extra"), "{out}");
    assert!(out.contains("system.slice/hub-build-acme__infra.service"), "{out}");
    assert!(machine.read("/srv/builder/after").contains("system.slice/hub-after-acme__infra.service"));
    assert_eq!(log(&machine), ["build", "start app 1", "after"]);
    assert_eq!(machine.run(&["pgrep", "-fx", "sleep 7777"]).status.code(), Some(1), "a background child was left");
    assert_eq!(machine.ok(&["systemctl", "list-units", "--all", "--plain", "--no-legend", "hub-*"]), "");
}

#[test]
fn failing_and_endless_commands_are_taken_back() {
    let Some(machine) = Machine::boot() else { return };
    let with = |command: &str| {
        let repository = repository("infra", &format!("build = [\"sh\", \"-c\", \"{command}\"]"));
        configure(&machine, &["[gitops]\ncommand_timeout_seconds = 2\n".to_owned(), repository]);
    };
    with("true");
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    log(&machine);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "2"))]);
    with("echo out of luck >&2; exit 7");
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("code 7") && run.reason().contains("out of luck"), "{}", run.reason());
    push(&machine, "infra", &[Text("note", "1")]);
    with("echo begun; sleep 600");
    let started = Instant::now();
    let run = sync(&machine, "infra").expect(3);
    eprintln!("a build over its time: {}", run.reason());
    assert!(run.reason().contains("2 s") && run.reason().contains("begun"), "{}", run.reason());
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
    assert_eq!(machine.run(&["pgrep", "-fx", "sleep 600"]).status.code(), Some(1));
    push(&machine, "infra", &[Text("note", "2")]);
    with("kill -9 $$");
    let run = sync(&machine, "infra").expect(3);
    eprintln!("a killed build: {}", run.reason());
    push(&machine, "infra", &[Text("note", "3")]);
    configure(&machine, &[repository("infra", "build = [\"no-such-program\"]")]);
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("no-such-program"), "{}", run.reason());
    eprintln!("no such program: {}", run.reason());
    assert_eq!(log(&machine), Vec::<String>::new(), "the service was touched");
    assert_eq!(machine.ok(&["systemctl", "list-units", "--all", "--plain", "--no-legend", "hub-*"]), "");
}

#[test]
fn a_repository_without_units_has_its_commands_and_rules_all_the_same() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/etc/systemd/system/app.service", service("app", "1"));
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "app.service"]);
    let more = "units = \"\"\nbuild = [\"sh\", \"-c\", \"cat /proc/self/cgroup >built\"]\n\
                restart = [{ paths = [\"app/\"], units = [\"app.service\"] }]";
    configure(&machine, &[repository("code", more)]);
    push(&machine, "code", &[Text("app/main", "1"), Text("note", "1")]);
    sync(&machine, "code").expect(0);
    let cgroup = machine.read("/srv/code/built");
    assert!(cgroup.contains("system.slice/hub-build-acme__code.service"), "{cgroup}");
    log(&machine);
    let restarted = ["stop app 1", "start app 1"];

    push(&machine, "code", &[Text("app/main", "2")]);
    let run = sync(&machine, "code").expect(0);
    assert_eq!(
        (run.actions(), log(&machine)),
        (vec!["restarted app.service".to_owned()], restarted.map(str::to_owned).to_vec())
    );
    push(&machine, "code", &[Text("note", "2")]);
    let run = sync(&machine, "code").expect(0);
    assert_eq!((run.actions(), log(&machine)), (vec![], vec![]), "a file that no rule names");

    // The code that runs is older than the checkout where somebody else has moved that.
    push(&machine, "code", &[Text("app/main", "3")]);
    let pull = "git -C /srv/code pull -q --ff-only /srv/origin/code.git main && chown -R hub-checkout: /srv/code";
    machine.ok(&["sh", "-c", &format!("git config --global safe.directory '*'; {pull}")]);
    let run = sync(&machine, "code").expect(0);
    assert_eq!(run.first()["status"], "deployed");
    assert_eq!(log(&machine), restarted);
    let run = sync(&machine, "code").expect(0);
    assert_eq!((&run.first()["status"], run.actions()), (&"unchanged".into(), vec![]));
}
