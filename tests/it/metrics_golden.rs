//! What system-metrics makes of recorded hosts: the golden files beside the trees are compared whole.
//! `UPDATE_GOLDEN=1 cargo test --test it metrics_golden::` writes them anew; read the difference before it is committed.

use std::path::Path;

use crate::support::Host;
use crate::support::tree::unpack;
use serde_json::Value;

/// The arguments that show a tree.
fn roots(tree: &Path) -> Vec<String> {
    let path = |name: &str| tree.join(name).to_str().unwrap().to_owned();
    let pairs = [("--procfs", path("proc")), ("--sysfs", path("sys")), ("--rootfs", path("root"))];
    pairs.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path]).collect()
}

fn print(host: &Host, tree: &Path) -> Value {
    let output = host.command("system-metrics").arg("--print").args(roots(tree)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn store(host: &Host, tree: &Path) {
    let output = host.command("system-metrics").args(roots(tree)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Takes out what is this machine's and not the tree's: durations, paths, and how full the real file system is.
fn stable(mut sample: Value, tree: &Path) -> Value {
    let object = sample.as_object_mut().unwrap();
    assert!(object.remove("time").is_some() && object.remove("host").is_some());
    let metrics = object["metrics"].as_object_mut().unwrap();
    let mut run = metrics.remove("run").unwrap();
    let collectors = run["collectors"].as_object_mut().unwrap();
    collectors.values_mut().for_each(|done| drop(done.as_object_mut().unwrap().remove("ms")));
    metrics.insert("collectors".to_owned(), run["collectors"].take());
    if let Some(disk) = metrics.get_mut("disk").and_then(Value::as_object_mut) {
        for mount in disk.values_mut().map(|mount| mount.as_object_mut().unwrap()) {
            assert!(mount["used"].as_u64() <= mount["total"].as_u64() && mount["used_percent"].as_f64() <= Some(100.0));
            mount.retain(|key, _| ["read_only", "device", "fstype"].contains(&key.as_str()));
        }
    }
    if let Some(step) = metrics.get_mut("time").and_then(|time| time.get_mut("clock_step")) {
        *step = Value::Null;
    }
    let text = sample.to_string().replace(tree.to_str().unwrap(), "");
    serde_json::from_str(&text).unwrap()
}

fn compare(name: &str, found: &Value) {
    let file = Path::new("tests/fixtures/metrics").join(name).with_extension("json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, format!("{found:#}\n")).unwrap();
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(found, &expected, "{name}: found\n{found:#}");
}

fn golden(name: &str) {
    let host = Host::new();
    let tree = host.path("tree");
    unpack(name, &tree);
    let found = stable(print(&host, &tree), &tree);
    assert_eq!(std::fs::read_dir(host.state()).unwrap().count(), 0, "--print writes nothing");
    compare(name, &found);
}

#[test]
fn a_virtual_machine() {
    golden("vm");
}

#[test]
fn a_raspberry_pi_3_with_an_old_kernel_of_32_bits() {
    golden("pi3");
}

#[test]
fn a_raspberry_pi_4_with_a_chip_for_its_zone_and_emmc() {
    golden("pi4");
}

#[test]
fn an_lxc_guest() {
    golden("lxc");
}

#[test]
fn an_old_kernel_and_damaged_lines() {
    golden("old");
}

#[test]
fn four_runs_with_hotplug_resets_and_a_reboot() {
    let host = Host::new();
    let tree = host.path("tree");
    unpack("sequence", &tree);
    let mut steps = Vec::new();
    for step in ["1", "2", "3", "4"] {
        let tree = tree.join(step);
        let mut found = stable(print(&host, &tree), &tree);
        let metrics = found["metrics"].as_object_mut().unwrap();
        metrics.retain(|kind, _| ["cpu", "disk_io", "network", "kernel", "time"].contains(&kind.as_str()));
        steps.push(found["metrics"].take());
        store(&host, &tree);
    }
    compare("sequence", &Value::Array(steps));
}

#[test]
fn counters_of_32_bits_wrap_once_where_the_link_cannot_do_more() {
    let host = Host::new();
    let tree = host.path("tree");
    unpack("pi3", &tree);
    store(&host, &tree);
    let dev = tree.join("proc/net/dev");
    let text = std::fs::read_to_string(&dev).unwrap();
    std::fs::write(&dev, text.replace("4294960000 3000000", "52704 3000600").replace("5000 50 ", "10 1 ")).unwrap();
    std::fs::write(tree.join("proc/uptime"), "9160.00 36200.00\n").unwrap();
    let network = print(&host, &tree)["metrics"]["network"].take();
    assert_eq!(network["eth0"]["rx_bytes_per_second"], 1000.0, "(2^32 - 4294960000 + 52704) / 60");
    assert_eq!(network["eth0"]["rx_packets_per_second"], 10.0);
    assert!(network["wlan0"].get("rx_bytes_per_second").is_none(), "its speed is not known");
    // On 64 bits the same is a reset.
    std::fs::write(tree.join("proc/sys/kernel/arch"), "aarch64\n").unwrap();
    let network = print(&host, &tree)["metrics"]["network"].take();
    assert!(network["eth0"].get("rx_bytes_per_second").is_none());
}
