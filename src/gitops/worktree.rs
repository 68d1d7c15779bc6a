//! Files of a checkout that differ from the commit and are nobody's work: what the repository's own commands wrote, and what
//! only git's conversion of line ends takes for changed. A fast-forward may replace them; what a person wrote it may not.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Error;
use super::checkout::Checkout;
use super::git::{Change, LOCAL};
use super::look::{Changed, Look, Touched};
use super::mirror::Mirror;
use super::units::digest;
use crate::command::{self, Command};
use crate::state::{Error as StateError, Folder, act_as};

/// Larger files are not looked into: they count as a person's.
const LARGEST: usize = 64 << 20;
/// Nor is looked into more than this in all: they are their user's, others wait meanwhile, and a file with holes costs nothing.
const MOST_BYTES: usize = 512 << 20;
/// More files than this are not remembered; they count as a person's.
const MOST: usize = 10_000;
/// Nor are files whose paths have more bytes together: as JSON each may take six (`\u0001`), and the journal is read whole.
const MOST_PATH_BYTES: usize = 2 << 20;

/// How a file was found that differs from the commit, or that git does not track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// Its path in the checkout; other than UTF-8 is not remembered.
    pub path: String,
    /// git's mode of the file on disk; `000000` where it is missing, empty where git does not track it.
    mode: String,
    /// SHA-256 of the content, or of a link's target; none where the file is missing.
    digest: Option<String>,
}

impl Found {
    pub fn is_tracked(&self) -> bool {
        !self.mode.is_empty()
    }
}

/// Files that give way to a fast-forward.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    /// Tracked files that `build` and `after` wrote: they are put back to what is committed, so that both begin anew.
    pub built: Vec<String>,
    /// Tracked files that are removed from the disk, because git would take them for changed and not replace them.
    removed: Vec<String>,
    /// Files that `build` and `after` made where the commit adds some: removed, too.
    made: Vec<String>,
}

impl Yielding {
    /// True where the file, or its change, is nobody's.
    pub fn has(&self, path: &[u8]) -> bool {
        [&self.built, &self.removed, &self.made].into_iter().flatten().any(|yielding| yielding.as_bytes() == path)
    }

    /// True where something goes that `build` and `after` would have to make again.
    pub fn takes_built(&self) -> bool {
        !self.built.is_empty() || !self.made.is_empty()
    }
}

impl Checkout<'_> {
    /// How the repository's own commands left files, but for those that were a person's before.
    pub fn built(&self, persons: &[String]) -> Result<Vec<Found>, Error> {
        let look = self.look_closely()?;
        let persons: BTreeSet<&[u8]> = persons.iter().map(String::as_bytes).collect();
        let mut files = candidates(&look);
        files.retain(|file| !persons.contains(file.path.as_slice()));
        self.found(&files)
    }

    /// How each of these files stands on the disk; those that cannot be remembered are left out.
    fn found(&self, files: &[Changed]) -> Result<Vec<Found>, Error> {
        if files.is_empty() || !are_few(files) {
            return Ok(Vec::new());
        }
        let root = self.folder()?;
        let read = || {
            let (mut all, mut left) = (Vec::new(), MOST_BYTES);
            for file in files {
                let content = match content(&root, &file.path, LARGEST.min(left)) {
                    Ok(Some(content)) => content,
                    Ok(None) => continue,
                    Err(error) if is_closed(&error) => continue,
                    Err(error) => return Err(error),
                };
                left -= content.as_ref().map_or(0, Vec::len).min(left);
                let Ok(path) = String::from_utf8(file.path.clone()) else { continue };
                all.push(Found { path, mode: file.mode.clone(), digest: content.map(|content| digest(&content)) });
            }
            Ok(all)
        };
        // A home that a server keeps from root (nfs's root_squash) is its user's alone.
        act_as(&self.user, read)?
    }

    /// What a fast-forward that makes `changes` may replace. `built` is what the repository's commands left.
    pub fn yielding(
        &self,
        look: &Look,
        changes: &[Change],
        built: &[Found],
        mirror: &Mirror,
    ) -> Result<Yielding, Error> {
        let mut yielding = Yielding::default();
        if changes.is_empty() || look.changed.is_empty() && built.is_empty() {
            return Ok(yielding);
        }
        let touched = Touched::new(changes);
        for found in self.same(&candidates(look), built)? {
            if found.is_tracked() {
                yielding.built.push(found.path);
            } else if touched.overlaps(found.path.as_bytes()) {
                yielding.made.push(found.path);
            }
        }
        let root = self.folder()?;
        for file in look.changed.iter().filter(|file| touched.overlaps(&file.path)) {
            let Ok(path) = std::str::from_utf8(&file.path) else { continue };
            if yielding.has(&file.path) || self.is_as_committed(&root, file, mirror)? {
                yielding.removed.push(path.to_owned());
            }
        }
        Ok(yielding)
    }

    /// The files that are a person's: changed, or not tracked, and not as `built` has them. None where they are too many to
    /// remember.
    pub fn persons(&self, built: &[Found]) -> Result<Option<Vec<String>>, Error> {
        let all = candidates(&self.look_closely()?);
        let same = self.same(&all, built)?;
        let is_built = |path: &str| same.iter().any(|found| found.path == path);
        let all_paths = all.iter().map(|file| String::from_utf8_lossy(&file.path).into_owned());
        Ok(are_few(&all).then(|| all_paths.filter(|path| !is_built(path)).collect()))
    }

    /// Puts tracked files back to what is committed that are as `built` has them.
    pub fn undo_built(&self, built: &[Found]) -> Result<(), Error> {
        let same = self.same(&candidates(&self.look_closely()?), built)?;
        let paths: Vec<String> = same.into_iter().filter(Found::is_tracked).map(|found| found.path).collect();
        self.restore(&paths)
    }

    /// Those of the files that stand on the disk as `built` has them.
    fn same(&self, files: &[Changed], built: &[Found]) -> Result<Vec<Found>, Error> {
        let paths: BTreeSet<&[u8]> = built.iter().map(|found| found.path.as_bytes()).collect();
        let known: Vec<Changed> = files.iter().filter(|file| paths.contains(file.path.as_slice())).cloned().collect();
        Ok(self.found(&known)?.into_iter().filter(|found| built.contains(found)).collect())
    }

    /// True for a file whose bytes are those of the commit: git may still take it for changed, because it would convert its line
    /// ends when it is committed the next time.
    fn is_as_committed(&self, root: &Folder, file: &Changed, mirror: &Mirror) -> Result<bool, Error> {
        let Some(object) = &file.committed else { return Ok(false) };
        // The object's name is the checkout's word; of one that the mirror does not have nothing is known.
        let Ok(Some(committed)) = mirror.blob(object, LARGEST as u64) else { return Ok(false) };
        match act_as(&self.user, || content(root, &file.path, committed.len()))? {
            Err(error) if is_closed(&error) => Ok(false),
            found => Ok(found? == Some(Some(committed))),
        }
    }

    fn restore(&self, paths: &[String]) -> Result<(), Error> {
        if !paths.is_empty() {
            let restore = ["restore", "--source=HEAD", "--staged", "--worktree", "--quiet"];
            let command = self.git().args(restore).args(["--pathspec-from-file=-", "--pathspec-file-nul"]);
            command.input(list(paths)).limit(LOCAL).name("git restore").succeed().map_err(in_use)?;
        }
        Ok(())
    }

    /// Takes them out of a fast-forward's way.
    pub fn give_way(&self, yielding: &Yielding) -> Result<(), Error> {
        self.restore(&yielding.built)?;
        let gone = [list(&yielding.removed), list(&yielding.made)].concat();
        if !gone.is_empty() {
            let remove = Command::new("xargs", LOCAL).user(&self.user).folder(&self.repository.path);
            remove.args(["-0", "rm", "-f", "--"]).input(gone).name("rm").succeed()?;
        }
        Ok(())
    }

    /// Puts back what was removed, where no fast-forward came of it.
    pub fn take_back_way(&self, yielding: &Yielding) -> Result<(), Error> {
        if !yielding.removed.is_empty() {
            let command = self.git().args(["checkout-index", "--force", "--stdin", "-z"]);
            command.input(list(&yielding.removed)).succeed()?;
        }
        Ok(())
    }
}

