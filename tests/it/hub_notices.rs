//! What leaves the host, and how it is with servers as ntfy, Slack, a Standard Webhooks receiver and healthchecks.io are, on
//! their good days and on the others.

use crate::support::status;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::gitops::{REPO, Site, sh};
use crate::support::notice_server::{Request, Server, raw};
use crate::support::status::record;
use crate::support::{Host, free_address, skip};
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOKEN: &str = "tk_secret";

fn watch(host: &Host) -> String {
    let output = host.run("hub", &["watch"]);
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stdout).unwrap();
    assert!(!log.contains(TOKEN) && !log.contains("my-topic") && !log.contains("ping-id"), "{log}");
    log
}

fn configure(host: &Host, notify: &str) {
    let addresses = format!("listen = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    host.configure(&format!("[proxy]\n{addresses}[notify]\n{notify}\n"));
}

fn host(notify: &str) -> Host {
    let host = Host::new();
    configure(&host, notify);
    host.credential("notify-token", TOKEN);
    record(&host, "gitops", "gitops-sync", 30, json!({ "status": "unchanged" }));
    host
}

/// Something to tell, with a text that is hard to write.
fn fail(host: &Host) {
    let error = "disk <full>\u{202e} & \"büx\" \u{1b}[31m\r\nX: y";
    record(host, "gitops", "gitops-sync", 30, json!({ "status": "failed", "error": error }));
}

/// The hours of the day around now, or all the others.
fn hours(is_now: bool) -> String {
    let at = |hours: i64| {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%H:%M").to_string()
    };
    if is_now { format!("{}-{}", at(-1), at(2)) } else { format!("{}-{}", at(2), at(-1)) }
}

/// A site with a notifier, and what it has to say of its beginning said.
fn site(server: &Server) -> Site {
    let site = Site::empty();
    site.origin.push(&[("README", "one\n")]);
    let notify = format!("guard = []\n[notify]\nurl = \"{}/hook\"\nformat = \"json\"\n", server.url);
    site.configure(&notify, &sh("build", "! grep -q bad README"));
    site.sync().expect(0, "deployed");
    watch(&site.host);
    server.got();
    site
}

#[test]
fn deployments_are_told_where_somebody_wants_that_and_quiet_hours_hold_them_back() {
    let server = Server::start();
    let site = site(&server);
    let configure = |more: &str| {
        let notify = format!("guard = []\n[notify]\nurl = \"{}/hook\"\nformat = \"json\"\n{more}", server.url);
        site.configure(&notify, &sh("build", "! grep -q bad README"));
    };
    let kinds = |got: &[Request]| -> Vec<Value> {
        let events = got.iter().flat_map(|one| one.json()["data"]["events"].as_array().unwrap().clone());
        events.map(|event| event["kind"].clone()).collect()
    };
    configure("deployments = true");
    watch(&site.host);
    assert_eq!(server.got().len(), 0, "what was before is no news");
    let commit = site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    watch(&site.host);
    watch(&site.host);
    let got = server.got();
    assert_eq!(kinds(&got), ["deployed"]);
    let notice = got[0].json();
    assert_eq!((&notice["type"], &notice["data"]["level"]), (&json!("host.deployed"), &json!("healthy")));
    let title = notice["data"]["title"].as_str().unwrap();
    assert!(title.ends_with(&format!(": {REPO} deployed")), "{title}");
    let text = notice["data"]["text"].as_str().unwrap();
    assert!(text.contains(&format!("{}: a change, by Tester; before it ", &commit[..10])), "{text}");
    // In quiet hours it waits, and a failure of the host does not.
    configure(&format!("deployments = true\nquiet = \"{}\"", hours(true)));
    site.origin.push(&[("README", "three\n")]);
    site.sync().expect(0, "deployed");
    watch(&site.host);
    assert_eq!(server.got().len(), 0);
    fail(&site.host);
    watch(&site.host);
    assert_eq!(kinds(&server.got()), ["raised"]);
    configure(&format!("deployments = true\nquiet = \"{}\"", hours(false)));
    watch(&site.host);
    assert_eq!(kinds(&server.got()), ["deployed"]);
    // A commit that fails is no deployment.
    site.origin.push(&[("README", "bad\n")]);
    site.sync().expect(3, "rolled_back");
    watch(&site.host);
    assert!(!kinds(&server.got()).contains(&json!("deployed")));
    configure("");
    site.origin.push(&[("README", "four\n")]);
    site.sync().expect(0, "deployed");
    watch(&site.host);
    assert_eq!(kinds(&server.got()).iter().filter(|kind| **kind == json!("deployed")).count(), 0);
}

/// Verifies a request with the specification's own library for Python; none, said aloud, where it is not there.
fn verified(request: &Request, secret: &str, body: &str) -> Option<Result<Value, String>> {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.cache/standardwebhooks/bin/python");
    if !std::path::Path::new(python).exists() {
        skip::skip("Standard Webhooks by their reference library", "there is no tests/.cache/standardwebhooks");
        return None;
    }
    let script = "import json, sys\nfrom standardwebhooks.webhooks import Webhook\nsent = json.load(sys.stdin)\n\
                  print(json.dumps(Webhook(sent['secret']).verify(sent['body'], sent['headers'])))";
    let headers: serde_json::Map<String, Value> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let mut child = Command::new(python);
    let mut child =
        child.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let sent = json!({ "secret": secret, "headers": headers, "body": body });
    child.stdin.take().unwrap().write_all(sent.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = || String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(serde_json::from_slice(&output.stdout).unwrap()) } else { Err(error()) })
}

