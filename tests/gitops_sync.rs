//! A push reaches the checkout, nothing of the operator's is lost, and a commit that fails is taken back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::type_complexity,
    reason = "a test may fail anywhere"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::gitops::{FILE, REPO, Ran, Site, files, is_alive, names, ran};
use support::{eventually, git};

/// A command of the configuration: `sh -c SCRIPT`.
fn sh(key: &str, script: &str) -> String {
    format!("{key} = [\"/bin/sh\", \"-c\", '''{script}''']\n")
}

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
    let first = &git(&site.origin.work, &["rev-parse", "HEAD"])[..12];
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
    assert_eq!(line, &format!("take {first} for deployed: the checkout has it already"));
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
    let to = &commit[..12];
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
    let to = &result["to"].as_str().unwrap()[..12];
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
    if std::process::Command::new("id").args(["-u", "hub"]).output().unwrap().status.success() {
        site.sync().expect(0, "deployed");
        let owner = std::process::Command::new("stat").args(["-c", "%U"]).arg(&site.checkout).output().unwrap();
        assert_eq!(owner.stdout, b"hub\n");
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
fn a_held_repository_is_left_alone() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let hold = site.state("hold").join(FILE);
    std::fs::write(&hold, r#"{"since":"2026-01-01T00:00:00.000Z","by":"ann","reason":"disk swap"}"#).unwrap();
    let before = site.head();
    let commit = site.origin.push(&[("README", "two\n")]);
    site.request(REPO);
    site.queued().expect(0, "held").says("ann").says("disk swap").says("hub release acme/infra");
    assert_eq!(site.head(), before);
    // A damaged hold still holds.
    std::fs::write(&hold, "{").unwrap();
    site.sync().expect(1, "failed").says("damaged");
    assert_eq!(site.head(), before);
    std::fs::remove_file(hold).unwrap();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&commit);
}

#[test]
fn a_manual_run_gives_way_and_a_queued_one_waits() {
    let site = Site::with("", &sh("build", "touch ../started; while [ ! -e ../go ]; do sleep 0.02; done"));
    let first = site.host.start("gitops-sync", &[REPO]);
    eventually("the first run builds", || site.host.path("started").exists());
    for arguments in [&[REPO][..], &["--dry-run"]] {
        let run = site.run(arguments);
        assert_eq!(run.code, Some(75), "{run:#?}");
        assert!(run.log.contains("another gitops-sync is at work"), "{}", run.log);
    }
    site.request(REPO);
    let mut queued = site.host.start("gitops-sync", &[]);
    // It must hold the lock file open without having it: that is waiting.
    eventually("the queued run waits", || {
        let text = std::fs::read_to_string("/proc/locks").unwrap();
        text.lines().any(|line| line.contains("-> FLOCK") && line.contains(&queued.child.id().to_string()))
    });
    std::fs::write(site.host.path("go"), "").unwrap();
    let mut first = first;
    assert_eq!(first.wait(), Some(0));
    assert_eq!(queued.wait(), Some(0));
    queued.line("unchanged");
    site.assert_settled();
}

#[test]
fn a_repository_is_due_after_55_minutes() {
    let site = Site::new();
    site.queued().expect(0, "deployed");
    let run = site.queued();
    assert_eq!((run.code, run.report["repositories"].as_array().unwrap().len()), (Some(0), 0), "{run:?}");
    let checked = site.state("checked").join(FILE);
    let set = |minutes: i64| {
        let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - minutes * 60).unwrap();
        let mut file = site.host.json(&format!("state/gitops/checked/{FILE}"));
        file["at"] = at.to_string().into();
        std::fs::write(&checked, file.to_string()).unwrap();
    };
    set(54);
    assert!(site.queued().report["repositories"].as_array().unwrap().is_empty());
    set(56);
    site.queued().expect(0, "unchanged");
    // A clock that went back, and a damaged file, must not put it off.
    set(-90);
    site.queued().expect(0, "unchanged");
    std::fs::write(&checked, "no json").unwrap();
    site.queued().expect(0, "unchanged");
}

