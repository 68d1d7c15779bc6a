//! `hub status`: services and the door, in states that the services made and that are old.

use crate::support;
use crate::support::tailnet;
use std::process::Command;

use crate::support::gitops::REPO;
use crate::support::status::{SECRET, ago, change, record, status, status_on_its_port, up};
use crate::support::{Host, free_address};
use serde_json::{Value, json};

#[test]
fn a_fresh_host_is_not_failed() {
    let host = Host::new();
    let said = status(&host).ends(0, "healthy");
    let mut lines = said.text.lines();
    assert!(lines.next().unwrap().contains(": nothing has run here yet  ("), "{}", said.text);
    let rest: Vec<&str> = lines.collect();
    let expected = "
  SERVICE        STATE       LAST RUN   TOOK     RESULT
  proxy          not running never      -        -
  gitops-sync    not running never      -        -
  tailscale-gate not running never      -        -
  reading-sync   not running never      -        -
  system-metrics not running never      -        -
  hub-watch      not running never      -        -

  repositories     none is configured

  queue            empty
  funnel           never opened
  configuration    /etc/observability-hub/hub.toml is not there; the defaults
                   are in force
";
    let text = rest.join("\n");
    let (table, advice) = text.split_at(text.find("in force\n").unwrap() + "in force\n".len());
    assert_eq!(table, expected);
    let advice = advice.split_whitespace().collect::<Vec<_>>().join(" ");
    let command = format!("HUB_STATE_DIR={} PORT=", host.state().display());
    assert!(advice.starts_with(&command) && advice.contains("hub doctor lists what to set up; "), "{advice}");
    assert!(advice.ends_with("hub up runs everything here, in the foreground."), "{advice}");
    assert_eq!(said.json["reasons"], json!([]));
    std::fs::remove_dir(host.state()).unwrap();
    status(&host).ends(0, "healthy");
    assert!(!host.state().exists(), "looking makes nothing");
}

#[test]
fn a_host_that_runs_is_healthy_and_one_that_hangs_or_is_stopped_is_not() {
    let mut up = up();
    let said = status_on_its_port(&up.host).ends(0, "healthy");
    for service in ["proxy", "gitops-sync", "reading-sync", "system-metrics"] {
        assert_eq!(said.service(service)["state"], "hub up", "{said:#?}");
    }
    assert_eq!(said.service("tailscale-gate")["state"], "not running");
    assert_eq!(said.service("gitops-sync")["last_run"]["status"], "deployed");
    assert_eq!(said.service("system-metrics")["last_run"]["status"], "stored");
    let repository = said.repository(REPO);
    assert_eq!(
        (&repository["deployed"]["commit"], &repository["checked"]["status"]),
        (&up.commit.as_str().into(), &"deployed".into())
    );
    assert_eq!((&said.json["queue"]["requests"], &said.json["queue"]["failed"]), (&json!(0), &json!(0)));
    assert!(said.text.contains("takes deliveries") && said.text.contains(&up.commit[..10]), "{}", said.text);
    assert!(!said.text.contains('\x1b') && said.text.lines().all(|line| line.chars().count() <= 80), "{}", said.text);

    let proxy =
        up.service.line_where("the proxy's start", |line| line["msg"] == "service_started" && line["child"] == "proxy");
    let pid = proxy["pid"].to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    status_on_its_port(&up.host).ends(2, "failed").says("failed", "proxy", "does not answer", "hub up");
    signal("-CONT");
    up.service.signal("TERM");
    up.service.wait();
    let said = status_on_its_port(&up.host).ends(1, "degraded");
    said.says("degraded", "services", "nothing of the hub runs here", "hub up").says_nothing_of("proxy");
}

#[test]
fn a_proxy_that_takes_nothing_is_failed() {
    let host = Host::new();
    host.configure(&format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"127.0.0.1:0\"\n", free_address()));
    let proxy = host.start("proxy", &[]);
    proxy.line("listening");
    status_on_its_port(&host).ends(0, "healthy");
    let queue = host.path("state/proxy/queue");
    std::fs::remove_dir(&queue).unwrap();
    std::fs::write(&queue, "no folder").unwrap();
    let said = status_on_its_port(&host).ends(2, "failed");
    said.says("failed", "proxy", "it takes no deliveries", "").says(
        "degraded",
        "state",
        "proxy/queue is no folder",
        "hub doctor",
    );
}

