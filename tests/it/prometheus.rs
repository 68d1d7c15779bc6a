//! What Prometheus gets from the gateway: everything that can be alerted on, nothing that is not known.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::gateway::{Gateway, host};
use crate::support::{Host, Service, skip::skip};
use serde_json::{Value, json};

/// What nobody would call a repository, a unit or a mount point.
const EVIL: &str = "x\"} 1\nhub_health 0\\\u{1b}[2J\u{202e}<b>{ä}";

fn write(host: &Host, path: &str, content: &Value) {
    let path = host.state().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content.to_string()).unwrap();
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn run(status: &str, more: &Value) -> Value {
    let mut run = json!({"service": "x", "started": now(), "duration_ms": 1500, "status": status});
    run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    run
}

fn happened(kind: &str) -> String {
    json!({"at": now(), "kind": kind, "about": "acme/infra", "status": kind}).to_string()
}

/// Records of every service, as a host has them on which something is wrong.
fn records(host: &Host) {
    let pipeline = |status: &str, name: &str| run(status, &json!({"details": {"pipeline": name}}));
    write(host, "gitops/deployed/acme__infra.json", &json!({"commit": "0123456789abcdef", "at": now()}));
    write(host, "gitops/checked/acme__infra.json", &json!({"at": now(), "status": "rolled_back", "reason": EVIL}));
    write(host, "gitops/checked/acme__app.json", &json!({"at": now(), "status": EVIL}));
    write(host, "gitops/run.json", &run("rolled_back", &json!({"error": EVIL})));
    let lines = ["deployed", "deployed", "held", "rolled_back", "rollback_failed"].map(happened);
    std::fs::write(host.state().join("gitops/history.jsonl"), lines.join("\n") + "\n{torn").unwrap();
    write(host, "watch/run.json", &run("told", &json!({"counts": {"waiting": 3}})));
    let mut reading = pipeline("done", "reading");
    reading["history"] = json!([pipeline("failed", "events")]);
    write(host, "reading/run.json", &reading);
    let metrics = json!({
        "memory": {"total": 1024, "available": null, "used": "much"},
        "disk": {EVIL: {"total": 5, "read_only": true}},
        "cpu": {"usage": 12.5, "cpus": {"0": {"seconds": {"idle": 7.5}}}},
        "of a later version": {"a": {"b": 1}},
    });
    write(host, "data/metrics/sample.json", &json!({"time": now(), "host": EVIL, "os": "", "metrics": metrics}));
}

/// A process by the name of the gate, which the record of an open door needs.
fn gate(host: &Host) -> Service {
    let path = host.path("tailscale-gate");
    std::fs::copy("/bin/sleep", &path).unwrap();
    let mut command = Command::new(path);
    command.arg("1000");
    let gate = Service::start(command);
    let door = json!({"state": "open", "written": now(), "pid": gate.child.id()});
    write(host, "gate/run.json", &run("open", &json!({"details": door})));
    gate
}

fn configured() -> Host {
    let pipelines = ["reading", "events", "idle"]
        .map(|name| format!("[[pipeline]]\nname = \"{name}\"\nsource = \"file:/nowhere/{name}\"\n"));
    host(&pipelines.concat())
}

fn scrape(gateway: &Gateway) -> String {
    String::from_utf8(gateway.get_admin("/metrics").body).unwrap()
}

#[track_caller]
fn has(text: &str, samples: &[&str]) {
    for sample in samples {
        assert!(text.lines().any(|line| line == *sample), "{sample} is missing in {text}");
    }
}

#[track_caller]
fn has_none(text: &str, families: &[&str]) {
    for family in families {
        assert!(!text.contains(family), "{family} is in {text}");
    }
}

