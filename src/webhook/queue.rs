//! The durable queue: one file a repository, "at least one request since T".

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{Access, AtFlags, StatVfsMountFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::command::is_alive;
use crate::log;
use crate::records::Request;
use crate::state::{self, Folder, repository_record};

/// More names than this are no queue any more: nobody works on it.
const MOST_ENTRIES: usize = 1000;
/// Delivery ids that a request keeps.
const NEWEST: usize = 50;
/// A request with all its ids is far shorter.
const LONGEST_FILE: usize = 64 << 10;
/// No write takes as long; an unfinished file this old has no writer.
const UNFINISHED_SECONDS: i64 = 60;

/// Why the queue does not take a request.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// There are too many entries.
    #[error("{0} has more than {MOST_ENTRIES} entries; is gitops-sync running?")]
    Full(PathBuf),
    /// The file system takes nothing more.
    #[error("the file system of {0} is full; free some space")]
    NoSpace(PathBuf),
    /// The file system is mounted read-only.
    #[error("the file system of {0} is read-only")]
    ReadOnly(PathBuf),
    /// Reading or writing failed.
    #[error("{0}")]
    State(Arc<state::Error>),
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        Self::State(Arc::new(error))
    }
}

/// How much is queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    pub requests: u64,
    /// Last change of the file that has waited longest, in seconds since 1970.
    pub oldest: Option<i64>,
}

/// Deliveries that are written together, and how that went.
#[derive(Default)]
struct Round {
    outcome: OnceLock<BTreeMap<String, Result<(), Error>>>,
}

/// What gathered for one repository.
#[derive(Default)]
struct Gathered {
    ids: Vec<String>,
    after: Option<String>,
}

#[derive(Default)]
struct Gathering {
    deliveries: BTreeMap<String, Gathered>,
    round: Arc<Round>,
    writing: bool,
}

/// The queue folder. Any number of threads may push at once: while one of them writes, the others' deliveries gather
/// and are written together, so that the disk's fsync bounds the waiting time but not the number of deliveries: 16 threads
/// queue some 2,000 a second where a lock around each write lets 100 through.
pub struct Queue {
    state_dir: PathBuf,
    gathering: Mutex<Gathering>,
    written: Condvar,
}

