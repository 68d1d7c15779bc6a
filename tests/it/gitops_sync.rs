//! A push reaches the checkout, nothing of the operator's is lost, and what cannot be fetched is told.

use crate::support;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use crate::support::git;
use crate::support::gitops::{FILE, REPO, Site, files, names, sh};

#[test]
fn the_first_run_makes_the_checkout_and_a_push_moves_it() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let first = site.head();
    site.assert_exactly(&first);
    assert_eq!(git(&site.checkout, &["branch", "--show-current"]), "main");
    assert_eq!(git(&site.checkout, &["remote", "get-url", "origin"]), site.origin.url());
    let second = site.origin.push(&[("README", "two\n"), ("new", "x")]);
    let run = site.sync().expect(0, "deployed");
    assert_eq!(
        (run.report["repositories"][0]["from"].as_str(), run.report["repositories"][0]["to"].as_str()),
        (Some(first.as_str()), Some(second.as_str()))
    );
    site.assert_exactly(&second);
    // The operator's own git sees an ordinary checkout that is up to date.
    assert_eq!(git(&site.checkout, &["status", "--short", "--branch"]), "## main...origin/main");
    assert_eq!(site.host.json("state/gitops/deployed/acme__infra.json")["commit"], second.as_str());
}

#[test]
fn an_existing_clone_is_taken_over() {
    let site = Site::new();
    git(&site.host.path(""), &["clone", "--quiet", site.origin.url(), "checkout"]);
    site.sync().expect(0, "deployed");
    let commit = site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&commit);
}

#[test]
fn a_shallow_clone_gets_content_that_an_older_commit_had() {
    let site = Site::new();
    site.origin.push(&[("README", "two\n")]);
    let url = format!("file://{}", site.origin.url());
    git(&site.host.path(""), &["clone", "--quiet", "--depth", "1", &url, "checkout"]);
    site.sync().expect(0, "deployed");
    // With a bitmap, pack-objects leaves out what any ancestor has.
    git(&site.state("mirror/acme__infra.git"), &["repack", "-adbq"]);
    site.origin.push(&[("README", "one\n")]);
    site.sync().expect(0, "deployed");
    assert_eq!(site.read("README"), "one\n");
}

#[test]
fn unchanged_runs_nothing_and_says_so() {
    let site = Site::with("", &(sh("build", "echo b >> ../built") + &sh("after", "echo a >> ../built")));
    site.sync().expect(0, "deployed");
    site.sync().expect(0, "unchanged");
    site.request(REPO);
    site.queued().expect(0, "unchanged");
    assert_eq!(std::fs::read_to_string(site.host.path("built")).unwrap(), "b\na\n");
    assert_eq!(site.host.json("state/gitops/run.json")["status"], "unchanged");
    assert_eq!(site.host.json("state/gitops/run.json")["counts"]["unchanged"], 1);
}

