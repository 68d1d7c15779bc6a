use std::fmt::Write;

use serde_json::Value;

use super::payload::Payload;

/// How a number in a row becomes a metric.
struct Metric {
    /// The row's `metric_type`.
    kind: &'static str,
    /// Dotted path of the number; `{name}` stands for every key and becomes the label `name`.
    path: &'static str,
    /// The metric's name, in base units (prometheus.io/docs/practices/naming).
    name: &'static str,
    /// What it is, in a sentence.
    help: &'static str,
    /// What to multiply with for the base unit.
    scale: f64,
}

impl Metric {
    fn is_counter(&self) -> bool {
        self.name.ends_with("_total")
    }
}

const fn metric(kind: &'static str, path: &'static str, name: &'static str, help: &'static str, scale: f64) -> Metric {
    Metric { kind, path, name, help, scale }
}

/// Every metric; one name stands in one line only. Names follow node_exporter's where they mean the same.
const METRICS: &[Metric] = &[
    metric(
        "cpu",
        "cpus.{cpu}.seconds.{mode}",
        "hub_cpu_seconds_total",
        "Seconds each CPU spent in each mode; guest modes are contained in user and nice.",
        1.0,
    ),
    metric(
        "cpu",
        "usage",
        "hub_cpu_usage_ratio",
        "Share of CPU time neither idle nor waiting for I/O since the last stored run.",
        0.01,
    ),
    metric(
        "cpu",
        "modes.{mode}",
        "hub_cpu_mode_ratio",
        "Share of CPU time in each mode since the last stored run.",
        0.01,
    ),
    metric("cpu", "online", "hub_cpus_online", "CPUs that are online.", 1.0),
    metric(
        "cpu",
        "package_temp",
        "hub_cpu_package_temperature_celsius",
        "Temperature of the hottest processor package.",
        1.0,
    ),
    metric("cpu", "core_temps.{core}", "hub_cpu_core_temperature_celsius", "Temperature of each core.", 1.0),
    metric("memory", "total", "hub_memory_total_bytes", "Memory that the kernel can use.", 1.0),
    metric("memory", "available", "hub_memory_available_bytes", "Memory that can be had without swapping.", 1.0),
    metric("memory", "used", "hub_memory_used_bytes", "Total less available memory.", 1.0),
    metric("memory", "free", "hub_memory_free_bytes", "Memory that is not used for anything.", 1.0),
    metric("memory", "buffers", "hub_memory_buffers_bytes", "Memory for blocks of devices.", 1.0),
    metric("memory", "cached", "hub_memory_cached_bytes", "Memory for the content of files.", 1.0),
    metric("memory", "shared", "hub_memory_shared_bytes", "Memory of tmpfs and shared memory.", 1.0),
    metric("memory", "slab", "hub_memory_slab_bytes", "Memory for the kernel's own structures.", 1.0),
    metric(
        "memory",
        "slab_reclaimable",
        "hub_memory_slab_reclaimable_bytes",
        "Part of slab memory that can be given back.",
        1.0,
    ),
    metric("memory", "dirty", "hub_memory_dirty_bytes", "Memory that waits to be written to disk.", 1.0),
    metric("memory", "writeback", "hub_memory_writeback_bytes", "Memory that is being written to disk.", 1.0),
    metric("memory", "committed", "hub_memory_committed_bytes", "Memory that processes were promised.", 1.0),
    metric("memory", "anonymous", "hub_memory_anonymous_bytes", "Memory of processes that belongs to no file.", 1.0),
    metric("disk", "{mountpoint}.total", "hub_filesystem_size_bytes", "Size of the file system.", 1.0),
    metric("disk", "{mountpoint}.used", "hub_filesystem_used_bytes", "Used space.", 1.0),
    metric(
        "disk",
        "{mountpoint}.free",
        "hub_filesystem_avail_bytes",
        "Space that users without privileges may take.",
        1.0,
    ),
    metric(
        "disk",
        "{mountpoint}.reserved",
        "hub_filesystem_reserved_bytes",
        "Free space that only root may take.",
        1.0,
    ),
    metric("disk", "{mountpoint}.inodes", "hub_filesystem_files", "Inodes of the file system.", 1.0),
    metric("disk", "{mountpoint}.inodes_free", "hub_filesystem_files_free", "Free inodes.", 1.0),
    metric("disk", "{mountpoint}.read_only", "hub_filesystem_readonly", "1 where nothing can be written.", 1.0),
    metric("network", "{device}.rx_bytes", "hub_network_receive_bytes_total", "Bytes received.", 1.0),
    metric("network", "{device}.tx_bytes", "hub_network_transmit_bytes_total", "Bytes sent.", 1.0),
    metric("network", "{device}.rx_packets", "hub_network_receive_packets_total", "Packets received.", 1.0),
    metric("network", "{device}.tx_packets", "hub_network_transmit_packets_total", "Packets sent.", 1.0),
    metric("network", "{device}.rx_errors", "hub_network_receive_errs_total", "Errors while receiving.", 1.0),
    metric("network", "{device}.tx_errors", "hub_network_transmit_errs_total", "Errors while sending.", 1.0),
    metric("network", "{device}.rx_drops", "hub_network_receive_drop_total", "Received packets dropped.", 1.0),
    metric("network", "{device}.tx_drops", "hub_network_transmit_drop_total", "Packets dropped before sending.", 1.0),
    metric("network", "{device}.up", "hub_network_up", "1 while the interface is up.", 1.0),
    metric(
        "network",
        "{device}.speed_mbps",
        "hub_network_speed_bytes",
        "Speed of the link in bytes a second.",
        125_000.0,
    ),
    metric("load", "load1", "hub_load1", "Load average over 1 minute.", 1.0),
    metric("load", "load5", "hub_load5", "Load average over 5 minutes.", 1.0),
    metric("load", "load15", "hub_load15", "Load average over 15 minutes.", 1.0),
    metric("load", "threads", "hub_threads", "Threads of all processes.", 1.0),
    metric("swap", "total", "hub_swap_size_bytes", "Swap space.", 1.0),
    metric("swap", "used", "hub_swap_used_bytes", "Swap space in use.", 1.0),
    metric("swap", "free", "hub_swap_free_bytes", "Free swap space.", 1.0),
    metric("swap", "in_pages", "hub_swap_in_pages_total", "Pages read from swap space.", 1.0),
    metric("swap", "out_pages", "hub_swap_out_pages_total", "Pages written to swap space.", 1.0),
    metric("swap", "faults", "hub_page_faults_total", "Page faults.", 1.0),
    metric("swap", "major_faults", "hub_page_faults_major_total", "Page faults that had to read from disk.", 1.0),
    metric(
        "pressure",
        "{resource}.some.total",
        "hub_pressure_waiting_seconds_total",
        "Seconds in which some tasks waited for the resource.",
        1e-6,
    ),
    metric(
        "pressure",
        "{resource}.full.total",
        "hub_pressure_stalled_seconds_total",
        "Seconds in which all tasks waited for the resource.",
        1e-6,
    ),
    metric("disk_io", "{device}.reads", "hub_disk_reads_completed_total", "Reads completed.", 1.0),
    metric("disk_io", "{device}.writes", "hub_disk_writes_completed_total", "Writes completed.", 1.0),
    metric("disk_io", "{device}.read_bytes", "hub_disk_read_bytes_total", "Bytes read.", 1.0),
    metric("disk_io", "{device}.written_bytes", "hub_disk_written_bytes_total", "Bytes written.", 1.0),
    metric(
        "disk_io",
        "{device}.read_ms",
        "hub_disk_read_time_seconds_total",
        "Seconds that reads took, all added up.",
        1e-3,
    ),
    metric(
        "disk_io",
        "{device}.write_ms",
        "hub_disk_write_time_seconds_total",
        "Seconds that writes took, all added up.",
        1e-3,
    ),
    metric(
        "disk_io",
        "{device}.busy_ms",
        "hub_disk_io_time_seconds_total",
        "Seconds in which the device was busy.",
        1e-3,
    ),
    metric("disk_io", "{device}.in_flight", "hub_disk_io_now", "Requests in flight.", 1.0),
    metric("temperature", "{chip}.{sensor}", "hub_hwmon_temp_celsius", "Temperature of each sensor.", 1.0),
    metric("fan", "{chip}.{sensor}", "hub_hwmon_fan_rpm", "Speed of each fan in revolutions a minute.", 1.0),
    metric("power", "under_voltage", "hub_power_under_voltage", "1 while the supply voltage is too low.", 1.0),
    metric(
        "power",
        "under_voltage_since_boot",
        "hub_power_under_voltage_since_boot",
        "1 where the supply voltage was too low since boot.",
        1.0,
    ),
    metric(
        "power",
        "frequency_capped",
        "hub_power_frequency_capped",
        "1 while the firmware caps the CPU frequency.",
        1.0,
    ),
    metric("power", "throttled", "hub_power_throttled", "1 while the firmware throttles the CPU.", 1.0),
    metric(
        "power",
        "throttled_since_boot",
        "hub_power_throttled_since_boot",
        "1 where the CPU was throttled since boot.",
        1.0,
    ),
    metric(
        "power",
        "soft_temperature_limit",
        "hub_power_soft_temperature_limit",
        "1 while the soft temperature limit is active.",
        1.0,
    ),
    metric(
        "power",
        "core_throttles",
        "hub_cpu_core_throttles_total",
        "Times that cores were slowed down by heat.",
        1.0,
    ),
    metric(
        "power",
        "package_throttles",
        "hub_cpu_package_throttles_total",
        "Times that a package was slowed down by heat.",
        1.0,
    ),
    metric(
        "power",
        "wear.{device}.life_used_percent",
        "hub_emmc_life_used_ratio",
        "Used share of the expected life of eMMC storage.",
        0.01,
    ),
    metric("kernel", "processes", "hub_processes", "Processes.", 1.0),
    metric("kernel", "running", "hub_procs_running", "Threads that run or could run.", 1.0),
    metric("kernel", "blocked", "hub_procs_blocked", "Threads that wait for I/O.", 1.0),
    metric("kernel", "forks", "hub_forks_total", "Forks since boot.", 1.0),
    metric("kernel", "context_switches", "hub_context_switches_total", "Context switches since boot.", 1.0),
    metric("kernel", "oom_kills", "hub_oom_kills_total", "Processes killed for want of memory since boot.", 1.0),
    metric("time", "uptime", "hub_uptime_seconds", "Seconds since boot.", 1.0),
    metric("time", "boot_time", "hub_boot_time_seconds", "Boot time in seconds since 1970.", 1.0),
    metric("time", "clock_synchronized", "hub_clock_synchronized", "1 where systemd-timesyncd has set the clock.", 1.0),
    metric("systemd", "failed", "hub_systemd_units_failed", "Units that have failed.", 1.0),
    metric("run", "collectors.{collector}.ok", "hub_collector_success", "1 where the collector did its work.", 1.0),
    metric("run", "collectors.{collector}.ms", "hub_collector_duration_seconds", "How long the collector took.", 1e-3),
    metric("run", "spool.rows", "hub_spool_rows", "Rows that wait for the database.", 1.0),
    metric("run", "spool.bytes", "hub_spool_bytes", "Bytes of rows that wait for the database.", 1.0),
    metric("run", "dropped", "hub_rows_dropped_total", "Rows that were lost since the state folder was made.", 1.0),
    metric(
        "run",
        "refused",
        "hub_rows_refused_total",
        "Rows that the database refused since the state folder was made.",
        1.0,
    ),
    metric(
        "run",
        "stuck.{mountpoint}",
        "hub_filesystem_stuck_since_seconds",
        "When a file system that does not answer was first found, in seconds since 1970.",
        1.0,
    ),
];

