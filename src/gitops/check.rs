//! What `hub doctor` asks of this room: whether a repository could be deployed, without deploying or fetching anything.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::checkout::Checkout;
use super::mirror::Mirror;
use super::{Error, access, owner, signatures};
use crate::config::{Config, Repository};

/// How long a remote gets to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Whether the remote lets the mirrors' user read the branch. Takes at most 20 seconds.
///
/// # Errors
/// What is in the way, and what to do.
pub fn check_access(config: &Config, repository: &Repository) -> Result<(), Error> {
    Mirror::ask(config, repository, ANSWER)
}

/// Whose a checkout is, or will be.
pub struct Owned {
    /// The user's name.
    pub user: String,
    /// True where nobody wrote that, and it is a user of the hub's own services, whose files and secrets the repository's commands can see.
    pub is_services: bool,
}

/// The user that the checkout belongs to, or will.
///
/// # Errors
/// When that user does not exist, does not own the path, does not get there, or cannot be used by this caller; when the checkout
/// cannot be made; with what to do.
pub fn check_checkout(config: &Config, repository: &Repository) -> Result<Owned, Error> {
    let checkout = Checkout::find(config, repository)?;
    if checkout.is_occupied() {
        let path = repository.path.display();
        return Err(Error::Refused(format!(
            "{path} holds files and no git repository; move them away, or choose another path"
        )));
    }
    checkout.require_place()?;
    // Who writes it wants it; and where the whole hub is one user's own, its secrets are that user's already.
    let uid = checkout.user.uid;
    let is_own = std::fs::metadata(&config.state_dir).is_ok_and(|found| found.uid() == uid);
    let is_services = repository.user.is_none() && !is_own && owner::is_services(config, repository, uid)?;
    Ok(Owned { user: checkout.user.name, is_services })
}

/// The file of pinned host keys, which may be missing.
///
/// # Errors
/// Who else than root can change it, and what to do.
pub fn check_known_hosts(config: &Config) -> Result<&Path, Error> {
    access::known_hosts(config)
}

/// Whether the lists of signers are trusted and readable; what they are. Empty where none is asked for.
///
/// # Errors
/// What is wrong with one, and what to do.
pub fn check_signers(repository: &Repository) -> Result<Vec<String>, Error> {
    signatures::look(repository)
}