#[test]
fn a_dry_run_changes_nothing_but_the_mirror() {
    let site = Site::with("", &(sh("build", "touch ../built") + &sh("after", "touch ../built")));
    let run = site.run(&["--dry-run"]).expect(0, "planned");
    let first = &git(&site.origin.work, &["rev-parse", "HEAD"])[..10];
    let plan: Vec<&str> =
        run.report["repositories"][0]["plan"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(plan[0].ends_with(": there is none yet"), "{plan:#?}");
    assert_eq!(plan[1..3], [format!("A README: new in {first}"), format!("A app/config: new in {first}")]);
    assert_eq!(plan[3], format!("build: /bin/sh -c touch ../built ({first} is not live yet)"));
    assert!(!site.checkout.exists());
    site.sync().expect(0, "deployed");
    std::fs::remove_file(site.host.path("built")).unwrap();
    let deployed = site.state("deployed").join(FILE);
    let record = std::fs::read(&deployed).unwrap();
    std::fs::remove_file(&deployed).unwrap();
    let run = site.run(&["--dry-run"]).expect(0, "planned");
    let line = &run.report["repositories"][0]["plan"][0];
    assert_eq!(line, &format!("take {first} for deployed: the checkout has its files already"));
    std::fs::write(&deployed, record).unwrap();
    std::fs::remove_file(site.origin.work.join("app/config")).unwrap();
    let commit = site.origin.push(&[("README", "two\n"), ("odd\u{1b}[31m\nname", "x")]);
    let state = || {
        let mut all = files(&site.state(""));
        all.retain(|name, _| !name.as_bytes().starts_with(b"mirror/"));
        (all, files(&site.checkout), files(&site.checkout.join(".git")))
    };
    let before = state();
    let run = site.run(&["--dry-run", REPO]).expect(0, "planned");
    assert_eq!(run.report["repositories"][0]["to"], commit.as_str());
    let table = site.host.run("gitops-sync", &["--dry-run"]);
    let text = String::from_utf8(table.stdout).unwrap();
    let to = &commit[..10];
    for line in [format!("M README: differs in {to}"), format!("D app/config: not in {to} any more")] {
        assert!(text.lines().any(|said| said.trim() == line), "{line}: {text}");
    }
    assert!(text.contains("planned") && text.contains("build: /bin/sh"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(before, state());
    assert!(!site.host.path("built").exists());
}

#[test]
fn a_unit_that_is_not_deployed_here_is_planned_with_the_reason() {
    let site = Site::with("", "units = \"units\"\n");
    site.origin.push(&[("units/app.service", "[Service]\nExecStart=/bin/true\n"), ("units.txt", "x")]);
    let run = site.run(&["--dry-run"]).expect(0, "planned");
    let result = &run.report["repositories"][0];
    let Some(reason) = result["not_deployed"].as_str() else {
        // As root under systemd: the unit has a line of its own.
        assert!(result["units"][0]["reason"].is_string(), "{result:#}");
        return;
    };
    let to = &result["to"].as_str().unwrap()[..10];
    let plan = result["plan"].as_array().unwrap();
    let line = format!("A units/app.service: new in {to}; in the checkout only, units are not deployed: {reason}");
    assert!(plan.contains(&line.into()), "{plan:#?}");
    assert!(plan.contains(&format!("A units.txt: new in {to}").into()), "{plan:#?}");
}

#[test]
fn a_unit_to_adopt_that_no_repository_has_is_a_wrong_command_line() {
    let site = Site::with("", "units = \"units\"\n");
    site.origin.push(&[("units/app.service", "[Service]\nExecStart=/bin/true\n"), ("units/app.service.d/a.conf", "")]);
    // As far as units are deployed here at all, nothing is there to be taken over; what counts is that it is known.
    for known in ["app.service", "app.service.d/a.conf"] {
        let run = site.run(&["--dry-run", "--adopt", known]);
        assert!(run.code == Some(0) && !run.log.contains("usage"), "{run:#?}");
    }
    // It names no repository, so all are looked at, due or not.
    site.configure("", "units = \"\"\n");
    site.sync().expect(0, "deployed");
    let run = site.run(&["--adopt", "foo.service"]).expect(2, "unchanged");
    assert_eq!(run.report["exit"], 2);
    assert!(run.log.contains("--adopt foo.service: there is no such unit in acme/infra"), "{}", run.log);
    // What is worse decides, and where nobody came to look nothing is said of the unit.
    site.configure("", "branch = \"none\"\n");
    let run = site.run(&["--adopt", "foo.service"]).expect(5, "refused");
    assert!(!run.log.contains("foo.service"), "{}", run.log);
}

#[test]
fn root_makes_a_checkout_for_itself_where_that_is_written_or_there_is_no_user_hub() {
    if !support::gitops::is_root() {
        return support::gitops::skip("checkouts that root makes", "root");
    }
    let site = Site::new();
    let configure = |user: &str| {
        let (url, path) = (site.origin.url(), site.checkout.display());
        site.host.configure(&format!("[[repository]]\nname = \"{REPO}\"\nurl = \"{url}\"\npath = \"{path}\"\n{user}"));
    };
    configure("");
    let marker = site.host.path("ran");
    if std::process::Command::new("id").args(["-u", "hub-checkout"]).output().unwrap().status.success() {
        site.sync().expect(0, "deployed");
        let owner = std::process::Command::new("stat").args(["-c", "%U"]).arg(&site.checkout).output().unwrap();
        assert_eq!(owner.stdout, b"hub-checkout\n");
    } else {
        configure(&sh("build", &format!("touch {}", marker.display())));
        let run = site.sync().expect(0, "deployed");
        assert!(marker.exists() && run.log.contains("hub_user_missing"), "{}", run.log);
    }
    let other = site.host.path("of-root");
    let (url, path) = (site.origin.url(), other.display());
    site.host.configure(&format!(
        "[[repository]]\nname = \"acme/root\"\nurl = \"{url}\"\npath = \"{path}\"\nuser = \"root\"\n"
    ));
    let run = site.run(&["acme/root"]).expect(0, "deployed");
    assert!(!run.log.contains("hub_user_missing"), "{}", run.log);
    assert!(other.join("README").exists());
}

#[test]
fn several_repositories_end_with_the_worst_code() {
    let site = Site::new();
    let one = |name: &str, url: &str, more: &str| {
        let path = site.host.path(&name.replace('/', "_"));
        let user = support::gitops::user_name();
        format!(
            "[[repository]]\nname = \"{name}\"\nurl = \"{url}\"\npath = \"{}\"\nuser = \"{user}\"\n{more}\n",
            path.display()
        )
    };
    let url = site.origin.url();
    let good = one("acme/good", url, "");
    let gone = one("acme/gone", "/nonexistent/origin.git", "");
    let refused = one("acme/refused", url, "branch = \"none\"");
    let failing = one("acme/failing", url, "build = [\"/bin/false\"]");
    for (text, code) in [
        (good.clone(), 0),
        (good.clone() + &gone, 1),
        (gone.clone() + &refused + &good, 5),
        (gone.clone() + &refused + &failing + &good, 3),
    ] {
        site.host.configure(&text);
        let names: Vec<&str> = ["acme/good", "acme/gone", "acme/refused", "acme/failing"]
            .into_iter()
            .filter(|name| text.contains(name))
            .collect();
        let run = site.run(&names);
        assert_eq!(run.code, Some(code), "{run:#?}");
        assert_eq!(run.report["exit"], code);
        let statuses: Vec<_> = run.report["repositories"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["repository"].clone(), r["status"].clone()))
            .collect();
        assert!(
            statuses
                .iter()
                .any(|(name, status)| name == "acme/good" && (status == "deployed" || status == "unchanged")),
            "{statuses:?}"
        );
    }
    let run = site.run(&["acme/unknown"]);
    assert_eq!(run.code, Some(2));
    assert!(run.log.contains("acme/unknown is not configured; hub.toml has acme/gone"), "{}", run.log);
}

#[test]
fn a_failed_fetch_is_kept_and_taken_up_again() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let commit = site.origin.push(&[("README", "two\n")]);
    let away = site.host.path("away.git");
    std::fs::rename(&site.origin.bare, &away).unwrap();
    site.request(REPO);
    site.queued().expect(1, "failed").says("cannot fetch from").says("origin.git");
    assert_eq!((names(&site.queue()), names(&site.state("active"))), (vec![], vec![]));
    assert_eq!(names(&site.state("retry")), [FILE]);
    // Still away: it stays.
    site.queued().expect(1, "failed");
    assert_eq!(names(&site.state("retry")), [FILE]);
    std::fs::rename(&away, &site.origin.bare).unwrap();
    site.queued().expect(0, "deployed");
    assert_eq!(names(&site.state("retry")), [] as [String; 0]);
    site.assert_exactly(&commit);
}

#[test]
fn what_is_the_operators_survives() {
    let site = Site::new();
    site.origin.push(&[(".gitignore", "*.log\n"), ("app/other", "o\n")]);
    site.sync().expect(0, "deployed");
    site.write("app/other", "my edit\n");
    site.write("untracked", "mine\n");
    site.write("run.log", "ignored\n");
    site.write("staged", "staged\n");
    git(&site.checkout, &["add", "staged"]);
    site.origin.push(&[("README", "two\n"), ("app/config", "a=2\n")]);
    site.sync().expect(0, "deployed");
    for (name, content) in [
        ("app/other", "my edit\n"),
        ("untracked", "mine\n"),
        ("run.log", "ignored\n"),
        ("staged", "staged\n"),
        ("README", "two\n"),
    ] {
        assert_eq!(site.read(name), content);
    }
    assert_eq!(git(&site.checkout, &["status", "--short"]), "M app/other\nA  staged\n?? untracked");
}

#[test]
fn a_remote_that_hangs_costs_a_bounded_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for scheme in ["git", "http"] {
        let site = Site::new();
        site.sync().expect(0, "deployed");
        site.configure_url(&format!("{scheme}://127.0.0.1:{port}/x.git"), "fetch_timeout_seconds = 2", "");
        let started = Instant::now();
        site.sync().expect(1, "failed").says("cannot fetch from").says("within 2 s");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(site.read("README"), "one\n");
    }
}

#[test]
fn a_remote_that_refuses_says_why() {
    let port = support::free_address().port();
    let site = Site::empty();
    site.configure_url(&format!("http://127.0.0.1:{port}/x.git"), "fetch_timeout_seconds = 2", "");
    site.sync().expect(1, "failed").says("cannot fetch from http://127.0.0.1").says("onnect");
    assert!(!site.checkout.exists());
}
