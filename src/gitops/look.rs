use std::collections::BTreeSet;
use std::ops::Bound;

use super::git::{Change, is_commit};

/// What a look at a checkout showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The commit that is checked out; none where the branch has no commit yet.
    pub head: Option<String>,
    /// The branch that is checked out; none for a detached HEAD.
    pub branch: Option<String>,
    /// The remote-tracking branch that the branch follows.
    pub upstream: Option<String>,
    /// Tracked files that differ from the commit.
    pub changed: Vec<Changed>,
    /// True where a merge left files that somebody has to decide about.
    pub unmerged: bool,
    /// The files that status does not tell about.
    pub unseen: Unseen,
}

/// A tracked file that differs from the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub path: Vec<u8>,
    /// git's mode of what is on the disk; `000000` where nothing is.
    pub mode: String,
    /// The committed file, where only the content of a regular file differs from it.
    pub committed: Option<String>,
}

impl Look {
    /// How a checkout looks that the hub has just made.
    pub fn of_new(branch: &str) -> Self {
        let upstream = Some(format!("origin/{branch}"));
        Self { branch: Some(branch.to_owned()), upstream, ..Self::default() }
    }
}

/// Parses `git status --porcelain=v2 --branch -z --no-renames` (git-status(1), Porcelain Format Version 2); none where
/// it has another form.
pub(super) fn parse_status(output: &[u8]) -> Option<Look> {
    let mut look = Look::default();
    for entry in output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let text = String::from_utf8_lossy(entry);
        if let Some(oid) = text.strip_prefix("# branch.oid ") {
            look.head = (oid != "(initial)").then(|| oid.to_owned());
            if look.head.as_deref().is_some_and(|head| !is_commit(head)) {
                return None;
            }
        } else if let Some(name) = text.strip_prefix("# branch.head ") {
            look.branch = (name != "(detached)").then(|| name.to_owned());
        } else if let Some(name) = text.strip_prefix("# branch.upstream ") {
            look.upstream = Some(name.to_owned());
        } else if !text.starts_with("# ") {
            // `1 XY sub mH mI mW hH hI path`, and `u XY sub m1 m2 m3 mW h1 h2 h3 path` for unmerged files.
            let fields = match entry.first()? {
                b'1' => 9,
                b'u' => 11,
                _ => return None,
            };
            look.unmerged |= fields == 11;
            let parts: Vec<&[u8]> = entry.splitn(fields, |byte| *byte == b' ').collect();
            let path = parts.get(fields - 1)?.to_vec();
            let text = |at: usize| String::from_utf8_lossy(parts[at]).into_owned();
            let mode = text(if fields == 9 { 5 } else { 6 });
            let same =
                fields == 9 && parts[1] == b".M" && parts[6] == parts[7] && parts[3..6].iter().all(|m| *m == parts[3]);
            // Only a name of an object may be asked of the mirror: the checkout's user has a hand in what git says here.
            let committed = Some(text(6)).filter(|name| same && mode.starts_with("100") && is_commit(name));
            look.changed.push(Changed { path, mode, committed });
        }
    }
    Some(look)
}

/// The files of a checkout that `git status` does not tell about and that a change may overwrite.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unseen {
    /// Untracked files, ignored ones too; a folder without tracked files is one entry that ends with a slash.
    pub untracked: Vec<Vec<u8>>,
    /// Tracked files marked assume-unchanged.
    pub assumed: Vec<Vec<u8>>,
    /// Tracked files marked skip-worktree.
    pub skipped: Vec<Vec<u8>>,
}

/// Parses `git ls-files -v -z --cached --others --directory` (git-ls-files(1)); none where it has another form.
pub(super) fn parse_files(output: &[u8]) -> Option<Unseen> {
    let mut unseen = Unseen::default();
    for entry in output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let (tag, path) = (*entry.first()?, entry.get(2..).filter(|path| !path.is_empty())?);
        match tag {
            b'?' => unseen.untracked.push(path.to_owned()),
            b'S' => unseen.skipped.push(path.to_owned()),
            tag if tag.is_ascii_lowercase() => unseen.assumed.push(path.to_owned()),
            _ => {}
        }
    }
    Some(unseen)
}

