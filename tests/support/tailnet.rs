//! A stand-in tailnet, and a gate and a proxy that live in it.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::support::example::example;
use crate::support::{Host, PATIENCE, Service, eventually, eventually_within, free_address};

pub const PORT: u16 = 8443;
pub const SECRET: &str = "0123456789abcdef-secret";

/// The stand-in for tailscale.
pub fn stand_in() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| example("tailscale-stand-in"))
}

/// A host with a stand-in `tailscale` on its PATH, ports of its own, a webhook secret and an installed gate.
pub struct Tailnet {
    pub host: Host,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

impl Tailnet {
    pub fn new() -> Self {
        Self::bare().with_stand_in()
    }

    pub fn without_secret() -> Self {
        Self::without_tailscale().with_stand_in()
    }

    /// With a secret, and nothing that stands for `tailscale`.
    pub fn bare() -> Self {
        let tailnet = Self::without_tailscale();
        tailnet.host.credential("webhook-secret", SECRET);
        tailnet
    }

    fn with_stand_in(self) -> Self {
        let script = format!(
            "#!/bin/sh\nexport TAILSCALE_STAND_IN={}\nexec {} \"$@\"\n",
            self.dir().display(),
            stand_in().display()
        );
        self.install(&script);
        self
    }

    fn without_tailscale() -> Self {
        let host = Host::new();
        let [public, admin] = [(); 2].map(|()| free_address());
        host.configure(&format!("[proxy]\nlisten = \"{public}\"\nadmin_listen = \"{admin}\"\n[gate]\nport = {PORT}\n"));
        let tailnet = Self { host, public, admin };
        std::fs::create_dir(tailnet.dir()).unwrap();
        std::fs::create_dir(tailnet.host.path("bin")).unwrap();
        tailnet
    }

    /// Puts a `tailscale` on the PATH.
    pub fn install(&self, script: &str) {
        let path = self.host.path("bin/tailscale");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn dir(&self) -> PathBuf {
        self.host.path("tailnet")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.public)
    }

    /// Changes how the node behaves: the switches of the stand-in's `daemon.json`.
    pub fn set(&self, changes: Value) {
        let path = self.dir().join("daemon.json");
        let old = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
        let mut settings: Value = serde_json::from_str(&old).unwrap();
        for (name, value) in changes.as_object().unwrap() {
            settings[name] = value.clone();
        }
        let unfinished = self.dir().join(".daemon.json");
        std::fs::write(&unfinished, settings.to_string()).unwrap();
        std::fs::rename(unfinished, path).unwrap();
    }

    fn on_path(&self, mut command: Command) -> Command {
        let path = format!("{}:{}", self.host.path("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env_remove("WATCHDOG_USEC");
        command
    }

    /// Runs `tailscale` as somebody else would.
    pub fn tailscale(&self, arguments: &[&str]) -> Output {
        let mut command = self.on_path(Command::new(self.host.path("bin/tailscale")));
        command.args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    pub fn gate_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.on_path(self.host.command("tailscale-gate"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    pub fn gate(&self) -> Service {
        Service::start(self.gate_command(&[]))
    }

    /// Runs a command of the gate to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.gate_command(arguments).output().unwrap()
    }

    /// Starts the proxy and waits until it listens.
    pub fn proxy(&self) -> Service {
        let proxy = self.host.start("proxy", &[]);
        proxy.line("listening");
        proxy
    }

    /// What `tailscale status` would tell of the gate.
    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.run(&["status", "--json"]).stdout).unwrap()
    }

    /// The configuration in force.
    pub fn config(&self) -> Value {
        config_in(&self.dir())
    }

    /// True where anybody on the internet would reach something on the gate's port.
    pub fn is_public(&self) -> bool {
        is_public_in(&self.dir())
    }

    /// How long it takes until the port is public, or no longer.
    pub fn until_public(&self, public: bool) -> Duration {
        let begin = Instant::now();
        while self.is_public() != public {
            assert!(begin.elapsed() < PATIENCE * 2, "public = {public} never came: {:#}", self.config());
            std::thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    }

    /// Every call of `tailscale` so far.
    pub fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir().join("calls.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn record(&self) -> Value {
        self.host.json("state/gate/run.json")
    }

    /// Waits for the state in the run record.
    pub fn recorded(&self, state: &str) -> Value {
        eventually(&format!("the record says {state}"), || {
            std::fs::read(self.host.path("state/gate/run.json")).is_ok_and(|bytes| {
                serde_json::from_slice::<Value>(&bytes).is_ok_and(|record| record["status"] == state)
            })
        });
        self.record()
    }
}

/// The configuration in force in a stand-in's folder, read as the stand-in keeps it.
pub fn config_in(dir: &Path) -> Value {
    let text = std::fs::read_to_string(dir.join("serve.json")).unwrap_or_default();
    let mut config: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({}));
    for entry in std::fs::read_dir(dir.join("sessions")).into_iter().flatten().flatten() {
        let Ok(file) = File::open(entry.path()) else { continue };
        let lives = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
        if let (true, Ok(text)) = (lives, std::fs::read_to_string(entry.path())) {
            config["Foreground"][entry.file_name().to_str().unwrap()] = serde_json::from_str(&text).unwrap_or_default();
        }
    }
    config
}

/// True where anybody on the internet would reach something on the gate's port of that node.
pub fn is_public_in(dir: &Path) -> bool {
    let config = config_in(dir);
    let sessions = config["Foreground"].as_object().into_iter().flatten().map(|(_, part)| part);
    std::iter::once(&config).chain(sessions).any(|part| {
        let keys = part["AllowFunnel"].as_object().into_iter().flatten();
        keys.into_iter().any(|(key, on)| key.ends_with(&format!(":{PORT}")) && on == true)
    })
}

/// How long the port may stay public after a kill, of the proxy or of the gate, and after a hang.
pub const KILLED: Duration = Duration::from_secs(1);
pub const HUNG: Duration = Duration::from_secs(2);

/// Two looks of the gate.
pub const TWO_LOOKS: Duration = Duration::from_secs(32);

/// Waits for a new line of the gate.
pub fn line_after(gate: &Service, seen: usize, msg: &str) -> Value {
    let mut found = Value::Null;
    eventually_within(TWO_LOOKS, msg, || {
        let lines = gate.lines();
        let line = lines.iter().skip(seen).find(|line| line["msg"] == msg);
        found = line.cloned().unwrap_or_default();
        line.is_some()
    });
    found
}

/// A healthy proxy, and a gate that has opened.
pub fn open() -> (Tailnet, Service, Service) {
    let tailnet = Tailnet::new();
    let proxy = tailnet.proxy();
    let gate = tailnet.gate();
    gate.line("funnel_open");
    assert!(tailnet.is_public());
    (tailnet, proxy, gate)
}

/// The line of the closing that followed the first opening.
pub fn closed(gate: &Service) -> Value {
    let after = |lines: Vec<Value>| {
        let opened = lines.iter().position(|line| line["msg"] == "funnel_open")?;
        lines[opened..].iter().find(|line| line["msg"] == "funnel_closed").cloned()
    };
    eventually("it closes", || after(gate.lines()).is_some());
    after(gate.lines()).unwrap()
}