/// The changed files, and those that git does not track, but for whole folders of them.
fn candidates(look: &Look) -> Vec<Changed> {
    let files = look.unseen.untracked.iter().filter(|path| !path.ends_with(b"/"));
    let untracked = files.map(|path| Changed { path: path.clone(), ..Changed::default() });
    look.changed.iter().cloned().chain(untracked).collect()
}

fn are_few(files: &[Changed]) -> bool {
    files.len() <= MOST && files.iter().map(|file| file.path.len()).sum::<usize>() <= MOST_PATH_BYTES
}

fn in_use(error: command::Error) -> Error {
    match &error {
        command::Error::Failed { output, .. } if output.contains("index.lock") => Error::InUse(error.to_string()),
        _ => error.into(),
    }
}

/// Paths as `-0` and `--pathspec-file-nul` want them.
pub(super) fn list(paths: &[impl AsRef<[u8]>]) -> Vec<u8> {
    paths.iter().flat_map(|path| [path.as_ref(), b"\0"].concat()).collect()
}

/// A file's content, or a link's target; none in it where there is no such file, and none where it cannot be told or has more
/// bytes than `limit`. No link is followed on the way.
fn content(root: &Folder, path: &[u8], limit: usize) -> Result<Option<Option<Vec<u8>>>, Error> {
    let Ok(path) = std::str::from_utf8(path) else { return Ok(None) };
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(below) = walk(root, folders)? else { return Ok(Some(None)) };
    let folder = below.as_ref().unwrap_or(root);
    if let Some(target) = folder.link_target(name.as_ref())? {
        return Ok(Some(Some(target.into_os_string().into_encoded_bytes())));
    }
    match folder.read(name, limit) {
        Ok(content) => Ok(Some(content)),
        Err(StateError::NotRegular(_) | StateError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// True where the checkout's user may not look: somebody else's file in it counts as a person's.
fn is_closed(error: &Error) -> bool {
    error.is_denied()
}

/// A folder of the checkout, no link followed: none where it is not there, and none in it for the root.
pub(super) fn walk(root: &Folder, folders: &str) -> Result<Option<Option<Folder>>, Error> {
    let mut below: Option<Folder> = None;
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        match below.as_ref().unwrap_or(root).sub(part) {
            Ok(folder) => below = Some(folder),
            Err(error) if error.is_missing() || matches!(error, StateError::NotFolder(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_fits_into_the_journal() {
        let files = |count: usize, length: usize| vec![Changed { path: vec![1; length], ..Changed::default() }; count];
        assert!(are_few(&files(MOST, 200)) && !are_few(&files(MOST + 1, 1)) && !are_few(&files(MOST, 4000)));
        let most = String::from_utf8(vec![1; MOST_PATH_BYTES]).unwrap();
        assert!(serde_json::to_vec(&most).unwrap().len() < crate::records::LONGEST_ENTRY);
    }
}
