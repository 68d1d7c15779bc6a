//! `hub up`: everything on one host without systemd units, kept alive, stopped whole.

use crate::support::notice_server;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::{Host, Origin, Service, deliver, eventually, free_address, push_body, send, send_raw};
use serde_json::Value;

const SECRET: &str = "0123456789abcdef-secret";

struct Up {
    host: Host,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Up {
    fn new() -> Self {
        let up = Self { host: Host::new(), listen: free_address(), admin: free_address() };
        up.configure("");
        up
    }

    /// Writes hub.toml with the two addresses and `rest`.
    fn configure(&self, rest: &str) {
        let text = format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n{rest}\n", self.listen, self.admin);
        self.host.configure(&text);
    }

    fn repository(&self, origin: &Origin, rest: &str) -> String {
        let path = self.host.path("checkout");
        let id = std::process::Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(id.stdout).unwrap();
        format!(
            "[[repository]]\nname = \"acme/infra\"\nurl = \"{}\"\npath = \"{}\"\nunits = \"\"\nuser = \"{}\"\n{rest}",
            origin.url(),
            path.display(),
            user.trim()
        )
    }

    fn start(&self) -> Service {
        let service = self.host.start("hub", &["up"]);
        service.line("up");
        self.answers();
        service
    }

    fn status(&self) -> Option<u16> {
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.listen);
        send_raw(self.listen, request.as_bytes()).ok().map(|answer| answer.status)
    }

    fn answers(&self) {
        eventually("the proxy answers", || self.status() == Some(200));
    }
}

/// How many lines there are with this `msg` from hub about this child.
fn count(service: &Service, msg: &str, child: &str) -> usize {
    service.lines().iter().filter(|line| line["msg"] == msg && line["child"] == child).count()
}

/// Waits for the number of lines and returns the last of them.
fn nth(service: &Service, number: usize, msg: &str, child: &str) -> Value {
    let fits = |line: &&Value| line["msg"] == msg && line["child"] == child;
    eventually(&format!("{msg} of {child} for the time number {number}"), || count(service, msg, child) >= number);
    service.lines().iter().filter(fits).nth(number - 1).unwrap().clone()
}

fn pid(line: &Value) -> u64 {
    line["pid"].as_u64().unwrap()
}

/// True where there is no such process, or only what nobody has collected of it.
fn is_gone(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X'])
}

/// A process that must not outlive the test, even where the test fails: it would hold the test's output open.
struct Mortal(u64);

impl Drop for Mortal {
    fn drop(&mut self) {
        if !is_gone(self.0) {
            kill(self.0, "KILL");
        }
    }
}

fn kill(pid: u64, signal: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn the_first_start_needs_nothing_and_says_what_to_do() {
    let up = Up::new();
    let state = up.host.path("new/state");
    let mut command = up.host.command("hub");
    command.arg("up").env("HUB_STATE_DIR", &state);
    let service = Service::start(command);
    let line = service.line("up");
    assert_eq!(line["webhook"], format!("http://{}/api/webhook/gitops", up.listen));
    assert_eq!(line["status_page"], format!("http://{}/", up.admin));
    assert_eq!(line["state_dir"], state.to_str().unwrap());
    assert_eq!(line["config"], up.host.path("hub.toml").to_str().unwrap());
    assert_eq!((&line["repositories"], &line["webhook_secret"]), (&serde_json::json!([]), &Value::Bool(false)));
    assert!(line["next"].as_str().unwrap().ends_with("hub webhook-test"), "{line}");
    up.answers();
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o755);
    let answer = deliver(up.listen, SECRET, "ping", "1", b"{}");
    assert_eq!(answer.status, 503, "no secret yet");
    nth(&service, 1, "run_ended", "gitops-sync");
}

#[test]
fn a_killed_child_is_started_again() {
    let up = Up::new();
    let service = up.start();
    let first = pid(&nth(&service, 1, "service_started", "proxy"));
    kill(first, "KILL");
    let ended = nth(&service, 1, "service_ended", "proxy");
    assert_eq!((&ended["ended"], &ended["again_in_seconds"]), (&"signal 9".into(), &1.into()));
    let second = pid(&nth(&service, 2, "service_started", "proxy"));
    assert_ne!(first, second);
    up.answers();
    kill(second, "KILL");
    assert_eq!(nth(&service, 2, "service_ended", "proxy")["again_in_seconds"], 2);
}

