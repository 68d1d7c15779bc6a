use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::payload::{Payload, Put, Report, decimal};
use crate::metrics::{Error, device, roots, surroundings};

/// Reading the temperature of a disk resets the timer that would let it sleep (Documentation/hwmon/drivetemp.rst).
const NOT_READ: [&str; 1] = ["drivetemp"];
/// What a sensor can show: below and above it is not connected, or its driver is mistaken.
const CELSIUS: std::ops::RangeInclusive<f64> = -60.0..=250.0;

/// A chip of `/sys/class/hwmon` or a thermal zone, with its readings by label.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Chip {
    /// The driver's name, `coretemp`.
    pub name: String,
    /// Which one of several of this name: the device it belongs to, which stays when `hwmonN` is numbered anew.
    pub device: String,
    /// Degrees Celsius; none of a sensor that does not answer, which keeps its place, so that the others keep their names.
    pub temperatures: Vec<(String, Option<f64>)>,
    /// From where on the chip says that they are critical, in the same order.
    pub critical: Vec<(String, Option<f64>)>,
    /// Revolutions a minute.
    pub fans: Vec<(String, Option<u64>)>,
}

impl Chip {
    /// What it shows at this moment.
    fn celsius(&self) -> impl Iterator<Item = (&str, f64)> {
        self.temperatures.iter().filter_map(|(label, celsius)| Some((label.as_str(), (*celsius)?)))
    }
}

/// The readings of a hwmon folder (Documentation/hwmon/sysfs-interface.rst). A sensor that does not answer, or says
/// itself that it is faulty, has no reading. A chip whose device sleeps has none either: a question would wake it.
fn chip(folder: &Path) -> Option<Chip> {
    // Old drivers keep name and readings in the device's folder.
    let inner = folder.join("device");
    let name = roots::value(&folder.join("name")).or_else(|| roots::value(&inner.join("name")))?;
    // The link's own text where only a part of sysfs is there.
    let link = std::fs::canonicalize(&inner).or_else(|_| std::fs::read_link(&inner)).ok();
    let device = link.as_deref().and_then(Path::file_name).or(folder.file_name());
    let mut chip = Chip {
        device: device.map(|device| device.to_string_lossy().into_owned()).unwrap_or_default(),
        name,
        ..Chip::default()
    };
    if NOT_READ.contains(&chip.name.as_str()) {
        return Some(chip);
    }
    let sleeps = device::sleeps(folder);
    for place in [folder, &inner] {
        for file in roots::names(place) {
            let file = file.to_string_lossy();
            let Some(sensor) = file.strip_suffix("_input") else { continue };
            let label = || {
                let label = roots::value(&place.join(format!("{sensor}_label"))).filter(|label| !label.is_empty());
                label.unwrap_or_else(|| sensor.to_owned())
            };
            let faulty = || sleeps || roots::number::<u8>(&place.join(format!("{sensor}_fault"))) == Some(1);
            let path = place.join(file.as_ref());
            if sensor.starts_with("temp") {
                let reading = if faulty() { None } else { celsius(&path) };
                chip.temperatures.push((label(), reading));
                chip.critical.push((label(), critical(&place.join(format!("{sensor}_crit")))));
            } else if sensor.starts_with("fan") {
                let reading = if faulty() { None } else { roots::number(&path) };
                chip.fans.push((label(), reading));
            }
        }
        if !chip.temperatures.is_empty() || !chip.fans.is_empty() {
            break;
        }
    }
    Some(chip)
}

/// What a chip calls critical; what it cannot mean, such as 0 or the end of its scale, is none.
fn critical(path: &Path) -> Option<f64> {
    celsius(path).filter(|celsius| (50.0..127.0).contains(celsius))
}

/// A file of thousandths of a degree Celsius.
fn celsius(path: &Path) -> Option<f64> {
    let celsius = roots::number::<f64>(path)? / 1000.0;
    CELSIUS.contains(&celsius).then_some(celsius)
}

