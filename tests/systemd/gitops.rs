//! A host with the hub at work in a machine: repositories on its disk, pushes to them, deliveries, runs and what they did.
//! Only what several tests need to say about a deployment; what they expect of it stays with them.
#![allow(clippy::print_stderr, reason = "a slow run is worth a line")]

use std::io::{Seek, Write};
use std::time::Duration;

use serde_json::Value;

use crate::machine::{Machine, describe};

/// How long something that happens within a second may take on a busy host.
pub const SOON: Duration = Duration::from_secs(30);
/// The secret of the machine's webhooks.
const SECRET: &str = "a secret for the tests only";

/// The MESSAGE_ID of what systemd says when it begins to start a unit (sd-messages(3)).
pub const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";

/// One file of a push.
pub enum File<'a> {
    Text(&'a str, &'a str),
    Bytes(&'a [u8], &'a [u8]),
    Link(&'a str, &'a str),
    Gone(&'a str),
}
pub use File::{Bytes, Gone, Link, Text};

/// What `gitops-sync --json` said.
pub struct Run {
    pub exit: i32,
    pub result: Value,
    pub log: String,
}

impl Run {
    pub fn new(output: &std::process::Output) -> Self {
        let result = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { exit: output.status.code().unwrap_or(-1), result, log }
    }

    /// The result of the first repository.
    pub fn first(&self) -> &Value {
        &self.result["repositories"][0]
    }

    pub fn reason(&self) -> &str {
        self.first()["reason"].as_str().unwrap_or_default()
    }

    /// What was done to units, as `action unit`, in order.
    pub fn actions(&self) -> Vec<String> {
        actions(self.first())
    }

    pub fn expect(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "{:#}\n{}", self.result, self.log);
        self
    }
}

/// What a repository's result says was done to units, as `action unit`, in order.
pub fn actions(result: &Value) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("?").to_owned();
    let entries = result["restarts"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| format!("{} {}", text(entry, "action"), text(entry, "unit"))).collect()
}

/// hub.toml's table for a repository whose origin is on the machine's disk; `more` are further keys.
pub fn repository(name: &str, more: &str) -> String {
    let grace = if more.contains("health") { "" } else { "health = { grace_seconds = 1 }" };
    format!(
        "[[repository]]\nname = \"acme/{name}\"\nurl = \"/srv/origin/{name}.git\"\npath = \"/srv/{name}\"\n{more}\n{grace}\n"
    )
}

/// Writes hub.toml.
pub fn configure(machine: &Machine, repositories: &[String]) {
    machine.write("/etc/observability-hub/hub.toml", repositories.concat());
}

/// Starts the gateway and the queue's watcher.
pub fn start_hub(machine: &Machine) {
    machine.write("/etc/credstore/webhook-secret", SECRET);
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "proxy.service", "gitops-sync.path"]);
}

/// Commits files to a repository's branch, on top of what is there; returns the commit.
pub fn push(machine: &Machine, name: &str, files: &[File]) -> String {
    push_to(machine, name, "main", files)
}

/// As [`push`], to a branch.
pub fn push_to(machine: &Machine, name: &str, branch: &str, files: &[File]) -> String {
    let origin = format!("/srv/origin/{name}.git");
    if !machine.exists(&origin) {
        machine.ok(&["git", "init", "--quiet", "--bare", "--initial-branch=main", &origin]);
    }
    let reference = format!("refs/heads/{branch}");
    let mut stream = format!("commit {reference}\nmark :1\ncommitter T <t@example.org> now\ndata 1\nx\n").into_bytes();
    if machine.run(&["git", "-C", &origin, "rev-parse", "--verify", "--quiet", &reference]).status.success() {
        stream.extend(format!("from {reference}^0\n").bytes());
    }
    for file in files {
        let (mode, path, content) = match file {
            Text(path, content) => ("100644", path.as_bytes(), content.as_bytes()),
            Bytes(path, content) => ("100644", *path, *content),
            Link(path, target) => ("120000", path.as_bytes(), target.as_bytes()),
            Gone(path) => {
                stream.extend(format!("D {path}\n").bytes());
                continue;
            }
        };
        stream.extend(format!("M {mode} inline \"").bytes());
        stream.extend(path.iter().flat_map(|byte| format!("\\{byte:03o}").into_bytes()));
        stream.extend(format!("\"\ndata {}\n", content.len()).bytes());
        stream.extend_from_slice(content);
        stream.push(b'\n');
    }
    let mut input = tempfile::tempfile().expect("a temporary file");
    input.write_all(&stream).and_then(|()| input.rewind()).expect("the stream fits");
    let argv = ["git", "-C", &origin, "fast-import", "--quiet", "--date-format=now"];
    let output = machine.run_for(&argv, Some(input), SOON);
    assert!(output.status.success(), "git fast-import: {}", describe(&output));
    machine.ok(&["git", "-C", &origin, "rev-parse", &reference]).trim().to_owned()
}

