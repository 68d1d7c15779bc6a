//! What in a checkout a fast-forward would overwrite.

use super::Error;
use super::checkout::Checkout;
use super::git::Change;
use super::look::{Look, Touched, Unseen};
use super::worktree::Yielding;
use crate::text;

/// How many bytes of paths go onto one command line; the kernel takes 128 KiB an argument and 2 MiB in all.
const PATHS_PER_CALL: usize = 64 << 10;

impl Checkout<'_> {
    /// Refuses what a fast-forward from `look` to a commit that makes `changes` would overwrite, but for `yielding`.
    pub fn check(&self, look: &Look, changes: &[Change], yielding: &Yielding) -> Result<(), Error> {
        let path = self.repository.path.display();
        let branch = &self.repository.branch;
        if look.branch.as_deref() != Some(branch) {
            let there = look.branch.as_deref().map_or_else(|| "no branch".to_owned(), |name| format!("branch {name}"));
            let switch = match (&look.branch, self.in_the_way_of_branch()?) {
                _ if self.tip(branch)?.is_some() => format!("switch {branch}"),
                (Some(old), None) => format!("branch -m {old} {branch}"),
                (Some(old), Some(other)) if *old == other => format!("branch -m {old} {branch}"),
                (_, Some(other)) => {
                    format!("branch -m {other} {}-old && git -C {path} switch -c {branch}", other.replace('/', "-"))
                }
                (None, None) => format!("switch -c {branch}"),
            };
            return Err(refused(format!("{path} has {there} checked out, not {branch}; run: git -C {path} {switch}")));
        }
        if look.unmerged {
            return Err(refused(format!(
                "{path} has a merge that nobody finished; commit it and push it, or run: git -C {path} merge --abort"
            )));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let touched = Touched::new(changes);
        let local = look.changed.iter().map(|file| file.path.as_slice());
        let local: Vec<&[u8]> = local.filter(|path| touched.overlaps(path) && !yielding.has(path)).collect();
        if !local.is_empty() {
            return Err(refused(format!(
                "{path} has local changes to {}, which the commit changes too; commit and push them, or undo them with: git -C {path} restore FILE",
                listed(&local)
            )));
        }
        let hidden = self.hidden(&look.unseen, &touched)?;
        if !hidden.is_empty() {
            return Err(refused(format!(
                "{path} has files that git is set to ignore changes of, and the commit changes them: {}; run: git -C {path} update-index --no-assume-unchanged --no-skip-worktree FILE",
                listed(&hidden)
            )));
        }
        let untracked = self.in_the_way(&look.unseen, changes, yielding)?;
        if !untracked.is_empty() {
            return Err(refused(format!(
                "{path} has files that git does not track where the commit adds some: {}; move them away",
                listed(&untracked)
            )));
        }
        Ok(())
    }

    /// Tracked files that a commit changes and whose local changes `git status` does not show.
    fn hidden(&self, files: &Unseen, touched: &Touched) -> Result<Vec<Vec<u8>>, Error> {
        let touched_of = |paths: &[Vec<u8>]| -> Vec<Vec<u8>> {
            paths.iter().filter(|path| touched.overlaps(path)).cloned().collect()
        };
        let (mut hidden, skipped) = (touched_of(&files.assumed), touched_of(&files.skipped));
        if !skipped.is_empty() {
            // In a sparse checkout git itself takes the mark from files that are there.
            let sparse = self.git().args(["config", "--type=bool", "--get", "core.sparseCheckout"]).run()?;
            if sparse.text() != "true" {
                hidden.extend(skipped);
            }
        }
        Ok(hidden)
    }

    /// Files that git does not track (ignored ones too) at the places where a commit adds some.
    fn in_the_way(&self, files: &Unseen, changes: &[Change], yielding: &Yielding) -> Result<Vec<Vec<u8>>, Error> {
        let added = Touched::new(changes.iter().filter(|change| change.kind == b'A'));
        let mut found = Vec::new();
        let mut unclear = Vec::new();
        for entry in &files.untracked {
            match entry.strip_suffix(b"/") {
                Some(folder) if !added.has(folder) => unclear.extend(added.below(folder)),
                None if yielding.has(entry) => {}
                None if !added.overlaps(entry) => {}
                _ => found.push(entry.clone()),
            }
        }
        // A folder that git does not track at all is listed as one; whether the files to come are there, is asked now.
        while !unclear.is_empty() {
            let mut bytes = 0;
            let fits = |path: &&[u8]| {
                bytes += path.len() + 1;
                bytes <= PATHS_PER_CALL
            };
            let count = unclear.iter().copied().take_while(fits).count().max(1);
            let asked: Vec<&[u8]> = unclear.drain(..count).collect();
            found.extend(self.ls_files(&["--others"], &asked)?.untracked);
        }
        Ok(found)
    }
}

fn refused(reason: String) -> Error {
    Error::Refused(reason)
}

fn listed(names: &[impl AsRef<[u8]>]) -> String {
    text::listed(names.iter().map(|name| text::printable(name.as_ref())), ", ")
}
