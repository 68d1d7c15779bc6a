//! A server over the engine, for the attacks of `tests/listener.rs`: routes that show one trait each.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of tests: failing is its way to report"
)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use observability_hub::proxy::listener::{Admission, Counters, Engine, Head, Length, ListenerLimits, Site};
use rouille::{Request, Response, ResponseBody};
use rustix::process::{Resource, Rlimit, setrlimit};

/// The environment variable that makes a test process a server, with its settings: none, or one of
/// `connections=N` (that cap), `descriptors=N` and `threads=N` (that many for the process, for its user).
pub const SETTINGS: &str = "LISTENER_TEST_SERVER";

/// Opened when the streams may end.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

struct Routes {
    counters: Arc<Counters>,
    gate: Arc<Gate>,
}

impl Site for Routes {
    fn admit(&self, head: &Head) -> Admission {
        let limit = match head.path() {
            "/echo" => 3 << 20,
            "/large" => 25 << 20,
            "/" | "/big" | "/stream" | "/panic" | "/split" | "/counters" => return Admission::NoBody,
            "/panic-in-admission" => panic!("as asked"),
            _ => return Admission::Answer(Response::empty_404()),
        };
        match head.length {
            Length::Known(_) => Admission::Body { limit },
            _ => Admission::Answer(Response::text("length needed").with_status_code(411)),
        }
    }

    fn answer(&self, request: &Request, body: &[u8]) -> Response {
        match request.url().as_str() {
            "/echo" => match std::fs::File::open("/dev/null") {
                Ok(_) => Response::from_data("application/octet-stream", body),
                Err(error) => Response::text(error.to_string()).with_status_code(503),
            },
            "/large" => Response::text(body.len().to_string()),
            "/big" => streamed(io::repeat(b'x').take(64 << 20)),
            "/stream" => streamed(Stream { gate: Arc::clone(&self.gate), lines: 0 }),
            "/panic" => panic!("as asked"),
            "/split" => Response::text("x").with_additional_header("X-A", "b\r\nEvil: 1"),
            "/counters" => self.counters(),
            _ => Response::text("welcome"),
        }
    }
}

impl Routes {
    fn counters(&self) -> Response {
        let now = self.counters.snapshot();
        Response::text(format!(
            "accepted {}\nanswered_5xx {}\nevicted {}\nrefused {}\ntimed_out {}\nopen {}\n",
            now.accepted, now.answered[3], now.evicted, now.refused, now.timed_out, now.open
        ))
    }
}

fn streamed(reader: impl Read + Send + 'static) -> Response {
    Response { data: ResponseBody::from_reader(reader), ..Response::text("") }
}

/// One line at once, another when the gate opens.
struct Stream {
    gate: Arc<Gate>,
    lines: usize,
}

impl Read for Stream {
    fn read(&mut self, mut space: &mut [u8]) -> io::Result<usize> {
        self.lines += 1;
        match self.lines {
            1 => space.write(b"first\n"),
            2 => {
                let shut = self.gate.0.lock().unwrap();
                drop(self.gate.1.wait_while(shut, |open| !*open).unwrap());
                space.write(b"last\n")
            }
            _ => Ok(0),
        }
    }
}

/// Whether all of these requests to `/stream` have their first bytes.
pub fn entered(streams: &[TcpStream]) -> bool {
    streams.iter().all(|stream| {
        stream.set_nonblocking(true).unwrap();
        let count = stream.peek(&mut [0; 1]);
        stream.set_nonblocking(false).unwrap();
        matches!(count, Ok(1))
    })
}

fn lower(resource: Resource, most: u64) {
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
}

/// Serves until the standard input ends; a line there opens the gate. Prints `LISTENING address`, then `CUT n`.
pub fn serve(settings: &str) {
    let (key, number) = settings.split_once('=').unwrap_or_default();
    let mut connections = ListenerLimits::default().connections;
    match key {
        "connections" => connections = number.parse().unwrap(),
        "descriptors" => lower(Resource::Nofile, number.parse().unwrap()),
        "threads" => lower(Resource::Nproc, number.parse().unwrap()),
        _ => {}
    }
    let limits = ListenerLimits {
        connections,
        body_memory: (25 << 20) / 3 * 4 + 4,
        answer_deadline: Duration::from_secs(3),
        ..ListenerLimits::default()
    };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (counters, gate) = (Arc::new(Counters::default()), Arc::new(Gate::default()));
    let routes = Routes { counters: Arc::clone(&counters), gate: Arc::clone(&gate) };
    let mut engine = Engine::new();
    engine.listen(socket, limits, Arc::new(routes), counters).unwrap();
    println!("LISTENING {address}");
    let stdin = io::stdin();
    loop {
        let ready = engine.turn(Duration::from_secs(60), &[stdin.as_fd()]).unwrap();
        if ready.contains(&0) {
            if rustix::io::read(&stdin, &mut [0; 64]).unwrap() == 0 {
                break;
            }
            gate.open();
        }
    }
    let opener = std::thread::spawn(move || {
        while TcpStream::connect(address).is_ok() {
            std::thread::yield_now();
        }
        gate.open();
    });
    println!("CUT {}", engine.stop(Duration::from_secs(2)));
    opener.join().unwrap();
}
