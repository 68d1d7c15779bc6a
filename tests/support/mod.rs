//! What the tests share: a host in a folder, services running in it, and real git repositories.
//! Every test binary uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod authority;
pub mod doctor;
#[path = "../fuzz/engine.rs"]
pub mod engine;
pub mod example;
pub mod gateway;
pub mod gitops;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub mod grafana;
pub mod http_attack;
pub mod metrics;
#[cfg(feature = "mongodb")]
pub mod mongo;
#[cfg(feature = "mongodb")]
pub mod mongo_errors;
pub mod notice_server;
#[cfg(all(feature = "mongodb", feature = "postgres"))]
pub mod pair;
pub mod postfix;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod reading;
pub mod rows;
pub mod skip;
pub mod status;
pub mod tailnet;
pub mod tree;
pub mod twice;
pub mod unit_files;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Long enough for a slow machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that stands for a host: state, configuration, repositories.
pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(host.state()).unwrap();
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes hub.toml.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.path("hub.toml"), text).unwrap();
    }

    /// Writes a credential, as `hub webhook-test` and operators do.
    pub fn credential(&self, name: &str, content: &str) {
        let folder = self.state().join("credentials");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
    }

    /// A command of the hub in this host, by the name of its binary.
    pub fn command(&self, binary: &str) -> Command {
        let path = match binary {
            "hub" => env!("CARGO_BIN_EXE_hub"),
            "proxy" => env!("CARGO_BIN_EXE_proxy"),
            "gitops-sync" => env!("CARGO_BIN_EXE_gitops-sync"),
            "system-metrics" => env!("CARGO_BIN_EXE_system-metrics"),
            "tailscale-gate" => env!("CARGO_BIN_EXE_tailscale-gate"),
            "reading-sync" => env!("CARGO_BIN_EXE_reading-sync"),
            other => panic!("{other} is no binary of the hub"),
        };
        let mut command = Command::new(path);
        for name in ["PORT", "GITHUB_WEBHOOK_SECRET", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
        for name in [
            "DATABASE_URL",
            "DB_HOST",
            "DB_PORT",
            "DB_USER",
            "DB_NAME",
            "SERVER_DB_PASSWORD",
            "MONGO_URI",
            "MONGO_DB_NAME",
            "MONGO_COLLECTION",
            "BATCH_SIZE",
        ] {
            command.env_remove(name);
        }
        command.env("HUB_STATE_DIR", self.state());
        if self.path("hub.toml").exists() {
            command.env("HUB_CONFIG", self.path("hub.toml"));
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, binary: &str, arguments: &[&str]) -> Output {
        self.command(binary).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts a service whose log lines are kept.
    pub fn start(&self, binary: &str, arguments: &[&str]) -> Service {
        let mut command = self.command(binary);
        command.args(arguments);
        Service::start(command)
    }

    pub fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(path)).unwrap()).unwrap()
    }
}

/// A running service; killed when dropped.
pub struct Service {
    pub child: Child,
    lines: Arc<(Mutex<Vec<Value>>, Condvar)>,
}

impl Service {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines: Arc<(Mutex<Vec<Value>>, Condvar)> = Arc::default();
        let (stdout, sink) = (child.stdout.take().unwrap(), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "not_json": line }));
                sink.0.lock().unwrap().push(value);
                sink.1.notify_all();
            }
        });
        Self { child, lines }
    }

    /// The first line with this `msg`, waited for.
    pub fn line(&self, msg: &str) -> Value {
        self.line_where(msg, |line| line["msg"] == msg)
    }

    /// The first line that fits, waited for; `what` is for the failure's message.
    pub fn line_where(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| fits(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line {what} among {lines:#?}");
            lines = self.lines.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn lines(&self) -> Vec<Value> {
        self.lines.0.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        assert!(
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    /// Waits for the end and returns the exit code; none where a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }
}

/// Sends the bytes of a request as they are and reads the answer to its end.
pub fn send_raw(address: SocketAddr, request: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    // A pipeline waits 45 s for a source that is away before it answers.
    stream.set_read_timeout(Some(PATIENCE * 3))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A server may answer and close before it has read everything; what counts is the answer.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes)
        && bytes.is_empty()
    {
        return Err(error);
    }
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head, body: bytes[split + 4..].to_vec() })
}

/// Sends a request with these headers besides `Host` and `Content-Length`.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
    if method == "POST" {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut bytes = (request + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    send_raw(address, &bytes).unwrap()
}

/// GitHub's signature of a body.
pub fn signature(secret: &str, body: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    format!("sha256={}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Sends a signed delivery to `/api/webhook/gitops`.
pub fn deliver(address: SocketAddr, secret: &str, event: &str, delivery: &str, body: &[u8]) -> Answer {
    let headers = [
        ("Content-Type", "application/json"),
        ("X-GitHub-Event", event),
        ("X-GitHub-Delivery", delivery),
        ("X-Hub-Signature-256", &signature(secret, body)),
    ];
    send(address, "POST", "/api/webhook/gitops", &headers, body)
}

/// The body of a push of `branch` to `repository`.
pub fn push_body(repository: &str, branch: &str) -> Vec<u8> {
    serde_json::json!({"ref": format!("refs/heads/{branch}"), "deleted": false, "repository": {"full_name": repository}})
        .to_string()
        .into_bytes()
}

/// Runs git for a test's own repositories, free of the machine's configuration.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "user.name=Tester",
            "-c",
            "user.email=tester@example.org",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A bare origin and a working clone that pushes to it.
pub struct Origin {
    pub bare: PathBuf,
    pub work: PathBuf,
}

impl Origin {
    pub fn new(host: &Host) -> Self {
        let origin = Self { bare: host.path("origin.git"), work: host.path("work") };
        std::fs::create_dir(&origin.work).unwrap();
        git(&origin.work, &["init", "--quiet", "--bare", origin.bare.to_str().unwrap()]);
        git(&origin.work, &["init", "--quiet"]);
        git(&origin.work, &["remote", "add", "origin", origin.bare.to_str().unwrap()]);
        origin
    }

    pub fn url(&self) -> &str {
        self.bare.to_str().unwrap()
    }

    /// Writes files, commits and pushes them; returns the commit.
    pub fn push(&self, files: &[(&str, &str)]) -> String {
        let commit = self.commit(files);
        git(&self.work, &["push", "--quiet", "origin", "HEAD:main"]);
        commit
    }

    /// Writes files and commits them; returns the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let path = self.work.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        git(&self.work, &["add", "--all"]);
        git(&self.work, &["commit", "--quiet", "--allow-empty", "-m", "a change"]);
        git(&self.work, &["rev-parse", "HEAD"])
    }
}

/// Copies a program that is to be run. By a process of its own: a child that another test starts meanwhile would hold a
/// file that this one writes, and such a file cannot be run (execve(2), ETXTBSY).
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    assert!(Command::new("cp").arg(from.as_ref()).arg(to).status().unwrap().success());
}

/// An address of this host on which nobody listens at the moment. Not one that the kernel gives to whoever asks for any
/// (ip_local_port_range, ip(7)): another test would get it meanwhile.
pub fn free_address() -> SocketAddr {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 10_000 + (std::process::id().wrapping_mul(61).wrapping_add(number)) % 22_000;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    eventually_within(PATIENCE, what, condition);
}

/// As `eventually`, for what takes a time of its own.
pub fn eventually_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// True, said aloud, where the tests do not run as root.
pub fn skipped_without_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip::skip("what the store does as root", "the tests do not run as root");
    }
    !root
}
