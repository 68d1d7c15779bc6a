//! A proxy with pipelines, and what they are fed with.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use crate::support::{Answer, Host, PATIENCE, Service, send};

/// A proxy on ports of its own.
pub struct Site {
    pub host: Host,
    pub service: Service,
    pub admin: SocketAddr,
}

impl Site {
    /// Starts a proxy with this configuration besides its addresses.
    pub fn new(configuration: impl FnOnce(&Host) -> String) -> Self {
        let host = Host::new();
        let rest = configuration(&host);
        host.configure(&format!("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{rest}"));
        Self::on(host, |_| {})
    }

    pub fn on(host: Host, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = host.command("proxy");
        prepare(&mut command);
        let service = Service::start(command);
        let admin = service.line("listening")["admin_listen"].as_str().unwrap().parse().unwrap();
        Self { host, service, admin }
    }

    /// A proxy on the same host, whatever became of the one before.
    pub fn again(self, prepare: impl FnOnce(&mut Command)) -> Self {
        let Self { host, service, .. } = self;
        drop(service);
        Self::on(host, prepare)
    }

    pub fn sync(&self, pipeline: &str) -> Answer {
        send(self.admin, "POST", &format!("/api/sync/{pipeline}"), &[], b"")
    }

    /// A run that must succeed; its result. A run that a killed proxy left is waited for.
    pub fn synced(&self, pipeline: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = self.run(pipeline);
            let busy = last["reason"].as_str().is_some_and(|reason| reason.contains("is going on already"));
            if !busy || Instant::now() > deadline {
                assert_eq!(last["status"], "success", "{last}");
                return last;
            }
        }
    }

    /// The last line of a run's stream. The server of the tests may be silent for long over large documents.
    pub fn run(&self, pipeline: &str) -> Value {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(4 * PATIENCE)).unwrap();
        let head = format!("POST /api/sync/{pipeline} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0", self.admin);
        stream.write_all(format!("{head}\r\nAccept: application/x-ndjson\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    /// The client of the pipelines, pointed at this proxy.
    pub fn reading_sync(&self, arguments: &[&str]) -> Output {
        let url = format!("http://{}", self.admin);
        let mut command = self.host.command("reading-sync");
        command.args(["--url", &url]).args(arguments).output().unwrap()
    }

    pub fn hub(&self, arguments: &[&str]) -> String {
        let output = self.host.run("hub", arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

/// Makes the inbox of a host.
pub fn inbox(host: &Host) -> PathBuf {
    let inbox = host.path("inbox");
    std::fs::create_dir_all(&inbox).unwrap();
    inbox
}

/// A pipeline on that inbox.
pub fn file_pipeline(host: &Host, more: &str) -> String {
    format!("[[pipeline]]\nname = \"reading\"\nsource = \"file:{}\"\n{more}\n", inbox(host).display())
}

/// A document of a number, of 300 bytes or so.
pub fn line(number: usize) -> String {
    format!(
        "{{\"_id\":{{\"$oid\":\"{number:024x}\"}},\"status\":\"ingested\",\"event_type\":\"cpu_reading\",\"source\":\"agent-{}\",\
         \"timestamp\":{{\"$date\":\"2026-01-04T12:00:00.{:03}Z\"}},\"payload\":{{\"value\":{number},\"unit\":\"percent\",\
         \"cores\":[1.5,2.25,3],\"note\":\"some text to have a usual size\"}},\"meta\":{{\"host\":\"web-1\",\"agent\":\"1.2.3\"}}}}\n",
        number % 7,
        number % 1000
    )
}

/// A file in the inbox, published as programs should: written beside and renamed.
pub fn publish(host: &Host, name: &str, content: &[u8]) {
    let inbox = inbox(host);
    std::fs::write(inbox.join(".unfinished"), content).unwrap();
    // Otherwise both steps may fall into one tick of the kernel's clock, and the file would have to rest at first.
    age(host, ".unfinished");
    std::fs::rename(inbox.join(".unfinished"), inbox.join(name)).unwrap();
}

/// Makes a file look as old as a day, so that nobody takes it to be in the making.
pub fn age(host: &Host, name: &str) {
    let file = std::fs::File::options().write(true).open(inbox(host).join(name)).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(86_400)).unwrap();
}

/// The names in a folder of the inbox, sorted; `.` for the inbox itself.
pub fn names(host: &Host, folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(inbox(host).join(folder)) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