#[test]
fn a_stop_ends_everything_within_ten_seconds() {
    for signal in ["TERM", "INT"] {
        let up = Up::new();
        let origin = Origin::new(&up.host);
        origin.push(&[("file", "one")]);
        // The run is in the middle of a long command when the stop comes.
        let marker = up.host.path("marker");
        let build = format!("build = [\"/bin/sh\", \"-c\", \"echo $$ > {}; exec sleep 600\"]", marker.display());
        up.configure(&up.repository(&origin, &build));
        let mut service = up.start();
        eventually("the build runs", || std::fs::read_to_string(&marker).is_ok_and(|text| text.ends_with('\n')));
        let build: u64 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
        let proxy = pid(&nth(&service, 1, "service_started", "proxy"));
        let asked = Instant::now();
        service.signal(signal);
        assert_eq!(service.wait(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(10));
        assert!(is_gone(proxy));
        eventually("the build has ended", || is_gone(build));
        assert_eq!(up.status(), None);
        assert_eq!(count(&service, "service_stopped", "proxy"), 1);
    }
}

#[test]
fn a_child_that_does_not_stop_is_killed() {
    let up = Up::new();
    let mut service = up.start();
    let proxy = pid(&nth(&service, 1, "service_started", "proxy"));
    kill(proxy, "STOP");
    let asked = Instant::now();
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert!(is_gone(proxy));
    assert_eq!(count(&service, "service_killed", "proxy"), 1);
}

#[test]
fn nothing_outlives_a_killed_hub() {
    let up = Up::new();
    let mut service = up.start();
    let proxy = pid(&nth(&service, 1, "service_started", "proxy"));
    let _mortal = Mortal(proxy);
    service.signal("KILL");
    assert_eq!(service.wait(), None);
    eventually("the proxy has ended", || is_gone(proxy));
    // Nothing is left that would be in the way of the next one.
    up.start();
}

#[test]
fn two_of_them_do_not_share_a_state_folder() {
    let up = Up::new();
    let _first = up.start();
    let second = up.host.run("hub", &["up"]);
    assert_eq!(second.status.code(), Some(1));
    let line: Value = serde_json::from_slice(&second.stdout).unwrap();
    let error = line["error"].as_str().unwrap();
    assert!(error.starts_with("another hub up runs with the state folder"), "{error}");
    assert_eq!(up.status(), Some(200));
}

#[test]
fn a_port_in_use_is_named() {
    let up = Up::new();
    for (address, key) in [(up.listen, "proxy.listen"), (up.admin, "proxy.admin_listen")] {
        let _taken = TcpListener::bind(address).unwrap();
        let output = up.host.run("hub", &["up"]);
        assert_eq!(output.status.code(), Some(1));
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        let error = line["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("{address} ({key}) is in use by another program")), "{error}");
    }
}

#[test]
fn a_queued_request_starts_one_run() {
    let up = Up::new();
    let origin = Origin::new(&up.host);
    origin.push(&[("file", "one")]);
    up.configure(&up.repository(&origin, ""));
    up.host.credential("webhook-secret", SECRET);
    let service = up.start();
    nth(&service, 1, "run_ended", "gitops-sync");
    let file = up.host.path("checkout/file");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");

    // Neither an unfinished file nor one in another folder wants a run.
    let queue = up.host.path("state/proxy/queue");
    std::fs::write(queue.join(".unfinished"), "{").unwrap();
    std::fs::write(queue.parent().unwrap().join("other.json"), "{}").unwrap();
    for (number, content) in [(2, "two"), (3, "three")] {
        origin.push(&[("file", content)]);
        let answer = deliver(up.listen, SECRET, "push", "id", &push_body("acme/infra", "main"));
        assert_eq!(answer.status, 202);
        nth(&service, number, "run_ended", "gitops-sync");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
        assert_eq!(count(&service, "run_ended", "gitops-sync"), number);
    }
    // What nobody understands does not make it spin: the worker moves it away.
    std::fs::write(queue.join("noise"), "noise").unwrap();
    nth(&service, 4, "run_ended", "gitops-sync");
    assert!(!queue.join("noise").exists());
}

#[test]
fn a_request_from_before_the_start_is_taken_up() {
    let up = Up::new();
    let origin = Origin::new(&up.host);
    origin.push(&[("file", "one")]);
    up.configure(&up.repository(&origin, ""));
    assert_eq!(up.host.run("hub", &["deploy", "acme/infra"]).status.code(), Some(0));
    let service = up.start();
    nth(&service, 1, "run_ended", "gitops-sync");
    assert!(up.host.path("checkout/file").exists());
    assert_eq!(std::fs::read_dir(up.host.path("state/proxy/queue")).unwrap().count(), 0);
}

#[test]
fn a_broken_configuration_changes_nothing_and_a_right_one_is_taken_by_the_same_proxy() {
    let mut up = Up::new();
    up.host.credential("webhook-secret", SECRET);
    let service = up.start();
    let proxy = pid(&nth(&service, 1, "service_started", "proxy"));
    nth(&service, 1, "run_ended", "gitops-sync");
    let of = |service: &Service, whose: &str, msg: &str| {
        service.lines().iter().filter(|line| line["msg"] == msg && line["service"] == whose).count()
    };
    let both = |service: &Service, number: usize, msg: &str| {
        for whose in ["hub", "proxy"] {
            eventually(&format!("{msg} of {whose}, {number}"), || of(service, whose, msg) >= number);
        }
    };

    up.configure("[gate]\nport = 80");
    both(&service, 1, "configuration_refused");
    let refused = service.line("configuration_refused");
    let expected = format!("{}:5: gate.port: 80 cannot be a funnel's port", up.host.path("hub.toml").display());
    assert!(refused["error"].as_str().unwrap().starts_with(&expected), "{refused}");
    assert_eq!(up.status(), Some(200));
    up.configure("");
    both(&service, 1, "configuration_right_again");

    // Credentials count too: the proxy would not start with this one.
    up.host.credential("webhook-secret", "short");
    both(&service, 2, "configuration_refused");
    assert_eq!(deliver(up.listen, SECRET, "ping", "1", b"{}").status, 200);
    up.host.credential("webhook-secret", "another-secret-that-is-long");
    both(&service, 1, "configuration_changed");
    assert_eq!(deliver(up.listen, SECRET, "ping", "1", b"{}").status, 401);

    // A signal to hub is one to those that it runs for long.
    let old = up.listen;
    up.listen = free_address();
    up.configure("");
    service.signal("HUP");
    up.answers();
    both(&service, 2, "configuration_changed");
    assert!(send_raw(old, b"GET / HTTP/1.1\r\n\r\n").is_err());
    assert_eq!(send(up.admin, "GET", "/api/status", &[], b"").status, 200);
    assert!(!is_gone(proxy));
    assert_eq!((count(&service, "service_started", "proxy"), count(&service, "service_ended", "proxy")), (1, 0));
}

#[test]
fn a_broken_configuration_is_told_at_once_by_the_one_before() {
    let up = Up::new();
    up.host.credential("webhook-secret", SECRET);
    let server = notice_server::Server::start();
    let told = |rest: &str| up.configure(&format!("[notify]\nurl = \"{}\"\n{rest}", server.url));
    told("");
    let service = up.start();
    nth(&service, 1, "run_ended", "hub-watch");
    told("[gate]\nport = 80");
    let heard = |text: &str| server.got().iter().any(|request| request.body.contains(text));
    eventually("the broken line is told", || heard("gate.port: 80"));
}

#[test]
fn a_new_inbox_is_watched_without_a_restart() {
    let up = Up::new();
    let service = up.start();
    let inbox = up.host.path("inbox");
    std::fs::create_dir(&inbox).unwrap();
    up.configure(&format!("[[pipeline]]\nname = \"files\"\nsource = \"file:{}\"", inbox.display()));
    service.line("configuration_changed");
    std::fs::write(inbox.join(".new"), "{\"_id\": 1, \"status\": \"ingested\"}\n").unwrap();
    std::fs::rename(inbox.join(".new"), inbox.join("one.jsonl")).unwrap();
    eventually("the file is moved into the database", || !inbox.join("one.jsonl").exists());
}

#[test]
fn what_was_refused_is_looked_at_when_its_table_changes_and_at_every_start() {
    let up = Up::new();
    let origin = Origin::new(&up.host);
    origin.push(&[("file", "one")]);
    up.configure(&up.repository(&origin, "branch = \"master\""));
    let file = up.host.path("checkout/file");
    let refused = |service: &Service| {
        let line = service.line("refused");
        assert!(line["reason"].as_str().unwrap().starts_with("the branch master does not exist"), "{line}");
        assert!(line["look_again"].as_str().unwrap().contains("hub deploy acme/infra"), "{line}");
        nth(service, 1, "run_ended", "gitops-sync");
    };
    let mut service = up.start();
    refused(&service);
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));

    let mut service = up.start();
    refused(&service);
    up.configure(&up.repository(&origin, ""));
    eventually("the right branch is deployed", || file.exists());
    nth(&service, 2, "run_ended", "gitops-sync");
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));

    let service = up.start();
    service.line("nothing_due");
    let end = nth(&service, 1, "run_ended", "gitops-sync");
    assert_eq!(end["ended"], "exit code 0");
}

