use super::views::{Column, Rows, View};
use crate::kinds::{self, Export, Kind};

const fn number(name: &'static str) -> Column {
    Column { name, path: name, is_text: false }
}

const fn at(name: &'static str, path: &'static str) -> Column {
    Column { name, path, is_text: false }
}

const fn text(name: &'static str) -> Column {
    Column { name, path: name, is_text: true }
}

const fn view(
    name: &'static str,
    since: i64,
    metric_type: &'static str,
    rows: Rows,
    columns: &'static [Column],
) -> View {
    View { name, since, metric_type, rows, columns }
}

/// The columns of a kind that has a table of its own.
const fn columns<const N: usize>(kind: Kind) -> [Column; N] {
    let mut columns = [number(""); N];
    let mut at = 0;
    while at < N {
        let key = kind.table[at].key;
        columns[at] = if matches!(kind.table[at].export, Export::Label(_)) { text(key) } else { number(key) };
        at += 1;
    }
    columns
}

const fn tabled(kind: Kind, columns: &'static [Column]) -> View {
    view(kind.view.0, kind.view.1, kind.name, Rows::EachObject(None, kind.each), columns)
}

const ARRAY: [Column; kinds::ARRAY.table.len()] = columns(kinds::ARRAY);
const BTRFS: [Column; kinds::BTRFS.table.len()] = columns(kinds::BTRFS);
const UNIT: [Column; kinds::UNIT.table.len()] = columns(kinds::UNIT);

