//! Stands for `tailscale` and `tailscaled` in the tests of the gate: the serve configuration is a file, a foreground
//! session is a file that its process holds locked, and what can go wrong is switched on in `daemon.json`.
//!
//! It keeps to facts/tailscale.md: exit codes, streams, JSON, what persists and what ends with its process.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is part of the tests, and its output is the answer"
)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};

fn main() {
    let Some(dir) = std::env::var_os("TAILSCALE_STAND_IN").map(PathBuf::from) else {
        eprintln!("tailscale-stand-in: set TAILSCALE_STAND_IN to the folder of its state");
        std::process::exit(1);
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let node = Node { dir };
    node.note(&arguments.join(" "));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let code = match node.run(&words) {
        Ok(()) => 0,
        Err((code, message)) => {
            eprintln!("{message}");
            code
        }
    };
    std::process::exit(code);
}

type Outcome = Result<(), (i32, String)>;

fn fail<T>(message: impl Into<String>) -> Result<T, (i32, String)> {
    Err((1, message.into()))
}

struct Node {
    dir: PathBuf,
}

/// A flag and its value, or nothing where the word is no flag.
fn flag<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.trim_start_matches('-').strip_prefix(name)?.strip_prefix('='))
}

impl Node {
    fn note(&self, line: &str) {
        let path = self.dir.join("calls.log");
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// A switch of `daemon.json`.
    fn setting(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.dir.join("daemon.json")).unwrap_or_default();
        let settings: Value = serde_json::from_str(&text).unwrap_or_default();
        settings[name].clone()
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.setting(name).as_str().unwrap_or(default).to_owned()
    }

    fn is(&self, name: &str) -> bool {
        self.setting(name) == true
    }

    fn run(&self, words: &[&str]) -> Outcome {
        if let Some(wait) = self.setting("slow_ms").as_u64() {
            std::thread::sleep(Duration::from_millis(wait));
        }
        let words = match words {
            [socket, rest @ ..] if socket.starts_with("--socket=") => {
                if self.text("socket", "") != socket["--socket=".len()..] {
                    return fail(
                        "failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)",
                    );
                }
                rest
            }
            _ => words,
        };
        match words {
            ["version"] => {
                println!("{}\n  tailscale commit: 53a0d659\n  go version: go1.26", self.text("version", "1.102.3"));
                Ok(())
            }
            _ if self.is("hangs") => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            ["status", "--json", ..] => self.status(),
            ["funnel" | "serve", "status", "--json"] => self.serve_status(),
            ["serve", "set-raw"] => self.set_raw(),
            ["funnel" | "serve", "reset"] => self.write(&json!({})),
            [command @ ("funnel" | "serve"), rest @ ..] => self.configure(*command == "funnel", rest),
            _ => Err((2, format!("flag provided but not defined: {words:?}"))),
        }
    }

    fn reachable(&self, text: &str) -> Outcome {
        if self.is("down") { fail(text) } else { Ok(()) }
    }

    fn status(&self) -> Outcome {
        self.reachable("failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)")?;
        let mut capabilities = Map::new();
        for name in ["https", "funnel"] {
            if !self.is(&format!("no_{name}")) {
                capabilities.insert(name.into(), Value::Null);
            }
        }
        let ports = self.text("ports", "443,8443,10000");
        capabilities.insert(format!("https://tailscale.com/cap/funnel-ports?ports={ports}"), Value::Null);
        let status = json!({
            "Version": self.text("daemon_version", &self.text("version", "1.102.3")),
            "BackendState": self.text("backend", "Running"),
            "AuthURL": "",
            "Self": {
                "ID": self.text("node_id", "nAbCdEf"),
                "DNSName": format!("{}.", self.name()),
                "Online": true,
                "CapMap": capabilities,
                "KeyExpiry": self.setting("key_expiry"),
            },
            "CurrentTailnet": {
                "Name": self.text("tailnet", "alice@example.com"),
                "MagicDNSSuffix": self.name().split_once('.').map_or("", |(_, suffix)| suffix),
                "MagicDNSEnabled": true,
            },
            "Health": [],
            "Peer": null,
        });
        print!("{status:#}");
        Ok(())
    }

