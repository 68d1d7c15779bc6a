//! The HTTP engine under attack: whatever hostile clients hold or send, a good request is answered within
//! two seconds, and the process lives and stays small. The server is a process of its own: this test binary,
//! started again.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test and its helpers: failing is their way to report"
)]

#[allow(dead_code, reason = "the benchmarks use the rest")]
#[path = "support/http_attack.rs"]
mod http_attack;
#[path = "support/listener_site.rs"]
mod listener_site;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_attack::{ABSURD_LENGTHS, Answer, Crowd, burst, exchange, flood, hold, pipeline, request, wait_until};
use rustix::process::Resource;

/// The contract: 40 MB resident at most, and an answer within two seconds.
const MOST_KIB: u64 = 40_000;
const IN_TIME: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(15);

/// One attack at a time: they would measure one another.
static ALONE: Mutex<()> = Mutex::new(());

struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: SocketAddr,
    _alone: MutexGuard<'static, ()>,
}

impl Server {
    /// `settings` go to [`listener_site::serve`].
    fn start(settings: &str) -> Server {
        Server::start_as(settings, None)
    }

    fn start_as(settings: &str, user: Option<u32>) -> Server {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        http_attack::raise_descriptor_limit();
        let mut command = Command::new(std::env::current_exe().unwrap());
        if let Some(user) = user {
            command.uid(user);
        }
        let mut child = command
            .args(["--exact", "server_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(listener_site::SETTINGS, settings)
            // The backtrace of a panic in a debug build reads 40 MB of symbols.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let address = said(&mut lines, "LISTENING ").parse().unwrap();
        Server { child, lines, address, _alone: alone }
    }

    fn status(&self, key: &str) -> u64 {
        http_attack::process_status(self.child.id(), key).expect("the server lives")
    }

    fn get(&self, path: &str) -> Answer {
        exchange(self.address, &request("GET", path, "", b""), LONG).unwrap()
    }

    fn counter(&self, name: &str) -> u64 {
        let page = self.get("/counters");
        let line = page.body().lines().find_map(|line| line.strip_prefix(name)).expect("a counter");
        line.trim().parse().unwrap()
    }

    /// An honest delivery: answered in time and whole.
    fn serves(&self) {
        let start = Instant::now();
        let answer = exchange(self.address, &request("POST", "/echo", "", b"an honest body"), IN_TIME)
            .unwrap_or_else(|error| panic!("no answer after {:?}: {error}", start.elapsed()));
        assert_eq!((answer.status, answer.body()), (200, "an honest body"));
    }

    fn stays_small(&self) {
        let peak = self.status("VmHWM");
        println!("peak {peak} KiB, now {} KiB, {} threads", self.status("VmRSS"), self.status("Threads"));
        assert!(peak < MOST_KIB, "{peak} KiB resident");
    }

    /// Ends the server the graceful way. Returns how many requests it says it cut.
    fn stop(&mut self) -> usize {
        drop(self.child.stdin.take());
        let cut = said(&mut self.lines, "CUT ").parse().unwrap();
        assert!(self.child.wait().unwrap().success());
        cut
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands after `key` on a line of the server's output; the test harness prints lines of its own.
fn said(lines: &mut impl BufRead, key: &str) -> String {
    let mut lines = lines.lines();
    lines.find_map(|line| line.unwrap().split_once(key).map(|(_, rest)| rest.to_owned())).expect("the server speaks")
}

#[test]
#[ignore = "the server process that the other tests start"]
fn server_process() {
    if let Ok(settings) = std::env::var(listener_site::SETTINGS) {
        listener_site::serve(&settings);
    }
}

#[test]
fn answers_plain_requests() {
    let mut server = Server::start("");
    assert!(server.status("VmRSS") < 6_000, "{} KiB at rest", server.status("VmRSS"));
    server.serves();
    let page = server.get("/");
    assert_eq!((page.status, page.body()), (200, "welcome"));
    assert!(page.text.contains("Connection: close\r\n") && page.text.contains("X-Content-Type-Options: nosniff\r\n"));
    assert!(!page.text.to_ascii_lowercase().contains("\nserver:"));
    let head = exchange(server.address, &request("HEAD", "/", "", b""), LONG).unwrap();
    assert_eq!(head.body(), "");
    assert!(head.text.contains("Content-Length: 7\r\n"));
    assert_eq!(server.get("/nowhere").status, 404);
    assert_eq!(server.get("/panic").status, 500);
    assert_eq!(server.get("/panic-in-admission").status, 500);
    let split = server.get("/split");
    assert_eq!(split.status, 500);
    assert!(!split.text.contains("Evil"));
    let chunked = request("POST", "/echo", "Transfer-Encoding: chunked\r\n", b"");
    assert_eq!(exchange(server.address, &chunked, LONG).unwrap().status, 411);
    let unwanted = request("GET", "/", "Transfer-Encoding: chunked\r\n", b"");
    assert_eq!(exchange(server.address, &unwanted, LONG).unwrap().status, 411);
    let large = vec![b'x'; 25 << 20];
    let answer = exchange(server.address, &request("POST", "/large", "", &large), LONG).unwrap();
    assert_eq!((answer.status, answer.body()), (200, "26214400"));
    assert!(server.counter("answered_5xx") >= 3);
    server.stays_small();
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_rejected_body_is_not_waited_for() {
    let server = Server::start("");
    for (length, status) in ABSURD_LENGTHS {
        for path in ["/echo", "/large"] {
            let bytes = request("POST", path, &format!("Content-Length: {length}\r\n"), b"");
            let bytes = [&bytes[..], b"abc"].concat();
            assert_eq!(exchange(server.address, &bytes, IN_TIME).unwrap().status, status, "{length}");
        }
        let bytes = request("GET", "/", &format!("Content-Length: {length}\r\n"), b"");
        let status = exchange(server.address, &bytes, IN_TIME).unwrap().status;
        assert!(matches!(status, 200 | 413), "{length}: {status}");
    }
    let threads_back = || server.status("Threads") <= 3;
    let _held = hold(server.address, 300, b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 26214401\r\n\r\n");
    server.serves();
    server.stays_small();
    assert!(wait_until(LONG, threads_back));
    // The client is still sending when it is refused; it gets the answer all the same.
    let eager = request("POST", "/echo", "", &vec![b'x'; (3 << 20) + 1]);
    let eager = &eager[..200_000];
    assert_eq!(exchange(server.address, &eager[..60_000], IN_TIME).unwrap().status, 413);
}

#[test]
fn loose_framing_is_refused_on_every_route() {
    let server = Server::start("");
    for path in ["/echo", "/", "/nowhere"] {
        for (bytes, status) in http_attack::loose_framing(path) {
            let answer = exchange(server.address, bytes.as_bytes(), IN_TIME).unwrap();
            assert_eq!(
                (answer.status, answer.text.matches("Connection: close").count()),
                (status, 1),
                "{bytes:?}: {answer:?}"
            );
        }
    }
    server.serves();
}

#[test]
fn only_an_admitted_body_is_asked_for() {
    let server = Server::start("");
    let asks = |path: &str, length: usize| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(IN_TIME)).unwrap();
        let fields = format!("Expect: 100-continue\r\nContent-Length: {length}\r\n");
        stream.write_all(&request("POST", path, &fields, b"")).unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        (line, stream)
    };
    let (line, mut stream) = asks("/echo", 5);
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    stream.write_all(b"hello").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n\r\nhello"), "{rest:?}");
    assert!(asks("/nowhere", 5).0.starts_with("HTTP/1.1 404 "));
    assert!(asks("/echo", 1 << 30).0.starts_with("HTTP/1.1 413 "));
}

#[test]
fn thousands_of_slow_connections_are_held_off() {
    let server = Server::start("");
    for bytes in [&b""[..], b"GET / HT", b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf a body"]
    {
        let held = hold(server.address, 1_600, bytes);
        server.serves();
        assert!(server.status("Threads") <= 192 + 64 + 2, "{} threads", server.status("Threads"));
        server.serves();
        drop(held);
    }
    assert!(server.counter("evicted") > 3 * 1_300);
    server.stays_small();
    let crowd = Crowd::connect(server.address, 4, 300, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    assert!(wait_until(LONG, || server.counter("accepted") > 8_000));
    for _ in 0..50 {
        server.serves();
    }
    drop(crowd);
    server.stays_small();
    assert!(wait_until(LONG, || server.status("Threads") <= 3), "{} threads left", server.status("Threads"));
}

#[test]
fn deadlines_hold_against_a_drip() {
    let server = Server::start("");
    let start = Instant::now();
    let half_heads = hold(server.address, 20, b"GET / HT");
    let half_bodies = hold(server.address, 20, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\nx");
    let mut drip = hold(server.address, 1, b"GET / HTTP/1.1\r\nX: ").remove(0);
    let cut = wait_until(LONG, || drip.write_all(b"x").is_err());
    assert!(cut && start.elapsed() > Duration::from_secs(4), "cut: {cut} after {:?}", start.elapsed());
    server.serves();
    for stream in half_heads {
        assert_eq!(http_attack::finish(stream, start + LONG).unwrap().status, 408);
    }
    for stream in half_bodies {
        assert_eq!(http_attack::finish(stream, start + LONG).unwrap().status, 408);
    }
    assert_eq!(server.counter("timed_out"), 41);
}

#[test]
fn one_byte_a_second_is_cut_at_five_and_at_ten_seconds() {
    let server = Server::start("");
    let head = (b"GET / HTTP/1.1\r\nX: ".as_slice(), 5);
    let body = (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n".as_slice(), 10);
    std::thread::scope(|scope| {
        for (start, seconds) in [head, body] {
            let address = server.address;
            scope.spawn(move || {
                let begin = Instant::now();
                let mut stream = hold(address, 1, start).remove(0);
                stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                // Each look for an answer takes a second, unless there is one.
                while stream.peek(&mut [0]).is_err() && begin.elapsed() < 2 * LONG {
                    let _ = stream.write_all(b"x");
                }
                let took = begin.elapsed().as_secs_f64();
                assert_eq!(http_attack::finish(stream, begin + 3 * LONG).unwrap().status, 408);
                let most = f64::from(seconds) + 3.0;
                assert!(took > f64::from(seconds) - 0.5 && took < most, "cut after {took} s, not {seconds}");
            });
        }
    });
    server.serves();
}

#[test]
fn a_thousand_uploads_stay_small() {
    let server = Server::start("");
    let upload = request("POST", "/large", "", &vec![b'x'; 3 << 20]);
    let (upload, address) = (&upload, server.address);
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || (0..125).filter(|_| exchange(address, upload, LONG).is_ok()).count()))
            .collect();
        while crowd.iter().any(|thread| !thread.is_finished()) {
            server.serves();
        }
        let answered: usize = crowd.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(answered > 500, "{answered} of 1000 were answered");
    });
    server.stays_small();
}

#[test]
fn half_open_connections_end_at_once() {
    let server = Server::start("");
    let heads = hold(server.address, 50, b"GET / HT");
    let bodies = hold(server.address, 50, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\nx");
    let silent = hold(server.address, 50, b"");
    for streams in [&heads, &bodies, &silent] {
        http_attack::half_close(streams);
    }
    let deadline = Instant::now() + IN_TIME;
    for stream in heads.into_iter().chain(bodies) {
        assert_eq!(http_attack::finish(stream, deadline).unwrap().status, 400);
    }
    server.serves();
    assert_eq!(server.counter("timed_out"), 0);
}

#[test]
fn bodies_in_flight_stay_within_their_memory() {
    let server = Server::start("");
    // The first request of this size teaches a careless allocator to keep such blocks.
    exchange(server.address, &request("POST", "/large", "", &vec![b'x'; 25 << 20]), LONG).unwrap();
    let crowd = Crowd::bodies(server.address, 16, "/large", 25 << 20);
    assert!(wait_until(LONG, || server.counter("evicted") > 50));
    for _ in 0..20 {
        server.serves();
    }
    drop(crowd);
    // The most connections, each with the largest head and its share of the body memory.
    let head = format!("X: {}\r\n", "x".repeat(250)).repeat(60);
    let whole = request("POST", "/large", &format!("{head}Content-Length: 900000\r\n"), b"");
    let _held = hold(server.address, 190, &[whole, vec![b'x'; 137_000]].concat());
    server.serves();
    println!("heads: {} KiB, {} threads", server.status("VmRSS"), server.status("Threads"));
    let crowd = Crowd::bodies(server.address, 200, "/large", 300_000);
    assert!(wait_until(LONG, || server.counter("evicted") > 500));
    for _ in 0..20 {
        server.serves();
    }
    server.stays_small();
    drop(crowd);
    assert!(wait_until(LONG, || server.status("Threads") <= 3));
    println!("after all: {} KiB", server.status("VmRSS"));
}

#[test]
fn pipelined_requests_are_not_parsed() {
    let server = Server::start("");
    assert_eq!(pipeline(server.address, 5_000, &request("GET", "/", "", b"")), 1);
    assert_eq!(pipeline(server.address, 5_000, &request("POST", "/echo", "", b"hello")), 1);
    server.serves();
    assert_eq!(server.counter("accepted"), 4);
    server.stays_small();
}

#[test]
fn floods_of_header_bytes_are_refused() {
    let server = Server::start("");
    let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    assert!(matches!(flood(server.address, start, "x", 64 << 20), Some(431) | None));
    let fields = "A: b\r\n".repeat(10_000);
    assert!(matches!(flood(server.address, "GET / HTTP/1.1\r\nHost: a\r\n", &fields, 60_000), Some(431) | None));
    let line = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'x'; 40_000]].concat();
    assert_eq!(exchange(server.address, &line, IN_TIME).unwrap().status, 431);
    let many = request("GET", "/", &"A: b\r\n".repeat(65), b"");
    assert_eq!(exchange(server.address, &many, IN_TIME).unwrap().status, 431);
    server.serves();
    server.stays_small();
}

#[test]
fn running_out_of_descriptors_passes() {
    let server = Server::start("");
    server.serves();
    http_attack::limit(server.child.id(), Resource::Nofile, 64);
    let held = hold(server.address, 400, b"GET / HT");
    // From then on the engine leaves descriptors to the handlers.
    assert!(wait_until(LONG, || server.counter("evicted") > 0));
    server.serves();
    let crowd = Crowd::connect(server.address, 2, 200, b"GET / HT");
    for _ in 0..20 {
        server.serves();
    }
    let before = cpu_ticks(server.child.id());
    drop(crowd);
    server.serves();
    assert!(cpu_ticks(server.child.id()) - before < 100, "the loop is busy");
    drop(held);
    server.stays_small();
}

/// User and system time of a process, in hundredths of a second (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn few_descriptors_are_shared_with_the_handlers() {
    let server = Server::start("descriptors=64");
    let crowd = Crowd::connect(server.address, 2, 200, b"GET / HT");
    for _ in 0..15 {
        server.serves();
    }
    drop(crowd);
}

#[test]
fn running_out_of_threads_passes() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give the server a user, and so a number of threads, of its own");
        return;
    }
    let server = Server::start_as("threads=40", Some(54_321));
    server.serves();
    let held = hold(server.address, 400, b"GET / HT");
    server.serves();
    assert!(server.status("Threads") <= 40, "{} threads", server.status("Threads"));
    assert!(server.counter("refused") > 0);
    drop(held);
    server.serves();
}

