//! `wait_for_checks`: a commit is deployed only when what others say of it at its forge is green.

use crate::support;
use crate::support::gitops::{FILE, REPO, Ran, Site};
use crate::support::notice_server::{Server, raw};
use crate::support::status;
use serde_json::{Value, json};

const TOKEN: &str = "t0ken-of-the-forge";

fn configure(site: &Site, api: &str) {
    site.configure("", &format!("wait_for_checks = true\nstatus_token = \"forge\"\napi = \"{api}\""));
}

fn site_at(api: &str) -> Site {
    let site = Site::new();
    configure(&site, api);
    site.host.credential("forge", TOKEN);
    site
}

/// What GitHub answers to its two questions.
fn github(server: &Server, statuses: Value, runs: Value) {
    let [statuses, runs] = [("statuses", statuses), ("check_runs", runs)].map(|(key, list)| {
        let count = list.as_array().unwrap().len();
        json!({ "state": "pending", "total_count": count, key: list }).to_string()
    });
    server.says(200, &[], &statuses);
    server.says(200, &[], &runs);
}

fn status(context: &str, state: &str) -> Value {
    json!({ "context": context, "state": state, "description": null })
}

fn check_run(name: &str, conclusion: Option<&str>) -> Value {
    json!({ "name": name, "status": if conclusion.is_some() { "completed" } else { "queued" }, "conclusion": conclusion })
}

fn nothing_live(site: &Site) {
    assert!(!site.checkout.join("README").exists());
}

/// What waits began so many minutes ago, by the time of day and by the clock that nobody sets.
fn minutes_later(site: &Site, minutes: i64) {
    status::change(&site.state(&format!("checked/{FILE}")), |checked| {
        let waiting = &mut checked["waiting"];
        let since: jiff::Timestamp = waiting["since"].as_str().unwrap().parse().unwrap();
        waiting["since"] = (since - jiff::SignedDuration::from_mins(minutes)).to_string().into();
        for at in ["/begun/up", "/away/up"] {
            if let Some(up) = waiting.pointer_mut(at) {
                *up = (up.as_i64().unwrap() - 60 * minutes).into();
            }
        }
    });
}

#[track_caller]
fn deploys(site: &Site, green: impl Fn()) {
    green();
    site.sync().expect(0, "deployed");
}

#[test]
fn github_is_asked_for_statuses_and_for_check_runs_and_its_own_word_does_not_count() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url));
    let own = status("hub/other-host", "failure");
    github(&server, json!([status("ci", "success"), own.clone()]), json!([check_run("test", None)]));
    let commit = support::git(&site.origin.work, &["rev-parse", "HEAD"]);
    let ran = site.sync().expect(0, "waiting").says("for its checks: test");
    assert!(!ran.log.contains(TOKEN), "{}", ran.log);
    nothing_live(&site);
    let got = server.got();
    let paths: Vec<&str> = got.iter().map(|one| one.path.as_str()).collect();
    let of_commit = format!("/api/v3/repos/acme/infra/commits/{commit}");
    let asked = ["status?per_page=100&page=1", "check-runs?filter=latest&per_page=100&page=1"];
    assert_eq!(paths, asked.map(|path| format!("{of_commit}/{path}")));
    assert!(got.iter().all(|one| one.header("Authorization") == format!("Bearer {TOKEN}")));
    github(&server, json!([status("ci", "pending")]), json!([]));
    site.run(&["--dry-run", REPO]).expect(0, "planned").says("for its checks: ci");
    let shown = String::from_utf8(site.host.run("hub", &["status"]).stdout).unwrap();
    assert!(shown.contains("waiting") && shown.contains("for its checks: test"), "{shown}");
    for conclusion in ["failure", "cancelled", "timed_out", "action_required", "stale"] {
        github(&server, json!([]), json!([check_run("lint", Some("success")), check_run("test", Some(conclusion))]));
        site.sync().expect(5, "refused").says("are red: test").says("hub retry acme/infra");
        site.host.run("hub", &["retry", REPO]);
    }
    nothing_live(&site);
    let runs = json!([check_run("lint", Some("skipped")), check_run("test", Some("neutral"))]);
    deploys(&site, || github(&server, json!([own]), runs.clone()));
    server.got();
    // What is live is asked about no more.
    site.sync().expect(0, "unchanged");
    assert_eq!(server.got().len(), 0);
}

