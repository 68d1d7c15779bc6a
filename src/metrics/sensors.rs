use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::collect::Context;
use super::payload::{Payload, Put, Report, decimal};
use super::roots;

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
    /// Degrees Celsius.
    pub temperatures: Vec<(String, f64)>,
    /// Revolutions a minute.
    pub fans: Vec<(String, u64)>,
}

/// The readings of a hwmon folder (Documentation/hwmon/sysfs-interface.rst). A sensor that does not answer, or says
/// itself that it is faulty, has no reading.
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
    for place in [folder, &inner] {
        for file in roots::names(place) {
            let file = file.to_string_lossy();
            let Some(sensor) = file.strip_suffix("_input") else { continue };
            let label = || {
                let label = roots::value(&place.join(format!("{sensor}_label"))).filter(|label| !label.is_empty());
                label.unwrap_or_else(|| sensor.to_owned())
            };
            let faulty = || roots::number::<u8>(&place.join(format!("{sensor}_fault"))) == Some(1);
            if sensor.starts_with("temp") {
                if let Some(celsius) = celsius(&place.join(file.as_ref())).filter(|_| !faulty()) {
                    chip.temperatures.push((label(), celsius));
                }
            } else if sensor.starts_with("fan")
                && let Some(speed) = roots::number(&place.join(file.as_ref())).filter(|_| !faulty())
            {
                chip.fans.push((label(), speed));
            }
        }
        if !chip.temperatures.is_empty() || !chip.fans.is_empty() {
            break;
        }
    }
    Some(chip)
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
        let Some(celsius) = celsius(&folder.join("temp")) else { continue };
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

/// Readings by chip and label. Chips of one name are told apart by their device, `coretemp@coretemp.1`; labels of one
/// name in a chip by a number.
fn by_chip<T: Copy + Into<Value>>(chips: &[Chip], readings: impl Fn(&Chip) -> &Vec<(String, T)>) -> Payload {
    let mut count: HashMap<&str, usize> = HashMap::new();
    for chip in chips.iter().filter(|chip| !readings(chip).is_empty()) {
        *count.entry(&chip.name).or_default() += 1;
    }
    let mut payload = Map::new();
    for chip in chips.iter().filter(|chip| !readings(chip).is_empty()) {
        let mut values = Map::new();
        for (label, value) in readings(chip) {
            let mut key = label.clone();
            let mut number = 2;
            while values.contains_key(&key) {
                key = format!("{label} {number}");
                number += 1;
            }
            values.put(&key, *value);
        }
        let alone = count.get(chip.name.as_str()) == Some(&1);
        let key = if alone { chip.name.clone() } else { format!("{}@{}", chip.name, chip.device) };
        payload.put(&key, values);
    }
    payload
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

/// Finds the processor's temperature whatever its driver is called.
pub(super) fn of_cpu(chips: &[Chip]) -> CpuTemperatures {
    let mut cpu = CpuTemperatures::default();
    let hottest = |temperatures: &mut dyn Iterator<Item = f64>| temperatures.reduce(f64::max);
    let coretemps = chips.iter().filter(|chip| chip.name == "coretemp" && !chip.temperatures.is_empty());
    for (position, chip) in coretemps.enumerate() {
        let label = |label: &str| label.strip_prefix("Core ").map(|number| format!("core_{number}"));
        for (core, celsius) in chip.temperatures.iter().filter_map(|(name, celsius)| Some((label(name)?, *celsius))) {
            let key = if position == 0 { core } else { format!("{core}@{}", chip.device) };
            cpu.cores.insert(key, celsius);
        }
    }
    let labelled = |name: &'static str, prefixes: &'static [&'static str]| {
        let chips = chips.iter().filter(move |chip| chip.name == name);
        let readings = chips.flat_map(|chip| chip.temperatures.iter());
        readings
            .filter(move |(label, _)| prefixes.iter().any(|prefix| label.starts_with(prefix)))
            .map(|(_, celsius)| *celsius)
    };
    let named = |prefix: &'static str| {
        let chips = chips.iter().filter(move |chip| chip.name.starts_with(prefix));
        chips.flat_map(|chip| chip.temperatures.iter()).map(|(_, celsius)| *celsius)
    };
    cpu.package = hottest(&mut labelled("coretemp", &["Package", "Physical"]))
        .or_else(|| hottest(&mut labelled("k10temp", &["Tctl", "Tdie", "temp1"])))
        .or_else(|| hottest(&mut labelled("zenpower", &["Tctl", "Tdie"])))
        .or_else(|| hottest(&mut named("x86_pkg_temp")))
        .or_else(|| hottest(&mut named("cpu")))
        .or_else(|| hottest(&mut named("soc")));
    cpu
}