#[test]
fn everything_that_can_be_alerted_on_is_there() {
    let host = configured();
    records(&host);
    let _gate = gate(&host);
    let text = scrape(&Gateway::on(host));
    has(
        &text,
        &[
            "hub_health 2",
            "hub_webhook_secret_present 1",
            "hub_repository_deployed_info{repository=\"acme/infra\",commit=\"0123456789abcdef\"} 1",
            "hub_repository_result{repository=\"acme/infra\",result=\"rolled_back\"} 1",
            "hub_deployments_total{repository=\"acme/infra\"} 2",
            "hub_deployments_total{repository=\"acme/app\"} 0",
            "hub_rollbacks_total{repository=\"acme/infra\"} 2",
            "hub_pipeline_result{pipeline=\"reading\",result=\"done\"} 1",
            "hub_pipeline_result{pipeline=\"events\",result=\"failed\"} 1",
            "hub_funnel_state{state=\"open\"} 1",
            "hub_funnel_state{state=\"closed\"} 0",
            "hub_notices_waiting 3",
            "hub_memory_total_bytes 1024",
            "hub_cpu_usage_ratio 0.125",
            "hub_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} 7.5",
        ],
    );
    let family = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(family("hub_pipeline_result{"), 2, "of a pipeline that never ran nothing is known");
    assert_eq!(family("hub_health "), 1, "a label is no line of its own: {text}");
    has_none(&text, &["hub_memory_available", "hub_memory_used", "\u{1b}"]);
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
        assert!(value.parse::<f64>().unwrap() >= 0.0 && value != "0" || name == "process_cpu_seconds_total", "{name}");
    }
}

#[test]
fn of_what_is_not_known_there_is_no_number() {
    let gateway = Gateway::on(configured());
    let unknown = [
        "hub_funnel_state",
        "hub_notices_waiting",
        "hub_pipeline_result",
        "hub_repository_result",
        "hub_sample",
        "hub_memory",
    ];
    let text = scrape(&gateway);
    has_none(&text, &unknown);
    has_none(&text, &["hub_queue_oldest_age_seconds"]);
    has(&text, &["hub_queue_requests 0", "hub_rollbacks_total{repository=\"acme/infra\"} 0"]);
    // What is there and cannot be read is told as a reason, and nothing is made up for it.
    records(&gateway.host);
    let _gate = gate(&gateway.host);
    for file in
        ["data/metrics/sample.json", "gitops/totals.json", "gate/run.json", "watch/run.json", "reading/run.json"]
    {
        std::fs::write(gateway.host.state().join(file), "{torn").unwrap();
    }
    std::fs::remove_file(gateway.host.state().join("gitops/checked/acme__infra.json")).unwrap();
    std::fs::create_dir(gateway.host.state().join("gitops/checked/acme__infra.json")).unwrap();
    std::fs::remove_file(gateway.host.state().join("gitops/checked/acme__app.json")).unwrap();
    let text = scrape(&gateway);
    has_none(&text, &unknown);
    has_none(&text, &["hub_deployments_total", "hub_rollbacks_total"]);
    has(
        &text,
        &["hub_health_reason{key=\"state/gitops/totals.json/unreadable\",level=\"degraded\",about=\"state\"} 1"],
    );
    // A door that nobody holds any more, as far as its record goes.
    let door = json!({"state": "open", "written": now(), "pid": 1});
    write(&gateway.host, "gate/run.json", &run("open", &json!({"details": door})));
    let text = scrape(&gateway);
    has(&text, &["hub_health_reason{key=\"gate/unguarded\",level=\"degraded\",about=\"funnel\"} 1"]);
    has_none(&text, &["hub_funnel_state"]);
    // A sample that is old, or of a clock that was set back since.
    for hours in [1, -1] {
        let time = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        let sample = json!({"time": time.to_string(), "host": "a", "os": "b", "metrics": {"memory": {"total": 1}}});
        write(&gateway.host, "data/metrics/sample.json", &sample);
        let text = scrape(&gateway);
        assert!(text.contains("\nhub_sample_timestamp_seconds "), "{text}");
        has_none(&text, &["hub_memory", "hub_host_info"]);
    }
}

