//! Who acts as whom: whose a checkout is, whose the locks are, and what a child can reach of whoever started the hub.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gitops::{SOON, Text, configure, deployed, push, repository, show, sync, sync_with};
use crate::machine::{Machine, describe};

const STATE: &str = "/var/lib/observability-hub";

/// Two people with homes, and a checkout of alice's that the hub keeps; its build notes who it runs as.
fn shared_host(machine: &Machine, more: &str) {
    for user in ["alice", "bob"] {
        machine.ok(&["useradd", "--create-home", user]);
    }
    machine.ok(&["install", "-m", "666", "/dev/null", "/srv/who"]);
    let build = "units = \"\"\nbuild = [\"sh\", \"-c\", \"id -un >>/srv/who\"]";
    let table = repository("site", &format!("{build}\n{more}")).replace("\"/srv/site\"", "\"/home/alice/site\"");
    configure(machine, &[table]);
    push(machine, "site", &[Text("file", "1"), Text(".gitattributes", "file filter=own\n")]);
    machine.ok(&["install", "-d", "-o", "alice", "-g", "alice", "/home/alice/site"]);
}

fn who(machine: &Machine) -> String {
    let who = machine.read("/srv/who");
    machine.ok(&["truncate", "-s", "0", "/srv/who"]);
    who
}

fn as_user(machine: &Machine, user: &str, script: &str) {
    machine.ok(&["runuser", "-u", user, "--", "sh", "-ec", script]);
}

#[test]
fn the_user_of_a_checkout_is_decided_once() {
    let Some(machine) = Machine::boot() else { return };
    shared_host(&machine, "");
    sync(&machine, "site").expect(0);
    push(&machine, "site", &[Text("file", "2")]);
    sync(&machine, "site").expect(0);
    assert_eq!(who(&machine), "alice\nalice\n");
    let kept = format!("{STATE}/gitops/checkouts/acme__site.json");
    let owner: Value = serde_json::from_str(&machine.read(&kept)).expect("JSON");
    assert_eq!((&owner["user"], &owner["path"]), (&"alice".into(), &"/home/alice/site".into()));
    assert_eq!(machine.ok(&["stat", "-c", "%U %a", &kept]), "root 640\n");

    let mirror = format!("{STATE}/gitops/mirror/acme__site.git/refs/heads");
    machine.ok(&["install", "-d", "-o", "bob", "-m", "755", "/srv/of-bob"]);
    let swaps = [
        ("ln -s /srv/of-bob site", "is a link of alice's"),
        (&format!("ln -s {STATE}/reading site") as &str, "is a link of alice's"),
        (&format!("ln -s {mirror} site"), "is a link of alice's"),
        ("ln -s /nowhere site", "is a link of alice's"),
        ("mkdir away; ln -s away site", "is a link of alice's"),
        ("echo no folder >site", "is not a folder"),
    ];
    for (swap, reason) in swaps {
        as_user(&machine, "alice", &format!("cd; mv site kept; {swap}"));
        push(&machine, "site", &[Text("file", swap)]);
        let run = sync(&machine, "site").expect(5);
        assert!(run.reason().contains(reason), "{swap}: {}", run.reason());
        assert_eq!(who(&machine), "", "{swap}");
        as_user(&machine, "alice", "cd; rm -rf site; mv kept site");
    }
    assert_eq!(
        machine
            .ok(&["ls", "/srv/of-bob", &format!("{STATE}/reading")])
            .lines()
            .filter(|line| line.contains("git"))
            .count(),
        0
    );

    // In a real folder of bob's, and with the checkout itself given to him or to one of the hub's own users.
    for user in ["bob", "hub", "hub-git", "root"] {
        machine.ok(&["chown", user, "/home/alice/site"]);
        let run = sync(&machine, "site").expect(5);
        assert!(
            run.reason().contains("belonged to alice") && run.reason().contains(&format!("belongs to {user} now")),
            "{}",
            run.reason()
        );
        assert_eq!(who(&machine), "", "{user}");
    }
    machine.ok(&["chown", "alice", "/home/alice/site"]);
    // Whoever owns a folder above could do the same.
    machine.ok(&["chown", "bob", "/home/alice"]);
    let run = sync(&machine, "site").expect(5);
    assert!(run.reason().contains("/home/alice: it belongs to bob"), "{}", run.reason());
    machine.ok(&["chown", "alice", "/home/alice"]);
    machine.ok(&["chmod", "777", "/home/alice"]);
    let run = sync(&machine, "site").expect(5);
    assert!(run.reason().contains("chmod go-w /home/alice"), "{}", run.reason());
    // What they may have as usual: a group of their own that can write, and the bit that keeps what is theirs.
    for mode in ["1777", "775", "755", "711", "700"] {
        machine.ok(&["chmod", mode, "/home/alice"]);
        sync(&machine, "site").expect(0);
    }
    assert_eq!(who(&machine), "alice\n", "what was pushed meanwhile");
    // A link of root's in a folder of root's is root's word.
    machine.ok(&["mv", "/home/alice", "/srv/alice"]);
    machine.ok(&["ln", "-s", "../srv/alice", "/home/alice"]);
    push(&machine, "site", &[Text("file", "linked")]);
    sync(&machine, "site").expect(0);
    assert_eq!(who(&machine), "alice\n");
    // A name that became somebody else's.
    machine.ok(&["usermod", "--login", "carol", "alice"]);
    let run = sync(&machine, "site").expect(5);
    assert!(run.reason().contains("is kept for alice") && run.reason().contains("carol"), "{}", run.reason());
}

