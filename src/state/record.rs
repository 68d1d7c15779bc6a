use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, Folder};

/// How many earlier runs a record keeps.
const HISTORY: usize = 20;
const FILE: &str = "run.json";
/// Longer records, in bytes, lose their oldest runs: readers refuse what is longer than 1 MiB.
const LONGEST: usize = 512 << 10;
/// What is written over a record that cannot be replaced: hardly any is shorter than a block.
const SHORT: usize = 4000;

/// One run of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// RFC 3339, UTC.
    pub started: String,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
    /// One word that the service's documentation lists, such as `unchanged` or `failed`.
    pub status: String,
    #[serde(default)]
    pub counts: Map<String, Value>,
    /// What went wrong, for the person who reads it.
    #[serde(default)]
    pub error: Option<String>,
    /// The service's own details.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl Run {
    /// True where it found nothing to do, and nothing was wrong: there are many of these.
    fn found_nothing(&self) -> bool {
        self.error.is_none() && ["unchanged", "nothing"].contains(&self.status.as_str())
    }
}

/// The content of `run.json`: the last run and a short history, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Which service's it is.
    pub service: String,
    /// The newest run.
    #[serde(flatten)]
    pub last: Run,
    /// Earlier runs without the last, newest first. Those that found nothing take no place from others.
    #[serde(default)]
    pub history: Vec<Run>,
    /// How many runs in a row, up to the newest, found nothing.
    #[serde(default)]
    pub found_nothing: u64,
}

impl Record {
    /// Adds a run to the record `run.json` of a folder, in the place of what the same run wrote at its start. A damaged
    /// record is replaced: it must not stop the service.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn add(folder: &Folder, service: &str, run: Run) -> Result<(), Error> {
        let record = Self::with(folder, service, run);
        let published = folder.publish_json(FILE, &record);
        record.or_over_the_old(folder, published)
    }

    /// Where the record could not be put in the old one's place, it is written over it.
    fn or_over_the_old(self, folder: &Folder, put: Result<(), Error>) -> Result<(), Error> {
        let Err(error) = put else { return Ok(()) };
        // The old one would go on telling of a run that went well: its bytes are on the disk and can hold this.
        match folder.overwrite(FILE, &self.within(SHORT)) {
            Ok(true) => crate::log::warn!("run_record_overwritten", error = error.to_string()),
            Ok(false) => return Err(error),
            Err(second) => {
                crate::log::warn!("run_record_not_overwritten", error = second.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same for a service that runs every minute: it is the system that chooses when the record reaches the disk,
    /// which spares an SD card two waits a run. After a power cut the record may be one of some runs before.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn add_lazily(folder: &Folder, service: &str, run: Run) -> Result<(), Error> {
        let record = Self::with(folder, service, run);
        let noted = folder.note_json(FILE, &record);
        record.or_over_the_old(folder, noted)
    }

    fn with(folder: &Folder, service: &str, run: Run) -> Self {
        let (mut history, mut found_nothing) = (Vec::new(), 0);
        match folder.read_json::<Self>(FILE) {
            Ok(Some(record)) => {
                (history, found_nothing) = (record.history, record.found_nothing);
                if record.last.started != run.started {
                    history.insert(0, record.last);
                }
                // It is the newest of its pipeline alone that says when there was nothing to do.
                let mut seen = vec![run.details["pipeline"].clone()];
                history.retain(|earlier| {
                    let is_first = !seen.contains(&earlier.details["pipeline"]);
                    if is_first {
                        seen.push(earlier.details["pipeline"].clone());
                    }
                    is_first || !earlier.found_nothing()
                });
                history.truncate(HISTORY);
            }
            Ok(None) => {}
            Err(error) => crate::log::warn!("run_record_replaced", error = error.to_string()),
        }
        found_nothing = if run.found_nothing() { found_nothing + 1 } else { 0 };
        let mut record = Self { service: service.to_owned(), last: run, history, found_nothing };
        record.fit(LONGEST);
        record
    }

    /// Leaves out what makes it longer than `limit` bytes of JSON: the oldest runs, then the newest one's details.
    fn fit(&mut self, limit: usize) {
        let length = |record: &Self| serde_json::to_vec(record).map_or(0, |json| json.len());
        while length(self) > limit && self.history.pop().is_some() {}
        if length(self) > limit {
            self.last.details = serde_json::json!({ "left_out": "longer than a record may be" });
            self.last.error = self.last.error.take().map(|error| crate::text::cut(&error, limit / 4).into_owned());
        }
    }

    /// As JSON of at most so many bytes.
    fn within(mut self, limit: usize) -> Vec<u8> {
        self.fit(limit);
        serde_json::to_vec(&self).unwrap_or_default()
    }

    /// Reads the record of a folder; none before the first run.
    ///
    /// # Errors
    /// When it is unreadable or damaged.
    pub fn read(folder: &Folder) -> Result<Option<Self>, Error> {
        folder.read_json(FILE)
    }
}
