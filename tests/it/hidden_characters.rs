//! What strangers wrote reaches people without marks that turn, hide or drive what they read: written out, as `\u{202e}`.

use crate::support;
use crate::support::gateway;
use std::path::Path;

use crate::support::gateway::Gateway;
use crate::support::gitops::{FILE, REPO, Site};
use serde_json::{Value, json};

/// A mark of each kind with what a person is to see in its place.
const MARKS: [(&str, &str); 6] = [
    ("\u{202e}", "\\u{202e}"),
    ("\u{2066}", "\\u{2066}"),
    ("\u{200b}", "\\u{200b}"),
    ("\u{feff}", "\\u{feff}"),
    ("\u{9b}", "\\u{9b}"),
    ("\u{7f}", "\\u{7f}"),
];

fn all_marks() -> String {
    MARKS.map(|(mark, _)| mark).concat()
}

fn body(answer: &support::Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

#[track_caller]
fn assert_written_out(what: &str, text: &str) {
    assert_plain(what, text);
    for (_, written) in MARKS {
        assert!(text.contains(written), "{what} has no {written}: {text}");
    }
}

#[track_caller]
fn assert_plain(what: &str, text: &str) {
    let bad =
        |c: char| MARKS.iter().any(|(mark, _)| mark.contains(c)) || c.is_control() && !matches!(c, '\n' | '\t' | '\r');
    assert_eq!(text.chars().find(|c| bad(*c)), None, "{what}: {text:?}");
}

/// State in which every text that may come from elsewhere has the marks.
fn poison(state: &Path) {
    let odd = all_marks();
    let at = "2026-01-01T00:00:00.000Z";
    let files = [
        (format!("gitops/checked/{FILE}"), json!({"at": at, "status": "failed", "reason": odd, "not_deployed": odd})),
        (format!("gitops/hold/{FILE}"), json!({"since": at, "by": odd, "reason": odd})),
        (format!("gitops/bad/{FILE}"), json!({"at": at, "commit": "1".repeat(40), "reason": odd})),
        ("gitops/failed/1-1.reason.json".to_owned(), json!({"at": at, "name": odd, "reason": odd})),
        ("gitops/failed/1-1".to_owned(), json!({})),
        (
            "gitops/run.json".to_owned(),
            json!({"service": "gitops-sync", "started": at, "duration_ms": 1, "status": odd, "error": odd}),
        ),
    ];
    for (path, content) in files {
        let path = state.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.to_string()).unwrap();
    }
}

#[test]
fn status_and_page_write_them_out() {
    let gateway = Gateway::new();
    poison(&gateway.host.state());
    let ask = |arguments: &[&str]| {
        let output = gateway.host.command("hub").arg("status").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_written_out("hub status", &ask(&[]));
    let text = ask(&["--json"]);
    assert_plain("hub status --json", &text);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["repositories"][0]["hold"]["by"], all_marks(), "to a program it is what it was");
    assert_written_out("the page", body(&gateway.get_admin("/")));
    let answer = gateway.get_admin("/api/status");
    assert_plain("/api/status", body(&answer));
    assert_plain("/metrics", body(&gateway.get_admin("/metrics")));
}

#[test]
fn names_in_the_queue_and_in_commits_are_written_out() {
    let site = Site::new();
    let odd = all_marks();
    site.sync().expect(0, "deployed");
    std::fs::write(site.queue().join(format!("{odd}\u{1b}]0;x\u{7}")), "{}").unwrap();
    let run = site.queued();
    assert_written_out("the log of the queue", &run.log.replace("\\\\u{", "\\u{"));
    let note = support::gitops::files(&site.state("failed"));
    let note = note.iter().find(|(name, _)| name.to_string_lossy().ends_with(".reason.json")).unwrap();
    assert_written_out("the note", &String::from_utf8_lossy(&note.1.1).replace("\\\\u{", "\\u{"));

    let file = format!("app{odd}");
    site.origin.push(&[(&file, "a\n")]);
    let output = site.host.command("gitops-sync").args(["--dry-run", REPO]).output().unwrap();
    assert_written_out("the plan", &String::from_utf8(output.stdout).unwrap());
    // In the way of it, so that it is named in a refusal.
    site.write(&file, "mine\n");
    let run = site.sync().expect(5, "refused");
    assert_plain("the log", &run.log);
    assert!(run.reason().contains("\\u{202e}"), "{}", run.reason());
}

#[test]
fn a_repository_that_names_its_ref_oddly_is_answered_plainly() {
    let gateway = Gateway::new();
    let pushed = support::push_body("acme/infra", &format!("other{}", all_marks()));
    let answer = support::deliver(gateway.public, gateway::SECRET, "push", "d-1", &pushed);
    assert_plain("the answer", body(&answer));
}

#[test]
fn labels_of_metrics_write_them_out() {
    let host = support::Host::new();
    let tree = host.path("tree");
    support::tree::unpack("vm", &tree);
    let odd = format!("data{}", all_marks());
    let mounts = std::fs::read_to_string(tree.join("proc/1/mountinfo")).unwrap();
    std::fs::write(tree.join("proc/1/mountinfo"), mounts.replace("data\\040\\134odd", &odd)).unwrap();
    std::fs::create_dir(tree.join("root").join(&odd)).unwrap();
    for (format, is_text) in [("prometheus", true), ("json", false)] {
        let mut command = host.command("system-metrics");
        command.args(["--print", "--format", format, "--procfs"]).arg(tree.join("proc"));
        command.arg("--sysfs").arg(tree.join("sys")).arg("--rootfs").arg(tree.join("root"));
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_plain(format, &text);
        if is_text {
            assert_written_out(format, &text.replace("\\\\u{", "\\u{"));
        }
    }
}