/// A run without names looked at nothing, and said until when.
#[track_caller]
fn nothing_due(site: &Site) -> serde_json::Value {
    let run = site.queued();
    assert_eq!((run.code, run.report["repositories"].as_array().unwrap().len()), (Some(0), 0), "{run:#?}");
    let line: serde_json::Value = serde_json::from_str(run.log.lines().last().unwrap()).unwrap();
    assert_eq!((&line["msg"], &line["level"]), (&"nothing_due".into(), &"INFO".into()), "{run:#?}");
    line
}

#[test]
fn a_run_that_finds_nothing_to_do_says_so_and_until_when() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let checked = || site.host.json(&format!("state/gitops/checked/{FILE}"))["at"].as_str().unwrap().to_owned();
    let at: jiff::Timestamp = checked().parse().unwrap();
    let line = nothing_due(&site);
    let next: jiff::Timestamp = line["next_due"].as_str().unwrap().parse().unwrap();
    assert_eq!(next, at + jiff::SignedDuration::from_mins(55), "{line}");
    assert!(line["note"].as_str().unwrap().contains("gitops-sync REPO"), "{line}");
    site.host.configure("");
    let output = site.host.run("gitops-sync", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("nothing_configured"));
}

#[test]
fn a_repository_whose_table_changed_is_due_at_once() {
    let site = Site::new();
    site.queued().expect(0, "deployed");
    nothing_due(&site);
    site.configure("", "units = \"units\"\n");
    site.queued().expect(0, "unchanged");
    nothing_due(&site);
    // What is not its own does not count.
    site.configure("command_timeout_seconds = 100", "units = \"units\"\n");
    nothing_due(&site);
    let run = site.run(&["--dry-run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    site.configure("", "branch = \"live\"\n");
    git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:live"]);
    // A dry run is no look.
    site.run(&["--dry-run"]).says("switch live");
    site.queued().expect(5, "refused").says("switch live");
}

#[test]
fn what_was_refused_is_looked_at_again_by_every_run_and_what_was_rolled_back_is_not() {
    let site = Site::with("", "branch = \"live\"\n");
    let run = site.queued().expect(5, "refused").says("the branch live does not exist");
    assert!(run.log.contains(r#""look_again":"hub deploy acme/infra""#), "{}", run.log);
    site.queued().expect(5, "refused");
    git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:live"]);
    site.queued().expect(0, "deployed");
    nothing_due(&site);

    let site = Site::with("", &sh("build", "[ ! -e bad ]"));
    site.sync().expect(0, "deployed");
    site.origin.push(&[("bad", "x")]);
    let run = site.sync().expect(3, "rolled_back");
    assert!(!run.log.contains("look_again"), "{}", run.log);
    nothing_due(&site);
    std::fs::create_dir_all(site.state("hold")).unwrap();
    std::fs::write(site.state("hold").join(FILE), r#"{"since":"2026-01-01T00:00:00.000Z","by":"ann"}"#).unwrap();
    site.sync().expect(0, "held");
    nothing_due(&site);
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

/// The next commit is refused and the checkout stays as it is to the last byte.
fn refused(site: &Site, part: &str) -> Ran {
    let state = || (files(&site.checkout), site.head(), git(&site.checkout, &["status", "--short", "--ignored"]));
    let before = state();
    let run = site.sync().expect(5, "refused").says(part);
    assert_eq!(before, state());
    site.assert_settled();
    assert_eq!(names(&site.state("retry")), [] as [String; 0]);
    run
}

#[test]
fn a_commit_that_would_overwrite_something_is_refused() {
    type Change = fn(&Site);
    let cases: [(&str, Change, &[(&str, &str)], &str); 13] = [
        ("edited", |s| s.write("README", "mine\n"), &[("README", "two\n")], "local changes to README"),
        (
            "deleted",
            |s| std::fs::remove_file(s.checkout.join("README")).unwrap(),
            &[("README", "two\n")],
            "local changes to README",
        ),
        (
            "staged",
            |s| {
                s.write("README", "mine\n");
                git(&s.checkout, &["add", "README"]);
            },
            &[("README", "two\n")],
            "local changes to README",
        ),
        ("untracked", |s| s.write("new", "mine\n"), &[("new", "x")], "does not track where the commit adds some: new"),
        (
            "ignored",
            |s| s.write("a.log", "mine\n"),
            &[("a.log", "x")],
            "does not track where the commit adds some: a.log",
        ),
        ("ignored file at a folder's place", |s| s.write("b.log", "mine\n"), &[("b.log/x", "x")], "b.log"),
        ("untracked file at a folder's place", |s| s.write("dir", "mine\n"), &[("dir/x", "x")], "dir"),
        ("untracked folder at a file's place", |s| s.write("new/mine", "mine\n"), &[("new", "x")], "new"),
        (
            "assume-unchanged",
            |s| {
                git(&s.checkout, &["update-index", "--assume-unchanged", "README"]);
                s.write("README", "mine\n");
            },
            &[("README", "two\n")],
            "README",
        ),
        (
            "skip-worktree",
            |s| {
                git(&s.checkout, &["update-index", "--skip-worktree", "README"]);
                s.write("README", "mine\n");
            },
            &[("README", "two\n")],
            "README",
        ),
        (
            "removed from the index",
            |s| {
                git(&s.checkout, &["rm", "--quiet", "--cached", "README"]);
            },
            &[("README", "two\n")],
            "local changes to README",
        ),
        (
            "intent to add",
            |s| {
                s.write("new", "mine\n");
                git(&s.checkout, &["add", "-N", "new"]);
            },
            &[("new", "x")],
            "new",
        ),
        (
            "a repository in it",
            |s| {
                std::fs::create_dir(s.checkout.join("new")).unwrap();
                git(&s.checkout.join("new"), &["init", "--quiet"]);
            },
            &[("new", "x")],
            "new",
        ),
    ];
    for (case, change, push, part) in cases {
        let site = Site::with("", &sh("build", "true"));
        site.origin.push(&[(".gitignore", "*.log\n")]);
        site.sync().expect(0, "deployed");
        change(&site);
        std::fs::remove_file(site.origin.work.join(".gitignore")).unwrap();
        site.origin.push(push);
        eprintln!("case: {case}");
        refused(&site, part);
    }
}

#[test]
fn a_link_where_the_commit_adds_a_folder_is_not_followed() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let outside = site.host.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, site.checkout.join("dir")).unwrap();
    site.origin.push(&[("dir/x", "x")]);
    refused(&site, "dir");
    assert_eq!(names(&outside), [] as [String; 0]);
}

#[test]
fn a_checkout_elsewhere_than_on_the_branch_is_refused() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    git(&site.checkout, &["switch", "--quiet", "-c", "experiment"]);
    site.origin.push(&[("README", "two\n")]);
    refused(&site, "has branch experiment checked out, not main; run: git -C");
    git(&site.checkout, &["switch", "--quiet", "--detach", "main"]);
    refused(&site, "has no branch checked out, not main");
    git(&site.checkout, &["switch", "--quiet", "main"]);
    git(&site.checkout, &["commit", "--quiet", "--allow-empty", "-m", "mine"]);
    refused(&site, "has commits that the branch main does not have");
    git(&site.checkout, &["reset", "--quiet", "--hard", "HEAD~"]);
    site.sync().expect(0, "deployed");
}

#[test]
fn an_unfinished_merge_and_unmerged_files_stay_as_they_are() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let base = site.head();
    git(&site.checkout, &["switch", "--quiet", "-c", "side"]);
    site.write("app/config", "a=side\n");
    git(&site.checkout, &["commit", "--quiet", "-am", "side"]);
    git(&site.checkout, &["switch", "--quiet", "main"]);
    git(&site.checkout, &["merge", "--quiet", "--no-commit", "--no-ff", "side"]);
    site.origin.push(&[("README", "two\n")]);
    let before = files(&site.checkout);
    let run = site.sync();
    assert!(matches!(run.code, Some(1 | 5)), "{run:#?}");
    assert!(run.reason().contains("merge") || run.reason().contains("MERGE_HEAD"), "{run:#?}");
    assert_eq!((before, base), (files(&site.checkout), site.head()));
    assert!(site.checkout.join(".git/MERGE_HEAD").exists());
    site.assert_settled();
}

#[test]
fn a_path_that_cannot_be_a_checkout_is_refused() {
    let site = Site::new();
    std::fs::write(&site.checkout, "a file").unwrap();
    site.sync().expect(5, "refused").says("is not a folder; move it away");
    assert_eq!(std::fs::read_to_string(&site.checkout).unwrap(), "a file");
    std::fs::remove_file(&site.checkout).unwrap();
    site.write("notes", "mine");
    site.sync().expect(5, "refused").says("is not empty and no git checkout");
    assert_eq!(names(&site.checkout), ["notes"]);
    // A folder inside another repository is no checkout of its own.
    std::fs::remove_dir_all(&site.checkout).unwrap();
    let outer = site.host.path("");
    git(&outer, &["init", "--quiet"]);
    site.write("notes", "mine");
    site.sync().expect(5, "refused").says("is not empty and no git checkout");
    std::fs::remove_file(site.checkout.join("notes")).unwrap();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&site.head());
    // A damaged .git is not taken for a part of the repository above, and not made anew.
    std::fs::write(site.checkout.join(".git/HEAD"), "").unwrap();
    site.origin.push(&[("README", "two\n")]);
    site.sync().expect(5, "refused").says("checkout/.git is no repository that git can use");
    std::fs::remove_file(site.checkout.join(".git/HEAD")).unwrap();
    site.sync().expect(5, "refused").says("checkout/.git is no repository that git can use");
    assert!(!site.checkout.join(".git/HEAD").exists());
    assert!(!outer.join(".git/index").exists());
    assert_eq!(site.read("README"), "one\n");
}

