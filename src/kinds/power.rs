use super::{Each, FLAG, Kind, Measure, Part, name, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "power",
    help: "What the supply voltage and heat make the processor do, and how worn storage is.",
    parts: &[
        Part { each: Each::Row, view: Some(("metrics_power", 2)), table: TABLE },
        Part { each: Each::Object("wear", name("device", "device")), view: None, table: WEAR },
    ],
};

const TABLE: &[Measure] = &[
    number("under_voltage", FLAG, "1 while the supply voltage is too low.").metric("hub_power_under_voltage"),
    number("under_voltage_since_boot", FLAG, "1 where the supply voltage was too low since boot.")
        .metric("hub_power_under_voltage_since_boot"),
    number("throttled", FLAG, "1 while the firmware throttles the CPU.").metric("hub_power_throttled"),
    number("throttled_since_boot", FLAG, "1 where the CPU was throttled since boot.")
        .metric("hub_power_throttled_since_boot"),
    number("frequency_capped", FLAG, "1 while the firmware caps the CPU frequency.")
        .metric("hub_power_frequency_capped"),
    number("soft_temperature_limit", FLAG, "1 while the soft temperature limit is active.")
        .metric("hub_power_soft_temperature_limit"),
    number("core_throttles", "", "Times that cores were slowed down by heat.").metric("hub_cpu_core_throttles_total"),
    number("package_throttles", "", "Times that a package was slowed down by heat.")
        .metric("hub_cpu_package_throttles_total"),
    number("frequency_capped_since_boot", FLAG, "1 where the firmware capped the CPU frequency since boot.").unseen(),
    number("soft_temperature_limit_since_boot", FLAG, "1 where the soft temperature limit was active since boot.")
        .unseen(),
];

const WEAR: &[Measure] = &[
    number("life_used_percent", "percent", "Used share of the expected life of eMMC storage.")
        .scaled("hub_emmc_life_used_ratio", 0.01),
    text("reserve", "How much is left of its reserve: normal, warning or urgent."),
];
