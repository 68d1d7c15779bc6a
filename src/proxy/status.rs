//! The host's state as one value: the page, `/api/status` and `/metrics` are three ways to show it.
//!
//! What other services wrote is read here and never written. Every file may be missing.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::deliveries::{Counts, Deliveries};
use super::listener::Counters;
use super::public::WebhookSecrets;
use crate::config::{Config, DEFAULT_PATH, Refused};
use crate::health::{self, Answer, Funnel, Level, Reason, Seen, Ways};
use crate::log;
use crate::records::{
    self, Details, Found, Left, Look, Pipeline, Repository, Sample, Totals, Trouble, Wanted, seconds_between,
};
use crate::state::{Folder, Record, Run, SYSTEM_ROOT};
use crate::webhook::queue::Queue;

/// What the status is collected from.
pub(super) struct Sources {
    pub root: Found<Folder>,
    pub config: Config,
    pub secrets: Arc<WebhookSecrets>,
    pub queue: Arc<Queue>,
    pub deliveries: Arc<Deliveries>,
    pub public: Arc<Counters>,
    pub admin: Arc<Counters>,
    pub holders: Arc<AtomicUsize>,
    /// Why the configuration on the disk is not in force.
    pub refused: Arc<Mutex<Option<Refused>>>,
    pub instance: String,
    pub started: jiff::Timestamp,
}

/// The host's state at a moment.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// `ok` or `degraded`.
    pub status: &'static str,
    /// How well the host is, by what the services left and what the proxy knows of itself. hub status, which also asks
    /// systemd, may think worse of it.
    pub health: Level,
    /// Why it is not healthy; empty where it is.
    pub reason: String,
    /// The same, each by itself.
    pub reasons: Vec<Reason>,
    /// When it was collected, RFC 3339.
    pub time: String,
    #[serde(skip)]
    pub now: jiff::Timestamp,
    /// When the host began.
    #[serde(skip)]
    pub booted: Option<jiff::Timestamp>,
    /// How commands are typed here.
    #[serde(skip)]
    pub ways: Ways,
    #[serde(skip)]
    pub totals: Found<Totals>,
    #[serde(skip)]
    pub sample: Found<Sample>,
    pub proxy: Proxy,
    pub queue: QueueStatus,
    pub repositories: Vec<Repository>,
    pub pipelines: Vec<Pipeline>,
    pub funnel: Found<Funnel>,
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
    /// True where a delivery could be verified, whether one is expected or not.
    pub has_secret: bool,
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
    /// None where nobody can tell.
    pub requests: Option<u64>,
    pub oldest_age_seconds: Option<u64>,
    /// Why it takes nothing; none where it does.
    pub error: Option<String>,
}

impl Sources {
    /// Collects the state of this moment.
    pub fn collect(&self) -> Status {
        let now = jiff::Timestamp::now();
        let mut left = Left::read(&self.root, &Wanted::of(Some(&self.config)), now);
        // The proxy's own record is of its start, or about an earlier process; this is what it would write now.
        if let Some(own) = left.services.first_mut() {
            *own = Found::There(self.own_record());
        }
        let queue = self.queue(now);
        let secret_error = self.secrets.trouble();
        let has_secret = secret_error.is_none();
        let secret_error = secret_error.filter(|_| !self.config.repositories.is_empty());
        let proxy = match (&queue.error, &secret_error) {
            (Some(error), _) => Answer::Unwell(error.clone()),
            (None, Some(error)) => Answer::Unverified(error.clone()),
            (None, None) => Answer::Well,
        };
        let ways = self.ways();
        let seen = Seen {
            now,
            config: Ok(&self.config),
            last_valid: None,
            ways: &ways,
            left: &left,
            units: None,
            units_error: None,
            failed: left
                .look
                .get()
                .filter(|look| look.is_within(Look::HOLDS, now))
                .and_then(|look| look.failed.as_ref()),
            up: None,
            proxy: &proxy,
            lives: true,
            waits: &[],
        };
        let reasons = health::judge(&seen);
        let told: Vec<String> = reasons.iter().map(|reason| format!("{}: {}", reason.about, reason.reason)).collect();
        Status {
            status: if reasons.is_empty() { "ok" } else { "degraded" },
            health: Level::of(&reasons),
            reason: crate::text::listed(&told, "; "),
            funnel: health::funnel(&seen),
            reasons,
            time: log::rfc3339(now),
            now,
            booted: left.booted,
            ways: ways.clone(),
            proxy: Proxy {
                version: crate::VERSION,
                instance: self.instance.clone(),
                started: log::rfc3339(self.started),
                uptime_seconds: seconds_between(self.started, now),
                deliveries: self.deliveries.counts(),
                secret_error,
                has_secret,
                public: connections(&self.public),
                admin: connections(&self.admin),
                alive_holders: self.holders.load(Relaxed),
            },
            queue,
            services: left.records().filter(|record| record.service != "proxy").cloned().collect(),
            repositories: left.repositories,
            totals: left.totals,
            sample: left.sample,
            pipelines: left.pipelines,
            unreadable: left.unreadable,
        }
    }

    fn own_record(&self) -> Record {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = Run {
            started: log::rfc3339(self.started),
            duration_ms: 0,
            status: "running".to_owned(),
            counts: serde_json::Map::new(),
            error: None,
            details: records::Gateway { configuration: None, configuration_refused: refused }.written(),
        };
        Record { service: "proxy".to_owned(), last, history: Vec::new(), found_nothing: 0 }
    }

    fn ways(&self) -> Ways {
        let file = self.config.path.as_ref().map(|path| path.display().to_string());
        let state = self.config.state_dir.display().to_string();
        let is_installed = state == SYSTEM_ROOT;
        // In a terminal as it is after an installation; else the same state and file have to be named.
        let (before, after) = match &file {
            _ if is_installed => (String::new(), String::new()),
            Some(file) => (format!("HUB_STATE_DIR={state} "), format!(" --config {file}")),
            None => (format!("HUB_STATE_DIR={state} "), String::new()),
        };
        let file = file.unwrap_or_else(|| DEFAULT_PATH.to_owned());
        Ways { hub: (format!("{before}hub "), after), is_installed, file, state }
    }

    fn queue(&self, now: jiff::Timestamp) -> QueueStatus {
        let depth = self.queue.depth();
        let error = self.queue.check().and(depth.as_ref().map(drop).map_err(Clone::clone)).err();
        let depth = depth.ok();
        let age = |modified| u64::try_from(now.as_second().saturating_sub(modified)).unwrap_or(0);
        QueueStatus {
            requests: depth.as_ref().map(|depth| depth.requests),
            oldest_age_seconds: depth.and_then(|depth| depth.oldest).map(age),
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
