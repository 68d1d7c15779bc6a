use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::state::{Error, Folder};

/// The longest manifest that is read: that of some thousand units.
const LONGEST: usize = 1 << 20;

#[derive(Deserialize)]
struct Manifest {
    files: BTreeMap<String, IgnoredAny>,
}

/// The unit files that gitops-sync's manifest says the hub installed, without drop-ins; none before the first deployment.
///
/// # Errors
/// When the manifest cannot be read, is longer than a mebibyte, or is none.
pub fn installed_units(root: &Folder) -> Result<BTreeSet<String>, Error> {
    let read = root.sub("gitops").and_then(|gitops| gitops.read_json_within::<Manifest>("manifest.json", LONGEST));
    match read {
        Ok(manifest) => Ok(manifest
            .into_iter()
            .flat_map(|manifest| manifest.files.into_keys())
            .filter(|file| !file.contains('/'))
            .collect()),
        Err(error) if error.is_missing() => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}
