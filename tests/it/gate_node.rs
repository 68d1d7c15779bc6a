//! The node under the gate: away, renamed, in another tailnet, with an expiring key, an older tool or a socket elsewhere.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use crate::support::tailnet::{TWO_LOOKS, Tailnet, line_after, open};
use crate::support::{Service, eventually_within};
use serde_json::{Value, json};

#[test]
fn a_node_that_is_away_while_the_funnel_is_open_is_never_called_open() {
    let states = [
        ("Stopped", "tailscale up"),
        ("NeedsLogin", "tailscale up"),
        ("NeedsMachineAuth", "approve it"),
        ("Starting", "is starting"),
    ];
    let check = |(state, advice): (&str, &str)| {
        let (tailnet, _proxy, gate) = open();
        let seen = gate.lines().len();
        tailnet.set(json!({"backend": state}));
        let begin = Instant::now();
        let line = line_after(&gate, seen, "funnel_unreachable");
        assert!(begin.elapsed() < Duration::from_secs(20), "a look is due every 15 s");
        assert_eq!(line["level"], "WARN");
        assert!(line["reason"].as_str().unwrap().contains(advice), "{line}");
        eventually_within(TWO_LOOKS, "the record says so", || tailnet.record()["status"] == "unreachable");
        let shown = tailnet.status();
        assert_eq!((&shown["state"], &shown["running"]), (&json!("unreachable"), &json!(true)), "{shown}");
        assert!(shown["reason"].as_str().unwrap().contains(advice), "{shown}");
        assert!(!gate.lines().iter().skip(seen).any(|line| line["msg"] == "funnel_open"), "{:?}", gate.lines());
        let seen = gate.lines().len();
        tailnet.set(json!({"backend": "Running"}));
        line_after(&gate, seen, "funnel_open");
        eventually_within(TWO_LOOKS, "the record says so", || tailnet.record()["status"] == "open");
    };
    std::thread::scope(|scope| {
        for state in states {
            scope.spawn(move || check(state));
        }
    });
}

#[test]
fn a_renamed_node_is_opened_under_its_new_name_and_that_is_said_once() {
    for name in ["bar.test.ts.net", "foo.red-fox.ts.net"] {
        let (tailnet, _proxy, mut gate) = open();
        let seen = gate.lines().len();
        tailnet.set(json!({"name": name}));
        let renamed = line_after(&gate, seen, "node_renamed");
        assert_eq!((&renamed["from"], &renamed["to"]), (&json!("foo.test.ts.net"), &json!(name)));
        let line = line_after(&gate, seen, "funnel_open");
        assert_eq!(line["url"], format!("https://{name}:8443/"));
        eventually_within(TWO_LOOKS, "the record keeps the former name", || {
            tailnet.record()["details"]["former_name"]["dns_name"] == "foo.test.ts.net"
        });
        gate.signal("TERM");
        gate.wait();
        let gate = tailnet.gate();
        gate.line("funnel_open");
        assert!(!gate.lines().iter().any(|line| line["msg"] == "node_renamed"));
    }
}

