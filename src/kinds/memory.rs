use super::{Each, FLAG, Kind, Measure, Part, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "memory",
    help: "The memory.",
    parts: &[Part { each: Each::Row, view: Some(("metrics_memory", 1)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    number("total", "bytes", "Memory that the kernel can use.").metric("hub_memory_total_bytes"),
    number("available", "bytes", "Memory that can be had without swapping.").metric("hub_memory_available_bytes"),
    number("used", "bytes", "Total less available memory, and less what ZFS can give back.")
        .metric("hub_memory_used_bytes"),
    number("used_percent", "percent", "Share of the total that is used."),
    number("free", "bytes", "Memory that is not used for anything.").metric("hub_memory_free_bytes"),
    number("buffers", "bytes", "Memory for blocks of devices.").metric("hub_memory_buffers_bytes"),
    number("cached", "bytes", "Memory for the content of files.").metric("hub_memory_cached_bytes"),
    number("shared", "bytes", "Memory of tmpfs and shared memory.").metric("hub_memory_shared_bytes"),
    number("slab", "bytes", "Memory for the kernel's own structures.").metric("hub_memory_slab_bytes"),
    number("dirty", "bytes", "Memory that waits to be written to disk.").metric("hub_memory_dirty_bytes"),
    number("committed", "bytes", "Memory that processes were promised.").metric("hub_memory_committed_bytes"),
    number("anonymous", "bytes", "Memory of processes that belongs to no file.").metric("hub_memory_anonymous_bytes"),
    number("zfs_arc", "bytes", "Memory of the cache of ZFS.").metric("hub_memory_zfs_arc_bytes"),
    number("zfs_arc_reclaimable", "bytes", "Part of the cache of ZFS that can be given back.")
        .metric("hub_memory_zfs_arc_reclaimable_bytes"),
    number("slab_reclaimable", "bytes", "Part of slab memory that can be given back.")
        .unseen()
        .metric("hub_memory_slab_reclaimable_bytes"),
    number("writeback", "bytes", "Memory that is being written to disk.").unseen().metric("hub_memory_writeback_bytes"),
    number("available_estimated", FLAG, "True where the kernel does not show what is available (before Linux 3.14).")
        .unseen(),
];
