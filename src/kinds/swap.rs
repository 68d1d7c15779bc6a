use super::{Each, Kind, Measure, Part, number};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "swap",
    help: "Swap space, and the page faults that it makes dear.",
    parts: &[Part { each: Each::Row, view: Some(("metrics_swap", 2)), table: TABLE }],
};

const TABLE: &[Measure] = &[
    number("total", "bytes", "Swap space.").metric("hub_swap_size_bytes"),
    number("used", "bytes", "Swap space in use.").metric("hub_swap_used_bytes"),
    number("free", "bytes", "Free swap space.").metric("hub_swap_free_bytes"),
    number("used_percent", "percent", "Share of the swap space that is used."),
    number("in_pages_per_second", "pages/s", "Pages read from swap space a second since the run before."),
    number("out_pages_per_second", "pages/s", "Pages written to swap space a second since the run before."),
    number("faults_per_second", "1/s", "Page faults a second since the run before."),
    number("major_faults_per_second", "1/s", "Page faults a second that had to read from disk, since the run before."),
    number("in_pages", "pages", "Pages read from swap space.").unseen().metric("hub_swap_in_pages_total"),
    number("out_pages", "pages", "Pages written to swap space.").unseen().metric("hub_swap_out_pages_total"),
    number("faults", "", "Page faults.").unseen().metric("hub_page_faults_total"),
    number("major_faults", "", "Page faults that had to read from disk.")
        .unseen()
        .metric("hub_page_faults_major_total"),
    number("cached", "bytes", "Swap space whose content is in memory, too.").unseen(),
];
