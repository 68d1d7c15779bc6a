//! A deployment that takes long by its own repository's doing lets the others go on meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::gitops::{REPO, Site, names, sh, user_name};
use crate::support::{Service, eventually_within, git};

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

    /// True while somebody has the right to change the host.
    fn is_taken(&self) -> bool {
        let argv = ["--nonblock", "--conflict-exit-code", "75", "lock", "true"];
        let status = std::process::Command::new("flock").current_dir(self.site.state("")).args(argv).status().unwrap();
        status.code() == Some(75)
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

/// Stops each process in a folder that has this word among its arguments, as its user can; until it is dropped.
struct Stopping {
    is_done: Arc<AtomicBool>,
    has_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stopping {
    fn start(folder: &Path, word: &'static str) -> Self {
        let (is_done, has_stopped) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (done, stopped, folder) = (Arc::clone(&is_done), Arc::clone(&has_stopped), folder.to_owned());
        let thread = std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    let number = process.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
                    let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    let is_it = command.split(|byte| *byte == 0).any(|part| part == word.as_bytes());
                    let is_here = std::fs::read_link(process.path().join("cwd")).is_ok_and(|found| found == folder);
                    if let (Some(number), true, true) = (number, is_it, is_here)
                        && kill_process(number, Signal::STOP).is_ok()
                    {
                        stopped.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
        Self { is_done, has_stopped, thread: Some(thread) }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn a_git_that_is_stopped_lets_the_others_go_on() {
    let turns = Turns::new("", &["b"]);
    // A look is made again while others wait when the first one took long; and what is brought in waits for it.
    git(&turns.site.checkout, &["config", "filter.slow.clean", "sh -c 'sleep 1.5; cat'"]);
    let commit = turns.site.origin.push(&[(".gitattributes", "app/* filter=slow\n")]);
    turns.site.sync().expect(0, "deployed");
    assert_eq!(turns.site.head(), commit);
    // What is brought in waits for the second look, with the turn; what the commit leaves out is looked for at the end.
    for (number, word) in ["index-pack", "check-attr"].into_iter().enumerate() {
        // A git that is done in some milliseconds may be over before it is seen.
        let caught = (0..30).find_map(|attempt| {
            turns.site.write("app/config", "a=1\n");
            let text = format!("{number} {attempt}\n");
            let files = [("README", text.as_str()), (".gitattributes", "app/* filter=slow\n*.bin filter=lfs\n")];
            let stopping = Stopping::start(&turns.site.checkout, word);
            let commit = turns.site.origin.push(&files);
            turns.site.request(REPO);
            let mut run = turns.site.host.start("gitops-sync", &[]);
            eventually_within(PASSED, "it is stopped, or over", || {
                stopping.has_stopped.load(Ordering::Relaxed) || run.child.try_wait().unwrap().is_some()
            });
            stopping.has_stopped.load(Ordering::Relaxed).then_some((stopping, commit, run))
        });
        let (stopping, commit, run) = caught.expect("it is stopped");
        eventually_within(PASSED, "it has its turn", || number == 1 || turns.is_taken());
        turns.site.request("acme/b");
        turns.others_follow(&commit);
        drop(stopping);
        drop(run);
        turns.site.queued();
        assert_eq!(turns.site.queued().code, Some(0), "{word}");
        assert_eq!(turns.site.head(), commit);
    }
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