#[test]
fn a_missing_parent_is_made_passable() {
    let mut site = Site::new();
    site.checkout = site.host.path("srv/deep/checkout");
    site.configure("", "");
    let mut command = std::process::Command::new("sh");
    let inner = site.host.command("gitops-sync");
    command.args(["-c", "umask 0027; exec \"$0\" --json acme/infra"]).arg(inner.get_program());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    ran(command).expect(0, "deployed");
    // The unit's umask is for the hub's own state, not for what a checkout's services read.
    for name in ["srv", "srv/deep/checkout/app"] {
        assert_eq!(std::fs::metadata(site.host.path(name)).unwrap().permissions().mode() & 0o777, 0o755, "{name}");
    }
    assert_eq!(std::fs::metadata(site.checkout.join("README")).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn history_that_does_not_follow_is_refused() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let base = site.head();
    let second = site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    let stays = |part: &str| {
        site.sync().expect(5, "refused").says(part);
        assert_eq!((site.head(), site.read("README")), (second.clone(), "two\n".to_owned()));
        site.assert_settled();
    };
    // Force-pushed to something else, then back behind the deployed commit.
    git(&site.origin.work, &["reset", "--quiet", "--hard", &base]);
    site.origin.commit(&[("README", "other\n")]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    stays("the branch main was rewritten");
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", &format!("{base}:main")]);
    stays("push a commit that does");
    // Without any common history.
    git(&site.origin.work, &["checkout", "--quiet", "--orphan", "fresh"]);
    site.origin.commit(&[("README", "orphan\n")]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    stays("was rewritten");
    git(&site.origin.bare, &["update-ref", "-d", "refs/heads/main"]);
    stays("the branch main does not exist at");
    // Back on the old line everything goes on.
    git(&site.origin.work, &["checkout", "--quiet", "--force", &second]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:refs/heads/main"]);
    let third = site.origin.push(&[("README", "three\n")]);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&third);
}

/// Commits a tree with everything odd that git can hold; `round` chooses one of two forms of it.
fn odd_commit(site: &Site, round: u8) -> String {
    let work = &site.origin.work;
    for entry in std::fs::read_dir(work).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != ".git") {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    let write = |name: &[u8], content: &str| {
        let path = work.join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let text = format!("{round}\n");
    for name in [
        &b"new\nline"[..],
        b"-leading",
        b"--pathspec-from-file=x",
        b"\xff\xfe not utf-8",
        "ünïcode 日本".as_bytes(),
        b":(top)magic",
        b"*.glob",
        b"tab\there",
        b"back\\slash \"quoted\"",
        b"dir with space/x",
    ] {
        write(name, &text);
        // Only in one of the rounds, so that names are added and deleted too.
        write(&[name, format!(".{round}").as_bytes()].concat(), &text);
    }
    write(b"script", "#!/bin/sh\n");
    let mode = if round == 0 { 0o644 } else { 0o755 };
    std::fs::set_permissions(work.join("script"), PermissionsExt::from_mode(mode)).unwrap();
    let link = |name: &str, to: &str| std::os::unix::fs::symlink(to, work.join(name)).unwrap();
    if round == 0 {
        write(b"file-or-folder", "file");
        write(b"folder-or-link/inside", "x");
        write(b"file-or-link", "x");
        link("link", "script");
    } else {
        write(b"file-or-folder/a/b", "deep");
        link("folder-or-link", "/etc");
        link("file-or-link", "nowhere");
        link("link", "missing");
    }
    write(b".gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = https://example.org/none.git\n");
    git(work, &["add", "--all"]);
    let id = format!("{round}").repeat(39) + "a";
    git(work, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},sub")]);
    git(work, &["commit", "--quiet", "--allow-empty", "-m", "odd"]);
    site.push()
}

#[test]
fn odd_trees_arrive_and_are_taken_back() {
    let site = Site::with("", &sh("build", "[ ! -e ../fail ]"));
    let zero = odd_commit(&site, 0);
    site.sync().expect(0, "deployed");
    assert_eq!(site.head(), zero);
    site.assert_exactly(&zero);
    let before = files(&site.checkout);
    std::fs::write(site.host.path("fail"), "").unwrap();
    odd_commit(&site, 1);
    site.sync().expect(3, "rolled_back");
    assert_eq!(before, files(&site.checkout));
    site.assert_exactly(&zero);
    std::fs::remove_file(site.host.path("fail")).unwrap();
    git(&site.origin.work, &["commit", "--quiet", "--allow-empty", "-m", "empty"]);
    let one = site.push();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&one);
    let two = odd_commit(&site, 0);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&two);
    git(&site.origin.work, &["commit", "--quiet", "--allow-empty", "-m", "empty"]);
    let three = site.push();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&three);
}

#[test]
fn twenty_thousand_files_arrive_and_are_taken_back() {
    let site = Site::with("", &sh("build", "[ ! -e ../fail ]"));
    let import = |from: &str, text: &str| {
        let mut stream =
            format!("commit refs/heads/main\ncommitter T <t@e> 1700000000 +0000\ndata 1\nx\n{from}deleteall\n");
        for number in 0..20_000 {
            let content = format!("{text} {number}\n");
            stream +=
                &format!("M 100644 inline {text}/{}/{number:060}\ndata {}\n{content}\n", number % 100, content.len());
        }
        let mut child = std::process::Command::new("git")
            .args(["fast-import", "--quiet", "--force"])
            .current_dir(&site.origin.bare)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    import("", "a");
    site.sync().expect(0, "deployed");
    let first = site.head();
    assert_eq!(files(&site.checkout).len(), 20_000);
    std::fs::write(site.host.path("fail"), "").unwrap();
    import(&format!("from {first}\n"), "b");
    site.sync().expect(3, "rolled_back");
    site.assert_exactly(&first);
}

#[test]
fn a_failing_build_is_taken_back_and_not_tried_again() {
    let script = "echo $HUB_REPOSITORY $HUB_COMMIT >> ../builds; cat README >> ../builds; [ ! -e bad ]";
    let site = Site::with("", &sh("build", script));
    site.origin.push(&[("other", "o\n")]);
    site.sync().expect(0, "deployed");
    let good = site.head();
    site.write("other", "my edit\n");
    site.write("notes", "mine\n");
    git(&site.checkout, &["add", "notes"]);
    let before = (files(&site.checkout), git(&site.checkout, &["status", "--short"]));
    let builds = || {
        std::fs::read_to_string(site.host.path("builds")).unwrap().lines().filter(|line| line.starts_with(REPO)).count()
    };
    let bad = site.origin.push(&[("README", "two\n"), ("bad", "x"), ("app/config", "a=2\n")]);
    site.sync().expect(3, "rolled_back").says("build failed: /bin/sh").says("exit code 1").says("back on");
    assert_eq!((site.head(), builds()), (good.clone(), 2));
    assert_eq!(before, (files(&site.checkout), git(&site.checkout, &["status", "--short"])));
    site.assert_settled();
    // Not again until the branch moves, by whatever way it is asked for.
    site.sync().expect(3, "rolled_back").says("not tried again until the branch moves, or: hub retry acme/infra");
    site.request(REPO);
    site.queued().expect(3, "rolled_back");
    assert_eq!(builds(), 2);
    assert_eq!(site.host.json("state/gitops/bad/acme__infra.json")["commit"], bad.as_str());
    assert_eq!(site.host.json("state/gitops/run.json")["status"], "rolled_back");
    std::fs::remove_file(site.origin.work.join("bad")).unwrap();
    let next = site.origin.push(&[("README", "three\n")]);
    site.sync().expect(0, "deployed");
    assert_eq!((site.head(), builds(), site.read("other")), (next, 3, "my edit\n".to_owned()));
    assert_eq!(names(&site.state("bad")), [] as [String; 0]);
}

#[test]
fn a_first_commit_that_fails_leaves_an_empty_branch() {
    let site = Site::with("", &sh("build", "[ ! -e bad ]"));
    site.origin.push(&[("bad", "x")]);
    site.sync().expect(3, "rolled_back").says("back on an empty checkout");
    assert_eq!(names(&site.checkout), [".git"]);
    std::fs::remove_file(site.origin.work.join("bad")).unwrap();
    let commit = site.origin.push(&[("README", "good\n")]);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&commit);
}

#[test]
fn a_commit_that_deletes_files_is_taken_back() {
    let site = Site::with("", &sh("build", "[ -e README ]"));
    site.sync().expect(0, "deployed");
    let good = site.head();
    std::fs::remove_file(site.origin.work.join("README")).unwrap();
    std::fs::remove_dir_all(site.origin.work.join("app")).unwrap();
    site.origin.push(&[("kept", "x")]);
    site.sync().expect(3, "rolled_back");
    site.assert_exactly(&good);
}

#[test]
fn a_build_that_hangs_floods_or_forks_is_ended() {
    let limit = "command_timeout_seconds = 2";
    for (script, part) in [
        ("echo still here; sleep 100", "did not end within 2 s and was killed"),
        ("yes", "did not end within 2 s and was killed"),
        ("yes >&2 & setsid yes", "did not end within 2 s and was killed"),
        ("trap '' TERM INT HUP; sleep 100 & wait; sleep 100", "did not end within 2 s and was killed"),
    ] {
        let site = Site::new();
        site.sync().expect(0, "deployed");
        let good = site.head();
        site.configure(limit, &sh("build", &format!("echo $$ > ../pid; {script}")));
        site.origin.push(&[("README", "two\n")]);
        let run = site.sync().expect(3, "rolled_back").says(part);
        assert!(run.took < Duration::from_secs(20), "{script}: {:?}", run.took);
        let pid: i32 = std::fs::read_to_string(site.host.path("pid")).unwrap().trim().parse().unwrap();
        assert!(!is_alive(pid), "{script}");
        site.assert_exactly(&good);
        // What left the process group cannot be found again; it must not outlive the test.
        let left =
            std::process::Command::new("pgrep").args(["-x", "yes", "--session", &pid.to_string()]).output().unwrap();
        for pid in String::from_utf8(left.stdout).unwrap().lines() {
            std::process::Command::new("kill").args(["-9", pid]).status().unwrap();
        }
    }
}

#[test]
fn what_a_build_leaves_running_is_ended_and_its_output_is_cut() {
    let script =
        "sleep 300 & echo $! > ../pid; head -c 5000000 /dev/zero | tr '\\0' x; echo; printf 'the \\033[31mend\\n'";
    let site = Site::with("", &sh("build", script));
    let mut service = site.host.start("gitops-sync", &[REPO]);
    let line = service.line("command_done");
    let output = line["output"].as_str().unwrap();
    assert!(output.contains("the [31mend") || output.contains("(cut, "), "{output}");
    assert!(!output.contains('\u{1b}') && line.to_string().len() < 4096);
    assert_eq!(service.wait(), Some(0));
    let pid: i32 = std::fs::read_to_string(site.host.path("pid")).unwrap().trim().parse().unwrap();
    eventually("the background process is gone", || !is_alive(pid));
}

#[test]
fn a_failing_after_is_taken_back_and_the_good_build_made_again() {
    let site = Site::with(
        "",
        &(sh("build", "cp README ../built") + &sh("after", "cat README >> ../migrated; ! grep -q bad README")),
    );
    site.sync().expect(0, "deployed");
    let good = site.head();
    site.origin.push(&[("README", "bad\n")]);
    site.sync().expect(3, "rolled_back").says("after failed");
    site.assert_exactly(&good);
    assert_eq!(std::fs::read_to_string(site.host.path("built")).unwrap(), "one\n");
    site.sync().expect(3, "rolled_back");
    assert_eq!(std::fs::read_to_string(site.host.path("migrated")).unwrap(), "one\nbad\n");
}

#[test]
fn a_rollback_that_fails_says_so_and_the_bad_commit_is_remembered() {
    // The good commit cannot be built again at first, and can be in the next run.
    let site = Site::with(
        "",
        &(sh("build", "echo >> ../builds; [ $(wc -l < ../builds) -ne 3 ]") + &sh("after", "! grep -q bad README")),
    );
    site.sync().expect(0, "deployed");
    let good = site.head();
    site.origin.push(&[("README", "bad\n")]);
    site.sync().expect(4, "rollback_failed").says("after failed").says("failed too");
    let run = site.sync();
    assert_eq!((run.code, site.head()), (Some(3), good), "{run:#?}");
    // Good, bad, good in vain, and good once more, which the next run owed; the bad one is not tried again.
    assert_eq!(std::fs::read_to_string(site.host.path("builds")).unwrap().len(), 4);
    site.assert_settled();
}

#[test]
fn a_missing_program_is_named() {
    let site = Site::with("", "build = [\"/nonexistent/make\", \"all\"]");
    site.sync().expect(3, "rolled_back").says("/nonexistent/make is not installed");
}

/// A server on a port of its own that answers with these status codes in turn, the last one for ever; 0 does not answer.
struct Health {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Health {
    fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let mut stream = stream.unwrap();
                let status = statuses[number.min(statuses.len() - 1)];
                if status == 0 {
                    held.push(stream);
                    continue;
                }
                let _ = stream.read(&mut [0; 1024]);
                let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Self { port, stop }
    }

    fn config(&self, grace: u32) -> String {
        format!("health = {{ grace_seconds = {grace}, url = \"http://127.0.0.1:{}/healthz\" }}\n", self.port)
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
    }
}

#[test]
fn a_health_url_decides() {
    for (statuses, grace, code, status, part) in [
        (&[200][..], 5, 0, "deployed", ""),
        (&[503, 500, 503, 204], 20, 0, "deployed", ""),
        (&[500], 1, 3, "rolled_back", "answers 500"),
        (&[302], 1, 3, "rolled_back", "answers 302"),
        (&[0], 2, 3, "rolled_back", "was not healthy within 2 s"),
    ] {
        let site = Site::new();
        site.sync().expect(0, "deployed");
        let good = site.head();
        let health = Health::start(statuses);
        site.configure("", &health.config(grace));
        let new = site.origin.push(&[("README", "two\n")]);
        let run = site.sync().expect(code, status).says(part);
        assert!(run.took < Duration::from_secs(15), "{run:#?}");
        site.assert_exactly(if code == 0 { &new } else { &good });
        if code != 0 {
            site.sync().expect(3, "rolled_back").says("not tried again");
        }
    }
}

#[test]
fn a_health_url_that_nobody_answers_or_late_is_waited_for() {
    let site = Site::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("url = \"http://127.0.0.1:{port}/\"");
    site.configure("", &format!("health = {{ grace_seconds = 1, {url} }}\n"));
    site.sync().expect(3, "rolled_back").says("was not healthy within 1 s");
    site.origin.push(&[("README", "two\n")]);
    site.configure("", &(format!("health = {{ grace_seconds = 20, {url} }}\n") + &sh("after", "touch ../after")));
    let service = std::thread::scope(|scope| {
        let after = site.host.path("after");
        scope.spawn(move || {
            eventually("the service is deployed", || after.exists());
            // Well within the grace period, and certainly after the first question.
            std::thread::sleep(Duration::from_millis(700));
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        site.sync()
    });
    service.expect(0, "deployed");
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
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let site = Site::empty();
    site.configure_url(&format!("http://127.0.0.1:{port}/x.git"), "fetch_timeout_seconds = 2", "");
    site.sync().expect(1, "failed").says("cannot fetch from http://127.0.0.1").says("onnect");
    assert!(!site.checkout.exists());
}