/// Sends a signed push of a repository's branch to the gateway, which must accept it.
pub fn deliver(machine: &Machine, name: &str) {
    machine.ok(&["hub", "webhook-test", &format!("acme/{name}")]);
}

/// Runs the worker by hand for one repository.
pub fn sync(machine: &Machine, name: &str) -> Run {
    sync_with(machine, &[&format!("acme/{name}")])
}

pub fn sync_with(machine: &Machine, arguments: &[&str]) -> Run {
    let started = std::time::Instant::now();
    // One that goes back because nothing answers any more asks for a minute and a half whether it does.
    let output = machine.run_for(&[&["gitops-sync", "--json"], arguments].concat(), None, 10 * SOON);
    if started.elapsed() > SOON {
        eprintln!("slow: gitops-sync {arguments:?} took {:?}", started.elapsed());
    }
    Run::new(&output)
}

/// The commit that the hub has recorded as live.
pub fn deployed(machine: &Machine, name: &str) -> String {
    let output = machine.run(&["cat", &format!("/var/lib/observability-hub/gitops/deployed/acme__{name}.json")]);
    let record: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    record["commit"].as_str().unwrap_or_default().to_owned()
}

pub fn wait_deployed(machine: &Machine, name: &str, commit: &str) {
    machine.wait_for(&format!("{commit} of {name} to be live"), SOON, || deployed(machine, name) == commit);
    // The record of the run and the restart of own units come after.
    machine.wait_for("the worker to end", SOON, || show(machine, "gitops-sync.service", "ActiveState") != "activating");
}

/// The run record, newest run.
pub fn record(machine: &Machine) -> Value {
    serde_json::from_str(&machine.read("/var/lib/observability-hub/gitops/run.json")).expect("the record is JSON")
}

/// A property of a unit.
pub fn show(machine: &Machine, unit: &str, property: &str) -> String {
    machine.ok(&["systemctl", "show", "--value", "-p", property, unit]).trim().to_owned()
}

/// A service that appends a line to /srv/log when it starts and when it stops: `start NAME VERSION`.
pub fn service(name: &str, version: &str) -> String {
    format!(
        "[Unit]\nDescription={name} {version}\n[Service]\n\
         ExecStart=/usr/bin/sh -c 'echo start {name} {version} >>/srv/log; exec sleep infinity'\n\
         ExecStop=/usr/bin/sh -c 'echo stop {name} {version} >>/srv/log'\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// The lines of /srv/log, which is then empty.
pub fn log(machine: &Machine) -> Vec<String> {
    let text = String::from_utf8(machine.run(&["cat", "/srv/log"]).stdout).expect("text");
    machine.ok(&["rm", "-f", "/srv/log"]);
    text.lines().map(str::to_owned).collect()
}

/// Links in the folder of installed units that lead nowhere; masks are not among them.
pub fn dangling(machine: &Machine) -> String {
    machine.ok(&["find", "/etc/systemd/system", "-xtype", "l"])
}

/// How often systemd began to start a unit, in all boots.
pub fn starts(machine: &Machine, unit: &str) -> usize {
    let journal = machine.journal(unit);
    journal.iter().filter(|entry| entry["MESSAGE_ID"] == STARTING && entry["UNIT"] == unit).count()
}
