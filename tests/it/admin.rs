//! The admin listener: who may ask, and what it shows.

use crate::support::gateway::{Gateway, host};
use crate::support::{Answer, Host, send, send_raw};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn ask(gateway: &Gateway, method: &str, path: &str, host: &str, more: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    send_raw(gateway.admin, request.as_bytes()).unwrap()
}

fn write(host: &Host, path: &str, content: &Value) {
    let path = host.state().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content.to_string()).unwrap();
}

#[test]
fn only_names_of_this_host_are_answered() {
    let gateway = Gateway::on(host("admin_hosts = [\"hub.lan\", \"nas.lan:9000\"]"));
    for name in
        ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:80", "[::1]:8086", "hub.lan", "HUB.lan:80", "nas.lan:9000"]
    {
        assert_eq!(ask(&gateway, "GET", "/api/status", name, "").status, 200, "{name}");
    }
    for name in
        ["evil.example", "localhost.evil.example", "192.168.1.1", "0.0.0.0", "[::]", "nas.lan", "hub.lan.evil.example"]
    {
        for path in ["/", "/api/status", "/metrics"] {
            let answer = ask(&gateway, "GET", path, name, "");
            assert_eq!((answer.status, &answer.json()["status"]), (403, &json!("error")), "{name} {path}");
        }
    }
    let nameless = send_raw(gateway.admin, b"GET /api/status HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(nameless.status, 400);
}

#[test]
fn web_pages_may_not_post() {
    let gateway = Gateway::new();
    let post = |path: &str, more: &str| ask(&gateway, "POST", path, "localhost", more).status;
    for origin in ["http://evil.example", "null", "http://localhost:8086"] {
        assert_eq!(post("/api/status", &format!("Origin: {origin}\r\nContent-Length: 0\r\n")), 403);
    }
    assert_eq!(post("/api/status", "Content-Length: 0\r\n"), 405);
    assert_eq!(post("/api/sync/reading", "Content-Length: 0\r\n"), 404);
    assert_eq!(ask(&gateway, "GET", "/nowhere", "localhost", "").status, 404);
    assert_eq!(ask(&gateway, "GET", "/api/webhook/gitops", "localhost", "").status, 404);
    let head = ask(&gateway, "HEAD", "/", "localhost", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn with_a_token_every_request_needs_it() {
    let host = host("");
    host.credential("admin-token", "the token of this host\n");
    let gateway = Gateway::on(host);
    let with = |line: &str| ask(&gateway, "GET", "/metrics", "localhost", line);
    for wrong in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer the token of this hos\r\n",
        "Authorization: Bearer the token of this host!\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Basic !!!\r\n",
        "Authorization: Basic dXNlcjp3cm9uZw==\r\n",
        "Authorization: Basic dGhlIHRva2VuIG9mIHRoaXMgaG9zdDo=\r\n",
    ] {
        let answer = with(wrong);
        assert!(answer.status == 401 && answer.header("WWW-Authenticate").is_some(), "{wrong}: {answer:?}");
    }
    assert_eq!(with("Authorization: bearer the token of this host\r\n").status, 200);
    // Any user name, the token as password: `user:the token of this host`.
    assert_eq!(with("Authorization: Basic dXNlcjp0aGUgdG9rZW4gb2YgdGhpcyBob3N0\r\n").status, 200);
    for path in ["/", "/api/status", "/nowhere"] {
        assert_eq!(ask(&gateway, "GET", path, "localhost", "").status, 401, "{path}");
    }
    assert_eq!(gateway.get("/healthz").status, 200, "the public listener has no token");
}

#[test]
fn with_a_token_it_may_listen_for_other_hosts() {
    let host = Host::new();
    host.configure("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"0.0.0.0:0\"\nadmin_hosts = [\"hub.lan\"]\n");
    host.credential("admin-token", "the token of this host");
    let mut gateway = Gateway::on(host);
    gateway.admin.set_ip([127, 0, 0, 1].into());
    let token = "Authorization: Bearer the token of this host\r\n";
    assert_eq!(ask(&gateway, "GET", "/api/status", "hub.lan", token).status, 200);
    assert_eq!(ask(&gateway, "GET", "/api/status", "hub.lan", "").status, 401);
    assert_eq!(ask(&gateway, "GET", "/api/status", "evil.example", token).status, 403);
}

/// What the other services write, with a name that is markup and errors in every place.
fn history(host: &Host) {
    let evil = "<script>alert('&\"')</script>";
    write(
        host,
        "gitops/deployed/acme__infra.json",
        &json!({
            "repository": "acme/infra", "commit": "0123456789abcdef0123456789abcdef01234567", "at": "2026-01-02T03:04:05.678Z",
        }),
    );
    write(
        host,
        "gitops/checked/acme__infra.json",
        &json!({"at": "2026-01-02T03:04:06Z", "status": evil, "reason": evil, "not_deployed": "not run as root"}),
    );
    write(host, "gitops/bad/acme__infra.json", &json!({"commit": evil, "reason": evil, "at": evil}));
    write(host, "gitops/hold/acme__infra.json", &json!({"since": "2026-01-02T03:04:06Z", "by": evil}));
    let run = |status: &str, error: Option<&str>, duration: u64| json!({"started": "2026-01-02T03:04:05Z", "duration_ms": duration, "status": status, "error": error});
    let mut record = run("failed", Some(evil), 1500);
    record["service"] = json!(evil);
    record["details"] = json!({"repositories": [{"repository": evil}]});
    record["history"] = json!([run("deployed", None, 3000), run("unchanged", None, 20)]);
    write(host, "gitops/run.json", &record);
    let mut before = run("stopped", None, 2232);
    before["service"] = json!("proxy");
    write(host, "proxy/run.json", &before);
    write(
        host,
        "data/metrics/run.json",
        &run("stored", None, 5)
            .as_object()
            .map(|run| {
                let mut run = run.clone();
                run.insert("service".into(), "system-metrics".into());
                Value::Object(run)
            })
            .unwrap(),
    );
}

#[test]
fn the_page_shows_everything_and_runs_nothing() {
    let host = host("");
    history(&host);
    let gateway = Gateway::on(host);
    assert_eq!(gateway.push("1").status, 202);
    let answer = gateway.get_admin("/");
    let html = String::from_utf8(answer.body.clone()).unwrap();
    assert_eq!(answer.status, 200);
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("&lt;script&gt;alert('&amp;&quot;')&lt;/script&gt;"));
    for shown in
        ["acme/infra", "acme/app", "0123456789", "nothing yet", "gitops-sync", "system-metrics", "degraded", "<svg"]
    {
        assert!(html.contains(shown), "{shown} is missing in {html}");
    }
    assert_eq!(html.matches("<rect class=\"").count(), 3, "a bar for each run, where there are several");
    assert!(!html.contains("stopped"), "an earlier proxy is not the one that runs: {html}");
    assert!(html.contains("not deployed: not run as root") && html.contains("<h3>Funnel</h3>"), "{html}");
    for class in ["good", "same", "bad"] {
        assert!(html.contains(&format!("<rect class=\"{class}\"")), "{class}");
    }
    let policy = answer.header("Content-Security-Policy").unwrap();
    let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let hash = STANDARD.encode(Sha256::digest(style));
    assert!(policy.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}';")), "{policy}");
    assert!(!html.contains(" style=") && !policy.contains("unsafe"));
}

#[test]
fn the_status_as_json_and_what_is_damaged() {
    let host = host("");
    history(&host);
    std::fs::write(host.state().join("gitops/hold/acme__app.json"), "{torn").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", host.state().join("gitops/bad/acme__app.json")).unwrap();
    let gateway = Gateway::on(host);
    assert_eq!(gateway.push("1").status, 202);
    let answer = gateway.get_admin("/api/status");
    let status = answer.json();
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!((&status["status"], &status["health"]), (&json!("degraded"), &json!("failed")));
    assert_eq!(status["queue"]["requests"], json!(1));
    assert_eq!(status["proxy"]["deliveries"], json!({"queued": 1, "ignored": 0, "pong": 0, "refused": 0}));
    assert_eq!(status["repositories"][0]["deployed"]["commit"], "0123456789abcdef0123456789abcdef01234567");
    assert_eq!(status["repositories"][1]["deployed"], Value::Null);
    assert_eq!(status["services"][0]["service"], "gitops-sync", "the folder names the service, not the file");
    assert!(status["services"].as_array().unwrap().iter().all(|one| one["service"] != "proxy"), "{status}");
    let unreadable = status["unreadable"].to_string();
    assert!(unreadable.contains("hold/acme__app.json") && unreadable.contains("bad/acme__app.json"), "{unreadable}");
    assert!(!status.to_string().contains("root:"));
}

#[test]
fn a_reason_is_told_where_it_belongs_and_a_run_by_its_end() {
    let host = host("[[pipeline]]\nname = \"reading\"\nsource = \"file:/nowhere\"");
    let ago = |minutes| (jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes)).to_string();
    let reason = "cannot fetch from nowhere";
    let checked = json!({"at": ago(3), "status": "refused", "reason": reason});
    write(&host, "gitops/checked/acme__infra.json", &checked);
    let outcome = json!({"repository": "acme/infra", "status": "refused", "reason": reason});
    let run = json!({
        "service": "gitops-sync", "started": ago(8), "duration_ms": 360_000, "status": "refused", "error": reason,
        "details": {"repositories": [outcome]},
    });
    write(&host, "gitops/run.json", &run);
    let kept = json!({"reading": {"dead_letters": 7, "damaged_files": 0, "counted": ago(5)}});
    let run = json!({"service": "reading-sync", "started": ago(5), "duration_ms": 1, "status": "done", "details": {"kept": kept}});
    write(&host, "reading/run.json", &run);
    let gateway = Gateway::on(host);
    let html = String::from_utf8(gateway.get_admin("/").body).unwrap();
    assert_eq!(html.matches(reason).count(), 1, "{html}");
    for shown in
        ["<b>gitops-sync</b>: acme/infra refused", "reading: 7 documents could not be stored", "<b class=\"bad\">7</b>"]
    {
        assert!(html.contains(shown), "{shown} is missing in {html}");
    }
    assert!(html.contains("</b> 2 min ago <span class=\"more\">took 6 min"), "{html}");
    let status = gateway.get_admin("/api/status").json();
    assert_eq!((&status["status"], status["reasons"].as_array().unwrap().len()), (&json!("degraded"), 3));
}

