//! What services leave for readers in their folders: run records, and gitops-sync's files about each repository.
//! Only reading lives here, of files that may be missing, unreadable or damaged; who owns a file writes it. Of histories both
//! are here, since every service has one.
//! Nothing is drawn or judged here: what the words of services mean, and the words in which every reader says it.

mod deployments;
mod details;
mod found;
pub mod history;
mod installed;
mod left;
mod look;
mod plan;
mod reader;
mod repository;
mod sample;
mod totals;
mod uptime;
pub mod versions;
mod words;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use crate::config::{InForce, Refused};
use crate::state::{Record, Run};
use crate::systemd::OWN;
use crate::text::listed;

pub use deployments::Deployment;
pub use details::{Details, Door, FormerName, Gateway, Gitops, Kept, Looked, Metrics, Reading, Unheard, Watch};
pub use found::Found;
pub use installed::installed_units;
pub use left::{Left, Queue, Wanted};
pub use look::{FailedUnit, FailedUnits, Look, Over, UnitState};
pub use plan::{Difference, PlanFile};
pub use reader::{Reader, Trouble};
pub use repository::{
    Bad, Checked, Confirmed, Deployed, Hold, LAST_WORD, LeftOut, Open, Refusal, Repository, Request, Waiting,
};
pub use sample::Sample;
pub use totals::Totals;
pub use uptime::{Uptime, boot};
pub use words::{ago, counted, ended_ago, milliseconds, revert, seconds_between, short, span};

/// The longest entry of the journal, in bytes: a thousand unit files with their links and manifest entries are more than a
/// usual record.
pub const LONGEST_ENTRY: usize = 16 << 20;

/// Services and the folders of their run records.
pub const SERVICES: [(&str, &str); 6] = services();

const fn services() -> [(&'static str, &'static str); 6] {
    let (mut all, mut place, mut at) = ([("", ""); 6], 0, 0);
    while at < OWN.len() {
        if let Some(folder) = OWN[at].folder {
            all[place] = (OWN[at].name, folder);
            place += 1;
        }
        at += 1;
    }
    all
}

/// The `User-Agent` of the questions that the gate and `hub status` ask the proxy, which it counts apart.
pub const ASKS_ITSELF: &str = "observability-hub";

/// What is said of a repository that owns these unit files and is not in hub.toml.
pub fn gone(files: &[String]) -> String {
    let (count, files) = (counted(files.len() as u64, "unit file"), listed(files, " "));
    format!("it is gone from hub.toml and still owns {count}: {files}")
}

/// The hub.toml that the service which left a record goes by; none where it does not say.
pub fn configuration(record: &Record) -> Option<InForce> {
    match record.service.as_str() {
        "proxy" => Gateway::known(&record.last).configuration,
        "tailscale-gate" => Door::known(&record.last).configuration,
        _ => None,
    }
}

/// Why the configuration on the disk is not in force with the service that left a record; none where it is.
pub fn refused_configuration(record: &Record) -> Option<Refused> {
    match record.service.as_str() {
        "proxy" => Gateway::known(&record.last).configuration_refused,
        "tailscale-gate" => Door::known(&record.last).configuration_refused,
        _ => None,
    }
}

/// That, in words.
pub fn refused(service: &str, reason: &str) -> String {
    format!("{service} goes on with the configuration that it has, for the one on the disk is refused: {reason}")
}

/// That files are not read, in words.
pub fn not_read(names: &[String]) -> String {
    format!("not read for their ending (.jsonl, .ndjson or .json, also with .gz, is): {}", names.join(", "))
}

/// How to look at the damaged files of an inbox.
pub fn look_into_failed(inbox: &Path) -> String {
    format!("ls -l {}   # fix and move back what is there, or remove it", inbox.join("failed").display())
}

/// The newest run of a pipeline in the record of reading-sync.
pub fn run_of<'a>(record: &'a Record, pipeline: &str) -> Option<&'a Run> {
    std::iter::once(&record.last).chain(&record.history).find(|run| Reading::known(run).pipeline == pipeline)
}