#[test]
fn another_tailnet_is_opened_only_after_allow_or_the_first_one_is_back() {
    let (tailnet, _proxy, gate) = open();
    let other = json!({"tailnet": "work.example", "name": "foo.work.ts.net", "node_id": "nOther"});
    let home = json!({"tailnet": "alice@example.com", "name": "foo.test.ts.net", "node_id": "nAbCdEf"});
    let closed = |gate: &Service| {
        gate.line_where("the reason", |line| {
            let reason = line["reason"].as_str().unwrap_or_default();
            reason.contains("work.example") && reason.contains("tailscale-gate allow")
        });
        eventually_within(TWO_LOOKS, "not public", || !tailnet.is_public());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            assert!(!tailnet.is_public());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    tailnet.set(other.clone());
    closed(&gate);
    tailnet.set(home.clone());
    eventually_within(TWO_LOOKS * 2, "public again", || tailnet.is_public());
    // A gate that starts in another tailnet does not take it for the first one.
    drop(gate);
    eventually_within(TWO_LOOKS, "not public", || !tailnet.is_public());
    tailnet.set(other);
    let gate = tailnet.gate();
    closed(&gate);
    let output = tailnet.run(&["allow"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("work.example"));
    eventually_within(TWO_LOOKS * 2, "public in the new one", || tailnet.is_public());
    // The first one is another one now.
    tailnet.set(home);
    eventually_within(TWO_LOOKS, "closed again", || !tailnet.is_public());
}

#[test]
fn a_damaged_memory_of_the_tailnet_keeps_it_closed_until_allow() {
    let tailnet = Tailnet::new();
    std::fs::create_dir_all(tailnet.host.path("state/gate")).unwrap();
    std::fs::write(tailnet.host.path("state/gate/tailnet.json"), "{\"name\": \"ali").unwrap();
    let _proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line_where("the reason", |line| {
        let reason = line["reason"].as_str().unwrap_or_default();
        reason.contains("tailnet.json") && reason.contains("tailscale-gate allow")
    });
    assert!(!tailnet.is_public());
    assert_eq!(tailnet.run(&["allow"]).status.code(), Some(0));
    eventually_within(TWO_LOOKS * 2, "public", || tailnet.is_public());
}

#[test]
fn a_tool_older_than_the_daemon_writes_nothing() {
    let tailnet = Tailnet::new();
    let theirs = json!({"Services": {"svc:web": {"TCP": {"443": {"HTTPS": true}}}}});
    std::fs::write(tailnet.dir().join("serve.json"), theirs.to_string()).unwrap();
    for (client, daemon) in [("1.56.1", "1.102.3-t53a0d659-g0"), ("1.102.2", "1.102.3")] {
        tailnet.set(json!({"version": client, "daemon_version": daemon}));
        let _proxy = tailnet.proxy();
        let gate = tailnet.gate();
        gate.line_where("the reason", |line| {
            let reason = line["reason"].as_str().unwrap_or_default();
            reason.contains(client) && reason.contains(daemon) && reason.contains("update")
        });
        assert!(!tailnet.is_public());
    }
    // What somebody opened in the background cannot be taken off by such a tool without loss either.
    tailnet.set(json!({"version": "1.102.3", "daemon_version": "1.102.3"}));
    assert!(tailnet.tailscale(&["funnel", "--bg", "--https=8443", "8085"]).status.success());
    let before = std::fs::read(tailnet.dir().join("serve.json")).unwrap();
    tailnet.set(json!({"version": "1.56.1", "daemon_version": "1.102.3"}));
    let output = tailnet.run(&["close"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("STILL PUBLIC") && text.contains("older than tailscaled"), "{text}");
    assert_eq!(std::fs::read(tailnet.dir().join("serve.json")).unwrap(), before);
    tailnet.set(json!({"version": "1.102.3"}));
    assert_eq!(tailnet.run(&["close"]).status.code(), Some(0));
    let after: Value = serde_json::from_slice(&std::fs::read(tailnet.dir().join("serve.json")).unwrap()).unwrap();
    assert_eq!(after, theirs);
}

#[test]
fn the_end_of_the_key_is_announced() {
    let tailnet = Tailnet::new();
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(13 * 24);
    tailnet.set(json!({"key_expiry": soon.to_string()}));
    let _proxy = tailnet.proxy();
    let gate = tailnet.gate();
    let line = gate.line("key_expires");
    assert_eq!(line["level"], "WARN");
    assert!(line["in_hours"].as_u64().unwrap() > 12 * 24, "{line}");
    gate.line("funnel_open");
    // The line is written before the record.
    eventually_within(TWO_LOOKS, "the status says it", || {
        let status = String::from_utf8(tailnet.host.run("hub", &["status", "--json"]).stdout).unwrap();
        status.contains("key expires in 12 days") || status.contains("key expires in 13 days")
    });
    let later = Tailnet::new();
    let late = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(15 * 24);
    later.set(json!({"key_expiry": late.to_string()}));
    let _proxy = later.proxy();
    let gate = later.gate();
    gate.line("funnel_open");
    assert!(!gate.lines().iter().any(|line| line["msg"] == "key_expires"));
}

#[test]
fn a_socket_elsewhere_is_used_and_its_lack_explained() {
    let tailnet = Tailnet::new();
    tailnet.set(json!({"down": true}));
    let gate = tailnet.gate();
    gate.line_where("the advice", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("[gate] socket ="))
    });
    drop(gate);
    let text = std::fs::read_to_string(tailnet.host.path("hub.toml")).unwrap();
    let socket = "/var/snap/tailscale/common/socket/tailscaled.sock";
    tailnet.host.configure(&text.replace("[gate]\n", &format!("[gate]\nsocket = \"{socket}\"\n")));
    tailnet.set(json!({"down": false, "socket": socket}));
    let asked = tailnet.calls().len();
    let _proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line("funnel_open");
    let calls = &tailnet.calls()[asked..];
    assert!(!calls.is_empty() && calls.iter().all(|call| call.contains(&format!("--socket={socket}"))), "{calls:?}");
    tailnet.host.configure(&text.replace("[gate]\n", "[gate]\nsocket = \"tailscaled.sock\"\n"));
    let output = tailnet.run(&["--check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stdout).unwrap().contains("gate.socket"));
}
