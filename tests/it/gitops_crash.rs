//! Killed at any moment, gitops-sync converges in the next run, and nothing of the operator's is lost.

use crate::support;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::gitops::{FILE, REPO, Site, is_alive, is_root, locks, names};
use crate::support::{eventually, git};

/// Numbers that look random and are the same in every run of the test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Starts a queued run and kills it after this many microseconds; true where it was still at work.
fn kill_after(site: &Site, microseconds: u64) -> bool {
    let mut child = site.host.command("gitops-sync").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_micros(microseconds));
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

/// Commits files of the round: some appear, some go, some change, some turn into folders.
fn commit(site: &Site, round: usize) -> String {
    let work = &site.origin.work;
    for name in names(work).iter().filter(|name| *name != ".git") {
        let path = work.join(name);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    let mut files = vec![(".gitattributes".to_owned(), "*.slow filter=slow\n".to_owned())];
    files.push(("steady".to_owned(), "steady\n".to_owned()));
    for number in 0..25 {
        let name = match (number % 5, round % 2) {
            (0, 0) => format!("turns{number}.slow"),
            (0, _) => format!("turns{number}.slow/inside.slow"),
            (1, parity) => format!("only{parity}/{number}.slow"),
            _ => format!("dir{}/{number}.slow", number % 3),
        };
        files.push((name, format!("{round} {number}\n").repeat(200)));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    site.origin.push(&files)
}

fn slow_checkout(site: &Site) {
    site.sync().expect(0, "deployed");
    git(&site.checkout, &["config", "filter.slow.smudge", "cat"]);
    git(&site.checkout, &["config", "filter.slow.clean", "cat"]);
    git(&site.checkout, &["config", "filter.slow.required", "true"]);
    site.write("dir0/operators", "untracked\n");
    site.write("steady", "local edit\n");
}

fn assert_operators_files(site: &Site) {
    assert_eq!(
        (site.read("dir0/operators"), site.read("steady")),
        ("untracked\n".to_owned(), "local edit\n".to_owned())
    );
}

/// The checkout equals the commit, but for the local edit.
fn assert_whole(site: &Site, commit: &str) {
    assert_operators_files(site);
    assert_eq!(git(&site.checkout, &["status", "--porcelain"]), "M steady\n?? dir0/operators");
    site.write("steady", "steady\n");
    site.assert_exactly(commit);
    site.write("steady", "local edit\n");
}

#[test]
fn killed_at_any_moment_the_next_run_converges() {
    let site = Site::new();
    commit(&site, 0);
    slow_checkout(&site);
    // A run may be killed up to its end, however fast this machine is just now.
    let mut length = {
        commit(&site, 1);
        site.request(REPO);
        site.queued().expect(0, "deployed").took
    };
    let mut dice = Dice(7);
    let (mut inside, mut interrupted) = (0, 0);
    for round in 2..=65 {
        let tip = commit(&site, round);
        site.request(REPO);
        let running = kill_after(&site, dice.below(length.as_micros() as u64));
        inside += usize::from(running);
        interrupted += usize::from(site.state("journal").join(FILE).exists());
        // A git of the run before may still end and hold a lock: then the repository is tried again.
        let kept = [site.queue(), site.state("active"), site.state("retry")].iter().any(|at| at.join(FILE).exists());
        assert!(
            kept || !running || site.host.json("state/gitops/deployed/acme__infra.json")["commit"] == tip.as_str(),
            "round {round}: the request is lost; of it failed/ has {:?}, and the last run said {}",
            names(&site.state("failed")),
            site.host.json("state/gitops/run.json")
        );
        // Sometimes the run that repairs is killed as well, and sometimes the branch has moved on by then.
        if dice.below(4) == 0 {
            kill_after(&site, dice.below(200_000));
        }
        let tip = if dice.below(4) == 0 { commit(&site, round + 100) } else { tip };
        let run = site.queued();
        if !run.report["repositories"].as_array().unwrap().is_empty() {
            let unchanged = site.head() == tip && run_is_unchanged(&site);
            let run = run.expect(0, if unchanged { "unchanged" } else { "deployed" });
            assert!(run.took < Duration::from_secs(20));
            length = if unchanged { length } else { run.took };
        }
        let given_up = !names(&site.state("failed")).is_empty();
        if given_up || site.head() != tip {
            // The killed run had ended, and nothing was queued for the commit after it; or a repository at which two runs were
            // killed in a row is given up, until somebody asks for it.
            let run = site.sync();
            let unchanged = given_up && run_is_unchanged(&site);
            run.expect(0, if unchanged { "unchanged" } else { "deployed" });
            for entry in names(&site.state("failed")) {
                std::fs::remove_file(site.state("failed").join(entry)).unwrap();
            }
        }
        assert_whole(&site, &tip);
    }
    eprintln!("{inside} runs were killed at work, {interrupted} with a journal");
    // Runs that were faster than the one before had ended already.
    assert!(inside >= 16 && interrupted >= 4, "{inside} {interrupted}");
}

fn run_is_unchanged(site: &Site) -> bool {
    site.host.json("state/gitops/run.json")["status"] == "unchanged"
}

#[test]
fn killed_while_it_takes_a_commit_back() {
    let site = Site::new();
    commit(&site, 0);
    slow_checkout(&site);
    let good = site.head();
    site.configure("", "build = [\"/bin/sh\", \"-c\", \"touch ../building; ! grep -q ^1 dir2/2.slow\"]\n");
    commit(&site, 1);
    let mut dice = Dice(11);
    let mut interrupted = 0;
    for _ in 0..14 {
        let _ = std::fs::remove_file(site.host.path("building"));
        let mut child = site.host.command("gitops-sync").arg(REPO).stdout(Stdio::null()).spawn().unwrap();
        eventually("it builds or has ended", || site.host.path("building").exists() || !is_alive(child.id() as i32));
        std::thread::sleep(Duration::from_micros(dice.below(250_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        interrupted += usize::from(site.state("journal").join(FILE).exists());
        site.sync().expect(3, "rolled_back");
        assert_whole(&site, &good);
        std::fs::remove_file(site.state("bad").join(FILE)).unwrap();
    }
    assert!(interrupted >= 3, "{interrupted}");
}

#[test]
fn killed_while_it_makes_the_checkout() {
    let site = Site::new();
    let tip = site.origin.push(&[("README", "two\n")]);
    let mut dice = Dice(3);
    for _ in 0..25 {
        kill_after(&site, dice.below(130_000));
        let run = site.sync();
        assert_eq!(run.code, Some(0), "{run:#?}");
        site.queued();
        site.assert_exactly(&tip);
        assert_eq!(git(&site.checkout, &["status", "--short", "--branch"]), "## main...origin/main");
        assert_eq!(names(&site.checkout), [".git", "README", "app"]);
        std::fs::remove_dir_all(&site.checkout).unwrap();
        std::fs::remove_dir_all(site.state("")).unwrap();
    }
}

#[test]
fn stale_locks_of_a_killed_run_are_removed() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let from = site.head();
    let to = site.origin.push(&[("README", "two\n"), ("new", "x\n")]);
    // As a run leaves them that was killed in the middle of the merge: half of the files, and locks everywhere.
    git(&site.checkout, &["fetch", "--quiet", "origin"]);
    let entry = serde_json::json!({"repository": REPO, "from": from, "to": to, "step": "checkout", "started": "2026-01-01T00:00:00.000Z"});
    std::fs::write(site.state("journal").join(FILE), entry.to_string()).unwrap();
    for lock in ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", "refs/heads/main.lock", "refs/remotes/origin/main.lock"] {
        std::fs::write(site.checkout.join(".git").join(lock), "torn").unwrap();
    }
    site.write("README", "tw");
    site.write("new", "");
    site.run(&["--dry-run"]).expect(0, "planned").says("was interrupted; the next run undoes it first");
    assert!(site.checkout.join(".git/index.lock").exists());
    site.sync().expect(0, "deployed");
    site.assert_exactly(&to);
}

#[test]
fn a_lock_that_no_run_of_the_hub_left_is_kept_and_named() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let before = site.head();
    let tip = site.origin.push(&[("README", "two\n")]);
    let lock = site.checkout.join(".git/index.lock");
    std::fs::write(&lock, "").unwrap();
    let run = site.sync();
    assert!(matches!(run.code, Some(1 | 5)), "{run:#?}");
    assert!(run.reason().contains("index.lock"), "{run:#?}");
    assert!(lock.exists());
    assert_eq!((site.head(), site.read("README")), (before, "one\n".to_owned()));
    std::fs::remove_file(lock).unwrap();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&tip);
}

#[test]
fn a_note_in_a_lock_that_a_power_cut_damaged_is_in_nobodys_way() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    for note in [&b"\xff\xfe\0"[..], &[0; 4096], b"../run.json", b"a/b.7", &[b'9'; 5000]] {
        for lock in ["lock", "queue.lock", "record.lock", "locks/acme__infra.lock"] {
            // Written into the file that is there, which has the mode and the owner of a lock.
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(site.state(lock))
                .unwrap();
            std::io::Write::write_all(&mut file, note).unwrap();
        }
        let tip = site.origin.push(&[("README", &format!("{note:?}\n"))]);
        site.request(REPO);
        site.queued().expect(0, "deployed");
        site.assert_exactly(&tip);
        assert!(site.state("run.json").exists());
    }
    // Whose a checkout is nobody guesses; it is said what to do.
    if is_root() {
        let kept = site.state("checkouts/acme__infra.json");
        std::fs::write(&kept, "").unwrap();
        site.origin.push(&[("README", "three\n")]);
        site.sync().expect(1, "failed").says("is damaged").says("remove the file");
        std::fs::remove_file(kept).unwrap();
        site.sync().expect(0, "deployed");
    }
}

