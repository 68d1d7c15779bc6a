use super::{Each, FLAG, Kind, Measure, Part, name, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "disk",
    help: "The mounted file systems.",
    parts: &[Part {
        each: Each::Object("", name("mount", "mountpoint")),
        view: Some(("metrics_disk", 1)),
        table: TABLE,
    }],
};

const TABLE: &[Measure] = &[
    number("total", "bytes", "Size of the file system.").metric("hub_filesystem_size_bytes"),
    number("used", "bytes", "Used space.").metric("hub_filesystem_used_bytes"),
    number("free", "bytes", "Space that users without privileges may take.").metric("hub_filesystem_avail_bytes"),
    number("used_percent", "percent", "Share of what users without privileges can reach that is used, as df shows it."),
    number("reserved", "bytes", "Free space that only root may take.").metric("hub_filesystem_reserved_bytes"),
    number("inodes", "", "Inodes of the file system.").metric("hub_filesystem_files"),
    number("inodes_free", "", "Free inodes.").metric("hub_filesystem_files_free"),
    number("inodes_used_percent", "percent", "Share of the inodes that is used."),
    number("read_only", FLAG, "1 where nothing can be written.").metric("hub_filesystem_readonly"),
    text("device", "What is mounted."),
    text("fstype", "The kind of file system."),
];
