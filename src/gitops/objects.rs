use std::collections::BTreeMap;

use sha2::Digest;

use super::Error;
use super::git::{Change, is_commit};
use crate::command::{Command, Conversation};
use crate::random::hex;

/// Commits and folders are read whole; git itself gets slow long before.
const LARGEST_LISTING: u64 = 64 << 20;
/// More files and folders than this are not compared or listed: the commit is no one's work.
const MOST_ENTRIES: usize = 2_000_000;
/// Bytes of all their paths together. Nested folders with long names make gigabytes of it out of a small pack; a million
/// files of an honest repository have less.
const MOST_PATH_BYTES: usize = 128 << 20;
/// A longer path than the kernel takes (PATH_MAX, pathconf(3)) can never be written.
const LONGEST_PATH: usize = 4095;

/// How long names of objects are where git uses SHA-1.
pub(super) const SHA1: usize = 40;

const TREE: u32 = 0o040000;
pub(super) const LINK: u32 = 0o120000;
const SUBMODULE: u32 = 0o160000;
const KIND: u32 = 0o170000;

/// Reads a repository's objects through one `git cat-file --batch`, which saves a process a question.
///
/// What git says is the word of the repository's user: of each object the content is compared with the name that it has.
#[derive(Debug)]
pub(super) struct Objects {
    git: Conversation,
    /// The repository, for messages.
    place: String,
}

/// What a commit says of its place in the history (git-commit-tree(1)).
pub(super) struct Commit {
    tree: String,
    pub parents: Vec<String>,
    /// When it was committed, in seconds since 1970; 0 where that cannot be read.
    pub date: i64,
}

/// A file of a commit's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry {
    /// git's mode: `100644`, `100755`, `120000` for a link, `160000` for a submodule.
    pub mode: String,
    pub object: String,
    /// Relative to the listed folder, any bytes but NUL.
    pub path: Vec<u8>,
}

/// What a tree says of one name: its mode, and the name of its object.
pub(super) type Node = (u32, String);
type Nodes = BTreeMap<Vec<u8>, Node>;

struct Object {
    id: String,
    kind: String,
    /// None where it is larger than the caller wants it.
    content: Option<Vec<u8>>,
}

impl Objects {
    /// Starts reading; `git` is a git command in the repository.
    pub fn open(git: Command) -> Result<Self, Error> {
        let place = git.place().map(|path| path.display().to_string()).unwrap_or_default();
        Ok(Self { git: git.args(["cat-file", "--batch"]).name("git cat-file").converse()?, place })
    }

