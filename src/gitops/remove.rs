//! Removal of a repository that hub.toml does not have any more: first its units, then what is kept under its name. The
//! list of its units is shortened only when they are gone, so a removal that was cut off is finished by the next.

use super::Error;
use super::commands;
use super::journal::{Journal, Step};
use super::kept::kept;
use super::locks::Locks;
use super::units::{Applied, Found, Host, Manager};
use crate::command;
use crate::config::Config;
use crate::records::history::{Event, Kind};
use crate::state::{Folder, repository_file_name, repository_record};
use crate::text;

/// Stops and removes the units of a repository and forgets it; its checkout stays. `dry_run` changes nothing.
///
/// Returns what was, or would be, done, a line each; none where nothing is known of the name.
///
/// # Errors
/// `Busy` while gitops-sync is at work, `Refused` where the units are not this caller's to remove, others when a step
/// fails; then the next call goes on from there.
pub fn remove(config: &Config, name: &str, dry_run: bool) -> Result<Option<Vec<String>>, Error> {
    let Some((root, gitops)) = folders(config)? else { return Ok(None) };
    let find = || Host::owners(&gitops).map(|owners| owners.into_keys().find(|owner| owner.eq_ignore_ascii_case(name)));
    let stem = repository_file_name(name);
    let all = || kept(&gitops, |found| found.eq_ignore_ascii_case(&stem));
    // Before a lock makes something of this name.
    let owner = find()?;
    if owner.is_none() && all()?.is_empty() {
        return Ok(None);
    }
    // To show what would be done nothing is written, not even into a lock.
    let locks = if dry_run { None } else { Some(Locks::open(gitops.again()?)?) };
    let _held = match &locks {
        None => None,
        // A run that has read an earlier hub.toml may still be at work on it.
        Some(locks) => {
            let own = locks.repository(owner.as_deref().unwrap_or(name), false)?.ok_or(Error::Busy)?;
            Some((own, locks.attempt()?.ok_or(Error::Busy)?))
        }
    };
    let owner = find()?;
    let name = owner.as_deref().unwrap_or(name);
    let journal = Journal::open(&gitops)?;
    let interrupted = journal.read(&repository_record(name))?.filter(|entry| entry.units.is_some());
    let mut lines = Vec::new();
    if owner.is_some() || interrupted.is_some() {
        let found = Manager::find(!rustix::process::geteuid().is_root())
            .map_err(|reason| Error::Refused(format!("the units of {name} cannot be removed: {reason}")))?;
        let host = Host::open(&found, config, gitops.path())?;
        if let (Some(entry), false) = (&interrupted, dry_run) {
            commands::end_leftovers(found.manager, name)?;
            let mut back = Applied::new(name, Some(&entry.to), entry.from.as_deref());
            if let Some(before) = entry.units.as_ref().filter(|_| entry.step >= Step::Units) {
                let moved = host.restore_files(before, name, &mut back)?;
                host.restore_jobs(before, Some(&moved), &mut back)?;
            }
        }
        lines = remove_units(&host, &found, name, dry_run)?;
    }
    let units = text::first(&lines);
    let word = if dry_run { "to forget" } else { "forgot" };
    lines.push(format!("{word} what is kept of {name} in {}; its checkout stays", gitops.path().display()));
    if dry_run {
        return Ok(Some(lines));
    }
    for kept in all()? {
        if let Some(path) = kept.forget()? {
            lines.push(format!("what others had in the place of its units stays in {}", path.display()));
        }
    }
    let event = Event::new(Kind::Removed, name, "removed").with("units", (!units.is_empty()).then_some(units));
    event.with("by", command::caller()).append(&gitops);
    match root.sub("proxy").and_then(|proxy| proxy.sub("queue")) {
        Ok(queue) => queue.remove(repository_record(name).as_ref()).map(drop)?,
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Some(lines))
}

fn remove_units(host: &Host, found: &Found, name: &str, dry_run: bool) -> Result<Vec<String>, Error> {
    let (plan, own) = host.plan_removal(name)?;
    let mut lines: Vec<String> = own.iter().map(|file| format!("{file} is the hub's own and stays")).collect();
    let word = if dry_run { "to stop and remove" } else { "stopped and removed" };
    lines.extend(plan.lines.iter().map(|line| format!("{word} {}", line.file)));
    // What others require is not taken from them.
    host.validate(&plan, name)?;
    if !dry_run {
        let before = host.before(&plan, name, &[])?;
        let mut applied = Applied::new(name, None, None);
        host.apply(&plan, &[], &[], &before, &mut applied, || Ok(()))?;
        host.stop_last(&mut applied)?;
        host.sync()?;
        host.record(&plan, None)?;
        commands::end_leftovers(found.manager, name)?;
    }
    Ok(lines)
}

/// The state root and gitops-sync's folder in it; none where nothing has run yet.
fn folders(config: &Config) -> Result<Option<(Folder, Folder)>, Error> {
    let folders = Folder::open(&config.state_dir).and_then(|root| root.sub("gitops").map(|gitops| (root, gitops)));
    match folders {
        Ok(folders) => Ok(Some(folders)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