#[test]
fn queued_requests_wait_while_the_configuration_is_broken() {
    let up = Up::new();
    let origin = Origin::new(&up.host);
    origin.push(&[("file", "one")]);
    up.configure(&up.repository(&origin, ""));
    up.host.credential("webhook-secret", SECRET);
    let service = up.start();
    nth(&service, 1, "run_ended", "gitops-sync");
    up.configure("nonsense");
    service.line("configuration_refused");
    origin.push(&[("file", "two")]);
    assert_eq!(deliver(up.listen, SECRET, "push", "id", &push_body("acme/infra", "main")).status, 202);
    assert!(up.host.path("state/proxy/queue/acme__infra.json").exists());
    up.configure(&up.repository(&origin, ""));
    let file = up.host.path("checkout/file");
    eventually("the push is applied", || std::fs::read_to_string(&file).is_ok_and(|text| text == "two"));
    let lines = service.lines();
    let place = |msg: &str| lines.iter().position(|line| line["msg"] == msg).unwrap();
    let between = &lines[place("configuration_refused")..place("configuration_right_again")];
    // Nothing runs but what tells of it.
    assert!(between.iter().all(|line| line["msg"] != "run_ended" || line["child"] == "hub-watch"), "{between:#?}");
}

/// `hub up` in a terminal of its own; `arguments` follow.
fn at_a_terminal(up: &Up, arguments: &str) -> Service {
    let hub = up.host.command("hub");
    // Under nohup(1) the signal that a terminal leaves behind would be ignored.
    let mut terminal = std::process::Command::new("env");
    let command = format!("{} up {arguments}", hub.get_program().display());
    terminal.args(["--default-signal=HUP", "script", "--quiet", "--command", &command, "/dev/null"]);
    terminal.envs(hub.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Service::start(terminal)
}

fn says(service: &Service, text: &str) -> String {
    let said = |line: &Value| line["not_json"].as_str().is_some_and(|line| line.contains(text));
    service.line_where(text, said)["not_json"].as_str().unwrap().to_owned()
}

#[test]
fn a_person_at_a_terminal_reads_words_and_takes_everything_along_when_leaving() {
    let up = Up::new();
    let service = at_a_terminal(&up, "");
    says(&service, &format!("Webhook URL    http://{}/api/webhook/gitops", up.listen));
    says(&service, &format!("Status page    http://{}/", up.admin));
    says(&service, "Repositories   none yet");
    says(&service, "hub webhook-test");
    let started = says(&service, "hub             service started; proxy; pid ");
    let proxy: u64 = started.trim().rsplit(' ').next().unwrap().parse().unwrap();
    up.answers();
    let _mortal = Mortal(proxy);
    service.signal("KILL");
    eventually("the proxy has ended with the terminal", || is_gone(proxy));
}

#[test]
fn at_a_terminal_every_service_writes_short_whole_lines_and_hints_name_the_configuration() {
    let up = Up::new();
    let (inbox, toml) = (up.host.path("inbox"), up.host.path("my own.toml"));
    std::fs::create_dir(&inbox).unwrap();
    std::fs::write(inbox.join("a.jsonl"), "{\"_id\": 1, \"status\": \"ingested\"}\n").unwrap();
    let pipeline = format!("[[pipeline]]\nname = \"reading\"\nsource = \"file:{}\"", inbox.display());
    up.configure(&pipeline);
    std::fs::rename(up.host.path("hub.toml"), &toml).unwrap();
    let service = at_a_terminal(&up, &format!("--config '{}'", toml.display()));
    says(&service, &format!("webhook-test --config '{}'", toml.display()));
    says(&service, "proxy           warning: secret missing; no webhook secret");
    says(&service, "system-metrics  metrics stored; stored ");
    says(&service, "reading-sync    sync done; ");
    service.signal("INT");
    let all = service.lines();
    let lines = all.iter().map(|line| line["not_json"].as_str().unwrap_or_else(|| panic!("JSON for a person: {line}")));
    // No part of a progress bar, and nothing that moves the cursor.
    let ragged: Vec<&str> =
        lines.filter(|line| line.contains(['\u{1b}', '█', '░']) || line.trim_end().contains('\r')).collect();
    assert!(ragged.is_empty(), "{ragged:#?}");
}

#[test]
fn at_a_terminal_json_is_written_where_it_is_asked_for() {
    let up = Up::new();
    let service = at_a_terminal(&up, "--json");
    service.line("up");
    let _mortal = Mortal(pid(&service.line("service_started")));
    assert_eq!(service.line("listening")["service"], "proxy");
}

#[test]
fn pages_read_what_they_show_in_this_one_program() {
    let up = Up::new();
    let service = up.start();
    service.line("metrics_stored");
    for (path, shown) in
        [("/host", "<figure"), ("/deployments", "Nothing was deployed here yet"), ("/units", "None yet")]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", up.admin);
        let answer = send_raw(up.admin, request.as_bytes()).unwrap();
        let page = String::from_utf8_lossy(&answer.body);
        assert!(answer.status == 200 && page.contains(shown), "{path}: {page}");
    }
}
