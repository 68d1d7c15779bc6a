//! Hostile clients against the real binary: it lives, stays small, and answers a signed delivery within 2 s meanwhile.

use crate::support;
use crate::support::gateway;
use crate::support::http_attack;
use std::time::{Duration, Instant};

use crate::support::gateway::{Gateway, WEBHOOK, host};
use crate::support::http_attack::{
    ABSURD_LENGTHS, Crowd, exchange, flood, hold, limit, loose_framing, pipeline, process_status, slow_ways, slowly,
};

/// The contract's limits: an answer within 2 s, less than 40 MB resident at any moment.
const PROMPT: Duration = Duration::from_secs(2);
/// How long a slow but honest delivery takes.
const SLOW: Duration = Duration::from_secs(2);
/// Without the pages of the program's own file, of which a debug build has many, and more with each new line of code.
const MOST_MEMORY_KIB: u64 = 29 << 10;

const SLOW_HEAD: &[u8] = b"POST /api/webhook/gitops HTTP/1.1\r\nHost: x\r\nX-Slow";

/// A signed delivery is queued within the contract's time, and the memory never was above its limit.
/// Returns how long the delivery took.
fn stands(gateway: &Gateway, during: &str) -> Duration {
    let begin = Instant::now();
    let answer = gateway.push(during);
    let took = begin.elapsed();
    assert_eq!(answer.status, 202, "{during}: {answer:?}");
    assert!(took < PROMPT, "{during}: a delivery took {took:?}");
    let status = |name| process_status(gateway.service.child.id(), name).expect("the proxy lives");
    let peak = status("VmHWM") - status("RssFile");
    assert!(peak < MOST_MEMORY_KIB, "{during}: {peak} KiB resident");
    took
}

#[test]
fn absurd_lengths_and_loose_framing_are_refused() {
    let gateway = Gateway::new();
    for (length, status) in ABSURD_LENGTHS {
        let request = format!(
            "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\nabc"
        );
        assert_eq!(exchange(gateway.public, request.as_bytes(), PROMPT).unwrap().status, status, "{length}");
    }
    for path in [WEBHOOK, "/", "/nowhere"] {
        for (request, status) in loose_framing(path) {
            let answer = exchange(gateway.public, request.as_bytes(), PROMPT).unwrap();
            assert_eq!(
                (answer.status, answer.text.matches("Connection: close").count()),
                (status, 1),
                "{request:?}: {answer:?}"
            );
        }
    }
    stands(&gateway, "after-framing");
}

#[test]
fn silent_and_slow_clients_keep_nobody_out() {
    http_attack::raise_descriptor_limit();
    let gateway = Gateway::new();
    for bytes in [&b""[..], SLOW_HEAD] {
        let held = hold(gateway.public, 2000, bytes);
        let fastest = (0..8).map(|_| stands(&gateway, "held")).min().unwrap();
        assert!(fastest < Duration::from_millis(310), "the fastest of eight deliveries took {fastest:?}");
        drop(held);
    }
    let crowd = Crowd::connect(gateway.public, 4, 300, SLOW_HEAD);
    for _ in 0..5 {
        stands(&gateway, "storm");
    }
    drop(crowd);
    let evicted = gateway.get_admin("/api/status").json()["proxy"]["public"]["evicted"].as_u64().unwrap();
    assert!(evicted > 0, "the cap was never reached");
}

#[test]
fn bodies_that_never_end_keep_nobody_out() {
    let gateway = Gateway::on(host("max_body = \"25 MiB\""));
    // A signature in the right form makes the proxy read the body.
    let head = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Hub-Signature-256: sha256={}\r\n\
         Content-Length: {}\r\n\r\n",
        "0".repeat(64),
        24 << 20
    );
    let address = gateway.public;
    let crowd = Crowd::start(6, move |stop| {
        use std::io::Write;
        let Ok(mut stream) = std::net::TcpStream::connect(address) else { return };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
        let block = [b'x'; 64 << 10];
        let mut left = (24 << 20) - 1;
        while left > 0 && !stop.load(std::sync::atomic::Ordering::Relaxed) {
            match stream.write(&block[..left.min(block.len())]) {
                Ok(count) => left -= count,
                Err(_) => return,
            }
        }
    });
    for _ in 0..10 {
        stands(&gateway, "bodies");
    }
    drop(crowd);
    stands(&gateway, "after-bodies");
}

