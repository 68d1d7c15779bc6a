//! The result on the commit: `hub watch` tells each forge how a commit fared, whatever the forge does, and holds up no
//! deployment.

use crate::support;
use crate::support::gitops::{REPO, Site, sh};
use crate::support::notice_server::{Request, Server, raw};
use crate::support::status;
use serde_json::{Value, json};

const TOKEN: &str = "t0ken-of-the-forge";

/// A site whose forge has its API at `api`; `more` lines for the repository.
fn site_at(api: &str, more: &str) -> Site {
    let site = Site::with("", &format!("status = true\nstatus_token = \"status-token\"\napi = \"{api}\"\n{more}"));
    site.host.credential("status-token", &format!("{TOKEN}\n"));
    site
}

fn watch(site: &Site) -> Vec<Value> {
    let output = site.host.run("hub", &["watch"]);
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stdout).unwrap();
    assert!(!log.contains(TOKEN) && !String::from_utf8(output.stderr).unwrap().contains(TOKEN), "{log}");
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The time has come for another try.
fn later(site: &Site) {
    status::change(&site.host.state().join("watch/state.json"), |state| {
        state["results"][REPO]["not_before"] = Value::Null;
    });
}

fn reasons(site: &Site) -> Vec<Value> {
    let output = site.host.run("hub", &["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status["reasons"].as_array().unwrap().clone()
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Fails where `app/config` says so.
fn judge() -> String {
    sh("build", "! grep -q bad app/config")
}

#[test]
fn each_forge_is_told_in_its_own_way() {
    let commit_of = |one: &Request| one.path.rsplit('/').next().unwrap().to_owned();
    for (ending, path, header, shown, name, failure, longest) in [
        ("/api/v3", "/repos/acme/infra/statuses/", "Authorization", "Bearer ", "context", "failure", 140),
        ("/api/v1", "/repos/acme/infra/statuses/", "Authorization", "token ", "context", "failure", 255),
        ("/api/v4", "/projects/acme%2Finfra/statuses/", "PRIVATE-TOKEN", "", "name", "failed", 255),
    ] {
        let server = Server::start();
        let site = site_at(&format!("{}{ending}", server.url), &judge());
        site.sync().expect(0, "deployed");
        let good = site.head();
        watch(&site);
        watch(&site);
        let bad = site.origin.push(&[("app/config", &format!("bad {}", "x".repeat(500)))]);
        site.sync().expect(3, "rolled_back");
        watch(&site);
        watch(&site);
        let got = server.got();
        let told: Vec<(String, Value)> = got.iter().map(|one| (commit_of(one), one.json()["state"].clone())).collect();
        assert_eq!(told, [(good, json!("success")), (bad, json!(failure))], "{ending}");
        for one in &got {
            assert_eq!((one.method.as_str(), one.header(header)), ("POST", format!("{shown}{TOKEN}").as_str()));
            assert!(one.path.starts_with(&format!("{ending}{path}")), "{}", one.path);
            assert_eq!(one.json()[name], json!(format!("hub/{}", host())));
            assert!(!one.header("User-Agent").is_empty());
        }
        let description = got[1].json()["description"].as_str().unwrap().to_owned();
        assert!(description.starts_with("rolled back: build failed: "), "{description}");
        assert!(description.chars().count() <= longest, "{description}");
        assert!(reasons(&site).iter().all(|reason| !reason["key"].as_str().unwrap().ends_with("status-unsent")));
    }
}

#[test]
fn a_deployment_at_work_is_pending_until_it_ends() {
    let server = Server::start();
    let site = site_at(
        &format!("{}/api/v4", server.url),
        &sh("build", "touch building; while test -e building; do sleep 0.05; done"),
    );
    let mut sync = site.host.command("gitops-sync");
    let mut sync = sync.arg(REPO).stdout(std::process::Stdio::null()).spawn().unwrap();
    support::eventually("the build begins", || site.checkout.join("building").exists());
    watch(&site);
    // GitLab takes no second pending, and says so with 400.
    let refusal = r#"{"message":"Cannot transition status via :enqueue from :pending (Reason(s): Status cannot"}"#;
    status::change(&site.host.state().join("watch/state.json"), |state| state["results"][REPO]["told"] = json!([]));
    server.says(400, &[], refusal);
    watch(&site);
    watch(&site);
    let states = |got: Vec<Request>| got.iter().map(|one| one.json()["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states(server.got()), ["pending", "pending"]);
    std::fs::remove_file(site.checkout.join("building")).unwrap();
    assert!(sync.wait().unwrap().success());
    watch(&site);
    assert_eq!(states(server.got()), ["success"]);
}

#[test]
fn a_commit_that_the_branch_leaves_behind_does_not_stay_pending() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v1", server.url), "wait_for_checks = true");
    let checks = |state: Option<&str>| {
        let list: Vec<Value> = state.iter().map(|state| json!({ "context": "ci", "status": state })).collect();
        (0..2).for_each(|_| server.says(200, &[], &json!({ "statuses": list }).to_string()));
    };
    let told = || {
        let got = server.got().into_iter().filter(|one| one.method == "POST");
        got.map(|one| (one.path.rsplit('/').next().unwrap().to_owned(), one.json()["state"].clone()))
            .collect::<Vec<_>>()
    };
    checks(Some("pending"));
    site.sync().expect(0, "waiting");
    let first = support::git(&site.origin.work, &["rev-parse", "HEAD"]);
    watch(&site);
    assert_eq!(told(), [(first.clone(), json!("pending"))]);
    // It waits still, and nobody is told that again.
    checks(Some("pending"));
    site.sync().expect(0, "waiting");
    watch(&site);
    assert_eq!(told(), []);
    let second = site.origin.push(&[("README", "two\n")]);
    checks(Some("success"));
    site.sync().expect(0, "deployed");
    watch(&site);
    assert_eq!(told(), [(second, json!("success")), (first, json!("failure"))]);
    watch(&site);
    assert_eq!(told(), []);
}

#[test]
fn a_look_that_is_killed_anywhere_tells_the_forge_at_least_once() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v4", server.url), &judge());
    site.sync().expect(0, "deployed");
    let good = site.head();
    let mut bad = String::new();
    for pause in (0..40).step_by(2) {
        if pause == 20 {
            // On a busy machine all looks until here may have been killed before they began.
            watch(&site);
            bad = site.origin.push(&[("app/config", "bad\n")]);
            site.sync().expect(3, "rolled_back");
        }
        let mut child = site.host.command("hub").arg("watch").stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    watch(&site);
    let last = |commit: &str| {
        let got = server.got.lock().unwrap();
        let found = got.iter().rfind(|one| one.path.ends_with(commit)).map(|one| one.json()["state"].clone());
        found.unwrap_or_else(|| panic!("{commit} was not told: {got:#?}"))
    };
    assert_eq!((last(&good), last(&bad)), (json!("success"), json!("failed")));
}

#[test]
fn what_a_forge_does_not_take_is_said_later_and_the_newest_word_wins() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v1", server.url), &judge());
    site.sync().expect(0, "deployed");
    let first = site.head();
    server.answers(500, &[]);
    let log = watch(&site);
    let line = log.iter().find(|line| line["msg"] == "commit_status_not_sent").unwrap();
    assert!(line["error"].as_str().unwrap().contains("answered 500: the server's words"), "{line}");
    assert_eq!(server.got().len(), 1);
    watch(&site);
    assert_eq!(server.got().len(), 0, "not at once again");
    assert!(reasons(&site).iter().all(|reason| reason["key"] != "gitops/acme/infra/status-unsent"), "not yet");
    // Meanwhile it failed, and was mended.
    let second = site.origin.push(&[("app/config", "bad\n")]);
    site.sync().expect(3, "rolled_back");
    later(&site);
    server.answers(429, &[("Retry-After", "3600")]);
    watch(&site);
    watch(&site);
    assert_eq!(server.got().len(), 1, "it asked for an hour");
    site.origin.push(&[("app/config", "good\n")]);
    site.sync().expect(0, "deployed");
    let third = site.head();
    later(&site);
    watch(&site);
    let told: Vec<(String, Value)> = server
        .got()
        .iter()
        .map(|one| (one.path.rsplit('/').next().unwrap().to_owned(), one.json()["state"].clone()))
        .collect();
    assert_eq!(told, [(first, json!("success")), (second, json!("failure")), (third, json!("success"))]);
    watch(&site);
    assert_eq!(server.got().len(), 0);
}

#[test]
fn a_pause_that_is_over_already_is_no_leave_to_hammer() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url), "");
    site.sync().expect(0, "deployed");
    let past: [&[(&'static str, &str)]; 3] = [
        &[("Retry-After", "0")],
        &[("Retry-After", "Thu, 01 Jan 2026 00:00:00 GMT")],
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000000")],
    ];
    for headers in past {
        (0..5).for_each(|_| server.answers(403, headers));
        watch(&site);
        watch(&site);
        assert_eq!(server.got().len(), 1, "{headers:?}");
        server.forget();
        later(&site);
    }
    watch(&site);
    assert_eq!(server.got().len(), 1, "and it is said in the end");
}

#[test]
fn a_forge_that_refuses_leads_elsewhere_or_echoes_the_token_gets_nothing_more_and_says_what_to_do() {
    let (server, other) = (Server::start(), Server::start());
    let site = site_at(&format!("{}/api/v3", server.url), "");
    site.sync().expect(0, "deployed");
    server.answers(307, &[("Location", &format!("{}/api/v3/x", other.url))]);
    watch(&site);
    assert_eq!(other.got().len(), 0, "the token is for one host");
    let said = |part: &str| {
        let all = reasons(&site);
        let one = all.iter().find(|reason| reason["key"] == "gitops/acme/infra/status-unsent").unwrap();
        assert!(one["reason"].as_str().unwrap().contains(part), "{part}: {one}");
    };
    said("leads elsewhere, which is not followed");
    later(&site);
    server.says(401, &[], &format!("{{\"message\":\"Bad credentials {TOKEN} \u{1b}[31m\"}}"));
    watch(&site);
    said("answered 401: {\"message\":\"Bad credentials (the token)");
    said("look at the credential status-token");
    later(&site);
    watch(&site);
    assert!(reasons(&site).iter().all(|reason| reason["key"] != "gitops/acme/infra/status-unsent"));
    // What it will never take is not said again and again.
    site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    server.got();
    server.answers(422, &[]);
    for _ in 0..3 {
        watch(&site);
        later(&site);
    }
    assert_eq!(server.got().len(), 1);
    said("answered 422");
    // That is over: it is shown for a day, and counts for no later failure.
    let state = site.host.state().join("watch/state.json");
    let day_ago = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(25)).to_string();
    status::change(&state, |state| state["results"][REPO]["failing"][0] = day_ago.into());
    watch(&site);
    assert!(reasons(&site).iter().all(|reason| reason["key"] != "gitops/acme/infra/status-unsent"));
    for (status, is_told) in [(422, true), (500, false)] {
        site.origin.push(&[("README", &format!("{status}\n"))]);
        site.sync().expect(0, "deployed");
        server.answers(status, &[]);
        watch(&site);
        let told = reasons(&site).iter().any(|reason| reason["key"] == "gitops/acme/infra/status-unsent");
        assert_eq!(told, is_told, "{status}");
        // Twenty minutes of the refusal are no twenty minutes of an outage.
        let ago = (jiff::Timestamp::now() - jiff::SignedDuration::from_mins(20)).to_string();
        status::change(&state, |state| state["results"][REPO]["failing"][0] = ago.into());
    }
    later(&site);
    site.host.credential("status-token", "two words");
    site.origin.push(&[("README", "three\n")]);
    site.sync().expect(0, "deployed");
    watch(&site);
    said("credential status-token: is no token");
}

#[test]
fn a_forge_that_is_dead_slow_or_closes_early_holds_up_nothing_and_loses_nothing() {
    let dead = format!("http://{}", support::free_address());
    let closes = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let nonsense = raw(b"SSH-2.0-x\r\n");
    for (api, part) in [(dead, "refused"), (closes, ""), (nonsense, ""), (raw(b""), "timeout")] {
        let site = site_at(&format!("{api}/api/v1"), "");
        let ran = site.sync().expect(0, "deployed");
        assert!(ran.took.as_secs() < 8, "{:?}", ran.took);
        let log = watch(&site);
        let line = log.iter().find(|line| line["msg"] == "commit_status_not_sent").unwrap();
        assert!(line["error"].as_str().unwrap().contains(part), "{line}");
        let server = Server::start();
        site.configure("", &format!("status = true\nstatus_token = \"status-token\"\napi = \"{}/api/v1\"", server.url));
        later(&site);
        watch(&site);
        assert_eq!(server.got().len(), 1, "{api}");
    }
}

#[test]
fn what_the_token_may_not_do_is_told() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url), "id = \"acme/infra@live\"");
    site.run(&[]).expect(0, "deployed");
    server.says(
        403,
        &[("X-Accepted-GitHub-Permissions", "statuses=write")],
        "{\"message\":\"Resource not accessible\"}",
    );
    let log = watch(&site);
    let line = log.iter().find(|line| line["msg"] == "commit_status_not_sent").unwrap();
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("not accessible\"} (it needs statuses=write); look at the credential status-token"),
        "{error}"
    );
    // Two branches of one repository do not write over each other's word.
    assert_eq!(server.got()[0].json()["context"], json!(format!("hub/{}@live", host())));
}

