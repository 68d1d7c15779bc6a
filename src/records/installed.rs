use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::state::{Error, Folder};

/// What gitops-sync says of the unit files that it installed.
#[derive(Deserialize)]
pub(super) struct Manifest {
    pub files: BTreeMap<String, Owned>,
}

#[derive(Deserialize)]
pub(super) struct Owned {
    /// Whose it is; empty where that is not told.
    #[serde(default)]
    pub repository: String,
}

impl Manifest {
    /// # Errors
    /// When it cannot be read, is longer than it ever is, or is none.
    pub(super) fn read(gitops: &Folder) -> Result<Option<Self>, Error> {
        gitops.read_json_within("manifest.json", 16 << 20)
    }
}

/// The unit files that gitops-sync's manifest says the hub installed, without drop-ins; none before the first deployment.
///
/// # Errors
/// As `Manifest::read`.
pub fn installed_units(root: &Folder) -> Result<BTreeSet<String>, Error> {
    match root.sub("gitops").and_then(|gitops| Manifest::read(&gitops)) {
        Ok(manifest) => Ok(manifest
            .into_iter()
            .flat_map(|manifest| manifest.files.into_keys())
            .filter(|file| !file.contains('/'))
            .collect()),
        Err(error) if error.is_missing() => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}
