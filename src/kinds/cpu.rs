use super::{Each, Kind, Measure, Part, name, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "cpu",
    help: "The processors.",
    parts: &[
        Part { each: Each::Row, view: Some(("metrics_cpu", 1)), table: TABLE },
        Part {
            each: Each::Number("core_temps", name("core", "core")),
            view: Some(("metrics_cpu_core_temp", 1)),
            table: CORE_TEMPS,
        },
        Part { each: Each::Object("cpus", name("cpu", "cpu")), view: Some(("metrics_cpu_each", 2)), table: CPUS },
    ],
};

const TABLE: &[Measure] = &[
    number("usage", "percent", "Share of CPU time neither idle nor waiting for I/O since the last stored run.")
        .scaled("hub_cpu_usage_ratio", 0.01),
    number("package_temp", "°C", "Temperature of the hottest processor package.")
        .metric("hub_cpu_package_temperature_celsius"),
    number("online", "", "CPUs that are online.").metric("hub_cpus_online"),
    number("modes.user", "percent", "Of that time, in programs.").column("user_percent"),
    number("modes.nice", "percent", "Of that time, in programs that give way to others.").column("nice_percent"),
    number("modes.system", "percent", "Of that time, in the kernel.").column("system_percent"),
    number("modes.idle", "percent", "Of that time, idle.").column("idle_percent"),
    number("modes.iowait", "percent", "Of that time, idle while something waited for I/O.").column("iowait_percent"),
    number("modes.irq", "percent", "Of that time, in interrupts.").column("irq_percent"),
    number("modes.softirq", "percent", "Of that time, in what interrupts left to do.").column("softirq_percent"),
    number("modes.steal", "percent", "Of that time, taken by the hypervisor for others.").column("steal_percent"),
    number("modes.{mode}", "percent", "Share of CPU time in each mode since the last stored run.")
        .unseen()
        .scaled("hub_cpu_mode_ratio", 0.01),
];

const CORE_TEMPS: &[Measure] =
    &[number("", "°C", "Temperature of each core.").column("celsius").metric("hub_cpu_core_temperature_celsius")];

const CPUS: &[Measure] = &[
    number("usage", "percent", "The same of one CPU."),
    number("user", "percent", "The same of one CPU.").column("user_percent"),
    number("system", "percent", "The same of one CPU.").column("system_percent"),
    number("iowait", "percent", "The same of one CPU.").column("iowait_percent"),
    number("steal", "percent", "The same of one CPU.").column("steal_percent"),
    number("{mode}", "percent", "The same of one CPU.").unseen(),
    number("seconds.{mode}", "s", "Time that each CPU spent in each mode; guest modes are contained in user and nice.")
        .unseen()
        .metric("hub_cpu_seconds_total"),
];
