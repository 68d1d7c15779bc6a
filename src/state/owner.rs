use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid, getgid, getuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Error;
use crate::command::Account;

/// Where root runs a command by hand on a folder that belongs to another user: becomes that user, so that no file in
/// it is left that its owner cannot write. Nothing happens where the folder does not exist yet, for another user than
/// root, and for a folder of root's own.
///
/// Call it while the process has one thread only: threads that run already stay root.
///
/// # Errors
/// When the folder cannot be inspected, is no folder, or the user cannot be changed.
pub fn become_owner(folder: &Path) -> Result<(), Error> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let stat = match rustix::fs::statat(CWD, folder, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(Error::io("inspect", folder, error)),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Error::io("enter", folder, Errno::NOTDIR));
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    if uid.is_root() {
        return Ok(());
    }
    let change = set_thread_groups(&[gid])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    change.map_err(|error| Error::io("become the owner of", folder, error))
}

/// The outermost folder on the way to a path, itself included, that a user may not enter; none where nothing is in the way.
/// What is missing is in nobody's way.
///
/// # Errors
/// As `act_as`.
pub fn barring(user: &Account, path: &Path) -> Result<Option<PathBuf>, Error> {
    // Of a link, what it leads to is in the way, and not the link.
    let real = path.canonicalize().ok();
    let may_not_enter =
        |folder: &&Path| matches!(open(folder.join("."), OFlags::PATH, Mode::empty()), Err(Errno::ACCESS));
    let outermost = |path: &Path| path.ancestors().filter(may_not_enter).last().map(Path::to_owned);
    act_as(user, || real.as_deref().and_then(outermost).or_else(|| outermost(path)))
}

/// Does something with the rights of a user on files, and that user's groups; as another user than root, with the caller's
/// own. The process's other threads stay as they are, and the user gets no hold on this one: it stays root's, but for what
/// it may open.
///
/// # Errors
/// When the rights cannot be changed.
pub fn act_as<T: Send>(user: &Account, act: impl FnOnce() -> T + Send) -> Result<T, Error> {
    if !geteuid().is_root() || user.uid == 0 {
        return Ok(act());
    }
    let failed = |error: std::io::Error| Error::io("act as the owner of", &user.home, error);
    let body = || {
        let groups: Vec<Gid> = user.groups().into_iter().map(Gid::from_raw).collect();
        let (me, my_group) = (getuid(), getgid());
        set_thread_groups(&groups)?;
        set_thread_res_gid(my_group, Gid::from_raw(user.gid), my_group)?;
        set_thread_res_uid(me, Uid::from_raw(user.uid), me)?;
        Ok(act())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, body).map_err(failed)?;
        let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.map_err(|error: Errno| failed(error.into()))
    })
}
