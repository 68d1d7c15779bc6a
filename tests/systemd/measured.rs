//! What system-metrics sees from its packaged unit: the units' control groups and their restarts, and a folder that its user
//! may not enter until the drop-in of `hub doctor` lets it in.

use std::time::Duration;

use serde_json::Value;

use super::gitops::{Text, configure, push, repository, service, start_hub, sync};
use super::machine::Machine;

const RUN: [&str; 3] = ["systemctl", "start", "system-metrics.service"];

/// The newest row of a kind.
fn newest(machine: &Machine, kind: &str) -> Value {
    let sql = format!("SELECT payload FROM system_metrics WHERE metric_type = '{kind}' ORDER BY time DESC LIMIT 1");
    let found = machine.ok(&["sqlite3", "/var/lib/observability-hub/data/hub.db", &sql]);
    serde_json::from_str(found.trim()).unwrap_or(Value::Null)
}

fn told(machine: &Machine) -> usize {
    machine.ok(&["journalctl", "--sync"]);
    let lines = machine.journal("system-metrics.service");
    lines.iter().filter(|line| line["MESSAGE"].as_str().is_some_and(|text| text.contains("may not enter"))).count()
}

#[test]
fn a_folder_that_hub_may_not_enter_is_told_once_and_the_drop_in_of_doctor_lets_it_in() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["systemctl", "stop", "system-metrics.timer"]);
    machine.ok(&["mkdir", "-p", "/mnt/closed/vault"]);
    machine.ok(&["chmod", "700", "/mnt/closed"]);
    machine.ok(&["mount", "-t", "tmpfs", "-o", "size=4m", "none", "/mnt/closed/vault"]);
    machine.ok(&RUN);
    machine.ok(&RUN);
    assert!(newest(&machine, "disk").get("/mnt/closed/vault").is_none());
    assert_eq!(told(&machine), 1);
    let report: Value = serde_json::from_slice(&machine.run(&["hub", "doctor", "--json"]).stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["finding"].to_string().contains("/mnt/closed/vault")).unwrap();
    let mend = finding["mend"].as_str().unwrap();
    let settings: Vec<&str> =
        mend.split_whitespace().filter(|word| word.contains('=')).map(|word| word.trim_end_matches(',')).collect();
    assert_eq!(settings.len(), 3, "{mend}");
    let drop_in = format!("[Service]\n{}\n", settings.join("\n"));
    machine.write("/etc/systemd/system/system-metrics.service.d/override.conf", drop_in);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&RUN);
    assert_eq!(newest(&machine, "disk")["/mnt/closed/vault"]["total"], 4 << 20);
    assert_eq!(told(&machine), 1);
}

#[test]
fn a_deployed_unit_is_told_with_what_it_uses_and_how_often_it_was_restarted() {
    let Some(machine) = Machine::boot() else { return };
    if !machine.exists("/sys/fs/cgroup/cgroup.controllers") {
        return super::support::skip::skip("units by their control groups", "this machine has none of version 2");
    }
    machine.ok(&["systemctl", "stop", "system-metrics.timer"]);
    let script = "test -e /run/second || { touch /run/second; exit 1; }; exec sleep infinity";
    let unit = format!("[Service]\nExecStart=/bin/sh -c '{script}'\nRestart=on-failure\nRestartSec=100ms\n");
    machine.write("/etc/systemd/system/again@.service", unit);
    let manifest = "{\"files\": {\"again@.service\": {\"repository\": \"acme/infra\"}}}";
    machine.write("/var/lib/observability-hub/gitops/manifest.json", manifest);
    machine.ok(&["chgrp", "hub", "/var/lib/observability-hub/gitops/manifest.json"]);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "again@x-1.service"]);
    machine.wait_for("the restart", Duration::from_secs(20), || {
        machine.ok(&["systemctl", "show", "--property=NRestarts", "--value", "again@x-1.service"]).trim() == "1"
    });
    machine.ok(&RUN);
    let first = newest(&machine, "unit");
    let told = &first["again@x-1.service"];
    assert_eq!(told["restarts"], 1, "{first}");
    std::thread::sleep(Duration::from_millis(600));
    machine.ok(&RUN);
    let second = newest(&machine, "unit");
    assert!(second["again@x-1.service"]["cpu_percent"].is_number(), "{second}");
    assert!(second.to_string().len() < 1000, "{second}");
    let run = newest(&machine, "run");
    assert!(run["collectors"]["unit"]["problems"].is_null(), "{run}");
}

