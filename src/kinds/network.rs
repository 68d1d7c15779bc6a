use super::{Each, FLAG, Kind, Measure, Part, name, number, text};

/// What its `help` says.
pub const KIND: Kind = Kind {
    name: "network",
    help: "The network interfaces.",
    parts: &[Part {
        each: Each::Object("", name("interface", "device")),
        view: Some(("metrics_network", 1)),
        table: TABLE,
    }],
};

const TABLE: &[Measure] = &[
    number("rx_bytes", "bytes", "Bytes received.").metric("hub_network_receive_bytes_total"),
    number("tx_bytes", "bytes", "Bytes sent.").metric("hub_network_transmit_bytes_total"),
    number("rx_packets", "", "Packets received.").metric("hub_network_receive_packets_total"),
    number("tx_packets", "", "Packets sent.").metric("hub_network_transmit_packets_total"),
    number("rx_errors", "", "Errors while receiving.").metric("hub_network_receive_errs_total"),
    number("tx_errors", "", "Errors while sending.").metric("hub_network_transmit_errs_total"),
    number("rx_drops", "", "Received packets dropped.").metric("hub_network_receive_drop_total"),
    number("tx_drops", "", "Packets dropped before sending.").metric("hub_network_transmit_drop_total"),
    number("rx_bytes_per_second", "bytes/s", "Bytes received a second since the run before."),
    number("tx_bytes_per_second", "bytes/s", "Bytes sent a second since the run before."),
    number("rx_packets_per_second", "1/s", "Packets received a second since the run before."),
    number("tx_packets_per_second", "1/s", "Packets sent a second since the run before."),
    number("rx_errors_per_second", "1/s", "Errors a second while receiving, since the run before."),
    number("tx_errors_per_second", "1/s", "Errors a second while sending, since the run before."),
    number("rx_drops_per_second", "1/s", "Received packets dropped a second since the run before."),
    number("tx_drops_per_second", "1/s", "Packets dropped a second before sending, since the run before."),
    number("up", FLAG, "1 while the interface is up.").metric("hub_network_up"),
    number("speed_mbps", "Mbit/s", "Speed of the link.").scaled("hub_network_speed_bytes", 125_000.0),
    text("kind", "Kind of each interface.").metric("hub_network_info"),
];
