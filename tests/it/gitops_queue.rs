//! Every run leaves the queue folder empty, follows nothing, and says in `failed/` what it could not use.

use crate::support;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::eventually;
use crate::support::gitops::{FILE, REPO, Site, files, names};

/// The reasons in `failed/`, sorted.
fn reasons(site: &Site) -> Vec<String> {
    let mut reasons: Vec<String> = names(&site.state("failed"))
        .iter()
        .filter(|name| name.ends_with(".reason.json"))
        .map(|name| site.host.json(&format!("state/gitops/failed/{name}"))["reason"].as_str().unwrap().to_owned())
        .collect();
    reasons.sort();
    reasons
}

fn visible(site: &Site) -> Vec<String> {
    names(&site.queue()).into_iter().filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn whatever_is_in_the_queue_it_is_emptied_and_nothing_is_followed() {
    let site = Site::new();
    let queue = site.queue();
    let outside = site.host.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let valid = serde_json::json!({"repository": REPO, "deliveries": []}).to_string();
    std::fs::write(outside.join(FILE), &valid).unwrap();
    std::fs::create_dir_all(queue.join("folder/deep")).unwrap();
    std::fs::write(queue.join("folder/deep").join(FILE), &valid).unwrap();
    symlink(outside.join(FILE), queue.join("link.json")).unwrap();
    symlink(&outside, queue.join("link-to-folder")).unwrap();
    symlink("nowhere", queue.join("dangling.json")).unwrap();
    assert!(Command::new("mkfifo").arg(queue.join("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(queue.join("socket")).unwrap();
    std::fs::write(queue.join("acme__unknown.json"), r#"{"repository":"acme/unknown"}"#).unwrap();
    std::fs::write(queue.join(OsStr::from_bytes(b"\xff\xfe.json")), &valid).unwrap();
    std::fs::write(queue.join("x".repeat(255)), &valid).unwrap();
    std::fs::write(queue.join("esc\u{1b}[31m\nape"), &valid).unwrap();
    std::fs::write(queue.join(".acme__infra.json.1.0"), &valid).unwrap();
    site.request(REPO);
    site.queued().expect(0, "deployed");
    assert_eq!(visible(&site), [] as [String; 0]);
    assert!(queue.join(".acme__infra.json.1.0").exists());
    assert_eq!(names(&outside), [FILE]);
    let reasons = reasons(&site);
    assert_eq!(reasons.len(), 10, "{reasons:#?}");
    for part in [
        "folder is not a regular file",
        "link.json is not a regular file",
        "link-to-folder is not",
        "dangling.json is not",
        "pipe is not",
        "socket is not",
        "acme__unknown.json names no repository of hub.toml",
        "not UTF-8",
        "xxxx names no repository",
        "esc\\u{1b}[31m\\u{a}ape names no",
    ] {
        assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:#?}");
    }
    site.assert_settled();
}

#[test]
fn a_request_that_cannot_be_used_is_kept_with_its_reason() {
    for (content, part) in [
        (&b"{\"repository\": \"acme/inf"[..], "is damaged"),
        (b"", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is damaged"),
        (b"{\"repository\": \"acme/other\"}", "is named for acme/infra and asks for another repository"),
        (&[b'['; 60_000], "is damaged"),
        (&[b' '; 70_000], "is longer than"),
    ] {
        let site = Site::new();
        site.sync().expect(0, "deployed");
        std::fs::write(site.queue().join(FILE), content).unwrap();
        let run = site.queued();
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert!(run.report["repositories"].as_array().unwrap().is_empty(), "{run:#?}");
        assert_eq!(visible(&site), [] as [String; 0]);
        let reasons = reasons(&site);
        assert!(reasons.len() == 1 && reasons[0].contains(part), "{part}: {reasons:?}");
        // The content is kept for whoever looks into it.
        assert!(files(&site.state("failed")).values().any(|(_, kept)| kept == content));
        site.assert_settled();
    }
}

#[test]
fn a_terabyte_in_the_queue_is_not_read() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    for name in [FILE, "acme__unknown.json", "junk"] {
        std::fs::File::create(site.queue().join(name)).unwrap().set_len(1 << 40).unwrap();
    }
    let run = site.queued();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.took < std::time::Duration::from_secs(30), "{:?}", run.took);
    assert_eq!(visible(&site), [] as [String; 0]);
    let reasons = reasons(&site);
    assert!(reasons.len() == 3 && reasons.iter().any(|reason| reason.contains("is longer than")), "{reasons:?}");
    site.assert_settled();
}

#[test]
fn a_linked_queue_is_not_entered_and_the_rest_goes_on() {
    for name in ["proxy", "proxy/queue"] {
        let site = Site::new();
        site.queue();
        let outside = site.host.path("outside");
        std::fs::rename(site.host.state().join(name), &outside).unwrap();
        symlink(&outside, site.host.state().join(name)).unwrap();
        let queue = if name == "proxy" { outside.join("queue") } else { outside.clone() };
        std::fs::write(queue.join("acme__other.json"), "{}").unwrap();
        let before = names(&queue);
        // A person's and the timer's runs need no queue.
        site.sync().expect(0, "deployed");
        let commit = site.origin.push(&[("README", "two\n")]);
        std::fs::remove_file(site.state("checked").join(FILE)).unwrap();
        let run = site.queued();
        assert_eq!(run.code, Some(1), "{run:#?}");
        assert!(run.log.contains(&format!("{name} is no folder of its own; a link is not followed")), "{}", run.log);
        assert_eq!(site.head(), commit);
        assert_eq!(names(&queue), before);
    }
}

#[test]
fn thousands_of_entries_do_not_hide_a_request() {
    let site = Site::new();
    let queue = site.queue();
    for number in 0..2_000 {
        std::fs::write(queue.join(format!("aaa{number:04}.json")), "{}").unwrap();
    }
    for number in 0..1_500 {
        std::fs::write(queue.join(format!(".left{number}")), "{}").unwrap();
    }
    site.request(REPO);
    let run = site.queued().expect(0, "deployed");
    assert!(run.took < std::time::Duration::from_secs(60), "{:?}", run.took);
    assert_eq!(visible(&site), [] as [String; 0]);
    // Kept small: the newest 200 and their reasons.
    assert!(names(&site.state("failed")).len() <= 400);
    site.assert_settled();
}

#[test]
fn many_pushes_cost_one_run() {
    let site = Site::with("", "build = [\"/bin/sh\", \"-c\", \"echo >> ../builds\"]\n");
    let mut last = String::new();
    for number in 0..5 {
        last = site.origin.push(&[("README", &format!("{number}\n"))]);
        site.request(REPO);
    }
    let run = site.queued().expect(0, "deployed");
    assert_eq!(run.report["repositories"].as_array().unwrap().len(), 1);
    assert_eq!(std::fs::read_to_string(site.host.path("builds")).unwrap(), "\n");
    site.assert_exactly(&last);
}

#[test]
fn a_request_of_an_interrupted_run_is_done_after_what_is_queued() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let commit = site.origin.push(&[("README", "two\n")]);
    std::fs::write(site.state("active").join(FILE), serde_json::json!({"repository": REPO}).to_string()).unwrap();
    std::fs::write(site.queue().join("acme__unknown.json"), "{}").unwrap();
    let mut service = site.host.start("gitops-sync", &[]);
    assert_eq!(service.wait(), Some(0));
    service.line("deployed");
    let order: Vec<String> = service.lines().iter().map(|line| line["msg"].as_str().unwrap().to_owned()).collect();
    let at = |msg: &str| order.iter().position(|m| m == msg).unwrap();
    assert!(at("request_refused") < at("request_claimed"), "{order:?}");
    site.assert_exactly(&commit);
}

#[test]
fn a_request_that_arrives_during_a_run_is_done_in_it() {
    let script = "touch ../building; while [ ! -e ../go ]; do sleep 0.02; done";
    let site = Site::with("", &format!("build = [\"/bin/sh\", \"-c\", \"{script}\"]\n"));
    site.request(REPO);
    let mut service = site.host.start("gitops-sync", &[]);
    eventually("it builds", || site.host.path("building").exists());
    let commit = site.origin.push(&[("README", "two\n")]);
    site.request(REPO);
    std::fs::write(site.host.path("go"), "").unwrap();
    assert_eq!(service.wait(), Some(0));
    site.assert_exactly(&commit);
    assert_eq!(visible(&site), [] as [String; 0]);
    assert_eq!(site.host.json("state/gitops/run.json")["counts"]["deployed"], 2);
}

/// A second repository of the site, with an origin of its own.
fn add_repository(site: &Site, name: &str, build: &str) -> std::path::PathBuf {
    let bare = site.host.path(&format!("{name}.git"));
    std::fs::create_dir(&bare).unwrap();
    let source = site.origin.url().to_owned();
    let source = source.strip_prefix("file://").unwrap_or(&source).to_owned();
    assert!(Command::new("git").args(["clone", "--quiet", "--bare", &source]).arg(&bare).status().unwrap().success());
    let config = site.host.path("hub.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let checkout = site.host.path(&format!("{name}-checkout"));
    let more = format!(
        "[[repository]]\nname = \"acme/{name}\"\nurl = \"{}\"\npath = \"{}\"\nuser = \"{}\"\n{build}",
        bare.display(),
        checkout.display(),
        support::gitops::user_name()
    );
    std::fs::write(config, format!("{text}\n{more}")).unwrap();
    checkout
}

#[test]
fn a_request_at_which_runs_are_killed_holds_nobody_up_and_is_given_up() {
    use crate::support::gitops::sh;
    // The first one's build kills the worker, as one does that takes all memory.
    let kill = sh("build", "echo >> ../killed; kill -9 $(cat ../pid); sleep 5");
    let site = Site::with("", &kill);
    let other = add_repository(&site, "other", "");
    let run = || {
        let mut child = site.host.command("gitops-sync").stdout(std::process::Stdio::null()).spawn().unwrap();
        std::fs::write(site.host.path("pid"), child.id().to_string()).unwrap();
        child.wait().unwrap().code()
    };
    site.request(REPO);
    site.request("acme/other");
    assert_eq!(run(), None, "it was killed");
    assert!(site.state("active").join(FILE).exists());
    // Now the others come first, whatever the order in hub.toml is.
    site.request("acme/other");
    assert_eq!(run(), None, "it was killed");
    assert!(other.join("README").exists());
    // The second time it is put aside, and said.
    site.request("acme/other");
    assert_eq!(run(), Some(0));
    assert_eq!(std::fs::read_to_string(site.host.path("killed")).unwrap(), "\n\n");
    let reasons = reasons(&site);
    assert!(reasons.len() == 1 && reasons[0].contains("killed, 2 times in a row"), "{reasons:?}");
    assert!(reasons[0].contains("hub deploy acme/infra"), "{reasons:?}");
    // What is due leaves it alone as well.
    assert_eq!(run(), Some(0));
    assert_eq!(std::fs::read_to_string(site.host.path("killed")).unwrap(), "\n\n");
    // Mended, it is deployed when somebody asks for it, and nothing is remembered against it.
    site.configure("", "");
    site.request(REPO);
    site.queued().expect(0, "deployed");
    assert_eq!(names(&site.state("attempts")), [] as [String; 0]);
    assert_eq!(visible(&site), [] as [String; 0]);
}

#[test]
fn a_repository_that_is_due_and_kills_runs_holds_nobody_up() {
    use crate::support::gitops::sh;
    let site = Site::with("", &sh("build", "echo >> ../killed; kill -9 $(cat ../pid); sleep 5"));
    let other = add_repository(&site, "other", "");
    let run = || {
        let mut child = site.host.command("gitops-sync").stdout(std::process::Stdio::null()).spawn().unwrap();
        std::fs::write(site.host.path("pid"), child.id().to_string()).unwrap();
        child.wait().unwrap().code()
    };
    let mut ended = None;
    for _ in 0..4 {
        ended = run();
        if ended.is_some() {
            break;
        }
    }
    assert_eq!(ended, Some(0), "a run came to its end");
    assert!(other.join("README").exists());
    assert_eq!(std::fs::read_to_string(site.host.path("killed")).unwrap(), "\n\n");
    let said = site.host.command("hub").arg("status").output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("was cut off"), "{said}");
}

#[test]
fn only_a_kill_is_called_one() {
    for end in ["exit 1", "kill -9 $$"] {
        let site = Site::with("", &support::gitops::sh("build", end));
        let first = site.sync();
        assert_eq!(first.code, Some(3), "{first:#?}");
        std::fs::remove_file(site.state("bad").join(FILE)).unwrap();
        // A folder in the record's place: the run ends with an error of its own.
        std::fs::remove_file(site.state("run.json")).unwrap();
        std::fs::create_dir(site.state("run.json")).unwrap();
        let second = site.sync();
        std::fs::remove_dir(site.state("run.json")).unwrap();
        assert_eq!(second.code, Some(3), "{second:#?}");
        site.request("acme/unknown");
        for run in [second, site.queued(), site.sync()] {
            assert!(!run.log.contains("last_run_was_killed"), "{end}: {}", run.log);
        }
    }
}

/// Ends what runs beside a test, however the test ends.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn junk_that_never_ends_does_not_keep_a_run_from_what_is_due() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for kind in ["file", "folder", "link"] {
        let site = Site::new();
        let queue = site.queue();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            scope.spawn(|| {
                for number in 0..u64::MAX {
                    // As much again as is taken away: what lies there at the end has to be removed by this test.
                    let is_full = || number % 256 == 0 && std::fs::read_dir(&queue).unwrap().count() > 3000;
                    while is_full() && !stop.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = queue.join(format!("junk{number}"));
                    let _ = match kind {
                        "file" => std::fs::write(path, "{}"),
                        "folder" => std::fs::create_dir_all(path.join("a/b")),
                        _ => symlink("/etc/passwd", path),
                    };
                }
            });
            eventually("there is junk", || std::fs::read_dir(&queue).unwrap().count() > 50);
            let mut child = site.host.command("gitops-sync").stdout(std::process::Stdio::piped()).spawn().unwrap();
            let started = std::time::Instant::now();
            let reader = std::thread::spawn({
                let stdout = child.stdout.take().unwrap();
                move || std::io::read_to_string(stdout).unwrap()
            });
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status.code();
                }
                if started.elapsed() > std::time::Duration::from_secs(120) {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            };
            let log = reader.join().unwrap();
            assert_eq!(ended, Some(0), "{kind}: it goes on and on: {} lines", log.lines().count());
            assert!(log.contains("\"deployed\""), "{kind}: {log}");
            assert!(log.lines().count() < 100, "{kind}: {} lines", log.lines().count());
            assert!(log.contains("requests_refused"), "{kind}: {log}");
        });
        assert_eq!(site.read("README"), "one\n");
    }
}

