//! What a commit names and git does not bring: submodules, and files of Git LFS. The commit chooses where they come from, so the
//! hub fetches none of them; a repository's own `build` may.

use super::Error;
use super::checkout::Checkout;
use super::git::Change;
use super::mirror::Mirror;
use super::outcome::Missing;
use super::plan::Plan;
use super::run::Run;
use super::worktree::walk;
use crate::log;
use crate::records::LeftOut;
use crate::state::{Folder, act_as};
use crate::text;

/// `.gitmodules` and `.gitattributes` are a page or two.
const LARGEST: u64 = 1 << 20;
/// What an LFS pointer begins with (git-lfs, docs/spec.md); none is longer than 1,024 bytes.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
const LONGEST_POINTER: usize = 1024;
/// As many paths are looked at.
const LARGEST_LISTING: usize = 256 << 20;

impl Run<'_> {
    /// What of a commit that is live the checkout does not have.
    pub(super) fn left_out(&self, plan: &Plan) -> Option<Missing> {
        let before = self.store.left_out(plan.repository);
        let may_be = || Ok(before.is_some() || may_be(&plan.mirror, &plan.to, &plan.changes)?);
        let found = may_be().and_then(|may_be| if may_be { plan.checkout.left_out() } else { Ok(None) });
        found.unwrap_or_else(|error| {
            log::warn!("left_out_not_seen", repo = plan.repository.name, error = error.to_string());
            before
        })
    }
}

/// True where a commit may have something that git does not bring. `changes` are what brought it.
fn may_be(mirror: &Mirror, commit: &str, changes: &[Change]) -> Result<bool, Error> {
    if is_file(mirror, commit, ".gitmodules")?.is_some() {
        return Ok(true);
    }
    let below =
        changes.iter().filter(|change| change.kind != b'D').filter_map(|change| std::str::from_utf8(&change.path).ok());
    let below = below.filter(|path| path.ends_with("/.gitattributes"));
    for path in std::iter::once(".gitattributes").chain(below) {
        let Some(object) = is_file(mirror, commit, path)? else { continue };
        let text = mirror.blob(&object, LARGEST)?.unwrap_or_default();
        if String::from_utf8_lossy(&text).contains("filter=lfs") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_file(mirror: &Mirror, commit: &str, path: &str) -> Result<Option<String>, Error> {
    let found = mirror.not_folder(commit, path)?;
    Ok(found
        .and_then(|(at, node)| node.filter(|(mode, _)| at == path && mode & 0o170_000 == 0o100_000))
        .map(|(_, object)| object))
}

impl Checkout<'_> {
    /// What of the commit that is checked out is not there; none where everything is.
    fn left_out(&self) -> Result<Option<Missing>, Error> {
        let listing = self.git().args(["ls-files", "-z", "--stage"]).output_limit(LARGEST_LISTING).succeed()?.stdout;
        let (mut modules, mut files) = (Vec::new(), Vec::new());
        for entry in listing.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            let tab = entry.iter().position(|byte| *byte == b'\t');
            let path =
                tab.and_then(|tab| entry.get(tab + 1..)).ok_or_else(|| Error::unexpected("git ls-files", entry))?;
            match entry.get(..3) {
                Some(b"160") => modules.push(path),
                Some(b"100") => files.push(path),
                _ => {}
            }
        }
        let lfs = self.lfs_files(&files)?;
        // What git says of them is the user's word, and so is what they are looked at with.
        let root = self.folder()?;
        let look = || {
            let mut submodules = Vec::new();
            for path in modules {
                if !has(&root, path, b".git")? {
                    submodules.push(text::name(path));
                }
            }
            pointers(&root, &lfs).map(|pointers| (submodules, pointers))
        };
        let (submodules, pointers) = act_as(&self.user, look)??;
        let (mut parts, mut kinds) = (Vec::new(), Vec::new());
        for (kind, paths, words) in [
            (LeftOut::Submodules, submodules, "submodules that are not fetched"),
            (LeftOut::LargeFiles, pointers, "pointers in the place of files of Git LFS"),
        ] {
            if !paths.is_empty() {
                parts.push(format!("{words}: {}", text::listed(&paths, ", ")));
                kinds.push(kind);
            }
        }
        Ok((!parts.is_empty()).then(|| Missing { said: parts.join("; "), kinds }))
    }

    /// The files that are for Git LFS to fetch.
    fn lfs_files(&self, files: &[&[u8]]) -> Result<Vec<Vec<u8>>, Error> {
        let input = files.iter().flat_map(|path| [path, b"\0".as_slice()].concat()).collect();
        let command = self.git().args(["check-attr", "-z", "--stdin", "filter"]).input(input);
        let answer = command.output_limit(LARGEST_LISTING).name("git check-attr").succeed()?.stdout;
        let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
        // Path, attribute and value, again and again.
        Ok(fields.chunks_exact(3).filter(|field| field[2] == b"lfs").map(|field| field[0].to_owned()).collect())
    }
}

/// Those of the files that Git LFS has not fetched.
fn pointers(root: &Folder, files: &[Vec<u8>]) -> Result<Vec<String>, Error> {
    let mut pointers = Vec::new();
    for path in files {
        let file = String::from_utf8_lossy(path);
        let (folders, name) = file.rsplit_once('/').unwrap_or(("", &file));
        let Some(folder) = walk(root, folders)? else { continue };
        let found = folder.as_ref().unwrap_or(root).read(name, LONGEST_POINTER);
        if found.is_ok_and(|content| content.is_some_and(|content| content.starts_with(POINTER))) {
            pointers.push(text::name(path));
        }
    }
    Ok(pointers)
}

/// True where a folder of the checkout has an entry. A name that is not UTF-8 is not looked for.
fn has(root: &Folder, folder: &[u8], name: &[u8]) -> Result<bool, Error> {
    let Some(folder) = walk(root, &String::from_utf8_lossy(folder))? else { return Ok(false) };
    let name = std::ffi::OsStr::new(std::str::from_utf8(name).unwrap_or_default());
    Ok(folder.as_ref().unwrap_or(root).entry(name)?.is_some())
}
