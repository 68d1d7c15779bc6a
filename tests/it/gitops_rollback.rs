//! A commit whose build, command or health fails is taken back and not tried again.

use crate::support;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::gitops::{REPO, Site, files, is_alive, names, sh};
use crate::support::{eventually, git};

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
    site.sync()
        .expect(3, "rolled_back")
        .says("not tried again until the branch moves, or: ")
        .says("hub retry acme/infra");
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

#[cfg(feature = "tls")]
#[test]
fn a_health_url_over_https_has_to_show_a_certificate_that_is_trusted() {
    let served = |(certificate, key): (String, String)| support::authority::serve(&certificate, &key).0;
    let authority = support::authority::Authority::new();
    let own = {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (signed.cert.pem(), signed.signing_key.serialize_pem())
    };
    let port = served(authority.certificate(&["127.0.0.1", "localhost"]));
    let alone = served(own.clone());
    // The system's authorities have not signed it; the name has to fit; a certificate may be its own authority.
    for (url, ca, code, part) in [
        (format!("https://127.0.0.1:{port}/"), Some(authority.pem()), 0, ""),
        (format!("https://localhost:{alone}/"), Some(own.0.clone()), 0, ""),
        (format!("https://127.0.0.1:{port}/"), None, 3, "authorit"),
        (format!("https://127.0.0.1:{port}/"), Some(own.0.clone()), 3, "with ca = \"/path/ca.pem\" in health"),
        (format!("https://127.0.0.1:{alone}/"), Some(own.0.clone()), 3, "not valid for name"),
        (
            format!("https://127.0.0.1:{port}/"),
            Some("nothing".to_owned()),
            5,
            "has no certificate; it must be a PEM file",
        ),
        (format!("https://127.0.0.1:{port}/"), Some(String::new()), 5, "ca"),
    ] {
        let site = Site::new();
        site.sync().expect(0, "deployed");
        let file = site.host.path("ca.pem");
        let key = ca.as_ref().map(|_| format!(", ca = \"{}\"", file.display())).unwrap_or_default();
        match ca.as_deref() {
            // A file that is missing.
            None | Some("") => {}
            Some(pem) => std::fs::write(&file, pem).unwrap(),
        }
        site.configure("", &format!("health = {{ grace_seconds = 1, url = \"{url}\"{key} }}\n"));
        site.origin.push(&[("README", "two\n")]);
        let run = site.sync();
        assert_eq!(run.code, Some(code), "{url} {ca:?} {run:#?}");
        assert!(format!("{run:?}").replace('\\', "").contains(part), "{url}: {part} is not in {run:#?}");
    }
}

#[test]
fn a_health_url_that_nobody_answers_or_late_is_waited_for() {
    let site = Site::new();
    let port = support::free_address().port();
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
