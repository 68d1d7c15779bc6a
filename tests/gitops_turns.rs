//! A deployment that takes long by its own repository's doing lets the others go on meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::gitops::{REPO, Site, names, sh, user_name};
use support::{Service, eventually_within, git};

/// A turn is passed on after 30 seconds; with room for a busy machine.
const PASSED: Duration = Duration::from_secs(75);

/// What holds a command up, in shell: it says `at-work`, and waits for `go`.
const WAITS: &str = "[ -e ../go ] || { touch ../at-work; until [ -e ../go ]; do sleep 0.1; done; };";

/// A site with other repositories of the same origin, all in sync.
struct Turns {
    site: Site,
    others: Vec<PathBuf>,
}

impl Turns {
    /// `more` is for the first repository, which goes on until the file `go` is there.
    fn new(more: &str, others: &[&str]) -> Self {
        let site = Site::with("", more);
        let (file, url, user) = (site.host.path("hub.toml"), site.origin.url(), user_name());
        let mut text = std::fs::read_to_string(&file).unwrap();
        let paths: Vec<PathBuf> = others.iter().map(|name| site.host.path(name)).collect();
        for (name, path) in others.iter().zip(&paths) {
            let path = path.display();
            text += &format!(
                "[[repository]]\nname = \"acme/{name}\"\nurl = \"{url}\"\npath = \"{path}\"\nuser = \"{user}\"\n"
            );
        }
        site.host.configure(&text);
        std::fs::write(site.host.path("go"), "").unwrap();
        let first = site.queued();
        assert_eq!(first.code, Some(0), "{first:#?}");
        std::fs::remove_file(site.host.path("go")).unwrap();
        Self { site, others: paths }
    }

    fn folder(&self) -> String {
        self.site.host.path("").display().to_string().trim_end_matches('/').to_owned()
    }

    /// Queues a push to the first repository, and once it is held up one to all others.
    fn push(&self, files: &[(&str, &str)]) -> (String, Service) {
        let commit = self.site.origin.push(files);
        drop(std::fs::remove_file(self.site.host.path("at-work")));
        self.site.request(REPO);
        let run = self.site.host.start("gitops-sync", &[]);
        eventually_within(PASSED, "it is held up", || self.site.host.path("at-work").exists());
        for other in &self.others {
            self.site.request(&format!("acme/{}", other.file_name().unwrap().display()));
        }
        (commit, run)
    }

    #[track_caller]
    fn others_follow(&self, commit: &str) {
        eventually_within(PASSED, "the others are in sync", || {
            self.others.iter().all(|path| git(path, &["rev-parse", "HEAD"]) == commit)
        });
    }

    fn go(&self, mut run: Service, code: i32) {
        std::fs::write(self.site.host.path("go"), "").unwrap();
        assert_eq!(run.wait(), Some(code));
        assert_eq!(names(&self.site.state("journal")), [] as [String; 0]);
        assert_eq!(names(&self.site.state("active")), [] as [String; 0]);
    }
}

#[test]
fn a_build_that_does_not_end_lets_the_others_go_on() {
    // More than have a place at once.
    let turns = Turns::new(&sh("build", WAITS), &["b", "c", "d", "e", "f", "g"]);
    let (commit, run) = turns.push(&[("README", "two\n")]);
    turns.others_follow(&commit);
    // By hand, too, as soon as the last of them is done.
    eventually_within(PASSED, "by hand", || turns.site.run(&["acme/b"]).code == Some(0));
    turns.go(run, 0);
    assert_eq!(turns.site.head(), commit);
}

#[test]
fn a_filter_that_does_not_end_lets_the_others_go_on() {
    let turns = Turns::new("", &["b"]);
    std::fs::write(turns.site.host.path("go"), "").unwrap();
    let filter = format!("sh -c '{WAITS} cat'");
    git(&turns.site.checkout, &["config", "filter.slow.smudge", &filter.replace("..", &turns.folder())]);
    let commit = turns.site.origin.push(&[(".gitattributes", "app/* filter=slow\n")]);
    turns.site.sync().expect(0, "deployed");
    assert_eq!(turns.site.head(), commit);
    std::fs::remove_file(turns.site.host.path("go")).unwrap();
    let (commit, run) = turns.push(&[("app/config", "a=2\n")]);
    turns.others_follow(&commit);
    turns.go(run, 0);
    assert_eq!(turns.site.head(), commit);
}

#[test]
fn a_way_back_that_does_not_end_lets_the_others_go_on() {
    // What the new commit runs last fails, and the build of the last good one, which is made again, hangs.
    let build = format!("if ! grep -q two README; then {WAITS} fi");
    let turns = Turns::new(&(sh("build", &build) + &sh("after", "! grep -q two README")), &["b"]);
    let good = turns.site.head();
    let (commit, run) = turns.push(&[("README", "two\n")]);
    turns.others_follow(&commit);
    turns.go(run, 3);
    assert_eq!(turns.site.head(), good);
}

#[test]
fn a_run_that_is_killed_while_others_have_its_turn_is_taken_back() {
    let turns = Turns::new(&sh("build", WAITS), &["b"]);
    let good = turns.site.head();
    let (commit, mut run) = turns.push(&[("README", "two\n")]);
    turns.others_follow(&commit);
    run.child.kill().unwrap();
    run.wait();
    // What is left of the build is ended, the deployment taken back, and then made again.
    std::fs::write(turns.site.host.path("go"), "").unwrap();
    let next = turns.site.queued();
    assert!(next.log.contains("interrupted_deployment_undone") && next.log.contains(&good), "{next:#?}");
    assert_eq!((next.code, turns.site.head()), (Some(0), commit), "{next:#?}");
}
