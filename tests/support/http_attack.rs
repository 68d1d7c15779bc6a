//! Hostile HTTP clients, and an honest one to compare with. Each takes the address of any server.
//! Nothing here knows the server's routes: paths come from the test.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Everything after the status line: fields, blank line, body.
    pub text: String,
}

impl Answer {
    /// The body.
    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

/// Sends `bytes` and reads what comes back until the server closes, within `patience` altogether.
/// Errors of sending are passed over: a server may answer and close before it has read everything.
pub fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> io::Result<Answer> {
    let deadline = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_write_timeout(Some(patience))?;
    let _ = stream.write_all(bytes);
    finish(stream, deadline)
}

/// Sends pieces, the first at once, the last after `time`, the others evenly between, and reads the answer.
pub fn slowly(address: SocketAddr, pieces: &[&[u8]], time: Duration) -> io::Result<Answer> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, time)?;
    stream.set_nodelay(true)?;
    let pauses = u32::try_from(pieces.len()).unwrap() - 1;
    for (number, piece) in (0..).zip(pieces) {
        thread::sleep((begin + time * number / pauses).saturating_duration_since(Instant::now()));
        stream.write_all(piece)?;
    }
    finish(stream, Instant::now() + time)
}

/// The three ways in which a request of `head` and `body` can be slow: all of it evenly, its body evenly, a pause before it.
pub fn slow_ways<'a>(whole: &'a [u8], head: usize) -> [(&'static str, Vec<&'a [u8]>); 3] {
    let evenly = |bytes: &'a [u8]| bytes.chunks(bytes.len().div_ceil(20).max(1));
    let (head, body) = whole.split_at(head);
    [
        ("all of it evenly", evenly(whole).collect()),
        ("its body evenly", std::iter::once(head).chain(evenly(body)).collect()),
        ("a pause before its body", vec![head, body]),
    ]
}

/// Reads the answer on a connection whose request is sent.
pub fn finish(mut stream: TcpStream, deadline: Instant) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, String::from_utf8_lossy(&bytes)));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(_) if bytes.is_empty() && left == Duration::ZERO => break,
            // A reset after a whole answer is how a server may end with a client that still sends.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !bytes.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    match (status, text.split_once("\r\n")) {
        (Some(status), Some((_, rest))) => Ok(Answer { status, text: rest.to_owned() }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not an answer: {text:?}"))),
    }
}

/// The bytes of an honest request. `fields` are whole lines, each with its CR LF.
pub fn request(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Opens `count` connections, sends `bytes` on each and keeps them open.
pub fn hold(address: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream =
            TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("the kernel takes the connection");
        // A server may have closed it already.
        let _ = stream.write_all(bytes);
        stream
    };
    (0..count).map(open).collect()
}

/// Opens `count` connections before the first request is sent, then sends `bytes` on all and reads all.
pub fn burst(address: SocketAddr, count: usize, bytes: &[u8], patience: Duration) -> Vec<io::Result<Answer>> {
    let deadline = Instant::now() + patience;
    let mut streams = hold(address, count, b"");
    for stream in &mut streams {
        stream.write_all(bytes).expect("the connection is open");
    }
    streams.into_iter().map(|stream| finish(stream, deadline)).collect()
}

/// Sends `count` requests on one connection without waiting for an answer. Returns how many were answered.
pub fn pipeline(address: SocketAddr, count: usize, bytes: &[u8]) -> usize {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("timeout");
    let _ = stream.write_all(&bytes.repeat(count));
    match finish(stream, Instant::now() + Duration::from_secs(5)) {
        Ok(answer) => 1 + answer.text.matches("HTTP/1.1 ").count(),
        Err(_) => 0,
    }
}