#[test]
fn what_is_wrong_stays_told_until_it_is_over() {
    let host = host("");
    let ago = |hours| (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).to_string();
    let run = |service: &str, hours, status: &str, looks: Value| json!({"service": service, "started": ago(hours), "duration_ms": 1, "status": status, "details": {"repositories": looks}});
    let checked = |status: &str| json!({"at": ago(0), "status": status, "reason": "no way there"});
    write(&host, "gitops/checked/acme__infra.json", &checked("failed"));
    // A run of another one by its name.
    write(&host, "gitops/checked/acme__app.json", &checked("unchanged"));
    let look = json!([{"repository": "acme/app", "status": "unchanged"}]);
    write(&host, "gitops/run.json", &run("gitops-sync", 0, "unchanged", look));
    let gateway = Gateway::on(host);
    let status = gateway.get_admin("/api/status").json();
    assert_eq!(status["health"], "failed", "{status}");
    assert_eq!(status["reasons"][1]["key"], "gitops/acme/infra/failed", "{status}");
    let metrics = String::from_utf8(gateway.get_admin("/metrics").body).unwrap();
    let sample = "hub_health_reason{key=\"gitops/acme/infra/failed\",level=\"degraded\",about=\"acme/infra\"} 1";
    assert!(metrics.contains(sample) && metrics.contains("\nhub_health 2\n"), "{metrics}");
    write(&gateway.host, "gitops/checked/acme__infra.json", &checked("deployed"));
    assert_eq!(gateway.get_admin("/api/status").json()["health"], "healthy");
    write(&gateway.host, "data/metrics/run.json", &run("system-metrics", 96, "stored", json!([])));
    let status = gateway.get_admin("/api/status").json();
    assert_eq!(
        (&status["health"], &status["reasons"][0]["key"]),
        (&json!("degraded"), &json!("metrics/late")),
        "{status}"
    );
}

