use super::*;
use crate::metrics::roots::tree;

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
fn a_reading_that_fails_changes_no_name() {
    let zones: &[(&str, &str)] = &[
        ("class/thermal/thermal_zone0/type", "acpitz"),
        ("class/thermal/thermal_zone0/temp", "41000"),
        ("class/thermal/thermal_zone1/type", "acpitz"),
        ("class/thermal/thermal_zone1/temp", "42000"),
        ("class/hwmon/hwmon0/name", "jc42"),
        ("class/hwmon/hwmon0/temp1_input", "30000"),
        ("class/hwmon/hwmon1/name", "jc42"),
        ("class/hwmon/hwmon1/temp1_input", "31000"),
        ("class/hwmon/hwmon2/name", "asus"),
        ("class/hwmon/hwmon2/temp1_input", "50000"),
        ("class/hwmon/hwmon2/temp1_label", "Board"),
        ("class/hwmon/hwmon2/temp2_input", "51000"),
        ("class/hwmon/hwmon2/temp2_label", "Board"),
    ];
    let dir = tree(zones);
    let whole = temperatures(&read(dir.path()));
    assert_eq!(whole["acpitz"], serde_json::json!({"temp1": 41.0, "temp2": 42.0}));
    for (file, chip, label) in [
        ("thermal/thermal_zone0/temp", "acpitz", "temp1"),
        ("hwmon/hwmon0/temp1_input", "jc42@hwmon0", "temp1"),
        ("hwmon/hwmon2/temp1_input", "asus", "Board"),
    ] {
        let dir = tree(zones);
        std::fs::write(dir.path().join("class").join(file), "error").unwrap();
        let mut expected = whole.clone();
        let readings = expected[chip].as_object_mut().unwrap();
        readings.shift_remove(label);
        if readings.is_empty() {
            expected.as_object_mut().unwrap().shift_remove(chip);
        }
        assert_eq!(temperatures(&read(dir.path())), expected, "{file}");
    }
}

#[test]
fn what_sleeps_is_not_asked() {
    for (place, status, asked) in [
        ("device/power", "suspended", false),
        ("device/device/power", "suspending", false),
        ("power", "suspended", false),
        ("device/power", "active", true),
        ("device/power", "unsupported", true),
    ] {
        let path = format!("class/hwmon/hwmon0/{place}/runtime_status");
        let dir = tree(&[
            ("class/hwmon/hwmon0/name", "amdgpu"),
            ("class/hwmon/hwmon0/temp1_input", "40000"),
            ("class/hwmon/hwmon0/fan1_input", "900"),
            (&path, status),
        ]);
        let chips = read(dir.path());
        assert_eq!(temperatures(&chips).get("amdgpu").is_some(), asked, "{path} {status}");
        assert_eq!(by_chip(&chips, |chip| &chip.fans).contains_key("amdgpu"), asked, "{path} {status}");
    }
}

#[test]
fn chips_of_one_name_on_one_device_are_all_there() {
    let dir = tree(&[
        ("devices/phy0/x", ""),
        ("class/hwmon/hwmon1/name", "mt7915"),
        ("class/hwmon/hwmon1/temp1_input", "50000"),
        ("class/hwmon/hwmon2/name", "mt7915"),
        ("class/hwmon/hwmon2/temp1_input", "60000"),
    ]);
    for hwmon in ["hwmon1", "hwmon2"] {
        let link = dir.path().join("class/hwmon").join(hwmon).join("device");
        std::os::unix::fs::symlink(dir.path().join("devices/phy0"), link).unwrap();
    }
    let expected = serde_json::json!({"mt7915@phy0": {"temp1": 50.0}, "mt7915@phy0 2": {"temp1": 60.0}});
    assert_eq!(temperatures(&read(dir.path())), expected);
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
