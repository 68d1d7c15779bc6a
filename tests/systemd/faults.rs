//! A host on which something is wrong: a full disk, a read-only one, wrong permissions, missing credentials. Each unit
//! says what it is in one line of the journal, ends in the state that users of systemd expect, and goes on by itself
//! when it is mended.

use crate::gitops::{SOON, Text, configure, deliver, push, repository, show, start_hub, wait_deployed};
use crate::journal::{complains, complaint, fails};
use crate::machine::Machine;
use crate::pipelines::{INBOX, pipeline, publish, sqlite};

const STATE: &str = "/var/lib/observability-hub";
const METRICS: &str = "system-metrics.service";
const WORKER: &str = "gitops-sync.service";
const SYNC: &str = "reading-sync.service";

/// The status of an answer of the gateway.
fn status(machine: &Machine, path: &str) -> String {
    let script = "use IO::Socket::INET; my $s = IO::Socket::INET->new('127.0.0.1:8085') or exit 7;
        print $s \"GET $ARGV[0] HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n\"; print((split ' ', <$s>)[1]);";
    String::from_utf8_lossy(&machine.run(&["perl", "-e", script, path]).stdout).into_owned()
}

/// Sends a signed delivery that must be turned away with 503.
#[track_caller]
fn turned_away(machine: &Machine) {
    let output = machine.run(&["hub", "webhook-test", "acme/infra"]);
    let said = crate::machine::describe(&output);
    assert!(!output.status.success() && said.contains("503"), "{said}");
}

/// A state folder on a file system of its own, with a repository deployed and an inbox filled.
fn small_state(machine: &Machine, size: &str) -> String {
    machine.ok(&["mount", "-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs", STATE]);
    machine.ok(&["systemd-tmpfiles", "--create", "observability-hub.conf"]);
    configure(machine, &[repository("infra", ""), pipeline(INBOX)]);
    let commit = push(machine, "infra", &[Text("note", "1")]);
    start_hub(machine);
    deliver(machine, "infra");
    wait_deployed(machine, "infra", &commit);
    publish(machine, INBOX, "a.jsonl", 0..100);
    machine.ok(&["systemctl", "restart", METRICS, SYNC]);
    publish(machine, INBOX, "b.jsonl", 100..1100);
    push(machine, "infra", &[Text("note", "2")])
}

/// What every unit does when nothing can be written to the state folder, and after `mend`.
fn nothing_can_be_written(machine: &Machine, commit: &str, causes: [&str; 2], mend: &[&str]) {
    assert_eq!(status(machine, "/healthz"), "503");
    turned_away(machine);
    complains(machine, "proxy.service", causes[0]);
    let told = || complaint(machine, "proxy.service", &format!("the file system of {STATE}/proxy/queue is ")).is_some();
    machine.wait_for("the gateway to say so by itself", SOON, told);
    assert_eq!(show(machine, "proxy.service", "ActiveState"), "active");
    for unit in [METRICS, SYNC, WORKER] {
        assert_eq!(fails(machine, unit), "1", "{unit}");
        // SQLite has words of its own.
        let cause = causes.into_iter().find(|cause| complaint(machine, unit, cause).is_some());
        complains(machine, unit, cause.unwrap_or(causes[0]));
    }
    machine.ok(mend);
    machine.wait_for("the gateway to take work", SOON, || status(machine, "/healthz") == "200");
    deliver(machine, "infra");
    wait_deployed(machine, "infra", commit);
    machine.ok(&["systemctl", "restart", METRICS, SYNC]);
    assert_eq!(sqlite(machine, "SELECT count(*) FROM reading_analytics"), "1100");
    assert_eq!(show(machine, "gitops-sync.path", "ActiveState"), "active");
    for unit in [METRICS, SYNC, WORKER] {
        assert_eq!(show(machine, unit, "Result"), "success", "{unit}");
    }
}

#[test]
fn a_full_disk_is_told_by_every_unit_and_freed_again_they_go_on() {
    let Some(machine) = Machine::boot() else { return };
    let commit = small_state(&machine, "8M");
    machine.run(&["dd", "if=/dev/zero", &format!("of={STATE}/full"), "bs=4k", "status=none"]);
    let causes = ["No space left on device", "its file system is full"];
    nothing_can_be_written(&machine, &commit, causes, &["rm", &format!("{STATE}/full")]);
}

#[test]
fn a_read_only_state_folder_is_told_by_every_unit_and_writable_again_they_go_on() {
    let Some(machine) = Machine::boot() else { return };
    let commit = small_state(&machine, "64M");
    machine.ok(&["mount", "-o", "remount,ro", STATE]);
    let mend = ["mount", "-o", "remount,rw", STATE];
    nothing_can_be_written(&machine, &commit, ["Read-only file system", "read-only"], &mend);
    // One that starts on it is tried again until it can work: what its sandbox has mounted would stay read-only.
    machine.ok(&["mount", "-o", "remount,ro", STATE]);
    machine.run(&["systemctl", "restart", "proxy.service"]);
    machine.wait_for("another try", SOON, || show(&machine, "proxy.service", "NRestarts") != "0");
    machine.wait_for("the reason", SOON, || complaint(&machine, "proxy.service", "is read-only").is_some());
    machine.ok(&mend);
    machine.wait_for("the gateway to take work", SOON, || status(&machine, "/healthz") == "200");
}

#[test]
fn wrong_owners_and_missing_credentials_are_told_with_what_to_do() {
    let Some(machine) = Machine::boot() else { return };
    // The configuration: not for hub to read, and not root's.
    machine.write("/etc/observability-hub/hub.toml", "");
    machine.ok(&["chmod", "0600", "/etc/observability-hub/hub.toml"]);
    assert_eq!(fails(&machine, METRICS), "78");
    complains(&machine, METRICS, "/etc/observability-hub/hub.toml");
    machine.ok(&["chmod", "0666", "/etc/observability-hub/hub.toml"]);
    assert_eq!(fails(&machine, WORKER), "78");
    complains(&machine, WORKER, "/etc/observability-hub/hub.toml");
    machine.ok(&["chmod", "0644", "/etc/observability-hub/hub.toml"]);
    // A state folder of somebody else's.
    machine.ok(&["chown", "-R", "root:root", &format!("{STATE}/data")]);
    assert_eq!(fails(&machine, METRICS), "1");
    complains(&machine, METRICS, &format!("{STATE}/data"));
    machine.ok(&["systemd-tmpfiles", "--create", "observability-hub.conf"]);
    machine.ok(&["systemctl", "start", METRICS]);
    // A pipeline whose source is named by a credential that is not there.
    machine.write(
        "/etc/observability-hub/hub.toml",
        "[[pipeline]]\nname = \"reading\"\nsource = \"mongodb\"\ndatabase = \"a\"\ncollection = \"b\"\n",
    );
    machine.ok(&["systemctl", "start", "proxy.service"]);
    complains(&machine, "proxy.service", "no webhook secret");
    assert_eq!(fails(&machine, SYNC), "1");
    complains(&machine, SYNC, "mongo-uri");
    assert_eq!(show(&machine, "proxy.service", "ActiveState"), "active");
}
