use super::{Each, Kind, Measure, Part, name, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "array",
    help: "Arrays of md and pools of ZFS, whose level is `zfs`.",
    parts: &[Part { each: Each::Object("", name("device", "device")), view: Some(("metrics_array", 3)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    text("level", "Level and state of each array or pool.").metric("hub_array_info"),
    text("state", "Level and state of each array or pool.").metric("hub_array_info"),
    number("degraded", "", "Devices that the array lacks; of a pool, 1 where it is not online.")
        .metric("hub_array_degraded"),
    number("disks", "", "Devices that the array has when it is whole.").metric("hub_array_disks"),
    number("active", "", "Devices that the array works with.").metric("hub_array_disks_active"),
    number("failed", "", "Devices that failed and are still in the array.").metric("hub_array_disks_failed"),
    number("spare", "", "Devices that wait to take the place of one that fails.").metric("hub_array_disks_spare"),
    text("sync", "What is done to the array: recovery, resync, check, repair or reshape.")
        .metric("hub_array_sync_info"),
    number("sync_percent", "percent", "How much of that is done.").scaled("hub_array_sync_ratio", 0.01),
    number("mismatches", "sectors", "Sectors that differed between devices at the last check.")
        .metric("hub_array_mismatch_sectors"),
    text("name", "Its owner's name for it.").metric("hub_array_info"),
];
