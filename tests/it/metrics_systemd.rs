//! The `systemd` row: systemctl has a stand-in, /run/systemd/system is in a mount namespace of its own; and the units.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use crate::support::metrics::{LONGEST, text};
use crate::support::{Host, skip::skip};
use serde_json::Value;

/// What the live host's sample has beside this systemctl, where systemd seems to run; none where that needs rights.
fn sample(systemctl: &str) -> Option<Value> {
    sample_beside(systemctl, None)
}

/// The same beside what hub watch left.
fn sample_beside(systemctl: &str, look: Option<&str>) -> Option<Value> {
    let host = Host::new();
    if let Some(look) = look {
        std::fs::create_dir_all(host.state().join("watch")).unwrap();
        std::fs::write(host.state().join("watch/look.json"), look).unwrap();
    }
    let folder = host.path("bin");
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("systemctl");
    std::fs::write(&program, format!("#!/bin/sh\n{systemctl}\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let run = host.command("system-metrics");
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec \"$0\" --print";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(run.get_program()).env("HUB_STATE_DIR", host.state());
    command.env("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()));
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        skip("the systemd row", "a mount namespace needs root");
        return None;
    }
    let started = Instant::now();
    let output = command.output().unwrap();
    assert!(started.elapsed() < LONGEST && output.status.success(), "{}", text(&output));
    let sample: Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(sample["metrics"].clone())
}

#[test]
fn failed_units_are_counted_and_named() {
    let Some(metrics) = sample(
        "case \"$*\" in '--state=failed '*' show '*) ;; *) exit 1 ;; esac\n\
         printf 'Id=%s\\nActiveState=%s\\n\\n' app.service failed mnt-data.mount failed proxy.service failed gitops-sync.service active",
    ) else {
        return;
    };
    let units = ["app.service", "mnt-data.mount", "proxy.service"];
    assert_eq!(metrics["systemd"], serde_json::json!({"failed": 3, "units": units}));
}

#[test]
fn no_failed_unit_is_a_row_too_and_many_are_cut() {
    let Some(metrics) = sample("exit 0") else { return };
    assert_eq!(metrics["systemd"], serde_json::json!({"failed": 0, "units": []}));
    let many =
        sample("for n in $(seq 1 500); do printf 'Id=unit%s.service\\nActiveState=failed\\n\\n' $n; done").unwrap();
    assert_eq!(many["systemd"]["failed"], 500);
    assert_eq!(many["systemd"]["units"].as_array().unwrap().len(), 20);
}

#[test]
fn what_hub_watch_saw_lately_is_not_asked_for_again() {
    let look = |seconds: i64| {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
        let failed = serde_json::json!({"count": 1, "first": [{"unit": "app.service"}], "is_crowd": false});
        serde_json::json!({"at": at.to_string(), "failed": failed, "untold": ["proxy.service"]}).to_string()
    };
    let systemctl = "printf 'Id=other.service\\nActiveState=failed\\n'";
    let Some(lately) = sample_beside(systemctl, Some(&look(90))) else { return };
    assert_eq!(lately["systemd"], serde_json::json!({"failed": 2, "units": ["app.service", "proxy.service"]}));
    for other in [Some(look(150)), Some(look(-60)), Some("{torn".to_owned()), None] {
        let asked = sample_beside(systemctl, other.as_deref()).unwrap();
        assert_eq!(asked["systemd"], serde_json::json!({"failed": 1, "units": ["other.service"]}), "{other:?}");
    }
}

#[test]
fn a_systemctl_that_fails_or_hangs_costs_its_row_only() {
    for (systemctl, says) in [
        ("echo 'Failed to connect to bus: No such file or directory' >&2; exit 1", "Failed to connect to bus"),
        ("exec sleep 60", "5 s"),
    ] {
        let Some(metrics) = sample(systemctl) else { return };
        assert!(metrics.get("systemd").is_none() && metrics["memory"].is_object(), "{metrics}");
        let collector = &metrics["run"]["collectors"]["systemd"];
        assert_eq!(collector["ok"], false);
        assert!(collector["problems"].to_string().contains(says), "{collector}");
    }
}

#[test]
fn where_systemd_does_not_run_there_is_no_row_and_no_problem() {
    if std::path::Path::new("/run/systemd/system").exists() {
        return skip("a host without systemd", "systemd runs here");
    }
    let output = Host::new().run("system-metrics", &["--print"]);
    let sample: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(sample["metrics"].get("systemd").is_none());
    assert_eq!(sample["metrics"]["run"]["collectors"]["systemd"]["ok"], true);
}

#[test]
fn the_units_keep_a_minute_and_end_what_hangs() {
    let unit = |name: &str| {
        let text = std::fs::read_to_string(format!("{}/systemd/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let timer = unit("system-metrics.timer");
    for line in ["OnCalendar=minutely", "AccuracySec=1s", "FixedRandomDelay=yes"] {
        assert!(timer.iter().any(|found| found == line), "{line}");
    }
    assert!(!timer.iter().any(|line| line.starts_with("Persistent=")), "a missed minute cannot be measured later");
    // A oneshot unit has no start timeout by default, and an active one is not started again.
    assert!(unit("system-metrics.service").iter().any(|line| line == "TimeoutStartSec=30s"));
}
