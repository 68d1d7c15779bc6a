//! Every reason: what brings it, and what clears it.

mod host;
mod services;
mod table;

use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::records::{FailedUnits, Found, Left, Wanted};
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
    pub last_valid: Option<Config>,
    pub ways: Ways,
    pub units: Option<Units>,
    pub failed: Option<FailedUnits>,
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
            last_valid: None,
            dir,
            ways,
            units: None,
            failed: None,
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
        let wanted = Wanted::of(self.config.as_ref().ok().or(self.last_valid.as_ref()));
        let read = Left::read(root, &wanted, now());
        let left = Left { gate: self.gate, works: self.works, booted: self.booted, ..read };
        ask(&Seen {
            now: now(),
            config: self.config.as_ref().map_err(String::as_str),
            last_valid: self.last_valid.as_ref().filter(|_| self.config.is_err()),
            ways: &self.ways,
            left: &left,
            units: self.units.as_ref(),
            units_error: None,
            failed: self.failed.as_ref(),
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
    // By the last that was valid it is known.
    let known = Host { last_valid: Host::well().config.ok(), ..lost };
    assert_eq!(known.keys(), ["configuration/invalid"]);
}

#[test]
fn while_hub_toml_is_invalid_all_is_judged_by_the_last_valid_one() {
    let text = HUB.to_owned() + "[limits]\nkey_days = false\n";
    let text = text.replacen("path = \"/srv/site\"", "path = \"/srv/site\"\npoll_minutes = 600", 1);
    let mut host = Host::with(&text);
    host.write("gitops/run.json", &run("gitops-sync", "unchanged", 0));
    host.write("gitops/checked/acme__site.json", &json!({"at": ago(5), "status": "unchanged"}));
    host.write("gitops/retry/acme__old.json", &json!({"repository": "acme/old"}));
    host.write("reading/run.json", &run("reading-sync", "stored", 30));
    let kept =
        json!({"pipeline": "reading", "kept": {"reading": {"dead_letters": 0, "damaged_files": 2, "counted": ago(0)}}});
    let mut last = run("reading-sync", "stored", 0);
    last["details"] = kept;
    host.write("reading/run.json", &last);
    host.write(
        "gate/run.json",
        &door("open", 0, json!({"key_expiry": (now() + jiff::SignedDuration::from_hours(48)).to_string()})),
    );
    let mut before = host.keys();
    assert!(before.iter().any(|key| key.ends_with("/damaged-files")) && before.len() > 1, "{before:?}");
    let valid = std::mem::replace(&mut host.config, Err("hub.toml:1: no".to_owned()));
    host.last_valid = valid.ok();
    before.push("configuration/invalid".to_owned());
    before.sort();
    let mut keys = host.keys();
    keys.sort();
    assert_eq!(keys, before);
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
