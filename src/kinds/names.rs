use std::borrow::Cow;

use super::Export;

/// How a number in a row becomes a metric.
#[derive(Clone)]
pub(super) struct Metric {
    /// The row's `metric_type`.
    pub kind: &'static str,
    /// Dotted path of the number; `{name}` stands for every key and becomes the label `name`.
    pub path: Cow<'static, str>,
    /// The metric's name, in base units (prometheus.io/docs/practices/naming).
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// What to multiply with for the base unit.
    pub scale: f64,
    /// Keys whose texts become labels, where `path` leads to an object: the metric is 1 then.
    pub labels: Cow<'static, [&'static str]>,
}

impl Metric {
    /// True where the number only grows.
    pub fn is_counter(&self) -> bool {
        self.name.ends_with("_total")
    }
}

const fn metric(kind: &'static str, path: &'static str, name: &'static str, help: &'static str, scale: f64) -> Metric {
    Metric { kind, path: Cow::Borrowed(path), name, help, scale, labels: Cow::Borrowed(&[]) }
}

const fn info(
    kind: &'static str,
    path: &'static str,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric { kind, path: Cow::Borrowed(path), name, help, scale: 1.0, labels: Cow::Borrowed(labels) }
}

/// The metrics of the kinds that have a table of their own.
fn tabled() -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for kind in super::ALL {
        for measure in kind.table {
            let (name, path, scale, label) = match measure.export {
                Export::Number(name, scale) => (name, format!("{{{}}}.{}", kind.each, measure.key), scale, None),
                Export::Label(name) => (name, format!("{{{}}}", kind.each), 1.0, Some(measure.key)),
            };
            match metrics.iter_mut().find(|metric| metric.name == name) {
                Some(metric) => metric.labels.to_mut().extend(label),
                None => metrics.push(Metric {
                    kind: kind.name,
                    path: path.into(),
                    name,
                    help: measure.help,
                    scale,
                    labels: label.into_iter().collect(),
                }),
            }
        }
    }
    metrics
}

/// Every metric.
pub(super) fn all() -> Vec<Metric> {
    let mut metrics = METRICS.to_vec();
    metrics.extend(tabled());
    metrics
}

/// The metrics of the other kinds; one name stands in one line only. Names follow node_exporter's where they mean the same.
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
    metric(
        "memory",
        "used",
        "hub_memory_used_bytes",
        "Total less available memory, and less what ZFS can give back.",
        1.0,
    ),
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
    metric("memory", "zfs_arc", "hub_memory_zfs_arc_bytes", "Memory of the cache of ZFS.", 1.0),
    metric(
        "memory",
        "zfs_arc_reclaimable",
        "hub_memory_zfs_arc_reclaimable_bytes",
        "Part of the cache of ZFS that can be given back.",
        1.0,
    ),
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
    info("network", "{device}", "hub_network_info", "Kind of each interface.", &["kind"]),
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
    info(
        "disk_io",
        "{device}",
        "hub_disk_info",
        "Kind of each device, and its owner's name for it.",
        &["kind", "name"],
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
    metric("time", "clock_synchronized", "hub_clock_synchronized", "1 where the clock follows a time source.", 1.0),
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