#[test]
fn a_count_of_deployments_outlives_its_history_and_the_gateway() {
    let gateway = Gateway::on(configured());
    records(&gateway.host);
    let counts = "hub_deployments_total{repository=\"acme/infra\"} 7";
    let totals =
        json!({"repositories": {"acme/infra": {"deployed": 7, "rolled_back": 1}, "acme/gone": {"deployed": 9}}});
    write(&gateway.host, "gitops/totals.json", &totals);
    let text = scrape(&gateway);
    has(&text, &[counts]);
    has_none(&text, &["acme/gone"]);
    std::fs::remove_file(gateway.host.state().join("gitops/history.jsonl")).unwrap();
    let Gateway { service, host, .. } = gateway;
    drop(service);
    has(&scrape(&Gateway::on(host)), &[counts]);
}

#[test]
fn what_the_proxys_account_may_not_see_is_left_out_and_said() {
    if !rustix::process::geteuid().is_root() {
        return skip("an account without rights", "only root can take them");
    }
    let host = configured();
    records(&host);
    let root = host.path("");
    for path in [root.clone(), host.state(), host.state().join("credentials")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::create_dir_all(host.state().join("proxy/queue")).unwrap();
    std::fs::create_dir(host.path("run")).unwrap();
    let own = [host.state().join("proxy"), host.path("run")];
    assert!(Command::new("chown").args(["-R", "65534:65534"]).args(own).status().unwrap().success());
    for folder in ["gitops", "watch"] {
        std::fs::set_permissions(host.state().join(folder), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let proxy = host.command("proxy");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(proxy.get_program());
    for (name, value) in proxy.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("RUNTIME_DIRECTORY", host.path("run"));
    let text = scrape(&Gateway::with(host, command));
    has(
        &text,
        &[
            "hub_queue_requests 0",
            "hub_memory_total_bytes 1024",
            "hub_health_reason{key=\"state/gitops/denied\",level=\"degraded\",about=\"state\"} 1",
            "hub_health_reason{key=\"state/watch/denied\",level=\"degraded\",about=\"state\"} 1",
        ],
    );
    has_none(&text, &["hub_deployments_total", "hub_repository_result", "hub_repository_held", "hub_notices_waiting"]);
}

#[test]
fn the_number_of_series_has_a_bound() {
    let host = configured();
    let each = |prefix: &str| -> serde_json::Map<String, Value> {
        (0..5000).map(|number| (format!("{prefix}{number}"), json!({"rx_bytes": number}))).collect()
    };
    let sample = json!({"time": now(), "host": "a", "os": "b", "metrics": {"network": each("veth")}});
    write(&host, "data/metrics/sample.json", &sample);
    let files: serde_json::Map<String, Value> =
        (0..300).map(|number| (format!("{number}.service"), json!({"repository": format!("gone/{number}")}))).collect();
    write(&host, "gitops/manifest.json", &json!({"files": files}));
    let text = scrape(&Gateway::on(host));
    let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("hub_network_receive_bytes_total{"), 1000);
    assert_eq!(count("hub_health_reason{"), 100);
    has(&text, &["hub_health_reasons 300"]);
}

#[test]
fn promtool_finds_nothing_wrong() {
    let host = configured();
    // A sample of this very host first, so that each family is there once.
    assert!(host.run("system-metrics", &[]).status.success());
    let sample = host.json("state/data/metrics/sample.json");
    records(&host);
    write(&host, "data/metrics/sample.json", &sample);
    let gateway = Gateway::on(host);
    assert_eq!(gateway.push("1").status, 202);
    let text = scrape(&gateway);
    assert!(text.contains("hub_cpu_seconds_total{") && text.contains("hub_queue_oldest_age_seconds"), "{text}");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return skip("promtool", "promtool (package prometheus) is not on PATH");
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