#[test]
fn a_proxy_that_can_verify_no_delivery_is_degraded_until_there_is_a_secret() {
    let host = Host::new();
    let configuration = format!(
        "[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n\
         [[repository]]\nname = \"{REPO}\"\nurl = \"{}\"\npath = \"{}\"\n",
        free_address(),
        free_address(),
        host.path("origin.git").display(),
        host.path("checkout").display()
    );
    host.configure(&configuration);
    let proxy = host.start("proxy", &[]);
    let admin = proxy.line("listening")["admin_listen"].as_str().unwrap().parse().unwrap();
    let page = || support::send(admin, "GET", "/api/status", &[], b"").json();
    let said = status_on_its_port(&host).ends(1, "degraded");
    let said = said.says("degraded", "proxy", "it takes no deliveries: no webhook secret", "hub webhook-test");
    assert!(!said.text.contains("takes deliveries"), "{}", said.text);
    assert_eq!(page()["health"], "degraded");
    assert!(page()["reason"].as_str().unwrap().contains("takes no deliveries: no webhook secret"), "{}", page());
    assert_eq!(page()["proxy"]["deliveries"]["refused"], 0, "whoever looks is no delivery");

    let file = host.path("hub.toml").display().to_string();
    let with_flag = host.run("hub", &["status", "--json", "--config", &file]);
    let json: Value = serde_json::from_slice(&with_flag.stdout).unwrap();
    assert!(
        json["reasons"][0]["mend"].as_str().unwrap().ends_with(&format!("webhook-test --config {file}")),
        "{json:#}"
    );

    host.credential("webhook-secret", SECRET);
    status_on_its_port(&host).ends(0, "healthy").says_nothing_of("proxy");
    assert_eq!(page()["health"], "healthy");

    // A host where nothing is configured needs none.
    let bare = Host::new();
    bare.configure(&format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"127.0.0.1:0\"\n", free_address()));
    let proxy = bare.start("proxy", &[]);
    proxy.line("listening");
    status_on_its_port(&bare).ends(0, "healthy");
}

#[test]
fn a_strangers_proxy_on_the_port_is_not_this_hosts() {
    let (stranger, host) = (Host::new(), Host::new());
    let configuration = format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"127.0.0.1:0\"\n", free_address());
    stranger.configure(&configuration);
    host.configure(&configuration);
    let proxy = stranger.start("proxy", &[]);
    proxy.line("listening");
    assert_eq!(status_on_its_port(&stranger).service("proxy")["state"], "running");
    let said = status_on_its_port(&host);
    assert_eq!(said.service("proxy")["state"], "not running", "{said:#?}");
    assert!(!said.text.contains("takes deliveries"), "{}", said.text);
}

#[test]
fn a_proxy_that_was_refused_is_failed_until_it_runs() {
    let host = Host::new();
    host.configure("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n");
    host.credential("webhook-secret", "short");
    assert_eq!(host.run("proxy", &[]).status.code(), Some(78));
    status(&host).ends(2, "failed").says("failed", "proxy", "at least 16 are needed", "");
}

