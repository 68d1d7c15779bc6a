//! The upgrade of an installation at work: nothing that was accepted is lost, and all is as the admin left it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::gitops::{SOON, Text, configure, push, repository, show, start_hub, sync, wait_deployed};
use crate::journal::lines;
use crate::machine::{Machine, PACKAGE};
use crate::package::{failed_units, install};

/// Sends a signed delivery; its id if it was accepted.
fn delivered(machine: &Machine, name: &str) -> Option<String> {
    let output = machine.run(&["hub", "webhook-test", &format!("acme/{name}")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = said.split_once("is queued as delivery ").filter(|_| output.status.success())?;
    Some(rest.split(';').next().unwrap_or_default().to_owned())
}

/// A delivery that was accepted: its repository, its id, and when the answer was there.
struct Taken {
    repo: String,
    id: String,
    /// RFC 3339 in UTC with milliseconds, as the log has it: such times sort as text.
    time: String,
}

/// Those of the accepted deliveries that no run has claimed. A claim names the newest deliveries of its request only, so
/// that an older one is claimed, too, by what claims its repository after it was taken.
fn lost<'a>(machine: &Machine, taken: &'a [Taken]) -> Vec<&'a str> {
    let worker = lines(machine, "gitops-sync.service");
    let claims: Vec<&Value> = worker.iter().filter(|line| line["msg"] == "request_claimed").collect();
    let is_claimed = |taken: &&Taken| {
        claims.iter().any(|claim| {
            let names_it = claim["deliveries"].as_array().is_some_and(|ids| ids.iter().any(|id| *id == taken.id));
            names_it || claim["repo"] == taken.repo && claim["time"].as_str() > Some(&taken.time)
        })
    };
    taken.iter().filter(|taken| !is_claimed(taken)).map(|taken| taken.id.as_str()).collect()
}

/// Upgrades while deliveries come in, from `HUB_TEST_PREVIOUS_DEB` where that names an older package, else from this one.
#[test]
fn an_upgrade_under_traffic_keeps_the_configuration_restarts_what_runs_and_loses_no_delivery() {
    let Some(machine) = Machine::boot_bare() else { return };
    match std::env::var_os("HUB_TEST_PREVIOUS_DEB") {
        Some(previous) => {
            machine.copy_in(Path::new(&previous), "/srv/previous.deb");
            install(&machine, "/srv/previous.deb");
        }
        None => install(&machine, PACKAGE),
    }
    let names = ["r0", "r1", "r2"];
    // While a run builds, what comes in waits in the queue: the upgrade finds it there.
    let tables: Vec<String> =
        names.iter().map(|name| repository(name, "units = \"\"\nbuild = [\"/usr/bin/sleep\", \"1\"]")).collect();
    configure(&machine, &tables);
    // The first run looks at all three, whose branches are there then.
    for name in names {
        push(&machine, name, &[Text("note", "first")]);
    }
    start_hub(&machine);
    machine.ok(&["chmod", "0640", "/etc/observability-hub/hub.toml"]);
    machine.ok(&["chgrp", "hub", "/etc/observability-hub/hub.toml"]);
    let configuration = machine.read("/etc/observability-hub/hub.toml");
    let before = show(&machine, "proxy.service", "MainPID");

    machine.ok(&["dpkg-deb", "--raw-extract", PACKAGE, "/srv/next"]);
    machine.ok(&["sed", "-i", "s/^Version: .*/Version: 99/", "/srv/next/DEBIAN/control"]);
    // A changed conffile is the case in which dpkg could lose the admin's.
    machine.ok(&["sed", "-i", "1i # version 99", "/srv/next/etc/observability-hub/hub.toml"]);
    machine.ok(&["dpkg-deb", "--build", "-Znone", "/srv/next", "/srv/next.deb"]);
    let (begun, upgraded) = (AtomicBool::new(false), AtomicBool::new(false));
    let (taken, commits, turned_away) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let (mut taken, mut commits, mut turned_away) = (Vec::new(), [(); 3].map(|()| String::new()), 0);
            let mut last = usize::MAX;
            for number in 0.. {
                let name = names[number % names.len()];
                commits[number % names.len()] = push(&machine, name, &[Text("note", &number.to_string())]);
                // A forge that is told 202 has done its part, one that is not tells its user, who tries again.
                machine.wait_for("the delivery to be taken", SOON, || match delivered(&machine, name) {
                    Some(id) => {
                        let time = observability_hub::rfc3339(jiff::Timestamp::now());
                        taken.push(Taken { repo: format!("acme/{name}"), id, time });
                        true
                    }
                    None => {
                        turned_away += 1;
                        false
                    }
                });
                begun.store(number >= 2, Relaxed);
                if upgraded.load(Relaxed) {
                    last = last.min(number + 3);
                    if number == last {
                        break;
                    }
                }
            }
            (taken, commits, turned_away)
        });
        machine.wait_for("the first deliveries", SOON, || begun.load(Relaxed));
        machine.ok(&["dpkg", "--force-confdef", "--force-confold", "--install", "/srv/next.deb"]);
        upgraded.store(true, Relaxed);
        traffic.join().expect("deliveries are taken")
    });
    eprintln!("{} deliveries taken before, in and after the upgrade", taken.len());
    // A package of before the gateway left its sockets with systemd may turn some away.
    if std::env::var_os("HUB_TEST_PREVIOUS_DEB").is_none() {
        assert_eq!(turned_away, 0, "deliveries came to a closed door");
    }
    for (name, commit) in names.iter().zip(&commits) {
        wait_deployed(&machine, name, commit);
    }
    // A commit may have been live before its own delivery came, which is then in the next run.
    machine.wait_for("every accepted delivery to be in a run", SOON, || {
        let lost = lost(&machine, &taken);
        eprintln!("accepted and in no run yet: {lost:?}");
        lost.is_empty()
    });
    assert_eq!(machine.ok(&["dpkg-query", "--show", "--showformat=${Version}", "observability-hub"]), "99");
    assert_eq!(machine.read("/etc/observability-hub/hub.toml"), configuration);
    assert_eq!(machine.ok(&["stat", "-c", "%U:%G %a", "/etc/observability-hub/hub.toml"]), "root:hub 640\n");
    assert_ne!(show(&machine, "proxy.service", "MainPID"), before, "the proxy still runs the old program");
    for (unit, state, enabled) in [
        ("proxy.service", "active", "enabled"),
        ("gitops-sync.path", "active", "enabled"),
        ("gitops-sync.timer", "inactive", "disabled"),
    ] {
        assert_eq!(show(&machine, unit, "ActiveState"), state, "{unit}");
        assert_eq!(show(&machine, unit, "UnitFileState"), enabled, "{unit}");
    }
    assert_eq!(failed_units(&machine), "");
}

