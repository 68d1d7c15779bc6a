//! The gate in its packaged unit and sandbox, with a stand-in `tailscale` that keeps its state where the gate may write.
#![allow(clippy::print_stderr, reason = "a figure is worth a line")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::gitops::{SOON, show};
use crate::machine::Machine;
use crate::support::tailnet::{HUNG, KILLED, PORT, config_in, is_public_in, stand_in};

const TAILNET: &str = "/var/lib/observability-hub/gate/tailnet";
const GATE: &str = "tailscale-gate.service";

/// The node of a machine, as anybody on the internet would find it.
pub struct Node {
    dir: PathBuf,
}

impl Node {
    /// Puts the stand-in where the packaged unit finds `tailscale`.
    pub fn install(machine: &Machine) -> Self {
        machine.copy_in(stand_in(), "/usr/local/lib/tailscale-stand-in");
        let script =
            format!("#!/bin/sh\nexport TAILSCALE_STAND_IN={TAILNET}\nexec /usr/local/lib/tailscale-stand-in \"$@\"\n");
        machine.write("/usr/bin/tailscale", script);
        machine.ok(&["chmod", "0755", "/usr/bin/tailscale"]);
        machine.ok(&["mkdir", "-p", TAILNET]);
        Self { dir: machine.on_host(TAILNET) }
    }

    /// The ports on which something is public, sorted.
    pub fn ports(&self) -> Vec<String> {
        let config = config_in(&self.dir);
        let sessions = config["Foreground"].as_object().into_iter().flatten().map(|(_, part)| part);
        let keys = std::iter::once(&config).chain(sessions).flat_map(|part| part["AllowFunnel"].as_object());
        let keys = keys.flatten().filter(|(_, on)| **on == true);
        let mut ports: Vec<String> = keys.filter_map(|(key, _)| Some(key.rsplit_once(':')?.1.to_owned())).collect();
        ports.sort();
        ports
    }

    pub fn is_public(&self) -> bool {
        is_public_in(&self.dir)
    }

    pub fn until_public(&self, public: bool) {
        let begin = Instant::now();
        while self.is_public() != public {
            assert!(begin.elapsed() < SOON, "public = {public} never came: {:#}", config_in(&self.dir));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Does something to an open gate that must close it; fails when the port is public for longer than the limit
    /// after it was done.
    #[track_caller]
    fn closes(&self, machine: &Machine, act: &[&str], limit: Duration) {
        self.until_public(true);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                machine.ok(act);
                Instant::now()
            });
            self.until_public(false);
            let closed = Instant::now();
            let done = done.join().expect("the command succeeds");
            let [done_after, closed_after] = [done - begin, closed - begin].map(|time| time.as_millis());
            eprintln!("{}: done after {done_after} ms, not exposed after {closed_after} ms", act.join(" "));
            assert!(closed.saturating_duration_since(done) <= limit, "{act:?}: {:?}", closed - done);
        });
    }
}

/// The messages of the unit's JSON lines, oldest first.
fn messages(machine: &Machine) -> Vec<serde_json::Value> {
    let lines = machine.journal(GATE);
    lines.iter().filter_map(|entry| serde_json::from_str(entry["MESSAGE"].as_str()?).ok()).collect()
}

fn last(machine: &Machine, message: &str) -> serde_json::Value {
    messages(machine).into_iter().rfind(|line| line["msg"] == message).unwrap_or_default()
}

fn drop_in(machine: &Machine, text: &str) {
    machine.write(&format!("/run/systemd/system/{GATE}.d/test.conf"), text);
    machine.ok(&["systemctl", "daemon-reload"]);
}

fn set(machine: &Machine, switches: &str) {
    machine.write(&format!("{TAILNET}/.daemon.json"), switches);
    machine.ok(&["mv", &format!("{TAILNET}/.daemon.json"), &format!("{TAILNET}/daemon.json")]);
}

