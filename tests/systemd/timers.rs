//! What the packaged timers start, and when.

use std::time::Duration;

use crate::gitops::{SOON, show, starts};
use crate::journal::{lines, nothing_denied};
use crate::machine::Machine;
use crate::pipelines::{INBOX, files_reach_sqlite, pipeline, publish, sqlite};

const METRICS: &str = "system-metrics.service";

/// Files below the folder of the data that are not `hub`'s, or that others may read.
fn strange_files(machine: &Machine) -> String {
    machine.ok(&[
        "find",
        "/var/lib/observability-hub/data",
        "(",
        "!",
        "-user",
        "hub",
        "-o",
        "!",
        "-group",
        "hub",
        "-o",
        "-perm",
        "/007",
        ")",
        "-ls",
    ])
}

#[test]
fn metrics_come_every_minute_after_a_run_by_hand_as_root_and_beside_pipelines_on_the_same_file() {
    let Some(machine) = Machine::boot() else { return };
    let run = machine.ok(&["system-metrics"]);
    assert_eq!(sqlite(&machine, "SELECT count(*) FROM system_metrics WHERE metric_type = 'run'"), "1", "{run}");
    assert_eq!(strange_files(&machine), "");
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "system-metrics.timer"]);
    // The minute is put to use.
    files_reach_sqlite(&machine);

    let two = "SELECT count(DISTINCT time) > 2 FROM system_metrics WHERE metric_type = 'run'";
    machine.wait_for("two samples of the timer", Duration::from_secs(200), || sqlite(&machine, two) == "1");
    // Milliseconds since 1970.
    let seconds = sqlite(
        &machine,
        "SELECT (max(time) - min(time)) / 1000.0 FROM (SELECT DISTINCT time FROM system_metrics ORDER BY time DESC LIMIT 2)",
    );
    let seconds: f64 = seconds.parse().expect("a number");
    eprintln!("the timer's samples are {seconds} s apart");
    assert!((57.0..=63.0).contains(&seconds), "{seconds} s apart");
    assert!(starts(&machine, METRICS) >= 2);
    assert_eq!(show(&machine, METRICS, "Result"), "success");
    assert_eq!(strange_files(&machine), "");
    assert!(lines(&machine, METRICS).iter().all(|line| line["level"] == "INFO"), "{:#?}", lines(&machine, METRICS));
    nothing_denied(&machine, &[METRICS]);
}

#[test]
fn reading_sync_makes_up_for_a_power_off_across_ten_and_not_for_any_other() {
    const SYNC: &str = "reading-sync.service";
    let Some(mut machine) = Machine::boot() else { return };
    machine.write("/etc/observability-hub/hub.toml", pipeline(INBOX));
    publish(&machine, INBOX, "a.jsonl", 0..50);
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "proxy.service", "reading-sync.timer"]);
    machine.reboot();
    assert_eq!(starts(&machine, SYNC), 0, "nothing was missed");
    let next = show(&machine, "reading-sync.timer", "NextElapseUSecRealtime");
    assert!(next.contains(" 10:00:00 "), "{next}");

    // What a machine that was off at ten has on its disk: the time of the run before.
    let stamp = "/var/lib/systemd/timers/stamp-reading-sync.timer";
    machine.ok(&["touch", "--date", "2 days ago", stamp]);
    machine.ok(&["sync"]);
    machine.pull_plug();
    machine.boot_again();
    machine.wait_for("the run that was missed", SOON, || {
        starts(&machine, SYNC) == 1 && show(&machine, SYNC, "ActiveState") == "inactive"
    });
    assert_eq!(show(&machine, SYNC, "Result"), "success");
    assert_eq!(sqlite(&machine, "SELECT count(*) FROM reading_analytics"), "50");
    nothing_denied(&machine, &["proxy.service", SYNC]);
}

#[test]
fn failed_units_come_from_the_look_of_hub_watch_else_from_systemctl() {
    let Some(machine) = Machine::boot() else { return };
    let row = || {
        machine.ok(&["systemctl", "start", METRICS]);
        let sql = "SELECT payload FROM system_metrics WHERE metric_type = 'systemd' ORDER BY time DESC LIMIT 1";
        serde_json::from_str::<serde_json::Value>(&sqlite(&machine, sql)).expect("JSON")
    };
    machine.ok(&["systemd-run", "--quiet", "--unit=broken-one", "false"]);
    machine.wait_for("the unit has failed", Duration::from_secs(20), || {
        show(&machine, "broken-one.service", "ActiveState") == "failed"
    });
    assert_eq!(row(), serde_json::json!({"failed": 1, "units": ["broken-one.service"]}), "nobody has looked yet");
    machine.ok(&["systemctl", "start", "hub-watch.service"]);
    machine.ok(&["systemctl", "reset-failed", "broken-one.service"]);
    assert_eq!(row(), serde_json::json!({"failed": 1, "units": ["broken-one.service"]}), "as it was a moment ago");
    machine.ok(&["systemctl", "start", "hub-watch.service"]);
    assert_eq!(row(), serde_json::json!({"failed": 0, "units": []}));
    nothing_denied(&machine, &[METRICS, "hub-watch.service"]);
}

#[test]
fn the_workers_timer_goes_on_whatever_happens_to_the_manager() {
    const TIMER: &str = "gitops-sync.timer";
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["systemctl", "enable", "--now", "--quiet", TIMER]);
    machine.wait_for("a first run", SOON, || starts(&machine, "gitops-sync.service") == 1);
    machine.wait_for("its end", SOON, || show(&machine, "gitops-sync.service", "ActiveState") == "inactive");
    for verb in [&["daemon-reload"][..], &["daemon-reexec"], &["daemon-reload"], &["restart", TIMER]] {
        machine.ok(&[&["systemctl"], verb].concat());
        assert_eq!(show(&machine, TIMER, "SubState"), "waiting", "{verb:?}");
        let next = show(&machine, TIMER, "NextElapseUSecMonotonic");
        assert!(next.contains(|c: char| c.is_ascii_digit()), "{verb:?}: {next}");
    }
}
