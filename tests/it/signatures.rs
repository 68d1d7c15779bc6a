//! Which deliveries are believed, and what a believed one does.

use crate::support::gateway::{Gateway, OLD_SECRET, SECRET, WEBHOOK};
use crate::support::{Answer, deliver, push_body, send, signature};
use serde_json::{Value, json};

fn post(gateway: &Gateway, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut all = vec![("Content-Type", "application/json"), ("X-GitHub-Event", "push")];
    all.extend_from_slice(headers);
    send(gateway.public, "POST", WEBHOOK, &all, body)
}

#[test]
fn only_one_right_signature_is_believed() {
    let gateway = Gateway::new();
    let body = push_body("acme/infra", "main");
    let good = signature(SECRET, &body);
    let hex = &good["sha256=".len()..];
    let other = signature("some other secret", &body);
    let upper = format!("sha256={}", hex.to_uppercase());
    let missing = [("X-Hub-Signature", "sha1=0000000000000000000000000000000000000000")];
    assert_eq!(post(&gateway, &missing, &body).status, 401);
    assert_eq!(post(&gateway, &[], &body).status, 401);
    for value in [
        "",
        "sha256=",
        hex,
        &upper,
        &other,
        &good[..70],
        &format!("{good}0"),
        &format!("{good},{good}"),
        &format!("SHA256={hex}"),
        &format!("sha1={hex}"),
        &format!("sha256= {hex}"),
        &"0".repeat(10_000),
    ] {
        let answer = post(&gateway, &[("X-Hub-Signature-256", value)], &body);
        assert_eq!(answer.status, 401, "{value}");
        let said = String::from_utf8(answer.body).unwrap();
        assert!(!said.contains(hex), "the right one is never told: {said}");
    }
    let twice = [("X-Hub-Signature-256", good.as_str()), ("X-Hub-Signature-256", &other)];
    assert_eq!(post(&gateway, &twice, &body).status, 401);
    let same_twice = [("X-Hub-Signature-256", good.as_str()), ("x-hub-signature-256", &good)];
    assert_eq!(post(&gateway, &same_twice, &body).status, 401);
    let fallback = [("X-Hub-Signature-256", other.as_str()), ("X-Gitea-Signature", hex)];
    assert_eq!(post(&gateway, &fallback, &body).status, 401, "no second try with another header");
    let mut changed = body.clone();
    changed.push(b' ');
    assert_eq!(post(&gateway, &[("X-Hub-Signature-256", &good)], &changed).status, 401);
    assert!(gateway.queued().is_empty());
    assert_eq!(post(&gateway, &[("X-Hub-Signature-256", &good)], &body).status, 202);
}

#[test]
fn gitea_forgejo_and_both_secrets() {
    let gateway = Gateway::new();
    let body = push_body("acme/infra", "main");
    for secret in [SECRET, OLD_SECRET] {
        let good = signature(secret, &body);
        let hex = &good["sha256=".len()..];
        assert_eq!(post(&gateway, &[("x-hub-signature-256", &good)], &body).status, 202);
        assert_eq!(post(&gateway, &[("X-Gitea-Signature", hex)], &body).status, 202);
        assert_eq!(post(&gateway, &[("X-Forgejo-Signature", hex), ("X-Gitea-Signature", hex)], &body).status, 202);
        for header in ["X-Gitea-Signature", "X-Forgejo-Signature"] {
            assert_eq!(post(&gateway, &[(header, &good)], &body).status, 401, "{header} has no prefix");
            assert_eq!(post(&gateway, &[(header, hex), (header, hex)], &body).status, 401);
            assert_eq!(post(&gateway, &[(header, &hex[1..])], &body).status, 401);
        }
    }
    let hex = signature(SECRET, &body).replace("sha256=", "");
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Forgejo-Event", "push"),
        ("X-Forgejo-Delivery", "forgejo-1"),
        ("X-Forgejo-Signature", &hex),
    ];
    let answer = send(gateway.public, "POST", WEBHOOK, &headers, &body);
    assert_eq!((answer.status, &answer.json()["delivery"]), (202, &json!("forgejo-1")));
    assert_eq!(gateway.request("acme__infra")["count"], 7);
}