#[test]
fn a_sample_that_is_old_spooled_or_lost_is_told() {
    let host = Host::new();
    let metrics = || host.command("system-metrics");
    assert!(metrics().output().unwrap().status.success());
    status(&host).says_nothing_of("system-metrics");
    let file = host.path("state/data/metrics/run.json");
    change(&file, |record| record["started"] = ago(420).into());
    status(&host).ends(1, "degraded").says("degraded", "system-metrics", "the last sample is 7 min old", "hub up");

    let dead = format!("postgres://hub@{}/hub", free_address());
    // More runs than the record remembers.
    for _ in 0..25 {
        assert!(metrics().env("DATABASE_URL", &dead).output().unwrap().status.success());
    }
    let said = status(&host).ends(1, "degraded").says(
        "degraded",
        "system-metrics",
        "rows wait, the database does not",
        "hub doctor",
    );
    let counts = &said.service("system-metrics")["last_run"]["counts"];
    let (rows, last) = (counts["waiting"].as_u64().unwrap(), counts["spooled"].as_u64().unwrap());
    assert!(last > 3 && rows > 24 * last && said.text.contains(&format!("{rows} rows wait")), "{}", said.text);

    change(&file, |record| {
        record["status"] = "lost".into();
        record["error"] = "the disk is full".into();
    });
    status(&host).ends(2, "failed").says("failed", "system-metrics", "samples were lost: the disk is full", "");
}

#[test]
fn the_funnel_is_shown_and_a_gate_that_died_is_not_believed() {
    let (tailnet, proxy, mut gate) = tailnet::open();
    tailnet.recorded("open");
    let said = status_on_its_port(&tailnet.host).ends(0, "healthy");
    let funnel = &said.json["funnel"];
    assert_eq!((&funnel["state"], &funnel["current"]), (&json!("open"), &json!(true)), "{said:#?}");
    assert!(said.text.contains("https://foo.test.ts.net:8443/"), "{}", said.text);
    assert_eq!(said.service("tailscale-gate")["state"], "running");

    let file = tailnet.host.path("state/gate/run.json");
    change(&file, |record| record["details"]["written"] = ago(3600).into());
    let said = status_on_its_port(&tailnet.host).ends(1, "degraded");
    let said = said.says("degraded", "funnel", "its record is 60 min old", "tailscale-gate status");
    assert!(said.text.contains("(by an old record)"), "{}", said.text);

    gate.signal("KILL");
    gate.wait();
    let said = status_on_its_port(&tailnet.host).ends(1, "degraded");
    said.says("degraded", "funnel", "the record has it open, and no gate runs", "tailscale-gate close");

    drop(proxy);
    let gate = tailnet.gate();
    tailnet.recorded("closed");
    let said = status_on_its_port(&tailnet.host).ends(1, "degraded");
    said.says("degraded", "funnel", "closed: ", "hub doctor");
    drop(gate);
    // Closed by the gate's last word: there is nothing to be afraid of.
    status_on_its_port(&tailnet.host).says_nothing_of("funnel");
}

#[test]
fn a_door_that_is_open_against_the_gates_will_is_failed_and_an_unknown_one_degraded() {
    let host = Host::new();
    let details = |state: &str| json!({"state": state, "reason": "somebody else holds it", "written": ago(1)});
    record(&host, "gate", "tailscale-gate", 1, json!({"status": "open", "error": "x", "details": details("open")}));
    status(&host).ends(2, "failed").says("failed", "funnel", "somebody else holds it", "tailscale-gate close");
    record(
        &host,
        "gate",
        "tailscale-gate",
        1,
        json!({"status": "unknown", "error": "x", "details": details("unknown")}),
    );
    status(&host).ends(1, "degraded").says(
        "degraded",
        "funnel",
        "nobody knows what is public",
        "tailscale-gate status",
    );
}

#[test]
fn colours_are_for_terminals_only() {
    let host = Host::new();
    let on_terminal = |variable: &str| {
        let command = format!("stty cols 60; {} status", env!("CARGO_BIN_EXE_hub"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("HUB_STATE_DIR", host.state());
        script.env("TERM", "xterm").env_remove("NO_COLOR").env(variable, "1").stdin(std::process::Stdio::null());
        String::from_utf8(script.output().expect("script is a part of util-linux").stdout).unwrap()
    };
    let coloured = on_terminal("NOTHING");
    assert!(coloured.contains("\x1b[32mnothing has run here yet\x1b[0m"), "{coloured:?}");
    let plain = on_terminal("NO_COLOR");
    assert!(!plain.contains('\x1b') && plain.lines().all(|line| line.trim_end().chars().count() <= 60), "{plain}");
}
