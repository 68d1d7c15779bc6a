//! What a unit may be named, what it may enable, and what it may be beside: nobody gets another's unit by a push.

use crate::gitops::{
    Bytes, File, Gone, Link, SOON, Text, configure, dangling, deployed, log, push, push_to, repository, service, show,
    sync, sync_with,
};
use crate::machine::Machine;

const ALL: &str = "[Install]\nWantedBy=multi-user.target\n";

/// What a refusal may not change: files, links, and what systemd says of all units.
fn host(machine: &Machine) -> String {
    let files = machine.ok(&["sh", "-c", "cd /etc/systemd/system && find . ! -type d -printf '%p %l %s %T@\n' | sort"]);
    let units =
        machine.ok(&["sh", "-c", "systemctl list-units --all --plain --no-legend | awk '{print $1,$2,$3}' | sort"]);
    // Timers of the host's own come and go.
    let units: String = units.lines().filter(|line| !line.contains(".device") && !line.contains("apt")).collect();
    files + &units
}

#[test]
fn names_that_reach_beyond_the_repository_are_refused_and_the_host_stays_as_it_is() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let good = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    // Loaded or active without a file of that name, and a drop-in that waits for a name.
    machine.ok(&["mkdir", "-p", "/srv/data", "/etc/systemd/system/waits.service.d"]);
    machine.ok(&["mount", "-t", "tmpfs", "tmpfs", "/srv/data"]);
    machine.ok(&["systemd-run", "--slice=made.slice", "--unit=in-slice", "sleep", "infinity"]);
    machine.write("/etc/systemd/system/waits.service.d/own.conf", "[Service]\nUser=root\n");
    machine.ok(&["mkdir", "-p", "/run/systemd/system/later.service.d"]);
    machine.write("/run/systemd/system/later.service.d/own.conf", "[Service]\nUser=root\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    let plain = service("x", "1");
    let with = |install: &str| plain.replace(ALL, install);
    let bom = with("\u{feff}[Install]\nAlias=ssh.service\n");
    let space = with("[Install]\nWantedBy=multi-user.target\n\u{a0}[Unit]\nAlias=ssh.service\n");
    let carriage = with("# x\r[Install]\rAlias=ssh.service\n");
    let continued = with("[Install]\nWantedBy=multi-user.target \\\n# [Unit]\\\n\nAlias=\\\nssh.service\n");
    let header = with("\\\n[Install]\nAlias=ssh.service\n");
    let quoted = with("[Install]\nAlias=\"ssh.service\"\n");
    let specifier = with("[Install]\nAlias=s%%h.service s%jh.service %p-x.service ss%p.service\n");
    let wants = with("[Install]\nAlias=sysinit.target.wants/x.service\n");
    let own_alias = with("[Install]\nAlias=tailscale-gate.service\n");
    let also = with("[Install]\nWantedBy=multi-user.target\nAlso=debug-shell.service\n");
    let also_continued =
        with("[Install]\nWantedBy=multi-user.target\nAlso=app.service \\\n;no\n debug-shell.service\n");
    let awaited = with("[Install]\nAlias=syslog.service\n");
    let made_up = with("[Install]\nAlias=hub-after-acme__x.service\n");
    let mount = "[Mount]\nWhat=tmpfs\nWhere=/srv/data\nType=tmpfs\n[Install]\nWantedBy=multi-user.target\n";
    let slice = "[Slice]\nTasksMax=5\n";
    let alias_in_drop_in = "[Install]\nAlias=ssh.service\n";
    let cases: Vec<(&str, Vec<File>, &str)> = vec![
        ("a mark before the section", vec![Text("systemd/x.service", &bom)], "Alias=ssh.service"),
        ("a no-break space", vec![Text("systemd/x.service", &space)], "Alias=ssh.service"),
        ("a lone CR", vec![Text("systemd/x.service", &carriage)], "Alias=ssh.service"),
        ("a continued line", vec![Text("systemd/x.service", &continued)], "Alias=ssh.service"),
        ("a continued header", vec![Text("systemd/x.service", &header)], "Alias=ssh.service"),
        ("quotes", vec![Text("systemd/x.service", &quoted)], "Alias=ssh.service"),
        ("specifiers", vec![Text("systemd/x.service", &specifier)], "Alias="),
        ("a folder", vec![Text("systemd/x.service", &wants)], "not a name for it"),
        (
            "in a drop-in",
            vec![Text("systemd/x.service", &plain), Text("systemd/x.service.d/a.conf", alias_in_drop_in)],
            "Alias=ssh.service",
        ),
        ("in an old unit's drop-in", vec![Text("systemd/app.service.d/a.conf", alias_in_drop_in)], "Alias=ssh.service"),
        ("the hub's as an alias", vec![Text("systemd/x.service", &own_alias)], "is a unit of the hub itself"),
        ("the hub's", vec![Text("systemd/proxy.service", &plain)], "own = true"),
        ("the hub's timer", vec![Text("systemd/gitops-sync.timer", "[Timer]\nOnCalendar=daily\n")], "own = true"),
        ("the hub's drop-in", vec![Text("systemd/proxy.service.d/x.conf", "[Service]\nUser=root\n")], "proxy.service"),
        ("a prefix", vec![Text("systemd/systemd-.service", &plain)], "begins so"),
        ("a prefix's drop-in", vec![Text("systemd/systemd-.service.d/x.conf", "[Service]\n")], "begins so"),
        ("a prefix's instance", vec![Text("systemd/systemd-@x.service.d/x.conf", "[Service]\n")], "begins so"),
        ("a prefix of sockets", vec![Text("systemd/a-b-.socket.d/x.conf", "[Socket]\n")], "begins so"),
        ("a kind", vec![Text("systemd/service.d/x.conf", "[Service]\n")], "every service of this host"),
        ("system.slice", vec![Text("systemd/system.slice", slice)], "systemd's own"),
        ("user-1000.slice", vec![Text("systemd/user-1000.slice", slice)], "systemd's own"),
        ("a slice that is there", vec![Text("systemd/made.slice", slice)], "made.slice is active on this host"),
        ("somebody's mount", vec![Text("systemd/srv-data.mount", mount)], "srv-data.mount is active on this host"),
        ("a socket waits", vec![Text("systemd/syslog.service", &plain)], "is what syslog.socket starts"),
        ("a socket waits for an alias", vec![Text("systemd/x.service", &awaited)], "is what syslog.socket starts"),
        ("another's build", vec![Text("systemd/hub-build-acme__x.service", &plain)], "build and after"),
        ("another's after", vec![Text("systemd/x.service", &made_up)], "not a name for it"),
        ("systemd-run's", vec![Text("systemd/run-u7.service", &plain)], "systemd-run(1)"),
        ("a drop-in waits", vec![Text("systemd/waits.service", &plain)], "waits.service.d/own.conf"),
        ("a drop-in waits in /run", vec![Text("systemd/later.service", &plain)], "later.service.d/own.conf"),
        ("takes a packaged unit along", vec![Text("systemd/x.service", &also)], "Also=debug-shell.service"),
        ("takes it along, continued", vec![Text("systemd/x.service", &also_continued)], "Also=debug-shell.service"),
        (
            "a link elsewhere",
            vec![Link("systemd/y.service", "x.service"), Text("systemd/x.service", &plain)],
            "is a link",
        ),
        ("an instance of others", vec![Link("systemd/getty@x.service", "getty@.service")], "does not have"),
        (
            "a header that is not closed",
            vec![Text("systemd/x.service", "[Unit\n[Service]\nExecStart=true\n")],
            "line 1",
        ),
        ("empty", vec![Bytes(b"systemd/x.service", b"")], "is empty"),
    ];
    let before = host(&machine);
    for (number, (what, mut files, part)) in cases.into_iter().enumerate() {
        let branch = format!("case-{number}");
        machine.ok(&["git", "-C", "/srv/origin/infra.git", "branch", &branch, &good]);
        configure(&machine, &[repository("infra", &format!("branch = \"{branch}\""))]);
        machine.ok(&["runuser", "-u", "hub-checkout", "--", "git", "-C", "/srv/infra", "branch", "-q", "-M", &branch]);
        files.push(Text("version", "2"));
        push_to(&machine, "infra", &branch, &files);
        let run = sync(&machine, "infra");
        assert_eq!(run.exit, 5, "{what}: {:#}\n{}", run.result, run.log);
        assert!(run.reason().contains(part), "{what}: {}", run.reason());
        assert_eq!(host(&machine), before, "{what}");
        assert_eq!(deployed(&machine, "infra"), good, "{what}");
    }
}

