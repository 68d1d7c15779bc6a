//! What is kept under a repository's name in `<state>/gitops`, whoever keeps it: it is moved where the name changes and
//! removed where the repository goes. Every step is one rename or one removal, so the next run finishes a killed one.

use super::store::Store;
use super::units::Host;
use crate::config::Repository;
use crate::log;
use crate::state::{Entry, EntryKind, Error, Folder, repository_file_name};

/// Where what could not be taken is kept under names of its own.
const FAILED: &str = "failed";
const MIRRORS: &str = "mirror";
const LOCKS: &str = "locks";
/// Where others' versions of unit files are.
const SAVED: &str = "saved";
/// More entries than this are nobody's repositories.
const MOST: usize = 100_000;

/// Something that is kept under a name.
pub(super) struct Kept {
    folder: Folder,
    /// The name of `folder` in the state.
    place: String,
    entry: Entry,
    ending: &'static str,
}

/// Everything that is kept under the names whose file name `is_meant` takes.
pub(super) fn kept(gitops: &Folder, is_meant: impl Fn(&str) -> bool) -> Result<Vec<Kept>, Error> {
    let mut found = Vec::new();
    for place in gitops.entries(MOST)? {
        let Some(place) = place.name.to_str().filter(|name| place.kind == EntryKind::Folder && *name != FAILED) else {
            continue;
        };
        let folder = gitops.sub(place)?;
        // Beside a mirror lies what only a fetch needs.
        let hidden = if place == MIRRORS { folder.unfinished()? } else { Vec::new() };
        for entry in folder.entries(MOST)?.into_iter().chain(hidden) {
            let ending = match entry.kind {
                EntryKind::Folder if place == MIRRORS => ".git",
                EntryKind::Folder => "",
                _ if place == MIRRORS => ".config",
                _ if place == LOCKS => ".lock",
                _ => ".json",
            };
            let name = entry.name.to_str().map(|name| name.strip_prefix('.').unwrap_or(name));
            let stem = name.and_then(|name| name.strip_suffix(ending));
            if stem.is_some_and(&is_meant) {
                found.push(Kept { folder: gitops.sub(place)?, place: place.to_owned(), entry, ending });
            }
        }
    }
    Ok(found)
}

impl Kept {
    /// Moves it under another file name. What is there already is newer and stays.
    fn rename(&self, stem: &str) -> Result<(), Error> {
        let (folder, old, new) = (&self.folder, &self.entry.name, format!("{stem}{}", self.ending));
        let is_hidden = old.as_encoded_bytes().starts_with(b".");
        if !is_hidden && folder.entry(new.as_ref())?.is_none() {
            folder.move_to(old, folder, new.as_ref())?;
            return folder.sync();
        }
        match self.entry.kind {
            // The deployment that was interrupted last is undone first, then this one.
            EntryKind::File if self.place == "journal" => return Ok(()),
            EntryKind::Folder if self.place == SAVED => {
                let (from, to) = (folder.sub(&old.to_string_lossy())?, folder.sub(&new)?);
                for entry in from.entries(MOST)? {
                    if to.entry(&entry.name)?.is_none() {
                        from.move_to(&entry.name, &to, &entry.name)?;
                    }
                }
                to.sync()?;
            }
            _ => {}
        }
        self.remove()
    }

    fn remove(&self) -> Result<(), Error> {
        if self.entry.kind != EntryKind::Folder {
            return self.folder.remove(&self.entry.name).map(|_| ());
        }
        // Of a mirror's user there may be anything in it; what is more than this goes with the next mirror that is made.
        self.folder.clear_away(&self.entry.name, &mut 1_000_000)?;
        self.folder.sync()
    }

    /// Removes it, but for others' versions of unit files; where those are, if there are some.
    pub fn forget(&self) -> Result<Option<std::path::PathBuf>, Error> {
        if self.place == SAVED && self.entry.kind == EntryKind::Folder {
            let saved = self.folder.sub(&self.entry.name.to_string_lossy())?;
            let is_ours = |entry: &Entry| entry.name.as_encoded_bytes().starts_with(b"undo-");
            let (ours, others): (Vec<Entry>, Vec<Entry>) = saved.entries(MOST)?.into_iter().partition(is_ours);
            if !others.is_empty() {
                ours.iter().try_for_each(|entry| saved.remove(&entry.name).map(|_| ()))?;
                return Ok(Some(saved.path().to_owned()));
            }
        }
        self.remove().map(|()| None)
    }
}

impl Store {
    /// What is kept under former names of a repository. A name in other letter case counts as one until the repository
    /// was looked at.
    fn former(&self, repository: &Repository) -> Result<Vec<Kept>, Error> {
        let own = repository_file_name(&repository.name);
        let former: Vec<String> = repository.names().map(repository_file_name).collect();
        let is_former = |stem: &str| stem != own && former.iter().any(|former| former.eq_ignore_ascii_case(stem));
        let mut all = kept(&self.folder, is_former)?;
        // What says that the repository was looked at comes last.
        all.sort_by_key(|kept| kept.place == "checked");
        Ok(all)
    }

    /// True where something is still kept under a former name of the repository.
    pub fn has_former(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.may_have_former(repository)?
            && (Host::has_units_of_former(&self.folder, repository)? || !self.former(repository)?.is_empty()))
    }

    /// Makes what is kept under former names of the repository its own.
    ///
    /// # Errors
    /// When something cannot be moved; the next call goes on from there.
    pub fn take_over(&self, repository: &Repository) -> Result<(), Error> {
        if !self.may_have_former(repository)? {
            return Ok(());
        }
        let own = repository_file_name(&repository.name);
        let units = Host::take_over(&self.folder, repository)?;
        let former = self.former(repository)?;
        former.iter().try_for_each(|kept| kept.rename(&own))?;
        if units > 0 || !former.is_empty() {
            let (repo, formerly) = (&repository.name, &repository.formerly);
            log::info!("renamed_repository_taken_over", repo = repo, formerly = formerly, unit_files = units);
        }
        Ok(())
    }

    fn may_have_former(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(!repository.formerly.is_empty() || !self.was_looked_at(repository)?)
    }
}
