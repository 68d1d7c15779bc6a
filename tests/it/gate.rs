//! When the gate opens and closes, with real processes: a real proxy, a stand-in `tailscale`.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test fails by a panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::tailnet::{HUNG, KILLED, Tailnet, closed, open};
use crate::support::{Service, eventually};
use serde_json::json;

#[test]
fn a_killed_proxy_is_closed_at_once_and_a_new_one_opened() {
    let (tailnet, mut proxy, gate) = open();
    proxy.signal("KILL");
    let took = tailnet.until_public(false);
    println!("FIGURE proxy killed -> not exposed: {} ms (at most {})", took.as_millis(), KILLED.as_millis());
    assert!(took <= KILLED, "{took:?}");
    proxy.wait();
    let line = closed(&gate);
    assert_eq!(line["reason"], "the proxy has ended");
    assert!(line["duration_ms"].as_u64().unwrap() < 1000, "{line}");
    let _proxy = tailnet.proxy();
    tailnet.until_public(true);
    eventually("a second opening", || gate.lines().iter().filter(|line| line["msg"] == "funnel_open").count() == 2);
}

#[test]
fn a_hung_proxy_is_closed_and_opened_when_it_goes_on() {
    let (tailnet, proxy, gate) = open();
    proxy.signal("STOP");
    let took = tailnet.until_public(false);
    println!(
        "FIGURE proxy stopped with SIGSTOP -> not exposed: {} ms (at most {})",
        took.as_millis(),
        HUNG.as_millis()
    );
    assert!(took <= HUNG, "{took:?}");
    assert_eq!(closed(&gate)["reason"], "the proxy did not answer within 400 ms");
    proxy.signal("CONT");
    tailnet.until_public(true);
}

#[test]
fn the_kernel_closes_when_the_gate_is_killed() {
    let (tailnet, mut proxy, mut gate) = open();
    // The gate itself can do nothing any more, and the proxy is gone.
    gate.signal("STOP");
    proxy.signal("KILL");
    proxy.wait();
    assert!(tailnet.is_public());
    gate.signal("KILL");
    let took = tailnet.until_public(false);
    println!("FIGURE gate killed -> not exposed: {} ms (at most {})", took.as_millis(), KILLED.as_millis());
    assert!(took <= KILLED, "{took:?}");
    gate.wait();
}

#[test]
fn close_closes_although_the_gate_hangs_and_its_child_lives() {
    let (tailnet, _proxy, gate) = open();
    gate.signal("STOP");
    for was_open in [true, false] {
        let output = tailnet.run(&["close"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains(&format!("\"was_open\":{was_open}")), "{text}");
        assert!(text.contains("stop it: systemctl stop tailscale-gate"), "{text}");
        assert!(!tailnet.is_public());
    }
    gate.signal("CONT");
    tailnet.until_public(true);
}

#[test]
fn a_stranger_on_the_port_is_not_published() {
    let (tailnet, mut proxy, gate) = open();
    let instance = json!({"status": "ok", "instance": "copied"}).to_string();
    proxy.signal("KILL");
    proxy.wait();
    tailnet.until_public(false);
    let squat = || {
        let socket = TcpListener::bind(tailnet.public).unwrap();
        let body = instance.clone();
        std::thread::spawn(move || {
            for mut stream in socket.incoming().flatten() {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head);
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
    };
    squat();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        assert!(!tailnet.is_public());
        std::thread::sleep(Duration::from_millis(5));
    }
    // A proxy that lives, but whose port somebody else has.
    let other = tailnet.host.path("other.toml");
    let text = std::fs::read_to_string(tailnet.host.path("hub.toml")).unwrap();
    std::fs::write(&other, text.replace(&format!("listen = \"{}\"", tailnet.public), "listen = \"127.0.0.1:0\""))
        .unwrap();
    let elsewhere = tailnet.host.start("proxy", &["--config", other.to_str().unwrap()]);
    elsewhere.line("listening");
    gate.line_where("the stranger", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.starts_with("a stranger"))
    });
    assert!(!tailnet.is_public());
}

#[test]
fn what_was_left_in_the_background_is_closed_and_other_ports_stay_as_they_are() {
    let tailnet = Tailnet::new();
    assert!(tailnet.tailscale(&["serve", "--bg", "--https=443", "3000"]).status.success());
    assert!(tailnet.tailscale(&["funnel", "--bg", "--https=10000", "4000"]).status.success());
    let others = std::fs::read(tailnet.dir().join("serve.json")).unwrap();
    assert!(tailnet.tailscale(&["funnel", "--bg", "--https=8443", "8085"]).status.success());
    assert!(tailnet.is_public());
    let gate = tailnet.gate();
    gate.line("funnel_closed");
    assert!(!tailnet.is_public());
    assert_eq!(std::fs::read(tailnet.dir().join("serve.json")).unwrap(), others);
    let proxy = tailnet.proxy();
    tailnet.until_public(true);
    drop(proxy);
    tailnet.until_public(false);
    assert_eq!(std::fs::read(tailnet.dir().join("serve.json")).unwrap(), others);
    assert!(!tailnet.calls().iter().any(|call| call.contains("reset")));
}

