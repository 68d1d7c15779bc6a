//! What a run of gitops-sync is asked for, and what it has open.

use std::sync::OnceLock;

use rustix::process::geteuid;

use super::Error;
use super::journal::Journal;
use super::locks::Locks;
use super::mirror::{self, Mirror};
use super::outcome::Status;
use super::store::Store;
use super::turn::Place;
use super::units::{Found, Manager};
use crate::command::Account;
use crate::config::{Config, Repository};
use crate::state::{self, Folder};

/// What one run of the program was asked for.
pub(super) struct Request {
    /// Named on the command line; empty for a queued run.
    pub names: Vec<String>,
    pub dry_run: bool,
    /// Units that are taken over although somebody else installed them.
    pub adopt: Vec<String>,
    /// A commit may take away all units.
    pub remove_all: bool,
    /// Units go to the caller's own manager.
    pub user_units: bool,
}

impl Request {
    /// True where a person wants the named repositories to be looked at, or all: nothing is due, queued or retried.
    pub fn is_manual(&self) -> bool {
        self.dry_run || !self.names.is_empty() || !self.adopt.is_empty()
    }
}

/// What a run has open. Several threads work with it, each on a repository of its own.
pub(super) struct Run<'a> {
    pub config: &'a Config,
    pub locks: Locks,
    pub store: Store,
    pub journal: Journal,
    /// Who fetches; asked for once, because the answer may come with a warning.
    pub mirror_user: OnceLock<Account>,
    pub dry_run: bool,
    pub remove_all: bool,
    pub adopt: &'a [String],
    pub user_units: bool,
    /// Whether it goes back to an older commit, which was live before.
    pub goes_back: bool,
    /// The manager that units go to, or why they go nowhere; asked for once.
    pub manager: OnceLock<Result<Found, String>>,
}

/// How a look at a repository ended, and why.
pub(super) type End = (Status, Option<String>);

/// A look at a repository that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub repository: &'a Repository,
    /// Whether it waits for another run that is at work on the repository.
    pub waits: bool,
    /// A commit that a delivery said the branch has.
    pub after: Option<&'a str>,
    /// Who asks.
    pub by: &'a str,
    /// Whether nobody waits for it, so that git may tidy afterwards.
    pub tidies: bool,
    pub place: Place<'a>,
}

impl<'a> Run<'a> {
    /// Opens what a run needs in gitops-sync's folder.
    pub fn open(config: &'a Config, gitops: &Folder, request: &'a Request) -> Result<Self, Error> {
        Ok(Self {
            config,
            locks: Locks::open(gitops.again()?)?,
            store: Store::open(gitops.again()?)?,
            journal: Journal::open(gitops)?,
            mirror_user: OnceLock::new(),
            dry_run: request.dry_run,
            remove_all: request.remove_all,
            adopt: &request.adopt,
            user_units: request.user_units,
            goes_back: false,
            manager: OnceLock::new(),
        })
    }

    /// The mirror of a repository, opened for the user that fetches.
    pub fn mirror<'b>(&'b self, repository: &'b Repository) -> Result<Mirror<'b>, Error> {
        let user = self.mirror_user.get_or_init(mirror::user_or_warn);
        Mirror::open(self.config, repository, &self.store.folder, user)
    }

    pub fn manager(&self) -> Result<&Found, String> {
        self.manager.get_or_init(|| Manager::find(self.user_units)).as_ref().map_err(String::clone)
    }

    /// What runs the repository's own commands; none where no service manager is at hand.
    pub fn commands_manager(&self) -> Option<Manager> {
        self.manager().ok().map(|found| found.manager)
    }

    /// True where a deployment of the repository was cut off.
    pub fn is_interrupted(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.journal.interrupted(repository)?.is_some())
    }
}

/// gitops-sync's folder in the state, made where it is missing.
///
/// # Errors
/// `Refused` where root would obey what others can write there.
pub(super) fn folder(config: &Config) -> Result<Folder, Error> {
    let gitops = Folder::open_or_make(&config.state_dir, 0o755)?.sub_or_make("gitops", 0o751)?;
    if geteuid().is_root() {
        // What is written down there is obeyed, and units are what root runs.
        for path in [gitops.path(), &config.gitops.units_dir] {
            match state::require_roots(path) {
                Err(error) if !error.is_missing() => return Err(Error::Refused(error.to_string())),
                _ => {}
            }
        }
    }
    Ok(gitops)
}
