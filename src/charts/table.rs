use crate::kinds::{self, Kind};
use crate::text;

/// A chart, with a line for each value that it finds.
#[derive(Debug)]
pub struct Chart {
    /// Its name, for JSON and links.
    pub name: &'static str,
    /// Its name, for people.
    pub title: &'static str,
    /// What its values are.
    pub unit: Unit,
    /// The value at its upper edge; none where the highest value is there.
    pub top: Option<f64>,
    /// Where its lines come from.
    pub(super) sources: &'static [Source],
    /// Lines beyond so many are left out, those with the lowest values first.
    pub(super) most: usize,
    /// Whether the line with the highest values comes first, in place of the order of the sources and of names.
    pub(super) busiest_first: bool,
}

/// What values are, as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Percent.
    Percent,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    Rate,
    /// Degrees Celsius.
    Celsius,
}

impl Unit {
    /// A value in a few characters.
    pub fn written(self, value: f64) -> String {
        match self {
            // Only a row that somebody else wrote has it; what is beside it stays where it is.
            _ if !(-1e18..1e18).contains(&value) => format!("{value:.0e}"),
            Self::Percent | Self::Celsius if value.abs() >= 1e5 => format!("{value:.0e}"),
            Self::Percent if value.abs() >= 10.0 || value == 0.0 => format!("{value:.0} %"),
            Self::Percent => format!("{value:.1} %"),
            Self::Celsius => format!("{value:.0} °C"),
            Self::Bytes => text::size(value.max(0.0)),
            Self::Rate => format!("{}/s", text::size(value.max(0.0))),
        }
    }
}

/// A value of a kind, once for each object that the row has it for.
#[derive(Debug)]
pub(super) struct Source {
    pub kind: &'static Kind,
    /// The value's key, as `kinds::each_number` has it.
    pub key: &'static str,
    /// What its line is called, after the label.
    pub name: &'static str,
}

const fn source(kind: &'static Kind, key: &'static str, name: &'static str) -> Source {
    Source { kind, key, name }
}

const CPU: &[Source] = &[
    source(&kinds::cpu::KIND, "usage", "used"),
    source(&kinds::cpu::KIND, "modes.user", "user"),
    source(&kinds::cpu::KIND, "modes.system", "system"),
    source(&kinds::cpu::KIND, "modes.nice", "nice"),
    source(&kinds::cpu::KIND, "modes.iowait", "iowait"),
    source(&kinds::cpu::KIND, "modes.steal", "steal"),
];
const PRESSURE: &[Source] = &[source(&kinds::pressure::KIND, "some.avg60", "")];
const MEMORY: &[Source] =
    &[source(&kinds::memory::KIND, "used_percent", "memory"), source(&kinds::swap::KIND, "used_percent", "swap")];
const SPACE: &[Source] = &[source(&kinds::disk::KIND, "used_percent", "")];
const DISK: &[Source] = &[
    source(&kinds::disk_io::KIND, "read_bytes_per_second", "read"),
    source(&kinds::disk_io::KIND, "written_bytes_per_second", "written"),
];
const NETWORK: &[Source] = &[
    source(&kinds::network::KIND, "rx_bytes_per_second", "received"),
    source(&kinds::network::KIND, "tx_bytes_per_second", "sent"),
];
const TEMPERATURE: &[Source] =
    &[source(&kinds::cpu::KIND, "package_temp", "processor"), source(&kinds::temperature::KIND, "celsius", "")];
const UNIT_CPU: &[Source] = &[source(&kinds::unit::KIND, "cpu_percent", "")];
const UNIT_MEMORY: &[Source] = &[source(&kinds::unit::KIND, "memory", "")];

/// Every chart, in the order in which they are shown.
pub(super) const ALL: &[Chart] = &[
    chart("cpu", "CPU", Unit::Percent, Some(100.0), CPU),
    chart("pressure", "Pressure (tasks that wait)", Unit::Percent, None, PRESSURE),
    chart("memory", "Memory", Unit::Percent, Some(100.0), MEMORY),
    chart("space", "File systems", Unit::Percent, Some(100.0), SPACE),
    busiest("disk", "Disks", Unit::Rate, DISK),
    busiest("network", "Network", Unit::Rate, NETWORK),
    chart("temperature", "Temperature", Unit::Celsius, Some(100.0), TEMPERATURE),
    busiest("unit_cpu", "Units: CPU", Unit::Percent, UNIT_CPU),
    busiest("unit_memory", "Units: memory", Unit::Bytes, UNIT_MEMORY),
];

const fn chart(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    top: Option<f64>,
    sources: &'static [Source],
) -> Chart {
    Chart { name, title, unit, top, sources, most: 12, busiest_first: false }
}

const fn busiest(name: &'static str, title: &'static str, unit: Unit, sources: &'static [Source]) -> Chart {
    Chart { name, title, unit, top: None, sources, most: 6, busiest_first: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_a_number_that_its_kind_knows() {
        for chart in ALL {
            for Source { kind, key, .. } in chart.sources {
                let mut measures = kind.parts.iter().flat_map(|part| part.table);
                let known = measures.any(|measure| !measure.is_text && (measure.key == *key || measure.column == *key));
                assert!(known, "{}: {} has no {key:?}", chart.name, kind.name);
            }
        }
    }
}
