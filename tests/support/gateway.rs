//! A running gateway and the deliveries that tests send to it.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::support::{Answer, Host, PATIENCE, Service, deliver, eventually, push_body, send, signature};

pub const SECRET: &str = "0123456789abcdef-secret";
pub const OLD_SECRET: &str = "fedcba9876543210-older";
pub const WEBHOOK: &str = "/api/webhook/gitops";

/// A proxy on ports of its own with `acme/infra` (branch main) and `acme/app` (branch release) configured.
pub struct Gateway {
    pub service: Service,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub host: Host,
}

/// A host with that configuration and two webhook secrets.
pub fn host(more: &str) -> Host {
    let host = Host::new();
    let path = |name: &str| host.path(name).display().to_string();
    host.configure(&format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{more}\n\
         [[repository]]\nname = \"acme/infra\"\nurl = \"{}\"\npath = \"{}\"\n\
         [[repository]]\nname = \"acme/app\"\nurl = \"{}\"\npath = \"{}\"\nbranch = \"release\"\n",
        path("infra.git"),
        path("infra"),
        path("app.git"),
        path("app"),
    ));
    host.credential("webhook-secret", &format!("{OLD_SECRET}\n{SECRET}\n"));
    host
}

impl Gateway {
    pub fn new() -> Self {
        Self::on(host(""))
    }

    /// Starts it on a configured host.
    pub fn on(host: Host) -> Self {
        let command = host.command("proxy");
        Self::with(host, command)
    }

    /// Starts it with a command that somebody has prepared.
    pub fn with(host: Host, command: Command) -> Self {
        let service = Service::start(command);
        let line = service.line("listening");
        let address = |key: &str| line[key].as_str().unwrap().parse().unwrap();
        Self { public: address("listen"), admin: address("admin_listen"), service, host }
    }

    /// A signed push to the branch of acme/infra.
    pub fn push(&self, delivery: &str) -> Answer {
        deliver(self.public, SECRET, "push", delivery, &push_body("acme/infra", "main"))
    }

    /// Begins a signed push and holds back the rest of its body; the proxy holds the connection.
    pub fn begin_push(&self, secret: &str, body: &[u8]) -> InFlight {
        let head = format!(
            "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\n\
             X-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
            signature(secret, body),
            body.len()
        );
        let mut stream = TcpStream::connect(self.public).unwrap();
        let (begin, rest) = body.split_at(10);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(begin).unwrap();
        eventually("the proxy holds the connection", || {
            self.get_admin("/api/status").json()["proxy"]["public"]["open"] == 1
        });
        InFlight { stream, rest: rest.to_vec() }
    }

    pub fn get(&self, path: &str) -> Answer {
        send(self.public, "GET", path, &[], b"")
    }

    pub fn get_admin(&self, path: &str) -> Answer {
        send(self.admin, "GET", path, &[], b"")
    }

    /// Names in the queue folder, unfinished ones too.
    pub fn queued(&self) -> Vec<String> {
        let folder = self.host.state().join("proxy/queue");
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The queue file of a repository.
    pub fn request(&self, file: &str) -> Value {
        self.host.json(&format!("state/proxy/queue/{file}.json"))
    }
}

/// A delivery of which a part is sent.
pub struct InFlight {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl InFlight {
    /// Sends the rest; returns the whole answer.
    pub fn end(mut self) -> String {
        self.stream.write_all(&self.rest).unwrap();
        let mut answer = String::new();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Says that a test did not run, and how it would; a failure where everything has to run.
pub fn skip(test: &str, how: &str) {
    crate::support::skip::skip(test, how);
}
