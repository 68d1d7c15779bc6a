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

/// A checkout of alice's, whose git runs a filter of hers.
fn with_filter(machine: &Machine, filter: &str) {
    machine.ok(&["useradd", "--create-home", "alice"]);
    machine.ok(&["install", "-d", "-o", "alice", "-g", "alice", "/home/alice/site"]);
    let site = repository("site", "units = \"\"").replace("\"/srv/site\"", "\"/home/alice/site\"");
    configure(machine, &[site]);
    push(machine, "site", &[Text("file", "1"), Text(".gitattributes", "file filter=own\n")]);
    sync(machine, "site").expect(0);
    machine.write("/home/alice/filter", format!("#!/bin/sh\n{filter}\nexec cat\n"));
    let script = "chmod 755 /home/alice/filter; cd site; git config filter.own.clean ~/filter; touch file";
    machine.ok(&["chown", "alice", "/home/alice/filter"]);
    machine.ok(&["runuser", "-l", "alice", "-c", script]);
}

#[test]
fn nothing_stays_of_what_a_filter_starts() {
    let Some(machine) = Machine::boot() else { return };
    // Out of the session of git, by themselves, and one that goes on starting itself anew.
    with_filter(
        &machine,
        "for number in $(seq 30); do setsid sleep 4321 >/dev/null 2>&1 </dev/null & done
         (setsid sh -c 'setsid sh -c \"sleep 4321\" &' >/dev/null 2>&1 </dev/null &)
         echo 'sleep 0.3; setsid sh /tmp/again &' >/tmp/again; setsid sh /tmp/again >/dev/null 2>&1 </dev/null &
         cat /proc/self/oom_score_adj >>/tmp/score",
    );
    for number in 2..4 {
        let commit = push(&machine, "site", &[Text("other", &number.to_string())]);
        let run = sync(&machine, "site").expect(0);
        assert_eq!(deployed(&machine, "site"), commit);
        let left = machine.run(&["pgrep", "-l", "-u", "alice", "-x", "sleep|sh|setsid|cat|filter"]);
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "{}", run.log);
        machine.ok(&["runuser", "-u", "alice", "--", "touch", "/home/alice/site/file"]);
    }
    // Where there is no memory left, they go first.
    let scores = machine.read("/tmp/score");
    assert!(scores.lines().count() > 1 && scores.lines().all(|score| score == "500"), "{scores}");
}

#[test]
fn what_the_caller_has_open_reaches_no_child() {
    let Some(machine) = Machine::boot() else { return };
    with_filter(&machine, "echo at work >>/tmp/read; cat <&9 >>/tmp/read 2>/dev/null");
    for (number, program) in ["gitops-sync acme/site", "gitops-sync --dry-run acme/site"].iter().enumerate() {
        push(&machine, "site", &[Text("other", &number.to_string())]);
        // As a script does that keeps a file open, or reads one line by line.
        machine.run(&["sh", "-c", &format!("exec 9</etc/shadow; {program}")]);
        let read = machine.read("/tmp/read");
        assert!(read.contains("at work") && !read.contains("root:"), "{program}: {read}");
        machine.ok(&["runuser", "-u", "alice", "--", "sh", "-c", "rm /tmp/read; touch /home/alice/site/file"]);
    }
}

#[test]
fn what_a_commit_leaves_out_is_looked_for_with_the_owners_eyes() {
    let Some(machine) = Machine::boot() else { return };
    with_filter(&machine, "");
    // What only root may read in alice's checkout is not told her, whatever her index says is there.
    machine.write("/home/alice/site/kept/file", "version https://git-lfs.github.com/spec/v1\nsize 1\n");
    machine.ok(&["chmod", "700", "/home/alice/site/kept"]);
    let script = "cd; cd site; git update-index --add --cacheinfo 100644,$(git hash-object -w file),kept/file";
    machine.ok(&["runuser", "-u", "alice", "--", "sh", "-ec", script]);
    push(&machine, "site", &[Text(".gitattributes", "file filter=own\nkept/* filter=lfs\n")]);
    sync(&machine, "site").expect(0);
    let said = machine.read(&format!("{STATE}/checked/acme__site.json"));
    assert!(!said.contains("pointers"), "{said}");
}

