use super::{Kind, Measure, label, number};

/// Arrays of md and pools of ZFS, whose level is `zfs`.
pub const KIND: Kind = Kind { name: "array", each: "device", view: ("metrics_array", 3), table: TABLE };

const TABLE: &[Measure] = &[
    label("level", "hub_array_info", "Level and state of each array or pool."),
    label("state", "hub_array_info", "Level and state of each array or pool."),
    number("degraded", "hub_array_degraded", 1.0, "Devices that the array lacks; of a pool, 1 where it is not online."),
    number("disks", "hub_array_disks", 1.0, "Devices that the array has when it is whole."),
    number("active", "hub_array_disks_active", 1.0, "Devices that the array works with."),
    number("failed", "hub_array_disks_failed", 1.0, "Devices that failed and are still in the array."),
    number("spare", "hub_array_disks_spare", 1.0, "Devices that wait to take the place of one that fails."),
    label("sync", "hub_array_sync_info", "What is done to the array: recovery, resync, check, repair or reshape."),
    number("sync_percent", "hub_array_sync_ratio", 0.01, "How much of that is done."),
    number("mismatches", "hub_array_mismatch_sectors", 1.0, "Sectors that differed between devices at the last check."),
    label("name", "hub_array_info", "Level and state of each array or pool."),
];