#[test]
fn a_checkout_of_the_hubs_own_users_or_roots_is_not_taken_over_unasked() {
    let Some(machine) = Machine::boot() else { return };
    push(&machine, "infra", &[Text("file", "1")]);
    configure(&machine, &[repository("infra", "units = \"\"\nbuild = [\"sh\", \"-c\", \"id -un >/srv/infra/who\"]")]);
    for (user, part) in [
        ("hub", "a user of the hub's own services"),
        ("hub-git", "a user of the hub's own services"),
        ("root", "user = \"root\""),
    ] {
        machine.ok(&["rm", "-rf", "/srv/infra"]);
        machine.ok(&["install", "-d", "-o", user, "/srv/infra"]);
        for _ in 0..2 {
            let run = sync(&machine, "infra").expect(5);
            assert!(run.reason().contains(part), "{user}: {}", run.reason());
        }
        assert!(!machine.exists("/srv/infra/.git"));
    }
    // What the hub makes belongs to a user of nothing else.
    machine.ok(&["rm", "-rf", "/srv/infra"]);
    sync(&machine, "infra").expect(0);
    assert_eq!(machine.read("/srv/infra/who"), "hub-checkout\n");
    assert_eq!(machine.ok(&["stat", "-c", "%U", "/srv/infra", "/srv/infra/.git"]), "hub-checkout\nhub-checkout\n");
    assert_eq!(machine.ok(&["id", "-Gn", "hub-checkout"]), "hub-checkout\n");
}

#[test]
fn a_build_and_the_gateway_do_not_reach_each_other() {
    let Some(machine) = Machine::boot() else { return };
    let script = "ls /run/credentials/proxy.service/ >/srv/infra/seen 2>&1; \
                  cat /var/lib/observability-hub/gitops/run.json >>/srv/infra/seen 2>&1; touch /srv/infra/begun; \
                  while ! test -e /srv/go; do sleep 0.1; done";
    configure(&machine, &[repository("infra", &format!("units = \"\"\nbuild = [\"sh\", \"-c\", \"{script}\"]"))]);
    push(&machine, "infra", &[Text("file", "1")]);
    crate::gitops::start_hub(&machine);
    crate::gitops::deliver(&machine, "infra");
    machine.wait_for("the build to begin", SOON, || machine.exists("/srv/infra/begun"));
    // As whoever has taken the gateway over could.
    machine.run(&["runuser", "-u", "hub", "--", "sh", "-c", "kill -9 -1"]);
    assert_eq!(show(&machine, "hub-build-acme__infra.service", "ActiveState"), "active");
    machine.ok(&["touch", "/srv/go"]);
    machine.wait_for("the deployment", SOON, || !deployed(&machine, "infra").is_empty());
    let seen = machine.read("/srv/infra/seen");
    assert_eq!(seen.matches("Permission denied").count() + seen.matches("No such file").count(), 2, "{seen}");
    assert!(!seen.contains("webhook-secret") && !seen.contains("started"), "{seen}");
}

