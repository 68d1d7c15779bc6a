use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use super::installed::Manifest;
use super::{Found, LONGEST_ENTRY, Repository, Sample, Totals, history};
use crate::state::{Entry, Error, Folder, Record, repository_record};

/// Reads what is there; what cannot be read goes to `unreadable` and stops nothing.
#[derive(Debug)]
pub struct Reader<'a> {
    root: &'a Folder,
    /// Files and folders that are there and cannot be read, each once.
    pub unreadable: Vec<Trouble>,
}

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it is, from the state root on; empty where that is not known.
    pub path: String,
    pub sentence: String,
    /// True where this user may not.
    pub is_denied: bool,
}

impl Trouble {
    /// By an error; paths in `root` are told from there.
    pub fn new(error: &Error, root: Option<&Path>) -> Self {
        let path = error.path().unwrap_or(Path::new(""));
        let path = root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path);
        Self { path: path.display().to_string(), sentence: error.to_string(), is_denied: error.is_denied() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// As its sentence.
impl Serialize for Trouble {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.sentence)
    }
}

/// More entries than this are nobody's deployments.
const MOST_ENTRIES: usize = 10_000;
/// A host with ten thousand interfaces has a longer sample than this, in bytes.
const LONGEST_SAMPLE: usize = 8 << 20;

/// A deployment that was cut off: the unit files that it was to install.
#[derive(Deserialize)]
struct CutOff {
    repository: String,
    units: Option<CutOffUnits>,
}

#[derive(Deserialize)]
struct CutOffUnits {
    files: BTreeMap<String, serde::de::IgnoredAny>,
}

impl<'a> Reader<'a> {
    /// A reader of a state root.
    pub fn new(root: &'a Folder) -> Self {
        Self { root, unreadable: Vec::new() }
    }

    /// The run record of a service. The folder names the service, not the file.
    pub fn service(&mut self, service: &str, folder: &str) -> Found<Record> {
        self.read(folder, "run.json").map(|record| Record { service: service.to_owned(), ..record })
    }

    /// How often what happened to each repository; where no run has counted it yet, by the history.
    pub fn totals(&mut self) -> Found<Totals> {
        match self.read("gitops", Totals::FILE) {
            Found::Missing => {
                let found = self.open("gitops").and_then(|folder| history::read(&folder));
                self.heard(found).map(|history| Totals::of(&history))
            }
            found => found,
        }
    }

    /// The newest sample of the host.
    pub fn sample(&mut self) -> Found<Sample> {
        self.read_within("data/metrics", Sample::FILE, LONGEST_SAMPLE)
    }

    /// The repositories that left traces, without their branches.
    pub fn traces(&mut self) -> Vec<(String, String)> {
        let mut names = BTreeSet::new();
        for folder in ["gitops/checked", "gitops/deployed"] {
            let Some(folder) = self.folder(folder).take() else { continue };
            let entries = folder.entries(MOST_ENTRIES);
            names.extend(self.heard(entries).take().iter().flatten().filter_map(repository_of));
        }
        names.into_iter().map(|name| (name, String::new())).collect()
    }

    /// What is known of a repository.
    pub fn repository(&mut self, repository: &str, branch: &str) -> Repository {
        let file = repository_record(repository);
        Repository {
            repository: repository.to_owned(),
            branch: branch.to_owned(),
            deployed: self.read("gitops/deployed", &file),
            checked: self.read("gitops/checked", &file),
            bad: self.read("gitops/bad", &file),
            hold: self.read("gitops/hold", &file),
            open: self.read_within("gitops/journal", &file, LONGEST_ENTRY),
        }
    }

    /// The unit files that gitops-sync installed, by the repository that they belong to; with those of a deployment that was
    /// cut off.
    pub fn owners(&mut self) -> BTreeMap<String, Vec<String>> {
        let found = self.open("gitops").and_then(|folder| Manifest::read(&folder));
        let manifest = self.heard(found).take().flatten();
        let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (file, owned) in manifest.into_iter().flat_map(|manifest| manifest.files) {
            owners.entry(owned.repository).or_default().push(file);
        }
        let journal = self.folder("gitops/journal").take();
        let entries = journal.and_then(|journal| self.heard(journal.entries(MOST_ENTRIES)).take());
        for entry in entries.into_iter().flatten() {
            let Some(name) = entry.name.to_str() else { continue };
            let read = self.open("gitops/journal").and_then(|journal| journal.read_json_within(name, LONGEST_ENTRY));
            let Some(cut) = self.heard::<Option<CutOff>>(read).take().flatten() else { continue };
            let files = owners.entry(cut.repository).or_default();
            let more = cut.units.into_iter().flat_map(|units| units.files.into_keys());
            files.extend(more.filter(|file| !files.contains(file)).collect::<Vec<_>>());
        }
        owners.retain(|_, files| !files.is_empty());
        owners
    }

    /// A JSON file in a folder below the root.
    pub fn read<T: DeserializeOwned>(&mut self, folder: &str, file: &str) -> Found<T> {
        self.read_within(folder, file, 1 << 20)
    }

    fn read_within<T: DeserializeOwned>(&mut self, folder: &str, file: &str, limit: usize) -> Found<T> {
        let found = self.open(folder).and_then(|folder| folder.read_json_within(file, limit));
        match self.heard(found) {
            Found::There(found) => found.map_or(Found::Missing, Found::There),
            other => other.likewise(),
        }
    }

    /// A folder below the root, of which no part may be a link.
    pub fn folder(&mut self, folder: &str) -> Found<Folder> {
        let opened = self.open(folder);
        self.heard(opened)
    }

    /// Takes a result apart; what is wrong is noted.
    pub fn heard<T>(&mut self, found: Result<T, Error>) -> Found<T> {
        let error = match found {
            Ok(found) => return Found::There(found),
            Err(error) if error.is_missing() => return Found::Missing,
            Err(error) => error,
        };
        let trouble = Trouble::new(&error, Some(self.root.path()));
        let sentence = trouble.sentence.clone();
        // One file is one trouble, however it is read.
        if !self.unreadable.iter().any(|known| known.path == trouble.path) {
            self.unreadable.push(trouble);
        }
        if error.is_about_content() { Found::Damaged(sentence) } else { Found::Unreadable(sentence) }
    }

    fn open(&self, folder: &str) -> Result<Folder, Error> {
        let mut parts = Path::new(folder).iter().filter_map(|part| part.to_str());
        let first = self.root.sub(parts.next().unwrap_or("."))?;
        parts.try_fold(first, |folder, part| folder.sub(part))
    }
}

/// The name in a file name such as `acme__infra.json`, as far as it can be told.
pub(super) fn repository_of(entry: &Entry) -> Option<String> {
    Some(entry.name.to_str()?.strip_suffix(".json")?.replacen("__", "/", 1))
}