#[test]
fn what_is_there_can_be_taken_over_by_name() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    machine.ok(&["systemd-run", "--slice=made.slice", "--unit=in-slice", "sleep", "infinity"]);
    machine.ok(&["mkdir", "-p", "/etc/systemd/system/waits.service.d"]);
    machine.write("/etc/systemd/system/waits.service.d/own.conf", "[Service]\nEnvironment=OWN=yes\n");
    push(
        &machine,
        "infra",
        &[Text("systemd/waits.service", &service("waits", "1")), Text("systemd/made.slice", "[Slice]\nTasksMax=50\n")],
    );
    let refused = sync(&machine, "infra").expect(5);
    assert!(refused.reason().contains("--adopt"), "{}", refused.reason());
    sync_with(&machine, &["acme/infra", "--adopt", "waits.service", "--adopt", "made.slice"]).expect(0);
    assert_eq!(show(&machine, "waits.service", "Environment"), "OWN=yes");
    assert_eq!(show(&machine, "waits.service", "ActiveState"), "active");
    assert_eq!(show(&machine, "made.slice", "TasksMax"), "50");
}

#[test]
fn a_good_unit_with_continued_lines_is_enabled_and_changes_with_its_drop_ins() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let unit = service("app", "1").replace(
        ALL,
        "[Install]\r\nAlias=app-one.service \\\r\n# and\r\n  app-two.service\r\nWantedBy= \\\n  multi-user.target \\\n\n",
    );
    push(&machine, "infra", &[Text("systemd/app.service", &unit)]);
    sync(&machine, "infra").expect(0);
    let links =
        || machine.ok(&["sh", "-c", "cd /etc/systemd/system && find . -lname '*/app.service' -printf '%p\n' | sort"]);
    assert_eq!(links(), "./app-one.service\n./app-two.service\n./multi-user.target.wants/app.service\n");
    assert_eq!(show(&machine, "app-two.service", "Id"), "app.service");
    // By the operator, and kept: what the commit says changes, not what it does not say.
    machine.ok(&["systemctl", "add-wants", "sysinit.target", "app.service"]);
    push(
        &machine,
        "infra",
        &[Text("systemd/app.service.d/x.conf", "[Install]\nWantedBy=\nWantedBy=other.target\nAlias=\n")],
    );
    sync(&machine, "infra").expect(0);
    assert_eq!(links(), "./other.target.wants/app.service\n./sysinit.target.wants/app.service\n");
    push(&machine, "infra", &[Gone("systemd/app.service.d/x.conf"), Gone("systemd/app.service")]);
    sync_with(&machine, &["acme/infra"]).expect(0);
    assert_eq!(links(), "");
    assert_eq!(dangling(&machine), "");
}

