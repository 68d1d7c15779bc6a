use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::geteuid;

use super::{LOCAL, Mirror, user};
use crate::command::{self, Account, Command};
use crate::config::{Config, Repository};
use crate::gitops::Error;
use crate::gitops::access::{self, Access};
use crate::state::{self, Folder};
use crate::{log, random};

impl<'a> Mirror<'a> {
    /// Asks the remote whether it has the branch, as the mirrors' user and as a fetch would, without a mirror: nothing is
    /// fetched. Keys and tokens are laid down under a name of their own, so that a fetch that runs meanwhile keeps its.
    ///
    /// # Errors
    /// `Refused` where the branch is missing, `Fetch` where the remote does not answer within `limit`, others where a
    /// credential cannot be used.
    pub fn ask(config: &'a Config, repository: &'a Repository, limit: Duration) -> Result<(), Error> {
        let user = user();
        let folder = Scratch::make(config, &user)?;
        let mirror = Self {
            config,
            repository,
            path: folder.path.clone(),
            mirrors: Folder::open(&folder.path)?,
            access: Folder::open(&folder.access)?,
            user,
            objects: RefCell::default(),
            is_new: Cell::new(true),
            packs: Cell::new(0),
        };
        let place = (&mirror.access, format!("{}.access", folder.name));
        let access = Access::prepare(config, repository, (place.0, &place.1), &mirror.user)?;
        let failed = |error: command::Error| mirror.cannot_fetch(&access, &error);
        let output = mirror.ls_remote(&access, limit).and_then(Command::run).map_err(failed)?;
        if output.status.code() == Some(2) {
            return Err(mirror.no_branch());
        }
        output.require_success("git ls-remote").map(drop).map_err(failed)
    }
}

/// A folder for one question; removed when dropped.
struct Scratch {
    path: PathBuf,
    name: String,
    /// Where keys go meanwhile.
    access: PathBuf,
}

impl Scratch {
    /// For root in the folder of the state where nobody else can put something in its place, else in the caller's own
    /// folder among the system's temporary files.
    fn make(config: &Config, user: &Account) -> Result<Self, Error> {
        if !geteuid().is_root() {
            let output = Command::new("mktemp", LOCAL).args(["--directory", "--tmpdir", "hub-doctor-XXXXXXXXXX"]);
            let path = PathBuf::from(output.succeed()?.text());
            return Ok(Self { access: path.clone(), path, name: "doctor".to_owned() });
        }
        let gitops = Folder::open_or_make(&config.state_dir, 0o755)?.sub_or_make("gitops", 0o751)?;
        let access = access::folder(&gitops, user)?;
        let failed = |source| state::Error::io("name a folder in", access.path(), source);
        let name = format!("{}{}", access::DOCTORS, random::id().map_err(failed)?);
        let folder = access.sub_or_make(&name, 0o700)?;
        let made = Self { path: folder.path().to_owned(), name, access: access.path().to_owned() };
        access::give(folder.fd(), folder.path(), user)?;
        Ok(made)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = access::remove(&self.path) {
            log::warn!("folder_not_removed", error = error.to_string());
        }
    }
}