#[test]
fn a_red_commit_is_skipped_until_the_branch_moves() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url));
    github(&server, json!([status("ci/\u{202e}x", "error"), status("slow", "pending")]), json!([]));
    site.sync().expect(5, "refused").says("are red: ci/\\u{202e}x");
    server.got();
    site.queued();
    site.sync().expect(5, "refused").says("is not tried again until the branch moves");
    assert_eq!(server.got().len(), 0, "nobody is asked again");
    let reasons = site.host.run("hub", &["status", "--json"]);
    let reasons: Value = serde_json::from_slice(&reasons.stdout).unwrap();
    let reason =
        &reasons["reasons"].as_array().unwrap().iter().find(|one| one["key"] == "gitops/acme/infra/refused").unwrap();
    assert!(reason["reason"].as_str().unwrap().contains("are red: ci/"), "{reason}");
    site.origin.push(&[("README", "two\n")]);
    deploys(&site, || github(&server, json!([status("ci", "success")]), json!([])));
}

#[test]
fn a_clock_that_jumps_and_another_boot_end_no_silence() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url));
    let silent = || {
        github(&server, json!([]), json!([]));
        site.sync().expect(0, "waiting").says("no check of");
        nothing_live(&site);
    };
    silent();
    let checked = site.state(&format!("checked/{FILE}"));
    // Written before the board heard what time it is.
    status::change(&checked, |checked| checked["waiting"]["since"] = "1970-01-01T00:01:00Z".into());
    silent();
    for change in [("boot", json!("another")), ("up", json!(i64::MAX))] {
        minutes_later(&site, 30);
        status::change(&checked, |checked| checked["waiting"]["begun"][change.0] = change.1);
        silent();
    }
    // As an older hub wrote it.
    status::change(&checked, |checked| {
        let commit = checked["waiting"]["commit"].clone();
        checked["waiting"] =
            json!({ "commit": commit, "since": "2026-01-01T00:00:00Z", "unheard": "2026-01-01T00:00:00Z" });
    });
    silent();
    minutes_later(&site, 11);
    github(&server, json!([]), json!([]));
    site.sync().expect(0, "deployed");
}

#[test]
fn gitea_and_gitlab_are_asked_in_their_way_page_by_page() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v1", server.url));
    let gitea = |statuses: Value| server.says(200, &[], &json!({ "statuses": statuses, "total_count": 1 }).to_string());
    gitea(json!([{ "context": "a", "status": "success" }]));
    gitea(json!([{ "context": "b / test (push)", "status": "pending" }]));
    gitea(json!(null));
    site.sync().expect(0, "waiting").says("for its checks: b / test (push)");
    let paths: Vec<String> = server.got().into_iter().map(|one| one.path).collect();
    assert!(paths.len() == 3 && paths[1].ends_with("/status?limit=50&page=2"), "{paths:?}");
    // Who knows no pages gives the same each time.
    deploys(&site, || (0..2).for_each(|_| gitea(json!([{ "context": "a", "status": "warning" }]))));
    server.got();

    let site = site_at(&format!("{}/api/v4", server.url));
    let job = |name: &str, status: &str, allow_failure| json!({ "name": name, "status": status, "allow_failure": allow_failure });
    let page = |jobs: Vec<Value>| server.says(200, &[], &json!(jobs).to_string());
    page(vec![job("build", "success", false), job("flaky", "failed", true), job("release", "manual", true)]);
    page(vec![job("gate", "manual", false), job("hub/x", "failed", false)]);
    page(Vec::new());
    site.sync().expect(0, "waiting").says("for its checks: gate");
    let got = server.got();
    assert_eq!(got[0].header("PRIVATE-TOKEN"), TOKEN);
    assert!(got[0].path.starts_with("/api/v4/projects/acme%2Finfra/repository/commits/"), "{}", got[0].path);
    deploys(&site, || {
        page(vec![job("build", "success", false), job("gate", "success", false)]);
        page(Vec::new());
    });
}

