//! Signed deliveries accepted per second, beside Debian's `webhook` (adnanh/webhook) doing the same check.
//!
//! The proxy closes every connection after its answer, so each of its deliveries pays for a new one. The peer keeps
//! connections open; it is measured both ways and compared with the better one. Its answer says nothing about what
//! becomes of the delivery (it starts the command afterwards), the proxy's comes when the queue file is on disk. So the
//! peer is measured with a command that does nothing, and with one that writes and fsyncs a file before the answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod figures;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use figures::{figure, ms, quantile, setting};
use support::http_attack::{Crowd, slow_ways, slowly};
use support::{Host, PATIENCE, free_address, signature};

const SECRET: &str = "0123456789abcdef-secret";
const BODY: usize = 8 * 1024;
const CONNECTIONS: usize = 16;

/// A server under load, ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    path: &'static str,
    /// The status of an accepted delivery.
    accepts: u16,
}

impl Server {
    fn start(
        mut command: Command,
        log: &std::path::Path,
        address: SocketAddr,
        path: &'static str,
        accepts: u16,
    ) -> Self {
        let log = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let server = Self { child: command.spawn().unwrap(), address, path, accepts };
        support::eventually("the server listens", || TcpStream::connect(address).is_ok());
        server
    }

    fn proxy(host: &Host) -> Self {
        let address = free_address();
        host.configure(&format!(
            "[proxy]\nlisten = \"{address}\"\nadmin_listen = \"127.0.0.1:0\"\n\
             [[repository]]\nname = \"acme/infra\"\nurl = \"{}\"\npath = \"{}\"\n",
            host.path("infra.git").display(),
            host.path("infra").display()
        ));
        host.credential("webhook-secret", SECRET);
        Self::start(host.command("proxy"), &host.path("proxy.log"), address, "/api/webhook/gitops", 202)
    }

    /// The peer with the same three conditions: signature, branch, repository.
    fn webhook(host: &Host, name: &str, durable: bool) -> Self {
        let condition = |kind: serde_json::Value| serde_json::json!({ "match": kind });
        let payload = |name: &str, value: &str| {
            condition(
                serde_json::json!({"type": "value", "value": value, "parameter": {"source": "payload", "name": name}}),
            )
        };
        let signed = condition(serde_json::json!({
            "type": "payload-hmac-sha256", "secret": SECRET,
            "parameter": {"source": "header", "name": "X-Hub-Signature-256"}
        }));
        let queue = host.path(&format!("{name}.queue"));
        let words = [
            "if=/etc/hostname".to_owned(),
            format!("of={}", queue.display()),
            "conv=fsync".to_owned(),
            "status=none".to_owned(),
        ];
        let words: Vec<_> = words.iter().map(|word| serde_json::json!({"source": "string", "name": word})).collect();
        let mut hook = serde_json::json!({
            "id": "gitops",
            "execute-command": if durable { "/usr/bin/dd" } else { "/usr/bin/true" },
            // With it, the answer waits for the command.
            "include-command-output-in-response": durable,
            "trigger-rule": {"and": [signed, payload("ref", "refs/heads/main"), payload("repository.full_name", "acme/infra")]},
            "trigger-rule-mismatch-http-response-code": 401,
        });
        if durable {
            hook["pass-arguments-to-command"] = words.into();
        }
        let hooks = host.path(&format!("{name}.json"));
        std::fs::write(&hooks, serde_json::json!([hook]).to_string()).unwrap();
        let address = free_address();
        let mut command = Command::new("webhook");
        command.arg("-hooks").arg(&hooks).args(["-ip", "127.0.0.1", "-port", &address.port().to_string()]);
        command.current_dir(host.path(""));
        Self::start(command, &host.path(&format!("{name}.log")), address, "/hooks/gitops", 200)
    }

