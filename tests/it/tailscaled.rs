//! The gate against a real `tailscaled`, whose control server is tailscale's own test server. Both are built from
//! tailscale's Go module, which takes two minutes the first time: contrib/test asks for it where Go is at hand
//! (HUB_TEST_TAILSCALED=1) and begins before the tests do.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::tailnet::{PORT, TWO_LOOKS, Tailnet, line_after};
use crate::support::{Service, eventually, eventually_within, skip};
use serde_json::{Value, json};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An older client: the same code under another version, which is all that the gate asks of it.
const OLDER: &str = "1.56.1";

/// The control server, `tailscale`, an older one and `tailscaled`, built once into a folder of cargo's; none, said aloud,
/// where they were not asked for or cannot be built here.
fn programs() -> Option<&'static Path> {
    if std::env::var("HUB_TEST_TAILSCALED").as_deref() != Ok("1") {
        skip::switched_off("the real tailscaled", "a HUB_TEST_TAILSCALED that is not 1");
        return None;
    }
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|lack| skip::skip("the real tailscaled", &lack)).ok());
    built.as_deref()
}

fn build() -> Result<PathBuf, String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tailscaled");
    // Where its own installer puts it, PATH often does not name it.
    let is_go = |go: &&str| Command::new(go).arg("version").output().is_ok_and(|output| output.status.success());
    let go = ["go", "/usr/local/go/bin/go"].into_iter().find(is_go).ok_or("Go is missing")?;
    let run = |arguments: &[&str]| Command::new(go).current_dir(source).args(arguments).output().unwrap();
    let fetched = run(&["mod", "download"]);
    if !fetched.status.success() {
        return Err(format!("a Go module cannot be had: {}", String::from_utf8_lossy(&fetched.stderr)));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tailscaled");
    std::fs::create_dir_all(&folder).unwrap();
    let stamp = format!("-X tailscale.com/version.shortStamp={OLDER} -X tailscale.com/version.longStamp={OLDER}");
    for (name, package, flags) in [
        ("control", ".", ""),
        ("tailscale", "tailscale.com/cmd/tailscale", ""),
        ("older", "tailscale.com/cmd/tailscale", &stamp),
        ("tailscaled", "tailscale.com/cmd/tailscaled", ""),
    ] {
        let to = folder.join(name);
        let built = run(&["build", "-buildvcs=false", "-ldflags", flags, "-o", to.to_str().unwrap(), package]);
        assert!(built.status.success(), "{package}: {}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(folder)
}

/// A control server with a tailnet of its own.
struct Control {
    url: String,
    server: Running,
    answers: BufReader<ChildStdout>,
}

impl Control {
    fn new(programs: &Path, suffix: &str) -> Self {
        let mut command = Command::new(programs.join("control"));
        let command = command.arg(suffix).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Running(command.spawn().unwrap());
        let mut answers = BufReader::new(server.0.stdout.take().unwrap());
        let mut url = String::new();
        answers.read_line(&mut url).unwrap();
        Self { url: url.trim().to_owned(), server, answers }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.server.0.stdin.as_mut().unwrap(), "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim(), "done", "{order}");
    }
}

struct Real {
    tailnet: Tailnet,
    programs: &'static Path,
    control: Control,
    daemon: Option<Running>,
}

impl Real {
    fn new(programs: &'static Path) -> Self {
        let control = Control::new(programs, "tail-scale.ts.net");
        let mut real = Self { tailnet: Tailnet::bare(), programs, control, daemon: None };
        real.client("tailscale");
        real.start_daemon();
        real.run(&["up", &format!("--login-server={}", real.control.url), "--timeout=60s"]);
        real
    }

    /// Puts this one of the clients on the PATH.
    fn client(&self, name: &str) {
        let (program, socket) = (self.programs.join(name), self.tailnet.host.path("s"));
        let script = format!("#!/bin/sh\nexec {} --socket={} \"$@\"\n", program.display(), socket.display());
        self.tailnet.install(&script);
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
        command.env("TS_NETCHECK_GENERATE_204_URL", format!("{}/generate_204", self.control.url));
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
    let Some(programs) = programs() else { return };
    let mut real = Real::new(programs);
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

#[test]
fn a_real_node_that_expires_stops_or_logs_out_is_never_called_open() {
    let Some(programs) = programs() else { return };
    let mut real = Real::new(programs);
    let _proxy = real.tailnet.proxy();
    let gate = real.tailnet.gate();
    gate.line("funnel_open");
    let away = |real: &Real, seen: usize, advice: &str| {
        let line = line_after(&gate, seen, "funnel_unreachable");
        assert!(line["level"] == "WARN" && line["reason"].as_str().unwrap().contains(advice), "{line}");
        assert_eq!(real.tailnet.recorded("unreachable")["status"], "unreachable");
        assert!(!gate.lines().iter().skip(seen).any(|line| line["msg"] == "funnel_open"), "{:?}", gate.lines());
        gate.lines().len()
    };
    let seen = gate.lines().len();
    real.control.order("expire");
    let seen = away(&real, seen, "tailscale up");
    let expired = gate.line_where("key_expires", |line| line["msg"] == "key_expires");
    assert!(expired["reason"].as_str().unwrap().starts_with("it has expired"), "{expired}");
    real.control.order("renew");
    line_after(&gate, seen, "funnel_open");
    let seen = gate.lines().len();
    real.run(&["down"]);
    let seen = away(&real, seen, "tailscale is stopped; run: tailscale up");
    real.run(&["up", &format!("--login-server={}", real.control.url), "--timeout=60s"]);
    line_after(&gate, seen, "funnel_open");
    let seen = gate.lines().len();
    // It takes the configuration with it: nothing is exposed any more, and the gate says closed.
    real.run(&["logout"]);
    let logged_out = |line: &Value| line["reason"].as_str().is_some_and(|reason| reason.contains("is logged out"));
    eventually_within(TWO_LOOKS, "closed, and why", || {
        gate.lines().iter().skip(seen).any(|line| line["msg"] == "stays_closed" && logged_out(line))
    });
    assert!(!real.is_public());
    // The record comes after the line.
    eventually("the record says why", || logged_out(&real.tailnet.recorded("closed")["details"]));
    assert!(!gate.lines().iter().skip(seen).any(|line| line["msg"] == "funnel_open"), "{:?}", gate.lines());
}

#[test]
fn a_real_node_is_followed_to_its_new_name_and_to_another_tailnet_only_after_allow() {
    let Some(programs) = programs() else { return };
    let mut real = Real::new(programs);
    real.run(&["set", "--nickname=home"]);
    let _proxy = real.tailnet.proxy();
    let gate = real.tailnet.gate();
    gate.line("funnel_open");
    let seen = gate.lines().len();
    real.control.order("rename other");
    let renamed = line_after(&gate, seen, "node_renamed");
    assert_eq!(renamed["to"], "other.tail-scale.ts.net");
    assert_eq!(line_after(&gate, seen, "funnel_open")["url"], "https://other.tail-scale.ts.net:8443/");
    assert!(real.is_public());

    let mut work = Control::new(programs, "work.ts.net");
    // The ids of a test server's nodes are their numbers.
    work.order("neighbour");
    real.run(&["login", &format!("--login-server={}", work.url), "--nickname=work", "--timeout=60s"]);
    gate.line_where("why it stays closed", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("tailscale-gate allow"))
    });
    assert!(!real.is_public());
    let seen = gate.lines().len();
    real.run(&["switch", "home"]);
    line_after(&gate, seen, "funnel_open");
    assert!(real.is_public());
    real.run(&["switch", "work"]);
    eventually_within(TWO_LOOKS, "closed in the other tailnet", || !real.is_public());
    assert_eq!(real.tailnet.run(&["allow"]).status.code(), Some(0));
    eventually_within(TWO_LOOKS * 2, "public in the other tailnet", || real.is_public());
}

#[test]
fn an_older_client_of_a_real_daemon_changes_nothing() {
    let Some(programs) = programs() else { return };
    let real = Real::new(programs);
    real.run(&["serve", "--bg", "--yes", "--https=443", "3000"]);
    let others = real.config();
    real.client("older");
    let _proxy = real.tailnet.proxy();
    let gate = real.tailnet.gate();
    gate.line_where("the reason", |line| {
        let reason = line["reason"].as_str().unwrap_or_default();
        reason.contains(OLDER) && reason.contains("update")
    });
    assert_eq!(real.config(), others);
    real.client("tailscale");
    line_after(&gate, 0, "funnel_open");
    assert!(real.is_public());
}
