use serde::{Deserialize, Serialize};

use super::units::Before;
use crate::config::Repository;
use crate::log;
use crate::records::{Confirmed, LONGEST_ENTRY};
use crate::state::{Error, Folder, give_up_half_of_reserve, give_up_reserve_if_full, keep_reserve};

/// A deployment under way. It is on disk before the first change to the host and gone after the last; a run that finds
/// one undoes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    pub repository: String,
    /// The branch that was checked out; none where an older hub wrote it.
    pub branch: Option<String>,
    /// The checkout's commit before; none where the branch had none.
    pub from: Option<String>,
    pub to: String,
    /// The last step that was begun.
    pub step: Step,
    pub started: String,
    /// How the host's units were before; none where they are not deployed.
    pub units: Option<Before>,
    /// Files that were a person's when the step of a command was begun; none where that is not known.
    pub local: Option<Vec<String>>,
    /// True where files that `build` and `after` had written were put back first.
    #[serde(default)]
    pub restored: bool,
    /// Until when somebody has to confirm it, RFC 3339; none where nobody has to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_until: Option<String>,
    /// Whether somebody goes back to a commit that was live before.
    #[serde(default)]
    pub goes_back: bool,
    /// The hub's own units that are restarted when it is confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<String>,
    /// What systemd ignores in its units, for the record of a deployment that is confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

impl Entry {
    /// The branch that was checked out; hub.toml may name another one by now.
    pub fn branch<'a>(&'a self, repository: &'a Repository) -> &'a str {
        self.branch.as_deref().unwrap_or(&repository.branch)
    }

    /// True where somebody confirmed this deployment, and not an earlier one of the same commit.
    pub fn is_confirmed_by(&self, confirmed: &Confirmed) -> bool {
        confirmed.commit == self.to && confirmed.at >= self.started
    }
}

/// The steps of a deployment, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    #[default]
    Checkout,
    Build,
    /// Verification of the units, the build being done.
    Verify,
    Units,
    After,
    Health,
    /// It went well, and waits for somebody to say so.
    Confirm,
}

/// The journal folder, one file a repository.
///
/// A deployment begins only where there is room to take it back: a reserve of disk space is kept beside the journal.
#[derive(Debug)]
pub(super) struct Journal {
    gitops: Folder,
    folder: Folder,
}

impl Journal {
    pub fn open(gitops: &Folder) -> Result<Self, Error> {
        Ok(Self { gitops: gitops.again()?, folder: gitops.sub_or_make("journal", 0o750)? })
    }

    /// Begins a deployment.
    ///
    /// # Errors
    /// Where there is no room on the disk for the way back, too: nothing was changed then.
    pub fn begin(
        &self,
        repository: &Repository,
        (from, to): (Option<&str>, &str),
        units: Option<Before>,
        goes_back: bool,
    ) -> Result<Entry, Error> {
        keep_reserve(&self.gitops)?;
        let entry = Entry {
            repository: repository.name.clone(),
            branch: Some(repository.branch.clone()),
            from: from.map(str::to_owned),
            to: to.to_owned(),
            started: log::now(),
            units,
            goes_back,
            ..Entry::default()
        };
        self.folder.publish_json(&repository.record(), &entry)?;
        Ok(entry)
    }

    pub fn reach(&self, repository: &Repository, entry: &mut Entry, step: Step) -> Result<(), Error> {
        entry.step = step;
        match self.folder.publish_json(&repository.record(), entry) {
            // Half of the reserve is enough for the way back; whether the commit is good is still to be seen.
            Err(error) if error.is_full() && give_up_half_of_reserve(&self.gitops)? => {
                self.folder.publish_json(&repository.record(), entry)
            }
            other => other,
        }
    }

    /// Makes room for the way back where the disk is full.
    pub fn make_room(&self) {
        if let Err(error) = give_up_reserve_if_full(&self.gitops) {
            log::warn!("reserve_not_given_up", error = error.to_string());
        }
    }

    pub fn end(&self, repository: &Repository) -> Result<(), Error> {
        self.folder.remove(repository.record().as_ref()).map(|_| ())
    }

    /// Ends a deployment whose result is on disk: where a power cut brings its file back, the next run sees that the
    /// commit is live.
    pub fn close(&self, repository: &Repository) -> Result<(), Error> {
        self.folder.forget(repository.record().as_ref()).map(|_| ())
    }

    pub fn interrupted(&self, repository: &Repository) -> Result<Option<Entry>, Error> {
        self.read(&repository.record())
    }

    /// The interrupted deployment whose file has this name.
    pub fn read(&self, file: &str) -> Result<Option<Entry>, Error> {
        self.folder.read_json_within(file, LONGEST_ENTRY).map_err(|error| {
            error.remedied(|| {
                "what a deployment that was cut off had changed is not known any more; to have the next run bring the host to \
                 the branch, remove this file"
                    .to_owned()
            })
        })
    }
}
