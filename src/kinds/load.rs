use super::{Each, Kind, Measure, Part, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "load",
    help: "How many threads want a CPU or wait for a disk.",
    parts: &[Part { each: Each::Row, view: Some(("metrics_load", 2)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    number("load1", "", "Load average over 1 minute.").metric("hub_load1"),
    number("load5", "", "Load average over 5 minutes.").metric("hub_load5"),
    number("load15", "", "Load average over 15 minutes.").metric("hub_load15"),
    number("running", "", "Threads that run or could run."),
    number("threads", "", "Threads of all processes.").metric("hub_threads"),
];
