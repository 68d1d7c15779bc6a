use procfs::process::Process;
use procfs::{Current, Uptime};

use super::{Level, Reason};
use crate::command::Account;
use crate::records::{Reader, span};
use crate::state::{Error, Folder, lock_holder, lock_waiters};

/// A run that waits for longer is told of, in seconds.
const LONG: u64 = 60;
/// Whose locks these are: folder below the state root, file, and service. Those of the repositories come to them.
const LOCKS: [(&str, &str, &str); 4] = [
    ("gitops", "lock", GITOPS),
    ("gitops", "queue.lock", GITOPS),
    ("gitops", "record.lock", GITOPS),
    ("gate", "lock", "tailscale-gate"),
];
const GITOPS: &str = "gitops-sync";
/// More locks of repositories are not looked at.
const MOST: usize = 1000;

/// Runs that wait for another process for long, and locks that somebody else than their service holds.
pub(super) fn reasons(reader: &mut Reader<'_>, now: jiff::Timestamp) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (name, file, service) in LOCKS {
        let Some(folder) = reader.folder(name) else { continue };
        let found = look(&folder, file, service, now);
        reasons.extend(reader.heard(found).flatten());
    }
    if let Some(folder) = reader.folder("gitops/locks") {
        let entries = folder.entries(MOST);
        for entry in reader.heard(entries).unwrap_or_default() {
            let found = look(&folder, &entry.name.to_string_lossy(), GITOPS, now);
            reasons.extend(reader.heard(found).flatten());
        }
    }
    reasons
}

fn look(folder: &Folder, file: &str, service: &str, now: jiff::Timestamp) -> Result<Option<Reason>, Error> {
    let Some(holder) = lock_holder(folder, file)? else { return Ok(None) };
    let degraded = |reason: String| Ok(Some(Reason::new(Level::Degraded, service, reason, format!("ps -fp {holder}"))));
    let is_strange = !is_of(holder, service);
    // A service writes its mark into the lock when it has got it. Threads of one run wait for one another as they should.
    let since = folder.entry(file.as_ref())?.map_or(0, |entry| entry.modified);
    let held = u64::try_from(now.as_second() - since).unwrap_or(0);
    let limit = if is_strange { u64::MAX } else { held };
    let waiters = lock_waiters(folder, file)?.into_iter().filter(|pid| *pid != holder);
    let longest = waiters.filter_map(|pid| Some((pid, age(pid)?.min(limit)))).max_by_key(|(_, age)| *age);
    match longest.filter(|(_, age)| *age > LONG) {
        Some((waiter, age)) => {
            degraded(format!("process {waiter} waits for {} for the lock that {} holds", span(age), described(holder)))
        }
        None if is_strange => {
            degraded(format!("{} holds the lock of {service}, which cannot work meanwhile", described(holder)))
        }
        None => Ok(None),
    }
}

/// How long a process runs, which is as long as it can have waited.
fn age(pid: u32) -> Option<u64> {
    let started = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?.starttime / procfs::ticks_per_second();
    (Uptime::current().ok()?.uptime as u64).checked_sub(started)
}

/// True for a process of a service, under its own name or as a part of `hub up`; also where it cannot be looked at.
fn is_of(pid: u32, service: &str) -> bool {
    // The kernel keeps 15 bytes of a name.
    comm(pid).is_none_or(|name| name == "hub" || name == service[..service.len().min(15)])
}

fn comm(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .ok()
        .map(|name| crate::log::printable(name.trim_end().as_bytes()))
}

fn described(pid: u32) -> String {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(format!("/proc/{pid}")).ok().map(|found| found.uid());
    let user = owner.map(|uid| Account::by_uid(uid).map_or_else(|| uid.to_string(), |user| user.name));
    let name = comm(pid).unwrap_or_else(|| "?".to_owned());
    format!("process {pid} ({name}, user {})", user.as_deref().unwrap_or("?"))
}
