//! The gate against a real `tailscaled`, whose control server is tailscale's own test server. Opt-in, because it builds
//! tailscale from its Go module: HUB_TEST_TAILSCALED=1 cargo test --test tailscaled

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

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Service, eventually};
use tailnet::{PORT, Tailnet};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds the control server, `tailscale` and `tailscaled` into a folder of cargo's.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tailscaled");
    std::fs::create_dir_all(&folder).unwrap();
    for package in [".", "tailscale.com/cmd/tailscale", "tailscale.com/cmd/tailscaled"] {
        let mut go = Command::new("go");
        go.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tailscaled"));
        let name = if package == "." { "control" } else { package.rsplit('/').next().unwrap() };
        let status = go.args(["build", "-buildvcs=false", "-o"]).arg(folder.join(name)).arg(package).status();
        assert!(status.expect("go is needed on PATH").success(), "{package} does not build");
    }
    folder
}

struct Real {
    tailnet: Tailnet,
    programs: PathBuf,
    control: String,
    _server: Running,
    daemon: Option<Running>,
}

impl Real {
    fn new() -> Self {
        let programs = build();
        let tailnet = Tailnet::new();
        let mut command = Command::new(programs.join("control"));
        let mut server = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut control = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut control).unwrap();
        let socket = tailnet.host.path("s");
        tailnet.install(&format!(
            "#!/bin/sh\nexec {} --socket={} \"$@\"\n",
            programs.join("tailscale").display(),
            socket.display()
        ));
        let mut real = Self { tailnet, programs, control: control.trim().to_owned(), _server: server, daemon: None };
        real.start_daemon();
        let login = format!("--login-server={}", real.control);
        let up = real.tailnet.tailscale(&["up", &login, "--timeout=60s"]);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        real
    }

    fn start_daemon(&mut self) {
        let dir = self.tailnet.host.path("ts");
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new(self.programs.join("tailscaled"));
        command.args(["--tun=userspace-networking", "--port=0"]);
        command.arg(format!("--statedir={}", dir.display()));
        command.arg(format!("--socket={}", self.tailnet.host.path("s").display()));
        let environment = [
            ("TS_LOG_TARGET", "http://127.0.0.1:1"),
            ("TS_NO_LOGS_NO_SUPPORT", "1"),
            ("TS_ASSUME_NETWORK_UP_FOR_TEST", "1"),
            ("TS_DISABLE_PORTMAPPER", "1"),
            ("TS_PANIC_IF_HIT_MAIN_CONTROL", "1"),
        ];
        command.envs(environment).env("TS_LOGS_DIR", &dir);
        command.env("TS_NETCHECK_GENERATE_204_URL", format!("{}/generate_204", self.control));
        let log = std::fs::File::create(self.tailnet.host.path("tailscaled.log")).unwrap();
        self.daemon = Some(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()));
        eventually("tailscaled answers", || self.tailnet.tailscale(&["status", "--json"]).status.success());
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&self.tailnet.tailscale(&["funnel", "status", "--json"]).stdout).unwrap_or_default()
    }

    fn is_public(&self) -> bool {
        let config = self.config();
        let sessions = config["Foreground"].as_object().into_iter().flatten().map(|(_, part)| part);
        std::iter::once(&config).chain(sessions).any(|part| {
            let keys = part["AllowFunnel"].as_object().into_iter().flatten();
            keys.into_iter().any(|(key, on)| key.ends_with(&format!(":{PORT}")) && on == true)
        })
    }

    fn until_public(&self, public: bool) -> Duration {
        let begin = Instant::now();
        eventually(&format!("public = {public}"), || self.is_public() == public);
        begin.elapsed()
    }

    fn run(&self, arguments: &[&str]) {
        let output = self.tailnet.tailscale(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn count(gate: &Service, msg: &str) -> usize {
    gate.lines().iter().filter(|line| line["msg"] == msg).count()
}

#[test]
fn the_gate_keeps_its_promises_with_the_real_tailscale() {
    if std::env::var("HUB_TEST_TAILSCALED").as_deref() != Ok("1") {
        println!("SKIPPED tailscaled: HUB_TEST_TAILSCALED=1 cargo test --test tailscaled (needs Go)");
        return;
    }
    let mut real = Real::new();
    // What others have, and what an earlier gate left.
    real.run(&["serve", "--bg", "--yes", "--https=443", "3000"]);
    let others = real.config();
    real.run(&["funnel", "--bg", "--yes", "--https=8443", "8085"]);
    assert!(real.is_public());

    let mut gate = real.tailnet.gate();
    gate.line("funnel_closed");
    assert_eq!(real.config(), others);
    let mut proxy = real.tailnet.proxy();
    let open = gate.line("funnel_open");
    assert!(real.is_public());
    println!("{open}\n{:#}", real.config());
    println!("{}", String::from_utf8_lossy(&real.tailnet.run(&["status"]).stdout));

    proxy.signal("KILL");
    println!("FIGURE real tailscaled, proxy killed -> seen closed after {} ms", real.until_public(false).as_millis());
    proxy.wait();
    assert_eq!(real.config(), others);
    proxy = real.tailnet.proxy();
    real.until_public(true);

    proxy.signal("STOP");
    println!("FIGURE real tailscaled, proxy stopped -> seen closed after {} ms", real.until_public(false).as_millis());
    proxy.signal("CONT");
    real.until_public(true);

    // tailscaled restarts: the session ends with it, and the gate opens another.
    let opened = count(&gate, "funnel_open");
    real.daemon = None;
    real.start_daemon();
    eventually("it opens again", || count(&gate, "funnel_open") > opened);
    assert!(real.is_public());

    gate.signal("STOP");
    gate.signal("KILL");
    println!("FIGURE real tailscaled, gate killed -> seen closed after {} ms", real.until_public(false).as_millis());
    gate.wait();
    assert_eq!(real.config(), others);

    // A session that nobody can end but its owner, and a key under another name: `off` reaches neither.
    let mut command = Command::new(real.tailnet.host.path("bin/tailscale"));
    let _session =
        Running(command.args(["funnel", "--yes", "--https=8443", "8085"]).stdout(Stdio::null()).spawn().unwrap());
    real.until_public(true);
    let close = real.tailnet.run(&["close"]);
    assert_eq!(close.status.code(), Some(0), "{}", String::from_utf8_lossy(&close.stdout));
    assert_eq!(real.config(), others);
    let mut renamed = others.clone();
    renamed["AllowFunnel"]["old-name.tail-scale.ts.net:8443"] = json!(true);
    let mut command = Command::new(real.tailnet.host.path("bin/tailscale"));
    let mut write = command.args(["serve", "set-raw"]).stdin(Stdio::piped()).spawn().unwrap();
    write.stdin.take().unwrap().write_all(renamed.to_string().as_bytes()).unwrap();
    assert!(write.wait().unwrap().success() && real.is_public());
    let close = real.tailnet.run(&["close"]);
    assert_eq!(close.status.code(), Some(0), "{}", String::from_utf8_lossy(&close.stdout));
    assert_eq!(real.config(), others);

    // Down: nothing is claimed that is not so, and the reason is named.
    let gate = real.tailnet.gate();
    gate.line("funnel_open");
    drop(gate);
    real.run(&["down"]);
    let gate = real.tailnet.gate();
    gate.line_where("stopped", |line| line["reason"] == "tailscale is stopped; run: tailscale up");
}
