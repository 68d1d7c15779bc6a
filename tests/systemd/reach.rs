//! Deployments that would lock the owner of the host out, and deployments that somebody has to confirm.

use std::time::Duration;

use crate::gitops::{Run, SOON, Text, configure, deployed, push, repository, service, show, sync};
use crate::machine::Machine;

/// A unit whose start does something to the host, and whose stop undoes it.
fn doing(start: &str, stop: &str, more: &str) -> String {
    format!(
        "[Unit]\n{more}\n[Service]\nExecStart=/usr/bin/sh -c '{start}; exec sleep infinity'\nExecStopPost=/usr/bin/sh -c '{stop}'\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// A run that waits for what does not come back.
fn slowly(machine: &Machine, exit: i32) -> Run {
    let output = machine.run_for(&["gitops-sync", "--json", "acme/infra"], None, Duration::from_secs(240));
    Run::new(&output).expect(exit)
}

fn status(machine: &Machine) -> String {
    String::from_utf8_lossy(&machine.run(&["hub", "status", "--json"]).stdout).into_owned()
}

#[test]
fn a_commit_that_stops_sshd_is_taken_back() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["systemctl", "start", "ssh.service"]);
    configure(&machine, &[repository("infra", "")]);
    let good = push(&machine, "infra", &[Text("version", "1"), Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    let undone = doing("systemctl stop ssh.service", "systemctl start ssh.service", "");
    let masked = "systemctl mask --runtime --now ssh.service";
    let masked = doing(masked, "systemctl unmask --runtime ssh.service; systemctl start ssh.service", "");
    let left = doing("systemctl stop ssh.service", "true", "");
    let pushed_out = doing("true", "true", "Conflicts=ssh.service");
    for (what, unit) in [("stopped", undone), ("masked", masked), ("left", left), ("pushed out", pushed_out)] {
        push(&machine, "infra", &[Text("version", "2"), Text("systemd/lockout.service", &unit)]);
        let run = sync(&machine, "infra").expect(3);
        assert!(run.reason().contains("ssh"), "{what}: {}", run.reason());
        machine.wait_for("sshd to be back", SOON, || show(&machine, "ssh.service", "ActiveState") == "active");
        assert_eq!(machine.read("/srv/infra/version"), "1", "{what}");
        assert_eq!(deployed(&machine, "infra"), good, "{what}");
        // The commit is to blame: it is not tried again.
        assert!(sync(&machine, "infra").expect(3).reason().contains("not tried again"), "{what}");
    }
    // Who does not want it says so, and what did not answer before does not count.
    let config = machine.read("/etc/observability-hub/hub.toml");
    machine.write("/etc/observability-hub/hub.toml", format!("[gitops]\nguard = [\"remote\"]\n{config}"));
    push(&machine, "infra", &[Text("systemd/lockout.service", &doing("systemctl stop ssh.service", "true", "# 2"))]);
    sync(&machine, "infra").expect(0);
    machine.write("/etc/observability-hub/hub.toml", config);
    push(&machine, "infra", &[Text("systemd/more.service", &service("more", "1"))]);
    sync(&machine, "infra").expect(0);
}

#[test]
fn a_commit_that_takes_the_tailnet_is_taken_back_and_one_that_did_not_is_not_blamed() {
    let Some(machine) = Machine::boot() else { return };
    // Says what a file says.
    let tailscale = "#!/bin/sh\nstate=Stopped; [ -e /srv/tailnet ] && state=Running\necho \"{\\\"BackendState\\\": \\\"$state\\\"}\"\n";
    machine.write("/usr/bin/tailscale", tailscale);
    machine.ok(&["chmod", "0755", "/usr/bin/tailscale"]);
    machine.write("/srv/tailnet", "");
    configure(&machine, &[repository("infra", "")]);
    let good = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    push(&machine, "infra", &[Text("systemd/x.service", &doing("rm /srv/tailnet", "touch /srv/tailnet", ""))]);
    let run = sync(&machine, "infra").expect(3);
    assert!(run.reason().contains("tailscale was connected before"), "{}", run.reason());
    assert_eq!(deployed(&machine, "infra"), good);
    assert!(sync(&machine, "infra").expect(3).reason().contains("not tried again"));
    // The way back takes its time: that makes the commit no better.
    let slow = "systemd-run --quiet --on-active=30 touch /srv/tailnet";
    push(&machine, "infra", &[Text("systemd/x.service", &doing("rm /srv/tailnet", slow, ""))]);
    slowly(&machine, 3);
    assert!(sync(&machine, "infra").expect(3).reason().contains("not tried again"));
    // It goes away by itself meanwhile, and comes back later: the commit is tried once more.
    push(&machine, "infra", &[Text("systemd/x.service", &doing("rm -f /srv/tailnet", "true", "# 1"))]);
    assert!(slowly(&machine, 3).reason().contains("not to blame"));
    machine.write("/srv/tailnet", "");
    assert!(slowly(&machine, 3).reason().contains("before"));
    machine.write("/srv/tailnet", "");
    assert!(sync(&machine, "infra").expect(3).reason().contains("not tried again"));
    // And the next commit is well.
    let next = push(&machine, "infra", &[Text("systemd/x.service", &doing("rm -f /srv/tailnet", "true", ""))]);
    machine.write("/usr/bin/tailscale", "#!/bin/sh\necho '{\"BackendState\": \"Running\"}'\n");
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), next);
}