#[test]
fn the_specifications_own_library_takes_what_is_signed_and_nothing_else() {
    let server = Server::start();
    let host = host(&format!("url = \"{}/my-topic\"\nformat = \"json\"", server.url));
    host.credential("notify-secret", SECRET);
    fail(&host);
    watch(&host);
    let request = server.got().remove(0);
    let Some(taken) = verified(&request, SECRET, &request.body) else { return };
    let taken = taken.unwrap();
    assert_eq!(taken, request.json());
    assert!(taken["data"]["text"].as_str().unwrap().contains("\"büx\" \\u{1b}[31m\\u{d}\\u{a}X: y"), "{taken:#}");
    let refused = |result: Option<Result<Value, String>>| result.unwrap().unwrap_err();
    let changed = request.body.replace("full", "fine");
    assert!(refused(verified(&request, SECRET, &changed)).contains("No matching signature"));
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert!(refused(verified(&request, other, &request.body)).contains("No matching signature"));
}

#[test]
fn what_no_server_takes_waits_and_nobody_else_pays_for_it() {
    for (format, words) in [
        ("ntfy", r#"{"code":42901,"http":429,"error":"limit reached: too many requests"}"#),
        ("slack", "rate_limited"),
        ("json", r#"{"message":"slow down"}"#),
    ] {
        let (server, other, beats) = (Server::start(), Server::start(), Server::start());
        let at = |url: &str| {
            format!(
                "url = \"{url}/my-topic\"\nformat = \"{format}\"\nheartbeat = \"{}/ping-id\"\ncommand = [\"true\"]",
                beats.url
            )
        };
        let host = host(&at(&server.url));
        watch(&host);
        server.got();
        beats.got();
        fail(&host);
        let waits = |part: &str| {
            status::change(&host.state().join("watch/state.json"), |state| {
                state["heartbeat"]["at"] = Value::Null;
                state["outboxes"]["url"]["not_before"] = Value::Null;
            });
            watch(&host);
            let run = host.json("state/watch/run.json");
            let error = run["error"].as_str().unwrap();
            assert!(error.contains(part) && !error.contains(TOKEN), "{part}: {run:#}");
            assert_eq!(run["counts"]["waiting"], 1, "{run:#}");
            assert_eq!(beats.got().len(), 1, "the heartbeat goes out all the same");
        };
        server.says(500, &[], words);
        waits("answered 500");
        server.says(429, &[("Retry-After", "60")], words);
        waits("answered 429");
        server.answers(307, &[("Location", &format!("{}/x", other.url))]);
        waits("leads elsewhere, which is not followed");
        server.says(401, &[], &format!("not with {TOKEN}"));
        waits("answered 401: not with (the token)");
        server.got();
        for url in
            [format!("http://{}", free_address()), raw(b"HTTP/1.1 200 OK\r\nContent-Length"), raw(b"220 hello\r\n")]
        {
            configure(&host, &at(&url));
            waits("");
        }
        if format == "ntfy" {
            configure(&host, &at(&raw(b"")));
            let began = std::time::Instant::now();
            waits("timeout");
            assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
        }
        configure(&host, &at(&server.url));
        watch(&host);
        let got = server.got();
        assert_eq!((got.len(), other.got().len()), (1, 0), "once, and the token to one host only");
        assert_eq!(got[0].header("Authorization"), format!("Bearer {TOKEN}"));
        assert!(got[0].body.contains("disk"), "{}", got[0].body);
    }
}

#[test]
fn a_heartbeat_that_is_not_heard_is_said_and_the_next_one_comes_in_a_minute() {
    let (server, other) = (Server::start(), Server::start());
    let host = host(&format!("heartbeat = \"{}/ping-id\"", server.url));
    let beat = || {
        status::change(&host.state().join("watch/state.json"), |state| state["heartbeat"]["at"] = Value::Null);
        watch(&host);
        let run = host.json("state/watch/run.json");
        run["error"].as_str().unwrap_or_default().to_owned()
    };
    watch(&host);
    for (status, body, part) in [
        (500, "oops", "heartbeat: "),
        (429, "slow down", "answered 429"),
        (404, "not found", "look at the URL"),
        // healthchecks.io says 200 to whoever pings what it does not have.
        (200, "OK (not found)", "answered 200: OK (not found); look at the URL"),
    ] {
        server.says(status, &[], body);
        let error = beat();
        assert!(error.contains(part), "{part}: {error}");
        server.says(200, &[], "OK");
        assert_eq!(beat(), "", "and then it is over");
    }
    server.answers(302, &[("Location", &format!("{}/x", other.url))]);
    assert!(beat().contains("leads elsewhere"));
    assert_eq!(other.got().len(), 0);
    let shown = String::from_utf8(host.run("hub", &["status"]).stdout).unwrap();
    assert!(shown.contains("do not arrive: heartbeat:") && !shown.contains("ping-id"), "{shown}");
    for url in [raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOK"), raw(b"x"), raw(b"")] {
        configure(&host, &format!("heartbeat = \"{url}/ping-id\""));
        let began = std::time::Instant::now();
        beat();
        assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    }
}
