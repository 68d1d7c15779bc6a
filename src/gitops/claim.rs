use std::ffi::{OsStr, OsString};

use super::attempts::{self, Attempts};
use super::failed::Failed;
use super::git::is_commit;
use crate::config::Repository;
use crate::log;
use crate::records::Request;
use crate::state::{EntryKind, Error, Folder, repository_record};
use crate::text;

/// More entries than this are taken up in the next round.
const ROUND: usize = 1000;
/// So many rounds, then what is due has its turn.
const ROUNDS: usize = 10;
/// A request is a few hundred bytes.
const LARGEST_REQUEST: usize = 64 << 10;

/// How the ids of what `hub deploy` asks for begin.
const MANUAL: &str = "manual-";
/// A delivery's id is a UUID, and nobody has signed it.
const LONGEST_ID: usize = 64;

/// The folders a request passes through: queue → active → done, retry or failed. The queue belongs to the proxy, the
/// others to gitops-sync.
#[derive(Debug)]
pub(super) struct Claims {
    queue: Option<Folder>,
    active: Folder,
    retry: Folder,
    failed: Failed,
}

/// A request that this run works on.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub repository: &'a Repository,
    /// A commit that somebody said the branch has by now. It is worth another look, and nothing else.
    pub after: Option<String>,
    /// Who asks.
    pub by: String,
}

/// What a request's file is called now, where it was written under a former name of its repository.
fn present_name(name: &OsStr, repositories: &[Repository]) -> Option<String> {
    let name = name.to_str()?;
    let former = |repository: &&Repository| {
        repository.record() != name
            && repository.names().any(|known| repository_record(known).eq_ignore_ascii_case(name))
    };
    repositories.iter().find(former).map(Repository::record)
}

impl Claims {
    /// Opens gitops-sync's own folders; the queue comes with `open_queue`.
    pub fn open(gitops: &Folder) -> Result<Self, Error> {
        Ok(Self {
            queue: None,
            active: gitops.sub_or_make("active", 0o750)?,
            retry: gitops.sub_or_make("retry", 0o750)?,
            failed: Failed::open(gitops)?,
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
            for entry in entries.into_iter().filter(|entry| !self.failed.is_stuck(&entry.name)) {
                let name = present_name(&entry.name, repositories).map_or_else(|| entry.name.clone(), OsString::from);
                if entry.kind != EntryKind::File {
                    self.failed.take(queue, &entry.name, "is not a regular file");
                } else if repository_of(&name, repositories).is_none_or(|repository| !is_busy(repository)) {
                    match queue.move_to(&entry.name, &self.active, &name) {
                        Ok(()) => claims.extend(self.claim(&name, repositories)),
                        Err(error) => self.failed.take(queue, &entry.name, &format!("cannot be claimed: {error}")),
                    }
                }
            }
            if is_all {
                break;
            }
        }
        Ok(claims)
    }

    /// Claims what an interrupted run left, but for the repositories that `is_busy`. What runs were cut off at again and
    /// again goes to `failed/`.
    pub fn take_left<'a>(
        &self,
        repositories: &'a [Repository],
        attempts: &Attempts,
        is_busy: impl Fn(&Repository) -> bool,
    ) -> Result<Vec<Claim<'a>>, Error> {
        let mut claims = Vec::new();
        for entry in self.active.entries(ROUND)? {
            let name = present_name(&entry.name, repositories).map_or_else(|| entry.name.clone(), OsString::from);
            let repository = repository_of(&name, repositories);
            let cut_off = repository.map_or(0, |repository| attempts.cut_off(repository));
            if let Some(repository) = repository.filter(|_| cut_off >= attempts::MOST) {
                let reason = format!(
                    "was at work when gitops-sync was killed, {cut_off} times in a row, perhaps for what the repository holds \
                     (memory, time); the journal of gitops-sync.service has more, and hub deploy {} tries it again",
                    repository.name
                );
                self.failed.take(&self.active, &entry.name, &reason);
            } else if repository.is_none_or(|repository| !is_busy(repository)) {
                if name != entry.name {
                    self.active.move_to(&entry.name, &self.active, &name)?;
                }
                claims.extend(self.claim(&name, repositories));
            }
        }
        Ok(claims)
    }

    fn claim<'a>(&self, name: &OsStr, repositories: &'a [Repository]) -> Option<Claim<'a>> {
        self.understand(name, repositories).map_err(|reason| self.failed.take(&self.active, name, &reason)).ok()
    }

    /// Tells what was refused, and keeps `failed/` small.
    pub fn end(&self) {
        self.failed.end();
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
        let by = match deliveries.first() {
            Some(id) if id.starts_with(MANUAL) => "hub deploy".to_owned(),
            Some(id) => format!("delivery {}", text::cut(id, LONGEST_ID)),
            None => "an earlier request".to_owned(),
        };
        Ok(Claim { repository, after, by })
    }

    /// Ends a claimed request; true where there was one.
    pub fn finish(&self, repository: &Repository) -> Result<bool, Error> {
        // Where a power cut brings it back, the next run finds nothing to do.
        self.active.forget(repository.record().as_ref())
    }

    /// Keeps a request for the next run, because its repository could not be reached. Without a claimed request one is
    /// written.
    pub fn keep_for_retry(&self, repository: &Repository) -> Result<(), Error> {
        let name = repository.record();
        let request = Request { repository: repository.name.clone(), since: log::now(), ..Request::default() };
        self.retry.publish_json(&name, &request)?;
        self.active.remove(name.as_ref()).map(|_| ())
    }

    /// True where an earlier run left the repository to be tried again.
    pub fn is_to_retry(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.retry.read(&repository.record(), LARGEST_REQUEST)?.is_some())
    }

    /// Forgets that the repository is to be tried again.
    pub fn forget_retry(&self, repository: &Repository) -> Result<(), Error> {
        self.retry.remove(repository.record().as_ref()).map(|_| ())
    }
}

/// The repository whose requests have this file name.
fn repository_of<'a>(name: &OsStr, repositories: &'a [Repository]) -> Option<&'a Repository> {
    repositories.iter().find(|repository| *name == *repository.record())
}

#[cfg(test)]
#[path = "../../tests/fuzz/requests.rs"]
mod requests;
