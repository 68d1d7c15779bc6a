//! `hub status` and `hub doctor` on an installed host: what systemd says of the units, who may look, what to mend.

use std::process::Output;

use serde_json::Value;

use crate::gitops::{SOON, Text, configure, push, repository, start_hub, wait_deployed};
use crate::machine::{Machine, describe};

/// What a command of `hub` printed with `--json`, and its exit code.
fn asked(machine: &Machine, argv: &[&str]) -> (i32, Value) {
    let argv: Vec<&str> = argv.iter().copied().chain(["--json"]).collect();
    let output = machine.run(&argv);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", describe(&output)));
    (output.status.code().unwrap_or(-1), json)
}

fn status(machine: &Machine) -> (i32, Value) {
    asked(machine, &["hub", "status"])
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn has(json: &Value, level: &str, part: &str, mend: &str) {
    let all = json["findings"].as_array().or(json["reasons"].as_array()).unwrap();
    let fits = |one: &&Value| {
        let says = |key: &str, part: &str| one[key].as_str().unwrap_or_default().contains(part);
        one["level"] == level && (says("finding", part) || says("reason", part)) && says("mend", mend)
    };
    assert!(all.iter().any(|one| fits(&one)), "no {level}: {part} ({mend}): {json:#}");
}

#[track_caller]
fn has_no(json: &Value, level: &str) {
    let all = json["findings"].as_array().or(json["reasons"].as_array()).unwrap();
    let found: Vec<&Value> = all.iter().filter(|one| one["level"] == level).collect();
    assert!(found.is_empty(), "{found:#?}");
}

fn state_of(json: &Value, service: &str) -> String {
    let services = json["services"].as_array().unwrap();
    let found = services.iter().find(|one| one["service"] == service).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

/// Gives the host what `hub doctor` asks for.
fn set_up(machine: &Machine) -> String {
    configure(machine, &[repository("web", "")]);
    let commit = push(machine, "web", &[Text("README", "one\n")]);
    start_hub(machine);
    machine.ok(&["chmod", "600", "/etc/credstore/webhook-secret"]);
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "gitops-sync.timer", "system-metrics.timer"]);
    machine.ok(&["systemctl", "start", "gitops-sync.service", "system-metrics.service"]);
    wait_deployed(machine, "web", &commit);
    commit
}

#[test]
fn a_host_on_which_nothing_is_configured_is_healthy_and_told_what_to_do() {
    let Some(machine) = Machine::boot() else { return };
    let (code, json) = status(&machine);
    assert_eq!((code, json["status"].as_str()), (0, Some("healthy")), "{json:#}");
    for service in ["proxy", "gitops-sync", "tailscale-gate", "reading-sync", "system-metrics", "hub-watch"] {
        assert_eq!(state_of(&json, service), "off", "{json:#}");
    }
    let (code, json) = asked(&machine, &["hub", "doctor"]);
    assert_eq!(code, 1, "{json:#}");
    has_no(&json, "problem");
    has(&json, "warning", "no [[repository]] is configured", "editor /etc/observability-hub/hub.toml");
    has(&json, "warning", "there is no webhook secret", "hub webhook-test");
    has(&json, "warning", "proxy.service, which takes webhooks", "systemctl enable --now proxy.service");
    has(&json, "warning", "system-metrics.timer", "systemctl enable --now system-metrics.timer");
    has(&json, "ok", "the user hub-git", "");
    has(&json, "ok", "the folders in /var/lib/observability-hub belong to whom they should", "");
    let version = machine.ok(&["systemctl", "--version"]);
    let version = version.split_whitespace().nth(1).expect("systemctl says its version");
    has(&json, "ok", &format!("systemctl is {version}"), "");
}

#[test]
fn a_host_at_work_is_healthy_for_root_and_for_the_group_and_others_are_told_how_to_look() {
    let Some(machine) = Machine::boot() else { return };
    let commit = set_up(&machine);
    let (code, json) = status(&machine);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        (state_of(&json, "proxy"), state_of(&json, "gitops-sync")),
        ("running".to_owned(), "waiting".to_owned())
    );
    assert_eq!(
        (state_of(&json, "system-metrics"), state_of(&json, "reading-sync")),
        ("waiting".to_owned(), "off".to_owned())
    );
    assert_eq!(json["repositories"][0]["deployed"]["commit"], commit.as_str());
    assert!(json["services"][0]["since"].is_string(), "{json:#}");
    let (_, json) = asked(&machine, &["hub", "doctor"]);
    has_no(&json, "problem");
    has(&json, "ok", "proxy.service is enabled and active", "");
    has(&json, "ok", "the login, the schema and the right to write are there", "");
    has(&json, "ok", "/srv/origin/web.git answers and has the branch main", "");
    has(&json, "ok", "the webhook secret is there", "");
    let owner = machine.ok(&["find", "/var/lib/observability-hub/data", "-not", "-user", "hub", "-print"]);
    assert_eq!(owner, "", "the doctor opened the database as its owner");

    machine.ok(&["useradd", "--groups", "hub", "ada"]);
    machine.ok(&["useradd", "eve"]);
    let ada = machine.run(&["runuser", "-u", "ada", "--", "hub", "status"]);
    assert_eq!(ada.status.code(), Some(0), "{}", describe(&ada));
    assert!(text(&ada).contains(&commit[..10]), "{}", describe(&ada));
    let (code, json) = asked(&machine, &["runuser", "-u", "eve", "--", "hub", "status"]);
    assert_eq!(code, 1, "{json:#}");
    has(&json, "degraded", "Permission denied", "usermod -aG hub NAME");
    assert!(!json.to_string().contains(&commit), "{json:#}");
    let (_, json) = asked(&machine, &["runuser", "-u", "eve", "--", "hub", "doctor"]);
    has(&json, "skipped", "cannot be read by this user", "sudo hub doctor");
    has(&json, "warning", "eve is not in the group hub", "sudo usermod -aG hub eve");
    has_no(&json, "problem");
}