#[test]
fn also_enables_nothing_that_the_operator_disabled() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(&machine, "infra", &[Text("systemd/b.service", &service("b", "1"))]);
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "disable", "--now", "b.service"]);
    // New with Also=, changed to have it, and in a drop-in.
    let a = |more: &str| service("a", "1").replace(ALL, &format!("{ALL}Also=b.service\n{more}"));
    push(&machine, "infra", &[Text("systemd/a.service", &a(""))]);
    sync(&machine, "infra").expect(0);
    let enabled =
        |unit: &str| String::from_utf8_lossy(&machine.run(&["systemctl", "is-enabled", unit]).stdout).trim().to_owned();
    assert_eq!((enabled("a.service"), enabled("b.service")), ("enabled".to_owned(), "disabled".to_owned()));
    push(&machine, "infra", &[Text("systemd/a.service", &a("WantedBy=other.target\n"))]);
    sync(&machine, "infra").expect(0);
    assert_eq!((enabled("a.service"), enabled("b.service")), ("enabled".to_owned(), "disabled".to_owned()));
    assert_eq!(show(&machine, "b.service", "ActiveState"), "inactive");
    // The other way round: what the operator enabled stays when the unit that takes it along changes.
    machine.ok(&["systemctl", "enable", "b.service"]);
    push(&machine, "infra", &[Text("systemd/a.service", &a("WantedBy=third.target\n"))]);
    sync(&machine, "infra").expect(0);
    assert_eq!((enabled("a.service"), enabled("b.service")), ("enabled".to_owned(), "enabled".to_owned()));
}

