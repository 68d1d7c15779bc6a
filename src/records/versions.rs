//! What was live of a repository: the list that `hub versions` shows and `hub rollback` goes back by.

use serde::{Deserialize, Serialize};

/// How many commits are kept of a repository.
const MOST: usize = 50;
/// The shortest beginning of a commit's name that stands for it.
const SHORTEST: usize = 4;

/// What a commit says of itself, with everything hidden written out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The first line of its message.
    #[serde(default)]
    pub subject: String,
    /// The name of who wrote it.
    #[serde(default)]
    pub author: String,
    /// When it was committed, RFC 3339; none where that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<String>,
    /// Its page at the forge; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// A commit that was made live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name.
    pub commit: String,
    /// When it was made live last, RFC 3339.
    pub at: String,
    /// Who asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Since when somebody has gone back from it to an older one, RFC 3339; none where nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// What it says of itself.
    #[serde(flatten)]
    pub about: About,
}

/// `gitops/versions/<file>.json`: the commits that were live, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// `owner/name`
    #[serde(default)]
    pub repository: String,
    /// The commits.
    #[serde(default)]
    pub versions: Vec<Version>,
}

/// Why a beginning of a name stands for no commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfound {
    /// It is none: too short, or no hex digits.
    NoName,
    /// No commit with it was ever live here.
    Never,
    Several,
}

impl Versions {
    /// Takes in that a commit is live; `back` where somebody goes back to it, who does so in the order of what was live: the
    /// ones after it are left then. Returns the commits that the list has no room for any more.
    pub fn note(&mut self, version: Version, back: bool) -> Vec<String> {
        let place = self.versions.iter().position(|known| known.commit == version.commit);
        match place {
            Some(place) if back => {
                for newer in &mut self.versions[..place] {
                    newer.left.get_or_insert_with(|| version.at.clone());
                }
                self.versions[place] = version;
            }
            place => {
                if let Some(place) = place {
                    self.versions.remove(place);
                }
                self.versions.insert(0, version);
            }
        }
        let rest = self.versions.split_off(self.versions.len().min(MOST));
        rest.into_iter().map(|version| version.commit).collect()
    }

    /// True where a commit is in it.
    pub fn has(&self, commit: &str) -> bool {
        self.versions.iter().any(|version| version.commit == commit)
    }

    /// What was live before a commit that is live, but for what somebody has gone back from.
    pub fn before(&self, live: &str) -> Option<&Version> {
        let after = self.versions.iter().position(|version| version.commit == live).map_or(0, |place| place + 1);
        self.versions[after..].iter().find(|version| version.left.is_none())
    }

    /// The commit whose name begins so.
    ///
    /// # Errors
    /// When there is not just one.
    pub fn find(&self, name: &str) -> Result<&Version, Unfound> {
        let name = name.to_ascii_lowercase();
        if name.len() < SHORTEST || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Unfound::NoName);
        }
        let mut found = self.versions.iter().filter(|version| version.commit.starts_with(&name));
        let first = found.next().ok_or(Unfound::Never)?;
        if found.next().is_some() { Err(Unfound::Several) } else { Ok(first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(commit: &str) -> Version {
        let at = format!("2026-01-01T00:00:0{}Z", commit.len());
        Version { commit: commit.to_owned(), at, by: None, left: None, about: About::default() }
    }

    fn list(commits: &[&str]) -> Versions {
        let mut versions = Versions::default();
        for commit in commits {
            assert!(versions.note(version(commit), false).is_empty());
        }
        versions
    }

    fn commits(versions: &Versions) -> Vec<String> {
        versions.versions.iter().map(|version| version.commit.clone()).collect()
    }

    #[test]
    fn one_goes_back_step_by_step_and_never_to_what_was_left() {
        let mut versions = list(&["c1", "c2", "c3"]);
        assert_eq!(versions.before("c3").unwrap().commit, "c2");
        versions.note(version("c2"), true);
        assert_eq!(commits(&versions), ["c3", "c2", "c1"]);
        assert_eq!(versions.before("c2").unwrap().commit, "c1");
        // After the release a better commit comes: what was live before it is not the one that was left.
        versions.note(version("c4"), false);
        assert_eq!(versions.before("c4").unwrap().commit, "c2");
        // The same commit once more, because the branch is still there.
        versions.note(version("c3"), false);
        assert_eq!(commits(&versions), ["c3", "c4", "c2", "c1"]);
        assert_eq!(versions.before("c3").unwrap().commit, "c4");
        versions.note(version("c1"), true);
        assert_eq!(versions.before("c1"), None);
        assert_eq!(versions.before("none").unwrap().commit, "c1");
    }

    #[test]
    fn fifty_are_kept_and_what_goes_is_told() {
        let mut versions = Versions::default();
        let gone: Vec<String> =
            (0..60).flat_map(|number| versions.note(version(&format!("{number:04}")), false)).collect();
        assert_eq!((versions.versions.len(), gone.len(), gone[0].as_str()), (50, 10, "0000"));
    }

    #[test]
    fn a_beginning_stands_for_one_commit() {
        let versions = list(&["abcd1", "abcd2", "beef0"]);
        assert_eq!(versions.find("BEEF").unwrap().commit, "beef0");
        for (name, why) in [
            ("abcd", Unfound::Several),
            ("cafe", Unfound::Never),
            ("abc", Unfound::NoName),
            ("HEAD~1", Unfound::NoName),
            ("", Unfound::NoName),
        ] {
            assert_eq!(versions.find(name), Err(why), "{name}");
        }
    }
}
