//! What the gate says: reasons, records, status, exit codes, systemd.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test fails by a panic")]

use crate::support;
use std::process::Command;

use crate::support::tailnet::{PORT, SECRET, Tailnet, open};
use crate::support::{Service, eventually};
use serde_json::{Value, json};

#[test]
fn a_request_to_stop_closes_and_verifies() {
    let (tailnet, _proxy, mut gate) = open();
    let open = tailnet.status();
    assert_eq!((&open["state"], &open["running"], &open["port"]), (&json!("open"), &json!(true), &json!(PORT)));
    assert_eq!((&open["url"], &open["target"]), (&json!("https://foo.test.ts.net:8443/"), &json!(tailnet.url())));
    assert_eq!(open["tailscale_version"], "1.102.3");
    gate.signal("TERM");
    assert_eq!(gate.wait(), Some(0));
    assert!(!tailnet.is_public());
    gate.line("stopped");
    let record = tailnet.record();
    assert_eq!((&record["service"], &record["status"]), (&json!("tailscale-gate"), &json!("closed")));
    assert_eq!(record["details"]["reason"], "the gate has stopped");
    assert_eq!(record["history"][0]["status"], "open");
    let closed = tailnet.status();
    assert_eq!((&closed["state"], &closed["running"]), (&json!("closed"), &json!(false)));
    let text = String::from_utf8(tailnet.run(&["status"]).stdout).unwrap();
    assert!(text.starts_with("closed") && text.contains("no gate runs"), "{text}");
}

#[test]
fn what_cannot_be_closed_is_said_loudly_and_tried_again() {
    let tailnet = Tailnet::new();
    assert!(tailnet.tailscale(&["funnel", "--bg", "--https=8443", "8085"]).status.success());
    tailnet.set(json!({"write_fails": true}));
    let output = tailnet.run(&["close"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("STILL PUBLIC") && text.contains("systemctl stop tailscaled"), "{text}");
    assert_eq!(tailnet.record()["status"], "open");
    let gate = tailnet.gate();
    gate.line_where("the failure", |line| {
        line["msg"] == "funnel_exposed" && line["reason"].as_str().unwrap().contains("no space left")
    });
    eventually("the record says so", || {
        tailnet.record()["error"].as_str().is_some_and(|error| error.contains("STILL PUBLIC"))
    });
    tailnet.set(json!({"write_fails": false}));
    tailnet.until_public(false);
    gate.line("funnel_closed");
}

#[test]
fn without_a_webhook_secret_it_stays_closed_until_there_is_one() {
    let tailnet = Tailnet::without_secret();
    let _proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line_where("the reason", |line| {
        line["msg"] == "stays_closed" && line["reason"].as_str().unwrap().starts_with("no webhook secret is configured")
    });
    assert!(!tailnet.is_public());
    tailnet.host.credential("webhook-secret", SECRET);
    tailnet.until_public(true);
}

/// Starts a gate beside a healthy proxy and waits until it says why it does not open.
fn reason(changes: Value, expected: &str) {
    let tailnet = Tailnet::new();
    tailnet.set(changes);
    let _proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line_where(expected, |line| line["reason"].as_str().is_some_and(|reason| reason.contains(expected)));
    assert!(!tailnet.is_public());
    eventually("the record says why", || {
        let record = std::fs::read_to_string(tailnet.host.path("state/gate/run.json")).unwrap_or_default();
        record.contains(&expected.replace('"', "\\\""))
    });
}

#[test]
fn every_obstacle_is_named_with_what_to_do() {
    reason(json!({"down": true}), "tailscaled is not running; run: systemctl start tailscaled");
    reason(json!({"backend": "NeedsLogin"}), "tailscale is logged out; run: tailscale up");
    reason(json!({"backend": "Stopped"}), "tailscale is stopped; run: tailscale up");
    reason(json!({"no_https": true}), "HTTPS is not enabled for the tailnet");
    reason(json!({"no_funnel": true}), "Funnel is not enabled for this node");
    reason(
        json!({"ports": "443,10000"}),
        "port 8443 is not allowed for Funnel by the tailnet, which allows: 443,10000",
    );
    reason(json!({"version": "1.50.1"}), "tailscale 1.50.1 is too old");
    reason(json!({"denied": true}), "tailscale set --operator=NAME");
    reason(json!({"pretends": true}), "tailscale funnel ended by itself: exit status: 0");
    reason(json!({"prompt": "exit"}), "Funnel is not enabled on your tailnet. | To enable, visit:");
    reason(json!({"garbage": true}), "tailscale funnel status --json did not print what was expected");
}

#[test]
fn a_missing_tailscale_is_named() {
    let tailnet = Tailnet::new();
    std::fs::remove_file(tailnet.host.path("bin/tailscale")).unwrap();
    let setpriv =
        String::from_utf8(Command::new("sh").args(["-c", "command -v setpriv"]).output().unwrap().stdout).unwrap();
    std::os::unix::fs::symlink(setpriv.trim(), tailnet.host.path("bin/setpriv")).unwrap();
    let mut command = tailnet.gate_command(&[]);
    command.env("PATH", tailnet.host.path("bin"));
    let gate = Service::start(command);
    let line = gate.line("funnel_unknown");
    assert!(line["reason"].as_str().unwrap().starts_with("tailscale is not installed"), "{line}");
}

#[test]
fn a_port_in_other_use_is_left_alone() {
    let tailnet = Tailnet::new();
    assert!(tailnet.tailscale(&["serve", "--bg", "--https=8443", "3000"]).status.success());
    let theirs = std::fs::read(tailnet.dir().join("serve.json")).unwrap();
    let _proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line_where("the reason", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("serves something else already"))
    });
    assert_eq!(std::fs::read(tailnet.dir().join("serve.json")).unwrap(), theirs);
    assert!(tailnet.tailscale(&["serve", "--yes", "--https=8443", "off"]).status.success());
    tailnet.until_public(true);
}

