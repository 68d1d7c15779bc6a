//! What the operator did to units survives, or is repaired and kept, as the design says; what somebody installed before
//! is adopted.

use crate::gitops::{Gone, Text, configure, dangling, log, push, repository, service, show, sync, sync_with};
use crate::machine::Machine;

const SAVED: &str = "/var/lib/observability-hub/gitops/saved/acme__infra";

#[test]
fn disable_mask_drop_in_and_links_survive_and_edits_are_repaired_and_kept() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let names = ["disabled", "masked", "dropped", "edited", "removed", "linked", "wanted"];
    let all = |version: &str| names.map(|name| (format!("systemd/{name}.service"), service(name, version)));
    let push_all = |version: &str| {
        let files = all(version);
        push(&machine, "infra", &files.each_ref().map(|(name, content)| Text(name, content)))
    };
    push_all("1");
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "disable", "--now", "disabled.service"]);
    machine.ok(&["systemctl", "add-wants", "multi-user.target", "wanted.service"]);
    machine.ok(&["mkdir", "-p", "/etc/systemd/system/rescue.target.wants"]);
    machine.ok(&["ln", "-s", "/etc/systemd/system/wanted.service", "/etc/systemd/system/rescue.target.wants/"]);
    machine.ok(&["ln", "-sf", "/dev/null", "/etc/systemd/system/masked.service"]);
    machine.write("/etc/systemd/system/dropped.service.d/mine.conf", "[Service]\nNice=7\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "restart", "dropped.service"]);
    log(&machine);

    // A commit that changes all of them.
    push_all("2");
    sync(&machine, "infra").expect(0);
    let mut happened = log(&machine);
    happened.retain(|line| line.starts_with("start"));
    happened.sort();
    let expected = ["dropped", "edited", "linked", "removed", "wanted"].map(|name| format!("start {name} 2"));
    assert_eq!(happened, expected);
    assert_eq!(machine.run(&["systemctl", "is-enabled", "disabled.service"]).stdout, b"disabled\n");
    assert_eq!(show(&machine, "disabled.service", "ActiveState"), "inactive");
    assert_eq!(machine.ok(&["readlink", "/etc/systemd/system/masked.service"]), "/dev/null\n");
    assert_eq!(show(&machine, "dropped.service", "Nice"), "7");
    assert_eq!(machine.read("/etc/systemd/system/dropped.service.d/mine.conf"), "[Service]\nNice=7\n");
    assert!(machine.exists("/etc/systemd/system/rescue.target.wants/wanted.service"));

    // Edits are drift: named in a dry run, repaired without a new commit, and not lost.
    let mine = service("edited", "by hand");
    machine.write("/etc/systemd/system/edited.service", &mine);
    machine.ok(&["rm", "/etc/systemd/system/removed.service"]);
    machine.write("/srv/elsewhere.service", service("linked", "elsewhere"));
    machine.ok(&["ln", "-sf", "/srv/elsewhere.service", "/etc/systemd/system/linked.service"]);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "restart", "edited.service", "linked.service"]);
    log(&machine);
    let plan = sync_with(&machine, &["--dry-run", "acme/infra"]).expect(0);
    let lines = plan.first()["units"].as_array().expect("units").clone();
    let drifted: Vec<_> =
        lines.iter().filter(|line| line["action"] == "drift").map(|line| line["file"].clone()).collect();
    assert_eq!(drifted, ["edited.service", "linked.service", "removed.service"], "{lines:#?}");
    assert_eq!(machine.read("/etc/systemd/system/edited.service"), mine);
    let run = sync(&machine, "infra").expect(0);
    assert_eq!(run.first()["from"], run.first()["to"]);
    for name in ["edited", "removed", "linked"] {
        assert_eq!(machine.read(&format!("/etc/systemd/system/{name}.service")), service(name, "2"));
        assert_eq!(show(&machine, &format!("{name}.service"), "Description"), format!("{name} 2"));
    }
    assert_eq!(machine.ok(&["stat", "-c", "%F", "/etc/systemd/system/linked.service"]), "regular file\n");
    assert_eq!(machine.read("/srv/elsewhere.service"), service("linked", "elsewhere"), "written through the link");
    // Two more deployments do not take the operator's version away.
    push_all("3");
    sync(&machine, "infra").expect(0);
    push_all("4");
    sync(&machine, "infra").expect(0);
    let kept = machine.ok(&["sh", "-c", &format!("grep -l 'by hand' {SAVED}/*")]);
    assert_eq!(machine.read(kept.trim()), mine);
    assert_eq!(sync(&machine, "infra").expect(0).first()["status"], "unchanged");

    // A unit whose file the operator removed leaves no links when its turn comes.
    machine.ok(&["rm", "/etc/systemd/system/removed.service"]);
    push(&machine, "infra", &[Gone("systemd/removed.service"), Gone("systemd/wanted.service")]);
    log(&machine);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "removed.service", "ActiveState"), "inactive");
    assert_eq!(dangling(&machine), "");
    // The operator's unmasking brings the present version.
    machine.ok(&["rm", "/etc/systemd/system/masked.service"]);
    sync(&machine, "infra").expect(0);
    assert_eq!(machine.read("/etc/systemd/system/masked.service"), service("masked", "4"));
}