#[test]
fn a_mask_is_a_mask_wherever_it_is() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "stop", "app.service"]);
    machine.ok(&["ln", "-s", "/dev/null", "/run/systemd/system/app.service"]);
    machine.ok(&["ln", "-s", "/dev/null", "/run/systemd/system/new.service"]);
    machine.ok(&["systemctl", "daemon-reload"]);
    log(&machine);
    push(
        &machine,
        "infra",
        &[Text("systemd/app.service", &service("app", "2")), Text("systemd/new.service", &service("new", "1"))],
    );
    let run = sync(&machine, "infra").expect(0);
    let actions: Vec<_> =
        run.first()["units"].as_array().expect("units").iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["masked", "masked"]);
    assert_eq!(log(&machine), Vec::<String>::new());
    assert!(!machine.exists("/etc/systemd/system/new.service"));
    // Once it is gone, the new version is installed.
    machine.ok(&["rm", "/run/systemd/system/app.service", "/run/systemd/system/new.service"]);
    let run = sync(&machine, "infra").expect(0);
    assert!(machine.read("/etc/systemd/system/app.service").contains("app 2"), "{:#}", run.result);
    assert!(machine.exists("/etc/systemd/system/new.service"));
}

#[test]
fn instances_are_enabled_started_and_removed_like_units() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let template = service("app-%i", "1").replace(ALL, "[Install]\nWantedBy=multi-user.target\nAlias=also@.service\n");
    let with_default = |instance: &str| {
        service("def-%i", "1")
            .replace(ALL, &format!("[Install]\nWantedBy=multi-user.target\nDefaultInstance={instance}\n"))
    };
    push(
        &machine,
        "infra",
        &[
            Text("systemd/app@.service", &template),
            Link("systemd/app@one.service", "app@.service"),
            Link("systemd/app@two.service", "app@.service"),
            Text("systemd/app@two.service.d/x.conf", "[Service]\nEnvironment=TWO=yes\n"),
            Text("systemd/def@.service", &with_default("main")),
        ],
    );
    let run = sync(&machine, "infra").expect(0);
    let mut started = log(&machine);
    started.sort();
    assert_eq!(started, ["start app-one 1", "start app-two 1", "start def-main 1"], "{:#}", run.result);
    assert_eq!(show(&machine, "app@two.service", "Environment"), "TWO=yes");
    assert_eq!(show(&machine, "also@one.service", "Id"), "app@one.service");
    assert_eq!(sync(&machine, "infra").expect(0).first()["status"], "unchanged");

    // The operator's disable is kept, although systemd takes the instance's link away with it.
    machine.ok(&["systemctl", "disable", "--now", "app@one.service"]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "app@one.service", "ActiveState"), "inactive");
    assert!(!machine.exists("/etc/systemd/system/multi-user.target.wants/app@one.service"));
    machine.ok(&["systemctl", "enable", "--now", "app@one.service"]);
    // The service says so a moment after systemd counts it as started.
    machine.wait_for("app@one.service to start", SOON, || machine.read("/srv/log").contains("start app-one 1\n"));
    log(&machine);

    // One goes, one comes, the default becomes another.
    push(
        &machine,
        "infra",
        &[
            Gone("systemd/app@one.service"),
            Link("systemd/app@three.service", "app@.service"),
            Text("systemd/def@.service", &with_default("other")),
        ],
    );
    let run = sync(&machine, "infra").expect(0);
    let mut happened = log(&machine);
    happened.sort();
    assert_eq!(
        happened,
        ["start app-three 1", "start def-other 1", "stop app-one 1", "stop def-main 1"],
        "{:#}",
        run.result
    );
    let links = machine.ok(&[
        "sh",
        "-c",
        "cd /etc/systemd/system && find . -name '*@*' -type l -printf '%p\n' | grep -v getty | sort",
    ]);
    assert_eq!(
        links,
        "./also@three.service\n./also@two.service\n./app@three.service\n./app@two.service\n\
         ./multi-user.target.wants/app@three.service\n./multi-user.target.wants/app@two.service\n\
         ./multi-user.target.wants/def@other.service\n"
    );

    // All of it goes.
    push(
        &machine,
        "infra",
        &[
            Gone("systemd/app@.service"),
            Gone("systemd/app@two.service"),
            Gone("systemd/app@two.service.d/x.conf"),
            Gone("systemd/app@three.service"),
            Gone("systemd/def@.service"),
            Text("systemd/rest.service", &service("rest", "1")),
        ],
    );
    sync(&machine, "infra").expect(0);
    let mut happened = log(&machine);
    happened.sort();
    assert_eq!(happened, ["start rest 1", "stop app-three 1", "stop app-two 1", "stop def-other 1"]);
    assert_eq!(
        machine.ok(&["sh", "-c", "cd /etc/systemd/system && find . -name '*@*' | grep -v -e getty -e sshd; true"]),
        ""
    );
    assert_eq!(dangling(&machine), "");
}

