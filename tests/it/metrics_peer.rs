//! system-metrics beside others on the live machine: the same values as Debian's prometheus-node-exporter, and an
//! exposition that promtool finds nothing wrong with.

use crate::support;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::support::{Host, eventually, send_raw, skip::skip};

/// Values by name and labels, as the text format writes them.
type Values = BTreeMap<String, f64>;

fn parse(text: &str) -> Values {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn hub() -> Values {
    let host = Host::new();
    let output = host.run("system-metrics", &["--print", "--format", "prometheus"]);
    assert!(output.status.success());
    parse(std::str::from_utf8(&output.stdout).unwrap())
}

struct Exporter {
    child: Child,
    address: SocketAddr,
}

impl Exporter {
    fn start() -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus-node-exporter")
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let exporter = Self { child, address };
        eventually("node_exporter answers", || exporter.scrape().is_some_and(|values| values.len() > 100));
        Some(exporter)
    }

    fn scrape(&self) -> Option<Values> {
        let answer = send_raw(self.address, b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        Some(parse(std::str::from_utf8(&answer.body).ok()?))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks that the peer's value, read between two of ours, lies between them, give or take a share of it.
#[track_caller]
fn between(before: &Values, after: &Values, ours: &str, peer: &Values, theirs: &str, share: f64) {
    let get = |values: &Values, name: &str| *values.get(name).unwrap_or_else(|| panic!("no {name} in {values:#?}"));
    let (one, two, value) = (get(before, ours), get(after, ours), get(peer, theirs));
    // The last digit of a double differs with the way a sum of milliseconds became seconds.
    let slack = value.abs() * f64::max(share, 1e-12);
    assert!(
        one.min(two) - slack <= value && value <= one.max(two) + slack,
        "{ours}: {one} and {two}, but {theirs}: {value}"
    );
}

#[test]
fn node_exporter_sees_the_same() {
    let Some(exporter) = Exporter::start() else {
        return skip("node_exporter", "prometheus-node-exporter is not on PATH");
    };
    let before = hub();
    let peer = exporter.scrape().unwrap();
    let after = hub();
    let same = |ours: &str, theirs: &str, share| between(&before, &after, ours, &peer, theirs, share);
    same("hub_memory_total_bytes", "node_memory_MemTotal_bytes", 0.0);
    // Whatever else this machine does between the three reads.
    for (ours, theirs) in [("available", "MemAvailable"), ("free", "MemFree"), ("cached", "Cached"), ("slab", "Slab")] {
        same(&format!("hub_memory_{ours}_bytes"), &format!("node_memory_{theirs}_bytes"), 0.1);
    }
    for load in ["load1", "load5", "load15"] {
        same(&format!("hub_{load}"), &format!("node_{load}"), 0.0);
    }
    for (ours, theirs) in [
        ("forks_total", "forks_total"),
        ("context_switches_total", "context_switches_total"),
        ("boot_time_seconds", "boot_time_seconds"),
        ("page_faults_total", "vmstat_pgfault"),
        ("oom_kills_total", "vmstat_oom_kill"),
        ("swap_size_bytes", "memory_SwapTotal_bytes"),
    ] {
        same(&format!("hub_{ours}"), &format!("node_{theirs}"), 0.0);
    }
    let mut seen = BTreeMap::new();
    for name in before.keys() {
        let (metric, labels) = name.split_once('{').unwrap_or((name, ""));
        let theirs = match metric {
            "hub_cpu_seconds_total" if !labels.contains("guest") => format!("node_cpu_seconds_total{{{labels}"),
            "hub_network_receive_bytes_total"
            | "hub_network_transmit_bytes_total"
            | "hub_network_receive_packets_total"
            | "hub_network_receive_drop_total"
            | "hub_network_transmit_errs_total"
            | "hub_disk_reads_completed_total"
            | "hub_disk_written_bytes_total"
            | "hub_disk_io_time_seconds_total" => name.replacen("hub_", "node_", 1),
            // Debian's node_exporter leaves out what is below these folders, such as /dev/shm.
            _ if metric.starts_with("hub_filesystem_")
                && ["dev", "run", "mnt", "media"]
                    .iter()
                    .any(|top| labels.contains(&format!("mountpoint=\"/{top}/"))) =>
            {
                continue;
            }
            "hub_filesystem_size_bytes"
            | "hub_filesystem_avail_bytes"
            | "hub_filesystem_files_free"
            | "hub_filesystem_readonly" => {
                let peer = peer.keys().find(|key| {
                    key.starts_with(&metric.replacen("hub_", "node_", 1)) && key.contains(&format!(",{labels}"))
                });
                peer.unwrap_or_else(|| panic!("node_exporter has no {name}")).clone()
            }
            _ => continue,
        };
        // Idle time may go back a little, and files come and go.
        let share = if metric.contains("avail") || metric.contains("files_free") || metric.contains("cpu") {
            0.02
        } else {
            0.0
        };
        same(name, &theirs, share);
        *seen.entry(metric.to_owned()).or_insert(0) += 1;
    }
    assert!(seen.contains_key("hub_filesystem_size_bytes") && seen.contains_key("hub_cpu_seconds_total"), "{seen:?}");
}

#[test]
fn promtool_finds_nothing_wrong() {
    let host = Host::new();
    let tree = host.path("tree");
    for name in ["vm", "pi3", "pi4", "lxc", "old"] {
        support::tree::unpack(name, &tree.join(name));
        let root = |part: &str| tree.join(name).join(part).to_str().unwrap().to_owned();
        let arguments = [
            "--print",
            "--format",
            "prometheus",
            "--procfs",
            &root("proc"),
            "--sysfs",
            &root("sys"),
            "--rootfs",
            &root("root"),
        ];
        let output = host.run("system-metrics", &arguments);
        assert!(output.status.success());
        let file = host.path(&format!("{name}.prom"));
        std::fs::write(&file, output.stdout).unwrap();
        let input = std::fs::File::open(&file).unwrap();
        let Ok(output) = Command::new("promtool").args(["check", "metrics"]).stdin(input).output() else {
            return skip("promtool", "promtool (package prometheus) is not on PATH");
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}