/// The bodies have the shape, and the headers the names, that the two send.
#[test]
fn gitlab_and_bitbucket() {
    let gateway = Gateway::new();
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        send(gateway.public, "POST", WEBHOOK, &all, body)
    };
    let commit = "1".repeat(40);
    let gitlab = json!({
        "object_kind": "push", "event_name": "push", "before": "0".repeat(40), "after": commit, "ref": "refs/heads/main",
        "checkout_sha": commit, "user_username": "ann", "project_id": 15, "total_commits_count": 1, "commits": [],
        "project": {"id": 15, "name": "infra", "path_with_namespace": "acme/infra", "default_branch": "main"},
        "repository": {"name": "infra", "url": "git@gitlab.example:acme/infra.git"},
    });
    let gitlab = gitlab.to_string();
    let event = ("X-Gitlab-Event", "Push Hook");
    let uuid = ("X-Gitlab-Event-UUID", "13792a34-cac6-4fda-95a8-c58e00a3954e");
    let answer = send(&[("X-Gitlab-Token", SECRET), event, uuid], gitlab.as_bytes());
    assert_eq!((answer.status, &answer.json()["delivery"]), (202, &json!(uuid.1)), "{}", answer.json());
    assert_eq!(gateway.request("acme__infra")["after"], commit.as_str());
    for wrong in ["", "x", &SECRET[1..], &format!("{SECRET}x"), &SECRET.to_uppercase()] {
        let answer = send(&[("X-Gitlab-Token", wrong), event], gitlab.as_bytes());
        let reason = answer.json()["reason"].as_str().unwrap().to_owned();
        assert!(answer.status == 401 && reason.contains("X-Gitlab-Token") && !reason.contains(SECRET), "{reason}");
    }
    assert_eq!(send(&[event], gitlab.as_bytes()).status, 401, "without a token");
    assert_eq!(send(&[("X-Gitlab-Token", OLD_SECRET), event], gitlab.as_bytes()).status, 202);

    let branch = json!({"type": "branch", "name": "main", "target": {"type": "commit", "hash": commit}});
    let bitbucket = json!({
        "actor": {"type": "user"}, "repository": {"type": "repository", "full_name": "acme/infra", "name": "infra"},
        "push": {"changes": [{"new": branch, "old": branch, "created": false, "closed": false, "truncated": false}]},
    });
    let bitbucket = bitbucket.to_string();
    let good = signature(SECRET, bitbucket.as_bytes());
    let event = ("X-Event-Key", "repo:push");
    let answer = send(&[("X-Hub-Signature", &good), event, ("X-Request-UUID", "r-1")], bitbucket.as_bytes());
    assert_eq!((answer.status, &answer.json()["delivery"]), (202, &json!("r-1")), "{}", answer.json());
    for wrong in ["", "sha256=", "sha1=00", &good[7..], &signature("some other secret", bitbucket.as_bytes())] {
        assert_eq!(send(&[("X-Hub-Signature", wrong), event], bitbucket.as_bytes()).status, 401, "{wrong}");
    }
    assert_eq!(send(&[("X-Hub-Signature", &good)], bitbucket.as_bytes()).status, 401, "that is GitHub's SHA-1 header");
    assert_eq!(gateway.request("acme__infra")["count"], 3);
}

#[test]
fn a_ping_is_verified_like_the_rest() {
    let gateway = Gateway::new();
    let body = br#"{"zen":"Keep it logically awesome.","hook_id":1}"#;
    let ping = [("Content-Type", "application/json"), ("X-GitHub-Event", "ping")];
    assert_eq!(send(gateway.public, "POST", WEBHOOK, &ping, body).status, 401);
    let answer = deliver(gateway.public, SECRET, "ping", "1", body);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("pong")));
}

#[test]
fn an_unknown_repository_is_told_only_to_who_knows_the_secret() {
    let gateway = Gateway::new();
    for name in ["acme/other", "infra", "acme/infra/", "../acme/infra", ""] {
        let body = push_body(name, "main");
        assert_eq!(deliver(gateway.public, "wrong secret 123", "push", "1", &body).status, 401, "{name}");
        let answer = deliver(gateway.public, SECRET, "push", "1", &body);
        assert_eq!((answer.status, &answer.json()["status"]), (404, &json!("error")), "{name}");
    }
    assert!(gateway.queued().is_empty());
}