#[test]
fn an_instance_that_fails_is_taken_back() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let template = |program: &str| format!("[Service]\nExecStart={program}\n{ALL}");
    push(
        &machine,
        "infra",
        &[
            Text("systemd/app@.service", &template("/usr/bin/sleep %i")),
            Link("systemd/app@1000.service", "app@.service"),
        ],
    );
    sync(&machine, "infra").expect(0);
    let before = host(&machine);
    push(&machine, "infra", &[Link("systemd/app@x.service", "app@.service")]);
    sync(&machine, "infra").expect(3);
    assert_eq!(show(&machine, "app@1000.service", "ActiveState"), "active");
    assert_eq!(host(&machine), before);

    // A default instance, and the one that is to take its place and fails.
    let with_default = |instance: &str| template("/usr/bin/sleep %i") + &format!("DefaultInstance={instance}\n");
    let first = [Gone("systemd/app@x.service"), Text("systemd/def@.service", &with_default("1000"))];
    push(&machine, "infra", &first);
    sync(&machine, "infra").expect(0);
    let before = host(&machine);
    push(&machine, "infra", &[Text("systemd/def@.service", &with_default("x"))]);
    sync(&machine, "infra").expect(3);
    assert_eq!(show(&machine, "def@1000.service", "ActiveState"), "active");
    assert_eq!(show(&machine, "def@x.service", "ActiveState"), "inactive");
    assert_eq!(without_times(&host(&machine)), without_times(&before));

    // Without any it is stopped and enabled no more.
    push(&machine, "infra", &[Text("systemd/def@.service", &template("/usr/bin/sleep %i"))]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "def@1000.service", "ActiveState"), "inactive");
    assert!(!machine.exists("/etc/systemd/system/multi-user.target.wants/def@1000.service"));

    // What the template says is wanted elsewhere is so for the instance that did not change.
    push(
        &machine,
        "infra",
        &[Text("systemd/app@.service", &template("/usr/bin/sleep %i").replace("multi-user", "other"))],
    );
    sync(&machine, "infra").expect(0);
    assert!(machine.exists("/etc/systemd/system/other.target.wants/app@1000.service"));
    assert!(!machine.exists("/etc/systemd/system/multi-user.target.wants/app@1000.service"));
    assert_eq!(show(&machine, "app@1000.service", "ActiveState"), "active");
}

/// Files that were put back have another time.
fn without_times(host: &str) -> String {
    let lines = host
        .lines()
        .map(|line| line.rsplit_once(' ').filter(|_| line.starts_with("./")).map_or(line, |(file, _)| file));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_link_that_nobody_planned_is_taken_back_and_the_deployment_fails() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    // What the hub does not follow says more than the commit: a drop-in that is a link.
    machine.write("/srv/more.conf", "[Install]\nAlias=dbus-org.example.service\nRequiredBy=sysinit.target\n");
    machine.ok(&["mkdir", "/etc/systemd/system/app.service.d", "/etc/systemd/system/new.service.d"]);
    for unit in ["app", "new"] {
        machine.ok(&["ln", "-s", "/srv/more.conf", &format!("/etc/systemd/system/{unit}.service.d/more.conf")]);
    }
    machine.ok(&["systemctl", "daemon-reload"]);
    let before = host(&machine);
    log(&machine);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "2").replace("multi-user", "other"))]);
    let run = sync(&machine, "infra").expect(3);
    for part in
        ["links that the commit does not stand for", "dbus-org.example.service", "sysinit.target.requires/app.service"]
    {
        assert!(run.reason().contains(part), "{part}: {}", run.reason());
    }
    assert_eq!(without_times(&host(&machine)), without_times(&before));
    assert_eq!(show(&machine, "app.service", "ActiveState"), "active");
    push(
        &machine,
        "infra",
        &[Text("systemd/app.service", &service("app", "1")), Text("systemd/new.service", &service("new", "1"))],
    );
    sync_with(&machine, &["acme/infra", "--adopt", "new.service"]).expect(3);
    assert_eq!(without_times(&host(&machine)), without_times(&before));
}

