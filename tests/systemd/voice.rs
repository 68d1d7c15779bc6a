//! What is wrong leaves the host: from the packaged unit, in its sandbox, by its own account.

use std::time::{Duration, Instant};

use crate::gitops::{Text, configure, deployed, push, repository, service, sync};
use crate::journal::nothing_denied;
use crate::machine::{Machine, describe};

const TOLD: &str = "/var/lib/observability-hub/watch/told";
const LOOK: [&str; 3] = ["systemctl", "start", "hub-watch.service"];

#[test]
fn what_was_taken_back_is_told_once_and_that_it_is_mended() {
    let Some(machine) = Machine::boot() else { return };
    let notify = format!("[notify]\ncommand = [\"/usr/bin/tee\", \"-a\", \"{TOLD}\"]\n");
    configure(&machine, &[repository("infra", "health = { grace_seconds = 2 }"), notify]);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    machine.ok(&LOOK);
    machine.run(&["rm", "-f", TOLD]);
    let told = || machine.ok(&["sh", "-c", &format!("cat {TOLD} 2>/dev/null; rm -f {TOLD}")]);

    push(
        &machine,
        "infra",
        &[Text("systemd/bad.service", "[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n")],
    );
    sync(&machine, "infra").expect(3);
    machine.ok(&LOOK);
    let notice = told();
    assert!(notice.contains("acme/infra") && notice.contains("\"kind\":\"raised\""), "{notice}");
    machine.ok(&LOOK);
    assert_eq!(told(), "", "it was told already");

    push(&machine, "infra", &[Text("systemd/bad.service", &service("bad", "1"))]);
    sync(&machine, "infra").expect(0);
    machine.ok(&LOOK);
    let notice = told();
    assert!(notice.contains("acme/infra") && notice.contains("\"kind\":\"cleared\""), "{notice}");

    // Its own account, which no checkout may belong to, and nothing that its sandbox kept it from.
    let owner = ["stat", "-c", "%U:%G %a", "/var/lib/observability-hub/watch/state.json"];
    assert_eq!(machine.ok(&owner), "hub-watch:hub 640\n");
    assert_eq!(machine.ok(&["id", "-nG", "hub-watch"]), "hub-watch systemd-journal hub\n");
    nothing_denied(&machine, &["hub-watch.service"]);
    let touch = "touch /var/lib/observability-hub/watch/x && ! touch /var/lib/observability-hub/x /var/lib/observability-hub/gitops/x";
    let inside = machine.run(&[
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        "-p",
        "User=hub-watch",
        "-p",
        "Group=hub",
        "--",
        "sh",
        "-c",
        touch,
    ]);
    assert!(inside.status.success(), "{}", describe(&inside));
}

