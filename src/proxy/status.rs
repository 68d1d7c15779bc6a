//! The host's state as one value: the page, `/api/status` and `/metrics` are three ways to show it.
//!
//! What other services wrote is read here and never written (design §10). Every file may be missing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::deliveries::{Counts, Deliveries};
use super::listener::Counters;
use crate::log;
use crate::state::{Folder, Record, Run, repository_file_name};
use crate::webhook::queue::Queue;

/// Services and the folders of their run records (design §10).
const SERVICES: [(&str, &str); 5] = [
    ("proxy", "proxy"),
    ("gitops-sync", "gitops"),
    ("tailscale-gate", "gate"),
    ("reading-sync", "reading"),
    ("system-metrics", "data/metrics"),
];

/// What the status is collected from.
pub(super) struct Sources {
    pub folder: Folder,
    pub repositories: Vec<(String, String)>,
    pub queue: Arc<Queue>,
    pub deliveries: Arc<Deliveries>,
    pub public: Arc<Counters>,
    pub admin: Arc<Counters>,
    pub holders: Arc<AtomicUsize>,
    pub instance: String,
    pub started: jiff::Timestamp,
}

/// The host's state at a moment.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// `ok` or `degraded`.
    pub status: &'static str,
    /// Why it is degraded; empty where it is not.
    pub reason: String,
    /// When it was collected, RFC 3339.
    pub time: String,
    #[serde(skip)]
    pub now: jiff::Timestamp,
    pub proxy: Proxy,
    pub queue: QueueStatus,
    pub repositories: Vec<RepositoryStatus>,
    pub services: Vec<Record>,
    /// Files that are there and cannot be read.
    pub unreadable: Vec<String>,
}

/// The gateway itself.
#[derive(Debug, Serialize)]
pub(super) struct Proxy {
    pub version: &'static str,
    pub instance: String,
    pub started: String,
    pub uptime_seconds: u64,
    pub deliveries: Counts,
    pub public: Connections,
    pub admin: Connections,
    /// Connections that hold alive.sock.
    pub alive_holders: usize,
}

/// The connections of one listener since the start.
#[derive(Debug, Serialize)]
pub(super) struct Connections {
    pub open: u64,
    pub accepted: u64,
    pub evicted: u64,
    pub refused: u64,
    pub timed_out: u64,
    /// Answers by class of status: 2xx, 3xx, 4xx, 5xx.
    pub answered: [u64; 4],
}

/// Deliveries that wait for gitops-sync.
#[derive(Debug, Serialize)]
pub(super) struct QueueStatus {
    pub requests: u64,
    pub oldest_age_seconds: Option<u64>,
    /// Why it takes nothing; none where it does.
    pub error: Option<String>,
}

/// What gitops-sync says about a repository.
#[derive(Debug, Serialize)]
pub(super) struct RepositoryStatus {
    pub repository: String,
    pub branch: String,
    pub deployed: Option<Deployed>,
    pub checked: Option<Checked>,
    pub bad: Option<Bad>,
    pub hold: Option<Hold>,
}

/// `gitops/deployed/<file>.json`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Deployed {
    pub commit: String,
    pub at: String,
}

/// `gitops/checked/<file>.json`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checked {
    pub at: String,
    pub status: String,
    #[serde(default)]
    pub reason: Option<String>,
}

/// `gitops/bad/<file>.json`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bad {
    pub commit: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub at: Option<String>,
}

/// `gitops/hold/<file>.json`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hold {
    #[serde(default)]
    pub since: Option<String>,
    #[serde(default)]
    pub by: Option<String>,
}

