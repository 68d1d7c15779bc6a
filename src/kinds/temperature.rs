use super::{Each, Kind, Part, name, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "temperature",
    help: "What sensors of any driver measure, by chip and sensor.",
    parts: &[Part {
        each: Each::Nested(name("chip", "chip"), name("sensor", "sensor")),
        view: Some(("metrics_temperature", 2)),
        table: &[number("", "°C", "Temperature of each sensor.").column("celsius").metric("hub_hwmon_temp_celsius")],
    }],
};
