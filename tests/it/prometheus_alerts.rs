//! The alerts of contrib/prometheus: by promtool's own tests, and fired by a real Prometheus that scrapes a real gateway.

use crate::support;
use crate::support::gateway;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::support::gateway::Gateway;
use crate::support::{Answer, Host, Service, eventually, free_address, push_body, send_raw, skip::skip};
use serde_json::{Value, json};

const RULES: &str = "contrib/prometheus/alerts.yaml";

/// Every alert by its name.
fn all() -> BTreeSet<String> {
    let rules = std::fs::read_to_string(RULES).unwrap();
    rules.lines().filter_map(|line| Some(line.trim().strip_prefix("- alert: ")?.to_owned())).collect()
}

#[test]
fn promtool_agrees() {
    for arguments in [
        ["check", "config", "contrib/prometheus/prometheus.yaml"],
        ["test", "rules", "contrib/prometheus/alerts_test.yaml"],
    ] {
        let Ok(output) = Command::new("promtool").args(arguments).output() else {
            return skip("promtool", "promtool (package prometheus) is not on PATH");
        };
        assert!(output.status.success(), "{}", support::metrics::text(&output));
    }
    let tests = std::fs::read_to_string("contrib/prometheus/alerts_test.yaml").unwrap();
    for alert in all() {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} has no test");
    }
}