/// Collects the `temperature` and `fan` rows. A virtual machine has no sensors: no row then.
pub(super) fn collect(context: &Context) -> (Report, CpuTemperatures) {
    let chips = read(&context.roots.sys);
    let mut rows = Vec::new();
    let mut temperatures = by_chip(&chips, |chip| &chip.temperatures);
    for readings in temperatures.values_mut().filter_map(Value::as_object_mut) {
        for value in readings.values_mut() {
            *value = decimal(value.as_f64().unwrap_or(f64::NAN), 3);
        }
    }
    let fans = by_chip(&chips, |chip| &chip.fans);
    for (kind, payload) in [("temperature", temperatures), ("fan", fans)] {
        if !payload.is_empty() {
            rows.push((kind, payload));
        }
    }
    (Report { rows, ..Report::default() }, of_cpu(&chips))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    fn temperatures(chips: &[Chip]) -> Value {
        Value::Object(by_chip(chips, |chip| &chip.temperatures))
    }

    #[test]
    fn a_zone_with_a_chip_is_shown_once_and_has_the_same_name_without_one() {
        let zone = ("class/thermal/thermal_zone0/type", "cpu-thermal\n");
        let temp = ("class/thermal/thermal_zone0/temp", "48312\n");
        let alone = read(tree(&[zone, temp]).path());
        let both = read(
            tree(&[
                zone,
                temp,
                ("class/hwmon/hwmon0/name", "cpu_thermal\n"),
                ("class/hwmon/hwmon0/temp1_input", "48312\n"),
            ])
            .path(),
        );
        assert_eq!(temperatures(&alone), serde_json::json!({"cpu_thermal": {"temp1": 48.312}}));
        assert_eq!(temperatures(&alone), temperatures(&both));
        assert_eq!(of_cpu(&alone).package, Some(48.312));
    }

    #[test]
    fn chips_of_one_name_are_told_apart_by_their_device() {
        let dir = tree(&[
            ("devices/coretemp.0/x", ""),
            ("devices/coretemp.1/x", ""),
            ("class/hwmon/hwmon3/name", "coretemp"),
            ("class/hwmon/hwmon3/temp1_input", "50000"),
            ("class/hwmon/hwmon3/temp1_label", "Package id 0"),
            ("class/hwmon/hwmon3/temp2_input", "45000"),
            ("class/hwmon/hwmon3/temp2_label", "Core 0"),
            ("class/hwmon/hwmon1/name", "coretemp"),
            ("class/hwmon/hwmon1/temp1_input", "60000"),
            ("class/hwmon/hwmon1/temp1_label", "Package id 1"),
            ("class/hwmon/hwmon1/temp2_input", "55000"),
            ("class/hwmon/hwmon1/temp2_label", "Core 0"),
        ]);
        for (hwmon, device) in [("hwmon3", "coretemp.0"), ("hwmon1", "coretemp.1")] {
            std::os::unix::fs::symlink(
                dir.path().join("devices").join(device),
                dir.path().join("class/hwmon").join(hwmon).join("device"),
            )
            .unwrap();
        }
        let chips = read(dir.path());
        let cpu = of_cpu(&chips);
        assert_eq!(cpu.package, Some(60.0));
        assert_eq!(cpu.cores, [("core_0".to_owned(), 45.0), ("core_0@coretemp.1".to_owned(), 55.0)].into());
        assert_eq!(temperatures(&chips)["coretemp@coretemp.1"]["Core 0"], 55.0);
    }

    #[test]
    fn old_places_odd_values_and_faults_are_handled() {
        let dir = tree(&[
            ("class/hwmon/hwmon0/device/name", "it87"),
            ("class/hwmon/hwmon0/device/temp1_input", "31000"),
            ("class/hwmon/hwmon0/device/temp2_input", "-128000"),
            ("class/hwmon/hwmon0/device/temp3_input", "garbage"),
            ("class/hwmon/hwmon0/device/temp4_input", "40000"),
            ("class/hwmon/hwmon0/device/temp4_fault", "1"),
            ("class/hwmon/hwmon0/device/fan1_input", "900"),
            ("class/hwmon/hwmon1/name", "drivetemp"),
            ("class/hwmon/hwmon1/temp1_input", "33000"),
            ("class/hwmon/hwmon2/temp1_input", "33000"),
            ("class/hwmon/hwmon3/name", "k10temp"),
            ("class/hwmon/hwmon3/temp1_label", "Tctl"),
            ("class/hwmon/hwmon3/temp1_input", "51250"),
        ]);
        std::fs::create_dir_all(dir.path().join("class/hwmon/hwmon3/temp2_input")).unwrap();
        let chips = read(dir.path());
        assert_eq!(temperatures(&chips), serde_json::json!({"it87": {"temp1": 31.0}, "k10temp": {"Tctl": 51.25}}));
        assert_eq!(Value::Object(by_chip(&chips, |chip| &chip.fans)), serde_json::json!({"it87": {"fan1": 900}}));
        assert_eq!(of_cpu(&chips).package, Some(51.25));
        assert!(read(Path::new("/nonexistent")).is_empty());
    }
}
