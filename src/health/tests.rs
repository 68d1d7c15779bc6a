//! Every reason: what brings it, and what clears it.

mod services;

use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::records::{Found, Left, Wanted};
use crate::state::Folder;
use crate::systemd::Units;

/// 2026-01-10, noon.
const NOW: &str = "2026-01-10T12:00:00Z";
const SITE: &str = "acme/site";

const HUB: &str = r#"
[[repository]]
name = "acme/site"
url = "https://example.org/site.git"
path = "/srv/site"
[[repository]]
name = "acme/other"
url = "https://example.org/other.git"
path = "/srv/other"
[[pipeline]]
name = "reading"
source = "file:/srv/inbox"
"#;

fn now() -> jiff::Timestamp {
    NOW.parse().unwrap()
}

/// So many hours before.
fn ago(hours: i64) -> String {
    (now() - jiff::SignedDuration::from_hours(hours)).to_string()
}

/// A host: files in its state folder, and what is seen besides.
pub(super) struct Host {
    dir: tempfile::TempDir,
    pub config: Result<Config, String>,
    pub ways: Ways,
    pub units: Option<Units>,
    pub up: Option<u32>,
    pub proxy: Answer,
    pub waits: Vec<Wait>,
    pub gate: Option<bool>,
    pub works: Option<bool>,
    pub booted: Option<jiff::Timestamp>,
}

impl Host {
    /// Where all is well: everything ran lately.
    pub fn well() -> Self {
        let host = Self::with(HUB);
        host.write("gitops/run.json", &run("gitops-sync", "unchanged", 0));
        host.write("gitops/checked/acme__site.json", &json!({"at": ago(0), "status": "unchanged"}));
        host.write("data/metrics/run.json", &run("system-metrics", "stored", 0));
        host
    }

    pub fn with(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hub.toml");
        std::fs::write(&file, toml).unwrap();
        let ways = Ways {
            hub: ("hub ".to_owned(), String::new()),
            is_installed: true,
            file: "/etc/hub.toml".to_owned(),
            state: "/state".to_owned(),
        };
        Self {
            config: Config::load(Some(&file)).map_err(|error| error.to_string()),
            dir,
            ways,
            units: None,
            up: None,
            proxy: Answer::Well,
            waits: Vec::new(),
            gate: None,
            works: Some(false),
            booted: None,
        }
    }

