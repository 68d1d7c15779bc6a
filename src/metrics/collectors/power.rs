use std::path::Path;

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::payload::{Payload, Put, Report};
use crate::metrics::{Error, device, roots};

/// The bits of a Raspberry Pi's `get_throttled` (raspberrypi.com, "vcgencmd get_throttled"): now, and since boot.
const THROTTLED: [(&str, u32); 4] =
    [("under_voltage", 0), ("frequency_capped", 1), ("throttled", 2), ("soft_temperature_limit", 3)];
const SINCE_BOOT: u32 = 16;

/// Reads `get_throttled`: a number in hexadecimal, with or without `0x`.
pub(super) fn throttled(text: &str) -> Option<Payload> {
    let bits = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    let mut flags = Map::new();
    for (name, bit) in THROTTLED {
        flags.put(name, bits & (1 << bit) != 0);
        flags.put(&format!("{name}_since_boot"), bits & (1 << (bit + SINCE_BOOT)) != 0);
    }
    Some(flags)
}

/// The Pi's flags as the firmware driver shows them; its folder is named after the chip's bus address.
fn firmware(sys: &Path) -> Option<Payload> {
    let platform = sys.join("devices/platform");
    let is_soc = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with("soc");
    let below = |folder: &Path| -> Option<String> {
        let names = roots::names(folder);
        let firmware = names.iter().filter(|name| name.to_string_lossy().ends_with(":firmware"));
        firmware.filter_map(|name| roots::value(&folder.join(name).join("get_throttled"))).next()
    };
    roots::names(&platform).iter().filter(is_soc).find_map(|name| throttled(&below(&platform.join(name))?))
}

/// The alarm of the driver raspberrypi-hwmon: set while the supply is below 4.63 V.
fn under_voltage(sys: &Path) -> Option<bool> {
    let class = sys.join("class/hwmon");
    let names = roots::names(&class);
    let chips = names.iter().map(|name| class.join(name));
    let mut pi = chips.filter(|chip| roots::value(&chip.join("name")).is_some_and(|name| name == "rpi_volt"));
    pi.find_map(|chip| roots::number::<u8>(&chip.join("in0_lcrit_alarm"))).map(|alarm| alarm != 0)
}

/// How often x86 processors were slowed down by heat: the sum over cores, and the most of any package.
fn throttle_counts(sys: &Path) -> Option<(u64, u64)> {
    let cpus = sys.join("devices/system/cpu");
    let names = roots::names(&cpus);
    let is_cpu =
        |name: &str| name.strip_prefix("cpu").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    let folders = names.iter().filter(|name| is_cpu(&name.to_string_lossy()));
    let mut counts = None;
    for folder in folders.map(|name| cpus.join(name).join("thermal_throttle")) {
        // One CPU without the folder means none has it.
        let core = roots::number::<u64>(&folder.join("core_throttle_count"))?;
        let package = roots::number::<u64>(&folder.join("package_throttle_count")).unwrap_or(0);
        let (cores, packages) = counts.unwrap_or((0u64, 0u64));
        counts = Some((cores.saturating_add(core), packages.max(package)));
    }
    counts
}

/// The wear of eMMC storage (Documentation/driver-api/mmc/mmc-dev-attrs.rst; JEDEC JESD84-B51, EXT_CSD 267 to 269):
/// `life_time` counts used tenths of the expected life, 0x0B beyond it; `pre_eol_info` says how much of the reserve is
/// used. 0 means not defined.
pub(super) fn wear(life_time: &str, pre_eol: &str) -> Option<Payload> {
    let hexadecimal = |text: &str| u8::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
    let tenths = life_time.split_ascii_whitespace().filter_map(hexadecimal).filter(|tenths| (1..=11).contains(tenths));
    let mut wear = Map::new();
    // The worse of the two types of memory; 0x01 stands for "0 to 10 % used".
    wear.put_some("life_used_percent", tenths.max().map(|tenths| u64::from(tenths) * 10));
    let reserve = match hexadecimal(pre_eol) {
        Some(1) => Some("normal"),
        Some(2) => Some("warning"),
        Some(3) => Some("urgent"),
        _ => None,
    };
    wear.put_some("reserve", reserve);
    (!wear.is_empty()).then_some(wear)
}

