use jiff::{SignedDuration, Timestamp};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::outcome::Missing;
use super::owner::{self, Owner};
use super::units::digest;
use super::worktree::Found;
use super::{Outcome, Status};
use crate::command::Account;
use crate::config::Repository;
use crate::hint::hint;
use crate::records::versions::Versions;
use crate::records::{Bad, Checked, Confirmed, Deployed, Hold};
use crate::state::{Error, Folder};
use crate::{log, text};

/// The hub's own units that wait for their restart.
const OWN: &str = "own-units.json";

/// More files than this are not remembered.
const MOST_FOUND: usize = 20_000;
/// As many paths with their digests.
const MOST_BUILT: usize = 64 << 20;

/// What the repository's own commands left in tracked files.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Built {
    files: Vec<Found>,
}

/// What is remembered of the repositories between runs, in `<state>/gitops`. The deployed commit is security state: who
/// deletes it lets an older commit in.
#[derive(Debug)]
pub(super) struct Store {
    pub folder: Folder,
    deployed: Folder,
    built: Folder,
    bad: Folder,
    checked: Folder,
    hold: Folder,
    checkouts: Folder,
    confirmed: Folder,
    suspect: Folder,
    versions: Folder,
}

impl Store {
    pub fn open(folder: Folder) -> Result<Self, Error> {
        Ok(Self {
            deployed: folder.sub_or_make("deployed", 0o750)?,
            built: folder.sub_or_make("built", 0o750)?,
            bad: folder.sub_or_make("bad", 0o750)?,
            checked: folder.sub_or_make("checked", 0o750)?,
            hold: folder.sub_or_make("hold", 0o750)?,
            checkouts: folder.sub_or_make(owner::FOLDER, 0o750)?,
            confirmed: folder.sub_or_make("confirmed", 0o750)?,
            suspect: folder.sub_or_make("suspect", 0o750)?,
            versions: folder.sub_or_make("versions", 0o750)?,
            folder,
        })
    }

    pub fn deployed(&self, repository: &Repository) -> Result<Option<Deployed>, Error> {
        self.deployed.read_json(&repository.record()).map_err(|error: Error| {
            error.remedied(|| {
                format!(
                    "which commit is live is not known any more: see that the checkout {} is at one that you trust, then run: \
                     hub retry {} --rewritten",
                    repository.path.display(),
                    repository.name
                )
            })
        })
    }

    pub fn set_deployed(
        &self,
        repository: &Repository,
        commit: &str,
        ignored: Vec<String>,
        keeps_bad: bool,
    ) -> Result<(), Error> {
        let (repository_name, branch) = (repository.name.clone(), Some(repository.branch.clone()));
        let deployed =
            Deployed { repository: repository_name, commit: commit.to_owned(), at: log::now(), ignored, branch };
        self.deployed.publish_json(&repository.record(), &deployed)?;
        if keeps_bad { Ok(()) } else { self.bad.remove(repository.record().as_ref()).map(|_| ()) }
    }

    /// The commits that were live; a damaged list is begun anew.
    pub fn versions(&self, repository: &Repository) -> Versions {
        undamaged(repository, self.versions.read_json(&repository.record())).unwrap_or_default()
    }

    pub fn set_versions(&self, repository: &Repository, versions: &Versions) -> Result<(), Error> {
        self.versions.publish_json(&repository.record(), versions)
    }

    /// Tracked files as `build` and `after` left them, where they changed some.
    pub fn built(&self, repository: &Repository) -> Vec<Found> {
        // Where that is not known, those files count as a person's.
        let built = self.built.read_json_within::<Built>(&repository.record(), MOST_BUILT);
        undamaged(repository, built).unwrap_or_default().files
    }

    pub fn set_built(&self, repository: &Repository, files: Vec<Found>) -> Result<(), Error> {
        // So many are no build's any more, and then they count as a person's.
        if files.is_empty() || files.len() > MOST_FOUND {
            return self.built.remove(repository.record().as_ref()).map(|_| ());
        }
        self.built.publish_json(&repository.record(), &Built { files })
    }

    pub fn bad(&self, repository: &Repository) -> Result<Option<Bad>, Error> {
        let name = &repository.name;
        self.bad
            .read_json(&repository.record())
            .map_err(|error: Error| error.remedied(|| format!("run: {}", hint("hub", &format!("retry {name}")))))
    }

    /// Remembers a commit that failed; `refused` before anything of it ran, `unfit` where it could not even be fetched.
    pub fn set_bad(
        &self,
        repository: &Repository,
        commit: &str,
        reason: &str,
        (refused, unfit): (bool, bool),
    ) -> Result<(), Error> {
        let reason = text::cut(reason, text::LONGEST_REASON).into_owned();
        let bad = Bad { commit: commit.to_owned(), reason, at: log::now(), refused, unfit };
        self.bad.publish_json(&repository.record(), &bad)
    }

    /// True for the commit with which the host was out of reach before, and after it was taken back still was.
    pub fn is_suspect(&self, repository: &Repository, commit: &str) -> bool {
        // A damaged file is replaced by the next suspicion.
        self.suspect.read_json::<String>(&repository.record()).ok().flatten().as_deref() == Some(commit)
    }

    /// Remembers such a commit.
    pub fn set_suspect(&self, repository: &Repository, commit: &str) -> Result<(), Error> {
        self.suspect.publish_json(&repository.record(), &commit)
    }