    pub fn write(&self, path: &str, value: &Value) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    }

    pub fn remove(&self, path: &str) {
        std::fs::remove_file(self.dir.path().join(path)).unwrap();
    }

    /// What `ask` makes of what is seen.
    pub fn seen<T>(&self, ask: impl FnOnce(&Seen<'_>) -> T) -> T {
        let root = Found::There(Folder::open(self.dir.path()).unwrap());
        self.seen_in(&root, ask)
    }

    pub fn seen_in<T>(&self, root: &Found<Folder>, ask: impl FnOnce(&Seen<'_>) -> T) -> T {
        let read = Left::read(root, &Wanted::of(self.config.as_ref().ok()), now());
        let left = Left { gate: self.gate, works: self.works, booted: self.booted, ..read };
        ask(&Seen {
            now: now(),
            config: self.config.as_ref().map_err(String::as_str),
            ways: &self.ways,
            left: &left,
            units: self.units.as_ref(),
            units_error: None,
            up: self.up,
            proxy: &self.proxy,
            lives: matches!(self.proxy, Answer::Well | Answer::Unwell(_) | Answer::Unverified(_)),
            waits: &self.waits,
        })
    }

    pub fn reasons(&self) -> Vec<Reason> {
        self.seen(judge)
    }

    pub fn keys(&self) -> Vec<String> {
        self.reasons().into_iter().map(|reason| reason.key).collect()
    }
}

pub(super) fn run(service: &str, status: &str, hours: i64) -> Value {
    json!({"service": service, "started": ago(hours), "duration_ms": 1, "status": status})
}

fn failed(service: &str, status: &str, error: &str, details: Value) -> Value {
    let mut run = run(service, status, 0);
    (run["error"], run["details"]) = (error.into(), details);
    run
}

/// A record of the gate, written so many hours ago.
fn door(state: &str, hours: i64, more: Value) -> Value {
    let mut details = json!({"state": state, "reason": "x", "written": ago(hours), "since": ago(hours)});
    for (key, value) in more.as_object().unwrap() {
        details[key] = value.clone();
    }
    let mut run = run("tailscale-gate", state, hours);
    run["details"] = details;
    run
}

#[test]
fn a_host_where_all_is_well_has_no_reason() {
    assert_eq!(Host::well().keys(), [] as [&str; 0]);
}

/// A file, what it says, and the reason that this is: key, level, part of the sentence and of what mends it.
type Case = (&'static str, Value, &'static str, Level, &'static str, &'static str);

fn cases() -> Vec<Case> {
    use Level::{Degraded, Failed};
    let checked = |status: &str| json!({"at": ago(1), "status": status, "reason": "why"});
    let kept = |dead, files| json!({"reading": {"dead_letters": dead, "damaged_files": files, "counted": ago(1)}});
    let reading = |status: &str, details: Value| failed("reading-sync", status, "reading: no inbox", details);
    let open = |step: &str, until: Option<&str>| json!({"repository": SITE, "to": "0123456789abcdef", "step": step, "started": ago(3), "confirm_until": until});
    let site = "gitops/checked/acme__site.json";
    vec![
        (site, checked("refused"), "gitops/acme/site/refused", Degraded, "refused: why", "hub deploy acme/site"),
        (site, checked("failed"), "gitops/acme/site/failed", Degraded, "failed: why", "hub doctor"),
        (site, checked("failed"), "gitops/last-run", Failed, "acme/site failed", "journalctl -u gitops-sync"),
        (
            site,
            checked("rollback_failed"),
            "gitops/acme/site/rollback-failed",
            Failed,
            "rollback failed: why",
            "hub doctor",
        ),
        (
            site,
            json!({"at": ago(3), "status": "unchanged"}),
            "gitops/acme/site/late",
            Degraded,
            "not looked at for 3 h",
            "gitops-sync.timer",
        ),
        (
            site,
            json!({"at": ago(0), "status": "deployed", "left_out": "submodules"}),
            "gitops/acme/site/left-out",
            Degraded,
            "the checkout has submodules",
            "editor /etc/hub.toml",
        ),
        (
            "gitops/bad/acme__site.json",
            json!({"commit": "0123456789abcdef", "reason": "after failed", "at": ago(1)}),
            "gitops/acme/site/rolled-back",
            Degraded,
            "commit 0123456789 failed",
            "journalctl -u gitops-sync -g acme/site -n 50   # then push to main",
        ),
        (
            "gitops/bad/acme__site.json",
            json!({"commit": "0123456789abcdef", "refused": true}),
            "gitops/acme/site/refused",
            Degraded,
            "it does not say why",
            "push to main",
        ),
        (
            "gitops/deployed/acme__site.json",
            json!({"commit": "1", "at": ago(1), "ignored": ["a.service:3: MemoryMx="]}),
            "gitops/acme/site/ignored-lines",
            Degraded,
            "a.service:3",
            "push",
        ),
        (
            "gitops/journal/acme__site.json",
            open("units", None),
            "gitops/acme/site/cut-off",
            Failed,
            "was cut off at its step units",
            "hub deploy acme/site",
        ),
        (
            "gitops/journal/acme__site.json",
            open("confirm", Some("2026-01-10T13:00:00Z")),
            "gitops/acme/site/on-trial",
            Degraded,
            "is on trial",
            "hub confirm acme/site",
        ),
        (
            "gitops/journal/acme__site.json",
            open("confirm", Some("2026-01-10T11:00:00Z")),
            "gitops/acme/site/not-confirmed",
            Failed,
            "nobody confirmed",
            "hub deploy acme/site",
        ),
        (
            "gitops/manifest.json",
            json!({"files": {"old.service": {"repository": "acme/old"}}}),
            "gitops/acme/old/gone",
            Degraded,
            "gone from hub.toml",
            "hub remove acme/old",
        ),
        (
            "gitops/run.json",
            failed("gitops-sync", "failed", "no git", Value::Null),
            "gitops/last-run",
            Failed,
            "no git",
            "journalctl",
        ),
        (
            "gitops/retry/acme__old.json",
            json!({"repository": "acme/old"}),
            "queue/acme/old/gone",
            Degraded,
            "no such repository any more",
            "rm /state/gitops/retry/acme__old.json",
        ),
        ("gitops/failed/1.reason.json", json!({"reason": "x is no request"}), "", Degraded, "", ""),
        ("gitops/failed/1", json!({}), "queue/refused", Degraded, "1 refused and kept", "rm -r /state/gitops/failed/*"),
        ("proxy/queue/acme__site.json", json!({}), "", Degraded, "", ""),
        (
            "reading/run.json",
            reading("failed", json!({"pipeline": "reading"})),
            "reading/reading/failed",
            Failed,
            "reading: no inbox",
            "journalctl -u reading-sync",
        ),
        (
            "reading/run.json",
            reading("failed", Value::Null),
            "reading/last-run",
            Failed,
            "no inbox",
            "journalctl -u reading-sync",
        ),
        (
            "reading/run.json",
            run("reading-sync", "done", 30),
            "reading/late",
            Degraded,
            "the pipelines ran 30 h ago",
            "reading-sync.timer",
        ),
        (
            "reading/run.json",
            reading("done", json!({"pipeline": "reading", "kept": kept(2, 0)})),
            "reading/reading/dead-letters",
            Degraded,
            "2 documents could not be stored",
            "hub dead-letters",
        ),
        (
            "reading/run.json",
            reading("done", json!({"pipeline": "reading", "kept": kept(0, 1)})),
            "reading/reading/damaged-files",
            Degraded,
            "1 damaged file",
            "ls -l /srv/inbox/failed",
        ),
        (
            "data/metrics/run.json",
            run("system-metrics", "stored", 96),
            "metrics/late",
            Degraded,
            "the last sample is 4 days old",
            "system-metrics.timer",
        ),
        (
            "watch/run.json",
            failed("hub-watch", "failed", "ntfy.sh answered 500", Value::Null),
            "watch/unsent",
            Degraded,
            "does not arrive: ntfy.sh answered 500",
            "hub notify test",
        ),
        (
            "data/metrics/run.json",
            run("system-metrics", "spooled", 0),
            "metrics/spooled",
            Degraded,
            "rows wait",
            "hub doctor",
        ),
        (
            "data/metrics/run.json",
            failed("system-metrics", "lost", "full", Value::Null),
            "metrics/lost",
            Failed,
            "samples were lost: full",
            "journalctl -u system-metrics",
        ),
        ("gate/run.json", door("closed", 0, json!({})), "gate/closed", Degraded, "closed: x", "hub doctor"),
        (
            "gate/run.json",
            door("unreachable", 0, json!({})),
            "gate/unreachable",
            Degraded,
            "nobody reaches it",
            "tailscale status",
        ),
        (
            "gate/run.json",
            door("unknown", 0, json!({})),
            "gate/unknown",
            Degraded,
            "nobody knows",
            "tailscale-gate status",
        ),
        (
            "gate/run.json",
            door("open", 1, json!({})),
            "gate/stale",
            Degraded,
            "the gate's record is 60 min old",
            "tailscale-gate status",
        ),
        (
            "gate/run.json",
            door("open", 0, json!({"key_expiry": "2026-01-12T12:00:00Z"})),
            "gate/key-expires",
            Degraded,
            "expires in 2 days",
            "force-reauth",
        ),
        (
            "gate/run.json",
            door("open", 0, json!({"former_name": {"dns_name": "old.ts.net", "until": ago(1)}})),
            "gate/renamed",
            Degraded,
            "was called old.ts.net",
            "hub webhook-test",
        ),
        (
            "gate/run.json",
            door("open", 0, json!({"configuration_refused": {"reason": "hub.toml:1: no", "since": ago(1)}})),
            "gate/older-configuration",
            Degraded,
            "hub.toml:1: no",
            "hub doctor",
        ),
        (
            "proxy/run.json",
            json!({"service": "proxy", "started": ago(1), "duration_ms": 1, "status": "running", "details": {"configuration_refused": {"reason": "hub.toml:1: no", "since": ago(1)}}}),
            "proxy/older-configuration",
            Degraded,
            "goes on with the configuration that it has",
            "hub doctor",
        ),
    ]
}

#[test]
fn every_reason_comes_with_its_file_and_goes_with_it() {
    for (file, content, key, level, part, mend) in cases() {
        let host = Host::well();
        let before = std::fs::read(host.dir.path().join(file)).ok();
        host.write(file, &content);
        let reasons = host.reasons();
        let found = reasons.iter().find(|reason| reason.key == key);
        match found {
            None => assert!(key.is_empty(), "{key}: {reasons:#?}"),
            Some(reason) => {
                assert_eq!(reason.level, level, "{reason:#?}");
                assert!(reason.reason.contains(part), "{reason:#?}");
                assert!(reason.mend.as_deref().unwrap_or_default().contains(mend), "{reason:#?}");
            }
        }
        let keys: std::collections::BTreeSet<&str> = reasons.iter().map(|reason| &*reason.key).collect();
        assert_eq!(keys.len(), reasons.len(), "a key names one reason: {reasons:#?}");
        match before {
            Some(before) => std::fs::write(host.dir.path().join(file), before).unwrap(),
            None => host.remove(file),
        }
        assert_eq!(host.keys(), [] as [&str; 0], "{key} goes when {file} is as it was");
    }
}

#[test]
fn a_later_run_about_another_repository_takes_nothing_back() {
    let host = Host::well();
    for status in ["refused", "failed"] {
        host.write("gitops/checked/acme__site.json", &json!({"at": ago(0), "status": status, "reason": "why"}));
        let look = json!({"repositories": [{"repository": SITE, "status": status}]});
        host.write("gitops/run.json", &failed("gitops-sync", status, "why", look));
        let then = host.reasons();
        let look = json!({"repositories": [{"repository": "acme/other", "status": "deployed"}]});
        let mut later = run("gitops-sync", "deployed", 0);
        later["details"] = look;
        host.write("gitops/run.json", &later);
        host.write("gitops/checked/acme__other.json", &json!({"at": ago(0), "status": "deployed"}));
        assert_eq!(host.reasons(), then, "{status}");
        assert_eq!(then.len(), 2, "{then:#?}");
    }
}

#[test]
fn what_is_gone_from_hub_toml_is_judged_no_more() {
    let host = Host::well();
    let look = json!({"repositories": [{"repository": "acme/old", "status": "failed"}]});
    host.write("gitops/run.json", &failed("gitops-sync", "failed", "no remote", look));
    host.write("gitops/checked/acme__old.json", &json!({"at": ago(99), "status": "failed"}));
    host.write("reading/run.json", &failed("reading-sync", "failed", "old: no inbox", json!({"pipeline": "old"})));
    assert_eq!(host.keys(), [] as [&str; 0]);
    // Without a configuration nobody knows what is gone.
    let lost = Host { config: Err("hub.toml:1: no".to_owned()), ..host };
    let keys = lost.keys();
    for key in ["configuration/invalid", "gitops/acme/old/failed", "reading/old/failed", "gitops/last-run"] {
        assert!(keys.iter().any(|known| known == key), "{key}: {keys:?}");
    }
}

#[test]
fn a_gate_that_was_enabled_and_disabled_again_leaves_no_reason() {
    let mut host = Host::well();
    // It said its last word; who cannot see processes believes it.
    host.write("gate/run.json", &door("closed", 5, json!({"ended": true})));
    for gate in [None, Some(false)] {
        host.gate = gate;
        assert_eq!(host.keys(), [] as [&str; 0], "{gate:?}");
    }
    // It was killed with the host, and is not enabled any more.
    host.write("gate/run.json", &door("open", 5, json!({"key_expiry": "2026-01-11T12:00:00Z"})));
    host.gate = Some(false);
    assert_eq!(host.keys(), ["gate/unguarded"]);
    host.booted = Some(now() - jiff::SignedDuration::from_hours(1));
    for gate in [None, Some(false)] {
        host.gate = gate;
        assert_eq!(host.keys(), [] as [&str; 0], "{gate:?}");
        let funnel = host.seen(funnel).take().unwrap();
        assert_eq!((funnel.state.as_str(), funnel.current), ("closed", true));
    }
    // What somebody else had opened may be open again.
    let mut exposed = door("open", 5, json!({}));
    exposed["error"] = "somebody else holds it".into();
    host.write("gate/run.json", &exposed);
    assert_eq!(host.keys(), ["gate/exposed"]);
    // One that runs is believed whatever the clock said when it wrote.
    host.write("gate/run.json", &door("open", 0, json!({})));
    (host.gate, host.booted) = (Some(true), Some(now() + jiff::SignedDuration::from_hours(1)));
    assert_eq!(host.keys(), [] as [&str; 0]);
}

#[test]
fn what_cannot_be_seen_is_not_known() {
    let host = Host::well();
    // Somebody who may not look at the state folder.
    let denied = Found::Unreadable("Permission denied".to_owned());
    host.seen_in(&denied, |seen| {
        let known = &seen.left.repositories[0];
        assert_eq!((known.checked.unknown(), known.deployed.unknown()), (Some("not known"), Some("not known")));
        assert!(services(seen, &[]).iter().all(|service| service.last_run.unknown() == Some("not known")));
        assert_eq!(funnel(seen).unknown(), Some("not known"));
        assert!(!seen.left.queue.is_known() && seen.left.pipelines[0].kept.is_none());
    });
    // No state folder at all: nothing was ever done, and what is configured is there.
    host.seen_in(&Found::Missing, |seen| {
        assert_eq!(seen.left.repositories.len(), 2);
        assert!(seen.left.queue.is_known() && seen.left.repositories[0].checked.is_known());
    });
    // A damaged file is neither.
    std::fs::write(host.dir.path().join("gitops/checked/acme__site.json"), "{torn").unwrap();
    host.seen(|seen| assert_eq!(seen.left.repositories[0].checked.unknown(), Some("damaged")));
    assert_eq!(host.keys(), ["state/gitops/checked/acme__site.json/unreadable"]);
}

#[test]
fn a_deployment_at_work_is_no_reason() {
    let mut host = Host::well();
    host.write(
        "gitops/journal/acme__site.json",
        &json!({"repository": SITE, "to": "1", "step": "units", "started": ago(1)}),
    );
    for (works, keys) in [(Some(true), &[][..]), (None, &[]), (Some(false), &["gitops/acme/site/cut-off"])] {
        host.works = works;
        assert_eq!(host.keys(), keys, "{works:?}");
    }
    host.write(
        "gitops/journal/acme__site.json",
        &json!({"repository": SITE, "to": "1", "step": "units", "started": ago(9)}),
    );
    host.works = None;
    assert_eq!(host.keys(), ["gitops/acme/site/not-ended"]);
}

#[test]
fn a_lock_that_is_waited_for_is_told() {
    let mut host = Host::well();
    let wait = |waiter| Wait {
        lock: "gitops/lock".to_owned(),
        service: "gitops-sync",
        holder: 7,
        described: "process 7 (vi, user ada)".to_owned(),
        waiter,
    };
    host.waits = vec![wait(Some((8, 90)))];
    assert_eq!(host.keys(), ["gitops/lock/waited-for"]);
    host.waits = vec![wait(None)];
    assert_eq!(host.keys(), ["gitops/lock/strange-lock"]);
}
