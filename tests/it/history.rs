//! What happened stays known, and one goes back to what was live before.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::gitops::{FILE, REPO, Site, names, sh};
use crate::support::{Service, git};
use serde_json::{Value, json};

/// The lines of gitops-sync's history.
fn history(site: &Site) -> Vec<Value> {
    let text = std::fs::read_to_string(site.state("history.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(site: &Site) -> Vec<String> {
    history(site).iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

fn hub(site: &Site, arguments: &[&str]) -> Output {
    site.host.run("hub", arguments)
}

#[track_caller]
fn says(output: &Output, code: i32) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    out + &err
}

/// `hub rollback REPO` ends so and says so.
#[track_caller]
fn rollback(site: &Site, arguments: &[&str], code: i32) -> String {
    says(&hub(site, &[&["rollback", REPO][..], arguments].concat()), code)
}

fn deployed(site: &Site) -> String {
    site.host.json("state/gitops/deployed/acme__infra.json")["commit"].as_str().unwrap().to_owned()
}

fn versions(site: &Site) -> Value {
    serde_json::from_str(&says(&hub(site, &["versions", REPO, "--json"]), 0)).unwrap()
}

/// A site with three deployed commits, `v` 1 to 3.
fn three(more: &str) -> (Site, Vec<String>) {
    let site = Site::with("", more);
    let commits = (1..=3).map(|number| {
        let commit = site.origin.push(&[("v", &format!("{number}\n"))]);
        site.sync().expect(0, "deployed");
        commit
    });
    let commits = commits.collect();
    (site, commits)
}

#[test]
fn a_deployment_is_known_after_many_runs_that_found_nothing() {
    let (site, commits) = three("");
    for _ in 0..30 {
        site.sync().expect(0, "unchanged");
    }
    let record = site.host.json("state/gitops/run.json");
    assert_eq!((&record["status"], &record["found_nothing"]), (&json!("unchanged"), &json!(30)));
    let history_of_runs = record["history"].as_array().unwrap();
    assert_eq!(history_of_runs.len(), 3);
    assert_eq!(history_of_runs[0]["details"]["repositories"][0]["to"], commits[2]);
    assert_eq!(kinds(&site), ["deployed"; 3]);
    let last = &history(&site)[2];
    let expected = json!({
        "kind": "deployed", "about": REPO, "status": "deployed", "from": commits[1], "to": commits[2], "subject": "a change",
        "author": "Tester",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&last[key], value, "{key}: {last:#}");
    }
    assert!(last["duration_ms"].is_u64() && last["by"].is_string() && last["committed"].is_string(), "{last:#}");
    let plan = site.host.json(&format!("state/gitops/{}", last["plan"].as_str().unwrap()));
    assert_eq!(plan["to"], commits[2]);
    assert!(plan["plan"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().starts_with("M v:")), "{plan:#}");
}

#[test]
fn what_goes_on_happens_once() {
    let (site, _) = three(&sh("build", "! test -e bad"));
    let before = kinds(&site).len();
    site.origin.push(&[("bad", "1")]);
    site.sync().expect(3, "rolled_back");
    site.sync().expect(3, "rolled_back");
    std::fs::rename(&site.origin.bare, site.host.path("away")).unwrap();
    for _ in 0..2 {
        site.sync().expect(1, "failed");
    }
    std::fs::rename(site.host.path("away"), &site.origin.bare).unwrap();
    std::fs::remove_file(site.origin.work.join("bad")).unwrap();
    site.origin.push(&[("v", "4\n")]);
    site.write("v", "mine\n");
    for _ in 0..3 {
        site.sync().expect(5, "refused");
    }
    site.write("v", "3\n");
    site.sync().expect(0, "deployed");
    assert_eq!(kinds(&site)[before..], ["rolled_back", "failed", "refused", "deployed"]);
    assert_eq!(
        site.host.json("state/gitops/totals.json")["repositories"][REPO],
        json!({"deployed": 4, "rolled_back": 1})
    );
    says(&hub(&site, &["hold", REPO, "--reason", "a \u{202e}move"]), 0);
    says(&hub(&site, &["release", REPO]), 0);
    says(&hub(&site, &["release", REPO]), 0);
    assert_eq!(kinds(&site)[before + 4..], ["held", "released"]);
    let line = says(&hub(&site, &["timeline", "--about", "Acme/Infra", "--since", "1h"]), 0);
    assert_eq!(line.lines().count(), before + 6, "{line}");
    assert!(line.contains("held") && line.contains("a \\u{202e}move") && !line.contains('\u{202e}'), "{line}");
    let lines = says(&hub(&site, &["timeline", "--json"]), 0);
    let all: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(all.iter().all(|event| event["service"] == "gitops-sync" && event["about"] == REPO), "{lines}");
    assert_eq!(says(&hub(&site, &["timeline", "--about", "acme/other", "--json"]), 0), "");
    says(&hub(&site, &["timeline", "--since", "soon"]), 2);
}

#[test]
fn a_hidden_letter_of_a_subject_is_written_out_once() {
    let (site, _) = three("");
    git(&site.origin.work, &["commit", "--quiet", "--allow-empty", "-m", "rings \u{7} \"twice\""]);
    site.push();
    site.sync().expect(0, "deployed");
    site.origin.push(&[("v", "4\n")]);
    site.sync().expect(0, "deployed");
    let text = rollback(&site, &["--dry-run"], 0);
    assert!(text.contains(r#" "rings \u{7} "twice"""#), "{text}");
    let line = says(&hub(&site, &["timeline", "--since=-1h"]), 0);
    assert!(line.contains(r#" "rings \u{7} "twice"""#), "{line}");
}

#[test]
fn one_goes_back_and_the_branch_waits_for_the_release() {
    let (site, commits) = three("");
    let text = rollback(&site, &["--dry-run"], 0);
    assert!(text.contains(&commits[1][..10]) && text.contains("M v:"), "{text}");
    assert_eq!((site.head(), names(&site.state("hold"))), (commits[2].clone(), vec![]));
    let text = rollback(&site, &[], 0);
    assert!(text.contains("release acme/infra") && text.contains(&commits[1][..10]), "{text}");
    site.assert_exactly(&commits[1]);
    assert_eq!(deployed(&site), commits[1]);
    assert_eq!(kinds(&site)[3..], ["deployed", "held"]);
    // A step further, and not to what was left.
    let text = rollback(&site, &[], 0);
    assert!(text.contains("push a revert (git revert"), "{text}");
    site.assert_exactly(&commits[0]);
    let known = versions(&site);
    assert_eq!((&known["live"], &known["versions"][0]["commit"]), (&json!(commits[0]), &json!(commits[2])));
    assert!(known["versions"][0]["left"].is_string() && known["hold"]["reason"].is_string(), "{known:#}");
    let table = says(&hub(&site, &["versions", REPO]), 0);
    assert!(table.lines().any(|line| line.starts_with(&format!("* {}", &commits[0][..10]))), "{table}");

    let next = site.origin.push(&[("v", "4\n")]);
    site.request(REPO);
    site.queued().expect(0, "held");
    site.assert_exactly(&commits[0]);
    let text = says(&hub(&site, &["release", REPO]), 0);
    let revert = format!("git revert {}..{}", &commits[0][..10], &commits[2][..10]);
    assert!(text.contains(&format!("you went back from {}", &commits[2][..10])), "{text}");
    assert!(text.contains(&revert) && text.contains("hub hold acme/infra"), "{text}");
    let again = says(&hub(&site, &["release", REPO]), 0);
    assert!(!again.contains("went back"), "{again}");
    site.queued().expect(0, "deployed");
    site.assert_exactly(&next);
    // What was live before is not what somebody went back from.
    rollback(&site, &[], 0);
    site.assert_exactly(&commits[0]);
    rollback(&site, &[&commits[2][..8]], 0);
    site.assert_exactly(&commits[2]);
    assert!(names(&site.state("journal")).is_empty());
}

#[test]
fn what_was_never_deployed_is_refused_and_changes_nothing() {
    let (site, commits) = three("");
    let other = site.origin.commit(&[("v", "never\n")]);
    let before = (kinds(&site), site.host.json("state/gitops/checked/acme__infra.json"));
    for (commit, part) in [
        (other.as_str(), "was not deployed here"),
        ("HEAD~1", "is not the name of a commit"),
        ("abc", "four of its digits"),
        ("", "is not the name of a commit"),
    ] {
        let text = rollback(&site, &[commit], 5);
        assert!(text.contains(part), "{commit}: {text}");
        assert_eq!((kinds(&site), site.host.json("state/gitops/checked/acme__infra.json")), before);
        assert_eq!((site.head(), names(&site.state("hold"))), (commits[2].clone(), vec![]), "{commit}");
    }
    for _ in 0..2 {
        rollback(&site, &[], 0);
    }
    let text = rollback(&site, &[], 5);
    assert!(text.contains("nothing of acme/infra was deployed before"), "{text}");
    says(&hub(&site, &["rollback", "acme/none"]), 2);
}

#[test]
fn local_changes_and_own_commits_are_not_lost() {
    let (site, commits) = three("");
    site.write("v", "mine\n");
    assert!(rollback(&site, &[], 5).contains("local changes to v"));
    assert_eq!(site.read("v"), "mine\n");
    assert_eq!(names(&site.state("hold")), [] as [String; 0]);
    site.write("v", "3\n");
    site.write("other", "mine\n");
    git(&site.checkout, &["add", "other"]);
    git(&site.checkout, &["commit", "--quiet", "-m", "mine"]);
    let mine = site.head();
    assert!(rollback(&site, &[], 5).contains("has commits that the branch"));
    assert_eq!((site.head(), deployed(&site)), (mine, commits[2].clone()));
}

#[test]
fn a_commit_that_fails_now_goes_back_to_what_ran() {
    let (site, commits) = three("");
    site.configure("", &sh("build", "! grep -q 2 v"));
    says(&hub(&site, &["hold", REPO, "--reason", "first"]), 0);
    let text = rollback(&site, &[], 3);
    assert!(text.contains("build failed"), "{text}");
    site.assert_exactly(&commits[2]);
    assert_eq!(deployed(&site), commits[2]);
    // The hold of before stands as it was, and the branch's commit is not marked.
    assert_eq!(site.host.json("state/gitops/hold/acme__infra.json")["reason"], "first");
    assert_eq!(names(&site.state("bad")), [] as [String; 0]);
    says(&hub(&site, &["release", REPO]), 0);
    rollback(&site, &[], 3);
    assert_eq!(names(&site.state("hold")), [] as [String; 0]);
    assert_eq!(*kinds(&site).last().unwrap(), "rolled_back");
}

#[test]
fn a_branch_that_was_rewritten_and_a_tidied_mirror_lose_nothing() {
    let (site, commits) = three("");
    git(&site.origin.work, &["reset", "--quiet", "--hard", &commits[0]]);
    let other = site.origin.commit(&[("v", "other\n")]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    git(&site.checkout, &["fetch", "--quiet", "origin"]);
    git(&site.checkout, &["reset", "--quiet", "--hard", "origin/main"]);
    says(&hub(&site, &["retry", REPO, "--rewritten"]), 0);
    site.queued();
    assert_eq!(deployed(&site), other);
    // What a killed git left of it is no matter.
    let reference = format!("mirror/acme__infra.git/refs/hub/deployed/{other}");
    git(&site.state("mirror/acme__infra.git"), &["update-ref", "-d", &format!("refs/hub/deployed/{other}")]);
    let mut known = site.host.json("state/gitops/versions/acme__infra.json");
    known["versions"].as_array_mut().unwrap().retain(|version| version["commit"] != other);
    std::fs::write(site.state("versions/acme__infra.json"), known.to_string()).unwrap();
    std::fs::write(site.state(&format!("{reference}.lock")), "").unwrap();
    site.sync().expect(0, "unchanged");
    assert!(site.state(&reference).exists());
    assert_eq!(versions(&site)["versions"][0]["commit"], other);
    for folder in [site.checkout.clone(), site.state("mirror/acme__infra.git")] {
        git(&folder, &["reflog", "expire", "--expire=now", "--all"]);
        git(&folder, &["-c", "gc.pruneExpire=now", "gc", "--quiet"]);
    }
    rollback(&site, &[&commits[2]], 0);
    site.assert_exactly(&commits[2]);
}

#[test]
fn hidden_characters_of_a_commit_are_written_out() {
    let (site, _) = three("");
    git(&site.origin.work, &["commit", "--quiet", "--allow-empty", "-m", "fix \u{202e}gnp.exe\u{1b}[2J"]);
    site.push();
    site.sync().expect(0, "deployed");
    for arguments in [&["versions", REPO][..], &["timeline"], &["versions", REPO, "--json"], &["timeline", "--json"]] {
        let text = says(&hub(&site, arguments), 0);
        assert!(text.contains("u{202e}gnp.exe") && !text.contains(['\u{202e}', '\u{1b}']), "{text}");
    }
    let text = rollback(&site, &[], 0);
    assert!(!text.contains(['\u{202e}', '\u{1b}']), "{text}");
}

#[test]
fn signed_repositories_go_back_to_signed_commits_only() {
    let (site, commits) = three("");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(site.host.path("key")).status();
    assert!(made.unwrap().success());
    let public = std::fs::read_to_string(site.host.path("key.pub")).unwrap();
    std::fs::write(site.host.path("signers"), format!("me@example.org {public}")).unwrap();
    let signers = format!("allowed_signers = \"{}\"", site.host.path("signers").display());
    site.configure("", &signers);
    let key = format!("user.signingKey={}", site.host.path("key").display());
    let signed: Vec<String> = ["4", "5"]
        .map(|version| {
            std::fs::write(site.origin.work.join("v"), version).unwrap();
            git(&site.origin.work, &["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-S", "-am", version]);
            let commit = site.push();
            site.sync().expect(0, "deployed");
            commit
        })
        .into();
    rollback(&site, &[], 0);
    site.assert_exactly(&signed[0]);
    assert!(rollback(&site, &[], 5).contains("is not signed"));
    assert!(rollback(&site, &[&commits[0]], 5).contains("is not signed"));
    site.assert_exactly(&signed[0]);
}

#[test]
fn a_remote_that_hangs_is_not_waited_for() {
    let (site, commits) = three("");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/acme/infra.git", silent.local_addr().unwrap().port());
    site.configure_url(&url, "", "");
    let fetching: Service = site.host.start("gitops-sync", &[REPO]);
    let _connection = silent.accept().unwrap();
    let begun = Instant::now();
    rollback(&site, &[], 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    site.assert_exactly(&commits[1]);
    drop(fetching);
}

#[test]
fn killed_at_any_moment_it_converges() {
    let (site, commits) = three(&sh("after", "cat v > made"));
    let begun = Instant::now();
    rollback(&site, &[], 0);
    let length = begun.elapsed();
    let mut cut_off = 0;
    for round in 0..24 {
        let mut command = site.host.command("hub");
        let to = &commits[usize::from(round % 2 == 0) * 2];
        command.args(["rollback", REPO, to]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(length.mul_f64(f64::from(round) / 24.0));
        child.kill().unwrap();
        child.wait().unwrap();
        cut_off += usize::from(site.state("journal").join(FILE).exists());
        // What a run finds it undoes; the branch waits.
        site.run(&[REPO]);
        let live = deployed(&site);
        assert!(commits.contains(&live));
        site.assert_exactly(&live);
        rollback(&site, &[to], 0);
        site.assert_exactly(to);
        assert_eq!(&deployed(&site), to);
        assert_eq!(site.read("made"), site.read("v"));
    }
    assert!(cut_off >= 3, "{cut_off}");
}

#[test]
fn the_timeline_goes_on_with_what_happens() {
    let site = Site::new();
    let mut follower = site.host.start("hub", &["timeline", "--follow", "--json"]);
    site.sync().expect(0, "deployed");
    let line = follower.line_where("the deployment", |line| line["kind"] == "deployed");
    assert_eq!(line["service"], "gitops-sync");
    says(&hub(&site, &["hold", REPO]), 0);
    follower.line_where("the hold", |line| line["kind"] == "held");
    assert_eq!(follower.lines().len(), 2);
    follower.signal("TERM");
    follower.wait();
    // Who reads no more ends it.
    let mut command = site.host.command("hub");
    let mut child = command.args(["timeline", "--follow"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