    /// Asks for one object by a name without white space (git-cat-file(1), BATCH OUTPUT); none where there is none.
    fn get(&mut self, name: &str, limit: u64) -> Result<Option<Object>, Error> {
        self.git.ask(name)?;
        let line = self.git.line()?;
        let text = String::from_utf8_lossy(&line);
        if text.strip_prefix(name) == Some(" missing") {
            return Ok(None);
        }
        let unexpected = || Error::unexpected("git cat-file", &line);
        let [id, kind, size] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(unexpected()) };
        let size: u64 = size.parse().map_err(|_| unexpected())?;
        let content = if size <= limit { Some(self.git.bytes(size as usize)?) } else { None };
        self.git.skip(if content.is_some() { 1 } else { size + 1 })?;
        let is_other = is_commit(name) && id != name;
        if is_other || content.as_ref().is_some_and(|content| !is_name_of(id, kind, content)) {
            return Err(Error::Refused(format!(
                "{kind} {} in {} is not what its name stands for: the disk has lost something, or somebody has put it there; look what runs \
                 as the owner of that folder, then run: rm -rf {1}",
                if is_other { name } else { id },
                self.place
            )));
        }
        Ok(Some(Object { id: id.to_owned(), kind: kind.to_owned(), content }))
    }

    pub(super) fn listing(&mut self, name: &str, kind: &str) -> Result<Vec<u8>, Error> {
        match self.get(name, LARGEST_LISTING)? {
            Some(Object { kind: found, content: Some(content), .. }) if found == kind => Ok(content),
            _ => Err(Error::unexpected("git cat-file", format!("{name} is no {kind}").as_bytes())),
        }
    }

    /// The commit that a reference names; none where there is no such reference.
    pub fn resolve(&mut self, reference: &str) -> Result<Option<String>, Error> {
        let object = self.get(reference, 0)?;
        Ok(object.filter(|object| object.kind == "commit" && is_commit(&object.id)).map(|object| object.id))
    }

    /// A file's content; none where it has more bytes than `limit`.
    pub fn blob(&mut self, object: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.get(object, limit)? {
            Some(found) if found.kind == "blob" => Ok(found.content),
            _ => Err(Error::unexpected("git cat-file", format!("{object} is no blob").as_bytes())),
        }
    }

    /// What a commit says of its tree and its parents. They come first in it, in this order; what follows may have any
    /// names, and git takes no parent from there.
    pub fn commit(&mut self, commit: &str) -> Result<Commit, Error> {
        let content = self.listing(commit, "commit")?;
        let text = String::from_utf8_lossy(&content);
        let mut lines = text.lines().take_while(|line| !line.is_empty());
        let named = |line: Option<&str>, key| line?.strip_prefix(key).filter(|name| is_commit(name)).map(str::to_owned);
        let tree = named(lines.next(), "tree ")
            .ok_or_else(|| Error::unexpected("git cat-file", format!("{commit} has no tree").as_bytes()))?;
        let (mut parents, mut line) = (Vec::new(), lines.next());
        while let Some(parent) = named(line, "parent ") {
            parents.push(parent);
            line = lines.next();
        }
        let committer = line.into_iter().chain(lines).find_map(|line| line.strip_prefix("committer "));
        let date = committer.and_then(|line| line.rsplit(' ').nth(1)?.parse().ok()).unwrap_or(0);
        Ok(Commit { tree, parents, date })
    }

    /// A commit's first parent; none for a first commit.
    pub fn first_parent(&mut self, commit: &str) -> Result<Option<String>, Error> {
        Ok(self.commit(commit)?.parents.into_iter().next())
    }

    /// The headers of a commit that are signatures, or will be: `gpgsig`, `gpgsig-sha256`.
    ///
    /// git checks one of them and leaves the others out of what is signed, so that anybody can add some.
    pub fn signatures(&mut self, commit: &str) -> Result<Vec<String>, Error> {
        let content = self.listing(commit, "commit")?;
        let headers = content.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let names = headers.filter_map(|line| line.split(|byte| *byte == b' ').next());
        let names = names.filter(|name| name.starts_with(b"gpgsig"));
        Ok(names.map(crate::text::name).collect())
    }

    fn tree_of(&mut self, commit: &str) -> Result<String, Error> {
        Ok(self.commit(commit)?.tree)
    }

    fn nodes(&mut self, tree: Option<&str>) -> Result<Nodes, Error> {
        let Some(tree) = tree else { return Ok(Nodes::new()) };
        let content = self.listing(tree, "tree")?;
        parse_tree(&content, tree.len() / 2).ok_or_else(|| Error::unexpected("git cat-file", &content))
    }

    /// The files below a folder of a commit, with their paths relative to it; empty where there is no such folder.
    pub fn files(&mut self, commit: &str, folder: &str) -> Result<Vec<TreeEntry>, Error> {
        let mut tree = self.tree_of(commit)?;
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            match self.nodes(Some(&tree))?.remove(name.as_bytes()) {
                Some((TREE, below)) => tree = below,
                _ => return Ok(Vec::new()),
            }
        }
        let mut files = Vec::new();
        self.compare(None, Some(tree), |path, _, new| {
            if let Some((mode, object)) = new {
                files.push(TreeEntry { mode: format!("{mode:06o}"), object: object.clone(), path });
            }
        })?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// The first part of a path that is no folder in a commit, with its mode and object; none where all are.
    pub fn not_folder(&mut self, commit: &str, path: &str) -> Result<Option<(String, Option<Node>)>, Error> {
        let (mut tree, mut at) = (self.tree_of(commit)?, String::new());
        for name in path.split('/') {
            at = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
            match self.nodes(Some(&tree))?.remove(name.as_bytes()) {
                Some((TREE, below)) => tree = below,
                other => return Ok(Some((at, other))),
            }
        }
        Ok(None)
    }

    /// What changes from one commit (none: from nothing) to another.
    pub fn changes(&mut self, from: Option<&str>, to: &str) -> Result<Vec<Change>, Error> {
        let from = from.map(|commit| self.tree_of(commit)).transpose()?;
        let to = self.tree_of(to)?;
        let mut changes = Vec::new();
        self.compare(from, Some(to), |path, old, new| {
            let kind = match (old, new) {
                (None, _) => b'A',
                (_, None) => b'D',
                (Some((old, _)), Some((new, _))) if old & KIND != new & KIND => b'T',
                _ => b'M',
            };
            changes.push(Change { kind, path });
        })?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// Tells every file that differs between two trees, with what it is in each; a folder is no file.
    fn compare(
        &mut self,
        old: Option<String>,
        new: Option<String>,
        mut differs: impl FnMut(Vec<u8>, Option<&Node>, Option<&Node>),
    ) -> Result<(), Error> {
        // A list and no recursion: how deep the folders go is the committer's choice.
        let mut left = vec![(Vec::new(), old, new)];
        let (mut seen, mut bytes) = (0, 0);
        while let Some((folder, old, new)) = left.pop() {
            let old = self.nodes(old.as_deref())?;
            let mut new = self.nodes(new.as_deref())?;
            seen += old.len() + new.len();
            if seen > MOST_ENTRIES {
                return Err(Error::Refused(format!("the commit has more than {MOST_ENTRIES} files and folders")));
            }
            let mut pairs: Vec<_> = old.into_iter().map(|(name, old)| (new.remove(&name), Some(old), name)).collect();
            pairs.extend(new.into_iter().map(|(name, new)| (Some(new), None, name)));
            for (new, old, name) in pairs.into_iter().filter(|(new, old, _)| new != old) {
                let path = [folder.as_slice(), &name].concat();
                bytes += path.len();
                if path.len() > LONGEST_PATH || bytes > MOST_PATH_BYTES {
                    let start = String::from_utf8_lossy(&path[..path.len().min(60)]).into_owned();
                    return Err(Error::Refused(format!(
                        "the commit has paths that are too long, {LONGEST_PATH} bytes for one and {} MiB for all: {}…; push one \
                         without them",
                        MOST_PATH_BYTES >> 20,
                        crate::log::printable(start.as_bytes())
                    )));
                }
                let tree = |node: &Option<Node>| node.clone().filter(|(mode, _)| *mode == TREE).map(|(_, tree)| tree);
                let (old_tree, new_tree) = (tree(&old), tree(&new));
                let file = |node: Option<Node>| node.filter(|(mode, _)| *mode != TREE);
                let (old, new) = (file(old), file(new));
                if old_tree.is_some() || new_tree.is_some() {
                    left.push(([path.as_slice(), b"/"].concat(), old_tree, new_tree));
                }
                if old.is_some() || new.is_some() {
                    differs(path, old.as_ref(), new.as_ref());
                }
            }
        }
        Ok(())
    }
}