/// The thermal zones (Documentation/driver-api/thermal/sysfs-api.rst) that no hwmon chip shows already: the kernel
/// makes a chip for most zones, named like the zone with `_` for `-`, and `x86_pkg_temp` is coretemp's package.
fn zones(class: &Path, chips: &[Chip]) -> Vec<Chip> {
    let known =
        |name: &str| chips.iter().any(|chip| chip.name == name || (chip.name == "coretemp" && name == "x86_pkg_temp"));
    let mut zones: Vec<Chip> = Vec::new();
    for folder in roots::names(class).iter().filter(|name| name.to_string_lossy().starts_with("thermal_zone")) {
        let folder = class.join(folder);
        let Some(kind) = roots::value(&folder.join("type")) else { continue };
        let name = kind.replace('-', "_");
        if known(&name) {
            continue;
        }
        let celsius = if device::sleeps(&folder) { None } else { celsius(&folder.join("temp")) };
        match zones.iter_mut().find(|zone| zone.name == name) {
            // Numbered as the kernel numbers them in the chip it would make.
            Some(zone) => zone.temperatures.push((format!("temp{}", zone.temperatures.len() + 1), celsius)),
            None => zones.push(Chip { name, temperatures: vec![("temp1".to_owned(), celsius)], ..Chip::default() }),
        }
    }
    zones
}

/// All chips and zones of a sysfs tree.
pub(super) fn read(sys: &Path) -> Vec<Chip> {
    let class = sys.join("class/hwmon");
    let folders: Vec<PathBuf> = roots::names(&class).iter().map(|name| class.join(name)).collect();
    let mut chips: Vec<Chip> = folders.iter().filter_map(|folder| chip(folder)).collect();
    let zones = zones(&sys.join("class/thermal"), &chips);
    chips.extend(zones);
    chips.sort_by(|one, two| (&one.name, &one.device).cmp(&(&two.name, &two.device)));
    chips
}

/// Readings by chip and label. Chips of one name are told apart by their device, `coretemp@coretemp.1`, those of one device
/// too and labels of one name in a chip by a number. What has no reading now counts as well: names must not change with it.
fn by_chip<T: Copy + Into<Value>>(chips: &[Chip], readings: impl Fn(&Chip) -> &Vec<(String, Option<T>)>) -> Payload {
    let mut count: HashMap<&str, usize> = HashMap::new();
    for chip in chips.iter().filter(|chip| !readings(chip).is_empty()) {
        *count.entry(&chip.name).or_default() += 1;
    }
    let mut payload = Map::new();
    let mut keys = BTreeSet::new();
    for chip in chips.iter().filter(|chip| !readings(chip).is_empty()) {
        let mut values = Map::new();
        let mut taken = BTreeSet::new();
        for (label, value) in readings(chip) {
            values.put_some(&free(&mut taken, label), *value);
        }
        let alone = count.get(chip.name.as_str()) == Some(&1);
        let key = if alone { chip.name.clone() } else { format!("{}@{}", chip.name, chip.device) };
        let key = free(&mut keys, &key);
        if !values.is_empty() {
            payload.put(&key, values);
        }
    }
    payload
}

/// The name, with a number where it is taken.
fn free(taken: &mut BTreeSet<String>, name: &str) -> String {
    let mut key = name.to_owned();
    for number in 2.. {
        if taken.insert(key.clone()) {
            break;
        }
        key = format!("{name} {number}");
    }
    key
}

/// What the `cpu` row says of temperatures: the hottest package, and cores by the name that dashboards know
/// (`core_0`). Cores of a second processor carry its device's name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CpuTemperatures {
    /// Of the package, or of the whole chip.
    pub package: Option<f64>,
    /// Of each core.
    pub cores: BTreeMap<String, f64>,
}