/// Writes `chunk` again and again until `total` bytes are sent or the server has had enough.
/// Returns the status it answered with, if the answer survived.
pub fn flood(address: SocketAddr, start: &str, chunk: &str, total: usize) -> Option<u16> {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("timeout");
    let block = chunk.repeat((64 << 10) / chunk.len() + 1);
    let mut sent = stream.write(start.as_bytes()).unwrap_or(0);
    while sent < total {
        match stream.write(block.as_bytes()) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    finish(stream, Instant::now() + Duration::from_secs(5)).ok().map(|answer| answer.status)
}

/// Clients that work until this is dropped.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Starts `threads` threads that each call `work` until the end.
    pub fn start(threads: usize, work: impl Fn(&AtomicBool) + Send + Sync + Clone + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |_| {
            let (stop, work) = (Arc::clone(&stop), work.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work(&stop);
                }
            })
        };
        let threads = (0..threads).map(run).collect();
        Crowd { stop, threads }
    }

    /// `threads` threads open connections as fast as they can, send `bytes` and keep the last `each` open.
    pub fn connect(address: SocketAddr, threads: usize, each: usize, bytes: &'static [u8]) -> Self {
        Crowd::start(threads, move |stop| {
            let mut held = std::collections::VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
                    let _ = stream.write_all(bytes);
                    held.push_back(stream);
                }
                if held.len() > each {
                    held.pop_front();
                }
            }
        })
    }

    /// `threads` threads send bodies of which the last byte never comes, over and over.
    pub fn bodies(address: SocketAddr, threads: usize, path: &'static str, length: usize) -> Self {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        Crowd::unfinished(address, threads, head, length - 1)
    }

    /// `threads` threads send a head and `length` bytes after it, then hold still until the server gives up, over and over.
    pub fn unfinished(address: SocketAddr, threads: usize, head: String, length: usize) -> Self {
        Crowd::start(threads, move |stop| {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) else { return };
            let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
            let block = [b'x'; 16 << 10];
            let mut left = length;
            if stream.write_all(head.as_bytes()).is_err() {
                return;
            }
            while left > 0 && !stop.load(Ordering::Relaxed) {
                match stream.write(&block[..left.min(block.len())]) {
                    Ok(count) => left -= count,
                    Err(_) => return,
                }
            }
            // Held until the server gives up, or the test does.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
            while !stop.load(Ordering::Relaxed) {
                match stream.read(&mut [0; 64]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        })
    }

    /// Opens `rate` connections a second, sends `bytes` on each and keeps them open.
    pub fn steady(address: SocketAddr, rate: u32, bytes: &'static [u8]) -> Self {
        Crowd::start(1, move |stop| {
            let mut held = std::collections::VecDeque::new();
            let begin = Instant::now();
            for number in 0.. {
                // The load is made of pauses.
                let next = begin + Duration::from_secs(1) * number / rate;
                thread::sleep(next.saturating_duration_since(Instant::now()));
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
                    let _ = stream.write_all(bytes);
                    held.push_back(stream);
                }
                if held.len() > 1_000 {
                    held.pop_front();
                }
            }
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// `Content-Length` values no server should believe, and the answer to each on a route that takes bodies.
pub const ABSURD_LENGTHS: [(&str, u16); 5] = [
    ("30000000000", 413),
    ("4611686018427387904", 413),
    ("18446744073709551615", 413),
    ("18446744073709551616", 413),
    ("99999999999999999999999999999999999999999999", 413),
];

/// Requests whose framing two parsers could read differently, and the answer to each, whatever the route.
pub fn loose_framing(path: &str) -> Vec<(String, u16)> {
    let post = |fields: &str| format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nhello");
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        (post("Content-Length: 5x\r\n"), 400),
        (post("Content-Length: +5\r\n"), 400),
        (post("Content-Length: -5\r\n"), 400),
        (post("Content-Length:\r\n"), 400),
        (post("Content-Length: 5, 5\r\n"), 400),
        (post("Content-Length: 5\r\nContent-Length: 5\r\n"), 400),
        (post("Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
        (post(&format!("Content-Length: 5\r\n{chunked}")), 400),
        (post(&format!("{chunked}Content-Length: 5\r\n")), 400),
        (post("Content-Length: 5\r\nX-Folded: a\r\n b\r\n"), 400),
        (post("Content-Length : 5\r\n"), 400),
        (post("Host: localhost\r\nContent-Length: 5\r\n"), 400),
        (post("Expect: the unexpected\r\nContent-Length: 5\r\n"), 417),
        (get(&format!("POST {path} HTTP/1.1"), "Content-Length: 5\r\n"), 400),
        (get(&format!("GET {path} HTTP/1.1"), ""), 400),
        (get(&format!("GET {path}\x01 HTTP/1.1"), "Host: localhost\r\n"), 400),
        (get(&format!("GET {path}\t HTTP/1.1"), "Host: localhost\r\n"), 400),
        (get(&format!("GET {path} HTTP/3.0"), "Host: localhost\r\n"), 400),
        (get(&format!("GET {path}"), "Host: localhost\r\n"), 400),
        (format!("GET {path} HTTP/1.1\nHost: localhost\n\n"), 400),
        (post("Content-Length: 0x5\r\n"), 400),
        (post("Content-Length: 5.0\r\n"), 400),
        (post("Content-Length: 5\0\r\n"), 400),
        (post("Content-Length: ٥\r\n"), 400),
        (post("Content-Length: 5\rX: a\r\n"), 400),
        (post("Content-Length: 5\nX: a\r\n"), 400),
        (post(&format!("X: a\n{chunked}")), 400),
        (post("Transfer-Encoding : chunked\r\n"), 400),
        (post("\tTransfer-Encoding: chunked\r\n"), 400),
        (post("Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n"), 400),
        (post("Transfer-Encoding: identity\r\nContent-Length: 5\r\n"), 400),
        (post("Transfer\0Encoding: chunked\r\nContent-Length: 5\r\n"), 400),
        (post(": x\r\nContent-Length: 5\r\n"), 400),
        (post("no colon\r\nContent-Length: 5\r\n"), 400),
        (post("X: a\0b\r\nContent-Length: 5\r\n"), 400),
        (post("X Y: a\r\nContent-Length: 5\r\n"), 400),
        (get(&format!(" GET {path} HTTP/1.1"), "Host: localhost\r\n"), 400),
        (get(&format!("GET  {path} HTTP/1.1"), "Host: localhost\r\n"), 400),
        (get(&format!("GET {path} HTTP/1.1 "), "Host: localhost\r\n"), 400),
        (get(&format!("GET {path} http/1.1"), "Host: localhost\r\n"), 400),
        (get(&format!("GET {path} HTTP/1.11"), "Host: localhost\r\n"), 400),
        (get(&format!("G@T({path} HTTP/1.1"), "Host: localhost\r\n"), 400),
        (format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{path}"), 400),
        (format!("\x16\x03\x01\x02\0\x01\0\x01{path}\r\n\r\n"), 400),
    ]
}

/// Lets this process hold as many connections as the system allows.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("raising to the hard limit is allowed");
}

/// Gives another process of ours a lower limit.
pub fn limit(pid: u32, resource: Resource, value: u64) {
    let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
    prlimit(Some(pid), resource, Rlimit { current: Some(value), maximum: Some(value) }).expect("lowering is allowed");
}

/// A number from `/proc/<pid>/status` (proc_pid_status(5)): `VmHWM` is the peak of resident memory in KiB,
/// `VmRSS` what is resident now, `Threads` their number. `None` when the process is gone.
pub fn process_status(pid: u32, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Calls `done` until it holds, at most `patience` long. Returns whether it did.
pub fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    let (_never, timer) = mpsc::channel::<()>();
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        let _ = timer.recv_timeout(Duration::from_millis(20));
    }
    true
}

/// Ends the sending half and keeps the rest open.
pub fn half_close(streams: &[TcpStream]) {
    for stream in streams {
        let _ = stream.shutdown(Shutdown::Write);
    }
}