impl Sources {
    /// Collects the state of this moment.
    pub fn collect(&self) -> Status {
        let now = jiff::Timestamp::now();
        let mut unreadable = Vec::new();
        let services = self.services(&mut unreadable);
        let repositories = self.repositories(&mut unreadable);
        let queue = self.queue(now);
        let mut reasons: Vec<String> = queue.error.iter().cloned().collect();
        // The proxy's own record is about an earlier process: this one is alive.
        for service in services.iter().filter(|service| service.service != "proxy") {
            if Outcome::of(&service.last) == Outcome::Failed {
                let error = service.last.error.as_ref().unwrap_or(&service.last.status);
                reasons.push(format!("{}: {error}", service.service));
            }
        }
        for repository in &repositories {
            if let Some(bad) = &repository.bad {
                reasons.push(format!("{}: commit {} was rolled back", repository.repository, short(&bad.commit)));
            }
        }
        Status {
            status: if reasons.is_empty() { "ok" } else { "degraded" },
            reason: reasons.join("; "),
            time: log::rfc3339(now),
            now,
            proxy: Proxy {
                version: env!("CARGO_PKG_VERSION"),
                instance: self.instance.clone(),
                started: log::rfc3339(self.started),
                uptime_seconds: seconds_between(self.started, now),
                deliveries: self.deliveries.counts(),
                public: connections(&self.public),
                admin: connections(&self.admin),
                alive_holders: self.holders.load(Relaxed),
            },
            queue,
            repositories,
            services,
            unreadable,
        }
    }

    fn queue(&self, now: jiff::Timestamp) -> QueueStatus {
        let depth = self.queue.depth();
        let error = self.queue.check().and(depth.as_ref().map(drop).map_err(Clone::clone)).err();
        let depth = depth.unwrap_or_default();
        let age = |modified| u64::try_from(now.as_second().saturating_sub(modified)).unwrap_or(0);
        QueueStatus {
            requests: depth.requests,
            oldest_age_seconds: depth.oldest.map(age),
            error: error.map(|error| error.to_string()),
        }
    }

    fn services(&self, unreadable: &mut Vec<String>) -> Vec<Record> {
        let mut records = Vec::new();
        for (service, folder) in SERVICES {
            let record: Option<Record> = self.read(folder, "run.json", unreadable);
            records.extend(record.map(|record| Record { service: service.to_owned(), ..record }));
        }
        records
    }

    fn repositories(&self, unreadable: &mut Vec<String>) -> Vec<RepositoryStatus> {
        let status = |(repository, branch): &(String, String)| {
            let file = format!("{}.json", repository_file_name(repository));
            RepositoryStatus {
                repository: repository.clone(),
                branch: branch.clone(),
                deployed: self.read("gitops/deployed", &file, unreadable),
                checked: self.read("gitops/checked", &file, unreadable),
                bad: self.read("gitops/bad", &file, unreadable),
                hold: self.read("gitops/hold", &file, unreadable),
            }
        };
        self.repositories.iter().map(status).collect()
    }

    fn read<T: DeserializeOwned>(&self, folder: &str, file: &str, unreadable: &mut Vec<String>) -> Option<T> {
        let mut parts = Path::new(folder).iter().filter_map(|part| part.to_str());
        let first = parts.next().map(|part| self.folder.sub(part));
        let opened =
            first.and_then(|first| parts.try_fold(first, |folder, part| Some(folder.and_then(|f| f.sub(part)))));
        match opened?.and_then(|folder| folder.read_json(file)) {
            Ok(found) => found,
            Err(error) if error.is_missing() => None,
            Err(error) => {
                unreadable.push(error.to_string());
                None
            }
        }
    }
}

fn connections(counters: &Counters) -> Connections {
    let now = counters.snapshot();
    Connections {
        open: now.open,
        accepted: now.accepted,
        evicted: now.evicted,
        refused: now.refused,
        timed_out: now.timed_out,
        answered: now.answered,
    }
}

/// The first characters of a commit, as git shows it.
pub(super) fn short(commit: &str) -> &str {
    commit.char_indices().nth(10).and_then(|(end, _)| commit.get(..end)).unwrap_or(commit)
}

/// Seconds from one instant to a later one; 0 when the clock was set back meanwhile.
pub(super) fn seconds_between(from: jiff::Timestamp, to: jiff::Timestamp) -> u64 {
    u64::try_from(to.as_second() - from.as_second()).unwrap_or(0)
}

/// How a run ended, as far as every service's record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Something was done.
    Done,
    /// There was nothing to do.
    Nothing,
    /// It failed.
    Failed,
}

impl Outcome {
    pub fn of(run: &Run) -> Self {
        if run.error.is_some() { Self::Failed } else { Self::of_word(&run.status) }
    }

    /// By the word that a service wrote down.
    pub fn of_word(status: &str) -> Self {
        match status {
            "failed" | "refused" | "rolled_back" | "rollback_failed" => Self::Failed,
            "unchanged" | "held" | "planned" | "nothing" => Self::Nothing,
            _ => Self::Done,
        }
    }
}
