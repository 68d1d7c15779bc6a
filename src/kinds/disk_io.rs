use super::{Each, Kind, Measure, Part, name, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "disk_io",
    help: "What block devices do (Documentation/admin-guide/iostats.rst).",
    parts: &[Part {
        each: Each::Object("", name("device", "device")),
        view: Some(("metrics_disk_io", 2)),
        table: TABLE,
    }],
};

const TABLE: &[Measure] = &[
    number("read_bytes", "bytes", "Bytes read.").metric("hub_disk_read_bytes_total"),
    number("written_bytes", "bytes", "Bytes written.").metric("hub_disk_written_bytes_total"),
    number("reads", "", "Reads completed.").metric("hub_disk_reads_completed_total"),
    number("writes", "", "Writes completed.").metric("hub_disk_writes_completed_total"),
    number("in_flight", "", "Requests in flight.").metric("hub_disk_io_now"),
    number("read_bytes_per_second", "bytes/s", "Bytes read a second since the run before."),
    number("written_bytes_per_second", "bytes/s", "Bytes written a second since the run before."),
    number("reads_per_second", "1/s", "Reads completed a second since the run before."),
    number("writes_per_second", "1/s", "Writes completed a second since the run before."),
    number("busy_percent", "percent", "Share of the time since the run before in which the device was busy."),
    number("read_wait_ms", "ms", "How long a read took on average since the run before."),
    number("write_wait_ms", "ms", "How long a write took on average since the run before."),
    text("kind", "Kind of each device, and its owner's name for it.").metric("hub_disk_info"),
    text("name", "Its owner's name for it: of a volume, an array or a file system.").metric("hub_disk_info"),
    number("read_ms", "ms", "Time that reads took, all added up.")
        .unseen()
        .scaled("hub_disk_read_time_seconds_total", 1e-3),
    number("write_ms", "ms", "Time that writes took, all added up.")
        .unseen()
        .scaled("hub_disk_write_time_seconds_total", 1e-3),
    number("busy_ms", "ms", "Time in which the device was busy.")
        .unseen()
        .scaled("hub_disk_io_time_seconds_total", 1e-3),
];
