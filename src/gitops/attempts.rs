use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::Repository;
use crate::log;
use crate::state::{Error, Folder};

/// After so many runs that ended in the middle of a repository, its request is not taken up again.
pub(super) const MOST: u32 = 2;
/// How long a repository that is given up is left alone by runs that nobody asked for it.
const PAUSE: SignedDuration = SignedDuration::from_mins(55);

/// The runs that began with a repository and did not come to its end: killed, or out of memory, by what it has perhaps.
/// A file for each, gone when a run comes to its end. They are not made durable: losing one costs one more attempt.
#[derive(Debug)]
pub(super) struct Attempts {
    folder: Folder,
    /// What this run has begun.
    begun: Mutex<HashSet<String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Attempt {
    count: u32,
    at: String,
}

impl Attempts {
    /// Opens `attempts/`.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open(gitops: &Folder) -> Result<Self, Error> {
        Ok(Self { folder: gitops.sub_or_make("attempts", 0o750)?, begun: Mutex::default() })
    }

    /// How many runs were cut off at the repository.
    pub fn cut_off(&self, repository: &Repository) -> u32 {
        self.read(repository).count
    }

    /// True where the last runs were cut off at the repository, not long ago.
    pub fn is_given_up(&self, repository: &Repository) -> bool {
        let attempt = self.read(repository);
        let (at, now) = (attempt.at.parse::<Timestamp>(), Timestamp::now());
        // One that lies ahead was noted by a clock that went wrong, and says nothing.
        attempt.count >= MOST && at.is_ok_and(|at| at <= now && now.duration_since(at) < PAUSE)
    }

    /// Notes that the run begins with a repository.
    pub fn begin(&self, repository: &Repository) {
        if self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.name.clone()) {
            let attempt = Attempt { count: self.cut_off(repository).saturating_add(1), at: log::now() };
            self.heard(repository, self.folder.note_json(&repository.record(), &attempt));
        }
    }

    /// Notes that the run came to the end of it, however that is, or only waits for others.
    pub fn end(&self, repository: &Repository) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&repository.name);
        self.heard(repository, self.folder.forget(repository.record().as_ref()).map(|_| ()));
    }

    fn read(&self, repository: &Repository) -> Attempt {
        // A damaged one is replaced by the next run.
        self.folder.read_json(&repository.record()).ok().flatten().unwrap_or_default()
    }

    /// Without the note everything goes on; a run that is cut off is then not counted.
    fn heard(&self, repository: &Repository, written: Result<(), Error>) {
        if let Err(error) = written {
            log::warn!("attempt_not_noted", repo = repository.name, error = error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_repository_is_left_alone_for_a_while_and_not_for_years() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hub.toml");
        std::fs::write(&file, "[[repository]]\nname = \"acme/infra\"\nurl = \"/srv/o.git\"\npath = \"/srv/infra\"\n")
            .unwrap();
        let config = Config::load(Some(&file)).unwrap();
        let attempts = Attempts::open(&Folder::open(dir.path()).unwrap()).unwrap();
        for (minutes, given_up) in [(-60, false), (-50, true), (-1, true), (60, false), (10 * 365 * 24 * 60, false)] {
            let at = Timestamp::now().checked_add(SignedDuration::from_mins(minutes)).unwrap();
            let attempt = format!("{{\"count\":{MOST},\"at\":\"{at}\"}}");
            std::fs::write(dir.path().join("attempts/acme__infra.json"), attempt).unwrap();
            assert_eq!(attempts.is_given_up(&config.repositories[0]), given_up, "{minutes} min");
        }
    }
}
