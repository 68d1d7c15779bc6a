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
