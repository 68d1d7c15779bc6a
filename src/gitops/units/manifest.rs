use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Repository;
use crate::random::hex;
use crate::records::short;
use crate::state::{Error, Folder};

const FILE: &str = "manifest.json";

/// Which unit files the hub installed, for which repository. What is not listed here is not the hub's to change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// By their place below the units folder.
    pub files: BTreeMap<String, Owned>,
}

/// One installed unit file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owned {
    pub repository: String,
    /// git's name of the content.
    pub object: String,
    /// SHA-256 of the content, to see drift without git.
    pub digest: String,
    /// The commit that brought this content.
    pub commit: String,
    /// It was enabled once; what the operator did with it since is the operator's.
    #[serde(default)]
    pub enabled_once: bool,
    /// How the packaged unit was that the file stands over, so that it is the same when the file goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packaged: Option<Packaged>,
}

/// How a packaged unit was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packaged {
    pub enabled: bool,
    pub active: bool,
}

impl Manifest {
    pub fn read(gitops: &Folder) -> Result<Self, Error> {
        let manifest = gitops.read_json_within(FILE, 16 << 20).map_err(|error| {
            error.remedied(|| {
                "which unit files are the hub's is not known any more; remove this file: the next runs take over those that are \
                 as their repositories have them, and name the others"
                    .to_owned()
            })
        })?;
        Ok(manifest.unwrap_or_default())
    }

    pub fn write(&self, gitops: &Folder) -> Result<(), Error> {
        gitops.publish_json(FILE, self)
    }

    /// What belongs to a repository under a former name, or under its name in other letter case.
    pub fn former(&mut self, repository: &Repository) -> impl Iterator<Item = &mut Owned> {
        let is_former = |owner: &str| owner != repository.name && repository.is_known_as(owner);
        self.files.values_mut().filter(move |owned| is_former(&owned.repository))
    }

    pub fn of<'a>(&'a self, repository: &'a str) -> impl Iterator<Item = (&'a String, &'a Owned)> {
        self.files.iter().filter(move |(_, owned)| owned.repository == repository)
    }
}

/// SHA-256 in hex.
pub(in crate::gitops) fn digest(content: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(content))
}

/// The name under which another's version of a file is kept.
pub(super) fn saved_name(file: &str, content: &[u8]) -> String {
    format!("{}.{}", file.replace('/', "__"), short(&digest(content)))
}
