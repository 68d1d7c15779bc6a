//! A commit without units where the host has some is most often a mistake: the folder got another name, or became a link.

use std::collections::BTreeMap;

use super::Error;
use super::mirror::Mirror;
use super::objects::LINK;
use crate::config::Repository;
use crate::hint::hint;
use crate::log;
use crate::records::short;
use crate::text;

/// A link's target is a path.
const LONGEST_TARGET: u64 = 4096;

/// Whether a commit without a single unit file may be deployed, where `installed` is what the host has of the repository.
///
/// # Errors
/// `Refused` with what to write or to run.
pub(super) fn check(repository: &Repository, mirror: &Mirror, commit: &str, installed: &[String]) -> Result<(), Error> {
    let (folder, name, to) = (&repository.units, &repository.name, short(commit));
    let not_folder = mirror.not_folder(commit, folder)?;
    if let Some((at, Some((LINK, object)))) = &not_folder {
        let target = mirror.blob(object, LONGEST_TARGET)?.unwrap_or_default();
        return Err(Error::Refused(format!(
            "{at} is a link to {} in {to}, and no link is followed to units; write the folder itself with units = \"FOLDER\" in \
             hub.toml, or units = \"\" to deploy none",
            log::printable(&target)
        )));
    }
    let remove = hint("gitops-sync", &format!("{name} --remove-all"));
    let units: Vec<&String> = installed.iter().filter(|file| !file.contains('/')).collect();
    // git does not keep empty folders, so the last unit may take its folder along.
    let moved = if not_folder.is_some() && !units.is_empty() { elsewhere(mirror, commit, &units)? } else { None };
    if let Some(place) = moved {
        return Err(Error::Refused(format!(
            "there is no folder {folder} in {to}, and the units are in {place} now; write units = \"{place}\" in hub.toml, or, if \
             they are to be removed, run: {remove}"
        )));
    }
    if units.len() > 1 {
        return Err(Error::Refused(format!(
            "{to} has no unit in {folder} any more and would take away all {} of {name}: {}; if that is meant, run: \
             {remove}, or write units = \"\" in hub.toml to leave them as they are",
            units.len(),
            text::listed(&units, " ")
        )));
    }
    Ok(())
}

/// The folder of the commit that has most of the units.
fn elsewhere(mirror: &Mirror, commit: &str, units: &[&String]) -> Result<Option<String>, Error> {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for entry in mirror.files(commit, "")? {
        let path = String::from_utf8_lossy(&entry.path);
        // The root of a repository cannot be its folder of units.
        let Some((folder, file)) = path.rsplit_once('/') else { continue };
        if units.iter().any(|unit| *unit == file) {
            *folders.entry(log::printable(folder.as_bytes())).or_default() += 1;
        }
    }
    Ok(folders.into_iter().max_by_key(|(_, count)| *count).map(|(folder, _)| folder))
}