#[test]
fn no_child_has_a_terminal_or_the_session_of_who_started_it() {
    let Some(machine) = Machine::boot() else { return };
    shared_host(&machine, "");
    sync(&machine, "site").expect(0);
    // In the sessions of root's shell, where a filter of alice's types a line (ioctl_tty(2), TIOCSTI), and where each
    // program that is started notes its own: session and terminal are the 6th and 7th field of proc_pid_stat(5).
    let filter = "#!/bin/sh\n(exec 3</dev/tty) 2>/dev/null && echo a terminal >>/srv/noted\n\
                  perl -e 'open(T, \"+<\", \"/dev/tty\") && ioctl(T, 0x5412, $_) for split //, \"touch /srv/typed\\n\"'\n\
                  read -r _ _ _ _ _ session terminal _ </proc/self/stat; echo filter $session $terminal >>/srv/noted\ncat\n";
    machine.write("/srv/filter", filter);
    for program in ["git", "systemctl", "systemd-analyze", "timedatectl", "ssh-keygen", "cat", "mkdir", "rm"] {
        let path = machine.ok(&["which", program]);
        let wrapper = format!(
            "#!/bin/bash\nread -r _ _ _ _ _ session terminal _ </proc/self/stat; echo {program} $session $terminal >>/srv/noted\n\
             exec {} \"$@\"\n",
            path.trim()
        );
        machine.write(&format!("/usr/local/bin/{program}"), wrapper);
        machine.ok(&["chmod", "755", &format!("/usr/local/bin/{program}")]);
    }
    machine.ok(&["chmod", "755", "/srv/filter"]);
    machine.ok(&["install", "-m", "666", "/dev/null", "/srv/noted"]);
    as_user(&machine, "alice", "/usr/bin/git -C ~/site config filter.own.clean /srv/filter; touch ~/site/file");
    for command in ["gitops-sync acme/site --dry-run", "hub doctor", "hub status", "tailscale-gate status"] {
        machine.ok(&["truncate", "-s", "0", "/srv/noted"]);
        // A pseudo terminal whose session's leader notes its own session, and reads what is typed.
        let shell = format!(
            "read -r _ _ _ _ _ session _ </proc/$$/stat; echo $session >/srv/session; {command}; \
             while read -r -t 0.2 line; do eval \"$line\"; done; true"
        );
        machine.run(&["script", "--quiet", "--return", "--command", &format!("bash -c '{shell}'"), "/dev/null"]);
        let (session, noted) = (machine.read("/srv/session"), machine.read("/srv/noted"));
        let lines: Vec<Vec<&str>> = noted.lines().map(|line| line.split(' ').collect()).collect();
        if command.starts_with("gitops") {
            assert!(lines.iter().any(|line| line[0] == "filter"), "{command}: {noted}");
        }
        assert!(command.starts_with("tailscale") || !lines.is_empty(), "{command}");
        for line in &lines {
            assert!(line.len() == 3 && line[2] == "0" && line[1] != session.trim(), "{command}: {line:?} in {session}");
        }
        assert!(!machine.exists("/srv/typed"), "{command}");
    }
}

#[test]
fn a_lock_is_roots_alone_and_one_that_was_not_holds_nobody_up() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "units = \"\"")]);
    push(&machine, "infra", &[Text("file", "1")]);
    machine.ok(&["usermod", "--append", "--groups", "hub", "hub-git"]);
    machine.ok(&["useradd", "--groups", "hub", "member"]);
    for (number, user) in ["hub", "hub-git", "member"].iter().enumerate() {
        // As earlier versions left them.
        for lock in ["gitops/lock", "gate/lock"] {
            let path = format!("{STATE}/{lock}");
            machine.ok(&["install", "-m", "640", "-o", "root", "-g", "hub", "/dev/null", &path]);
            let hold = format!("exec runuser -u {user} -- flock {path} sleep 600");
            machine.ok(&[
                "systemd-run",
                "--quiet",
                &format!("--unit=hold-{number}-{}", lock.replace('/', "-")),
                "sh",
                "-c",
                &hold,
            ]);
            let script = format!("flock --nonblock {path} true");
            machine.wait_for("the lock to be held", SOON, || !machine.run(&["sh", "-c", &script]).status.success());
        }
        let status = machine.run(&["hub", "status"]);
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(said.contains(&format!("(flock, user {user})")) && said.contains("holds the lock"), "{said}");
        let started = Instant::now();
        push(&machine, "infra", &[Text("file", user)]);
        sync(&machine, "infra").expect(0);
        machine.ok(&["systemctl", "start", "gitops-sync.service"]);
        assert!(started.elapsed() < SOON, "{user}: {:?}", started.elapsed());
        let gate = machine.run(&["timeout", "3", "tailscale-gate"]);
        assert_ne!(gate.status.code(), Some(75), "{user}: {}", describe(&gate));
        for lock in ["gitops/lock", "gate/lock"] {
            let path = format!("{STATE}/{lock}");
            assert_eq!(machine.ok(&["stat", "-c", "%U %a", &path]), "root 600\n");
            let again = machine.run(&["runuser", "-u", user, "--", "flock", "--nonblock", &path, "true"]);
            assert!(describe(&again).contains("Permission denied"), "{}", describe(&again));
        }
    }
    assert!(!describe(&machine.run(&["hub", "status"])).contains("holds the lock"));
}

