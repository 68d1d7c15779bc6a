//! The gate with real processes: a real proxy, a stand-in `tailscale`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

mod support;
#[path = "support/tailnet.rs"]
mod tailnet;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Service, eventually};
use tailnet::{PORT, SECRET, Tailnet};

const KILLED: Duration = Duration::from_secs(1);
const HUNG: Duration = Duration::from_secs(2);

fn open() -> (Tailnet, Service, Service) {
    let tailnet = Tailnet::new();
    let proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line("funnel_open");
    assert!(tailnet.is_public());
    (tailnet, proxy, gate)
}

/// The line of the closing that followed the first opening.
fn closed(gate: &Service) -> Value {
    let after = |lines: Vec<Value>| {
        let opened = lines.iter().position(|line| line["msg"] == "funnel_open")?;
        lines[opened..].iter().find(|line| line["msg"] == "funnel_closed").cloned()
    };
    eventually("it closes", || after(gate.lines()).is_some());
    after(gate.lines()).unwrap()
}

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
    // The node had another name, and somebody holds a session in a terminal.
    tailnet.set(json!({"name": "old.test.ts.net"}));
    assert!(tailnet.tailscale(&["serve", "--bg", "--https=443", "3000"]).status.success());
    let others = std::fs::read(tailnet.dir().join("serve.json")).unwrap();
    assert!(tailnet.tailscale(&["funnel", "--bg", "--https=8443", "8085"]).status.success());
    tailnet.set(json!({"name": "foo.test.ts.net", "clashes": 0}));
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
fn clients_that_fill_the_public_listener_do_not_close_the_gate() {
    let (tailnet, _proxy, _gate) = open();
    let begin = Instant::now();
    let mut held = Vec::new();
    let mut opened = 0;
    while begin.elapsed() < Duration::from_secs(5) {
        // Slow heads and slow bodies, more than the proxy holds at once; the oldest are given up.
        if let Ok(mut stream) = std::net::TcpStream::connect_timeout(&tailnet.public, Duration::from_millis(200)) {
            let slow = if opened % 2 == 0 { "POST /api/webhook/gitops HTTP/1.1\r\nHost: x\r\n" } else { "G" };
            let _ = stream.write_all(slow.as_bytes());
            held.push(stream);
            opened += 1;
        }
        if held.len() > 600 {
            held.drain(..300);
        }
        assert!(tailnet.is_public(), "closed after {opened} connections");
    }
    println!("{opened} hostile connections in 5 s");
    assert!(opened > 300, "the attack must be one: {opened}");
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
        assert!(String::from_utf8(output.stdout).unwrap().contains("never published"));
    }
    tailnet.host.configure("[gate]\nport = 9443\n");
    let output = tailnet.run(&["--check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stdout).unwrap().contains("443, 8443 or 10000"));
}

/// xorshift64 (Marsaglia 2003).
fn random(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % limit
}

/// The pure state machine has a thousand such stories; these are two with real processes.
#[test]
fn random_events_never_leave_the_door_open() {
    for mut seed in [0x5DEE_CE66, 0xB504_F333] {
        let tailnet = Tailnet::new();
        let (mut proxy, mut gate) = (Some(tailnet.proxy()), tailnet.gate());
        let (mut limit, mut generation, mut opened) = (None::<Instant>, 0, 0);
        for _ in 0..14 {
            let end = Instant::now() + Duration::from_millis(200 + random(&mut seed, 3500));
            let mut was_public = false;
            while Instant::now() < end {
                let now = Instant::now();
                let public = tailnet.is_public();
                assert!(
                    !public || limit.is_none_or(|limit| now <= limit),
                    "public {:?} too long",
                    limit.map(|at| now - at)
                );
                was_public |= public;
                std::thread::sleep(Duration::from_millis(1));
            }
            opened += usize::from(was_public);
            let earlier =
                |wait: Duration| limit.map_or(Instant::now() + wait, |limit| limit.min(Instant::now() + wait));
            match (random(&mut seed, 6), &mut proxy) {
                (0, Some(running)) => {
                    running.signal("KILL");
                    running.wait();
                    limit = Some(earlier(KILLED));
                    proxy = None;
                }
                (1, Some(running)) => {
                    running.signal("STOP");
                    limit = Some(earlier(HUNG));
                }
                (2, Some(running)) => {
                    running.signal("CONT");
                    limit = None;
                }
                (3, _) => {
                    generation += 1;
                    tailnet.set(json!({"generation": generation}));
                }
                (4, _) => {
                    gate.signal("KILL");
                    gate.wait();
                    gate = tailnet.gate();
                }
                (_, None) => {
                    proxy = Some(tailnet.proxy());
                    limit = None;
                }
                _ => {}
            }
        }
        println!("public in {opened} of 14 intervals");
        assert!(opened >= 3, "the story must be about an open door");
    }
}

/// A field of `/proc/<pid>/status` in kB.
fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How long all threads of a process were on a processor (sched-stats.rst: nanoseconds, first field).
fn on_processor(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanoseconds = threads.map(|thread| {
        let line = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

#[test]
fn at_rest_it_costs_next_to_nothing() {
    let (tailnet, _proxy, gate) = open();
    let (pid, before) = (gate.child.id(), (on_processor(gate.child.id()), tailnet.calls().len()));
    const REST: Duration = Duration::from_secs(46);
    let begin = Instant::now();
    while begin.elapsed() < REST {
        assert!(tailnet.is_public());
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = on_processor(pid) - before.0;
    let calls = tailnet.calls().len() - before.1;
    let share = used.as_secs_f64() / REST.as_secs_f64() * 100.0;
    println!(
        "FIGURE gate at rest: {} kB resident (peak {}), {share:.3} % of a core, {:.1} processes a minute",
        memory(pid, "VmRSS"),
        memory(pid, "VmHWM"),
        calls as f64 * 60.0 / REST.as_secs_f64(),
    );
    assert!(calls <= 4, "{:?}", tailnet.calls());
    // The figures are those of the optimised build.
    if !cfg!(debug_assertions) {
        assert!(memory(pid, "VmRSS") <= 4096 && share <= 0.2);
    }
}
