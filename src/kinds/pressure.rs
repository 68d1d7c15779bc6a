use super::{Each, Kind, Measure, Part, name, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "pressure",
    help: "How long tasks waited for `cpu`, `memory`, `io` and `irq` (Documentation/accounting/psi.rst).",
    parts: &[Part {
        each: Each::Object("", name("resource", "resource")),
        view: Some(("metrics_pressure", 2)),
        table: TABLE,
    }],
};

const TABLE: &[Measure] = &[
    number("some.avg10", "percent", "Share of the last 10 seconds in which some tasks waited.").column("some_avg10"),
    number("some.avg60", "percent", "The same of the last minute.").column("some_avg60"),
    number("some.avg300", "percent", "The same of the last 5 minutes.").column("some_avg300"),
    number("some.total", "µs", "Time in which some tasks waited for the resource.")
        .column("some_total")
        .scaled("hub_pressure_waiting_seconds_total", 1e-6),
    number("full.avg10", "percent", "Share of the last 10 seconds in which all tasks waited.").column("full_avg10"),
    number("full.avg60", "percent", "The same of the last minute.").column("full_avg60"),
    number("full.avg300", "percent", "The same of the last 5 minutes.").column("full_avg300"),
    number("full.total", "µs", "Time in which all tasks waited for the resource.")
        .column("full_total")
        .scaled("hub_pressure_stalled_seconds_total", 1e-6),
];