#[test]
fn what_nobody_confirms_goes_back_and_what_is_confirmed_stays() {
    let Some(mut machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "confirm_minutes = 1")]);
    let app = |version: &str| service("app", version);
    let first = push(&machine, "infra", &[Text("version", "1"), Text("systemd/app.service", &app("1"))]);
    let run = sync(&machine, "infra").expect(0);
    assert!(run.reason().contains("hub confirm acme/infra"), "{}", run.reason());
    assert!(status(&machine).contains("is on trial"), "{}", status(&machine));
    assert_eq!(deployed(&machine, "infra"), "", "nothing is live for good yet");
    machine.ok(&["hub", "confirm", "acme/infra"]);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), first);
    assert!(!status(&machine).contains("is on trial"));
    assert!(!machine.run(&["hub", "confirm", "acme/infra"]).status.success(), "there is nothing left to confirm");

    // A timer takes it back by itself.
    push(&machine, "infra", &[Text("version", "2"), Text("systemd/app.service", &app("2"))]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "app.service", "Description"), "app 2");
    // Meanwhile it is left alone.
    assert!(sync(&machine, "infra").expect(0).reason().contains("on trial"));
    let long = Duration::from_secs(100);
    machine.wait_for("the way back", long, || show(&machine, "app.service", "Description") == "app 1");
    machine.wait_for("the way back to be whole", SOON, || {
        !machine.exists("/var/lib/observability-hub/gitops/journal/acme__infra.json")
    });
    assert_eq!((machine.read("/srv/infra/version"), deployed(&machine, "infra")), ("1".to_owned(), first.clone()));
    assert!(sync(&machine, "infra").expect(3).reason().contains("nobody confirmed"));

    // So it is after a power cut, without anybody's doing.
    machine.ok(&["systemctl", "enable", "--quiet", "gitops-sync.timer"]);
    push(&machine, "infra", &[Text("version", "3"), Text("systemd/app.service", &app("3"))]);
    sync(&machine, "infra").expect(0);
    assert_eq!(show(&machine, "app.service", "Description"), "app 3");
    machine.pull_plug();
    machine.boot_again();
    // Its minute, and not much more: the boot, 20 s until the first run, and what that takes.
    let long = Duration::from_secs(95);
    machine
        .wait_for("the way back after a power cut", long, || show(&machine, "app.service", "Description") == "app 1");
    machine.wait_for("the way back to be whole", SOON, || {
        !machine.exists("/var/lib/observability-hub/gitops/journal/acme__infra.json")
    });
    assert_eq!((machine.read("/srv/infra/version"), deployed(&machine, "infra")), ("1".to_owned(), first));
    assert!(sync(&machine, "infra").expect(3).reason().contains("nobody confirmed"));
}

/// Answers every question for an address with that of the forge.
const NAMES: &str = r#"use Socket; socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(53, inet_aton("198.51.100.1"))) or die;
while (defined(my $from = recv(S, my $q, 512, 0))) { my $end = index($q, "\0", 12) + 5; my $question = substr($q, 12, $end - 12);
my $a = unpack("n", substr($question, -4, 2)) == 1 ? pack("nnnNn", 0xc00c, 1, 1, 1, 4) . inet_aton("198.51.100.1") : "";
send(S, pack("nnnnnn", unpack("n", $q), 0x8180, 1, length($a) ? 1 : 0, 0, 0) . $question . $a, 0, $from); }"#;

/// A forge behind a router: sshd and a name server in a network of their own.
fn start_forge(machine: &Machine) {
    for line in [
        "netns add forge",
        "link add uplink type veth peer name eth0 netns forge",
        "addr add 192.0.2.2/24 dev uplink",
        "link set uplink up",
        "route add default via 192.0.2.1",
        "-n forge addr add 192.0.2.1/24 dev eth0",
        "-n forge addr add 198.51.100.1/32 dev lo",
        "-n forge link set lo up",
        "-n forge link set eth0 up",
    ] {
        machine.ok(&[&["ip"], &*line.split(' ').collect::<Vec<_>>()].concat());
    }
    machine.write("/srv/names.pl", NAMES);
    machine.write("/etc/resolv.conf", "nameserver 198.51.100.1\noptions timeout:1 attempts:1\n");
    // Whoever comes is let in without a password: what is tried is the way there.
    machine.ok(&["passwd", "--delete", "--quiet", "root"]);
    let sshd =
        "mkdir -p /run/sshd; exec /usr/sbin/sshd -D -o UsePAM=no -o PermitEmptyPasswords=yes -o PermitRootLogin=yes";
    for (unit, program) in [("forge", &["sh", "-c", sshd][..]), ("names", &["perl", "/srv/names.pl"])] {
        let netns = "--property=NetworkNamespacePath=/run/netns/forge";
        machine.ok(&[&["systemd-run", "--quiet", netns, "--unit", unit], program].concat());
    }
    let key = machine.read("/etc/ssh/ssh_host_ed25519_key.pub");
    machine.write("/etc/observability-hub/known_hosts", format!("forge.test {key}"));
    let greets = ["bash", "-c", "read -r line </dev/tcp/forge.test/22 && [[ $line == SSH-* ]]"];
    machine.wait_for("the forge", SOON, || machine.run(&greets).status.success());
}

