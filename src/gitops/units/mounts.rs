//! What a mount of a repository would hide. Under it nobody finds the hub any more, and nothing could take it back.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// Where the hub finds what it runs, obeys and remembers.
#[derive(Debug, Default)]
pub(super) struct Vital {
    /// A mount above these, or on them, hides them.
    places: Vec<PathBuf>,
    /// Of this also what is below.
    state: PathBuf,
}

impl Vital {
    pub fn of(config: &Config, units: &Path) -> Self {
        let program = std::env::current_exe().ok();
        let files = [config.path.as_deref(), program.as_deref()].into_iter().flatten().filter_map(Path::parent);
        let places =
            [units, Path::new("/etc/systemd/system"), Path::new(crate::config::CREDSTORE)].into_iter().chain(files);
        let mut places: Vec<PathBuf> = places.map(Path::to_owned).collect();
        // systemd mounts nothing on a path with links, so that it is the other name that counts.
        places.extend(places.clone().iter().filter_map(|place| place.canonicalize().ok()));
        let state = config.state_dir.canonicalize().unwrap_or_else(|_| config.state_dir.clone());
        Self { places, state }
    }

    /// The place that a mount, or automount, of this name would hide.
    pub fn hidden_by(&self, unit: &str) -> Option<&Path> {
        let point = mount_point(unit)?;
        let hides = |place: &&PathBuf| place.starts_with(&point);
        let state = Some(&self.state).filter(|state| hides(state) || point.starts_with(state));
        state.or_else(|| self.places.iter().find(hides)).map(PathBuf::as_path)
    }
}

/// The folder that a unit mounts something on, which its name tells (systemd.unit(5), String Escaping for Inclusion in Unit
/// Names); none for a unit of another kind.
fn mount_point(unit: &str) -> Option<PathBuf> {
    let stem = unit.strip_suffix(".mount").or_else(|| unit.strip_suffix(".automount"))?;
    let mut bytes = vec![b'/'];
    let mut rest = stem.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.strip_prefix(b"x").and_then(|hex| hex.get(..2)).filter(|_| *first == b'\\');
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(if *first == b'-' { b'/' } else { *first }));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    Some(OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_on_the_way_to_what_is_vital_hides_it() {
        let vital = Vital { places: vec!["/etc/systemd/system".into()], state: "/var/lib/observability-hub".into() };
        for unit in [
            "var.mount",
            "var-lib-observability\\x2dhub.mount",
            "var-lib-observability\\x2dhub-gitops.automount",
            "etc-systemd-system.mount",
            "e\\x74c.mount",
        ] {
            assert!(vital.hidden_by(unit).is_some(), "{unit}");
        }
        for unit in [
            "srv-data.mount",
            "var-lib-observability.mount",
            "var-lib-observability-hub.mount",
            "etc-systemd-system-x.mount",
            "var.service",
            "var\\x2.mount",
        ] {
            assert_eq!(vital.hidden_by(unit), None, "{unit}");
        }
    }
}
