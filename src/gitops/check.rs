//! What `hub doctor` asks of this room: whether a repository could be deployed, without deploying or fetching anything.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::checkout::Checkout;
use super::mirror::Mirror;
use super::{Error, owner};
use crate::config::{Config, Repository};

pub use super::access::known_hosts as check_known_hosts;
pub use super::signatures::look as check_signers;

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