#[test]
fn nothing_has_run_yet() {
    let gateway = Gateway::new();
    let status = gateway.get_admin("/api/status").json();
    assert_eq!(
        (&status["status"], &status["health"], &status["services"], &status["unreadable"]),
        (&json!("ok"), &json!("healthy"), &json!([]), &json!([]))
    );
    assert!(String::from_utf8(gateway.get_admin("/").body).unwrap().contains("No service has run yet"));
}

#[test]
fn metrics_are_well_formed() {
    let host = host("");
    history(&host);
    let gateway = Gateway::on(host);
    assert_eq!(gateway.push("1").status, 202);
    assert_eq!(send(gateway.public, "GET", "/nowhere", &[], b"").status, 404);
    let answer = gateway.get_admin("/metrics");
    assert!(answer.header("Content-Type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).unwrap();
    let mut families = std::collections::HashMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name, kind).is_none(), "{name} twice");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        } else if !line.starts_with('#') {
            let name = &line[..line.find(['{', ' ']).unwrap()];
            let known = name.starts_with("hub_") || name.starts_with("process_");
            assert!(known && families.contains_key(name), "{line}");
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        }
    }
    for sample in [
        "hub_deliveries_total{outcome=\"queued\"} 1",
        "hub_queue_requests 1",
        "hub_queue_writable 1",
        "hub_repository_deployed_info{repository=\"acme/infra\",commit=\"0123456789abcdef0123456789abcdef01234567\"} 1",
        "hub_repository_held{repository=\"acme/infra\"} 1",
        "hub_repository_bad_commit{repository=\"acme/app\"} 0",
        "hub_service_last_run_success{service=\"gitops-sync\"} 0",
        "hub_service_last_run_duration_seconds{service=\"gitops-sync\"} 1.5",
        "hub_http_responses_total{listener=\"public\",class=\"4xx\"} 1",
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample} is missing in {text}");
    }
}
