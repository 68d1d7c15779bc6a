use super::{Each, Kind, Measure, Part, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "kernel",
    help: "What the kernel counts.",
    parts: &[Part { each: Each::Row, view: Some(("metrics_kernel", 2)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    number("processes", "", "Processes.").metric("hub_processes"),
    number("running", "", "Threads that run or could run.").metric("hub_procs_running"),
    number("blocked", "", "Threads that wait for I/O.").metric("hub_procs_blocked"),
    number("forks_per_second", "1/s", "Forks a second since the run before."),
    number("context_switches_per_second", "1/s", "Context switches a second since the run before."),
    number("oom_kills", "", "Processes killed for want of memory since boot.").metric("hub_oom_kills_total"),
    number("oom_kills_new", "", "Processes killed for want of memory since the run before."),
    number("forks", "", "Forks since boot.").unseen().metric("hub_forks_total"),
    number("context_switches", "", "Context switches since boot.").unseen().metric("hub_context_switches_total"),
];