#[test]
fn wrong_configurations_and_second_gates_are_refused() {
    let tailnet = Tailnet::new();
    assert_eq!(tailnet.run(&["--check"]).status.code(), Some(0));
    assert_eq!(tailnet.run(&["--nonsense"]).status.code(), Some(2));
    let help = tailnet.run(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("Tailscale Funnel"));
    let gate = tailnet.gate();
    gate.line("watching");
    assert_eq!(tailnet.run(&[]).status.code(), Some(75));
    drop(gate);
    let admin = tailnet.admin.port();
    tailnet.host.configure(&format!("[proxy]\nlisten = \"0.0.0.0:{admin}\"\nadmin_listen = \"{}\"\n", tailnet.admin));
    for arguments in [&["--check"][..], &[], &["close"], &["status"]] {
        let output = tailnet.run(arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("reaches proxy.listen too"));
    }
    tailnet.host.configure("[gate]\nport = 9443\n");
    let output = tailnet.run(&["--check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stdout).unwrap().contains("443, 8443 or 10000"));
}

#[test]
fn systemd_hears_that_it_is_ready_what_it_does_and_that_it_lives() {
    let tailnet = Tailnet::new();
    let path = tailnet.host.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut command = tailnet.gate_command(&[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000");
    let _gate = Service::start(command);
    let _proxy = tailnet.proxy();
    let mut wanted = vec!["READY=1", "STATUS=closed: ", "STATUS=open: ", "WATCHDOG=1", "WATCHDOG=1"];
    let mut buffer = [0; 4096];
    while !wanted.is_empty() {
        let count = socket.recv(&mut buffer).expect("a message from the gate");
        let message = String::from_utf8_lossy(&buffer[..count]);
        if let Some(found) = wanted.iter().position(|wanted| message.contains(wanted)) {
            wanted.remove(found);
        }
    }
}