#[test]
fn the_mirror_heals() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let mirror = site.state("mirror/acme__infra.git");
    let tip = site.origin.push(&[("README", "two\n")]);
    std::fs::create_dir_all(mirror.join("objects/info/commit-graphs")).unwrap();
    for lock in [
        "refs/hub/tip.lock",
        "packed-refs.lock",
        "shallow.lock",
        "HEAD.lock",
        "config.lock",
        // What a killed `git gc` leaves: with these no later one would begin, and packs would become more and more.
        "gc.pid.lock",
        "gc.log.lock",
        "objects/info/commit-graph.lock",
        "objects/info/commit-graphs/commit-graph-chain.lock",
        "objects/pack/multi-pack-index.lock",
    ] {
        std::fs::write(mirror.join(lock), "torn").unwrap();
    }
    let torn =
        ["tmp_pack_abc", "tmp_idx_abc", ".tmp-99-pack-abc.pack"].map(|name| mirror.join("objects/pack").join(name));
    for file in &torn {
        std::fs::write(file, "torn").unwrap();
    }
    std::fs::create_dir_all(site.state("mirror/.acme__infra.new/refs")).unwrap();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&tip);
    assert_eq!(locks(&mirror), [] as [std::path::PathBuf; 0]);
    assert!(torn.iter().all(|file| !file.exists()));
    let packs = mirror.join("objects");
    for folder in names(&packs) {
        std::fs::remove_dir_all(packs.join(folder)).unwrap();
    }
    let tip = site.origin.push(&[("README", "three\n")]);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&tip);
}