#[test]
fn a_commit_that_takes_the_way_to_the_forge_is_taken_back_and_one_beside_which_the_forge_goes_is_not_blamed() {
    let Some(machine) = Machine::boot() else { return };
    start_forge(&machine);
    let remote = "[[repository]]\nname = \"acme/infra\"\nurl = \"ssh://root@forge.test/srv/origin/infra.git\"\npath = \"/srv/infra\"\n";
    configure(&machine, &[format!("{remote}health = {{ grace_seconds = 1 }}\n")]);
    let good = push(&machine, "infra", &[Text("version", "1"), Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    let route = doing("ip route del default", "ip route add default via 192.0.2.1", "");
    let names = "cp /etc/resolv.conf /srv/resolv.conf; echo nameserver 203.0.113.1 >/etc/resolv.conf";
    let names = doing(names, "cp /srv/resolv.conf /etc/resolv.conf", "");
    let link = doing("ip link set uplink down", "ip link set uplink up; ip route add default via 192.0.2.1", "");
    for (what, unit) in [("route", route), ("names", names), ("link", link)] {
        push(&machine, "infra", &[Text("version", "2"), Text("systemd/lockout.service", &unit)]);
        let run = sync(&machine, "infra").expect(3);
        assert!(run.reason().contains("the remote answered before"), "{what}: {}", run.reason());
        assert_eq!(machine.read("/srv/infra/version"), "1", "{what}");
        assert_eq!(deployed(&machine, "infra"), good, "{what}");
        assert!(sync(&machine, "infra").expect(3).reason().contains("not tried again"), "{what}");
    }
    // The forge goes by itself while the commit is applied, and comes back later.
    let away = doing("[ -e /srv/gone ] || systemctl stop forge.service; touch /srv/gone", "true", "");
    let next = push(&machine, "infra", &[Text("version", "3"), Text("systemd/lockout.service", &away)]);
    assert!(sync(&machine, "infra").expect(3).reason().contains("not to blame"));
    assert_eq!(deployed(&machine, "infra"), good);
    let netns = "--property=NetworkNamespacePath=/run/netns/forge";
    let sshd = "exec /usr/sbin/sshd -D -o UsePAM=no -o PermitEmptyPasswords=yes -o PermitRootLogin=yes";
    machine.ok(&["systemd-run", "--quiet", netns, "--unit=forge", "sh", "-c", sshd]);
    machine.wait_for("the commit to be tried again", SOON, || sync(&machine, "infra").exit == 0);
    assert_eq!(deployed(&machine, "infra"), next);
}

#[test]
fn a_host_that_deploys_its_own_forge_does_not_ask_it() {
    let Some(machine) = Machine::boot() else { return };
    let remote = "[[repository]]\nname = \"acme/infra\"\nurl = \"git://127.0.0.1/infra.git\"\npath = \"/srv/infra\"\n";
    configure(&machine, &[format!("{remote}health = {{ grace_seconds = 1 }}\n")]);
    let forge = |version: &str, start: &str| {
        format!(
            "[Unit]\nDescription=forge {version}\n[Service]\nExecStart={start}\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
    let daemon = "/usr/bin/git daemon --reuseaddr --export-all --base-path=/srv/origin";
    push(&machine, "infra", &[Text("systemd/forge.service", &forge("1", daemon))]);
    machine.ok(&[&["systemd-run", "--quiet", "--unit=first"], &*daemon.split(' ').collect::<Vec<_>>()].concat());
    machine.wait_for("the forge", SOON, || machine.run(&["bash", "-c", ": </dev/tcp/127.0.0.1/9418"]).status.success());
    // It moves to another port.
    let moved = forge("2", &format!("{daemon} --port=9419"));
    let commit = push(&machine, "infra", &[Text("systemd/forge.service", &moved), Text("note", "x")]);
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "stop", "first.service"]);
    assert_eq!(deployed(&machine, "infra"), commit);
    let config = machine.read("/etc/observability-hub/hub.toml").replace("127.0.0.1/", "127.0.0.1:9419/");
    machine.write("/etc/observability-hub/hub.toml", &config);
    let commit = push(&machine, "infra", &[Text("systemd/forge.service", &forge("3", daemon))]);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), commit);
    assert!(!machine.run(&["bash", "-c", ": </dev/tcp/127.0.0.1/9419"]).status.success(), "its remote is gone");
}