#[test]
fn the_timer_looks_each_minute_and_a_notifier_that_is_away_is_said() {
    let Some(machine) = Machine::boot() else { return };
    configure(
        &machine,
        &["[notify]\nurl = \"http://127.0.0.1:9/topic\"\nheartbeat = \"http://127.0.0.1:9/beat\"\n".to_owned()],
    );
    let doctor = machine.run(&["hub", "doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("systemctl enable --now hub-watch.timer"), "{said}");
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "hub-watch.timer"]);
    let record = "/var/lib/observability-hub/watch/run.json";
    machine.wait_for("a look", Duration::from_secs(90), || machine.run(&["test", "-e", record]).status.success());
    let run = machine.read(record);
    assert!(run.contains("\"status\":\"failed\"") && run.contains("127.0.0.1:9") && !run.contains("/beat"), "{run}");
    let status = machine.run(&["hub", "status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("notices of this host do not arrive") && said.contains("hub notify test"), "{said}");
    let test = machine.run(&["hub", "notify", "test"]);
    assert!(String::from_utf8_lossy(&test.stderr).contains("not taken: http://127.0.0.1:9/…"), "{}", describe(&test));
}

#[test]
fn a_unit_of_the_operator_that_fails_is_told_within_seventy_seconds_and_stands_in_the_timeline() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[format!("[notify]\ncommand = [\"/usr/bin/tee\", \"-a\", \"{TOLD}\"]\n")]);
    machine.write("/etc/systemd/system/backup.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 7'\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "hub-watch.timer"]);
    machine.wait_for("a first look", Duration::from_secs(90), || {
        machine.run(&["test", "-e", "/var/lib/observability-hub/watch/look.json"]).status.success()
    });
    machine.run(&["systemctl", "start", "backup.service"]);
    let failed = Instant::now();
    let told = || String::from_utf8_lossy(&machine.run(&["cat", TOLD]).stdout).into_owned();
    machine.wait_for("the notice", Duration::from_secs(80), || told().contains("unit/backup.service/failed"));
    assert!(failed.elapsed() < Duration::from_secs(70), "{:?}", failed.elapsed());
    assert!(told().contains("backup.service has failed (exit-code, exit status 7)"), "{}", told());
    let status = machine.run(&["hub", "status"]);
    assert_eq!(status.status.code(), Some(2), "{}", describe(&status));
    let timeline = machine.ok(&["hub", "timeline"]);
    let lines: Vec<&str> = timeline.lines().filter(|line| line.contains("hub-watch")).collect();
    assert!(lines.iter().any(|line| line.contains("host  booted")), "{timeline}");
    assert_eq!(lines.iter().filter(|line| line.contains("backup.service  unit_failed")).count(), 1, "{timeline}");
    assert!(lines.iter().any(|line| line.contains("backup.service  raised")), "{timeline}");
    nothing_denied(&machine, &["hub-watch.service"]);
}

#[test]
fn three_hundred_failed_units_are_one_reason_and_do_not_hold_up_a_look() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[format!("[notify]\ncommand = [\"/usr/bin/tee\", \"-a\", \"{TOLD}\"]\n")]);
    machine.ok(&LOOK);
    machine.write("/etc/systemd/system/bad@.service", "[Service]\nExecStart=/bin/false\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["sh", "-c", "for n in $(seq 300); do echo bad@$n.service; done | xargs systemctl start --no-block"]);
    machine.wait_for("all of them have failed", Duration::from_secs(60), || {
        machine.ok(&["systemctl", "list-units", "--failed", "--no-legend"]).lines().count() == 300
    });
    machine.run(&["rm", "-f", TOLD]);
    let begin = Instant::now();
    machine.ok(&LOOK);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let told = machine.ok(&["cat", TOLD]);
    assert!(told.contains("300 units have failed: bad@1") && told.contains("more"), "{told}");
    assert_eq!(told.matches("\"kind\":\"raised\"").count(), 1, "{told}");
    assert!(told.len() < 8_000, "{}", told.len());
    machine.ok(&["systemctl", "reset-failed"]);
    machine.ok(&["rm", "-f", TOLD]);
    machine.ok(&LOOK);
    assert!(machine.ok(&["cat", TOLD]).contains("is well again"));
}

