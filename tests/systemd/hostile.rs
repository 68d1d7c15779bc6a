//! What an account that was taken over piles up where root has to clear away or to look, and who is held up by it.

use serde_json::Value;

use crate::gitops::{Text, configure, deployed, push, repository, sync};
use crate::machine::Machine;

const STATE: &str = "/var/lib/observability-hub/gitops";

/// As hub-git: folders in one another, more than a process may have files open.
fn pile_up(machine: &Machine, path: &str) {
    let script =
        "mkdir $ARGV[0] or die; chdir $ARGV[0] or die; for (1..3000) { mkdir \"d\" or die; chdir \"d\" or die }";
    machine.ok(&["runuser", "-u", "hub-git", "--", "perl", "-e", script, path]);
}

#[test]
fn deep_folders_of_hub_git_hold_nobody_up() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "units = \"\"")]);
    push(&machine, "infra", &[Text("file", "1")]);
    sync(&machine, "infra").expect(0);
    // As many as systemd gives a service.
    let sync_as_service = |commit: &str| {
        let argv = ["prlimit", "--nofile=1024:1024", "gitops-sync", "acme/infra"];
        let output = machine.run(&argv);
        assert!(output.status.success(), "{}", crate::machine::describe(&output));
        assert_eq!(deployed(&machine, "infra"), commit);
    };
    // Where keys are laid down for a fetch.
    let access = format!("{STATE}/access/acme__infra");
    machine.ok(&["install", "-d", "-o", "hub-git", "-m", "700", &access]);
    pile_up(&machine, &format!("{access}/deep"));
    sync_as_service(&push(&machine, "infra", &[Text("file", "2")]));
    // Where a mirror is made anew.
    let mirror = format!("{STATE}/mirror/acme__infra.git");
    for place in [format!("{STATE}/mirror/.acme__infra.new"), mirror.clone()] {
        machine.ok(&["rm", "-rf", &mirror]);
        pile_up(&machine, &place);
        machine.ok(&["chown", "--no-dereference", "nobody:", &place]);
        sync_as_service(&push(&machine, "infra", &[Text("file", &place)]));
    }
    let left = machine.ok(&[
        "find",
        &format!("{STATE}/access"),
        &format!("{STATE}/mirror"),
        "-mindepth",
        "1",
        "-maxdepth",
        "1",
    ]);
    assert_eq!(left.trim(), mirror);
}

#[test]
fn large_files_of_a_build_are_not_all_read() {
    let Some(machine) = Machine::boot() else { return };
    let build = "for number in $(seq 30); do truncate -s 60M $number; done";
    configure(&machine, &[repository("infra", &format!("units = \"\"\nbuild = [\"sh\", \"-c\", \"{build}\"]"))]);
    let commit = push(&machine, "infra", &[Text("file", "1")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), commit);
    let built: Value = serde_json::from_str(&machine.read(&format!("{STATE}/built/acme__infra.json"))).expect("JSON");
    let files = built["files"].as_array().expect("a list").len();
    assert!((1..=9).contains(&files), "{files} files of 60 MB were read");
}

#[test]
fn a_checkout_that_leads_to_anothers_stops_nothing_else() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["useradd", "--create-home", "alice"]);
    machine.ok(&["install", "-d", "-o", "alice", "/home/alice/site"]);
    let site = repository("site", "units = \"\"").replace("\"/srv/site\"", "\"/home/alice/site\"");
    configure(&machine, &[repository("infra", "units = \"\""), site]);
    for name in ["infra", "site"] {
        push(&machine, name, &[Text("file", "1")]);
        sync(&machine, name).expect(0);
    }
    let target = ["/srv/infra", "/srv/infra/../infra", "/srv"];
    for (number, target) in target.iter().enumerate() {
        machine.ok(&["runuser", "-u", "alice", "--", "sh", "-ec", &format!("cd; mv site kept; ln -s {target} site")]);
        let commit = push(&machine, "infra", &[Text("file", &format!("{target} {number}"))]);
        sync(&machine, "infra").expect(0);
        assert_eq!(deployed(&machine, "infra"), commit, "{target}");
        let run = sync(&machine, "site").expect(5);
        assert!(run.reason().contains("is a link of alice's"), "{target}: {}", run.reason());
        machine.ok(&["runuser", "-u", "alice", "--", "sh", "-ec", "cd; rm site; mv kept site"]);
    }
    crate::gitops::start_hub(&machine);
}
