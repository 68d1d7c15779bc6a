//! What collectors count from one run to the next, as the baseline keeps it. Nothing here reads or measures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Cumulative counters of one run, by the collector that reads them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Counters {
    /// By CPU number.
    pub cpus: BTreeMap<u32, Ticks>,
    /// By device name.
    pub disks: BTreeMap<String, OfDisk>,
    /// By interface name.
    pub interfaces: BTreeMap<String, OfInterface>,
    /// By the name of a systemd unit.
    pub units: BTreeMap<String, OfUnit>,
    /// Single values of `/proc/vmstat` and `/proc/stat`, by name.
    pub kernel: BTreeMap<String, u64>,
}

impl Counters {
    /// Takes over what another collector counted.
    pub fn merge(&mut self, other: Self) {
        self.cpus.extend(other.cpus);
        self.disks.extend(other.disks);
        self.interfaces.extend(other.interfaces);
        self.units.extend(other.units);
        self.kernel.extend(other.kernel);
    }
}

/// The counters of one CPU, in ticks, in the order of `proc::MODES`.
pub(super) type Ticks = [u64; 10];

/// A device's counters since it was attached.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct OfDisk {
    /// Major and minor number, and `diskseq` where the kernel has it: a device that was detached and attached again
    /// is another one.
    pub identity: String,
    /// Reads completed.
    pub reads: u64,
    /// Sectors of 512 bytes read.
    pub read_sectors: u64,
    /// Milliseconds that reads took, all added up; 32 bits.
    pub read_ms: Option<u64>,
    /// Writes completed.
    pub writes: u64,
    /// Sectors of 512 bytes written.
    pub write_sectors: u64,
    /// Milliseconds that writes took, all added up; 32 bits.
    pub write_ms: Option<u64>,
    /// Milliseconds in which the device was busy; 32 bits.
    pub busy_ms: Option<u64>,
    /// Requests in flight now; the only field that is no counter.
    #[serde(skip)]
    pub in_flight: Option<u64>,
}

/// An interface's counters since it was registered, in the order of the collector's columns.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct OfInterface {
    /// The interface's index: one that was removed and made again has another.
    pub index: Option<u32>,
    /// The counters.
    pub values: [u64; 8],
}

/// A unit's counters since its control group was made: microseconds of CPU time, bytes read, bytes written; none of what
/// could not be read.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct OfUnit(pub Option<u64>, pub Option<u64>, pub Option<u64>);

/// A file system that did not answer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct Stuck {
    /// When it was first found, seconds since 1970.
    pub since: f64,
    /// When it is asked again, on CLOCK_BOOTTIME.
    pub again: f64,
    /// How long it is left alone, in seconds.
    pub wait: f64,
}

/// The file systems that did not answer, by mount point.
pub(super) type StuckMounts = BTreeMap<String, Stuck>;

/// The file systems that this user cannot reach, by mount point, with the folder that bars the way.
pub(super) type Barred = BTreeMap<String, String>;
