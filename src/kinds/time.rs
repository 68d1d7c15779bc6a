use super::{Each, FLAG, Kind, Measure, Part, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "time",
    help: "The clocks, and what the host runs in.",
    parts: &[Part { each: Each::Row, view: Some(("metrics_time", 2)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    number("uptime", "s", "Seconds since boot.").metric("hub_uptime_seconds"),
    number("boot_time", "s", "Boot time in seconds since 1970.").metric("hub_boot_time_seconds"),
    number("clock_synchronized", FLAG, "1 where the clock follows a time source.").metric("hub_clock_synchronized"),
    number("interval", "s", "Seconds since the run before.").column("interval_seconds"),
    number("clock_step", "s", "By how much the clock was set since the run before."),
    text("boot_id", "The boot's own name."),
    text("kernel", "The kernel's version."),
    text("virtualization", "What the host runs in: vm, or a kind of container."),
];