/// True where an object's name is the hash of what it holds (gitformat-pack(5), and Pro Git, "Git Objects").
fn is_name_of(name: &str, kind: &str, content: &[u8]) -> bool {
    let head = format!("{kind} {}\0", content.len());
    let found = if name.len() == SHA1 {
        hex(&sha1::Sha1::new().chain_update(head).chain_update(content).finalize())
    } else {
        hex(&sha2::Sha256::new().chain_update(head).chain_update(content).finalize())
    };
    found == name
}

/// Parses a tree object (Pro Git, "Git Internals - Git Objects", and git's tree-walk.c: mode in octal, space, name, NUL, the
/// object's name in `hash` bytes); none where it has another form.
fn parse_tree(mut content: &[u8], hash: usize) -> Option<Nodes> {
    let mut nodes = Nodes::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&content[..space]).ok()?, 8).ok()?;
        let end = content.iter().position(|byte| *byte == 0).filter(|end| *end > space + 1)?;
        let object = content.get(end + 1..end + 1 + hash)?;
        let object = hex(object);
        nodes.insert(content[space + 1..end].to_owned(), (canonical(mode), object));
        content = &content[end + 1 + hash..];
    }
    Some(nodes)
}

/// The mode that git works with where a tree has an odd one (canon_mode in git's cache.h).
fn canonical(mode: u32) -> u32 {
    match mode & KIND {
        0o100000 if mode & 0o100 != 0 => 0o100755,
        0o100000 => 0o100644,
        TREE => TREE,
        LINK => LINK,
        _ => SUBMODULE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;
    use crate::gitops::git::{LOCAL, git};

    #[test]
    fn trees_are_parsed_with_odd_names_and_modes() {
        let hash = [0xab; 20];
        let tree =
            [&b"100664 a b\n\0"[..], &hash, b"100755 x\0", &hash, b"40000 d\0", &hash, b"120000 l\0", &hash].concat();
        let nodes = parse_tree(&tree, 20).unwrap();
        let modes: Vec<_> = nodes.iter().map(|(name, (mode, _))| (name.as_slice(), *mode)).collect();
        assert_eq!(modes, [(&b"a b\n"[..], 0o100644), (b"d", TREE), (b"l", LINK), (b"x", 0o100755)]);
        assert!(nodes.values().all(|(_, object)| *object == "ab".repeat(20)));
        assert!(parse_tree(&tree[..tree.len() - 1], 20).is_none());
        assert!(parse_tree(b"100644 \0", 20).is_none() && parse_tree(b"9 x\0", 20).is_none());
    }

    /// The same answers as `git diff-tree` and `git ls-tree`.
    #[test]
    fn a_repository_is_read_as_git_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let me = command::current();
        let run = |arguments: &[&str]| {
            let git = git(&me, dir.path(), LOCAL).args(["-c", "user.name=T", "-c", "user.email=t@example.org"]);
            git.args(arguments).output_limit(1 << 20).succeed().unwrap()
        };
        run(&["init", "--quiet"]);
        let write = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        let commit = || {
            run(&["add", "--all"]);
            run(&["commit", "--quiet", "-m", "a change"]);
            run(&["rev-parse", "HEAD"]).text()
        };
        for name in
            ["same", "gone", "changed", "file", "folder/x", "folder/y/z", "a/b/c/d", "units/a.service", "units/d/x"]
        {
            write(name, name);
        }
        let first = commit();
        for name in ["gone", "file"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        std::fs::remove_dir_all(dir.path().join("folder")).unwrap();
        for name in ["changed", "file/now a folder", "folder", "a/b/c/new", "a/b/c/d"] {
            write(name, "other");
        }
        std::fs::remove_file(dir.path().join("same")).unwrap();
        std::os::unix::fs::symlink("changed", dir.path().join("same")).unwrap();
        let second = commit();

        let mut objects = Objects::open(git(&me, dir.path(), LOCAL)).unwrap();
        assert_eq!(objects.resolve("HEAD").unwrap().as_deref(), Some(second.as_str()));
        assert_eq!(objects.resolve("refs/heads/none").unwrap(), None);
        assert_eq!(objects.first_parent(&second).unwrap().as_deref(), Some(first.as_str()));
        assert_eq!(objects.first_parent(&first).unwrap(), None);
        let empty = run(&["hash-object", "-t", "tree", "/dev/null"]).text();
        for (from, old) in [(Some(first.as_str()), first.as_str()), (None, empty.as_str())] {
            let expected = run(&["diff-tree", "-r", "-z", "--no-renames", "--name-status", old, &second]).stdout;
            let mut expected: Vec<Change> = expected[..expected.len() - 1]
                .split(|byte| *byte == 0)
                .collect::<Vec<_>>()
                .chunks(2)
                .map(|pair| Change { kind: pair[0][0], path: pair[1].to_owned() })
                .collect();
            expected.sort_by(|a, b| a.path.cmp(&b.path));
            assert!(expected.len() > 5);
            assert_eq!(objects.changes(from, &second).unwrap(), expected);
        }
        let units: Vec<_> = objects.files(&second, "units").unwrap();
        let listed = run(&["ls-tree", "-r", &format!("{second}:units")]).text();
        let seen: Vec<_> = units
            .iter()
            .map(|entry| format!("{} blob {}\t{}", entry.mode, entry.object, String::from_utf8_lossy(&entry.path)))
            .collect();
        assert_eq!(seen, listed.lines().collect::<Vec<_>>());
        assert_eq!(objects.files(&second, "a/b/c").unwrap().len(), 2);
        assert!(
            objects.files(&second, "none").unwrap().is_empty() && objects.files(&second, "changed").unwrap().is_empty()
        );
        assert_eq!(objects.blob(&units[0].object, 100).unwrap().unwrap(), b"units/a.service");
        assert_eq!(objects.blob(&units[0].object, 3).unwrap(), None);
        assert_eq!(objects.blob(&units[1].object, 100).unwrap().unwrap(), b"units/d/x");
        assert!(objects.blob(&second, 100).is_err() && objects.changes(None, &"1".repeat(40)).is_err());
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/listings.rs"]
mod listings;
