//! The packaged units as systemd runs them: exposure, sandboxes from inside, journal, failures that users expect.

use std::process::Output;

use crate::gitops::{SOON, Text, configure, deliver, push, repository, service, show, start_hub, wait_deployed};
use crate::journal::{lines, nothing_denied};
use crate::machine::{Machine, describe};

/// Runs a shell script in the sandbox of a service, in place of its program. The status is that of the script.
fn inside(machine: &Machine, service: &str, script: &str) -> Output {
    machine.write("/usr/local/bin/probe", format!("#!/bin/sh\nset -eu\n{script}\n"));
    machine.ok(&["chmod", "0755", "/usr/local/bin/probe"]);
    machine.write(
        &format!("/run/systemd/system/{service}.d/probe.conf"),
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart=/usr/local/bin/probe\nExecStopPost=\n",
    );
    machine.ok(&["systemctl", "daemon-reload"]);
    let mut output = machine.run(&["systemctl", "start", service]);
    machine.ok(&["journalctl", "--sync"]);
    let said = machine.run(&["journalctl", "--no-pager", "-o", "cat", "-n", "30", "-u", service]);
    output.stdout = said.stdout;
    machine.ok(&["rm", "-r", &format!("/run/systemd/system/{service}.d")]);
    machine.ok(&["systemctl", "daemon-reload"]);
    output
}

#[track_caller]
fn holds_inside(machine: &Machine, service: &str, script: &str) {
    let output = inside(machine, service, script);
    assert!(output.status.success(), "in the sandbox of {service}: {script}\n{}", describe(&output));
}

/// A daemon of somebody else: accepts connections on a unix socket, root's and nobody else's.
fn listen(machine: &Machine, path: &str) {
    let name = format!("--unit=listen{}.service", path.replace('/', "-"));
    let script = "use Socket; unlink $ARGV[0]; socket(S, PF_UNIX, SOCK_STREAM, 0) or die;
        bind(S, pack_sockaddr_un($ARGV[0])) or die $!; listen(S, 9); sleep 1 while accept(C, S);";
    machine.ok(&["systemd-run", "--quiet", "-p", "UMask=0077", &name, "perl", "-e", script, path]);
    machine.wait_for("the daemon to listen", SOON, || machine.exists(path));
}

/// A shell function that is true where something accepts a connection on a unix socket.
const CAN_REACH: &str = r#"reach() { perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) or die;
    exit !connect(S, pack_sockaddr_un($ARGV[0]))' "$1"; }"#;

#[test]
fn systemd_loads_every_unit_without_a_word_and_finds_it_as_little_exposed_as_promised() {
    let Some(machine) = Machine::boot() else { return };
    for (service, limit) in [
        ("proxy.service", "15"),
        ("reading-sync.service", "15"),
        ("tailscale-gate.service", "20"),
        ("system-metrics.service", "30"),
        ("gitops-sync.service", "36"),
        ("hub-credentials.service", "32"),
        ("hub-watch.service", "20"),
    ] {
        let output =
            machine.run(&["systemd-analyze", "security", "--no-pager", &format!("--threshold={limit}"), service]);
        assert!(output.status.success(), "{}", describe(&output));
    }
    let said = machine.ok(&["journalctl", "--no-pager", "-b", "-o", "cat", "_PID=1"]);
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("/usr/lib/systemd/system/")).collect();
    let ours = [
        "proxy.",
        "gitops-sync.",
        "tailscale-gate.",
        "reading-sync.",
        "system-metrics.",
        "hub-credentials.",
        "hub-watch.",
    ];
    assert!(!complaints.iter().any(|line| ours.iter().any(|unit| line.contains(unit))), "{complaints:#?}");
}

