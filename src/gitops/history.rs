//! Which commit follows on which, read commit by commit: what git itself says of it depends on files of a repository's user
//! (grafts, the commit-graph), who may make anything follow on anything.

use std::collections::{BinaryHeap, HashMap, HashSet};

use super::Error;
use super::objects::{Commit, Objects};

/// More commits than this are not looked through; Linux has about half as many.
const MOST_COMMITS: usize = 3_000_000;

impl Objects {
    /// True where `old` is `new` or one of its ancestors, newest commits first.
    pub fn has_ancestor(&mut self, new: &str, old: &str) -> Result<bool, Error> {
        let mut seen = HashSet::from([new.to_owned()]);
        let mut waiting = BinaryHeap::from([(i64::MAX, new.to_owned(), self.commit(new)?.parents)]);
        while let Some((_, commit, parents)) = waiting.pop() {
            if commit == old {
                return Ok(true);
            }
            for parent in parents {
                if seen.insert(parent.clone()) {
                    bounded(seen.len())?;
                    let Commit { date, parents, .. } = self.commit(&parent)?;
                    waiting.push((date, parent, parents));
                }
            }
        }
        Ok(false)
    }

    /// The commits on the line of first parents from `new`, newest first, that are neither `old` nor its ancestors.
    pub fn line_since(&mut self, old: &str, new: &str) -> Result<Vec<String>, Error> {
        let mut line = Vec::new();
        let mut next = Some(new.to_owned());
        while let Some(commit) = next {
            if commit == old {
                return Ok(line);
            }
            bounded(line.len())?;
            next = self.first_parent(&commit)?;
            line.push(commit);
        }
        // `old` came in by a merge: the line goes on to where the two parted.
        let places: HashMap<&str, usize> = line.iter().enumerate().map(|(at, commit)| (commit.as_str(), at)).collect();
        let (mut end, mut seen, mut waiting) = (line.len(), HashSet::from([old.to_owned()]), vec![old.to_owned()]);
        while let Some(commit) = waiting.pop() {
            if let Some(at) = places.get(commit.as_str()) {
                end = end.min(*at);
                continue;
            }
            let parents = self.commit(&commit)?.parents;
            waiting.extend(parents.into_iter().filter(|parent| seen.insert(parent.clone())));
            bounded(seen.len())?;
        }
        drop(places);
        line.truncate(end);
        Ok(line)
    }
}

fn bounded(commits: usize) -> Result<(), Error> {
    if commits <= MOST_COMMITS {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "more than {MOST_COMMITS} commits lie between the deployed one and the branch; nobody looks through so many"
    )))
}