#[test]
fn packaged_units_get_drop_ins_where_the_operator_says_so() {
    let Some(machine) = Machine::boot() else { return };
    let sshd = "[Service]\nEnvironment=FROM=repository\n";
    configure(&machine, &[repository("infra", "dropins = [\"ssh.service\", \"getty@.service\"]")]);
    machine.ok(&["systemctl", "start", "ssh.service"]);
    let before = show(&machine, "ssh.service", "InvocationID");
    let files = [
        Text("systemd/ssh.service.d/x.conf", sshd),
        Text("systemd/getty@tty2.service.d/x.conf", "[Service]\nEnvironment=FROM=repository\n"),
    ];
    push(&machine, "infra", &files);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "ssh.service", "Environment"), "FROM=repository");
    assert_eq!(show(&machine, "getty@tty2.service", "Environment"), "FROM=repository");
    assert_ne!(show(&machine, "ssh.service", "InvocationID"), before);
    assert_eq!(show(&machine, "ssh.service", "ActiveState"), "active");

    // What breaks the unit is refused; what breaks its start is taken back.
    push(&machine, "infra", &[Text("systemd/ssh.service.d/x.conf", "[Service]\nExecStart=/usr/bin/no-such-program\n")]);
    let refused = sync(&machine, "infra").expect(5);
    assert!(refused.reason().contains("ssh.service"), "{}", refused.reason());
    push(&machine, "infra", &[Text("systemd/ssh.service.d/x.conf", "[Service]\nExecStartPre=/usr/bin/false\n")]);
    sync(&machine, "infra").expect(3);
    assert_eq!(show(&machine, "ssh.service", "ActiveState"), "active");
    assert_eq!(show(&machine, "ssh.service", "Environment"), "FROM=repository");

    // They go with the commit, and the unit stays.
    push(&machine, "infra", &[Gone("systemd/ssh.service.d/x.conf"), Gone("systemd/getty@tty2.service.d/x.conf")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "ssh.service", "Environment"), "");
    assert_eq!(show(&machine, "ssh.service", "ActiveState"), "active");
    assert!(!machine.exists("/etc/systemd/system/ssh.service.d"));
}

#[test]
fn upheld_by_is_no_enablement_where_systemd_does_not_know_it() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let unit = service("app", "1").replace("WantedBy", "UpheldBy");
    push(&machine, "infra", &[Text("systemd/app.service", &unit)]);
    let run = sync(&machine, "infra").expect(0);
    let version = machine.ok(&["systemctl", "--version"]);
    let version: u32 = version.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a version");
    let actions = run.actions();
    assert_eq!(actions.is_empty(), version < 254, "{actions:?}");
    assert_eq!(log(&machine).is_empty(), version < 254);
    // A second key that it knows is enough.
    push(
        &machine,
        "infra",
        &[Text("systemd/app.service", &unit.replace("[Install]", "[Install]\nRequiredBy=other.target"))],
    );
    sync(&machine, "infra").expect(0);
    assert!(machine.exists("/etc/systemd/system/other.target.requires/app.service"));
    assert_eq!(show(&machine, "app.service", "ActiveState"), "active");
}

