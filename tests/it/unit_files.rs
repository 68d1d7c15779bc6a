//! Unit files are read as the systemd of this host reads them: random files, `systemctl --root=FOLDER enable`, and the
//! links that it makes.
//!
//! `HUB_TEST_SEED` repeats one round, `HUB_TEST_ROUNDS` sets how many are tried.
#![allow(clippy::print_stderr, reason = "a test may fail anywhere")]

use crate::support::skip;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::engine::Dice;
use crate::support::unit_files::{Maker, UNITS};
use observability_hub::install::Install;

/// What the hub expects of `enable`; an error where it would not deploy the unit.
fn expected(unit: &str, content: &[u8], drop_ins: &[(String, Vec<u8>)]) -> Result<BTreeMap<String, String>, String> {
    let drop_ins = drop_ins.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    let install = Install::read(unit, (unit, content), drop_ins)?;
    // Another unit's links are its own matter.
    if install.also.iter().any(|other| other != unit) {
        Err("takes others along".to_owned())
    } else {
        Ok(install.links())
    }
}

/// The links that systemd makes, and what it says.
fn made(root: &Path, unit: &str) -> (BTreeMap<String, String>, String) {
    let root_argument = format!("--root={}", root.display());
    let output = Command::new("systemctl").args([&root_argument, "enable", unit]).output().unwrap();
    let folder = root.join("etc/systemd/system");
    let mut links = BTreeMap::new();
    let mut look = |folder: &Path, prefix: &str| {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                links.insert(name, target.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    };
    look(&folder, "");
    for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            look(&entry.path(), &format!("{}/", entry.file_name().to_string_lossy()));
        }
    }
    (links, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn random_files_are_enabled_as_the_hub_expects() {
    let Ok(version) = Command::new("systemctl").arg("--version").output() else {
        return skip::skip("unit files", "it needs systemctl");
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version: u32 = version.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = match number("HUB_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HUB_TEST_ROUNDS").unwrap_or(400),
    };
    let (mut compared, mut linked) = (0, 0);
    for seed in rounds {
        let mut maker = Maker(Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let unit = UNITS[maker.below(UNITS.len())];
        let content = maker.unit_file();
        let drop_ins: Vec<(String, Vec<u8>)> =
            (0..maker.below(3)).map(|number| (format!("{number}.conf"), maker.unit_file())).collect();
        let Ok(mut expected) = expected(unit, &content, &drop_ins) else { continue };
        if version < 254 {
            expected.retain(|link, _| !link.contains(".upholds/"));
        }
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/systemd/system");
        std::fs::create_dir_all(folder.join(format!("{unit}.d"))).unwrap();
        std::fs::write(folder.join(unit), &content).unwrap();
        for (name, content) in &drop_ins {
            std::fs::write(folder.join(format!("{unit}.d")).join(name), content).unwrap();
        }
        let (made, said) = made(root.path(), unit);
        let shown: Vec<String> = std::iter::once(&content)
            .chain(drop_ins.iter().map(|(_, content)| content))
            .map(|content| String::from_utf8_lossy(content).into_owned())
            .collect();
        assert_eq!(made, expected, "HUB_TEST_SEED={seed} {unit} {shown:#?}\n{said}");
        compared += 1;
        linked += usize::from(!made.is_empty());
    }
    eprintln!("{compared} compared, {linked} with links");
    assert!(
        number("HUB_TEST_SEED").is_some() || linked * 5 > compared,
        "the files say too little: {linked} of {compared}"
    );
}