/// Every view. Whoever changes one raises the version of `Object::MetricViews`, and adds columns at the end only:
/// PostgreSQL replaces no view by one with other columns before. No column has a name that SQL reserves.
pub(super) const VIEWS: &[View] = &[
    view(
        "metrics_cpu",
        1,
        "cpu",
        Rows::Payload,
        &[
            number("usage"),
            number("package_temp"),
            number("online"),
            at("user_percent", "modes.user"),
            at("nice_percent", "modes.nice"),
            at("system_percent", "modes.system"),
            at("idle_percent", "modes.idle"),
            at("iowait_percent", "modes.iowait"),
            at("irq_percent", "modes.irq"),
            at("softirq_percent", "modes.softirq"),
            at("steal_percent", "modes.steal"),
        ],
    ),
    view("metrics_cpu_core_temp", 1, "cpu", Rows::EachNumber("core_temps", "core", "celsius"), &[]),
    view(
        "metrics_cpu_each",
        2,
        "cpu",
        Rows::EachObject(Some("cpus"), "cpu"),
        &[
            number("usage"),
            at("user_percent", "user"),
            at("system_percent", "system"),
            at("iowait_percent", "iowait"),
            at("steal_percent", "steal"),
        ],
    ),
    view(
        "metrics_memory",
        1,
        "memory",
        Rows::Payload,
        &[
            number("total"),
            number("available"),
            number("used"),
            number("used_percent"),
            number("free"),
            number("buffers"),
            number("cached"),
            number("shared"),
            number("slab"),
            number("dirty"),
            number("committed"),
            number("anonymous"),
            number("zfs_arc"),
            number("zfs_arc_reclaimable"),
        ],
    ),
    view(
        "metrics_disk",
        1,
        "disk",
        Rows::EachObject(None, "mount"),
        &[
            number("total"),
            number("used"),
            number("free"),
            number("used_percent"),
            number("reserved"),
            number("inodes"),
            number("inodes_free"),
            number("inodes_used_percent"),
            number("read_only"),
            text("device"),
            text("fstype"),
        ],
    ),
    view(
        "metrics_network",
        1,
        "network",
        Rows::EachObject(None, "interface"),
        &[
            number("rx_bytes"),
            number("tx_bytes"),
            number("rx_packets"),
            number("tx_packets"),
            number("rx_errors"),
            number("tx_errors"),
            number("rx_drops"),
            number("tx_drops"),
            number("rx_bytes_per_second"),
            number("tx_bytes_per_second"),
            number("rx_packets_per_second"),
            number("tx_packets_per_second"),
            number("rx_errors_per_second"),
            number("tx_errors_per_second"),
            number("rx_drops_per_second"),
            number("tx_drops_per_second"),
            number("up"),
            number("speed_mbps"),
            text("kind"),
        ],
    ),
    view(
        "metrics_load",
        2,
        "load",
        Rows::Payload,
        &[number("load1"), number("load5"), number("load15"), number("running"), number("threads")],
    ),
    view(
        "metrics_swap",
        2,
        "swap",
        Rows::Payload,
        &[
            number("total"),
            number("used"),
            number("free"),
            number("used_percent"),
            number("in_pages_per_second"),
            number("out_pages_per_second"),
            number("faults_per_second"),
            number("major_faults_per_second"),
        ],
    ),
    view(
        "metrics_pressure",
        2,
        "pressure",
        Rows::EachObject(None, "resource"),
        &[
            at("some_avg10", "some.avg10"),
            at("some_avg60", "some.avg60"),
            at("some_avg300", "some.avg300"),
            at("some_total", "some.total"),
            at("full_avg10", "full.avg10"),
            at("full_avg60", "full.avg60"),
            at("full_avg300", "full.avg300"),
            at("full_total", "full.total"),
        ],
    ),
    view(
        "metrics_disk_io",
        2,
        "disk_io",
        Rows::EachObject(None, "device"),
        &[
            number("read_bytes"),
            number("written_bytes"),
            number("reads"),
            number("writes"),
            number("in_flight"),
            number("read_bytes_per_second"),
            number("written_bytes_per_second"),
            number("reads_per_second"),
            number("writes_per_second"),
            number("busy_percent"),
            number("read_wait_ms"),
            number("write_wait_ms"),
            text("kind"),
            text("name"),
        ],
    ),
    view("metrics_temperature", 2, "temperature", Rows::EachNumberOfEach("chip", "sensor", "celsius"), &[]),
    view("metrics_fan", 2, "fan", Rows::EachNumberOfEach("chip", "sensor", "rpm"), &[]),
    view(
        "metrics_power",
        2,
        "power",
        Rows::Payload,
        &[
            number("under_voltage"),
            number("under_voltage_since_boot"),
            number("throttled"),
            number("throttled_since_boot"),
            number("frequency_capped"),
            number("soft_temperature_limit"),
            number("core_throttles"),
            number("package_throttles"),
        ],
    ),
    view(
        "metrics_kernel",
        2,
        "kernel",
        Rows::Payload,
        &[
            number("processes"),
            number("running"),
            number("blocked"),
            number("forks_per_second"),
            number("context_switches_per_second"),
            number("oom_kills"),
            number("oom_kills_new"),
        ],
    ),
    view(
        "metrics_time",
        2,
        "time",
        Rows::Payload,
        &[
            number("uptime"),
            number("boot_time"),
            number("clock_synchronized"),
            at("interval_seconds", "interval"),
            number("clock_step"),
            text("boot_id"),
            text("kernel"),
            text("virtualization"),
        ],
    ),
    view("metrics_systemd", 2, "systemd", Rows::Payload, &[number("failed"), text("units")]),
    view(
        "metrics_run",
        2,
        "run",
        Rows::Payload,
        &[
            number("duration_ms"),
            at("interval_seconds", "interval"),
            at("spool_rows", "spool.rows"),
            at("spool_bytes", "spool.bytes"),
            number("dropped"),
            number("refused"),
        ],
    ),
    view(
        "metrics_collector",
        2,
        "run",
        Rows::EachObject(Some("collectors"), "collector"),
        &[number("ok"), number("ms"), text("problems")],
    ),
    tabled(kinds::ARRAY, &ARRAY),
    tabled(kinds::BTRFS, &BTRFS),
    tabled(kinds::UNIT, &UNIT),
];