#[test]
fn status_names_a_run_that_waits_and_who_holds_it_up() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "units = \"\"")]);
    push(&machine, "infra", &[Text("file", "1")]);
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemd-run", "--quiet", "--unit=holder", "flock", &format!("{STATE}/gitops/lock"), "sleep", "600"]);
    machine.wait_for("the lock to be held", SOON, || {
        !machine.run(&["flock", "--nonblock", &format!("{STATE}/gitops/lock"), "true"]).status.success()
    });
    push(&machine, "infra", &[Text("file", "2")]);
    machine.ok(&["hub", "deploy", "acme/infra"]);
    machine.ok(&["systemctl", "start", "--no-block", "gitops-sync.service"]);
    machine.wait_for("status to name it", Duration::from_secs(120), || {
        let said = String::from_utf8_lossy(&machine.run(&["hub", "status"]).stdout).into_owned();
        said.contains(" waits for ") && said.contains("(flock, user root)")
    });
    machine.ok(&["systemctl", "stop", "holder.service"]);
    machine.wait_for("the run to end", SOON, || show(&machine, "gitops-sync.service", "ActiveState") == "inactive");
    assert!(!describe(&machine.run(&["hub", "status"])).contains("waits for"));
}

#[test]
fn a_filter_that_sleeps_holds_up_its_own_repository_for_half_a_minute() {
    let Some(machine) = Machine::boot() else { return };
    shared_host(&machine, "");
    let site = machine.read("/etc/observability-hub/hub.toml");
    configure(&machine, &[site, repository("other", "units = \"\"")]);
    push(&machine, "other", &[Text("file", "1")]);
    sync(&machine, "site").expect(0);
    let before = deployed(&machine, "site");
    as_user(&machine, "alice", "git -C ~/site config filter.own.clean 'sleep 1000; cat'; touch ~/site/file");
    push(&machine, "site", &[Text("new", "1")]);
    let started = Instant::now();
    let run = sync_with(&machine, &["acme/site", "acme/other"]);
    let took = started.elapsed();
    assert!((Duration::from_secs(29)..Duration::from_secs(50)).contains(&took), "{took:?}: {:#}", run.result);
    assert!(run.reason().contains("git status") && run.reason().contains("30 s"), "{}", run.reason());
    assert_eq!((deployed(&machine, "site"), deployed(&machine, "other").is_empty()), (before, false));
    assert_eq!(machine.run(&["pgrep", "-fx", "sleep 1000"]).status.code(), Some(1), "the filter was left");
}

#[test]
fn doctor_makes_nothing_where_another_user_could_put_something_in_its_place() {
    let Some(machine) = Machine::boot() else { return };
    push(&machine, "infra", &[Text("file", "1")]);
    configure(&machine, &[repository("infra", "units = \"\"")]);
    let wrapper = "#!/bin/sh\necho \"$(id -un) $PWD $GIT_CONFIG_GLOBAL\" >>/srv/noted\nexec /usr/bin/git \"$@\"\n";
    machine.write("/usr/local/bin/git", wrapper);
    machine.ok(&["chmod", "755", "/usr/local/bin/git"]);
    machine.ok(&["install", "-m", "666", "/dev/null", "/srv/noted"]);
    for _ in 0..2 {
        machine.ok(&["truncate", "-s", "0", "/srv/noted"]);
        machine.run(&["hub", "doctor"]);
        let noted = machine.read("/srv/noted");
        let asked: Vec<&str> = noted.lines().filter(|line| line.starts_with("hub-git ")).collect();
        assert!(!asked.is_empty(), "{noted}");
        for line in asked {
            assert!(
                line.matches(&format!("{STATE}/gitops/access/doctor-")).count() == 2 && !line.contains("/tmp"),
                "{line}"
            );
        }
        assert_eq!(machine.ok(&["find", "/tmp", "/var/tmp", "-name", "hub-*"]), "");
        assert_eq!(machine.ok(&["find", &format!("{STATE}/gitops/access"), "-mindepth", "1"]), "");
        sync(&machine, "infra").expect(0);
    }
    // Only root can rename what is in there, and the folders of hub-git are those below.
    assert_eq!(machine.ok(&["stat", "-c", "%U:%G %a", &format!("{STATE}/gitops/access")]), "root:hub-git 710\n");
    // Everything in gitops/ is for the group at most.
    let open = machine.ok(&["find", &format!("{STATE}/gitops"), "-mindepth", "1", "-maxdepth", "1", "-perm", "/027"]);
    assert_eq!(open, "");
}

