//! The host's state as one value: the page, `/api/status` and `/metrics` are three ways to show it.
//!
//! What other services wrote is read here and never written. Every file may be missing.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::deliveries::{Counts, Deliveries};
use super::listener::Counters;
use super::public::Secrets;
use crate::log;
use crate::records::{
    self, Outcome, Pipeline, Reader, Repository, Trouble, failed_repositories, seconds_between, short,
};
use crate::state::{Folder, Record};
use crate::webhook::queue::Queue;

/// What the status is collected from.
pub(super) struct Sources {
    pub folder: Folder,
    pub repositories: Vec<(String, String)>,
    pub pipelines: Vec<String>,
    pub secrets: Arc<Secrets>,
    pub queue: Arc<Queue>,
    pub deliveries: Arc<Deliveries>,
    pub public: Arc<Counters>,
    pub admin: Arc<Counters>,
    pub holders: Arc<AtomicUsize>,
    /// Why the configuration on the disk is not in force.
    pub refused: Arc<Mutex<Option<String>>>,
    pub instance: String,
    pub started: jiff::Timestamp,
}

/// The host's state at a moment.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// `ok` or `degraded`.
    pub status: &'static str,
    /// `healthy`, `degraded` or `failed`, by what the services wrote down and what the proxy knows of itself. hub status,
    /// which also asks systemd and minds how old each record is, may think worse of the host.
    pub health: &'static str,
    /// Why it is not healthy; empty where it is.
    pub reason: String,
    /// The same, each by itself.
    pub reasons: Vec<String>,
    /// When it was collected, RFC 3339.
    pub time: String,
    #[serde(skip)]
    pub now: jiff::Timestamp,
    pub proxy: Proxy,
    pub queue: QueueStatus,
    pub repositories: Vec<Repository>,
    pub pipelines: Vec<Pipeline>,
    /// Of the other services; the proxy that runs is under `proxy`.
    pub services: Vec<Record>,
    /// Files that are there and cannot be read.
    pub unreadable: Vec<Trouble>,
}

/// The gateway itself.
#[derive(Debug, Serialize)]
pub(super) struct Proxy {
    pub version: &'static str,
    pub instance: String,
    pub started: String,
    pub uptime_seconds: u64,
    pub deliveries: Counts,
    /// Why no delivery can be verified; none where they can, or where no repository is configured.
    pub secret_error: Option<String>,
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
    /// Questions of the gate and of hub status, which are in no other number.
    pub own: u64,
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

impl Sources {
    /// Collects the state of this moment.
    pub fn collect(&self) -> Status {
        let now = jiff::Timestamp::now();
        let mut reader = Reader::new(&self.folder);
        // The proxy's own record is about an earlier process: this one is alive.
        let services: Vec<Record> = reader.services().into_iter().filter(|record| record.service != "proxy").collect();
        let repositories: Vec<Repository> =
            self.repositories.iter().map(|(name, branch)| reader.repository(name, branch)).collect();
        let queue = self.queue(now);
        let secret_error = self.secrets.trouble().filter(|_| !repositories.is_empty());
        let mut reasons: Vec<String> = queue.error.iter().cloned().collect();
        reasons.extend(secret_error.iter().map(|error| format!("the proxy takes no deliveries: {error}")));
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reasons.extend(refused.map(|reason| records::refused("proxy", &reason)));
        let mut failed = queue.error.is_some();
        for service in services.iter().filter(|service| Outcome::of(&service.last) == Outcome::Failed) {
            let run = &service.last;
            let told = failed_repositories(run).or_else(|| run.error.clone()).unwrap_or_else(|| run.status.clone());
            reasons.push(format!("{}: {told}", service.service));
            // After these the last good state is there, or the safe one.
            failed |= !matches!(run.status.as_str(), "rolled_back" | "refused" | "spooled" | "closed" | "unknown");
        }
        for repository in &repositories {
            if let Some(bad) = repository.bad.get() {
                reasons.push(format!("{}: commit {} was rolled back", repository.repository, short(&bad.commit)));
            }
        }
        let pipelines = Pipeline::all(self.pipelines.iter().cloned(), &services);
        for pipeline in &pipelines {
            let told = |error: &&String| reasons.iter().any(|reason| reason.ends_with(error.as_str()));
            if let Some(error) = pipeline.failed.as_ref().filter(|error| !told(error)) {
                reasons.push(format!("reading-sync: {error}"));
                failed = true;
            }
            reasons.extend(pipeline.dead_letters());
            reasons.extend(pipeline.damaged_files());
        }
        reasons.extend(reader.unreadable.iter().map(ToString::to_string));
        Status {
            status: if reasons.is_empty() { "ok" } else { "degraded" },
            health: match (failed, reasons.is_empty()) {
                (true, _) => "failed",
                (false, false) => "degraded",
                (false, true) => "healthy",
            },
            reason: crate::text::listed(&reasons, "; "),
            reasons,
            time: log::rfc3339(now),
            now,
            proxy: Proxy {
                version: crate::VERSION,
                instance: self.instance.clone(),
                started: log::rfc3339(self.started),
                uptime_seconds: seconds_between(self.started, now),
                deliveries: self.deliveries.counts(),
                secret_error,
                public: connections(&self.public),
                admin: connections(&self.admin),
                alive_holders: self.holders.load(Relaxed),
            },
            queue,
            repositories,
            pipelines,
            services,
            unreadable: reader.unreadable,
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
}

fn connections(counters: &Counters) -> Connections {
    let now = counters.snapshot();
    Connections {
        open: now.open,
        accepted: now.accepted,
        own: now.own,
        evicted: now.evicted,
        refused: now.refused,
        timed_out: now.timed_out,
        answered: now.answered,
    }
}
