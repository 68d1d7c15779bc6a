use super::{Kind, Measure, number};

/// What btrfs counts of its devices' errors, all devices of a file system together, since somebody reset it.
///
/// Its objects are named by the label of the file system, or by its number where it has none.
pub const KIND: Kind = Kind { name: "btrfs", each: "filesystem", view: ("metrics_btrfs", 3), table: TABLE };

const TABLE: &[Measure] = &[
    number("devices", "hub_btrfs_devices", 1.0, "Devices of the file system."),
    number("missing", "hub_btrfs_devices_missing", 1.0, "Devices of the file system that are not there."),
    number("write_errors", "hub_btrfs_write_errors_total", 1.0, "Writes that devices refused."),
    number("read_errors", "hub_btrfs_read_errors_total", 1.0, "Reads that devices refused."),
    number("flush_errors", "hub_btrfs_flush_errors_total", 1.0, "Flushes that devices refused."),
    number("corruption_errors", "hub_btrfs_corruption_errors_total", 1.0, "Blocks whose checksum was wrong."),
    number(
        "generation_errors",
        "hub_btrfs_generation_errors_total",
        1.0,
        "Blocks that were older than they should be.",
    ),
];