    fn name(&self) -> String {
        self.text("name", "foo.test.ts.net")
    }

    fn serve_status(&self) -> Outcome {
        self.reachable(
            "getting serve config: Failed to connect to local Tailscale daemon for /localapi/v0/serve-config; \
             not running? Error: dial unix /run/tailscale/tailscaled.sock: connect: no such file or directory",
        )?;
        if self.is("garbage") {
            println!("<html>");
        } else {
            println!("{:#}", whole(&self.dir));
        }
        Ok(())
    }

    fn configure(&self, funnel: bool, words: &[&str]) -> Outcome {
        self.reachable("failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)")?;
        match self.text("backend", "Running").as_str() {
            "Running" => {}
            "Stopped" => return fail("Tailscale is stopped."),
            "NeedsLogin" => return fail("Logged out.\nLog in at: https://login.example/a/1"),
            other => return fail(format!("unexpected state: {other}")),
        }
        // Closing by `funnel` asks for the capability too.
        if funnel && self.setting("prompt").is_string() {
            println!(
                "\nFunnel is not enabled on your tailnet.\nTo enable, visit:\n\n         https://login.example/f/funnel\n"
            );
            match self.text("prompt", "").as_str() {
                "exit" => return Ok(()),
                _ => loop {
                    std::thread::sleep(Duration::from_secs(3600));
                },
            }
        }
        let port = flag(words, "https").unwrap_or("443").to_owned();
        let target = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
        let target = if target.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("http://127.0.0.1:{target}")
        } else {
            target.to_owned()
        };
        let key = format!("{}:{port}", self.name());
        if target == "off" {
            return self.off(&port, &key);
        }
        if funnel && self.is("pretends") {
            return Ok(());
        }
        let entry = |port: &str, key: &str, open: bool| {
            let mut part = json!({
                "TCP": {port: {"HTTPS": true}},
                "Web": {key: {"Handlers": {"/": {"Proxy": target}}}},
            });
            if open {
                part["AllowFunnel"] = json!({key: true});
            }
            part
        };
        if words.contains(&"--bg") {
            if has_port(&sessions(&self.dir), &port) {
                return fail(format!("foreground listener already exists for port {port}"));
            }
            let mut config = background(&self.dir);
            merge(&mut config, &entry(&port, &key, funnel));
            if !funnel && config["AllowFunnel"][&key] == true {
                eprintln!("Removing Funnel for {}:{key}", self.name());
                take(&mut config, "AllowFunnel", &key);
            }
            return self.write(&config);
        }
        if has_port(&json!({"": background(&self.dir)}), &port) || has_port(&sessions(&self.dir), &port) {
            return fail(format!("updating config: listener already exists for port {port}"));
        }
        self.foreground(&entry(&port, &key, funnel), &key)
    }

    /// Holds a session until it is taken away or the daemon ends; killing this process ends it too.
    fn foreground(&self, part: &Value, key: &str) -> Outcome {
        self.may_write()?;
        std::thread::sleep(Duration::from_millis(self.setting("open_ms").as_u64().unwrap_or(0)));
        let id = format!("{:016x}", std::process::id());
        let folder = self.dir.join("sessions");
        std::fs::create_dir_all(&folder).unwrap();
        let (unfinished, path) = (self.dir.join(format!(".{id}")), folder.join(&id));
        let mut file = File::create(&unfinished).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        file.write_all(part.to_string().as_bytes()).unwrap();
        std::fs::rename(&unfinished, &path).unwrap();
        let text = format!("Available on the internet:\n\nhttps://{key}/\n|-- proxy\n\nPress Ctrl+C to exit.\n");
        // Go ends a program that writes into a closed standard output.
        if std::io::stdout().write_all(text.as_bytes()).is_err() {
            std::process::exit(141);
        }
        let generation = self.setting("generation");
        while path.exists() && !self.is("down") && self.setting("generation") == generation {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_file(&path);
        fail("error: watching IPN bus: EOF")
    }

    fn off(&self, port: &str, key: &str) -> Outcome {
        self.may_write()?;
        let mut config = background(&self.dir);
        if config["Web"].get(key).is_none() {
            let help = "try `tailscale serve --help` for usage info";
            return fail(format!("error: failed to remove web serve: handler does not exist\n{help}"));
        }
        if let Some(left) = self.setting("clashes").as_u64().filter(|left| *left > self.count("clash")) {
            self.note(&format!("clash {left}"));
            return fail(
                "Another client is changing the serve config; please try again.\nPreconditions failed: etag mismatch",
            );
        }
        for (section, key) in [("TCP", port), ("Web", key), ("AllowFunnel", key)] {
            take(&mut config, section, key);
        }
        self.write(&config)
    }

    fn count(&self, what: &str) -> u64 {
        let calls = std::fs::read_to_string(self.dir.join("calls.log")).unwrap_or_default();
        calls.lines().filter(|line| line.starts_with(what)).count() as u64
    }

    fn set_raw(&self) -> Outcome {
        self.reachable("failed to connect to local tailscaled")?;
        self.may_write()?;
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).unwrap();
        let Ok(config) = serde_json::from_str::<Value>(&text) else { return fail("error decoding config") };
        self.write(&config)
    }

    fn may_write(&self) -> Outcome {
        if self.is("denied") {
            return fail(
                "sending serve config: Access denied: serve config denied\n\nUse 'sudo tailscale serve'.\n\
                 To not require root, use 'sudo tailscale set --operator=$USER' once.",
            );
        }
        if self.is("write_fails") {
            return fail("updating config: writing ServeConfig to StateStore: no space left on device");
        }
        Ok(())
    }

    /// Replaces the whole configuration; sessions that it does not name are ended.
    fn write(&self, config: &Value) -> Outcome {
        self.may_write()?;
        let mut config = config.clone();
        let kept = config.as_object_mut().and_then(|whole| whole.shift_remove("Foreground")).unwrap_or_default();
        for entry in std::fs::read_dir(self.dir.join("sessions")).into_iter().flatten() {
            let entry = entry.unwrap();
            if kept.get(entry.file_name().to_str().unwrap()).is_none() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let unfinished = self.dir.join(format!(".serve.{}", std::process::id()));
        std::fs::write(&unfinished, format!("{config:#}\n")).unwrap();
        std::fs::rename(unfinished, self.dir.join("serve.json")).unwrap();
        Ok(())
    }
}