const STATE: &str = "/var/lib/observability-hub";

/// Leaves the host as version 0.1.0 of November 2026 did: a member too many in the group, locks that members can open, a
/// folder that only they could pass through, a checkout of the services' own user, and nothing kept about whose it is.
fn make_older(machine: &Machine) {
    let script = format!(
        "usermod --append --groups hub hub-git; cd {STATE}/gitops; chmod 750 .; rm -rf checkouts access
         for lock in lock ../gate/lock; do rm -f $lock; install -m 640 -o root -g hub /dev/null $lock; done
         chown -R hub:hub /srv/infra"
    );
    machine.ok(&["sh", "-ec", &script]);
}

/// What an installation is made of: users and their groups, folders and locks.
fn layout(machine: &Machine) -> String {
    let script = format!(
        "for user in hub hub-git hub-checkout hub-watch; do id -nG $user; getent passwd $user | cut -d: -f1,5-; done; getent group hub | cut -d: -f4
         find {STATE} -maxdepth 2 ! -name '*.json' ! -path '*/data/*' ! -path '*/proxy/*' ! -path '*/gate/run*' \\
            -printf '%P %u:%g %m\\n' | sed 's/lock root:[a-z]*/lock root/' | sort"
    );
    machine.ok(&["sh", "-ec", &script])
}

