//! The gate under attack, in random events, and at rest. Prints what it costs.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test fails by a panic")]

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::tailnet::{HUNG, KILLED, Tailnet, closed, open};
use serde_json::json;

#[test]
fn clients_that_fill_the_public_listener_do_not_close_the_gate() {
    let (tailnet, _proxy, gate) = open();
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
        assert!(tailnet.is_public(), "after {opened} connections: {}", closed(&gate));
    }
    println!("{opened} hostile connections in 5 s");
    assert!(opened > 300, "the attack must be one: {opened}");
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
    // A look each 15 s: at the port and, while it is public, at the node.
    assert!(calls <= 8, "{:?}", tailnet.calls());
    // The figures are those of the optimised build.
    if !cfg!(debug_assertions) {
        assert!(memory(pid, "VmRSS") <= 4096 && share <= 0.2);
    }
}