/// The files of a mirror, as paths below it.
fn files(mirror: &Path) -> Vec<std::path::PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![mirror.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let list = if entry.file_type().unwrap().is_dir() { &mut folders } else { &mut files };
            list.push(entry.path());
        }
    }
    files.sort();
    files
}

#[test]
fn the_mirror_heals_whichever_file_a_power_cut_damaged() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let mirror = site.state("mirror/acme__infra.git");
    // What was not yet on disk is empty then, or zeros (XFS), or gone.
    for (damage, newest_first) in [
        ("empty", false),
        ("empty", true),
        ("zeros", false),
        ("zeros", true),
        ("gone", false),
        ("gone", true),
        ("an object that is not there", false),
    ] {
        let mut seen = std::collections::BTreeSet::new();
        loop {
            // Two packs at least: one of them with the tip.
            let tip = site.origin.push(&[("README", &format!("{damage} {}\n", seen.len()))]);
            site.sync().expect(0, "deployed");
            site.assert_exactly(&tip);
            // One of each kind: names of packs and commits are others each time.
            let kind = |file: &Path| {
                let name = file.strip_prefix(&mirror).unwrap().to_string_lossy().into_owned();
                name.split(|char: char| char == '-' || char == '.' || char.is_ascii_digit()).next().map(str::to_owned)
            };
            let kind = |file: &Path| {
                let end = file.extension().unwrap_or_default().to_string_lossy().into_owned();
                kind(file).map(|name| (name, end))
            };
            let mut all = files(&mirror);
            // Packs are named by chance, so their age is what says which of them has the tip.
            all.sort_by_key(|file| std::fs::metadata(file).unwrap().modified().unwrap());
            if newest_first {
                all.reverse();
            }
            let Some(file) = all.into_iter().find(|file| seen.insert(kind(file))) else { break };
            let name = file.strip_prefix(&mirror).unwrap().to_string_lossy().into_owned();
            let length = std::fs::metadata(&file).unwrap().len();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            match damage {
                "empty" => std::fs::write(&file, "").unwrap(),
                "zeros" => std::fs::write(&file, vec![0; length as usize]).unwrap(),
                "gone" => std::fs::remove_file(&file).unwrap(),
                _ if name.starts_with("refs/") => std::fs::write(&file, format!("{}\n", "5".repeat(40))).unwrap(),
                _ => {}
            }
            eprintln!("{damage}: {name}");
            site.sync().expect(0, "unchanged");
        }
        for needed in ["HEAD", "config", "refs/hub/tip", "refs/hub/deployed/", "objects/pack/pack"] {
            let is_there = seen.iter().flatten().any(|(name, _)| name.starts_with(needed));
            assert!(is_there, "{needed}: {seen:?}");
        }
    }
}