#[test]
fn what_off_cannot_reach_is_taken_out_of_the_configuration() {
    let tailnet = Tailnet::new();
    // The key of an earlier name of the node: `off` only knows the present one.
    tailnet.set(json!({"name": "old.test.ts.net"}));
    assert!(tailnet.tailscale(&["serve", "--bg", "--https=443", "3000"]).status.success());
    let others = std::fs::read(tailnet.dir().join("serve.json")).unwrap();
    assert!(tailnet.tailscale(&["funnel", "--bg", "--https=8443", "8085"]).status.success());
    tailnet.set(json!({"name": "foo.test.ts.net"}));
    let output = tailnet.run(&["close"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!tailnet.is_public());
    assert_eq!(std::fs::read(tailnet.dir().join("serve.json")).unwrap(), others);
}

#[test]
fn another_client_at_the_same_time_is_tried_again() {
    let tailnet = Tailnet::new();
    assert!(tailnet.tailscale(&["funnel", "--bg", "--https=8443", "8085"]).status.success());
    tailnet.set(json!({"clashes": 2}));
    assert_eq!(tailnet.run(&["close"]).status.code(), Some(0));
    assert!(!tailnet.is_public());
    assert_eq!(tailnet.calls().iter().filter(|call| call.starts_with("serve --yes")).count(), 3);
    assert!(!tailnet.calls().iter().any(|call| call.contains("set-raw")));
    let record = tailnet.record();
    assert_eq!(tailnet.run(&["close"]).status.code(), Some(0));
    assert_eq!(tailnet.record(), record, "it is closed since then, not since the second time");
}

#[test]
fn a_funnel_removed_by_hand_is_opened_again() {
    let (tailnet, _proxy, gate) = open();
    let mut command = Command::new(tailnet.host.path("bin/tailscale"));
    let mut removing = command.args(["serve", "set-raw"]).stdin(Stdio::piped()).spawn().unwrap();
    removing.stdin.take().unwrap().write_all(b"{}").unwrap();
    assert!(removing.wait().unwrap().success());
    closed(&gate);
    tailnet.until_public(true);
}

#[test]
fn a_restart_of_tailscaled_closes_and_opens() {
    let (tailnet, _proxy, gate) = open();
    tailnet.set(json!({"generation": 2}));
    tailnet.until_public(false);
    closed(&gate);
    tailnet.until_public(true);
}

#[test]
fn the_gate_may_start_before_everything_else() {
    let tailnet = Tailnet::new();
    tailnet.set(json!({"down": true}));
    let gate = tailnet.gate();
    gate.line_where("tailscaled", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.starts_with("tailscaled is not running"))
    });
    assert_eq!(tailnet.recorded("unknown")["details"]["state"], "unknown");
    let status = tailnet.run(&["status", "--json"]);
    assert_eq!(status.status.code(), Some(1), "what is not known is no success");
    let _proxy = tailnet.proxy();
    tailnet.set(json!({"down": false}));
    tailnet.until_public(true);
    gate.line("funnel_open");
}

#[test]
fn a_jump_of_the_clock_changes_nothing() {
    let tailnet = Tailnet::new();
    let library = tailnet.host.path("clock_jump.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock_jump.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(built.is_ok_and(|status| status.success()), "cc is needed, as for Rust itself");
    let mut proxy = tailnet.proxy();
    let mut command = tailnet.gate_command(&[]);
    let jump = tailnet.host.path("jump");
    std::fs::write(&jump, "0").unwrap();
    let gate = Service::start({
        command.env("LD_PRELOAD", &library).env("CLOCK_JUMP", &jump);
        command
    });
    gate.line("funnel_open");
    for seconds in ["86400000", "-86400000", "3600"] {
        std::fs::write(&jump, seconds).unwrap();
        let steady = Instant::now();
        while steady.elapsed() < Duration::from_secs(1) {
            assert!(tailnet.is_public(), "it closed because the clock jumped by {seconds} s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    std::fs::write(&jump, "-86400000").unwrap();
    proxy.signal("KILL");
    assert!(tailnet.until_public(false) <= KILLED);
    proxy.wait();
    let year = closed(&gate)["time"].as_str().unwrap()[..4].to_owned();
    assert_ne!(year, gate.line("funnel_open")["time"].as_str().unwrap()[..4], "the clock did jump for the gate");
    let _proxy = tailnet.proxy();
    tailnet.until_public(true);
}

#[test]
fn a_tool_or_a_daemon_that_hangs_delays_nothing() {
    let tailnet = Tailnet::new();
    tailnet.set(json!({"prompt": "wait"}));
    let proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line_where("the prompt", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("did not open within 10 s"))
    });
    tailnet.set(json!({"prompt": null}));
    gate.line("funnel_open");
    // The daemon hangs just when the proxy dies: the funnel's process is killed all the same.
    tailnet.set(json!({"hangs": true}));
    drop(proxy);
    assert!(tailnet.until_public(false) <= KILLED);
    tailnet.set(json!({"hangs": false}));
    closed(&gate);
}