    pub fn hold(&self, repository: &Repository) -> Result<Option<Hold>, Error> {
        let name = &repository.name;
        self.hold.read_json(&repository.record()).map_err(|error: Error| {
            error.remedied(|| {
                let [release, hold] = ["release", "hold"].map(|word| hint("hub", &format!("{word} {name}")));
                format!("whether it is on hold is not known; run: {release}, or once more: {hold}")
            })
        })
    }

    /// The name of the user whose the checkout is, by hub.toml or as it was kept; none where nobody has said.
    pub fn owner(&self, repository: &Repository) -> Option<String> {
        let kept = || self.checkouts.read_json(&repository.record()).ok().flatten().map(|owner: Owner| owner.user);
        repository.user.clone().or_else(kept)
    }

    /// Suspends deployments.
    pub fn set_hold(&self, repository: &Repository, hold: &Hold) -> Result<(), Error> {
        self.hold.publish_json(&repository.record(), hold)
    }

    /// Resumes them.
    pub fn forget_hold(&self, repository: &Repository) -> Result<(), Error> {
        self.hold.remove(repository.record().as_ref()).map(|_| ())
    }

    /// Keeps whose the checkout is, for all runs to come. A run of another user than root decides nothing.
    pub fn keep_owner(&self, repository: &Repository, user: &Account) -> Result<(), Error> {
        let owner = Owner::new(repository, user);
        let is_kept = || Ok(self.checkouts.read_json(&repository.record())?.as_ref() == Some(&owner));
        if !geteuid().is_root() || is_kept()? {
            Ok(())
        } else {
            self.checkouts.publish_json(&repository.record(), &owner)
        }
    }

    pub fn confirmed(&self, repository: &Repository) -> Result<Option<Confirmed>, Error> {
        let name = &repository.name;
        self.confirmed.read_json(&repository.record()).map_err(|error: Error| {
            error.remedied(|| format!("run it once more: {}", hint("hub", &format!("confirm {name}"))))
        })
    }

    /// Forgets that somebody confirmed; for a deployment that is kept.
    pub fn forget_confirmed(&self, repository: &Repository) -> Result<(), Error> {
        self.confirmed.forget(repository.record().as_ref()).map(|_| ())
    }

    pub fn set_checked(&self, repository: &Repository, outcome: &Outcome) -> Result<(), Error> {
        let checked = Checked {
            at: log::now(),
            status: outcome.status.word().to_owned(),
            reason: outcome.reason.clone(),
            configuration: configuration(repository),
            not_deployed: outcome.not_deployed.clone(),
            left_out: outcome.left_out.as_ref().map(|missing| missing.said.clone()),
            left_out_kinds: outcome.left_out.as_ref().map(|missing| missing.kinds.clone()).unwrap_or_default(),
            waiting: outcome.waiting.clone(),
        };
        // Where it is lost, the repository is looked at once more.
        self.checked.note_json(&repository.record(), &checked)
    }

    /// What the last look came to; none before the first, and where a damaged file waits for the next one.
    pub fn checked(&self, repository: &Repository) -> Option<Checked> {
        self.checked.read_json(&repository.record()).ok().flatten()
    }

    /// What of the live commit the checkout did not have when it was looked at last.
    pub fn left_out(&self, repository: &Repository) -> Option<Missing> {
        let checked = self.checked(repository)?;
        Some(Missing { said: checked.left_out?, kinds: checked.left_out_kinds })
    }

    /// True where the repository was looked at, under its present name.
    pub fn was_looked_at(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.checked.entry(repository.record().as_ref())?.is_some())
    }

    /// Remembers units of the hub itself that are to be restarted when the run's result is durable.
    pub fn add_own(&self, units: &[String]) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        let mut all = self.own()?;
        all.extend_from_slice(units);
        self.folder.publish_json(OWN, &all)
    }

    /// The units of the hub itself that are to be restarted.
    pub fn own(&self) -> Result<Vec<String>, Error> {
        Ok(self.folder.read_json_list(OWN)?.unwrap_or_default())
    }

    /// Forgets them, once they were.
    pub fn forget_own(&self) -> Result<(), Error> {
        self.folder.remove(OWN.as_ref()).map(|_| ())
    }

    /// Until when the last look at a repository serves. None where it is due: it never was looked at or too long ago, the
    /// last look refused or failed, its table in hub.toml is another one by now, the clock went back, or the file is
    /// damaged (the next look replaces it).
    pub fn looked_at_until(&self, repository: &Repository) -> Option<Timestamp> {
        let checked = undamaged::<Checked>(repository, self.checked.read_json(&repository.record()))?;
        // Somebody may have done what the reason says, and others may have said their word. A commit that was rolled back needs more than that.
        let is_open =
            [Status::Refused, Status::Failed, Status::Waiting].iter().any(|status| status.word() == checked.status);
        if is_open || checked.configuration != configuration(repository) {
            return None;
        }
        let now = Timestamp::now();
        let at: Timestamp = checked.at.parse().ok().filter(|at| *at <= now)?;
        at.checked_add(SignedDuration::from_mins(repository.poll_minutes.into())).ok().filter(|until| *until > now)
    }
}

/// What was read; of a damaged file nothing, and that is told.
fn undamaged<T>(repository: &Repository, read: Result<Option<T>, Error>) -> Option<T> {
    let damaged = |error: Error| log::warn!("state_damaged", repo = repository.name, error = error.to_string());
    read.map_err(damaged).ok().flatten()
}

/// What tells one table of hub.toml from another. Where an upgrade of the hub writes it otherwise, that costs one look.
fn configuration(repository: &Repository) -> String {
    digest(format!("{repository:?}").as_bytes())
}
