//! Every reason: the file that brings it, and that it goes with it.

use super::*;

fn cases() -> Vec<Case> {
    use Level::{Degraded, Failed};
    let checked = |status: &str| json!({"at": ago(1), "status": status, "reason": "why"});
    let kept = |dead, files| json!({"reading": {"dead_letters": dead, "damaged_files": files, "counted": ago(1)}});
    let reading = |status: &str, details: Value| failed("reading-sync", status, "reading: no inbox", details);
    let open = |step: &str, until: Option<&str>| json!({"repository": SITE, "to": "0123456789abcdef", "step": step, "started": ago(3), "confirm_until": until});
    let unheard = || {
        let mut run = run("hub-watch", "nothing", 0);
        run["details"] = json!({"unheard": {"acme/site": {"since": ago(1), "reason": "it answered 401"}}});
        run
    };
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
            json!({"at": ago(0), "status": "waiting", "reason": "for its checks: ci", "waiting": {"commit": "1", "since": ago(2)}}),
            "gitops/acme/site/waiting",
            Degraded,
            "for its checks: ci",
            "hub deploy acme/site",
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
            "it gives no reason",
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
            "do not arrive: ntfy.sh answered 500",
            "hub notify test",
        ),
        (
            "watch/run.json",
            unheard(),
            "gitops/acme/site/status-unsent",
            Degraded,
            "does not take the result of deployments: it answered 401",
            "journalctl -u hub-watch",
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