#[test]
fn what_systemd_ignores_is_said_until_it_is_mended() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let unit = |more: &str| service("app", "1").replace("[Service]\n", &format!("[Service]\n{more}"));
    let first = push(
        &machine,
        "infra",
        &[Text("systemd/app.service", &unit("MemoryMax=sixtyfour\nRestart=alway\nRestrat=always\n"))],
    );
    sync(&machine, "infra").expect(0);
    let reasons = || {
        let output = machine.run(&["hub", "status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let all = status["reasons"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|one| one["about"] == "acme/infra").map(|one| one["reason"].to_string()).collect::<String>()
    };
    let said = reasons();
    for part in ["app.service:4", "MemoryMax=", "alway", "Restrat"] {
        assert!(said.contains(part) || part == "MemoryMax=" && said.contains("sixtyfour"), "{part}: {said}");
    }
    // A commit that leaves the units alone does not mend them.
    push(&machine, "infra", &[Text("README", "2")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(reasons(), said);
    // Neither does one that adds another, in a drop-in; a typo there is seen too.
    push(
        &machine,
        "infra",
        &[Text("systemd/app.service", &unit("")), Text("systemd/app.service.d/x.conf", "[Servcie]\nNice=5\n")],
    );
    sync(&machine, "infra").expect(0);
    assert!(reasons().contains("app.service.d/x.conf:1"), "{}", reasons());
    push(&machine, "infra", &[Text("systemd/app.service.d/x.conf", "[Service]\nNice=5\n")]);
    sync(&machine, "infra").expect(0);
    assert_eq!(reasons(), "");
    // Whoever goes back to it has it again.
    machine.ok(&["hub", "rollback", "acme/infra", &first]);
    assert!(reasons().contains("app.service:4"), "{}", reasons());
}

/// Reports of others about unit files, each as its reporter has it.
#[test]
fn what_went_wrong_elsewhere_goes_right() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    machine.ok(&["ln", "-s", "/dev/null", "/etc/systemd/system/masked@main.service"]);
    machine.ok(&["systemctl", "daemon-reload"]);
    let files = |version: &str| {
        let unit = |name: &str, install: &str| service(name, version).replace(ALL, install);
        vec![
            // systemd#12883, systemd#12898: an empty line ends what is continued.
            (
                "chomped.service",
                unit("chomped", "[Install]\nAlias=chomped-one.service \\\n\nWantedBy=multi-user.target\n"),
            ),
            // systemd#10598, vm0#33177: a comment that ends in a backslash takes no line along.
            ("comment.service", unit("comment", "[Install]\n# example \\\nWantedBy=multi-user.target\n")),
            // systemd#2823: a byte order mark in a line of its own.
            ("mark.service", format!("\u{feff}\n{}", unit("mark", ALL))),
            // systemd#8875, galliumos-distro#369: a list that ends in a backslash at the end of the file.
            ("end.service", unit("end", "[Install]\nWantedBy= \\\nother.target \\\nmulti-user.target \\\n")),
            // systemd#3302: one line, longer than the 2,048 bytes that were once a line.
            (
                "long.service",
                unit(
                    "long",
                    &format!("[Install]\nWantedBy=multi-user.target {}Alias=dbus.service\n", " ".repeat(2100)),
                ),
            ),
            // poky#9: an empty value clears the list.
            (
                "cleared.service",
                unit("cleared", "[Install]\nWantedBy=sysinit.target\nWantedBy=\nWantedBy=multi-user.target\n"),
            ),
            // go-systemd#55: a backslash within a line continues nothing.
            (
                "within.service",
                unit("within", ALL)
                    .replace("[Install]", "ExecStartPre=/usr/bin/sh -c \"echo \\\"x\\\"; true\"\n[Install]"),
            ),
            // systemd#33411: nothing but a name in [Install].
            ("alias.service", unit("alias", "[Install]\nAlias=alias-one.service\n")),
            // syslog-ng#4087: a template that nobody instantiates, wanted by what has no instances.
            ("bare@.service", unit("bare-%i", ALL)),
            // systemd#19437: a template that is wanted by a template's instances.
            (
                "handler@.service",
                unit("handler-%i", "[Install]\nWantedBy=bare@.service fixed.target\nDefaultInstance=inst\n"),
            ),
            // systemd#2513: the default instance is masked.
            ("masked@.service", unit("masked-%i", "[Install]\nWantedBy=multi-user.target\nDefaultInstance=main\n")),
        ]
    };
    let push_all = |version: &str, more: &[File]| {
        let files = files(version);
        let paths: Vec<String> = files.iter().map(|(name, _)| format!("systemd/{name}")).collect();
        let mut all: Vec<File> = files.iter().zip(&paths).map(|((_, content), path)| Text(path, content)).collect();
        all.extend(more.iter().map(|file| match file {
            Text(path, content) => Text(path, content),
            _ => Gone("none"),
        }));
        push(&machine, "infra", &all);
    };
    push_all("1", &[]);
    let refused = sync(&machine, "infra").expect(5);
    assert!(refused.reason().contains("Alias"), "{}", refused.reason());
    // The long line's tail is a name that nothing has: as it should be read, and so it is refused. Without it all is well.
    let whole = files("1");
    let files: Vec<(String, &str)> = whole
        .iter()
        .filter(|(name, _)| *name != "long.service")
        .map(|(name, content)| (format!("systemd/{name}"), content.as_str()))
        .collect();
    let mut all: Vec<File> = files.iter().map(|(path, content)| Text(path, content)).collect();
    all.push(Gone("systemd/long.service"));
    push(&machine, "infra", &all);
    let run = sync(&machine, "infra").expect(0);
    let mut started = log(&machine);
    started.sort();
    let expected = ["alias", "chomped", "cleared", "comment", "end", "handler-inst", "mark", "within"];
    assert_eq!(started, expected.map(|name| format!("start {name} 1")), "{:#}", run.result);
    let links = machine.ok(&[
        "sh",
        "-c",
        "cd /etc/systemd/system && find . -lname '/etc/systemd/system/*' -printf '%p\n' | sort",
    ]);
    assert_eq!(
        links,
        "./alias-one.service\n./bare@.service.wants/handler@inst.service\n./chomped-one.service\n\
         ./fixed.target.wants/handler@inst.service\n./multi-user.target.wants/chomped.service\n\
         ./multi-user.target.wants/cleared.service\n./multi-user.target.wants/comment.service\n\
         ./multi-user.target.wants/end.service\n./multi-user.target.wants/mark.service\n\
         ./multi-user.target.wants/within.service\n./other.target.wants/end.service\n"
    );

    // systemd#11015: a template changes its [Install], and the instances that the operator enabled stay enabled.
    machine.ok(&["systemctl", "enable", "--now", "bare@a.service", "bare@b.service", "handler@c.service"]);
    push(
        &machine,
        "infra",
        &[
            Text("systemd/bare@.service", &service("bare-%i", "2").replace("multi-user", "other")),
            Text(
                "systemd/handler@.service",
                &service("handler-%i", "2").replace(ALL, "[Install]\nWantedBy=fixed.target\nDefaultInstance=inst\n"),
            ),
        ],
    );
    sync(&machine, "infra").expect(0);
    let links = machine.ok(&[
        "sh",
        "-c",
        "cd /etc/systemd/system && find . -lname '/etc/systemd/system/*@*' -printf '%p\n' | sort",
    ]);
    assert_eq!(
        links,
        "./bare@.service.wants/handler@c.service\n./fixed.target.wants/handler@c.service\n\
         ./fixed.target.wants/handler@inst.service\n./multi-user.target.wants/bare@a.service\n\
         ./multi-user.target.wants/bare@b.service\n"
    );

    // systemd#23694: the alias of a package that is gone still points to it; percona-xtradb-cluster#576, systemd#661:
    // a template with a plain alias, a plain unit with an instance's; systemd#9680: a slice for all users.
    machine.ok(&["ln", "-s", "/usr/lib/systemd/system/gone.service", "/etc/systemd/system/left.service"]);
    let aliased = |alias: &str| service("x", "1").replace(ALL, &format!("[Install]\nAlias={alias}\n"));
    for (file, content, part) in [
        (
            "systemd/x.service",
            aliased("left.service"),
            "left.service is a link to /usr/lib/systemd/system/gone.service",
        ),
        ("systemd/x@.service", aliased("y.service"), "not a name for it"),
        ("systemd/x.service", aliased("y@foo.service"), "not a name for it"),
        ("systemd/user-.slice", "[Slice]\nTasksMax=5\n".to_owned(), "begins so"),
    ] {
        push(&machine, "infra", &[Text(file, &content)]);
        let refused = sync(&machine, "infra").expect(5);
        assert!(refused.reason().contains(part), "{file} {part}: {}", refused.reason());
        push(&machine, "infra", &[Gone(file)]);
    }

    // systemd#10583, nixpkgs#252591: a mask in a folder that counts less than the unit's is meant as one all the same; so is
    // the one in the folder of transient units, which is the advice there.
    for folder in ["/run/systemd/system", "/run/systemd/transient"] {
        machine.ok(&["mkdir", "-p", folder]);
        machine.ok(&["systemctl", "stop", "mark.service"]);
        machine.ok(&["ln", "-s", "/dev/null", &format!("{folder}/mark.service")]);
        machine.ok(&["systemctl", "daemon-reload"]);
        log(&machine);
        push(&machine, "infra", &[Text("systemd/mark.service", &service("mark", folder))]);
        sync(&machine, "infra").expect(0);
        assert_eq!(log(&machine), Vec::<String>::new(), "{folder}");
        machine.ok(&["rm", &format!("{folder}/mark.service")]);
    }

    // systemd#26857: [Install] in the drop-ins of a prefix is none; such drop-ins are refused as a whole.
    push(&machine, "infra", &[Text("systemd/chomped-.service.d/base.conf", ALL)]);
    assert!(sync(&machine, "infra").expect(5).reason().contains("begins so"));
}