/// The wear of each storage device that tells it everybody: eMMC, and UFS, whose two numbers mean the same (JEDEC
/// JESD220, device health descriptor; Documentation/ABI/testing/sysfs-driver-ufs). One that sleeps is not asked, as that
/// would wake it.
fn worn(sys: &Path) -> Payload {
    let mut worn = Map::new();
    let mut put = |device: &std::ffi::OsStr, life_time: Option<String>, reserve: &Path| {
        let reserve = roots::value(reserve).unwrap_or_default();
        if let Some(wear) = life_time.and_then(|life_time| wear(&life_time, &reserve)) {
            worn.put(&device.to_string_lossy(), Value::Object(wear));
        }
    };
    let block = sys.join("block");
    for disk in roots::names(&block).iter().filter(|name| name.to_string_lossy().starts_with("mmcblk")) {
        let device = block.join(disk).join("device");
        put(disk, roots::value(&device.join("life_time")), &device.join("pre_eol_info"));
    }
    for bus in ["platform", "pci"].map(|bus| sys.join("bus").join(bus).join("drivers")) {
        for driver in roots::names(&bus).iter().filter(|name| name.to_string_lossy().contains("ufs")) {
            for device in roots::names(&bus.join(driver)) {
                let folder = bus.join(driver).join(&device);
                let health = folder.join("health_descriptor");
                if !health.is_dir() || device::sleeps(&folder) {
                    continue;
                }
                let of = |kind| roots::value(&health.join(format!("life_time_estimation_{kind}")));
                let life_time = of("a").map(|a| format!("{a} {}", of("b").unwrap_or_default()));
                put(&device, life_time, &health.join("eol_info"));
            }
        }
    }
    worn
}

/// Collects the `power` row; there is none where the host says nothing of all this.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let sys = &context.roots.sys;
    let mut row = firmware(sys).unwrap_or_default();
    // The alarm is polled by the kernel; the firmware's bit is from this moment.
    if !row.contains_key("under_voltage") {
        row.put_some("under_voltage", under_voltage(sys));
    }
    if let Some((cores, packages)) = throttle_counts(sys) {
        row.put("core_throttles", cores);
        row.put("package_throttles", packages);
    }
    let worn = worn(sys);
    if !worn.is_empty() {
        row.put("wear", worn);
    }
    let rows = if row.is_empty() { Vec::new() } else { vec![(kinds::power::KIND.name, row)] };
    Ok(Report { rows, ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_get_throttled_are_named() {
        let flags = throttled("50005\n").unwrap();
        let set: Vec<&String> = flags.iter().filter(|(_, set)| **set == true).map(|(name, _)| name).collect();
        assert_eq!(set, ["under_voltage", "under_voltage_since_boot", "throttled", "throttled_since_boot"]);
        assert_eq!(throttled("0x0").unwrap().len(), 8);
        assert!(throttled("").is_none());
    }

    #[test]
    fn wear_is_the_worse_of_both_types() {
        let expected = serde_json::json!({"life_used_percent": 30, "reserve": "normal"});
        assert_eq!(Value::Object(wear("0x01 0x03\n", "0x01\n").unwrap()), expected);
        assert_eq!(wear("0x0b 0x00", "0x03").unwrap()["life_used_percent"], 110);
        assert!(wear("0x00 0x00", "0x00").is_none());
    }

    #[test]
    fn wear_of_emmc_and_ufs_is_told_and_what_sleeps_is_not_asked() {
        let dir = roots::tree(&[
            ("block/mmcblk0/device/life_time", "0x02 0x01\n"),
            ("block/mmcblk0/device/pre_eol_info", "0x01\n"),
            ("block/sda/device/model", "KLUDG4U1EA-B0C1\n"),
            ("bus/platform/drivers/ufshcd-qcom/bind", ""),
            ("bus/platform/drivers/ufshcd-qcom/1d84000.ufshc/health_descriptor/eol_info", "0x02\n"),
            ("bus/platform/drivers/ufshcd-qcom/1d84000.ufshc/health_descriptor/life_time_estimation_a", "0x01\n"),
            ("bus/platform/drivers/ufshcd-qcom/1d84000.ufshc/health_descriptor/life_time_estimation_b", "0x0a\n"),
            ("bus/platform/drivers/ufshcd-qcom/1d84000.ufshc/power/runtime_status", "active\n"),
            ("bus/platform/drivers/exynos-ufshc/2.ufs/health_descriptor/life_time_estimation_a", "0x03\n"),
            ("bus/platform/drivers/exynos-ufshc/2.ufs/power/runtime_status", "suspended\n"),
            ("bus/pci/drivers/ufshcd/0000:00:12.5/health_descriptor/life_time_estimation_a", "0x00\n"),
            ("bus/pci/drivers/ufshcd/0000:00:12.5/health_descriptor/eol_info", "0x03\n"),
        ]);
        let expected = serde_json::json!({
            "mmcblk0": {"life_used_percent": 20, "reserve": "normal"},
            "1d84000.ufshc": {"life_used_percent": 100, "reserve": "warning"},
            "0000:00:12.5": {"reserve": "urgent"},
        });
        assert_eq!(Value::Object(worn(dir.path())), expected);
    }
}
