use super::{Each, Kind, Measure, Part, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "systemd",
    help: "The units of systemd that have failed.",
    parts: &[Part { each: Each::Row, view: Some(("metrics_systemd", 2)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    number("failed", "", "Units that have failed.").metric("hub_systemd_units_failed"),
    text("units", "The first of their names."),
];
