use std::cell::Cell;
use std::ffi::{OsStr, OsString};

use serde::Deserialize;

use super::git::is_commit;
use super::store::{file, file_of, names, now};
use crate::config::Repository;
use crate::log;
use crate::state::{Error, Folder, Kind};
use crate::text;

/// More entries than this are taken up in the next round.
const ROUND: usize = 1000;
/// So many rounds, then what is due has its turn.
const ROUNDS: usize = 10;
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

/// The part of a request that is looked at. It names a configured repository and decides nothing but when to look.
#[derive(Deserialize)]
struct Request {
    repository: String,
    #[serde(default)]
    deliveries: Vec<String>,
    /// The commit that the latest delivery said it is about.
    #[serde(default)]
    after: Option<String>,
}

/// A request that this run works on.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub repository: &'a Repository,
    /// A commit that somebody said the branch has by now. It is worth another look, and nothing else.
    pub after: Option<String>,
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

    /// The queue, where there is one.
    pub fn queue(&self) -> Option<&Folder> {
        self.queue.as_ref()
    }

    /// True where neither the queue has anything nor an interrupted run left something.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let has_none = |folder: &Folder| folder.entries(1).map(|entries| entries.is_empty());
        Ok(has_none(&self.active)? && self.queue.as_ref().map_or(Ok(true), has_none)?)
    }

    /// Claims what is in the queue but for the repositories that `is_busy`: their requests stay until it
    /// is their turn. What is no request for a configured repository goes to `failed/`.
    pub fn take<'a>(
        &self,
        repositories: &'a [Repository],
        is_busy: impl Fn(&Repository) -> bool,
    ) -> Result<Vec<Claim<'a>>, Error> {
        let Some(queue) = &self.queue else { return Ok(Vec::new()) };
        let mut claims = Vec::new();
        for _ in 0..ROUNDS {
            let entries = queue.entries(ROUND)?;
            let is_all = entries.len() < ROUND;
            for entry in entries {
                let name = present_name(&entry.name, repositories).map_or_else(|| entry.name.clone(), OsString::from);
                if entry.kind != Kind::File {
                    self.fail_from(queue, &entry.name, "is not a regular file")?;
                } else if repository_of(&name, repositories).is_none_or(|repository| !is_busy(repository)) {
                    queue.move_to(&entry.name, &self.active, &name)?;
                    claims.extend(self.claim(&name, repositories)?);
                }
            }
            if is_all {
                break;
            }
        }
        Ok(claims)
    }

    /// Claims what an interrupted run left, but for the repositories that `is_busy`.
    pub fn take_left<'a>(
        &self,
        repositories: &'a [Repository],
        is_busy: impl Fn(&Repository) -> bool,
    ) -> Result<Vec<Claim<'a>>, Error> {
        let mut claims = Vec::new();
        for entry in self.active.entries(ROUND)? {
            let name = present_name(&entry.name, repositories).map_or_else(|| entry.name.clone(), OsString::from);
            if repository_of(&name, repositories).is_none_or(|repository| !is_busy(repository)) {
                if name != entry.name {
                    self.active.move_to(&entry.name, &self.active, &name)?;
                }
                claims.extend(self.claim(&name, repositories)?);
            }
        }
        Ok(claims)
    }

    fn claim<'a>(&self, name: &OsStr, repositories: &'a [Repository]) -> Result<Option<Claim<'a>>, Error> {
        match self.understand(name, repositories) {
            Ok(claim) => Ok(Some(claim)),
            Err(reason) => self.fail(name, &reason).map(|()| None),
        }
    }

    fn understand<'a>(&self, name: &OsStr, repositories: &'a [Repository]) -> Result<Claim<'a>, String> {
        let known = repository_of(name, repositories);
        let name = name.to_str().ok_or("has a name that is not UTF-8")?;
        let repository = known.ok_or("names no repository of hub.toml")?;
        let request: Option<Request> =
            self.active.read_json_within(name, LARGEST_REQUEST).map_err(|error| error.to_string())?;
        let request = request.ok_or("went away while it was read")?;
        if !repository.is_known_as(&request.repository) {
            return Err(format!("is named for {} and asks for another repository", repository.name));
        }
        let deliveries: Vec<String> =
            request.deliveries.iter().rev().take(5).map(|id| text::shown(id).into_owned()).collect();
        log::info!("request_claimed", repo = repository.name, deliveries = deliveries);
        let after = request.after.filter(|after| is_commit(after));
        Ok(Claim { repository, after })
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

/// The repository whose requests have this file name.
fn repository_of<'a>(name: &OsStr, repositories: &'a [Repository]) -> Option<&'a Repository> {
    repositories.iter().find(|repository| *name == *file(repository))
}
