//! Rows, configurations and file systems for the tests of the store.

use std::path::{Path, PathBuf};
use std::process::Command;

use observability_hub::config::Config;
use observability_hub::store::MetricRow;
use serde_json::{Value, json};

use super::Host;

/// The configuration of a host with this database, loaded from a file as programs do.
pub fn config(host: &Host, url: &str, more: &str) -> Config {
    config_in(&host.path("hub.toml"), &host.state(), url, more)
}

pub fn config_in(file: &Path, state: &Path, url: &str, more: &str) -> Config {
    for name in ["DATABASE_URL", "DB_HOST", "DB_PORT", "DB_USER", "DB_NAME", "SERVER_DB_PASSWORD"] {
        assert!(std::env::var_os(name).is_none(), "{name} is set: the tests would write into that database");
    }
    let state = toml_string(state.to_str().unwrap());
    let text = format!("state_dir = {state}\n[database]\nurl = {}\n{more}", toml_string(url));
    // Written whole or not at all: a parent and its child may do this at once.
    let unfinished = file.with_extension(format!("{}.new", std::process::id()));
    if std::fs::write(&unfinished, text).is_ok() {
        std::fs::rename(&unfinished, file).unwrap();
    }
    Config::load(Some(file)).unwrap()
}

fn toml_string(text: &str) -> String {
    Value::from(text).to_string()
}

pub fn row(host: &str, millis: i64, metric_type: &str, payload: Value) -> MetricRow {
    MetricRow {
        time: jiff::Timestamp::from_millisecond(millis).unwrap(),
        host: host.to_owned(),
        os: "linux".to_owned(),
        metric_type: metric_type.to_owned(),
        payload,
    }
}

/// One run's rows, in the shapes that the Go version wrote.
pub fn sample(host: &str, millis: i64) -> Vec<MetricRow> {
    vec![
        row(
            host,
            millis,
            "cpu",
            json!({"usage": 12.5, "package_temp": 45, "core_temps": {"core_0": 43.5, "core_1": 44}}),
        ),
        row(host, millis, "memory", json!({"total": 8e9, "available": 6e9, "used": 2e9, "used_percent": 25})),
        row(
            host,
            millis,
            "disk",
            json!({
                "/": {"total": 1e12, "used": 5e11, "free": 5e11, "used_percent": 50.0},
                "/srv/a \"b\".c": {"total": 5_000_000_000_000u64, "used": 1, "free": "unknown", "used_percent": 0.0},
            }),
        ),
        row(host, millis, "network", json!({"eth0": {"rx_bytes": 7_000_000_000u64, "tx_bytes": 1}})),
    ]
}

/// Rows of the kinds that the Go version had not.
pub fn more_kinds(host: &str, millis: i64) -> Vec<MetricRow> {
    let share = |avg60| json!({"avg10": 0.5, "avg60": avg60, "avg300": 0.0, "total": 14_036_781});
    let kinds = [
        ("load", json!({"load1": 0.5, "load5": 0.25, "load15": 0.1, "running": 2, "threads": 300})),
        ("swap", json!({"total": 1024, "used": 0, "free": 1024, "used_percent": 0.0, "in_pages_per_second": 3.5})),
        ("pressure", json!({"cpu": {"some": share(1.25)}, "io": {"some": share(2.5), "full": share(0.75)}})),
        ("disk_io", json!({"sda": {"reads": 9, "busy_percent": 12.5}, "nvme0n1": {"reads": 1}})),
        ("temperature", json!({"k10temp": {"Tctl": 51.25}, "nvme": {"Composite": 40, "Sensor 1": 41.5}, "odd": 7})),
        ("fan", json!({"nct6779": {"fan2": 900}})),
        ("power", json!({"under_voltage": true, "throttled": false, "wear": {"mmcblk0": {"life_used_percent": 10}}})),
        ("kernel", json!({"processes": 120, "forks_per_second": 1.5, "oom_kills": 1})),
        ("time", json!({"uptime": 60.5, "boot_id": "b-1", "clock_synchronized": true, "virtualization": "vm"})),
        ("systemd", json!({"failed": 1, "units": ["x.service"]})),
        (
            "run",
            json!({
                "duration_ms": 12.5, "spool": {"rows": 3, "bytes": 99}, "dropped": 0,
                "collectors": {"cpu": {"ok": true, "ms": 0.5}, "disk": {"ok": false, "ms": 7, "problems": ["late"]}},
            }),
        ),
    ];
    kinds.into_iter().map(|(kind, payload)| row(host, millis, kind, payload)).collect()
}

/// Queries of one number each on the views of `more_kinds`, and what they find in either database.
pub const VIEW_QUERIES: &[(&str, f64)] = &[
    ("SELECT load15 FROM metrics_load", 0.1),
    ("SELECT in_pages_per_second FROM metrics_swap WHERE total = 1024", 3.5),
    ("SELECT some_avg60 FROM metrics_pressure WHERE resource = 'cpu' AND full_avg60 IS NULL", 1.25),
    ("SELECT full_avg60 FROM metrics_pressure WHERE resource = 'io'", 0.75),
    ("SELECT busy_percent FROM metrics_disk_io WHERE device = 'sda'", 12.5),
    ("SELECT reads FROM metrics_disk_io WHERE device = 'nvme0n1' AND busy_percent IS NULL", 1.0),
    ("SELECT celsius FROM metrics_temperature WHERE chip = 'nvme' AND sensor = 'Sensor 1'", 41.5),
    ("SELECT 1.0 * count(*) FROM metrics_temperature", 3.0),
    ("SELECT rpm FROM metrics_fan WHERE chip = 'nct6779' AND sensor = 'fan2'", 900.0),
    ("SELECT under_voltage FROM metrics_power WHERE throttled = 0", 1.0),
    ("SELECT forks_per_second FROM metrics_kernel WHERE oom_kills = 1", 1.5),
    ("SELECT uptime FROM metrics_time WHERE boot_id = 'b-1' AND clock_synchronized = 1 AND kernel IS NULL", 60.5),
    ("SELECT failed FROM metrics_systemd WHERE units LIKE '%x.service%'", 1.0),
    ("SELECT spool_bytes FROM metrics_run WHERE duration_ms = 12.5", 99.0),
    ("SELECT ms FROM metrics_collector WHERE collector = 'disk' AND ok = 0 AND problems LIKE '%late%'", 7.0),
    ("SELECT 1.0 * count(*) FROM metrics_cpu_each", 0.0),
];

/// A file system in memory, unmounted when dropped.
pub struct SmallFileSystem(PathBuf);

impl SmallFileSystem {
    /// Mounts one of this size; none, and a word about it, where the machine does not allow that.
    pub fn mount(folder: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=0750");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).status();
        if !status.is_ok_and(|status| status.success()) {
            super::skip::skip("a full or read-only file system", "mounting a tmpfs is not allowed here");
            return None;
        }
        Some(Self(folder.to_owned()))
    }

    pub fn read_only(&self) {
        assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.0).status();
    }
}
