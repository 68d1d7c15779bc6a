use super::{Each, Kind, Measure, Part, name, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "btrfs",
    help: "What btrfs counts of its devices' errors, all devices of a file system together, since somebody reset it. Its objects are named by the label of the file system, or by its number where it has none.",
    parts: &[Part {
        each: Each::Object("", name("filesystem", "filesystem")),
        view: Some(("metrics_btrfs", 3)),
        table: TABLE,
    }],
};

const TABLE: &[Measure] = &[
    number("devices", "", "Devices of the file system.").metric("hub_btrfs_devices"),
    number("missing", "", "Devices of the file system that are not there.").metric("hub_btrfs_devices_missing"),
    number("write_errors", "", "Writes that devices refused.").metric("hub_btrfs_write_errors_total"),
    number("read_errors", "", "Reads that devices refused.").metric("hub_btrfs_read_errors_total"),
    number("flush_errors", "", "Flushes that devices refused.").metric("hub_btrfs_flush_errors_total"),
    number("corruption_errors", "", "Blocks whose checksum was wrong.").metric("hub_btrfs_corruption_errors_total"),
    number("generation_errors", "", "Blocks that were older than they should be.")
        .metric("hub_btrfs_generation_errors_total"),
];
