use super::{Each, Kind, Part, name, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "fan",
    help: "How fast fans turn, by chip and sensor.",
    parts: &[Part {
        each: Each::Nested(name("chip", "chip"), name("sensor", "sensor")),
        view: Some(("metrics_fan", 2)),
        table: &[number("", "1/min", "Speed of each fan in revolutions a minute.")
            .column("rpm")
            .metric("hub_hwmon_fan_rpm")],
    }],
};