#[test]
fn slow_readers_of_an_answer_are_cut() {
    let server = Server::start("");
    let mut held = hold(server.address, 150, &request("GET", "/big", "", b""));
    server.serves();
    assert!(wait_until(LONG, || server.counter("timed_out") == 150));
    server.serves();
    server.stays_small();
    let mut bytes = Vec::new();
    let _ = held.remove(0).read_to_end(&mut bytes);
    assert!(bytes.len() < 64 << 20, "cut short");
    // A reader who keeps up gets it all.
    assert_eq!(server.get("/big").body().len(), 64 << 20);
}

#[test]
fn complete_requests_are_never_evicted() {
    let server = Server::start("connections=8");
    let held = hold(server.address, 8, &request("GET", "/stream", "", b""));
    assert!(wait_until(LONG, || listener_site::entered(&held)));
    let refused = exchange(server.address, &request("GET", "/", "", b""), IN_TIME).unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.text.contains("Retry-After: "));
    server_release(&server);
    for stream in held {
        let answer = http_attack::finish(stream, Instant::now() + LONG).unwrap();
        assert_eq!(answer.body(), "first\nlast\n");
    }
    server.serves();
    assert_eq!((server.counter("refused"), server.counter("evicted")), (1, 0));
}

/// Lets the streams of `/stream` end. Through the standard input: it works when no connection does.
fn server_release(server: &Server) {
    let mut input = server.child.stdin.as_ref().unwrap();
    input.write_all(b"release\n").unwrap();
}

