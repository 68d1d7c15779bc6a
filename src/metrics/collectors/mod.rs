//! The collectors, one file each, by the kind that they fill. None knows another, and what several need is in the room above.
//! A new one is a file here and a table in `kinds`, each with its line in the list, and a tree in tests/fixtures/metrics.

mod array;
mod btrfs;
mod cpu;
mod disk;
mod disk_io;
mod kernel;
mod load;
mod memory;
mod network;
mod power;
mod pressure;
mod sensors;
mod swap;
mod systemd;
mod time;
mod unit;

use super::Error;
use super::context::Context;
use super::payload::{Payload, Report};
use crate::kinds;

/// Looks at the host, and reports rows of its kind.
pub(super) type Collector = fn(&Context) -> Result<Report, Error>;

/// A row as it is stored; none of what is left for readers only.
pub(super) fn stored(kind: &str, row: Payload) -> Option<Payload> {
    match kind {
        _ if kind == kinds::temperature_critical::KIND.name => None,
        _ if kind == kinds::cpu::KIND.name => Some(cpu::stored(row)),
        _ => Some(row),
    }
}

/// The collectors, in lanes: those of one lane take turns in one thread, so that what hangs costs its lane only. The
/// first lane reads files that the kernel answers from memory; the others may wait for a disk, a bus or a daemon.
pub(super) const LANES: [&[(&str, Collector)]; 4] = [
    &[
        ("cpu", cpu::collect),
        ("load", load::collect),
        ("memory", memory::collect),
        ("swap", swap::collect),
        ("pressure", pressure::collect),
        ("kernel", kernel::collect),
        ("network", network::collect),
        ("disk_io", disk_io::collect),
        ("time", time::collect),
    ],
    &[("disk", disk::collect)],
    &[("sensors", sensors::collect), ("power", power::collect), ("array", array::collect), ("btrfs", btrfs::collect)],
    &[("unit", unit::collect), ("systemd", systemd::collect)],
];