#[test]
fn an_install_section_that_changes_moves_the_links_of_enabled_units_only() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(
        &machine,
        "infra",
        &[Text("systemd/on.service", &service("on", "1")), Text("systemd/off.service", &service("off", "1"))],
    );
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "disable", "--now", "off.service"]);
    let moved = |name: &str| service(name, "2").replace("multi-user.target", "graphical.target");
    push(&machine, "infra", &[Text("systemd/on.service", &moved("on")), Text("systemd/off.service", &moved("off"))]);
    sync(&machine, "infra").expect(0);
    let links = machine.ok(&["sh", "-c", "cd /etc/systemd/system; find . -type l -path '*wants/o*' | sort"]);
    assert_eq!(links, "./graphical.target.wants/on.service\n");
    let bare = service("on", "3").replace("[Install]\nWantedBy=multi-user.target\n", "");
    push(&machine, "infra", &[Text("systemd/on.service", &bare)]);
    sync(&machine, "infra").expect(0);
    let links = machine.ok(&["sh", "-c", "cd /etc/systemd/system; find . -type l -path '*wants/o*' | sort"]);
    assert_eq!(links, "", "a unit without [Install] keeps its links");
}

#[test]
fn units_that_were_there_are_adopted() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let files = |version: &str| {
        ["equal", "linked", "foreign"].map(|name| (format!("systemd/{name}.service"), service(name, version)))
    };
    // By hand, as the Go version's `make install-services` did it: links into the checkout.
    machine.ok(&["git", "init", "--quiet", "--bare", "--initial-branch=main", "/srv/origin/infra.git"]);
    let first = files("1");
    push(&machine, "infra", &first.each_ref().map(|(name, content)| Text(name, content)));
    machine.ok(&["git", "clone", "--quiet", "/srv/origin/infra.git", "/srv/infra"]);
    machine.ok(&["chown", "-R", "hub-checkout:", "/srv/infra"]);
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "/srv/infra/systemd/linked.service"]);
    machine.write("/etc/systemd/system/equal.service", service("equal", "1"));
    machine.write("/etc/systemd/system/foreign.service", service("foreign", "theirs"));
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "equal.service", "foreign.service"]);
    machine.ok(&["systemctl", "disable", "--quiet", "equal.service"]);
    log(&machine);
    let run = sync(&machine, "infra").expect(5);
    assert!(
        run.reason().contains("/etc/systemd/system/foreign.service was not installed by the hub"),
        "{}",
        run.reason()
    );
    assert_eq!(log(&machine), Vec::<String>::new());

    let run = sync_with(&machine, &["--adopt", "foreign.service", "acme/infra"]).expect(0);
    assert_eq!(log(&machine), ["stop foreign 1", "start foreign 1"], "{:#}", run.result);
    assert_eq!(machine.read("/etc/systemd/system/foreign.service"), service("foreign", "1"));
    let kept = machine.ok(&["sh", "-c", &format!("grep -l theirs {SAVED}/*")]);
    assert_eq!(machine.read(kept.trim()), service("foreign", "theirs"));
    assert_eq!(machine.ok(&["stat", "-c", "%F", "/etc/systemd/system/linked.service"]), "regular file\n");
    // Whether they are enabled was decided by whoever had them.
    assert_eq!(machine.run(&["systemctl", "is-enabled", "equal.service"]).stdout, b"disabled\n");
    assert_eq!(machine.ok(&["systemctl", "is-enabled", "linked.service"]), "enabled\n");
    assert_eq!(sync(&machine, "infra").expect(0).first()["status"], "unchanged");
    sync_with(&machine, &["--adopt", "foreign.service", "acme/infra"]).expect(0);
    sync_with(&machine, &["--adopt", "foriegn.service", "acme/infra"]).expect(2);
    // From now on they are the hub's.
    let second = files("2");
    push(&machine, "infra", &second.each_ref().map(|(name, content)| Text(name, content)));
    sync(&machine, "infra").expect(0);
    let mut happened = log(&machine);
    happened.retain(|line| line.starts_with("start"));
    happened.sort();
    assert_eq!(happened, ["start equal 2", "start foreign 2", "start linked 2"]);
    push(&machine, "infra", &second.each_ref().map(|(name, _)| Gone(name)));
    sync_with(&machine, &["acme/infra", "--remove-all"]).expect(0);
    assert_eq!(dangling(&machine), "");
}