/// From `HUB_TEST_PREVIOUS_DEB` where that names an older package, else from what that left behind.
#[test]
fn an_upgrade_with_its_locks_owners_and_memberships_ends_as_a_new_installation() {
    let Some(machine) = Machine::boot_bare() else { return };
    let previous = std::env::var_os("HUB_TEST_PREVIOUS_DEB");
    match &previous {
        Some(previous) => {
            machine.copy_in(Path::new(previous), "/srv/previous.deb");
            install(&machine, "/srv/previous.deb");
        }
        None => install(&machine, PACKAGE),
    }
    for user in ["alice", "bob"] {
        machine.ok(&["useradd", "--create-home", user]);
    }
    let site = repository("site", "units = \"\"").replace("\"/srv/site\"", "\"/home/alice/site\"");
    configure(&machine, &[repository("infra", "units = \"\""), site.clone()]);
    for name in ["infra", "site"] {
        push(&machine, name, &[Text("file", "1")]);
    }
    if previous.is_none() {
        machine.ok(&["install", "-d", "-o", "hub-checkout", "/srv/infra"]);
    }
    machine.ok(&["install", "-d", "-o", "alice", "/home/alice/site"]);
    start_hub(&machine);
    for name in ["infra", "site"] {
        sync(&machine, name).expect(0);
    }
    if previous.is_none() {
        make_older(&machine);
    }
    assert_eq!(machine.ok(&["stat", "-c", "%U", "/srv/infra"]), "hub\n");
    // The gateway's user, and that of the mirrors, hold what they can: the upgrade must not wait for them.
    for (user, lock) in [("hub", "gitops/lock"), ("hub-git", "gate/lock")] {
        let path = format!("{STATE}/{lock}");
        // As the unit makes it, whose group is hub.
        let make = format!("test -e {path} || install -m 640 /dev/null {path}; chgrp hub {path}");
        machine.ok(&["sh", "-ec", &make]);
        let hold = format!("exec runuser -u {user} -- flock {path} sleep 600");
        machine.ok(&["systemd-run", "--quiet", "sh", "-c", &hold]);
        machine.wait_for("the lock to be held", SOON, || {
            !machine.run(&["flock", "--nonblock", &path, "true"]).status.success()
        });
    }

    machine.ok(&["dpkg-deb", "--raw-extract", PACKAGE, "/srv/next"]);
    machine.ok(&["sed", "-i", "s/^Version: .*/Version: 99/", "/srv/next/DEBIAN/control"]);
    machine.ok(&["dpkg-deb", "--build", "-Znone", "/srv/next", "/srv/next.deb"]);
    machine.ok(&["dpkg", "--force-confdef", "--force-confold", "--install", "/srv/next.deb"]);
    for lock in ["gitops/lock", "gate/lock"] {
        let mode = machine.ok(&["sh", "-c", &format!("stat -c %a {STATE}/{lock} 2>/dev/null || echo none")]);
        assert!(["600\n", "none\n"].contains(&mode.as_str()), "{lock}: {mode}");
    }
    let commits = ["infra", "site"].map(|name| push(&machine, name, &[Text("file", "2")]));
    for (name, commit) in ["infra", "site"].iter().zip(&commits) {
        machine.wait_for("a delivery to be taken", SOON, || delivered(&machine, name).is_some());
        wait_deployed(&machine, name, commit);
    }
    machine.run(&["timeout", "3", "tailscale-gate"]);

    let fresh = Machine::boot().expect("one has booted already");
    fresh.ok(&["useradd", "--create-home", "alice"]);
    configure(&fresh, &[repository("infra", "units = \"\""), site]);
    for name in ["infra", "site"] {
        push(&fresh, name, &[Text("file", "1")]);
    }
    fresh.ok(&["install", "-d", "-o", "alice", "/home/alice/site"]);
    start_hub(&fresh);
    for name in ["infra", "site"] {
        sync(&fresh, name).expect(0);
    }
    fresh.ok(&["systemctl", "start", "gitops-sync.service"]);
    fresh.run(&["timeout", "3", "tailscale-gate"]);
    assert_eq!(layout(&machine), layout(&fresh));

    // The owners of before are kept: alice's against a swap, and hub's with the steps to another.
    machine.ok(&["runuser", "-u", "alice", "--", "sh", "-ec", "cd; mv site kept; ln -s /home/bob site"]);
    push(&machine, "site", &[Text("file", "3")]);
    sync(&machine, "site").expect(5);
    let said = machine.run(&["hub", "doctor", "--json"]);
    let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let findings = said["findings"].as_array().cloned().unwrap_or_default();
    let told = |finding: &&Value| finding.to_string().contains("belongs to hub, as earlier versions made it");
    let mend = findings.iter().find(told).unwrap_or_else(|| panic!("{said:#}"))["mend"].as_str().expect("a mend");
    machine.ok(&["sh", "-ec", mend]);
    machine.wait_for("the checkout to be made anew", SOON, || machine.exists("/srv/infra/file"));
    assert_eq!(machine.ok(&["stat", "-c", "%U", "/srv/infra"]), "hub-checkout\n");
    wait_deployed(&machine, "infra", &commits[0]);
    let again = machine.run(&["hub", "doctor"]);
    assert!(!String::from_utf8_lossy(&again.stdout).contains("as earlier versions made it"));
}