#[test]
fn the_packaged_gate_opens_and_whoever_is_stopped_or_killed_it_is_closed_in_time() {
    let Some(machine) = Machine::boot() else { return };
    let node = Node::install(&machine);
    machine.ok(&["systemctl", "start", "proxy.service", GATE]);
    machine.wait_for("the gate to look at the proxy", SOON, || !messages(&machine).is_empty());
    // Without a webhook secret it stays closed.
    machine.wait_for("the reason", SOON, || {
        messages(&machine).iter().any(|line| line["reason"].as_str().is_some_and(|reason| reason.contains("secret")))
    });
    assert!(!node.is_public());
    machine.write("/etc/credstore/webhook-secret", "a secret for the tests only");
    machine.ok(&["systemctl", "restart", "proxy.service", GATE]);
    node.until_public(true);

    let kill = |signal: &'static str, unit: &'static str| ["systemctl", "kill", "--kill-who=main", "-s", signal, unit];
    node.closes(&machine, &["systemctl", "stop", "proxy.service"], KILLED);
    machine.ok(&["systemctl", "start", "proxy.service"]);
    node.closes(&machine, &kill("KILL", "proxy.service"), KILLED);
    node.closes(&machine, &kill("STOP", "proxy.service"), HUNG);
    machine.ok(&kill("CONT", "proxy.service"));
    node.closes(&machine, &kill("KILL", GATE), KILLED);
    // A gate that hangs: the watchdog's limit and a second for the kill.
    node.closes(&machine, &kill("STOP", GATE), Duration::from_secs(3) + KILLED);
    node.closes(&machine, &["systemctl", "stop", GATE], Duration::ZERO);
    let journal = machine.ok(&["journalctl", "--no-pager", "-b", "-n", "20", "-o", "short-monotonic", "-u", GATE]);
    assert_eq!(show(&machine, GATE, "ActiveState"), "inactive", "{journal}");
    assert_eq!(show(&machine, GATE, "Result"), "success");
    machine.ok(&["systemctl", "start", GATE]);
    node.until_public(true);

    // It was open and closed under the sandbox's rules, and no call was denied.
    let journal = machine.ok(&["journalctl", "--no-pager", "-b", "-o", "cat", "-u", GATE, "-u", "proxy.service"]);
    for sign in ["SIGSYS", "status=31", "Operation not permitted", "Permission denied", "Read-only file system"] {
        assert!(!journal.contains(sign), "{sign}: {journal}");
    }
}

#[test]
fn what_a_killed_gate_leaves_is_closed_by_its_unit_and_what_cannot_be_verified_fails_it() {
    let Some(machine) = Machine::boot() else { return };
    let node = Node::install(&machine);
    machine.write("/etc/credstore/webhook-secret", "a secret for the tests only");
    // So that no new gate closes it instead.
    drop_in(&machine, "[Service]\nRestart=no\n");
    machine.ok(&["systemctl", "start", "proxy.service", GATE]);
    node.until_public(true);
    // The gate can do nothing, its funnel is gone, and somebody opened the port for good.
    let main = show(&machine, GATE, "MainPID");
    machine.ok(&["kill", "-STOP", &main]);
    machine.ok(&["pkill", "-KILL", "-x", "tailscale-stand"]);
    node.until_public(false);
    machine.ok(&["tailscale", "funnel", "--bg", "--yes", &format!("--https={PORT}"), "http://127.0.0.1:8085"]);
    assert!(node.is_public());
    machine.ok(&["kill", "-KILL", &main]);
    machine.wait_for("the unit to end", SOON, || show(&machine, GATE, "ActiveState") == "failed");
    assert!(!node.is_public(), "{:#}", config_in(&node.dir));
    assert_eq!(last(&machine, "funnel_closed")["was_open"], true);

    // tailscaled is gone: nobody knows whether the port is closed, and the unit says so.
    machine.ok(&["systemctl", "reset-failed", GATE]);
    machine.ok(&["systemctl", "start", GATE]);
    node.until_public(true);
    set(&machine, r#"{"down": true}"#);
    machine.run(&["systemctl", "stop", GATE]);
    assert_eq!(show(&machine, GATE, "ActiveState"), "failed");
    let line = last(&machine, "close_failed");
    assert!(line["error"].as_str().is_some_and(|error| error.contains("tailscaled")), "{line}");
}
