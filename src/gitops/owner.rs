//! Whose a checkout is. That is decided once, when it is made or taken over, and root keeps it: whoever can put another
//! folder in a checkout's place must not choose by that as whom the repository's commands run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::command::{self, Account};
use crate::config::{Config, Repository};
use crate::state::{self, Folder};
use crate::systemd::OWN;

/// The user of checkouts that the hub makes.
pub(super) const USER: &str = "hub-checkout";
/// Whose most services are.
const HUB: &str = "hub";
/// The folder in `<state>/gitops` with a file for each checkout.
pub(super) const FOLDER: &str = "checkouts";

/// That a user, who is `who`, may not enter a folder, and what lets it pass.
pub(super) fn may_not_enter(user: &str, who: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!("{user}, {who}, may not enter {folder}; let it pass with: setfacl -m u:{user}:x {folder}   or")
}

/// `gitops/checkouts/<repository>.json`: whom a checkout was made for, or taken over from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The path, as hub.toml had it.
    pub path: PathBuf,
    pub user: String,
    pub uid: u32,
}

impl Owner {
    pub fn new(repository: &Repository, user: &Account) -> Self {
        Self { path: repository.path.clone(), user: user.name.clone(), uid: user.uid }
    }
}

/// Nobody but root can say again whose a checkout is.
fn with_remedy(error: state::Error, repository: &Repository) -> state::Error {
    let state::Error::Content { path, reason } = error else { return error };
    let remedy = format!(
        "it names the owner of {}; look who owns that now, and if it is right remove the file: the next run keeps that user",
        repository.path.display()
    );
    state::Error::Content { path, reason: format!("{reason}; {remedy}") }
}

/// What root has kept of a repository.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Where it is about the path that the repository has now.
    owner: Option<Owner>,
    /// A version that kept no owners has deployed it.
    is_older: bool,
    /// The user that the services run as, where that is another than `hub`.
    service: Option<u32>,
}

/// The hub's own users, whose files and secrets no repository's command is to see.
fn services() -> impl Iterator<Item = &'static str> {
    let of_services = OWN.iter().map(|own| own.account).filter(|name| *name != "root");
    of_services.chain([super::mirror::USER, super::signatures::USER])
}

impl Known {
    /// # Errors
    /// When what was kept cannot be read.
    pub fn read(config: &Config, repository: &Repository) -> Result<Self, state::Error> {
        let service = std::fs::symlink_metadata(config.state_dir.join("proxy")).ok().map(|found| found.uid());
        let service = service.filter(|uid| *uid != 0);
        let gitops = match Folder::open(&config.state_dir).and_then(|root| root.sub("gitops")) {
            Ok(gitops) => gitops,
            Err(error) if error.is_missing() => return Ok(Self { service, ..Self::default() }),
            Err(error) => return Err(error),
        };
        let has = |folder: &str| match gitops.sub(folder) {
            Ok(folder) => folder.entry(repository.record().as_ref()).map(|entry| entry.is_some()),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        };
        let kept: Option<Owner> = match gitops.sub(FOLDER) {
            Ok(folder) => folder.read_json(&repository.record()).map_err(|error| with_remedy(error, repository))?,
            Err(error) if error.is_missing() => None,
            Err(error) => return Err(error),
        };
        let is_older = kept.is_none() && (has("deployed")? || has("journal")?);
        Ok(Self { owner: kept.filter(|owner| owner.path == repository.path), is_older, service })
    }

    /// The hub's own user of this id.
    fn is_services(&self, uid: u32) -> bool {
        self.service == Some(uid) || services().filter_map(Account::by_name).any(|user| user.uid == uid)
    }
}

/// Whose the checkout is: the configured user; else the one that root has kept; else the owner of what is there, but root
/// and the hub's own users, or `hub-checkout` where nothing is there. `present` is that owner.
///
/// # Errors
/// `Refused`, with what to do: the user does not exist, or the checkout has changed hands, or nobody may be it unasked.
pub(super) fn decide(repository: &Repository, present: Option<u32>, known: &Known) -> Result<Account, Error> {
    let path = repository.path.display();
    if let Some(name) = &repository.user {
        return Account::by_name(name)
            .ok_or_else(|| refused(format!("the user {name} does not exist on this host; create it, or change user")));
    }
    let caller = command::current();
    if caller.uid != 0 {
        return Ok(match present {
            Some(uid) if uid != caller.uid => {
                Account::by_uid(uid).unwrap_or(Account { name: uid.to_string(), uid, ..caller })
            }
            _ => caller,
        });
    }
    let is_gone = |owner: &&Owner| present.is_none() && known.is_services(owner.uid);
    if let Some(owner) = known.owner.as_ref().filter(|owner| !is_gone(owner)) {
        return keep(repository, owner, present);
    }
    let Some(uid) = present else { return new_user(caller) };
    if uid == 0 && !(known.is_older && Account::by_name(HUB).is_none()) {
        return Err(refused(format!(
            "{path} belongs to root: write user = \"root\" to run git and the repository's commands as root, or chown it"
        )));
    }
    let user = Account::by_uid(uid)
        .ok_or_else(|| refused(format!("{path} belongs to user id {uid}, which has no name on this host")))?;
    // One that an earlier version made, or took over, stays as it is.
    if known.is_services(uid) && (!known.is_older || user.name == super::mirror::USER) {
        return Err(refused(format!(
            "{path} belongs to {0}, a user of the hub's own services, and the repository's commands would see what is \
             theirs: move it away, so that it is made anew for {USER}, or write user = \"{0}\"",
            user.name
        )));
    }
    Ok(user)
}

/// The user that was kept, if everything is as it was.
fn keep(repository: &Repository, owner: &Owner, present: Option<u32>) -> Result<Account, Error> {
    let (path, name) = (repository.path.display(), &owner.user);
    let user = Account::by_uid(owner.uid).filter(|user| user.name == *name).ok_or_else(|| {
        let now = named(owner.uid);
        refused(format!(
            "the checkout {path} is kept for {name} (user id {}), and that id is {now} now; write user = \"…\" to name \
             its owner",
            owner.uid
        ))
    })?;
    match present {
        Some(uid) if uid != owner.uid => {
            let now = named(uid);
            Err(refused(format!(
                "the checkout {path} belonged to {name} when the hub took it over, and belongs to {now} now; give it back \
                 (chown -R {name}: {path}), or write user = \"{now}\" if that is wanted"
            )))
        }
        _ => Ok(user),
    }
}

/// The user of a checkout that does not exist yet. Root only where the hub is not installed: a container, a first try.
fn new_user(caller: Account) -> Result<Account, Error> {
    match Account::by_name(USER) {
        Some(user) => Ok(user),
        None if Account::by_name(HUB).is_none() => Ok(caller),
        None => Err(refused(format!(
            "there is no user {USER}, which new checkouts belong to; run: systemd-sysusers observability-hub.conf, or \
             write user = \"…\""
        ))),
    }
}

/// True for a user of the hub's own services.
///
/// # Errors
/// As `Known::read`.
pub(super) fn is_services(config: &Config, repository: &Repository, uid: u32) -> Result<bool, state::Error> {
    Known::read(config, repository).map(|known| known.is_services(uid))
}

fn named(uid: u32) -> String {
    Account::by_uid(uid).map_or_else(|| format!("nobody of a name ({uid})"), |user| user.name)
}

fn refused(reason: String) -> Error {
    Error::Refused(reason)
}