/// The repositories that a run of gitops-sync failed on, each with one word: its own line says why. None where the run
/// failed as a whole.
pub fn failed_repositories(run: &Run) -> Option<String> {
    let looks = Gitops::known(run).repositories;
    let bad = looks.iter().filter(|look| Outcome::of_word(&look.status) == Outcome::Failed);
    let told: Vec<String> = bad.map(|look| format!("{} {}", look.repository, look.status.replace('_', " "))).collect();
    (!told.is_empty()).then(|| listed(&told, ", "))
}

/// A pipeline as readers see it.
#[derive(Clone, Debug, Serialize)]
pub struct Pipeline {
    /// Its name.
    pub pipeline: String,
    /// Whether hub.toml has it; what one that it has not any more keeps is there still.
    pub configured: bool,
    /// What it keeps; none where that is not known.
    pub kept: Option<Kept>,
    /// Why its newest run failed; none where it did not. The record's newest run may be another pipeline's.
    pub failed: Option<String>,
}

impl Pipeline {
    /// The configured pipelines, by the record of reading-sync, and those of other names that have dead letters. Where the
    /// configuration cannot be read, all that left traces count as configured.
    pub fn all(names: Option<&[String]>, record: Option<&Record>) -> Vec<Self> {
        let kept = record.map(|record| Reading::known(&record.last).kept).unwrap_or_default();
        let failed = |pipeline: &str| {
            let run = run_of(record?, pipeline).filter(|run| Outcome::of(run) == Outcome::Failed)?;
            Some(run.error.clone().unwrap_or_else(|| run.status.clone()))
        };
        let traces = || {
            let of_run = record.map(|record| Reading::known(&record.last).pipeline).filter(|name| !name.is_empty());
            kept.keys().cloned().chain(of_run).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let configured = names.map_or_else(traces, <[String]>::to_vec);
        let is_orphan = |(name, kept): &(&String, &Kept)| kept.dead_letters > 0 && !configured.contains(name);
        let orphans = kept.iter().filter(is_orphan).map(|(name, _)| (name.clone(), false));
        let all = configured.iter().map(|name| (name.clone(), true)).chain(orphans);
        let read = |(pipeline, configured): (String, bool)| Self {
            kept: kept.get(&pipeline).cloned(),
            failed: failed(&pipeline).filter(|_| configured),
            configured,
            pipeline,
        };
        all.map(read).collect()
    }

    /// What it has as dead letters, in words; none where there are none, or nobody knows.
    pub fn dead_letters(&self) -> Option<String> {
        let kept = self.kept.as_ref().filter(|kept| kept.dead_letters > 0)?;
        let (count, verb) = (counted(kept.dead_letters, "document"), if kept.dead_letters == 1 { "is" } else { "are" });
        let orphan = if self.configured { "" } else { "; hub.toml has no such pipeline any more" };
        Some(format!("{}: {count} could not be stored and {verb} kept{orphan}", self.pipeline))
    }

    /// What it has as damaged files, in words; none where there are none, or nobody knows.
    pub fn damaged_files(&self) -> Option<String> {
        let kept = self.kept.as_ref().filter(|kept| kept.damaged_files > 0)?;
        Some(format!("{}: {} in failed/ of the inbox", self.pipeline, counted(kept.damaged_files, "damaged file")))
    }
}

/// How a run ended, as far as every service's record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was done.
    Done,
    /// There was nothing to do.
    Nothing,
    Failed,
}

impl Outcome {
    /// By a run's record.
    pub fn of(run: &Run) -> Self {
        if run.error.is_some() { Self::Failed } else { Self::of_word(&run.status) }
    }

    /// By the word that a service wrote down.
    pub fn of_word(status: &str) -> Self {
        match status {
            "failed" | "lost" | "refused" | "rolled_back" | "rollback_failed" => Self::Failed,
            "unchanged" | "held" | "waiting" | "planned" | "nothing" => Self::Nothing,
            _ => Self::Done,
        }
    }
}