#[test]
fn what_every_service_tells_reaches_the_database_through_the_sandbox_of_its_unit() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["systemctl", "stop", "system-metrics.timer"]);
    configure(&machine, &[repository("infra", "")]);
    let commit = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    start_hub(&machine);
    // Its folder is another account's.
    machine.write(
        "/var/lib/observability-hub/watch/history.jsonl",
        "{\"at\":\"2026-01-01T00:00:00Z\",\"kind\":\"raised\"}\n",
    );
    machine.ok(&["chown", "hub-watch:hub", "/var/lib/observability-hub/watch/history.jsonl"]);
    machine.ok(&["chmod", "640", "/var/lib/observability-hub/watch/history.jsonl"]);
    machine.ok(&RUN);
    let ask = |sql: &str| machine.ok(&["sqlite3", "/var/lib/observability-hub/data/hub.db", sql]).trim().to_owned();
    let live = ask("SELECT payload ->> 'to' FROM hub_events WHERE service = 'gitops-sync' AND kind = 'deployed'");
    assert_eq!(live, commit);
    let services = ask("SELECT group_concat(DISTINCT service) FROM (SELECT * FROM hub_events ORDER BY service)");
    assert!(services.contains("hub-watch") && services.contains("proxy"), "{services}");
    machine.ok(&["chmod", "700", "/var/lib/observability-hub/gitops"]);
    machine.ok(&RUN);
    machine.ok(&["journalctl", "--sync"]);
    let lines = machine.journal("system-metrics.service");
    let said = lines.iter().filter(|line| line["MESSAGE"].to_string().contains("events_not_stored"));
    assert_eq!(said.count(), 1, "{lines:?}");
}

#[test]
fn a_scrape_and_a_login_see_what_the_sandboxes_let_them_see() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["systemctl", "stop", "system-metrics.timer", "hub-watch.timer"]);
    configure(&machine, &[repository("infra", "")]);
    let commit = push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1"))]);
    sync(&machine, "infra").expect(0);
    start_hub(&machine);
    machine.ok(&["systemctl", "stop", "system-metrics.timer", "hub-watch.timer"]);
    machine.ok(&RUN);
    machine.ok(&["systemctl", "start", "hub-watch.service"]);
    let request =
        "exec 3<>/dev/tcp/127.0.0.1/8086; printf 'GET /metrics HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3; cat <&3";
    let scrape = || machine.ok(&["bash", "-c", request]);
    let text = scrape();
    let deployed = format!("hub_repository_deployed_info{{repository=\"acme/infra\",commit=\"{commit}\"}} 1");
    let lines = [
        deployed.as_str(),
        "hub_deployments_total{repository=\"acme/infra\"} 1",
        "hub_rollbacks_total{repository=\"acme/infra\"} 0",
        "hub_repository_result{repository=\"acme/infra\",result=\"deployed\"} 1",
        "hub_notices_waiting 0",
    ];
    for line in lines {
        assert!(text.lines().any(|found| found.trim_end() == line), "{line} is not in {text}");
    }
    for family in
        ["hub_memory_total_bytes ", "hub_cpu_seconds_total{", "process_open_fds ", "process_cpu_seconds_total "]
    {
        assert!(text.contains(&format!("\n{family}")), "{family} is not in {text}");
    }
    // What root takes from the group is left out, and said; it is no 0.
    machine.ok(&["chmod", "700", "/var/lib/observability-hub/gitops"]);
    let text = scrape();
    assert!(text.contains("hub_health_reason{key=\"state/gitops/denied\""), "{text}");
    assert!(!text.contains("hub_deployments_total") && text.contains("\nhub_memory_total_bytes "), "{text}");
    machine.ok(&["chmod", "751", "/var/lib/observability-hub/gitops"]);

    // Off unless somebody links it.
    assert!(
        !machine.exists("/etc/update-motd.d/60-observability-hub") && !machine.exists("/run/motd.d/observability-hub")
    );
    let script = "/usr/share/observability-hub/motd";
    machine.ok(&["mkdir", "-p", "/etc/update-motd.d"]);
    machine.ok(&["ln", "-s", script, "/etc/update-motd.d/60-observability-hub"]);
    let said = machine.ok(&["run-parts", "--lsbsysinit", "/etc/update-motd.d"]);
    assert!(said.contains("Observability Hub: ") && !said.contains("acme"), "{said}");
    let drop_in = format!("[Service]\nExecStartPost=-+{script} /run/motd.d/observability-hub\n");
    machine.write("/etc/systemd/system/hub-watch.service.d/motd.conf", drop_in);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "hub-watch.service"]);
    let line = machine.ok(&["cat", "/run/motd.d/observability-hub"]);
    assert!(line.starts_with("Observability Hub: ") && line.lines().count() == 1, "{line}");
}
