//! A run takes what is queued and what is due, gives way to another run, and says what it left alone.

use crate::support::gitops::{FILE, REPO, Site, sh};
use crate::support::{eventually, git};

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
fn a_repository_is_due_after_its_poll_minutes() {
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
    set(59);
    nothing_due(&site);
    set(61);
    site.queued().expect(0, "unchanged");
    // For all, and for one; a changed key has its repository looked at once.
    for (gitops, repository, minutes) in
        [("poll_minutes = 15", "", 15), ("poll_minutes = 2", "poll_minutes = 120\n", 120)]
    {
        site.configure(gitops, repository);
        site.queued().expect(0, "unchanged");
        set(minutes - 1);
        nothing_due(&site);
        set(minutes + 1);
        site.queued().expect(0, "unchanged");
    }
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
    assert_eq!((&line["msg"], &line["level"]), (&"nothing_due".into(), &"DEBUG".into()), "{run:#?}");
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
    assert_eq!(next, at + jiff::SignedDuration::from_mins(60), "{line}");
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
    let run = site.run(&["--dry-run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    // The commit is live already, so that only the branch of the checkout changes.
    site.queued().expect(0, "unchanged");
    assert_eq!(git(&site.checkout, &["branch", "--show-current"]).trim(), "live");
    nothing_due(&site);
}

#[test]
fn what_was_refused_is_looked_at_again_by_every_run_and_what_was_rolled_back_is_not() {
    let site = Site::with("", "branch = \"live\"\n");
    let run = site.queued().expect(5, "refused").says("the branch live does not exist");
    assert!(run.log.contains(r#""look_again":"#) && run.log.contains("hub deploy acme/infra"), "{}", run.log);
    // What it advises is about the configuration that it was given.
    let file = site.host.path("hub.toml").display().to_string();
    let run = site.run(&["acme/infra", "--config", &file]);
    assert!(run.log.contains(&format!("hub deploy acme/infra --config {file}\"")), "{}", run.log);
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