#[test]
fn pipelines_and_header_floods_get_one_answer() {
    let gateway = Gateway::new();
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(pipeline(gateway.public, 5000, request), 1);
    let start = "GET / HTTP/1.1\r\nHost: x\r\n";
    for chunk in ["X-A: b\r\n", "x"] {
        assert!(matches!(flood(gateway.public, start, chunk, 64 << 20), Some(431 | 400) | None), "{chunk}");
    }
    stands(&gateway, "after-floods");
}

#[test]
fn a_process_without_descriptors_goes_on() {
    let gateway = Gateway::new();
    limit(gateway.service.child.id(), rustix::process::Resource::Nofile, 128);
    let held = hold(gateway.public, 400, SLOW_HEAD);
    for _ in 0..3 {
        stands(&gateway, "no-descriptors");
    }
    drop(held);
    stands(&gateway, "descriptors-are-back");
    assert_eq!(gateway.get_admin("/api/status").status, 200);
}

#[test]
fn the_admin_listener_answers_while_the_public_one_is_under_attack() {
    http_attack::raise_descriptor_limit();
    let gateway = Gateway::new();
    let _held = hold(gateway.public, 1500, SLOW_HEAD);
    let _crowd = Crowd::connect(gateway.public, 2, 100, b"");
    let begin = Instant::now();
    assert_eq!(gateway.get_admin("/api/status").status, 200);
    assert_eq!(gateway.get("/healthz").status, 200);
    assert!(begin.elapsed() < 2 * PROMPT);
}

fn delivery_head(length: usize, signature: &str) -> String {
    format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\n\
         X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\nUser-Agent: GitHub-Hookshot/044aadd\r\n\
         X-Hub-Signature-256: {signature}\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// A signed push whose body is padded to `length` bytes, and the length of its head.
fn signed_push(length: usize) -> (Vec<u8>, usize) {
    let mut push = support::push_body("acme/infra", "main");
    push.resize(push.len().max(length), b' ');
    let mut bytes = delivery_head(push.len(), &support::signature(gateway::SECRET, &push)).into_bytes();
    let head = bytes.len();
    bytes.extend(push);
    (bytes, head)
}

/// Sends deliveries that take two seconds each, slow in all ways at once. Returns which of them were not taken.
fn lost(gateway: &Gateway, length: usize) -> Vec<String> {
    let (whole, head) = signed_push(length);
    let send = |(way, pieces): (&str, Vec<&[u8]>)| match slowly(gateway.public, &pieces, SLOW) {
        Ok(answer) if answer.status == 202 => None,
        other => Some(format!("{way}: {other:?}")),
    };
    std::thread::scope(|scope| {
        let threads = slow_ways(&whole, head).map(|way| scope.spawn(move || send(way)));
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Waits until connections cost one another's places.
fn is_crowded(gateway: &Gateway) {
    let evicted = || gateway.get_admin("/api/status").json()["proxy"]["public"]["evicted"].as_u64().unwrap();
    let before = evicted();
    support::eventually("the proxy has no place left", || evicted() > before + 10);
}

#[test]
fn a_slow_delivery_outlasts_a_flood_of_fast_empty_ones() {
    http_attack::raise_descriptor_limit();
    let gateway = Gateway::new();
    for bytes in [&b"P"[..], b"", SLOW_HEAD] {
        let crowd = Crowd::steady(gateway.public, 100, bytes);
        is_crowded(&gateway);
        for length in [600, 8 << 10, 60 << 10] {
            assert_eq!(lost(&gateway, length), Vec::<String>::new(), "{length} bytes, while {bytes:?} comes");
        }
        drop(crowd);
    }
}

#[test]
fn a_slow_delivery_outlasts_large_ones_that_stand_still() {
    let gateway = Gateway::new();
    let head = delivery_head(3 << 20, &format!("sha256={}", "0".repeat(64)));
    let _crowd = Crowd::unfinished(gateway.public, 12, head, 2_900 << 10);
    is_crowded(&gateway);
    for length in [600, 8 << 10, 60 << 10] {
        assert_eq!(lost(&gateway, length), Vec::<String>::new(), "{length} bytes");
    }
    // A large one that keeps coming outlasts them as well.
    let (whole, _) = signed_push(2 << 20);
    let pieces: Vec<&[u8]> = whole.chunks(whole.len() / 50).collect();
    for number in 0..3 {
        let answer = slowly(gateway.public, &pieces, SLOW).unwrap();
        assert_eq!(answer.status, 202, "large one {number}: {answer:?}");
    }
    stands(&gateway, "large bodies that stand still");
}