impl Queue {
    /// Opens `<state_dir>/proxy/queue`, made where missing, and removes what earlier writers left unfinished.
    ///
    /// # Errors
    /// When the folder cannot be made, opened or cleaned.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let queue = Self { state_dir: state_dir.to_owned(), gathering: Mutex::default(), written: Condvar::new() };
        let folder = queue.folder()?;
        let now = jiff::Timestamp::now().as_second();
        // A power cut may bring some back, for the next start to remove; waiting for the disk for each would take minutes.
        for entry in folder.unfinished()? {
            if entry.kind == state::EntryKind::File
                && (now - entry.modified > UNFINISHED_SECONDS || !writer(&entry.name).is_some_and(is_alive))
            {
                folder.forget(&entry.name)?;
            }
        }
        Ok(queue)
    }

    /// Opened anew for each use, so that a queue folder that was removed or replaced does not need a restart.
    fn folder(&self) -> Result<Folder, Error> {
        let proxy = Folder::open_or_make(&self.state_dir, 0o755)?.sub_or_make("proxy", 0o750)?;
        Ok(proxy.sub_or_make("queue", 0o750)?)
    }

    /// Queues a request for a repository; `after` is the commit that the delivery tells of. Returns when it is durable: file and folder are fsynced.
    ///
    /// # Errors
    /// When the queue is full or cannot be written; the earlier file, if any, is then still there.
    pub fn push(&self, repository: &str, delivery: &str, after: Option<&str>) -> Result<(), Error> {
        let mut gathering = self.lock();
        let gathered = gathering.deliveries.entry(repository.to_owned()).or_default();
        gathered.ids.push(delivery.to_owned());
        gathered.after = after.map(str::to_owned).or_else(|| gathered.after.take());
        let round = Arc::clone(&gathering.round);
        loop {
            if let Some(outcome) = round.outcome.get() {
                return outcome.get(repository).cloned().unwrap_or(Ok(()));
            }
            if gathering.writing {
                gathering = self.written.wait(gathering).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Nobody writes, so the round that gathers now is this thread's.
            let deliveries = std::mem::take(&mut gathering.deliveries);
            gathering.round = Arc::default();
            gathering.writing = true;
            drop(gathering);
            let write = |(repository, gathered): (String, Gathered)| {
                let result = self.write(&repository, gathered);
                (repository, result)
            };
            let outcome = deliveries.into_iter().map(write).collect();
            gathering = self.lock();
            gathering.writing = false;
            round.outcome.get_or_init(|| outcome);
            self.written.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gathering> {
        // Nothing panics while it holds the lock half-way through a change.
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process may take the file or write one meanwhile. Then ids may be kept twice or not at all, but a file
    /// that is younger than the deliveries is there, and that is what starts the worker.
    fn write(&self, repository: &str, gathered: Gathered) -> Result<(), Error> {
        let folder = self.folder()?;
        let name = repository_record(repository);
        let now = log::now();
        let earlier = match folder.read(&name, LONGEST_FILE) {
            Ok(Some(bytes)) => serde_json::from_slice::<Request>(&bytes).ok(),
            Ok(None) if folder.entries(MOST_ENTRIES + 1)?.len() > MOST_ENTRIES => {
                return Err(Error::Full(folder.path().to_owned()));
            }
            // What cannot be read is replaced: it could not have told the worker anything either.
            Ok(None) | Err(_) => None,
        };
        let mut request = earlier.filter(|earlier| earlier.repository == repository).unwrap_or_else(|| Request {
            repository: repository.to_owned(),
            since: now.clone(),
            ..Request::default()
        });
        request.latest = now;
        request.count = request.count.saturating_add(gathered.ids.len() as u64);
        request.deliveries.extend(gathered.ids);
        request.deliveries.drain(..request.deliveries.len().saturating_sub(NEWEST));
        request.after = gathered.after.or(request.after);
        Ok(folder.publish_json(&name, &request)?)
    }

    /// Whether a push would succeed, as far as can be known without writing.
    ///
    /// # Errors
    /// What a push would fail with.
    pub fn check(&self) -> Result<(), Error> {
        let folder = self.folder()?;
        let path = || folder.path().to_owned();
        let failed = |error: Errno| state::Error::io("write to", folder.path(), error);
        let space = rustix::fs::fstatvfs(folder.fd()).map_err(failed)?;
        if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(Error::ReadOnly(path()));
        }
        // Some blocks and inodes are kept for root; file systems without a fixed number of inodes say 0 in all.
        let root = rustix::process::geteuid().is_root();
        let (blocks, inodes) = if root { (space.f_bfree, space.f_ffree) } else { (space.f_bavail, space.f_favail) };
        if blocks == 0 || (inodes == 0 && space.f_files != 0) {
            return Err(Error::NoSpace(path()));
        }
        rustix::fs::accessat(folder.fd(), ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()).map_err(failed)?;
        if folder.entries(MOST_ENTRIES + 1)?.len() > MOST_ENTRIES {
            return Err(Error::Full(path()));
        }
        Ok(())
    }

    /// How much is queued.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn depth(&self) -> Result<Depth, Error> {
        let entries = self.folder()?.entries(MOST_ENTRIES + 1)?;
        Ok(Depth { requests: entries.len() as u64, oldest: entries.iter().map(|entry| entry.modified).min() })
    }
}

/// The process that writes an unfinished file: `.NAME.PID.NUMBER`, see `Folder::publish`.
fn writer(name: &OsStr) -> Option<u32> {
    name.to_str()?.rsplit('.').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests;
