//! Files that a commit takes away and a unit that goes with it may still need when it is stopped: the script of its
//! `ExecStop=`, what that reads, a module that a program loads last. They stand in the checkout once more until then.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Error;
use super::checkout::{Checkout, LOOK};
use super::git::Change;
use super::look::Touched;
use super::worktree::list;
use crate::command::Command;
use crate::state::act_as;

/// The files that are there again.
#[derive(Debug, Default)]
pub(super) struct Lent(Vec<Vec<u8>>);

impl Checkout<'_> {
    /// Puts the files back that the fast-forward from a commit took away, where nothing else stands in their places. A run
    /// that is cut off meanwhile undoes the fast-forward, and to that commit they belong.
    pub fn lend(&self, from: &str, changes: &[Change]) -> Result<Lent, Error> {
        let others = Touched::new(changes.iter().filter(|change| change.kind != b'D'));
        let gone = changes.iter().filter(|change| change.kind == b'D' && !others.overlaps(&change.path));
        let mut paths: Vec<Vec<u8>> = gone.map(|change| change.path.clone()).collect();
        let root = &self.repository.path;
        let is_there = |path: &Vec<u8>| root.join(OsStr::from_bytes(path)).symlink_metadata().is_ok();
        // What `build` made of the same name stays.
        act_as(&self.user, || paths.retain(|path| !is_there(path)))?;
        if !paths.is_empty() {
            let restore = self.git().args(["restore", &format!("--source={from}"), "--worktree", "--quiet"]);
            let restore = restore.args(["--pathspec-from-file=-", "--pathspec-file-nul"]);
            restore.input(list(&paths)).limit(2 * LOOK).name("git restore").succeed()?;
        }
        Ok(Lent(paths))
    }

    /// Takes these files away again, and the folders that are empty then.
    pub fn take_away(&self, lent: Lent) -> Result<(), Error> {
        let Lent(paths) = lent;
        if paths.is_empty() {
            return Ok(());
        }
        let remove = |program: &'static str, option: &str, paths: &[Vec<u8>]| {
            let command = Command::new("xargs", LOOK).user(&self.user).folder(&self.repository.path);
            command.args(["-0", "-r", program, option, "--"]).input(list(paths)).name(program).succeed()
        };
        remove("rm", "-f", &paths)?;
        let parents = paths.iter().flat_map(|path| Path::new(OsStr::from_bytes(path)).ancestors().skip(1));
        let folders: BTreeSet<&OsStr> = parents.map(Path::as_os_str).filter(|folder| !folder.is_empty()).collect();
        // The inner ones first.
        let folders: Vec<Vec<u8>> = folders.into_iter().rev().map(|folder| folder.as_bytes().to_owned()).collect();
        remove("rmdir", "--ignore-fail-on-non-empty", &folders)?;
        Ok(())
    }
}
