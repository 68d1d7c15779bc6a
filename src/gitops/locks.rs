//! Who may do what at one time, among the runs of this host and the threads of each.

use std::sync::{Mutex, PoisonError};

use super::{Error, access};
use crate::command;
use crate::log;
use crate::state::{self, Folder, Lock, repository_file_name};

/// Of a mark, and of one with a session.
const LONGEST_NOTE: usize = 64;
/// A run starts a few dozen children for each repository that it looks at.
const MOST_SESSIONS: usize = 1 << 20;

/// The locks of gitops-sync. A repository has its own for as long as somebody is at work on it, its fetch above all; the
/// global one is held to apply only. What must not wait for a remote, such as going back to an older commit, takes the
/// global one alone. Nobody who holds it takes another.
#[derive(Debug)]
pub(super) struct Locks {
    gitops: Folder,
    repositories: Folder,
    /// A file for each run that is at work or was killed, by its mark: the sessions of its children.
    sessions: Folder,
    /// Marks of killed runs whose processes were ended.
    ended: Mutex<Vec<String>>,
}

impl Locks {
    pub fn open(gitops: Folder) -> Result<Self, Error> {
        let sessions = gitops.sub_or_make("sessions", 0o750)?;
        let failed =
            |source: std::io::Error| state::Error::io("note the sessions of children in", sessions.path(), source);
        let mark = command::mark_children().map_err(failed)?;
        // A full disk stops no run: then nobody ends what this one leaves running where it is killed.
        let noted = match sessions.append(mark, 0o640) {
            Err(error) if !error.is_full() => return Err(error.into()),
            opened => opened.and_then(|file| command::note_sessions(file).map_err(failed)),
        };
        if let Err(error) = noted {
            log::warn!("sessions_not_noted", error = error.to_string());
        }
        Ok(Self { repositories: gitops.sub_or_make("locks", 0o750)?, gitops, sessions, ended: Mutex::default() })
    }

    /// Waits for the right to take requests from the queue: that of one run.
    pub fn queue(&self) -> Result<Held, Error> {
        self.held(Lock::wait(&self.gitops, "queue.lock")?, None)
    }

    /// Waits for the right to change the host.
    pub fn apply(&self) -> Result<Held, Error> {
        self.held(Lock::wait(&self.gitops, "lock")?, None)
    }

    /// The right to change the host; none where another run has it.
    pub fn attempt(&self) -> Result<Option<Held>, Error> {
        Lock::attempt(&self.gitops, "lock")?.map(|lock| self.held(lock, None)).transpose()
    }

    pub fn record(&self) -> Result<Lock, Error> {
        Lock::wait(&self.gitops, "record.lock").map_err(Into::into)
    }

    /// The right to work on a repository; none where another run has it and nobody wants to wait.
    pub fn repository(&self, repository: &str, waits: bool) -> Result<Option<Held>, Error> {
        let own = repository_file_name(repository);
        let name = file_name(&own);
        let lock = if waits {
            Some(Lock::wait(&self.repositories, &name)?)
        } else {
            Lock::attempt(&self.repositories, &name)?
        };
        lock.map(|lock| self.held(lock, Some(&own))).transpose()
    }

    /// Notes in the lock, that of the repository `own` or another, whose it is. A note that is there already is that of a
    /// killed run: what it left is ended first.
    fn held(&self, mut lock: Lock, own: Option<&str>) -> Result<Held, Error> {
        let failed = |source| state::Error::io("end what is left of the last run in", self.gitops.path(), source);
        let mark = command::mark_children().map_err(failed)?;
        let earlier = lock.exchange(mark)?;
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !earlier.is_empty() && earlier != mark && !ended.contains(&earlier) {
            let mut processes = 0;
            // Anything else is what a power cut made of a note, and that ended every process.
            if is_note(&earlier) {
                processes = command::end_orphans(&earlier, &self.sessions_of(&earlier)).map_err(failed)?;
                self.forget_sessions(&earlier);
            }
            log::warn!("last_run_was_killed", processes_ended = processes);
            let removed = access::remove_left(&self.gitops, |name| {
                Ok(own == Some(name) || Lock::attempt(&self.repositories, &file_name(name))?.is_some())
            });
            // The next run after a killed one goes on with it.
            if let Err(error) = removed {
                log::error!("credential_not_removed", error = error.to_string());
            }
            ended.push(earlier);
        }
        Ok(Held(lock))
    }
}

impl Locks {
    /// The sessions of a killed run's children. Runs of an earlier version had one for all, in the mark.
    fn sessions_of(&self, mark: &str) -> Vec<u32> {
        if let Some((_, session)) = mark.rsplit_once('.') {
            return session.parse().into_iter().collect();
        }
        let noted = if is_mark(mark) { self.sessions.read(mark, MOST_SESSIONS) } else { Ok(None) };
        // Whatever became of that file: a run that cannot begin would leave every repository as it is.
        let noted = noted.unwrap_or_else(|error| {
            let effect = "what a killed run left running goes on";
            log::warn!("sessions_not_read", error = error.to_string(), effect = effect);
            None
        });
        let noted = String::from_utf8_lossy(&noted.unwrap_or_default()).into_owned();
        noted.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Locks {
    fn forget_sessions(&self, mark: &str) {
        if let Err(error) = self.sessions.forget(mark.as_ref()) {
            log::warn!("sessions_not_forgotten", error = error.to_string());
        }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        match command::mark_children() {
            Ok(mark) => self.forget_sessions(mark),
            Err(error) => log::warn!("sessions_not_forgotten", error = error.to_string()),
        }
    }
}

/// A mark, or one of an earlier version, which had its session in it.
fn is_note(text: &str) -> bool {
    text.len() <= LONGEST_NOTE && text.split('.').all(is_mark)
}

fn is_mark(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The name of a repository's lock, by its file name.
fn file_name(repository: &str) -> String {
    format!("{repository}.lock")
}

/// A lock with the mark of this run in it, which is taken away when the lock is let go.
#[derive(Debug)]
pub(super) struct Held(Lock);

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.0.exchange("") {
            log::warn!("lock_not_cleared", error = error.to_string());
        }
    }
}