#[test]
fn the_gate_reaches_tailscale_and_the_proxy_and_no_other_daemon() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/etc/credstore/webhook-secret", "a secret for the tests only");
    machine.ok(&["systemctl", "start", "proxy.service"]);
    machine.ok(&["mkdir", "-p", "/run/tailscale", "/run/docker", "/var/lib/lxd"]);
    for path in ["/run/tailscale/tailscaled.sock", "/run/docker.sock", "/run/docker/x.sock", "/var/lib/lxd/unix.socket"]
    {
        listen(&machine, path);
    }
    let check = |script: &str| {
        holds_inside(&machine, "tailscale-gate.service", &format!("{CAN_REACH}\n{script}"));
    };
    check("test $(id -u) = 0 && grep -q 'CapBnd:.0*$' /proc/self/status && grep -q 'CapEff:.0*$' /proc/self/status");
    check("reach /run/tailscale/tailscaled.sock && reach /run/observability-hub/alive.sock");
    for path in [
        "/run/systemd/private",
        "/run/systemd/journal/stdout",
        "/run/dbus/system_bus_socket",
        "/run/docker.sock",
        "/run/docker/x.sock",
        "/var/lib/lxd/unix.socket",
        "/proc/1/root/run/docker.sock",
        "/proc/1/root/run/systemd/private",
    ] {
        assert!(!path.starts_with("/run") || machine.exists(path), "{path} is to be there outside");
        check(&format!("! reach {path}"));
    }
    check("! systemd-run --wait true && ! systemctl stop proxy.service && ! systemctl daemon-reload");
    check("! touch /run/tailscale/x && ! touch /run/x && ! touch /var/x && ! touch /etc/x && ! touch /usr/bin/x");
    check(
        "touch /var/lib/observability-hub/gate/probe && mv /var/lib/observability-hub/gate/probe /var/lib/observability-hub/gate/moved",
    );
    check("test -s $CREDENTIALS_DIRECTORY/webhook-secret && ! test -e /run/credentials/proxy.service");
    check("! mount -t tmpfs none /mnt && ! unshare --mount true && ! test -e /proc/1");
    check("test -S /run/systemd/notify");
    assert_eq!(machine.ok(&["stat", "-c", "%U:%G", "/var/lib/observability-hub/gate/moved"]), "root:hub\n");
    // The proxy stops and starts: a sandbox that was made before must see the new socket.
    let folder = || machine.ok(&["stat", "-c", "%i %U:%G %a", "/run/observability-hub"]);
    let before = folder();
    machine.ok(&["systemctl", "stop", "proxy.service"]);
    machine.ok(&["systemctl", "start", "proxy.service"]);
    assert_eq!(folder(), before, "the folder that sandboxes have mounted is made anew");
}

#[test]
fn system_metrics_sees_the_host_as_it_is_and_can_do_nothing_to_it() {
    let Some(machine) = Machine::boot() else { return };
    let namespaces = ["mnt", "net", "pid", "cgroup"].map(|name| {
        let path = format!("/proc/1/ns/{name}");
        format!("test $(readlink /proc/self/ns/{name}) = '{}'", machine.ok(&["readlink", &path]).trim())
    });
    let check = |script: &str| holds_inside(&machine, "system-metrics.service", script);
    check(&namespaces.join(" && "));
    check(
        "test $(id -un) = hub && grep -q ^cpu0 /proc/stat && grep -q systemd /proc/1/stat && grep -q 'CapEff:.0*$' /proc/self/status",
    );
    check("systemctl list-units --failed --plain --no-legend");
    check("touch /var/lib/observability-hub/data/probe && rm /var/lib/observability-hub/data/probe");
    check("! touch /var/lib/observability-hub/probe && ! touch /etc/x && ! systemctl stop systemd-journald");
    check("! unshare --user true && ! echo x >/dev/kmsg");
}

#[test]
fn the_proxy_and_reading_sync_write_their_folders_and_nothing_else() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/etc/credstore/database-url", "postgres://x");
    machine.write("/etc/credstore/admin-token", "t");
    let state = "/var/lib/observability-hub";
    let writes = |folders: &[&str]| {
        let each = folders.iter().map(|folder| format!("touch {state}/{folder}/probe && rm {state}/{folder}/probe"));
        each.collect::<Vec<_>>().join(" && ")
    };
    let cannot = format!(
        "! touch {state}/gitops/x && ! touch {state}/gate/x && ! touch {state}/x && ! touch /etc/x && ! ls /root"
    );
    for (service, folders) in [
        ("proxy.service", &["proxy", "proxy/queue", "data", "reading"][..]),
        ("reading-sync.service", &["reading"][..]),
    ] {
        holds_inside(&machine, service, &format!("{} && {cannot}", writes(folders)));
        holds_inside(
            &machine,
            service,
            "test $(id -un):$(id -gn) = hub:hub && test $CREDENTIALS_DIRECTORY/admin-token",
        );
        holds_inside(&machine, service, "! kill -0 1 && ! test -e /proc/1 && ! unshare --user true");
    }
    holds_inside(
        &machine,
        "proxy.service",
        "test -s $CREDENTIALS_DIRECTORY/database-url && test -d $RUNTIME_DIRECTORY",
    );
    holds_inside(&machine, "proxy.service", "touch $RUNTIME_DIRECTORY/x && rm $RUNTIME_DIRECTORY/x");
}