#[test]
fn what_stops_fails_or_is_broken_is_told_with_what_mends_it() {
    let Some(machine) = Machine::boot() else { return };
    set_up(&machine);
    machine.ok(&["systemctl", "stop", "proxy.service"]);
    let (code, json) = status(&machine);
    assert_eq!(code, 2, "{json:#}");
    has(&json, "failed", "proxy.service is enabled and does not run", "systemctl start proxy");
    has(
        &asked(&machine, &["hub", "doctor"]).1,
        "problem",
        "is enabled and does not run",
        "systemctl start proxy.service",
    );

    // What the doctor says mends it.
    machine.ok(&["systemctl", "start", "proxy"]);
    machine.wait_for("the proxy to answer", SOON, || status(&machine).0 == 0);

    machine.ok(&["systemctl", "stop", "system-metrics.timer"]);
    let (code, json) = status(&machine);
    assert_eq!(code, 1, "{json:#}");
    has(&json, "degraded", "system-metrics.timer is enabled and does not run", "systemctl start system-metrics.timer");
    machine.ok(&["systemctl", "start", "system-metrics.timer"]);

    machine.ok(&["chown", "root", "/var/lib/observability-hub/data"]);
    let (code, json) = asked(&machine, &["hub", "doctor"]);
    assert_eq!(code, 2, "{json:#}");
    has(
        &json,
        "problem",
        "/var/lib/observability-hub/data must belong to hub",
        "chown hub /var/lib/observability-hub/data",
    );
    machine.ok(&["chown", "hub", "/var/lib/observability-hub/data"]);

    machine.write("/etc/observability-hub/hub.toml", "[proxy]\nlistem = 1\n");
    machine.run(&["systemctl", "restart", "proxy.service"]);
    machine.wait_for("the proxy to fail", SOON, || {
        machine.ok(&["systemctl", "show", "--value", "-p", "ActiveState", "proxy.service"]).trim() == "failed"
    });
    let (code, json) = status(&machine);
    assert_eq!(code, 2, "{json:#}");
    has(&json, "failed", "hub.toml:2: proxy.listem", "hub doctor");
    has(&json, "failed", "proxy.service is failed (exit-code, exit status 78)", "journalctl -u proxy -n 20");
    let (_, json) = asked(&machine, &["hub", "doctor"]);
    has(&json, "problem", "hub.toml:2: proxy.listem", "editor +2 /etc/observability-hub/hub.toml");
    has(&json, "problem", "proxy.service has failed (exit-code, exit status 78)", "systemctl restart proxy.service");
}

#[test]
fn a_missing_webhook_secret_is_told_and_what_status_says_mends_it() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("web", "")]);
    machine.run(&["rm", "-f", "/etc/credstore/webhook-secret"]);
    machine.ok(&["useradd", "--groups", "hub", "ada"]);
    machine.ok(&["systemctl", "start", "proxy.service"]);
    let (code, json) = asked(&machine, &["runuser", "-u", "ada", "--", "hub", "status"]);
    assert_eq!(code, 1, "{json:#}");
    let part = "it takes no deliveries: no webhook secret";
    has(&json, "degraded", part, "hub webhook-test");
    machine.run(&["hub", "webhook-test"]);
    machine.ok(&["systemctl", "restart", "proxy"]);
    let told = status(&machine).1["reasons"].to_string();
    assert!(!told.contains(part), "{told}");
}

#[test]
fn credentials_that_the_worker_does_not_load_are_told() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("web", "token = \"web-token\"")]);
    push(&machine, "web", &[Text("README", "one\n")]);
    let (_, json) = asked(&machine, &["hub", "doctor"]);
    has(&json, "problem", "/etc/credstore/web-token is not there", "install -m 600 FILE /etc/credstore/web-token");
    has(&json, "problem", "gitops-sync.service does not load the credential web-token", "systemctl edit gitops-sync");
    machine.write("/etc/credstore/web-token", "a token");
    machine.write("/etc/systemd/system/gitops-sync.service.d/token.conf", "[Service]\nLoadCredential=web-token\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    let (_, json) = asked(&machine, &["hub", "doctor"]);
    has(&json, "ok", "answers and has the branch main", "");
    has_no(&json, "problem");
}