#[cfg(feature = "tls")]
#[test]
fn the_token_goes_to_nobody_whose_certificate_is_not_trusted() {
    let authority = support::authority::Authority::new();
    let (certificate, key) = authority.certificate(&["localhost"]);
    let (port, heard) = support::authority::serve(&certificate, &key);
    let site = site_at(&format!("https://localhost:{port}/api/v1"), "");
    site.sync().expect(0, "deployed");
    let log = watch(&site);
    let line = log.iter().find(|line| line["msg"] == "commit_status_not_sent").unwrap();
    assert!(line["error"].as_str().unwrap().contains("update-ca-certificates"), "{line}");
    assert!(heard.try_recv().is_err());
    let trusted = site.host.path("authority.pem");
    std::fs::write(&trusted, authority.pem()).unwrap();
    later(&site);
    let output = site.host.command("hub").arg("watch").env("SSL_CERT_FILE", &trusted).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(heard.recv().unwrap().contains(&format!("authorization: token {TOKEN}")));
}

#[test]
fn what_is_wrong_with_the_configuration_is_named() {
    let site = Site::empty();
    for (lines, part) in [
        ("status = true", "hub.toml:3: repository[0].status: needs a token: name the credential"),
        ("status = true\ntoken = \"t\"", "repository acme/infra: status and wait_for_checks need GitHub, Gitea"),
        ("wait_for_checks = true", "write api = \\\"https://git.acme.org/api/v1\\\" for Gitea"),
        (
            "api = \"http://git.acme.org/api/v1\"",
            "api: \\\"http://git.acme.org/api/v1\\\" is not the address of an API",
        ),
        ("api = \"https://me:pw@git.acme.org/api/v1\"", "is not the address of an API"),
    ] {
        site.configure("", lines);
        let output = site.host.run("hub", &["watch", "--check"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(78), "{lines}: {said}");
        assert!(said.contains(part), "{lines}: {said}");
    }
}
