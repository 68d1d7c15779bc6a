//! Who serves a repository on this host's own disk. Its owner says what git reads there: by `objects/info/alternates`,
//! `commondir`, or a link, that may lead anywhere. So it is read with the owner's rights, and not with those of the user
//! that fetches, to whom all mirrors belong.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, statat};
use rustix::process::geteuid;

use super::Error;
use crate::command::Account;
use crate::state::{self, Folder, Way, require_roots};

/// git's folders of loose objects, one for each first byte of a name, and `info`, `pack` and the hub's own.
const MOST_FOLDERS: usize = 1000;

/// A repository on this host, and its owner, whose git serves it.
#[derive(Debug)]
pub(super) struct Origin {
    pub owner: Account,
    pub path: PathBuf,
}

/// The repository at a path of hub.toml; none where the fetching user may as well read it itself: it is the caller's own, or
/// nobody but root can have put anything into it.
///
/// # Errors
/// `Fetch` when there is nothing, `Refused` when others than its owner and root can say where the path leads, or what root's
/// repository has.
pub(super) fn find(path: &Path, fetching: &Account) -> Result<Option<Origin>, Error> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    // As git does, which takes the second where there is no first.
    let bare = PathBuf::from([path.as_os_str(), ".git".as_ref()].into_iter().collect::<OsString>());
    let (path, way) = match Way::to_folder(path) {
        Err(error) if error.is_missing() => match Way::to_folder(&bare) {
            Err(other) if other.is_missing() => return Err(missing(path, error)),
            other => (bare.as_path(), other),
        },
        other => (path, other),
    };
    let way = way.map_err(|error| refused(path, &error))?;
    if way.owner() == 0 {
        return require_roots_own(path).map(|()| None).map_err(|error| refused(path, &error));
    }
    let owner = Account::by_uid(way.owner()).ok_or_else(|| {
        let (shown, uid) = (path.display(), way.owner());
        Error::Refused(format!(
            "the origin {shown} belongs to user id {uid}, which has no name on this host; git reads it as its owner: chown it"
        ))
    })?;
    way.is_kept_by(Some(&owner)).map_err(|error| refused(path, &error))?;
    // git would ask whose a link is.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok((owner.uid != fetching.uid).then_some(Origin { owner, path }))
}

fn missing(path: &Path, error: state::Error) -> Error {
    let part = if let state::Error::Io { path, .. } = error { path } else { path.to_owned() };
    Error::Fetch {
        url: path.display().to_string(),
        reason: format!("there is no {}; make it, or correct url in hub.toml", part.display()),
    }
}

fn refused(path: &Path, error: &state::Error) -> Error {
    if let state::Error::NoAnswer { .. } = error {
        return Error::Fetch { url: path.display().to_string(), reason: error.to_string() };
    }
    Error::Refused(format!("the origin {}: {error}", path.display()))
}

/// Says whether nobody but root can have said what git reads in a repository of root's, and that it is all in there.
fn require_roots_own(path: &Path) -> Result<(), state::Error> {
    let untrusted =
        |path: &Path, reason: &str| Err(state::Error::Untrusted { path: path.to_owned(), reason: reason.to_owned() });
    require_roots(path)?;
    let mut folder = Folder::open(path)?;
    match folder.sub(".git") {
        Ok(inner) => folder = inner,
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error),
    }
    let elsewhere = "it has git read what is elsewhere, perhaps what only the user that fetches may read; run there: git repack -a -d, \
                     and remove it, or chown the repository to a user, as whom git then reads it";
    for name in ["commondir", "objects/info/alternates"] {
        if statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return untrusted(&folder.path().join(name), elsewhere);
        }
    }
    let objects = folder.path().join("objects");
    let require = |part: &Path, owner: u32, mode: u32| {
        if FileType::from_raw_mode(mode) == FileType::Symlink {
            require_roots(part)
        } else if owner != 0 || mode & 0o022 != 0 {
            untrusted(
                part,
                "others than root can change it, and the repository is root's; chown all of it to one user, as whom git then reads it",
            )
        } else {
            Ok(())
        }
    };
    for part in [folder.path(), &folder.path().join("config"), &objects] {
        let found =
            statat(CWD, part, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| state::Error::io("inspect", part, error))?;
        require(part, found.st_uid, found.st_mode)?;
    }
    let mut inner = Folder::open(&objects)?.entries(MOST_FOLDERS)?.into_iter();
    inner.try_for_each(|entry| require(&objects.join(&entry.name), entry.owner, entry.mode))
}