/// The rows in the Prometheus text format (prometheus.io/docs/instrumenting/exposition_formats), without timestamps,
/// as node_exporter's textfile collector wants it.
pub(super) fn text(host: &str, os: &str, rows: &[(&'static str, Payload)]) -> String {
    let mut text = String::new();
    head(&mut text, "hub_host_info", "gauge", "The host's name and operating system.");
    line(&mut text, "hub_host_info", &[("host", host), ("os", os)], &Value::from(1), 1.0);
    for metric in METRICS {
        let payloads = rows.iter().filter(|(kind, _)| *kind == metric.kind);
        let mut found = Vec::new();
        for (_, payload) in payloads {
            let path: Vec<&str> = metric.path.split('.').collect();
            find(payload, &path, &mut Vec::new(), &mut found);
        }
        if found.is_empty() {
            continue;
        }
        head(&mut text, metric.name, if metric.is_counter() { "counter" } else { "gauge" }, metric.help);
        for (labels, value) in found {
            line(&mut text, metric.name, &labels, value, metric.scale);
        }
    }
    text
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

fn find<'a>(object: &'a Payload, path: &[&'a str], labels: &mut Labels<'a>, found: &mut Vec<(Labels<'a>, &'a Value)>) {
    let Some((step, rest)) = path.split_first() else { return };
    let label = step.strip_prefix('{').and_then(|step| step.strip_suffix('}'));
    for (key, value) in object.iter().filter(|(key, _)| label.is_some() || key == step) {
        if let Some(label) = label {
            labels.push((label, key));
        }
        match value {
            Value::Object(inner) => find(inner, rest, labels, found),
            Value::Number(_) | Value::Bool(_) if rest.is_empty() => found.push((labels.clone(), value)),
            _ => {}
        }
        if label.is_some() {
            labels.pop();
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: &Value, scale: f64) {
    let number = match value {
        Value::Bool(yes) => u64::from(*yes).to_string(),
        Value::Number(number) if scale == 1.0 => number.to_string(),
        // Nine digits after the point: what the scale adds beyond them is no measurement.
        other => format!("{}", (other.as_f64().unwrap_or(0.0) * scale * 1e9).round() / 1e9),
    };
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(text, "{name}{labels} {number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(value: Value) -> Payload {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn labels_come_from_keys_and_are_escaped() {
        let disk = payload(serde_json::json!({"/a \"b\"\n": {"total": 5, "read_only": true, "device": "/dev/x"}}));
        let text = text("host", "Debian \\ 12", &[("disk", disk)]);
        assert!(text.contains("hub_host_info{host=\"host\",os=\"Debian \\\\ 12\"} 1\n"), "{text}");
        assert!(text.contains("hub_filesystem_size_bytes{mountpoint=\"/a \\\"b\\\"\\n\"} 5\n"), "{text}");
        assert!(text.contains("hub_filesystem_readonly{mountpoint=\"/a \\\"b\\\"\\n\"} 1\n"), "{text}");
    }

    #[test]
    fn units_are_base_units_and_what_is_unknown_is_left_out() {
        let pressure = payload(serde_json::json!({"io": {"some": {"total": 14_036_781}}}));
        let cpu = payload(serde_json::json!({"usage": null, "modes": {"user": 12.5}}));
        let text = text("h", "o", &[("pressure", pressure), ("cpu", cpu)]);
        assert!(text.contains("hub_pressure_waiting_seconds_total{resource=\"io\"} 14.036781\n"), "{text}");
        assert!(text.contains("hub_cpu_mode_ratio{mode=\"user\"} 0.125\n") && !text.contains("usage"), "{text}");
    }

    #[test]
    fn every_name_stands_once_and_has_a_help_text() {
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(METRICS.iter().all(|metric| metric.help.ends_with('.') && metric.name.starts_with("hub_")));
    }
}
