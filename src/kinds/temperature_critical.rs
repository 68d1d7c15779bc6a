use super::{Each, Kind, Part, name, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "temperature_critical",
    help: "What chips themselves call critical, by chip and sensor. It is in the newest sample, and not stored.",
    parts: &[Part {
        each: Each::Nested(name("chip", "chip"), name("sensor", "sensor")),
        view: None,
        table: &[number("", "°C", "Temperature that the chip calls critical.").metric("hub_hwmon_temp_crit_celsius")],
    }],
};
