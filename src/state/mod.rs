//! The state root and what every service does with its own folder: durable files, a lock, a run record.
//! Only the ground floor's view of the disk lives here: no file format of a capability, no knowledge of git or HTTP.
//! A service writes its own folder and no other's.

mod error;
mod folder;
mod lock;
mod mounts;
mod owner;
mod record;
mod reserve;
mod way;

use std::path::{Path, PathBuf};

pub use error::Error;
pub use folder::{Entry, EntryKind, Folder, roomy};
pub use lock::{Lock, lock_holder, lock_waiters};
pub(crate) use mounts::{may_hang_around, may_hang_at};
pub use owner::{act_as, barring, become_owner};
pub use record::{Record, Run};
pub use reserve::{give_up_half_of_reserve, give_up_reserve_if_full, keep_reserve};
pub use way::{Way, require_roots};

/// The state root of an installation whose units run under systemd.
pub const SYSTEM_ROOT: &str = "/var/lib/observability-hub";

/// Where the state lives: `$HUB_STATE_DIR`, else `configured` (the key `state_dir`), else `/var/lib/observability-hub`
/// where it exists, else `$XDG_STATE_HOME/observability-hub`, whose default is `~/.local/state` (XDG Base Directory
/// Specification).
///
/// # Errors
/// When nothing names a folder, no `HOME` either, or `$HUB_STATE_DIR` is no absolute path.
pub fn root(configured: Option<&Path>) -> Result<PathBuf, Error> {
    let chosen = if let Some(path) = from("HUB_STATE_DIR") {
        if !path.is_absolute() {
            return Err(Error::RelativeRoot(path));
        }
        path
    } else if let Some(path) = configured {
        path.to_owned()
    } else if Path::new(SYSTEM_ROOT).is_dir() {
        PathBuf::from(SYSTEM_ROOT)
    } else {
        users_root()?
    };
    std::path::absolute(&chosen).map_err(|source| Error::io("resolve", &chosen, source))
}

/// The state folder of a user's own hub: below `$XDG_STATE_HOME`, else below `~/.local/state` (XDG Base Directory
/// Specification).
///
/// # Errors
/// When neither names a folder.
pub fn users_root() -> Result<PathBuf, Error> {
    let base = from("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| from("HOME").map(|home| home.join(".local/state"))).ok_or(Error::NoRoot)?;
    Ok(base.join("observability-hub"))
}

fn from(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The file name of a repository in queue, mirror and state folders: `acme/infra` becomes `acme__infra`.
pub fn repository_file_name(repository: &str) -> String {
    repository.replace('/', "__")
}

/// A repository's record in every folder of the state that has one a repository: `acme__infra.json`.
pub fn repository_record(repository: &str) -> String {
    repository_file_name(repository) + ".json"
}