impl CpuTemperatures {
    fn row(&self) -> Payload {
        let mut row = Payload::new();
        row.put("package_temp", self.package.map_or(Value::Null, |celsius| decimal(celsius, 3)));
        let cores = self.cores.iter().map(|(core, celsius)| (core.clone(), decimal(*celsius, 3)));
        row.put("core_temps", cores.collect::<Map<_, _>>());
        row
    }
}

/// Finds the processor's temperature whatever its driver is called.
pub(super) fn of_cpu(chips: &[Chip]) -> CpuTemperatures {
    let mut cpu = CpuTemperatures::default();
    let hottest = |temperatures: &mut dyn Iterator<Item = f64>| temperatures.reduce(f64::max);
    let coretemps = chips.iter().filter(|chip| chip.name == "coretemp" && !chip.temperatures.is_empty());
    for (position, chip) in coretemps.enumerate() {
        let label = |label: &str| label.strip_prefix("Core ").map(|number| format!("core_{number}"));
        for (core, celsius) in chip.celsius().filter_map(|(name, celsius)| Some((label(name)?, celsius))) {
            let key = if position == 0 { core } else { format!("{core}@{}", chip.device) };
            cpu.cores.insert(key, celsius);
        }
    }
    let labelled = |name: &'static str, prefixes: &'static [&'static str]| {
        let chips = chips.iter().filter(move |chip| chip.name == name);
        let readings = chips.flat_map(Chip::celsius);
        readings
            .filter(move |(label, _)| prefixes.iter().any(|prefix| label.starts_with(prefix)))
            .map(|(_, celsius)| celsius)
    };
    let named = |prefix: &'static str| {
        let chips = chips.iter().filter(move |chip| chip.name.starts_with(prefix));
        chips.flat_map(Chip::celsius).map(|(_, celsius)| celsius)
    };
    cpu.package = hottest(&mut labelled("coretemp", &["Package", "Physical"]))
        .or_else(|| hottest(&mut labelled("k10temp", &["Tctl", "Tdie", "temp1"])))
        .or_else(|| hottest(&mut labelled("zenpower", &["Tctl", "Tdie"])))
        .or_else(|| hottest(&mut named("x86_pkg_temp")))
        .or_else(|| hottest(&mut named("cpu")))
        .or_else(|| hottest(&mut named("soc")));
    cpu
}

/// Takes the readings of a processor that some hypervisors emulate without its sensors: its distance to the limit is 0 then,
/// so that every core is at 100 degrees for ever.
fn without_emulated(chips: &mut [Chip]) {
    for chip in chips.iter_mut().filter(|chip| chip.name == "coretemp") {
        if chip.celsius().all(|(_, celsius)| celsius == 100.0) {
            chip.temperatures.iter_mut().for_each(|(_, reading)| *reading = None);
        }
    }
}

/// Collects the `temperature` and `fan` rows. A virtual machine has no sensors: no row then.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let mut chips = read(&context.roots.sys);
    // Only a guest that has such a chip at all is asked whether it is one.
    if chips.iter().any(|chip| chip.name == "coretemp") && surroundings::is_guest(&context.roots) {
        without_emulated(&mut chips);
    }
    let mut rows = Vec::new();
    let mut temperatures = by_chip(&chips, |chip| &chip.temperatures);
    for readings in temperatures.values_mut().filter_map(Value::as_object_mut) {
        for value in readings.values_mut() {
            *value = decimal(value.as_f64().unwrap_or(f64::NAN), 3);
        }
    }
    let fans = by_chip(&chips, |chip| &chip.fans);
    let critical = by_chip(&chips, |chip| &chip.critical);
    for (kind, payload) in [
        (kinds::temperature::KIND, temperatures),
        (kinds::temperature_critical::KIND, critical),
        (kinds::fan::KIND, fans),
    ] {
        if !payload.is_empty() {
            rows.push((kind.name, payload));
        }
    }
    let additions = vec![(kinds::cpu::KIND.name, of_cpu(&chips).row())];
    Ok(Report { rows, additions, ..Report::default() })
}

#[cfg(test)]
mod tests;