/// A Prometheus that scrapes and judges each second, and fires without waiting.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(host: &Host, target: SocketAddr) -> Option<Self> {
        let rules = std::fs::read_to_string(RULES).unwrap();
        let at_once = rules.lines().map(|line| if line.trim().starts_with("for: ") { "" } else { line });
        std::fs::write(host.path("alerts.yaml"), at_once.collect::<Vec<_>>().join("\n")).unwrap();
        let config = std::fs::read_to_string("contrib/prometheus/prometheus.yaml").unwrap();
        let config = config.replace("127.0.0.1:8086", &target.to_string()).replace(": 15s", ": 1s");
        assert!(config.contains("scrape_interval: 1s") && config.contains(&target.to_string()));
        std::fs::write(host.path("prometheus.yaml"), config).unwrap();
        let address = free_address();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", host.path("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", host.path("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let prometheus = Self { child, address };
        // Before it listens nobody answers.
        eventually("Prometheus listens", || std::net::TcpStream::connect(address).is_ok());
        eventually("Prometheus is ready", || get(address, "/-/ready").status == 200);
        Some(prometheus)
    }

    fn ask(&self, path: &str) -> Value {
        get(self.address, path).json()["data"].take()
    }

    /// The first value of a query; none where there is none.
    fn value(&self, query: &str) -> Option<f64> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={escaped}"));
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// The alerts that fire now.
    fn fired(&self) -> BTreeSet<String> {
        let data = self.ask("/api/v1/alerts");
        let alerts = data["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing");
        alerts.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until all of its rules were judged once more, each without an error.
    fn judged(&self) {
        let of = || -> Vec<String> {
            let groups = self.ask("/api/v1/rules");
            let rules =
                groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
            let judged = rules.inspect(|rule| assert_ne!(rule["health"], "err", "{rule}"));
            judged.map(|rule| rule["lastEvaluation"].as_str().unwrap().to_owned()).collect()
        };
        let before = of();
        assert_eq!(before.len(), all().len());
        eventually("each rule is judged", || of().iter().zip(&before).all(|(now, before)| now != before));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without keep-alive, in which an answer would have no end.
fn get(address: SocketAddr, path: &str) -> Answer {
    send_raw(address, format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap()
}

fn write(host: &Host, path: &str, content: &Value) {
    let path = host.state().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    std::fs::write(&new, content.to_string()).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// What a host leaves, `bad` or not.
fn leave(host: &Host, bad: bool) {
    let pick = |good: u64, worse: u64| if bad { worse } else { good };
    let run = |status: &str, more: Value| {
        let mut run = json!({"service": "x", "started": now().to_string(), "duration_ms": 1, "status": status});
        run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        run
    };
    let counted = json!({"dead_letters": pick(0, 5), "damaged_files": 0, "counted": now().to_string()});
    write(
        host,
        "reading/run.json",
        &run("done", json!({"details": {"pipeline": "reading", "kept": {"reading": counted}}})),
    );
    write(host, "watch/run.json", &run("told", json!({"counts": {"waiting": pick(0, 2)}})));
    let totals = json!({"repositories": {"acme/infra": {"deployed": 1, "rolled_back": pick(0, 1)}}});
    write(host, "gitops/totals.json", &totals);
    if bad {
        write(host, "gitops/checked/acme__infra.json", &json!({"at": now().to_string(), "status": "rollback_failed"}));
    }
    let disk = |used: u64, free: u64, inodes: u64, read_only: bool| json!({"total": 1000, "used": used, "free": free, "inodes": 100, "inodes_free": inodes, "read_only": read_only});
    let mut metrics = json!({
        "disk": {
            "/": disk(100, 900, 50, bad),
            "/srv": disk(700, pick(300, 290), 50, false),
            "/data": disk(pick(100, 990), pick(900, 10), 50, false),
            "/var": disk(100, 900, pick(50, 9), false),
        },
        "memory": {"total": 100, "available": pick(50, 4)},
        "pressure": {"memory": {"full": {"total": pick(0, 3_000_000_000)}}},
        "kernel": {"oom_kills": pick(0, 1)},
        "temperature": {"k10temp": {"Tctl": pick(40, 90)}},
        "power": {"under_voltage": bad},
        "time": {"clock_synchronized": !bad},
        "array": {"md0": {"degraded": pick(0, 1)}},
        "systemd": {"failed": pick(0, 2)},
        "run": {"dropped": pick(0, 17)},
    });
    if bad {
        metrics["run"]["stuck"] = json!({"/nas": now().as_second() - 4000});
    }
    let sample = json!({"time": now().to_string(), "host": "a", "os": "b", "metrics": metrics});
    write(host, "data/metrics/sample.json", &sample);
}

#[test]
fn a_real_prometheus_fires_each_alert() {
    let (host, admin) = (Host::new(), free_address());
    host.configure(&format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"{admin}\"\n[[pipeline]]\nname = \"reading\"\n\
         source = \"file:/nowhere\"\n[[repository]]\nname = \"acme/infra\"\nurl = \"{0}.git\"\npath = \"{0}\"\n",
        host.path("infra").display()
    ));
    host.credential("webhook-secret", gateway::SECRET);
    leave(&host, false);
    let mut gateway = Gateway::on(host);
    let Some(prometheus) = Prometheus::start(&gateway.host, admin) else {
        return skip("a real Prometheus", "prometheus (package prometheus) is not on PATH");
    };
    eventually("the gateway is scraped", || prometheus.value("hub_memory_total_bytes") == Some(100.0));
    prometheus.judged();
    assert_eq!(prometheus.fired(), BTreeSet::new(), "a host that is well");

    // Everything that can be wrong at once.
    leave(&gateway.host, true);
    let path = gateway.host.path("tailscale-gate");
    std::fs::copy("/bin/sleep", &path).unwrap();
    let mut command = Command::new(path);
    command.arg("1000");
    let gate = Service::start(command);
    let door =
        json!({"state": "closed", "written": now().to_string(), "since": now().to_string(), "pid": gate.child.id()});
    let run =
        json!({"service": "x", "started": now().to_string(), "duration_ms": 1, "status": "closed", "details": door});
    write(&gateway.host, "gate/run.json", &run);
    support::deliver(gateway.public, gateway::SECRET, "push", "1", &push_body("acme/infra", "main"));
    let queued = gateway.host.state().join("proxy/queue/acme__infra.json");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options().append(true).open(queued).unwrap().set_modified(old).unwrap();

    let fired = RefCell::new(BTreeSet::new());
    // What has fired so far, and what is awaited.
    let awaits = |awaited: &[&str]| {
        eventually(&format!("{awaited:?}; {:?} fired", fired.borrow()), || {
            fired.borrow_mut().extend(prometheus.fired());
            awaited.iter().all(|alert| fired.borrow().contains(*alert))
        });
    };
    let exclusive = ["HubDown", "HubGatewayRestarts", "HubGatewayOutOfFiles", "HostNotMeasured"];
    let every = all();
    let at_once: Vec<&str> = every.iter().map(String::as_str).filter(|alert| !exclusive.contains(alert)).collect();
    awaits(&at_once);
    assert_eq!(fired.borrow().len(), at_once.len(), "{fired:?}");

    let mut sample = gateway.host.json("state/data/metrics/sample.json");
    sample["time"] = json!((now() - jiff::SignedDuration::from_mins(10)).to_string());
    write(&gateway.host, "data/metrics/sample.json", &sample);
    awaits(&["HostNotMeasured"]);
    for restart in 1..=4 {
        let Gateway { service, host, .. } = gateway;
        drop(service);
        gateway = Gateway::on(host);
        eventually("the restart is seen", || {
            prometheus.value("changes(process_start_time_seconds[1h])") == Some(f64::from(restart))
        });
    }
    awaits(&["HubGatewayRestarts"]);
    let open = prometheus.value("process_open_fds{job=\"observability-hub\"}").unwrap() as u64;
    let limit = format!("--nofile={}:", open * 10 / 9 + 1);
    let pid = gateway.service.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    awaits(&["HubGatewayOutOfFiles"]);
    drop(gateway.service);
    awaits(&["HubDown"]);
    assert_eq!(*fired.borrow(), every);
}
