use super::{Each, FLAG, Kind, Measure, Part, name, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "run",
    help: "How the run of system-metrics itself went.",
    parts: &[
        Part { each: Each::Row, view: Some(("metrics_run", 2)), table: TABLE },
        Part {
            each: Each::Object("collectors", name("collector", "collector")),
            view: Some(("metrics_collector", 2)),
            table: COLLECTORS,
        },
        Part { each: Each::Number("stuck", name("mount", "mountpoint")), view: None, table: STUCK },
    ],
};

const TABLE: &[Measure] = &[
    number("duration_ms", "ms", "How long measuring took."),
    number("interval", "s", "Seconds since the run before.").column("interval_seconds"),
    number("spool.rows", "", "Rows that wait for the database.").column("spool_rows").metric("hub_spool_rows"),
    number("spool.bytes", "bytes", "Bytes of rows that wait for the database.")
        .column("spool_bytes")
        .metric("hub_spool_bytes"),
    number("dropped", "", "Rows that were lost since the state folder was made.").metric("hub_rows_dropped_total"),
    number("refused", "", "Rows that the database refused since the state folder was made.")
        .metric("hub_rows_refused_total"),
];

const COLLECTORS: &[Measure] = &[
    number("ok", FLAG, "1 where the collector did its work.").metric("hub_collector_success"),
    number("ms", "ms", "How long the collector took.").scaled("hub_collector_duration_seconds", 1e-3),
    text("problems", "What went wrong with it, or with a part of it."),
];

const STUCK: &[Measure] =
    &[number("", "s", "When a file system that does not answer was first found, in seconds since 1970.")
        .metric("hub_filesystem_stuck_since_seconds")];