#[test]
fn what_cannot_be_pruned_is_a_warning_and_the_run_goes_on() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let failed = site.state("failed");
    // Deeper than a path may be long, so that no path reaches what is in them; the oldest of far too many.
    for number in 0..3 {
        let folder = failed.join(format!("0-deep{number}"));
        std::fs::create_dir(&folder).unwrap();
        let script = "i=0; while [ $i -lt 1500 ]; do mkdir d; cd -P d || exit; i=$((i+1)); done; echo x > file";
        assert!(Command::new("sh").args(["-c", script]).current_dir(&folder).status().unwrap().success());
    }
    for number in 0..450 {
        std::fs::write(failed.join(format!("1-{number:04}")), "x").unwrap();
    }
    // One that cannot be removed at all.
    let immutable = failed.join("0-immutable");
    std::fs::create_dir(&immutable).unwrap();
    let is_immutable = Command::new("chattr").arg("+i").arg(&immutable).status().is_ok_and(|status| status.success());
    site.request(REPO);
    site.request("acme/unknown");
    let run = site.queued();
    Command::new("chattr").arg("-i").arg(&immutable).status().unwrap();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(run.log.matches("failed_not_pruned").count(), usize::from(is_immutable), "{}", run.log);
    assert!(names(&failed).len() <= 402, "{}", names(&failed).len());
    assert!(!failed.join("0-deep0").exists());
}
