use std::collections::BTreeMap;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::reader::repository_of;
use super::{Details, Door, Found, Look, Pipeline, Reader, Refusal, Repository, SERVICES, Sample, Totals, Trouble};
use crate::config::Config;
use crate::state::{Entry, Folder, Record, lock_holder};

/// More entries are not counted.
const MOST: usize = 10_000;

/// Everything that the services left, as it was read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// The run records, in the order of `SERVICES`.
    pub services: Vec<Found<Record>>,
    /// The configured repositories; those that left traces where the configuration cannot be read.
    pub repositories: Vec<Repository>,
    /// The pipelines, configured or with dead letters.
    pub pipelines: Vec<Pipeline>,
    /// The unit files that are installed, by the repository that they belong to.
    pub owners: BTreeMap<String, Vec<String>>,
    /// Requests for deployments.
    pub queue: Queue,
    /// Files and folders that are there and cannot be read.
    pub unreadable: Vec<Trouble>,
    /// Whether the gate that wrote the record lives; none where other users' processes cannot be seen.
    pub gate: Option<bool>,
    /// Whether a process changes the host at this moment; none where locks cannot be seen.
    pub works: Option<bool>,
    /// What hub watch saw at its last look, however long ago.
    pub look: Found<Look>,
    /// When this host was started.
    pub booted: Option<jiff::Timestamp>,
    /// How often what happened to each repository.
    pub totals: Found<Totals>,
    /// What was measured last, however old it is.
    pub sample: Found<Sample>,
}

/// Requests for deployments, wherever they are. What cannot be seen is none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Queue {
    /// What no run has taken up yet.
    pub requests: Option<usize>,
    /// How long the oldest of them has waited.
    pub oldest_age_seconds: Option<u64>,
    /// What a run is at work on, or was when it was killed.
    pub active: Option<usize>,
    /// The repositories that could not be fetched and are tried again.
    pub retry: Option<Vec<String>>,
    /// Entries that were refused and are kept.
    pub failed: Option<usize>,
    /// Why the newest of them was.
    pub failed_reason: Option<String>,
}

/// What the configuration names.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Repositories with their branches; none where the configuration cannot be read.
    pub repositories: Option<Vec<(String, String)>>,
    pub pipelines: Option<Vec<String>>,
}

impl Wanted {
    /// By a configuration; of none nothing is known.
    pub fn of(config: Option<&Config>) -> Self {
        let repositories = config
            .map(|config| config.repositories.iter().map(|known| (known.name.clone(), known.branch.clone())).collect());
        Self {
            repositories,
            pipelines: config.map(|config| config.pipelines.iter().map(|known| known.name.clone()).collect()),
        }
    }
}

impl Left {
    /// Reads it all. A root that is not there is empty; of one that cannot be opened nothing is known.
    pub fn read(root: &Found<Folder>, wanted: &Wanted, now: jiff::Timestamp) -> Self {
        let mut left = match root.get() {
            Some(root) => Self::in_root(root, wanted, now),
            None => Self {
                services: SERVICES.iter().map(|_| root.likewise()).collect(),
                repositories: wanted.repositories.iter().flatten().map(|name| Repository::in_no(root, name)).collect(),
                totals: root.likewise(),
                look: root.likewise(),
                sample: root.likewise(),
                queue: if root.is_known() { Queue::empty() } else { Queue::default() },
                ..Self::default()
            },
        };
        left.gate = left.service("tailscale-gate").get().and_then(|record| Door::known(&record.last).lives());
        let up = clock_gettime(ClockId::Boottime).tv_sec;
        left.booted = now.checked_sub(jiff::SignedDuration::from_secs(up)).ok();
        left.pipelines = Pipeline::all(wanted.pipelines.as_deref(), left.service("reading-sync").take());
        left
    }

    fn in_root(root: &Folder, wanted: &Wanted, now: jiff::Timestamp) -> Self {
        let mut reader = Reader::new(root);
        let services = SERVICES.iter().map(|(service, folder)| reader.service(service, folder)).collect();
        let names = wanted.repositories.clone().unwrap_or_else(|| reader.traces());
        let repositories = names.iter().map(|(name, branch)| reader.repository(name, branch)).collect();
        let owners = reader.owners();
        let queue = Queue::read(&mut reader, now);
        let (totals, sample) = (reader.totals(), reader.sample());
        let look = reader.read("watch", Look::FILE);
        // Where /proc shows no locks, nobody knows.
        let holder = reader.folder("gitops").take().and_then(|gitops| lock_holder(&gitops, "lock").ok());
        let works = holder.filter(|_| Path::new("/proc/locks").exists()).map(|holder| holder.is_some());
        Self {
            works,
            services,
            repositories,
            owners,
            queue,
            totals,
            look,
            sample,
            unreadable: reader.unreadable,
            ..Self::default()
        }
    }

    /// The run record of a service.
    pub fn service(&self, service: &str) -> Found<&Record> {
        let at = SERVICES.iter().position(|(name, _)| *name == service);
        at.and_then(|at| self.services.get(at)).map_or(Found::Missing, Found::as_ref)
    }

    /// The run records that are there.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.services.iter().filter_map(Found::get)
    }

    /// True where no service has left anything, and everything could be looked at.
    pub fn is_empty(&self) -> bool {
        self.records().next().is_none() && self.queue.is_empty() && self.unreadable.is_empty()
    }
}

impl Queue {
    fn read(reader: &mut Reader<'_>, now: jiff::Timestamp) -> Self {
        let waiting = entries(reader, "proxy/queue");
        let oldest = waiting.iter().flatten().map(|entry| entry.modified).min();
        let failed = entries(reader, "gitops/failed");
        let is_note = |entry: &&Entry| entry.name.to_string_lossy().ends_with(Refusal::ENDING);
        let newest = failed.iter().flatten().rfind(is_note).map(|entry| entry.name.to_string_lossy().into_owned());
        let note: Option<Refusal> = newest.and_then(|name| reader.read("gitops/failed", &name).take());
        Self {
            requests: waiting.map(|entries| entries.len()),
            oldest_age_seconds: oldest.map(|at| u64::try_from(now.as_second() - at).unwrap_or(0)),
            active: entries(reader, "gitops/active").map(|entries| entries.len()),
            retry: entries(reader, "gitops/retry").map(|entries| entries.iter().filter_map(repository_of).collect()),
            failed: failed.map(|entries| entries.iter().filter(|entry| !is_note(entry)).count()),
            failed_reason: note.map(|note| note.reason),
        }
    }

    fn empty() -> Self {
        Self { requests: Some(0), active: Some(0), retry: Some(Vec::new()), failed: Some(0), ..Self::default() }
    }

    /// True where nothing is there, or nothing is known of it.
    pub fn is_empty(&self) -> bool {
        let retry = self.retry.as_ref().map_or(0, Vec::len);
        [self.requests, self.active, self.failed].into_iter().flatten().sum::<usize>() + retry == 0
    }

    /// True where all of it could be looked at.
    pub fn is_known(&self) -> bool {
        self.requests.is_some() && self.active.is_some() && self.retry.is_some() && self.failed.is_some()
    }
}

/// The entries of a folder; none where they cannot be seen.
fn entries(reader: &mut Reader<'_>, folder: &str) -> Option<Vec<Entry>> {
    match reader.folder(folder) {
        // A folder that nobody made yet is empty.
        Found::Missing => Some(Vec::new()),
        Found::There(folder) => {
            let found = folder.entries(MOST);
            reader.heard(found).take()
        }
        Found::Damaged(_) | Found::Unreadable(_) => None,
    }
}
