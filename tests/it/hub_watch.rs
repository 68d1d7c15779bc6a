//! `hub watch`: what is wrong is told when it appears, and when it goes; nothing that a server does loses a notice or costs
//! anybody else anything.

use crate::support;
use crate::support::status;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::support::notice_server::Server;
use crate::support::status::record;
use crate::support::{Host, free_address, skip};
use serde_json::{Value, json};

/// A host whose only service is a worker, with this in `[notify]`.
fn host(notify: &str) -> Host {
    let host = Host::new();
    let addresses = format!("listen = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    host.configure(&format!("[proxy]\n{addresses}[notify]\n{notify}\n"));
    well(&host);
    host
}

fn well(host: &Host) {
    record(host, "gitops", "gitops-sync", 30, json!({ "status": "unchanged" }));
}

/// Its last run failed as a whole.
fn failed(host: &Host) {
    record(
        host,
        "gitops",
        "gitops-sync",
        30,
        json!({ "status": "failed", "error": "disk <full>\u{202e} & \u{1b}[31m" }),
    );
}

fn watch(host: &Host) -> Vec<Value> {
    let output = host.run("hub", &["watch"]);
    let log = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{log}{}", String::from_utf8_lossy(&output.stderr));
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Looks once, and forgets what was told of the beginning.
fn begin(host: &Host, server: &Server) {
    watch(host);
    server.got();
}

#[test]
fn a_failure_is_told_once_and_so_is_its_end() {
    let server = Server::start();
    let host = host(&format!("url = \"{}/my-topic\"", server.url));
    host.credential("notify-token", "tk_secret\n");
    begin(&host, &server);
    failed(&host);
    watch(&host);
    watch(&host);
    let got = server.got();
    assert_eq!(got.len(), 1, "{got:#?}");
    let notice = &got[0];
    assert_eq!((notice.method.as_str(), notice.path.as_str()), ("POST", "/my-topic"));
    assert_eq!(notice.header("Authorization"), "Bearer tk_secret");
    assert_eq!((notice.header("Priority"), notice.header("Tags")), ("5", "rotating_light"));
    assert!(notice.header("Title").ends_with(": gitops-sync failed"), "{notice:#?}");
    assert!(
        notice.body.contains("disk <full>\\u{202e} & \\u{1b}[31m") && notice.body.contains("since 20"),
        "{notice:#?}"
    );
    well(&host);
    watch(&host);
    watch(&host);
    let got = server.got();
    assert_eq!(got.len(), 1, "{got:#?}");
    assert!(got[0].header("Title").ends_with(": gitops-sync is well again") && got[0].header("Priority") == "2");
    assert!(got[0].body.contains(" for ") && got[0].body.contains(", until 20"), "{}", got[0].body);
}

#[test]
fn what_cannot_be_sent_waits_in_order_with_its_id_and_is_sent_once() {
    let server = Server::start();
    let host = host(&format!("url = \"{}/hook\"\nformat = \"json\"", server.url));
    host.credential("notify-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    begin(&host, &server);
    failed(&host);
    server.answers(500, &[]);
    let log = watch(&host);
    let line = log.iter().find(|line| line["msg"] == "notice_not_sent").unwrap();
    assert_eq!(line["service"], "hub-watch");
    assert!(line["error"].as_str().unwrap().contains("answered 500: the server's words"), "{line}");
    assert!(!line.to_string().contains("/hook"), "the path may be a secret: {line}");
    let run = host.json("state/watch/run.json");
    assert_eq!((&run["status"], &run["counts"]["waiting"]), (&json!("failed"), &json!(1)), "{run:#}");
    let first = server.got().remove(0);
    // The next one is behind it.
    well(&host);
    server.answers(503, &[("Retry-After", "3600")]);
    watch(&host);
    assert_eq!(server.got().len(), 1);
    watch(&host);
    assert_eq!(server.got().len(), 0, "it asked for an hour");
    status::change(&host.state().join("watch/state.json"), |state| {
        state["outboxes"]["url"]["not_before"] = Value::Null
    });
    watch(&host);
    let got = server.got();
    let kinds: Vec<Value> = got.iter().map(|one| one.json()["data"]["events"][0]["kind"].clone()).collect();
    assert_eq!(kinds, ["raised", "cleared"]);
    assert_eq!(got[0].header("webhook-id"), first.header("webhook-id"), "the same notice");
    assert!(got[0].header("webhook-signature").starts_with("v1,"), "{:#?}", got[0]);
    assert_ne!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    watch(&host);
    assert_eq!(server.got().len(), 0);
    let run = host.json("state/watch/run.json");
    assert_eq!((&run["status"], &run["counts"]["waiting"]), (&json!("nothing"), &json!(0)), "{run:#}");
}

#[test]
fn nobody_gets_the_token_by_a_redirection_and_a_dead_server_costs_the_command_nothing() {
    let (server, other) = (Server::start(), Server::start());
    let mark = tempfile::tempdir().unwrap();
    let told = mark.path().join("told");
    let command = format!("command = [\"sh\", \"-c\", \"cat >> {}\"]", told.display());
    let host = host(&format!("url = \"{}/a\"\nformat = \"slack\"\n{command}", server.url));
    host.credential("notify-token", "tk_secret");
    begin(&host, &server);
    std::fs::remove_file(&told).unwrap();
    failed(&host);
    server.answers(307, &[("Location", &format!("{}/b", other.url))]);
    let log = watch(&host);
    assert!(log.iter().any(|line| line.to_string().contains("leads elsewhere, which is not followed")), "{log:#?}");
    assert_eq!(other.got().len(), 0);
    let told: Value = serde_json::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
    assert_eq!(told["level"], "failed");
    let text = server.got()[0].json()["text"].as_str().unwrap().to_owned();
    assert!(text.contains("disk &lt;full&gt;\\u{202e} &amp;"), "{text}");
}

#[test]
fn the_heartbeat_says_fail_with_the_reasons_whatever_else_is_down() {
    let server = Server::start();
    let dead = free_address();
    let host = host(&format!("url = \"http://{dead}/x\"\nheartbeat = \"{}/uuid?rid=1\"", server.url));
    watch(&host);
    failed(&host);
    // Two looks within a minute are one heartbeat.
    status::change(&host.state().join("watch/state.json"), |state| state["heartbeat"]["at"] = Value::Null);
    watch(&host);
    let got: Vec<(String, bool)> =
        server.got().into_iter().map(|one| (one.path, one.body.contains("gitops-sync: "))).collect();
    assert_eq!(got, [("/uuid?rid=1".to_owned(), false), ("/uuid/fail?rid=1".to_owned(), true)]);
}

/// A proxy that carries one connection; tells what it was asked for.
fn tunnel() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
        let first = lines.next().unwrap();
        lines.find(String::is_empty).unwrap();
        let mut server = TcpStream::connect(first.split(' ').nth(1).unwrap()).unwrap();
        tell.send(first).unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        std::io::copy(&mut server, &mut client).unwrap();
    });
    (url, asked)
}