#[test]
fn a_stream_is_written_as_it_comes() {
    let server = Server::start("");
    let mut stream = hold(server.address, 1, &request("GET", "/stream", "", b"")).remove(0);
    stream.set_read_timeout(Some(IN_TIME)).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.ends_with("\r\n\r\nfirst\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(!text.contains("Content-Length"));
    server_release(&server);
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("first\nlast\n"));
}

#[test]
fn simultaneous_connections_are_all_answered() {
    let server = Server::start("");
    for count in [6, 20, 60] {
        for answer in burst(server.address, count, &request("POST", "/echo", "", b"hello"), IN_TIME) {
            assert_eq!(answer.unwrap().body(), "hello");
        }
    }
    server.stays_small();
}

#[test]
fn a_stop_lets_requests_end() {
    let mut server = Server::start("");
    let slow = hold(server.address, 5, &request("GET", "/stream", "", b""));
    assert!(wait_until(LONG, || listener_site::entered(&slow)));
    let _silent = hold(server.address, 3, b"");
    let _half = hold(server.address, 2, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    assert!(wait_until(LONG, || server.counter("open") == 11));
    let address = server.address;
    let closed = std::thread::spawn(move || wait_until(LONG, || TcpStream::connect(address).is_err()));
    // The streams are let go only when the listener is closed, so they end while the engine stops.
    assert_eq!(server.stop(), 2);
    assert!(closed.join().unwrap());
    for stream in slow {
        assert_eq!(http_attack::finish(stream, Instant::now() + LONG).unwrap().body(), "first\nlast\n");
    }
}