    /// Kilobytes of a line of /proc/PID/status.
    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        found.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn request(&self, body: &[u8], sign: &str, delivery: usize, keep: bool) -> Vec<u8> {
        let (path, address) = (self.path, self.address);
        let connection = if keep { "keep-alive" } else { "close" };
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             X-GitHub-Event: push\r\nX-GitHub-Delivery: bench-{delivery}\r\nX-Hub-Signature-256: {sign}\r\n\
             Connection: {connection}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// Sends deliveries over 16 connections for a while; returns how long each one took.
    fn load(&self, body: &[u8], sign: &str, time: Duration, keep: bool) -> (Vec<Duration>, Duration) {
        static DELIVERY: AtomicUsize = AtomicUsize::new(0);
        let started = Instant::now();
        let times = std::thread::scope(|scope| {
            let worker = || {
                let mut times = Vec::new();
                let mut kept = None;
                while started.elapsed() < time {
                    let request = self.request(body, sign, DELIVERY.fetch_add(1, Ordering::Relaxed), keep);
                    let began = Instant::now();
                    let mut stream = kept.take().unwrap_or_else(|| connect(self.address));
                    stream.get_mut().write_all(&request).unwrap();
                    let status = read_answer(&mut stream);
                    times.push(began.elapsed());
                    assert_eq!(status, self.accepts, "{} did not accept a delivery", self.path);
                    kept = keep.then_some(stream);
                }
                times
            };
            let workers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        (times, started.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

/// Reads one answer to its end and returns its status.
fn read_answer(stream: &mut BufReader<TcpStream>) -> u16 {
    let (mut status, mut length, mut line) = (None, 0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line).unwrap();
        let text = line.trim_end();
        if status.is_none() {
            status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
            assert!(status.is_some(), "no status in {text:?}");
        } else if text.is_empty() {
            break;
        } else if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).unwrap();
    status.unwrap()
}

/// GitHub's push, padded to its size.
fn body() -> Vec<u8> {
    let mut push = serde_json::json!({
        "ref": "refs/heads/main", "deleted": false, "repository": {"full_name": "acme/infra"}, "padding": "",
    });
    push["padding"] = "x".repeat(BODY - push.to_string().len()).into();
    push.to_string().into_bytes()
}

/// One way of loading one server, over all rounds.
struct Measured<'a> {
    name: &'static str,
    server: &'a Server,
    keep: bool,
    rates: Vec<f64>,
    times: Vec<Duration>,
}

impl Measured<'_> {
    fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

/// Sends signed deliveries that take two seconds each, twelve at once, and prints which share of them is accepted.
fn slow_ones(proxy: &Server, body: &[u8], sign: &str, load: &str) {
    let whole = proxy.request(body, sign, 0, false);
    let ways = slow_ways(&whole, whole.len() - body.len());
    let accepted = std::thread::scope(|scope| {
        let send = |pieces: &[&[u8]]| slowly(proxy.address, pieces, Duration::from_secs(2));
        let threads: Vec<_> =
            (0..12).zip(ways.iter().cycle()).map(|(_, (_, pieces))| scope.spawn(move || send(pieces))).collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.filter(|answer| answer.as_ref().is_ok_and(|answer| answer.status == proxy.accepts)).count()
    });
    let share = format!("{accepted} of 12");
    figure(&format!("slow deliveries accepted, {load}"), share, "all", accepted == 12);
}

fn main() {
    let (rounds, seconds) = (setting("HUB_BENCH_ROUNDS", 5).max(1), setting("HUB_BENCH_SECONDS", 2).max(1));
    println!(
        "deliveries: signed, {BODY} bytes, {CONNECTIONS} connections, {rounds} rounds of {seconds} s in turns, median round"
    );
    figures::machine();
    let host = Host::new();
    let body = body();
    let sign = signature(SECRET, &body);

    let proxy = Server::proxy(&host);
    let idle = proxy.memory("VmRSS");
    figure("proxy at rest, resident", format!("{:.1} MB", idle as f64 / 1024.0), "<= 5 MB", idle <= 5 * 1024);
    let peers =
        Command::new("webhook").arg("-version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    let servers: Vec<Server> = if peers {
        vec![Server::webhook(&host, "true", false), Server::webhook(&host, "fsync", true)]
    } else {
        Vec::new()
    };
    let measured = |name, server, keep| Measured { name, server, keep, rates: Vec::new(), times: Vec::new() };
    let mut all = vec![measured("proxy: new connections, fsynced queue", &proxy, false)];
    if let [quick, durable] = servers.as_slice() {
        println!("  {:<58} {:>9.1} MB", "webhook at rest, resident", quick.memory("VmRSS") as f64 / 1024.0);
        all.push(measured("webhook: kept connections, /usr/bin/true", quick, true));
        all.push(measured("webhook: new connections, /usr/bin/true", quick, false));
        all.push(measured("webhook: kept connections, dd conv=fsync awaited", durable, true));
        all.push(measured("webhook: new connections, dd conv=fsync awaited", durable, false));
    } else {
        println!("  (install Debian's package webhook to compare with it)");
    }
    for round in 0..=rounds {
        for one in &mut all {
            let (times, took) = one.server.load(&body, &sign, Duration::from_secs(seconds as u64), one.keep);
            // The first round warms everything up.
            if round > 0 {
                one.rates.push(times.len() as f64 / took.as_secs_f64());
                one.times.extend(times);
            }
        }
    }
    for one in &all {
        let (p50, p99) = (quantile(&one.times, 0.5), quantile(&one.times, 0.99));
        let peak = one.server.memory("VmHWM") as f64 / 1024.0;
        println!(
            "  {:<50} {:>6.0}/s  p50 {:>6.2} ms  p99 {:>6.2} ms  peak {peak:>5.1} MB",
            one.name,
            one.rate(),
            ms(p50),
            ms(p99)
        );
    }
    let p99 = ms(quantile(&all[0].times, 0.99));
    figure("proxy, 99th percentile", format!("{p99:.2} ms"), "< 20 ms", p99 < 20.0);
    if let [ours, quick @ .., durable_kept, durable_new] = all.as_slice()
        && !quick.is_empty()
    {
        let best = |peers: &[&Measured]| peers.iter().map(|peer| peer.rate()).fold(0.0, f64::max);
        let quick = ours.rate() / best(&quick.iter().collect::<Vec<_>>());
        figure("rate to webhook's better one, which queues nothing", format!("{quick:.2}"), ">= 1", quick >= 1.0);
        let durable = ours.rate() / best(&[durable_kept, durable_new]);
        println!("  {:<58} {durable:>12.2}", "rate to webhook's better one that is as durable");
    }
    support::http_attack::raise_descriptor_limit();
    slow_ones(&proxy, &body, &sign, "at rest");
    let full = Duration::from_secs(3);
    for rate in [100, 1_000] {
        let _crowd = Crowd::steady(proxy.address, rate, b"P");
        // Until all places are taken.
        std::thread::sleep(full);
        slow_ones(&proxy, &body, &sign, &format!("{rate}/s send one byte"));
    }
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Hub-Signature-256: sha256={}\r\n\
         Content-Length: {}\r\n\r\n",
        proxy.path,
        "0".repeat(64),
        3 << 20
    );
    let _crowd = Crowd::unfinished(proxy.address, 12, head, 2_900 << 10);
    std::thread::sleep(full);
    slow_ones(&proxy, &body, &sign, "12 hold 2.9 of 3 MiB");
}