#[test]
fn a_full_file_system_is_told_once_with_what_fails_by_it_while_the_database_is_down() {
    let Some(machine) = Machine::boot() else { return };
    let notify = format!("[notify]\ncommand = [\"/usr/bin/tee\", \"-a\", \"{TOLD}\"]\n");
    configure(&machine, &["[database]\nurl = \"postgres://hub@127.0.0.1:9/hub\"\n".to_owned(), notify]);
    machine.ok(&["systemctl", "start", "system-metrics.service"]);
    machine.ok(&LOOK);
    machine.ok(&["rm", "-f", TOLD]);
    machine.ok(&["mkdir", "/mnt/small"]);
    machine.ok(&["mount", "-t", "tmpfs", "-o", "size=4m", "none", "/mnt/small"]);
    machine.run(&["sh", "-c", "head -c 5M /dev/zero > /mnt/small/x"]);
    machine.ok(&["touch", "/run/reboot-required"]);
    machine.ok(&["systemctl", "start", "system-metrics.service"]);
    machine.ok(&LOOK);
    let told = machine.ok(&["cat", TOLD]);
    assert!(told.contains("/mnt/small is 100 % full") && told.contains("packages ask for it"), "{told}");
    machine.ok(&["rm", "-f", TOLD]);
    // What fails by it is no news, whichever look sees it, and the whole is over once.
    let copy = "[Service]\nType=oneshot\nExecStart=/bin/cp /bin/bash /mnt/small/%i\n";
    machine.write("/etc/systemd/system/copy@.service", copy);
    machine.ok(&["systemctl", "daemon-reload"]);
    for unit in ["copy@a.service", "copy@b.service"] {
        machine.run(&["systemctl", "start", unit]);
        machine.ok(&["journalctl", "--sync"]);
        machine.ok(&["systemctl", "start", "system-metrics.service"]);
        machine.ok(&LOOK);
        assert!(!machine.exists(TOLD), "{}", machine.read(TOLD));
    }
    let status = machine.run(&["hub", "status", "--json"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        said.contains(
            "copy@b.service has failed (exit-code, exit status 1); its log reports that no space is left on a disk"
        ),
        "{said}"
    );
    nothing_denied(&machine, &["hub-watch.service", "system-metrics.service"]);
}

/// A forge that says that all checks are green, and a mail server; both write down what they hear.
const FORGE: &str = "use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => q(127.0.0.1:3000), Listen => 5) or die;
    while (my $c = $l->accept) { open my $f, q(>>), q(/srv/forge); my $n = 0;
    while (<$c>) { print $f $_; $n = $1 if /^content-length: (\\d+)/i; last if /^\\r/ } read $c, my $b, $n; print $f qq($b\\n); close $f;
    my $a = q({\"statuses\":[{\"context\":\"ci\",\"status\":\"success\"}]}); my $s = length $a;
    print $c qq(HTTP/1.1 200 OK\\r\\nContent-Length: $s\\r\\nConnection: close\\r\\n\\r\\n$a); close $c }";
const MAIL: &str = "use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => q(127.0.0.1:25), Listen => 5) or die;
    while (my $c = $l->accept) { open my $f, q(>>), q(/srv/mail); my $d = 0; print $c qq(220 x\\r\\n);
    while (<$c>) { print $f $_; if ($d) { if (/^\\.\\r/) { $d = 0; print $c qq(250 ok\\r\\n) } next }
    if (/^DATA/) { $d = 1; print $c qq(354 go\\r\\n) } else { print $c qq(250 ok\\r\\n); last if /^QUIT/ } } close $f; close $c }";

#[test]
fn the_forge_and_the_mail_server_hear_it_from_the_sandbox() {
    let Some(machine) = Machine::boot() else { return };
    for (unit, script, port) in [("forge", FORGE, ":0BB8"), ("mail", MAIL, ":0019")] {
        machine.ok(&["systemd-run", "--quiet", &format!("--unit={unit}"), "perl", "-e", script]);
        machine.wait_for("the server to listen", Duration::from_secs(20), || {
            machine.ok(&["cat", "/proc/net/tcp"]).contains(&format!("0100007F{port} 00000000:0000 0A"))
        });
    }
    let forge = "status = true\nwait_for_checks = true\nstatus_token = \"status-token\"\napi = \"http://127.0.0.1:3000/api/v1\"";
    let notify = "[notify]\nmail = \"you@example.org\"\nmail_from = \"hub@example.org\"\n";
    configure(&machine, &[repository("infra", forge), notify.to_owned()]);
    machine.write("/etc/credstore/status-token", "t0ken\n");
    let commit = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    // As contrib/doc/installing.md has it: what gitops-sync needs is named in a drop-in, for hub-watch this name is in its unit.
    machine.write("/etc/systemd/system/gitops-sync.service.d/token.conf", "[Service]\nLoadCredential=status-token\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "--no-block", "gitops-sync.service"]);
    machine.ok(&["systemctl", "start", "gitops-sync.service"]);
    assert_eq!(deployed(&machine, "infra"), commit);
    let heard = machine.read("/srv/forge");
    assert!(heard.contains(&format!("GET /api/v1/repos/acme/infra/commits/{commit}/status")), "{heard}");
    machine.write("/etc/systemd/system/backup.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.run(&["systemctl", "start", "backup.service"]);
    machine.ok(&LOOK);
    let heard = machine.read("/srv/forge");
    assert!(heard.contains(&format!("POST /api/v1/repos/acme/infra/statuses/{commit}")), "{heard}");
    assert!(heard.contains("token t0ken") && heard.contains("\"state\":\"success\""), "{heard}");
    let heard = machine.read("/srv/mail");
    assert!(heard.contains("RCPT TO:<you@example.org>") && heard.contains("backup.service"), "{heard}");
    nothing_denied(&machine, &["hub-watch.service"]);
}

/// A server in the machine that writes down what it is asked for: `GET /beat`, `POST /beat/fail`.
const LISTENER: &str = r#"use IO::Socket::INET; $| = 1;
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1:8099', Listen => 5, ReuseAddr => 1) or die;
while (my $client = $server->accept) {
    my $line = <$client>; my $length = 0;
    while (my $header = <$client>) { $length = $1 if $header =~ /^content-length: (\d+)/i; last if $header =~ /^\r?\n$/; }
    read($client, my $body, $length) if $length;
    open(my $log, '>>', '/srv/asked'); print $log $line; close $log;
    print $client "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"; close $client;
}"#;

#[test]
fn with_everything_else_stopped_and_a_broken_hub_toml_the_heartbeat_says_fail() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/srv/listener", LISTENER);
    machine.ok(&["systemd-run", "--quiet", "--unit=listener", "perl", "/srv/listener"]);
    machine.wait_for("the listener", Duration::from_secs(20), || {
        machine.run(&["sh", "-c", "ss -ltn 2>/dev/null | grep -q 8099 || grep -q :1FA3 /proc/net/tcp"]).status.success()
    });
    let notify = format!(
        "[notify]\nheartbeat = \"http://127.0.0.1:8099/beat\"\ncommand = [\"/usr/bin/tee\", \"-a\", \"{TOLD}\"]\n"
    );
    configure(&machine, std::slice::from_ref(&notify));
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "proxy.service"]);
    let asked = || machine.read("/srv/asked").lines().last().unwrap_or_default().to_owned();
    machine.ok(&LOOK);
    assert!(asked().starts_with("GET /beat "), "{}", machine.read(TOLD));
    let is_due = "sed -i 's/\"heartbeat\":{\"at\":\"[^\"]*\"/\"heartbeat\":{\"at\":null/' /var/lib/observability-hub/watch/state.json";
    machine.ok(&[
        "systemctl",
        "stop",
        "proxy.service",
        "gitops-sync.path",
        "gitops-sync.timer",
        "system-metrics.timer",
    ]);
    machine.ok(&["sh", "-c", is_due]);
    machine.ok(&LOOK);
    assert!(asked().starts_with("POST /beat/fail "), "{}", machine.read("/srv/asked"));
    machine.ok(&["systemctl", "start", "proxy.service"]);
    machine.ok(&["sh", "-c", is_due]);
    machine.ok(&LOOK);
    assert!(asked().starts_with("GET /beat "), "{}", machine.read("/srv/asked"));
    // Then somebody breaks hub.toml.
    machine.ok(&["rm", "-f", TOLD]);
    machine.write("/etc/observability-hub/hub.toml", format!("{notify}quit = \"23:00-07:00\"\n"));
    machine.ok(&["sh", "-c", is_due]);
    machine.ok(&LOOK);
    assert!(asked().starts_with("POST /beat/fail "), "{}", machine.read("/srv/asked"));
    let told = machine.read(TOLD);
    assert!(told.contains("hub.toml:4: ") && told.contains("quit"), "{told}");
    let kept = ["stat", "-c", "%U %a", "/var/lib/observability-hub/watch/hub.toml"];
    assert_eq!(machine.ok(&kept), "hub-watch 600\n");
    nothing_denied(&machine, &["hub-watch.service"]);
}
