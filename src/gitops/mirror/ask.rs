use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use super::{LOCAL, Mirror, user};
use crate::command::{self, Account, Command};
use crate::config::{Config, Repository};
use crate::gitops::Error;
use crate::gitops::access::Access;
use crate::log;
use crate::state::Folder;

impl<'a> Mirror<'a> {
    /// Asks the remote whether it has the branch, as the mirrors' user and as a fetch would, without a mirror: nothing is
    /// fetched. Keys and tokens are laid down under a name of their own, so that a fetch that runs meanwhile keeps its.
    ///
    /// # Errors
    /// `Refused` where the branch is missing, `Fetch` where the remote does not answer within `limit`, others where a
    /// credential cannot be used.
    pub fn ask(config: &'a Config, repository: &'a Repository, limit: Duration) -> Result<(), Error> {
        let user = user();
        let folder = Scratch::make(&user)?;
        let mirror = Self {
            config,
            repository,
            path: folder.0.clone(),
            mirrors: Folder::open(&folder.0)?,
            user,
            objects: RefCell::default(),
            is_new: Cell::new(true),
            packs: Cell::new(0),
        };
        let access = Access::prepare(config, repository, &mirror.mirrors, &mirror.user)?;
        let command = mirror.ls_remote(&access, limit).name(format!("git ls-remote {}", repository.remote.url()));
        let failed = |error: command::Error| mirror.cannot_fetch(&access, &error);
        let output = command.run().map_err(failed)?;
        if output.status.code() == Some(2) {
            return Err(mirror.no_branch());
        }
        output.require_success("git ls-remote").map(drop).map_err(failed)
    }
}

/// A folder for one question, in the system's folder for temporary files; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make(user: &Account) -> Result<Self, Error> {
        let output =
            Command::new("mktemp", LOCAL).user(user).args(["--directory", "--tmpdir", "hub-doctor-XXXXXXXXXX"]);
        Ok(Self(PathBuf::from(output.succeed()?.text())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("folder_not_removed", folder = self.0.display().to_string(), error = error.to_string());
        }
    }
}