#[test]
fn broken_json_is_400_and_says_what_is_missing() {
    let gateway = Gateway::new();
    let huge = format!(r#"{{"ref":"refs/heads/main","x":"{}"}}"#, "y".repeat(2 << 20));
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for (body, hint) in [
        (&b"not json"[..], "JSON"),
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"{\"ref\":\"\xff\xfe\"}", "UTF-8"),
        (deep.as_bytes(), "deeper"),
        ("[".repeat(1 << 20).as_bytes(), "deeper"),
        (huge.as_bytes(), "repository"),
        (br#"{"repository":{"full_name":"acme/infra"}}"#, "ref"),
        (br#"{"ref":"refs/heads/main","repository":{}}"#, "full_name"),
        (br#"{"ref":"refs/heads/main","repository":null}"#, "repository"),
    ] {
        let answer = deliver(gateway.public, SECRET, "push", "1", body);
        let reason = answer.json()["reason"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && reason.contains(hint), "{} {reason}", answer.status);
    }
    let body = push_body("acme/infra", "main");
    let headers = [("Content-Type", "application/json"), ("X-Hub-Signature-256", &signature(SECRET, &body))];
    let answer = send(gateway.public, "POST", WEBHOOK, &headers, &body);
    assert!(answer.status == 400 && answer.json()["reason"].as_str().unwrap().contains("X-GitHub-Event"));
    assert_eq!(gateway.push("2").status, 202);
}

fn pull_request(action: &str, merged: bool, base: &str) -> Value {
    json!({
        "action": action,
        "pull_request": {"merged": merged, "base": {"ref": base}, "head": {"ref": "topic"}},
        "repository": {"full_name": "acme/app"},
    })
}

#[test]
fn what_changes_nothing_is_ignored_with_a_reason() {
    let gateway = Gateway::new();
    let push = |reference: &str, deleted: bool| json!({"ref": reference, "deleted": deleted, "repository": {"full_name": "acme/app"}});
    for (event, body, received) in [
        ("push", push("refs/heads/release", true), "refs/heads/release was deleted"),
        ("push", push("refs/tags/release", false), "refs/tags/release"),
        ("push", push("refs/heads/main", false), "refs/heads/main"),
        ("push", push("release", false), "release"),
        ("pull_request", pull_request("closed", false, "release"), "unmerged"),
        ("pull_request", pull_request("synchronize", false, "release"), "synchronize"),
        ("pull_request", pull_request("closed", true, "main"), "refs/heads/main"),
    ] {
        let answer = deliver(gateway.public, SECRET, event, "1", body.to_string().as_bytes());
        let said = answer.json();
        assert_eq!((answer.status, &said["status"]), (200, &json!("ignored")), "{body}");
        let reason = said["reason"].as_str().unwrap();
        assert!(reason.contains(received) && reason.contains("refs/heads/release"), "{reason}");
    }
    for event in ["star", "release", "registry_package", "PUSH"] {
        let answer = deliver(gateway.public, SECRET, event, "1", b"{}");
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("ignored")), "{event}");
    }
    assert!(gateway.queued().is_empty());
    let merged = pull_request("closed", true, "release").to_string();
    let answer = deliver(gateway.public, SECRET, "pull_request", "7", merged.as_bytes());
    assert_eq!((answer.status, &answer.json()["repo"]), (202, &json!("acme/app")));
    assert_eq!(gateway.queued(), ["acme__app.json"]);
}

#[test]
fn the_secrets_are_in_no_answer_page_log_or_record() {
    let gateway = Gateway::new();
    let body = push_body("acme/infra", "main");
    let mut said = String::new();
    let mut answers = Vec::new();
    let mut ask = |answer: Answer| answers.extend([answer.head.into_bytes(), answer.body]);
    // Deliveries with the right secret and with half of it, and senders that put it where it does not belong.
    ask(deliver(gateway.public, SECRET, "push", "1", &body));
    ask(deliver(gateway.public, &SECRET[..20], "push", "2", &body));
    ask(deliver(gateway.public, SECRET, "push", "3", b"{"));
    for header in ["X-Gitlab-Token", "Authorization", "X-Hub-Signature-256", "X-GitHub-Event", "Content-Type"] {
        ask(post(&gateway, &[(header, SECRET)], &body));
    }
    for path in [format!("{WEBHOOK}?secret={SECRET}"), format!("/{SECRET}")] {
        ask(send(gateway.public, "POST", &path, &[("Content-Type", "application/json")], &body));
        ask(send(gateway.public, "GET", &path, &[], b""));
    }
    for path in ["/", "/healthz"] {
        ask(gateway.get(path));
    }
    for path in ["/", "/api/status", "/metrics", "/healthz"] {
        ask(gateway.get_admin(path));
    }
    let mut keep = |text: &[u8]| said += &String::from_utf8_lossy(text);
    answers.iter().for_each(|answer| keep(answer));
    for arguments in [&["status"][..], &["status", "--json"], &["doctor"], &["doctor", "--json"]] {
        let output = gateway.host.command("hub").args(arguments).output().unwrap();
        keep(&output.stdout);
        keep(&output.stderr);
    }
    let mut folders = vec![gateway.host.state()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && entry.file_name() == "credentials" => {}
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => keep(&std::fs::read(entry.path()).unwrap()),
                _ => {}
            }
        }
    }
    gateway.service.signal("TERM");
    gateway.service.line("stopped");
    keep(serde_json::to_string(&gateway.service.lines()).unwrap().as_bytes());
    assert!(said.contains("delivery_queued") && said.contains("\"deliveries\""), "{said}");
    for secret in [SECRET, OLD_SECRET, &SECRET[..20]] {
        let at = said.find(secret).map(|at| said[..at + secret.len()].chars().rev().take(400).collect::<Vec<_>>());
        assert_eq!(at.map(|text| text.into_iter().rev().collect::<String>()), None);
    }
}