#[test]
fn silence_is_green_after_ten_minutes_and_an_hour_of_pending_is_told() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url));
    let silent = || github(&server, json!([]), json!([]));
    silent();
    site.sync().expect(0, "waiting").says("no check of");
    let asks = |site: &Site, key: &str| {
        let output = site.host.run("hub", &["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        status["reasons"].as_array().unwrap().iter().find(|reason| reason["key"] == key).cloned()
    };
    assert_eq!(asks(&site, "gitops/acme/infra/waiting"), None);
    let pending = || github(&server, json!([]), json!([check_run("slow", None)]));
    minutes_later(&site, 61);
    // A forge that does not answer meanwhile does not begin the hour anew.
    server.answers(503, &[]);
    site.sync().expect(0, "waiting").says("cannot be read, so it is not deployed").says("answered 503");
    pending();
    site.sync().expect(0, "waiting");
    let reason = asks(&site, "gitops/acme/infra/waiting").unwrap();
    assert!(reason["reason"].as_str().unwrap().contains("for its checks: slow"), "{reason}");
    assert!(reason["mend"].as_str().unwrap().contains("hub deploy acme/infra"), "{reason}");
    nothing_live(&site);
    silent();
    site.sync().expect(0, "deployed");
    assert_eq!(asks(&site, "gitops/acme/infra/waiting"), None);
    // Of the next commit nobody has said anything yet.
    site.origin.push(&[("README", "two\n")]);
    silent();
    site.sync().expect(0, "waiting").says("no check of");
}

#[test]
fn a_run_asks_again_by_itself_and_the_timer_after_it() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url));
    let green = || github(&server, json!([]), json!([check_run("slow", Some("success"))]));
    let says = |run: &support::Service, part: &str| {
        run.line_where(part, |line| line["reason"].as_str().is_some_and(|reason| reason.contains(part)));
    };
    // A forge that is away for a moment is no failure.
    server.answers(503, &[]);
    green();
    site.request(REPO);
    let mut run = site.host.start("gitops-sync", &[]);
    says(&run, "it is asked again");
    run.line("deployed");
    assert_eq!(run.wait(), Some(0));
    assert_eq!(site.queue().read_dir().unwrap().count(), 0);
    site.origin.push(&[("README", "two\n")]);
    // However long it took before.
    github(&server, json!([]), json!([check_run("slow", None)]));
    site.sync().expect(0, "waiting");
    minutes_later(&site, 30);
    green();
    // Nothing is queued; it is due by what the last look came to.
    site.queued().expect(0, "deployed");
}

#[test]
fn a_run_that_is_stopped_while_it_waits_is_no_failure_of_the_repository() {
    let server = Server::start();
    let site = site_at(&format!("{}/api/v3", server.url));
    site.request(REPO);
    for _ in 0..3 {
        (0..9).for_each(|_| github(&server, json!([]), json!([check_run("slow", None)])));
        let mut run = site.host.start("gitops-sync", &[]);
        run.line("waiting");
        // The look is over when it waits for the next one.
        support::eventually("the look is over", || !site.state(&format!("attempts/{FILE}")).exists());
        run.signal("KILL");
        run.wait();
        server.forget();
    }
    deploys(&site, || github(&server, json!([]), json!([check_run("slow", Some("success"))])));
    assert_eq!(site.state("failed").read_dir().unwrap().count(), 0);
}

#[test]
fn nothing_is_deployed_unchecked_whatever_the_forge_does() {
    let (server, other) = (Server::start(), Server::start());
    let dead = format!("http://{}", support::free_address());
    let cut = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"total_count\":0,");
    let site = site_at(&format!("{}/api/v3", server.url));
    let not_deployed = |ran: Ran, part: &str| {
        let ran = ran.says("cannot be read, so it is not deployed").says(part);
        assert!(!ran.log.contains(TOKEN) && !ran.report.to_string().contains(TOKEN), "{ran:?}");
        nothing_live(&site);
    };
    // What somebody has to mend is a failure at once, and an outage after ten minutes.
    let fails = |part: &str| not_deployed(site.sync().expect(1, "failed"), part);
    let waits = |part: &str| not_deployed(site.sync().expect(0, "waiting").says("it is asked again"), part);
    server.answers(302, &[("Location", &format!("{}/x", other.url))]);
    fails("leads elsewhere, which is not followed");
    assert_eq!(other.got().len(), 0, "the token is for one host");
    server.says(403, &[], &format!("no {TOKEN}"));
    fails("answered 403: no (the token); look at the credential forge");
    for answer in ["", "[]", "{\"statuses\":[]}", "{\"total_count\":1,\"statuses\":[{}]}", "<html>"] {
        server.says(200, &[], answer);
        waits("answered what is not understood");
    }
    // It says there are two, and shows one again and again.
    for _ in 0..2 {
        server.says(200, &[], &json!({"total_count": 2, "statuses": [status("a", "success")]}).to_string());
    }
    waits("counts 2 and shows 1");
    // The first question was answered well, the second not.
    server.says(200, &[], "{\"total_count\":0}");
    server.answers(500, &[]);
    waits("answered 500");
    for api in [dead, cut, raw(b""), raw(b"nonsense\r\n\r\n")] {
        configure(&site, &format!("{api}/api/v3"));
        waits("");
    }
    // The time of day ends no patience.
    status::change(&site.state(&format!("checked/{FILE}")), |checked| {
        checked["waiting"]["since"] = "1970-01-01T00:01:00Z".into()
    });
    waits("");
    minutes_later(&site, 11);
    fails("");
    fails("");
    std::fs::remove_file(site.host.state().join("credentials/forge")).unwrap();
    fails("credential forge: is missing");
    // It is tried again without being asked.
    site.host.credential("forge", TOKEN);
    configure(&site, &format!("{}/api/v3", server.url));
    deploys(&site, || github(&server, json!([status("ci", "success")]), json!([])));
}