#[test]
fn an_edit_while_git_is_at_work_is_not_lost() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    // git starts to merge only after the checkout was looked at; that is when the operator saves a file.
    let hook = site.host.path("bin");
    std::fs::create_dir(&hook).unwrap();
    let real = String::from_utf8(Command::new("sh").args(["-c", "command -v git"]).output().unwrap().stdout).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" merge \"*) echo mine > {0}/README; echo mine > {0}/new;; esac\nexec {1} \"$@\"\n",
        site.checkout.display(),
        real.trim()
    );
    std::fs::write(hook.join("git"), script).unwrap();
    std::fs::set_permissions(hook.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    site.origin.push(&[("README", "two\n"), ("new", "x\n")]);
    let mut command = site.host.command("gitops-sync");
    command.args(["--json", REPO]).env("PATH", format!("{}:{}", hook.display(), std::env::var("PATH").unwrap()));
    support::gitops::ran(command).expect(5, "refused").says("would be overwritten");
    assert_eq!((site.read("README"), site.read("new")), ("mine\n".to_owned(), "mine\n".to_owned()));
    site.assert_settled();
}

#[test]
fn nothing_of_a_killed_run_goes_on_writing() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    // make(1) and its jobs: the child of the build's own child.
    let script = "sh -c 'echo $$ > ../pid; while :; do echo x >> README; sleep 0.01; done' & setsid sleep 300 & echo $! > ../daemon; wait";
    site.configure("", &format!("build = [\"/bin/sh\", \"-c\", \"{script}\"]\n"));
    let tip = site.origin.push(&[("README", "two\n")]);
    let mut child = site.host.command("gitops-sync").arg(REPO).stdout(Stdio::null()).spawn().unwrap();
    let pid = |name: &str| {
        std::fs::read_to_string(site.host.path(name)).ok().and_then(|text| text.trim().parse::<i32>().ok())
    };
    eventually("the build works", || pid("pid").is_some() && pid("daemon").is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_alive(pid("pid").unwrap()), "the test is about processes that outlive the kill");
    site.configure("", "build = [\"/bin/sh\", \"-c\", \"exit 0\"]\n");
    let run = site.sync().expect(0, "deployed");
    assert!(run.log.contains("last_run_was_killed"), "{}", run.log);
    assert!(!is_alive(pid("pid").unwrap()));
    site.assert_exactly(&tip);
    // What made itself a daemon was meant to stay.
    let daemon = pid("daemon").unwrap();
    let alive = is_alive(daemon);
    Command::new("kill").args(["-9", &daemon.to_string()]).status().unwrap();
    assert!(alive);
    // A run that ended by itself has left nothing, and nobody looks.
    assert!(!site.sync().expect(0, "unchanged").log.contains("last_run_was_killed"));
}