fn background(dir: &Path) -> Value {
    let text = std::fs::read_to_string(dir.join("serve.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|_| json!({}))
}

/// The sessions whose process lives: that is, holds the lock.
fn sessions(dir: &Path) -> Value {
    let mut found = Map::new();
    for entry in std::fs::read_dir(dir.join("sessions")).into_iter().flatten().flatten() {
        let Ok(mut file) = File::open(entry.path()) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            let _ = std::fs::remove_file(entry.path());
            continue;
        }
        let mut text = String::new();
        if file.read_to_string(&mut text).is_ok()
            && let Ok(part) = serde_json::from_str(&text)
        {
            found.insert(entry.file_name().to_string_lossy().into_owned(), part);
        }
    }
    Value::Object(found)
}

/// What `funnel status --json` prints.
fn whole(dir: &Path) -> Value {
    let mut config = background(dir);
    let sessions = sessions(dir);
    if sessions.as_object().is_some_and(|sessions| !sessions.is_empty()) {
        config["Foreground"] = sessions;
    }
    config
}

fn has_port(parts: &Value, port: &str) -> bool {
    parts.as_object().unwrap().values().any(|part| part["TCP"].get(port).is_some())
}

fn merge(config: &mut Value, part: &Value) {
    for (section, entries) in part.as_object().unwrap() {
        for (key, value) in entries.as_object().unwrap() {
            config[section][key] = value.clone();
        }
    }
}

fn take(config: &mut Value, section: &str, key: &str) {
    let Some(entries) = config.get_mut(section).and_then(Value::as_object_mut) else { return };
    entries.shift_remove(key);
    if entries.is_empty() {
        config.as_object_mut().unwrap().shift_remove(section);
    }
}
