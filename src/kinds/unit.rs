use super::{Kind, Measure, number};

/// The busiest units of systemd, and those that the hub deployed.
pub const KIND: Kind = Kind { name: "unit", each: "unit", view: ("metrics_unit", 3), table: TABLE };

const TABLE: &[Measure] = &[
    number(
        "cpu_percent",
        "hub_unit_cpu_ratio",
        0.01,
        "Share of one CPU that the unit used since the last stored run; more than 1 where it kept several busy.",
    ),
    number("memory", "hub_unit_memory_bytes", 1.0, "Memory of the unit, its files' cache included."),
    number(
        "read_bytes_per_second",
        "hub_unit_read_bytes_per_second",
        1.0,
        "Bytes that the unit read from disks a second.",
    ),
    number(
        "written_bytes_per_second",
        "hub_unit_written_bytes_per_second",
        1.0,
        "Bytes that the unit wrote to disks a second.",
    ),
    number("tasks", "hub_unit_tasks", 1.0, "Processes and threads of the unit."),
    number(
        "restarts",
        "hub_unit_restarts_total",
        1.0,
        "Times that systemd restarted the unit by itself since it was started.",
    ),
];