#[test]
fn a_test_says_what_came_back_and_what_to_do() {
    let server = Server::start();
    let none = host("");
    let output = none.run("hub", &["notify", "test"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("[notify]\n  url = "), "{said}");
    // The remedy of that sentence.
    let host = host(&format!("url = \"{}/secret-topic\"", server.url));
    let output = host.run("hub", &["notify", "test"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("answered 200") && !said.contains("secret-topic"), "{said}");
    assert!(server.got()[0].body.contains("this is a test; nothing is wrong"));
    server.answers(403, &[]);
    let output = host.run("hub", &["notify", "test"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("answered 403") && said.contains("look at the credential notify-token"), "{said}");
    let (proxy, asked) = tunnel();
    let output = host.command("hub").args(["notify", "test"]).env("http_proxy", proxy).output().unwrap();
    assert!(output.status.success(), "by way of a proxy: {output:?}");
    assert!(asked.recv().unwrap().starts_with("CONNECT 127.0.0.1:"));
}

#[test]
fn what_is_wrong_with_the_configuration_is_named() {
    for (notify, credential, expected) in [
        ("quiet = \"23-7\"", "", "hub.toml:5: notify.quiet: \"23-7\" are no hours of a day"),
        ("url = \"ntfy.sh/x\"", "", "hub.toml:5: notify.url: is not a URL"),
        (
            "format = \"pigeon\"",
            "",
            "hub.toml:5: notify.format: unknown variant `pigeon`, expected one of `ntfy`, `slack`",
        ),
        (
            "url = \"http://127.0.0.1:9/x\"\nformat = \"json\"",
            "secret",
            "credential notify-secret: is no secret of Standard Webhooks",
        ),
    ] {
        let host = host(notify);
        if !credential.is_empty() {
            host.credential("notify-secret", credential);
        }
        let output = host.run("hub", &["watch", "--check"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(&expected.replace('"', "\\\"")), "{notify}: {said}");
    }
}

#[test]
fn a_look_that_is_killed_anywhere_tells_each_thing_at_least_once_with_one_id() {
    let server = Server::start();
    let host = host(&format!("url = \"{}/hook\"\nformat = \"json\"", server.url));
    begin(&host, &server);
    failed(&host);
    for pause in (0..40).step_by(2) {
        let mut child = host.command("hub").arg("watch").stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    watch(&host);
    let got = server.got();
    let ids: std::collections::BTreeSet<&str> = got.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "{got:#?}");
}

/// What system-metrics left of this host just now.
fn sample(host: &Host, metrics: Value) {
    let folder = host.state().join("data/metrics");
    std::fs::create_dir_all(&folder).unwrap();
    let sample = json!({"time": jiff::Timestamp::now().to_string(), "host": "h", "os": "o", "metrics": metrics});
    std::fs::write(folder.join("sample.json"), sample.to_string()).unwrap();
}

#[test]
fn a_limit_that_is_passed_is_told_once_wherever_reasons_are_shown_and_can_be_moved() {
    let server = Server::start();
    let host = host(&format!("url = \"{}/x\"", server.url));
    begin(&host, &server);
    let full = |percent: f64| json!({"disk": {"/srv/x": {"used_percent": percent, "free": 2e9, "read_only": false}}});
    sample(&host, full(91.0));
    watch(&host);
    let got = server.got();
    assert_eq!(got.len(), 1, "{got:#?}");
    assert_eq!(got[0].header("Priority"), "3");
    assert!(got[0].body.contains("/srv/x is 91 % full, 2.0 GB are free"), "{}", got[0].body);
    assert!(got[0].body.contains("du -xh --max-depth=2 /srv/x"), "{}", got[0].body);
    let status = host.run("hub", &["status"]);
    let said = String::from_utf8(status.stdout).unwrap();
    assert!(status.status.code() == Some(1) && said.contains("/srv/x is 91 % full"), "{said}");
    // On the edge nothing is told; what gets worse is.
    for percent in [89.0, 90.5, 89.5] {
        sample(&host, full(percent));
        watch(&host);
    }
    assert_eq!(server.got().len(), 0);
    sample(&host, full(98.0));
    watch(&host);
    assert_eq!(server.got()[0].header("Priority"), "5");
    // A damaged sample is not a well host.
    std::fs::write(host.state().join("data/metrics/sample.json"), "{torn").unwrap();
    watch(&host);
    let got = server.got();
    assert!(got.len() == 1 && got[0].body.contains("sample.json") && !got[0].body.contains("well again"), "{got:#?}");
    let toml = std::fs::read_to_string(host.path("hub.toml")).unwrap();
    host.configure(&format!("{toml}[limits]\ndisk_percent = false\ndisk_failed_percent = false\n"));
    sample(&host, full(98.5));
    watch(&host);
    let told: Vec<String> = server.got().into_iter().map(|one| one.body).collect();
    assert!(told.iter().any(|body| body.contains("file system /srv/x is well again; it was: ")), "{told:#?}");
    host.configure(&format!("{toml}[limits]\ndisk_percent = 120\n"));
    let output = host.run("hub", &["watch", "--check"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(78) && said.contains("limits.disk_percent: 120 is out of range"), "{said}");
}

#[test]
fn a_full_disk_and_what_fails_by_it_are_one_notice_over_several_looks_and_so_is_their_end() {
    let server = Server::start();
    let host = host(&format!("url = \"{}/x\"\nformat = \"json\"", server.url));
    begin(&host, &server);
    let disk = |percent: f64| sample(&host, json!({"disk": {"/srv": {"used_percent": percent, "read_only": false}}}));
    let no_space = |folder: &str, service: &str, status: &str| {
        record(
            &host,
            folder,
            service,
            30,
            json!({"status": status, "error": "cannot write x: No space left on device (os error 28)"}),
        );
    };
    // A service is the first to notice.
    no_space("gitops", "gitops-sync", "failed");
    watch(&host);
    assert_eq!(server.got().len(), 1);
    disk(98.0);
    watch(&host);
    no_space("data/metrics", "system-metrics", "lost");
    watch(&host);
    assert_eq!(server.got().len(), 0, "all of it has one cause");
    let told = host.run("hub", &["status", "--json"]);
    let reasons: Value = serde_json::from_slice(&told.stdout).unwrap();
    let keys: Vec<&str> = reasons["reasons"].as_array().unwrap().iter().filter_map(|one| one["key"].as_str()).collect();
    for key in ["gitops/last-run", "disk//srv/full", "metrics/lost"] {
        assert!(keys.contains(&key), "whoever looks sees each: {keys:?}");
    }
    well(&host);
    disk(50.0);
    watch(&host);
    status::change(&host.state().join("watch/limits.json"), |state| {
        state["values"]["disk//srv/full"]["below"] = json!("2020-01-01T00:00:00Z");
    });
    disk(50.0);
    watch(&host);
    assert_eq!(server.got().len(), 0, "one service does not work yet");
    record(&host, "data/metrics", "system-metrics", 30, json!({"status": "stored"}));
    watch(&host);
    let got = server.got();
    assert_eq!(got.len(), 1, "{got:#?}");
    assert_eq!(got[0].json()["data"]["events"].as_array().unwrap().len(), 1);
    assert_eq!(got[0].json()["type"], "host.recovered");
}

#[test]
fn a_hub_toml_that_cannot_be_read_is_told_by_the_one_before() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start();
    let notify = format!("url = \"{0}/x\"\nheartbeat = \"{0}/beat\"", server.url);
    let host = host(&notify);
    begin(&host, &server);
    let kept = std::fs::metadata(host.state().join("watch/hub.toml")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    let valid = std::fs::read_to_string(host.path("hub.toml")).unwrap();
    let next_minute =
        || status::change(&host.state().join("watch/state.json"), |state| state["heartbeat"]["at"] = Value::Null);
    for broken in [format!("{valid}typo = 1\n"), "[notify\n".to_owned(), "\u{0}".to_owned()] {
        host.configure(&broken);
        next_minute();
        let log = watch(&host);
        assert!(log.iter().any(|line| line["msg"] == "configuration_refused"), "{log:#?}");
        let got = server.got();
        let told: Vec<&str> = got.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(told, ["/beat/fail", "/x"], "{got:#?}");
        assert!(got[1].body.contains("hub.toml") && got[1].body.contains("what runs goes on as before"), "{got:#?}");
        if broken.contains("typo") {
            assert!(got[1].body.contains(&format!("hub.toml:{}: ", broken.lines().count())), "{got:#?}");
        }
        watch(&host);
        assert_eq!(server.got().len(), 0, "once");
        host.configure(&valid);
        next_minute();
        watch(&host);
        let told: Vec<String> = server.got().into_iter().map(|one| one.path).collect();
        assert_eq!(told, ["/beat", "/x"]);
    }
    // What it left out is left out meanwhile, and nothing that it names is well again.
    sample(&host, json!({"disk": {"/": {"used_percent": 99}}}));
    let limits = format!("{valid}[limits]\ndisk_except = [\"/\"]\nkey_days = false\n");
    host.configure(&limits);
    watch(&host);
    host.configure("[notify\n");
    watch(&host);
    let got = server.got();
    let bodies: Vec<&str> = got.iter().map(|one| one.body.as_str()).collect();
    assert!(bodies.len() == 1 && !bodies[0].contains("% full"), "{bodies:#?}");
    // A check is about what is on the disk, and where nothing was valid before, nobody can be told.
    host.configure("[notify\n");
    assert_eq!(host.run("hub", &["watch", "--check"]).status.code(), Some(78));
    std::fs::remove_file(host.state().join("watch/hub.toml")).unwrap();
    assert_eq!(host.run("hub", &["watch"]).status.code(), Some(78));
}

#[test]
fn roots_look_by_hand_leaves_what_the_service_goes_on_with_and_obeys_nothing_of_that_account() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    if !support::gitops::is_root() {
        return skip::skip("hub watch", "only root becomes another user");
    }
    let server = Server::start();
    let host = host(&format!("url = \"{}/words/secret-topic\"", server.url));
    let folder = host.path("state/watch");
    std::fs::create_dir_all(&folder).unwrap();
    // As systemd-tmpfiles makes it; who is outside may pass.
    for path in [host.path(""), host.path("state")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(&folder, Some(65534), Some(65534)).unwrap();
    begin(&host, &server);
    for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().uid(), 65534, "{:?}", entry.path());
    }
    // What that account writes there is not root's to run.
    let ran = host.path("ran");
    let text = format!("[notify]\ncommand = [\"sh\", \"-c\", \"id -u >{}\"]\n", ran.display());
    std::fs::write(folder.join("hub.toml"), text).unwrap();
    chown(folder.join("hub.toml"), Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(host.path(""), std::fs::Permissions::from_mode(0o777)).unwrap();
    host.configure("[notify\n");
    host.run("hub", &["watch"]);
    let who = std::fs::read_to_string(&ran).unwrap_or_default();
    assert!(matches!(who.trim(), "" | "65534"), "it ran as {who}");
}

#[test]
fn a_notice_that_is_refused_for_what_it_is_holds_up_the_others_for_an_hour_and_a_secret_url_is_not_repeated() {
    let server = Server::start();
    let host = host(&format!("url = \"{}/words/secret-topic\"", server.url));
    begin(&host, &server);
    let refusal = "Cannot POST /words/Secret-Topic: too long";
    server.says(400, &[], refusal);
    failed(&host);
    let lines = watch(&host);
    let line = lines.iter().find(|line| line["msg"] == "notice_not_sent").unwrap();
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("Cannot POST /(of the URL)/(of the URL): too long"), "{error}");
    // An hour later it is given up, and what came after it leaves.
    let state = host.path("state/watch/state.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    let refused = &mut kept["outboxes"]["url"]["refused"];
    assert!(refused.is_string(), "{kept}");
    *refused = json!("2026-01-01T00:00:00Z");
    std::fs::write(&state, kept.to_string()).unwrap();
    server.got();
    well(&host);
    server.says(400, &[], refusal);
    let lines = watch(&host);
    assert!(lines.iter().any(|line| line["msg"] == "notice_lost"), "{lines:?}");
    let got = server.got();
    assert_eq!(got.len(), 2, "{got:#?}");
    assert!(got[1].body.contains("1 earlier notices could not be sent"), "{got:#?}");
}

#[test]
fn a_credential_that_is_wrong_silences_its_own_way_only() {
    let server = Server::start();
    let host = host(&format!("url = \"{0}/x\"\nformat = \"json\"\nheartbeat = \"{0}/beat\"", server.url));
    begin(&host, &server);
    host.credential("notify-secret", "no secret");
    failed(&host);
    status::change(&host.state().join("watch/state.json"), |state| state["heartbeat"]["at"] = Value::Null);
    watch(&host);
    let told: Vec<String> = server.got().into_iter().map(|one| one.path).collect();
    assert_eq!(told, ["/beat/fail"]);
    let run = host.json("state/watch/run.json");
    assert!(run["error"].as_str().unwrap().contains("notify-secret"), "{run:#}");
    // What could not be told meanwhile is not lost.
    host.credential("notify-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    watch(&host);
    assert!(server.got()[0].body.contains("gitops-sync failed"));
}

/// A mounted file system that is taken down at the end of a test.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_full_disk_the_notice_leaves_once_all_the_same() {
    use rustix::mount::{MountFlags, mount};
    let server = Server::start();
    let host = Host::new();
    if mount("tmpfs", host.state(), "tmpfs", MountFlags::empty(), Some(c"size=1m")).is_err() {
        return skip::skip("a full disk", "mounting needs root");
    }
    let _mounted = Mounted(host.state());
    let addresses = format!("listen = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    host.configure(&format!("[proxy]\n{addresses}[notify]\nurl = \"{}/x\"\n", server.url));
    well(&host);
    begin(&host, &server);
    failed(&host);
    let mut filler = std::fs::File::create(host.state().join("filler")).unwrap();
    while filler.write_all(&[0; 1024]).is_ok() {}
    let log = watch(&host);
    assert!(log.iter().any(|line| line["msg"] == "watch_state_overwritten"), "{log:#?}");
    assert_eq!(server.got().len(), 1);
    for _ in 0..3 {
        watch(&host);
        assert_eq!(server.got().len(), 0, "it was told");
    }
    drop(filler);
    std::fs::remove_file(host.state().join("filler")).unwrap();
    well(&host);
    watch(&host);
    assert_eq!(server.got().len(), 1);
}

#[test]
fn on_a_disk_that_became_read_only_the_notice_leaves_once_and_so_does_its_end() {
    use rustix::mount::{MountFlags, mount, mount_remount};
    let server = Server::start();
    let host = Host::new();
    if mount("tmpfs", host.state(), "tmpfs", MountFlags::empty(), None).is_err() {
        return skip::skip("a disk that is read-only", "mounting needs root");
    }
    let _mounted = Mounted(host.state());
    let runtime = tempfile::tempdir().unwrap();
    let addresses = format!("listen = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    host.configure(&format!("[proxy]\n{addresses}[notify]\nurl = \"{}/x\"\n", server.url));
    well(&host);
    let look = || {
        let output = host.command("hub").arg("watch").env("HUB_WATCH_RUN", runtime.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    look();
    server.got();
    failed(&host);
    mount_remount(host.state(), MountFlags::RDONLY, "").unwrap();
    let log = look();
    assert_eq!(server.got().len(), 1, "{log}");
    for _ in 0..2 {
        look();
        assert_eq!(server.got().len(), 0, "it was told");
    }
    mount_remount(host.state(), MountFlags::empty(), "").unwrap();
    look();
    assert_eq!(server.got().len(), 0, "it was told");
    assert!(!runtime.path().join("state.json").exists());
    well(&host);
    look();
    assert!(server.got()[0].header("Title").ends_with("is well again"));
}
