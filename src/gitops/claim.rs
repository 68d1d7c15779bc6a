use std::cell::Cell;
use std::ffi::{OsStr, OsString};

use serde::Deserialize;

use super::store::{file, file_of, names, now};
use crate::config::Repository;
use crate::log;
use crate::state::{Entry, Error, Folder, Kind};
use crate::text;

/// More entries than this are taken up in the next round.
const ROUND: usize = 1000;
/// A request is a few hundred bytes.
const LARGEST_REQUEST: usize = 64 << 10;
/// How many refused entries are kept in `failed/`, each with its reason.
const FAILED_KEPT: usize = 200;

/// The folders a request passes through: queue → active → done, retry or failed. The queue belongs to the proxy, the
/// others to gitops-sync.
#[derive(Debug)]
pub(super) struct Claims {
    queue: Option<Folder>,
    active: Folder,
    retry: Folder,
    failed: Folder,
    /// How many entries this run refused.
    refused: Cell<usize>,
}

/// The part of a request that is looked at. It names a configured repository and decides nothing else.
#[derive(Deserialize)]
struct Request {
    repository: String,
    #[serde(default)]
    deliveries: Vec<String>,
}

/// What a request's file is called now, where it was written under a former name of its repository.
fn present_name(name: &OsStr, repositories: &[Repository]) -> Option<String> {
    let name = name.to_str()?;
    let former = |repository: &&Repository| {
        file(repository) != name && names(repository).any(|known| file_of(known).eq_ignore_ascii_case(name))
    };
    repositories.iter().find(former).map(file)
}

impl Claims {
    /// Opens gitops-sync's own folders; the queue comes with `open_queue`.
    pub fn open(gitops: &Folder) -> Result<Self, Error> {
        Ok(Self {
            queue: None,
            active: gitops.sub_or_make("active", 0o750)?,
            retry: gitops.sub_or_make("retry", 0o750)?,
            failed: gitops.sub_or_make("failed", 0o750)?,
            refused: Cell::new(0),
        })
    }

    /// Opens the queue. `root` is the state root; a queue that nobody made yet is empty.
    ///
    /// # Errors
    /// When the queue, or the proxy's folder, is a link or cannot be read. What is claimed already can still be worked on.
    pub fn open_queue(&mut self, root: &Folder) -> Result<(), Error> {
        self.queue = match root.sub("proxy").and_then(|proxy| proxy.sub("queue")) {
            Ok(queue) => Some(queue),
            Err(error) if error.is_missing() => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Claims the next request: one that an interrupted run left first, then the queue's. What is no request for a
    /// configured repository goes to `failed/`. None when there is nothing left.
    pub fn next<'a>(&self, repositories: &'a [Repository]) -> Result<Option<&'a Repository>, Error> {
        loop {
            let Some(entry) = self.active.entries(ROUND)?.into_iter().next() else {
                if self.claim()? {
                    continue;
                }
                return Ok(None);
            };
            if let Some(name) = present_name(&entry.name, repositories) {
                self.active.move_to(&entry.name, &self.active, name.as_ref())?;
                continue;
            }
            match self.understand(&entry, repositories) {
                Ok(repository) => return Ok(Some(repository)),
                Err(reason) => self.fail(&entry.name, &reason)?,
            }
        }
    }

    /// Moves what is in the queue to `active/`; false where it is empty.
    fn claim(&self) -> Result<bool, Error> {
        let Some(queue) = &self.queue else { return Ok(false) };
        let entries = queue.entries(ROUND)?;
        for entry in &entries {
            if entry.kind == Kind::File {
                queue.move_to(&entry.name, &self.active, &entry.name)?;
            } else {
                self.fail_from(queue, &entry.name, "is not a regular file")?;
            }
        }
        Ok(!entries.is_empty())
    }

    fn understand<'a>(&self, entry: &Entry, repositories: &'a [Repository]) -> Result<&'a Repository, String> {
        let name = entry.name.to_str().ok_or("has a name that is not UTF-8")?;
        let repository =
            repositories.iter().find(|repository| file(repository) == name).ok_or("names no repository of hub.toml")?;
        let request: Option<Request> =
            self.active.read_json_within(name, LARGEST_REQUEST).map_err(|error| error.to_string())?;
        let request = request.ok_or("went away while it was read")?;
        if !repository.is_known_as(&request.repository) {
            return Err(format!("is named for {} and asks for another repository", repository.name));
        }
        let deliveries: Vec<String> =
            request.deliveries.iter().rev().take(5).map(|id| text::shown(id).into_owned()).collect();
        log::info!("request_claimed", repo = repository.name, deliveries = deliveries);
        Ok(repository)
    }

    /// Ends a claimed request; true where there was one.
    pub fn finish(&self, repository: &Repository) -> Result<bool, Error> {
        // Where a power cut brings it back, the next run finds nothing to do.
        self.active.forget(file(repository).as_ref())
    }

    /// Keeps a request for the next run, because its repository could not be reached. Without a claimed request one is
    /// written.
    pub fn keep_for_retry(&self, repository: &Repository) -> Result<(), Error> {
        let name = file(repository);
        let request = serde_json::json!({ "repository": repository.name, "since": now() });
        self.retry.publish_json(&name, &request)?;
        self.active.remove(name.as_ref()).map(|_| ())
    }

    /// True where an earlier run left the repository to be tried again.
    pub fn is_to_retry(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.retry.read(&file(repository), LARGEST_REQUEST)?.is_some())
    }

    /// Forgets that the repository is to be tried again.
    pub fn forget_retry(&self, repository: &Repository) -> Result<(), Error> {
        self.retry.remove(file(repository).as_ref()).map(|_| ())
    }

    fn fail(&self, name: &OsStr, reason: &str) -> Result<(), Error> {
        self.fail_from(&self.active, name, reason)
    }

    /// Moves an entry of any kind to `failed/` and writes the reason beside it.
    fn fail_from(&self, folder: &Folder, name: &OsStr, reason: &str) -> Result<(), Error> {
        let shown = text::name(name.as_encoded_bytes());
        log::error!("request_refused", entry = shown, reason = reason);
        self.refused.set(self.refused.get() + 1);
        if self.refused.get() > FAILED_KEPT && folder.remove(name).is_ok() {
            // A flood; the log has the reasons of what is not kept.
            return Ok(());
        }
        let target = format!("{}-{}", jiff::Timestamp::now().as_microsecond(), std::process::id());
        let note = serde_json::json!({ "name": shown, "reason": format!("{shown} {reason}"), "at": now() });
        self.failed.publish_json(&format!("{target}.reason.json"), &note)?;
        folder.move_to(name, &self.failed, &OsString::from(&target))?;
        self.prune()
    }

    /// Keeps `failed/` small: names begin with their time, so the first ones are the oldest.
    fn prune(&self) -> Result<(), Error> {
        let entries = self.failed.entries(usize::MAX)?;
        let excess = entries.len().saturating_sub(2 * FAILED_KEPT);
        for entry in &entries[..excess] {
            let path = self.failed.path().join(&entry.name);
            match entry.kind {
                Kind::Folder => std::fs::remove_dir_all(&path).map_err(|error| Error::io("remove", &path, error))?,
                _ => self.failed.remove(&entry.name).map(|_| ())?,
            }
        }
        Ok(())
    }
}