#[test]
fn places_for_processes_that_others_have_taken_are_waited_for() {
    let Some(machine) = Machine::boot() else { return };
    // A number that nobody else has, in other machines on the same kernel either.
    let uid = (40_000 + std::process::id() % 20_000).to_string();
    machine.ok(&["useradd", "--create-home", "--uid", &uid, "bob"]);
    push(&machine, "site", &[Text("file", "1")]);
    machine.ok(&["chown", "-R", "bob", "/srv/origin/site.git"]);
    let table = repository("site", "units = \"\"").replace("\"/srv/site\"", "\"/home/bob/site\"");
    machine.write("/home/bob/hub.toml", table);
    let script = "cd; export HUB_STATE_DIR=$HOME/state HUB_CONFIG=$HOME/hub.toml
                  (for number in $(seq 40); do setsid sleep 5 >/dev/null 2>&1 </dev/null & done)
                  exec prlimit --nproc=30 gitops-sync acme/site";
    let output = machine.run(&["runuser", "-u", "bob", "--", "sh", "-c", script]);
    assert!(output.status.success(), "{}", crate::machine::describe(&output));
    assert_eq!(machine.read("/home/bob/site/file"), "1");
}

/// Gives a user rights on a folder by an access list (acl(5), linux/posix_acl_xattr.h), as setfacl(1) does.
fn allow(machine: &Machine, path: &str, uid: &str, kind: u16) {
    let script = "my ($path, $kind, $id) = @ARGV; my $none = 0xffffffff;
        my $list = pack('L<', 2) . join '', map { pack('S<S<L<', @$_) }
            ([1, 7, $none], $kind == 2 ? [2, 7, $id] : (), [4, 5, $none], $kind == 8 ? [8, 7, $id] : (), [16, 7, $none], [32, 5, $none]);
        my $name = 'system.posix_acl_access';
        syscall(188, $path, $name, $list, length $list, 0) == 0 or die qq(setxattr: $!\n)";
    machine.ok(&["perl", "-e", script, path, &kind.to_string(), uid]);
}

#[test]
fn an_access_list_on_the_way_to_a_checkout_counts() {
    let Some(machine) = Machine::boot() else { return };
    for user in ["alice", "mallory"] {
        machine.ok(&["useradd", "--create-home", user]);
    }
    let mallory = machine.ok(&["id", "-u", "mallory"]);
    machine.ok(&["install", "-d", "-o", "alice", "-g", "alice", "/home/alice/site"]);
    let site = repository("site", "units = \"\"").replace("\"/srv/site\"", "\"/home/alice/site\"");
    configure(&machine, &[site]);
    let expect = |exit: i32, what: &str| {
        let commit = push(&machine, "site", &[Text("file", what)]);
        let run = sync(&machine, "site").expect(exit);
        assert_eq!(deployed(&machine, "site") == commit, exit == 0, "{what}");
        assert!(exit == 0 || run.reason().contains("others than its owner can write it"), "{what}: {}", run.reason());
    };
    machine.ok(&["chmod", "775", "/home/alice"]);
    expect(0, "the group that useradd made");
    for (kind, what) in [(2, "a user"), (8, "a group")] {
        allow(&machine, "/home/alice", mallory.trim(), kind);
        expect(5, what);
        // What the reason says to do.
        machine.ok(&["chmod", "go-w", "/home/alice"]);
        expect(0, "the mask takes the right away");
    }
    machine.ok(&[
        "perl",
        "-e",
        "my $name = 'system.posix_acl_access'; syscall(197, $ARGV[0], $name) == 0 or die $!",
        "/home/alice",
    ]);
    machine.ok(&["chmod", "775", "/home/alice"]);
    expect(0, "no list any more");
    machine.ok(&["gpasswd", "--add", "mallory", "alice"]);
    expect(5, "another member of the group");
}
