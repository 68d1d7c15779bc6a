use super::key::{Key, TEXT, Usual, Value, key};

const PERCENT: Value = Value::Limit("percent", 100);

/// A number above 0.
const fn number(unit: &'static str) -> Value {
    Value::Limit(unit, u64::MAX)
}

pub(super) const KEYS: &[Key] = &[
    key("disk_percent", PERCENT, Usual::Is("90"), "A file system is fuller than this."),
    key("disk_failed_percent", PERCENT, Usual::Is("97"), "From here on a full file system is a failure."),
    key("inodes_percent", PERCENT, Usual::Is("90"), "More of its inodes are used than this."),
    key("inodes_failed_percent", PERCENT, Usual::Is("97"), "From here on that is a failure."),
    key(
        "disk_except",
        Value::List(&TEXT),
        Usual::Is("[]"),
        "Mount points that may be as full as they are, such as [\"/mnt/backup\"].",
    ),
    key("memory_available_percent", PERCENT, Usual::Is("5"), "Less memory than this is available for ten minutes."),
    key(
        "memory_pressure_percent",
        PERCENT,
        Usual::Is("20"),
        "All tasks wait for memory for more of the time than this, over five minutes.",
    ),
    key(
        "swap_pages_per_second",
        number("pages a second"),
        Usual::Is("500"),
        "More pages than this are swapped out and in again each second, over five minutes.",
    ),
    key(
        "temperature_celsius",
        number("degrees Celsius"),
        Usual::Is("85"),
        "A sensor is hotter than this for five minutes. Beyond what its chip calls critical it is a failure.",
    ),
    key(
        "life_left_percent",
        PERCENT,
        Usual::Is("10"),
        "Less of the life of an eMMC or UFS is left. An NVMe shows that to root only.",
    ),
    key("clock_minutes", number("minutes"), Usual::Is("60"), "Nothing has kept the clock right for this long."),
    key(
        "certificate_days",
        number("days"),
        Usual::Is("14"),
        "The certificate of a health.url expires in fewer days than this.",
    ),
    key(
        "key_days",
        number("days"),
        Usual::Is("14"),
        "The tailscale key of this node expires in fewer days than this, while the gate runs.",
    ),
    key("under_voltage", Value::Switch, Usual::Is("true"), "The supply voltage is too low."),
    key("oom_kill", Value::Switch, Usual::Is("true"), "The kernel killed a process for want of memory."),
    key("read_only_root", Value::Switch, Usual::Is("true"), "The root file system cannot be written any more."),
    key("array_degraded", Value::Switch, Usual::Is("true"), "An md array, a ZFS pool or a btrfs lacks a device."),
    key("failed_units", Value::Switch, Usual::Is("true"), "A unit of this host failed, whoever it belongs to."),
    key(
        "reboot_required",
        Value::Switch,
        Usual::Is("true"),
        "The host waits for a restart: the distribution asks for one, or a newer kernel or systemd is installed than runs.",
    ),
    key(
        "units_except",
        Value::List(&TEXT),
        Usual::Is("[]"),
        "Units that may fail. [\"mnt-*\"] stands for all whose name begins so.",
    ),
];