#[test]
fn a_git_that_was_just_being_started_is_ended() {
    let site = Site::new();
    commit(&site, 0);
    slow_checkout(&site);
    // A slow setpriv holds the window open in which the child does not yet die with its parent.
    let bin = site.host.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" merge \"*) touch {}; sleep 1;; esac\nexec /usr/bin/setpriv \"$@\"\n",
        site.host.path("merging").display()
    );
    std::fs::write(bin.join("setpriv"), script).unwrap();
    std::fs::set_permissions(bin.join("setpriv"), PermissionsExt::from_mode(0o755)).unwrap();
    let tip = commit(&site, 1);
    let mut command = site.host.command("gitops-sync");
    command
        .arg(REPO)
        .stdout(Stdio::null())
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    let mut child = command.spawn().unwrap();
    eventually("it is about to merge", || site.host.path("merging").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let run = site.sync().expect(0, "deployed");
    assert!(run.log.contains("last_run_was_killed"), "{}", run.log);
    assert_whole(&site, &tip);
}

#[test]
fn killed_while_the_good_build_is_made_again() {
    let build = "[ ! -e ../wait ] || grep -q bad README || { touch ../rebuilding; sleep 300; }; cp README ../built";
    let commands = format!(
        "build = [\"/bin/sh\", \"-c\", \"{build}\"]\nafter = [\"/bin/sh\", \"-c\", \"! grep -q bad README\"]\n"
    );
    let site = Site::with("", &commands);
    site.sync().expect(0, "deployed");
    let good = site.head();
    site.origin.push(&[("README", "bad\n")]);
    std::fs::write(site.host.path("wait"), "").unwrap();
    let mut child = site.host.command("gitops-sync").arg(REPO).stdout(Stdio::null()).spawn().unwrap();
    eventually("the good build is made again", || site.host.path("rebuilding").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(site.host.path("wait")).unwrap();
    site.sync().expect(3, "rolled_back").says("not tried again");
    site.assert_exactly(&good);
    assert_eq!(std::fs::read_to_string(site.host.path("built")).unwrap(), "one\n");
}

#[test]
fn what_a_killed_run_noted_stops_no_run_whatever_became_of_it() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let sessions = site.state("sessions");
    let too_long = || std::fs::write(sessions.join("abc1"), "1\n".repeat(1 << 20)).unwrap();
    let no_file = || std::fs::create_dir(sessions.join("abc1")).unwrap();
    for prepare in [&too_long as &dyn Fn(), &no_file] {
        prepare();
        std::fs::write(site.state("lock"), "abc1").unwrap();
        let run = site.sync().expect(0, "unchanged");
        assert!(run.log.contains("sessions_not_read") && run.log.contains("last_run_was_killed"), "{}", run.log);
        let _ = std::fs::remove_file(sessions.join("abc1"));
        assert!(!site.sync().expect(0, "unchanged").log.contains("last_run_was_killed"));
    }
}