#[test]
fn links_in_the_services_folders_lead_root_nowhere() {
    let Some(machine) = Machine::boot() else { return };
    push(&machine, "infra", &[Text("file", "1")]);
    configure(&machine, &[repository("infra", "units = \"\"")]);
    machine.ok(&["install", "-d", "-m", "755", "/srv/target"]);
    machine.write("/srv/target/acme__infra.json", "{}");
    let owners =
        || machine.ok(&["stat", "-c", "%n %U %a", "/srv/target", "/srv/target/acme__infra.json", "/etc/shadow"]);
    let (before, secret) = (owners(), machine.read("/etc/shadow"));
    // What runs as hub can put anything into its own folders, and root comes by: at boot, by an upgrade, by hand.
    as_user(
        &machine,
        "hub",
        &format!(
            "cd {STATE}/proxy; rmdir queue; ln -s /srv/target queue; ln -s /etc/shadow ../data/hub.db; ln -s /etc/shadow ../reading/run.json"
        ),
    );
    machine.run(&["systemd-tmpfiles", "--create", "observability-hub.conf"]);
    let run = machine.run(&["systemctl", "start", "gitops-sync.service"]);
    assert!(!run.status.success(), "a queue that is a link is told of");
    for command in [
        &["hub", "status"][..],
        &["hub", "doctor"],
        &["hub", "deploy", "acme/infra"],
        &["hub", "hold", "acme/infra"],
        &["hub", "dead-letters"],
    ] {
        let said = describe(&machine.run(command));
        assert!(!said.contains(secret.lines().next().expect("a line")), "{command:?}: {said}");
    }
    assert_eq!(owners(), before);
    assert_eq!(machine.read("/srv/target/acme__infra.json"), "{}");
}

#[test]
fn a_repository_of_root_is_not_run_with_another_users_git_folder() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["useradd", "mallory"]);
    push(&machine, "infra", &[Text("file", "1")]);
    configure(&machine, &[repository("infra", "user = \"root\"\nunits = \"\"")]);
    let trap = "git init -q -b main .; git config core.fsmonitor 'touch /srv/pwned'; git config filter.x.clean 'touch /srv/pwned; cat'; \
                echo '* filter=x' >.gitattributes; echo 1 >file; git add -A 2>/dev/null || true; rm -f /srv/pwned";
    // In the folder itself, and above one that is empty.
    for folder in ["/srv/infra", "/srv"] {
        machine.ok(&["sh", "-ec", "rm -rf /srv/infra /srv/.git; mkdir /srv/infra /srv/trap; chown mallory /srv/trap"]);
        as_user(&machine, "mallory", &format!("export HOME=/srv/trap; cd /srv/trap; {trap}"));
        machine.ok(&["sh", "-ec", &format!("rm -f /srv/pwned; mv /srv/trap/.git {folder}/.git; rm -rf /srv/trap")]);
        let run = sync(&machine, "infra");
        assert!(!machine.exists("/srv/pwned"), "{folder}: {:#}", run.result);
        assert_eq!(run.exit, if folder == "/srv" { 0 } else { 5 }, "{folder}: {:#}", run.result);
    }
}

#[test]
fn a_daemon_of_a_build_holds_no_lock() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["useradd", "--create-home", "alice"]);
    let table = repository(
        "infra",
        "user = \"alice\"\nbuild = [\"sh\", \"-c\", \"ls -l /proc/self/fd >seen; setsid sleep 5555 >/dev/null 2>&1 &\"]",
    );
    machine.ok(&["install", "-d", "-o", "alice", "/srv/infra"]);
    // As a child of the worker's, as it is without systemd, and as a unit.
    for (number, prefix) in
        [&[][..], &["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run/systemd && exec \"$@\"", "sh"]]
            .iter()
            .enumerate()
    {
        configure(&machine, std::slice::from_ref(&table));
        push(&machine, "infra", &[Text("file", &number.to_string())]);
        for _ in 0..2 {
            let argv = [prefix, &["gitops-sync", "--json", "acme/infra"][..]].concat();
            let run = machine.run(&argv);
            assert_eq!(run.status.code(), Some(0), "{}", describe(&run));
        }
        let seen = machine.read("/srv/infra/seen");
        assert!(!seen.contains(STATE) && seen.contains("/dev/null"), "{seen}");
        machine.run(&["pkill", "-fx", "sleep 5555"]);
    }
}