/// The paths of changes, to be asked what is in their way.
pub(super) struct Touched<'a>(BTreeSet<&'a [u8]>);

impl<'a> Touched<'a> {
    pub fn new(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        Self(changes.into_iter().map(|change| change.path.as_slice()).collect())
    }

    /// True where `path` is one of the changes, lies in a folder that one of them replaces, or stands where one of
    /// them needs a folder.
    pub fn overlaps(&self, path: &[u8]) -> bool {
        self.has(path) || self.below(path).next().is_some()
    }

    /// True where `path` is one of the changes or lies below one.
    pub fn has(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        self.0.contains(path) || ends.into_iter().any(|end| self.0.contains(&path[..end]))
    }

    /// The changes below the folder `path`.
    pub fn below(&self, path: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let prefix = [path, b"/"].concat();
        let range = self.0.range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded));
        range.copied().take_while(move |change| change.starts_with(&prefix)).collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_parsed_with_odd_names() {
        let head = "1".repeat(40);
        let entry = format!("1 .M N... 100644 100644 100644 {head} {head} a b\n#");
        let output = format!(
            "# branch.oid {head}\0# branch.head main\0# branch.upstream origin/main\0# branch.ab +0 -0\0{entry}\0"
        );
        let look = parse_status(output.as_bytes()).unwrap();
        assert_eq!(look.head, Some(head.clone()));
        assert_eq!((look.branch.as_deref(), look.upstream.as_deref()), (Some("main"), Some("origin/main")));
        let (path, mode) = (b"a b\n#".to_vec(), "100644".to_owned());
        assert_eq!(look.changed, [Changed { path, mode, committed: Some(head.clone()) }]);
        for other in [
            entry.replace(".M", "M."),
            entry.replacen("100644 1", "100755 1", 1),
            entry.replacen(&format!(" {head} a"), &format!(" {} a", "2".repeat(40)), 1),
            entry.replace("100644", "120000"),
            entry.replace(&head, "HEAD:file"),
            entry.replace(&head, &format!("{head}\n{head}")),
        ] {
            assert_eq!(parse_status(other.as_bytes()).unwrap().changed[0].committed, None, "{other}");
        }
        let look = parse_status(b"# branch.oid (initial)\0# branch.head (detached)\0").unwrap();
        assert_eq!(look, Look::default());
        assert!(parse_status(b"# branch.oid HEAD\0").is_none());
        assert!(parse_status(b"2 R. x\0").is_none());
    }

    #[test]
    fn files_are_parsed_by_their_tag() {
        let unseen = parse_files(b"? new dir/\0? \xff\n\0H seen\0h assumed\0S skipped\0s both\0").unwrap();
        assert_eq!(unseen.untracked, [b"new dir/".to_vec(), b"\xff\n".to_vec()]);
        assert_eq!(unseen.assumed, [b"assumed".to_vec(), b"both".to_vec()]);
        assert_eq!(unseen.skipped, [b"skipped".to_vec()]);
        assert!(parse_files(b"H\0").is_none());
    }

    #[test]
    fn paths_overlap_when_one_is_a_folder_of_the_other() {
        let changes = [b"a/b".to_vec(), b"c".to_vec()].map(|path| Change { kind: b'A', path });
        let touched = Touched::new(&changes);
        for path in [&b"a/b"[..], b"a", b"a/b/c", b"c", b"c/d"] {
            assert!(touched.overlaps(path), "{path:?}");
        }
        for path in [&b"ab"[..], b"a/c", b"a/", b"cc", b""] {
            assert!(!touched.overlaps(path), "{path:?}");
        }
        assert_eq!(touched.below(b"a").collect::<Vec<_>>(), [b"a/b"]);
    }
}