#[test]
fn a_signed_push_deploys_a_unit_through_both_sandboxes_and_the_journal_is_clean_and_ranked() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "build = [\"/usr/bin/touch\", \"built\"]\n")]);
    let commit = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    start_hub(&machine);
    deliver(&machine, "infra");
    wait_deployed(&machine, "infra", &commit);
    assert_eq!(show(&machine, "app.service", "ActiveState"), "active");
    assert!(machine.exists("/srv/infra/built"));
    machine.ok(&["journalctl", "--sync"]);
    let errors = machine.run(&["journalctl", "--no-pager", "-b", "-o", "cat", "-p", "err"]).stdout;
    assert_eq!(String::from_utf8_lossy(&errors), "");
    for unit in ["proxy.service", "gitops-sync.service"] {
        let lines = lines(&machine, unit);
        assert!(!lines.is_empty(), "{unit} said nothing");
        for line in lines {
            assert_eq!(format!("{}.service", line["service"].as_str().unwrap_or_default()), unit);
        }
    }

    nothing_denied(&machine, &["proxy.service", "gitops-sync.service", "app.service"]);

    // One that must fail: refused history is an error in the journal, and a failed unit.
    machine.ok(&["git", "-C", "/srv/origin/infra.git", "update-ref", "-d", "refs/heads/main"]);
    push(&machine, "infra", &[Text("note", "another history")]);
    deliver(&machine, "infra");
    machine.wait_for("the refusal", SOON, || show(&machine, "gitops-sync.service", "Result") == "exit-code");
    machine.ok(&["journalctl", "--sync"]);
    let errors = machine.ok(&["journalctl", "--no-pager", "-b", "-o", "cat", "-p", "err", "-u", "gitops-sync.service"]);
    assert!(errors.contains("acme/infra"), "{errors}");
    assert_eq!(show(&machine, "gitops-sync.path", "ActiveState"), "active");
}

#[test]
fn what_is_wrong_with_the_host_is_named_in_the_journal_and_the_unit_is_as_users_expect() {
    let Some(machine) = Machine::boot() else { return };
    let fails = |cause: &str, expected: &str| {
        let started = machine.run(&["systemctl", "start", "proxy.service"]);
        assert!(!started.status.success(), "{cause}: it starts");
        machine.ok(&["journalctl", "--sync"]);
        let errors = machine.ok(&["journalctl", "--no-pager", "-b", "-o", "cat", "-p", "err", "-u", "proxy.service"]);
        assert!(errors.contains(expected), "{cause}: {errors}");
    };
    let recover = || {
        machine.ok(&["systemctl", "stop", "proxy.service"]);
        machine.ok(&["systemctl", "reset-failed", "proxy.service"]);
        machine.ok(&["journalctl", "--rotate"]);
        machine.ok(&["journalctl", "--vacuum-time=1s"]);
    };
    // A wrong configuration is not tried again.
    machine.write("/etc/observability-hub/hub.toml", "[proxy]\nlisten = 5\n");
    fails("a wrong type", "proxy.listen");
    assert_eq!(show(&machine, "proxy.service", "ActiveState"), "failed");
    assert_eq!(show(&machine, "proxy.service", "ExecMainStatus"), "78");
    assert_eq!(show(&machine, "proxy.service", "NRestarts"), "0");
    recover();
    machine.write("/etc/observability-hub/hub.toml", "");
    machine.write("/etc/credstore/webhook-secret", "short");
    fails("a short secret", "webhook-secret");
    assert_eq!(show(&machine, "proxy.service", "ExecMainStatus"), "78");
    recover();
    machine.ok(&["rm", "/etc/credstore/webhook-secret"]);
    // Anything else may pass: it is tried again, for ever.
    machine.ok(&["chown", "-R", "root:root", "/var/lib/observability-hub/proxy"]);
    fails("a queue that it may not write", "/var/lib/observability-hub/proxy");
    machine.wait_for("another try", SOON, || show(&machine, "proxy.service", "NRestarts") != "0");
    machine.ok(&["systemd-tmpfiles", "--create", "observability-hub.conf"]);
    machine.wait_for("the proxy to come up", SOON, || show(&machine, "proxy.service", "ActiveState") == "active");
}
