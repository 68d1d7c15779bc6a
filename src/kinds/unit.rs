use super::{Each, Kind, Measure, Part, name, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "unit",
    help: "The busiest units of systemd, and those that the hub deployed.",
    parts: &[Part { each: Each::Object("", name("unit", "unit")), view: Some(("metrics_unit", 3)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    number(
        "cpu_percent",
        "percent",
        "Share of one CPU that the unit used since the last stored run; more than 1 where it kept several busy.",
    )
    .scaled("hub_unit_cpu_ratio", 0.01),
    number("memory", "bytes", "Memory of the unit, its files' cache included.").metric("hub_unit_memory_bytes"),
    number("read_bytes_per_second", "bytes/s", "Bytes that the unit read from disks a second.")
        .metric("hub_unit_read_bytes_per_second"),
    number("written_bytes_per_second", "bytes/s", "Bytes that the unit wrote to disks a second.")
        .metric("hub_unit_written_bytes_per_second"),
    number("tasks", "", "Processes and threads of the unit.").metric("hub_unit_tasks"),
    number("restarts", "", "Times that systemd restarted the unit by itself since it was started.")
        .metric("hub_unit_restarts_total"),
];
