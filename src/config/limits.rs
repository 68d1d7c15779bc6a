//! `[limits]`: from where on a value of this host is told. All are on; a value of `false` turns one off.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// `[limits]`. None is off.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How full a file system may be, in percent.
    pub disk_percent: Option<f64>,
    /// From where on that is a failure.
    pub disk_failed_percent: Option<f64>,
    /// How many of its inodes may be used, in percent.
    pub inodes_percent: Option<f64>,
    /// From where on that is a failure.
    pub inodes_failed_percent: Option<f64>,
    /// Mount points that may be as full as they are.
    pub disk_except: Vec<String>,
    /// How much memory must be available, in percent, over ten minutes.
    pub memory_available_percent: Option<f64>,
    /// How many pages a second may be swapped in and out at the same time, over five minutes.
    pub swap_pages_per_second: Option<f64>,
    /// For how much of the time all tasks may wait for memory, in percent, over five minutes.
    pub memory_pressure_percent: Option<f64>,
    /// How hot a sensor may be, in degrees Celsius, over five minutes; beyond its chip's own critical one it is a failure.
    pub temperature_celsius: Option<f64>,
    /// How much of the life of an eMMC must be left, in percent.
    pub life_left_percent: Option<f64>,
    /// For how many minutes the clock may be without a source.
    pub clock_minutes: Option<f64>,
    /// How many days before its end the certificate of a `health.url` is told.
    pub certificate_days: Option<f64>,
    /// How many days before its end the key of this node's tailscale is told.
    pub key_days: Option<f64>,
    /// Whether a supply voltage that is too low is told.
    pub under_voltage: bool,
    /// Whether it is told that the kernel killed a process for want of memory.
    pub oom_kill: bool,
    /// Whether it is told that the root file system cannot be written any more.
    pub read_only_root: bool,
    /// Whether an array, a pool or a btrfs that lacks a device is told.
    pub array_degraded: bool,
    /// Whether units of this host that failed are told.
    pub failed_units: bool,
    /// Names of units that may fail; a `*` at the end stands for any rest.
    pub units_except: Vec<String>,
    /// Whether it is told that the host waits for a restart.
    pub reboot_required: bool,
}

/// A number of a unit, or `false`.
#[derive(Clone, Copy)]
struct Number(Option<f64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number, or false to turn this limit off")]
        enum Form {
            Number(f64),
            Off(bool),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) if number.is_finite() && number > 0.0 => Ok(Self(Some(number))),
            Form::Number(number) => {
                Err(D::Error::custom(format!("{number} is out of range; write a number above 0, or false")))
            }
            Form::Off(false) => Ok(Self(None)),
            Form::Off(true) => Err(D::Error::custom("true is no limit; write a number, or leave it out")),
        }
    }
}

/// A share of a whole, or `false`.
#[derive(Clone, Copy)]
struct Percent(Option<f64>);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Number(number) = Number::deserialize(deserializer)?;
        match number.filter(|number| *number >= 100.0) {
            Some(number) => {
                Err(D::Error::custom(format!("{number} is out of range; write a number below 100, or false")))
            }
            None => Ok(Self(number)),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    disk_percent: Option<Percent>,
    disk_failed_percent: Option<Percent>,
    inodes_percent: Option<Percent>,
    inodes_failed_percent: Option<Percent>,
    disk_except: Vec<String>,
    memory_available_percent: Option<Percent>,
    swap_pages_per_second: Option<Number>,
    memory_pressure_percent: Option<Percent>,
    temperature_celsius: Option<Number>,
    life_left_percent: Option<Percent>,
    clock_minutes: Option<Number>,
    certificate_days: Option<Number>,
    key_days: Option<Number>,
    under_voltage: Option<bool>,
    oom_kill: Option<bool>,
    read_only_root: Option<bool>,
    array_degraded: Option<bool>,
    failed_units: Option<bool>,
    units_except: Vec<String>,
    reboot_required: Option<bool>,
}

impl Section {
    pub(super) fn read(&self) -> Limits {
        let percent = |known: Option<Percent>, usual: f64| known.map_or(Some(usual), |known| known.0);
        let number = |known: Option<Number>, usual: f64| known.map_or(Some(usual), |known| known.0);
        Limits {
            disk_percent: percent(self.disk_percent, 90.0),
            disk_failed_percent: percent(self.disk_failed_percent, 97.0),
            inodes_percent: percent(self.inodes_percent, 90.0),
            inodes_failed_percent: percent(self.inodes_failed_percent, 97.0),
            disk_except: self.disk_except.clone(),
            memory_available_percent: percent(self.memory_available_percent, 5.0),
            swap_pages_per_second: number(self.swap_pages_per_second, 500.0),
            memory_pressure_percent: percent(self.memory_pressure_percent, 20.0),
            temperature_celsius: number(self.temperature_celsius, 85.0),
            life_left_percent: percent(self.life_left_percent, 10.0),
            clock_minutes: number(self.clock_minutes, 60.0),
            certificate_days: number(self.certificate_days, 14.0),
            key_days: number(self.key_days, 14.0),
            under_voltage: self.under_voltage.unwrap_or(true),
            oom_kill: self.oom_kill.unwrap_or(true),
            read_only_root: self.read_only_root.unwrap_or(true),
            array_degraded: self.array_degraded.unwrap_or(true),
            failed_units: self.failed_units.unwrap_or(true),
            units_except: self.units_except.clone(),
            reboot_required: self.reboot_required.unwrap_or(true),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Section::default().read()
    }
}

impl Limits {
    /// Whether a unit that failed is told.
    pub fn wants_unit(&self, unit: &str) -> bool {
        let is_it = |name: &String| name.strip_suffix('*').map_or(name == unit, |start| unit.starts_with(start));
        self.failed_units && !self.units_except.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Limits, String> {
        toml::from_str::<Section>(text).map(|section| section.read()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_limit_is_on_and_can_be_changed_or_turned_off() {
        let usual = read("").unwrap();
        assert_eq!((usual.disk_percent, usual.clock_minutes, usual.oom_kill), (Some(90.0), Some(60.0), true));
        assert_eq!(usual, Limits::default());
        let other =
            read("disk_percent = 80\ndisk_failed_percent = false\ntemperature_celsius = 70.5\noom_kill = false");
        let other = other.unwrap();
        assert_eq!((other.disk_percent, other.disk_failed_percent), (Some(80.0), None));
        assert_eq!((other.temperature_celsius, other.oom_kill), (Some(70.5), false));
        for (wrong, why) in [
            ("disk_percent = 100", "below 100, or false"),
            ("disk_percent = true", "true is no limit"),
            ("clock_minutes = 0", "above 0, or false"),
            ("clock_minutes = nan", "above 0, or false"),
            ("disk_percent = \"90\"", "expected a number, or false"),
            ("disks = 90", "unknown field `disks`"),
        ] {
            assert!(read(wrong).unwrap_err().contains(why), "{wrong}: {}", read(wrong).unwrap_err());
        }
    }

    #[test]
    fn units_are_left_out_by_name_or_by_its_beginning() {
        let limits = read("units_except = [\"a.service\", \"mnt-*\"]").unwrap();
        for (unit, wanted) in [("a.service", false), ("aa.service", true), ("mnt-x.mount", false), ("b.service", true)]
        {
            assert_eq!(limits.wants_unit(unit), wanted, "{unit}");
        }
        assert!(!read("failed_units = false").unwrap().wants_unit("b.service"));
    }
}
