//! What systemd, `hub up` and the proxy's answer make of a service.

use serde_json::json;

use super::*;
use crate::systemd::Unit;

/// A unit in systemd's words: load, active, sub, file.
fn unit(words: &str) -> Unit {
    let words: Vec<&str> = words.split(' ').collect();
    let [load, active, sub, file] = words[..] else { panic!("{words:?}") };
    let text = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    Unit {
        load: text(load),
        active: text(active),
        sub: text(sub),
        file: text(file),
        result: "exit-code".to_owned(),
        exit_status: "1".to_owned(),
        ..Unit::default()
    }
}

fn host(units: &[(&str, &str)], proxy: Answer) -> Host {
    let units = units.iter().map(|(name, words)| ((*name).to_owned(), unit(words))).collect();
    Host { units: Some(units), proxy, ..Host::with("") }
}

fn record(service: &str, status: &str, error: Option<&str>) -> Value {
    json!({"service": service, "started": now().to_string(), "duration_ms": 1, "status": status, "error": error})
}

/// The service's state, its level, and its reasons in one text.
fn judged(host: &Host, service: &'static str) -> (String, Level, String) {
    host.seen(|seen| {
        let reasons = judge(seen);
        let found = services(seen, &reasons).into_iter().find(|one| one.service == service).unwrap();
        let own = reasons.iter().filter(|reason| reason.about == service);
        let told = own.map(|r| format!("{} > {}", r.reason, r.mend.as_deref().unwrap_or_default()));
        (found.state, found.level, told.collect::<Vec<_>>().join("; "))
    })
}

#[test]
fn every_state_of_a_service_that_is_always_on_has_its_word() {
    for (words, proxy, state, level, part) in [
        ("loaded active running enabled", Answer::Well, "running", Level::Healthy, ""),
        ("loaded active running disabled", Answer::Well, "running", Level::Healthy, ""),
        (
            "loaded active running enabled",
            Answer::Silent("no answer".into()),
            "running",
            Level::Failed,
            "no answer > journalctl -u proxy",
        ),
        ("loaded active running enabled", Answer::Unwell("disk full".into()), "running", Level::Failed, "disk full"),
        (
            "loaded active running enabled",
            Answer::Unverified("no webhook secret".into()),
            "running",
            Level::Degraded,
            "it takes no deliveries: no webhook secret",
        ),
        ("loaded activating start enabled", Answer::NotAsked, "starting", Level::Healthy, ""),
        (
            "loaded activating auto-restart enabled",
            Answer::NotAsked,
            "restarting",
            Level::Failed,
            "is restarting (exit-code",
        ),
        (
            "loaded failed failed enabled",
            Answer::NotAsked,
            "failed",
            Level::Failed,
            "is failed (exit-code, exit status 1)",
        ),
        ("loaded inactive dead enabled", Answer::NotAsked, "stopped", Level::Failed, "> systemctl start proxy"),
        ("loaded inactive dead disabled", Answer::NotAsked, "off", Level::Healthy, ""),
        ("masked inactive dead masked", Answer::NotAsked, "masked", Level::Healthy, ""),
        (
            "bad-setting inactive dead enabled",
            Answer::NotAsked,
            "broken",
            Level::Failed,
            "does not load proxy.service: bad-setting",
        ),
        ("not-found inactive dead -", Answer::NotAsked, "not running", Level::Healthy, ""),
    ] {
        let (found, found_level, told) = judged(&host(&[("proxy.service", words)], proxy), "proxy");
        assert_eq!((found.as_str(), found_level), (state, level), "{words}: {told}");
        assert!(told.contains(part) && told.is_empty() == part.is_empty(), "{words}: {told}");
    }
    let gate = host(&[("tailscale-gate.service", "loaded inactive dead enabled")], Answer::NotAsked);
    assert_eq!(judged(&gate, "tailscale-gate").1, Level::Degraded, "a door that is shut is safe");
}

#[test]
fn every_state_of_a_service_that_is_started_has_its_word() {
    let service = "loaded inactive dead static";
    for (service, path, timer, state, level, part) in [
        (service, "loaded active waiting enabled", "loaded active waiting enabled", "waiting", Level::Healthy, ""),
        (
            "loaded activating start static",
            "loaded active running enabled",
            "loaded active waiting enabled",
            "running",
            Level::Healthy,
            "",
        ),
        (service, "loaded inactive dead disabled", "loaded inactive dead disabled", "off", Level::Healthy, ""),
        (
            service,
            "loaded inactive dead enabled",
            "loaded inactive dead enabled",
            "stopped",
            Level::Degraded,
            "systemctl start gitops-sync.path gitops-sync.timer",
        ),
        (
            service,
            "loaded inactive dead enabled",
            "loaded active waiting enabled",
            "waiting",
            Level::Degraded,
            "gitops-sync.path is enabled and does not run",
        ),
        (
            service,
            "loaded failed failed enabled",
            "loaded active waiting enabled",
            "failed",
            Level::Failed,
            "systemctl restart gitops-sync.path",
        ),
        (
            "loaded failed failed static",
            "loaded active waiting enabled",
            "loaded active waiting enabled",
            "failed",
            Level::Failed,
            "journalctl -u gitops-sync",
        ),
    ] {
        let units = [("gitops-sync.service", service), ("gitops-sync.path", path), ("gitops-sync.timer", timer)];
        let (found, found_level, told) = judged(&host(&units, Answer::NotAsked), "gitops-sync");
        assert_eq!((found.as_str(), found_level), (state, level), "{units:?}: {told}");
        assert!(told.contains(part) && told.is_empty() == part.is_empty(), "{units:?}: {told}");
    }
}

#[test]
fn a_failed_unit_is_explained_by_the_record_of_its_run_and_by_itself_where_that_was_fine() {
    let units = [
        ("gitops-sync.service", "loaded failed failed static"),
        ("gitops-sync.timer", "loaded active waiting enabled"),
    ];
    let host = host(&units, Answer::NotAsked);
    host.write("gitops/run.json", &record("gitops-sync", "rolled_back", Some("after failed")));
    let (_, level, told) = judged(&host, "gitops-sync");
    assert!(level == Level::Degraded && told.starts_with("after failed") && !told.contains("exit status"), "{told}");
    host.write("gitops/run.json", &record("gitops-sync", "unchanged", None));
    let (_, level, told) = judged(&host, "gitops-sync");
    assert!(level == Level::Failed && told.contains("exit status 1"), "{told}");
}

#[test]
fn a_proxy_that_runs_has_got_over_the_failure_in_its_record() {
    let old = record("proxy", "failed", Some("no credential"));
    let running = host(&[("proxy.service", "loaded active running enabled")], Answer::Well);
    running.write("proxy/run.json", &old);
    assert_eq!(judged(&running, "proxy").2, "");
    let off = host(&[("proxy.service", "loaded inactive dead disabled")], Answer::NotAsked);
    off.write("proxy/run.json", &old);
    assert!(judged(&off, "proxy").2.starts_with("no credential"));
}
