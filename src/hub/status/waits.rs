use procfs::process::Process;
use procfs::{Current, Uptime};

use crate::command::{Account, is_called, name_of};
use crate::health::Wait;
use crate::records::Reader;
use crate::state::{Error, Folder, lock_holder, lock_waiters};
use crate::systemd::GITOPS_SYNC;
use crate::text;

/// A run that waits for longer is told of, in seconds.
const LONG: u64 = 60;
/// Whose locks these are: folder below the state root, file, and service. Those of the repositories come to them.
const LOCKS: [(&str, &str, &str); 4] = [
    ("gitops", "lock", GITOPS_SYNC),
    ("gitops", "queue.lock", GITOPS_SYNC),
    ("gitops", "record.lock", GITOPS_SYNC),
    ("gate", "lock", "tailscale-gate"),
];
/// More locks of repositories are not looked at.
const MOST: usize = 1000;

/// Runs that wait for another process for long, and locks that somebody else than their service holds.
pub(super) fn long(reader: &mut Reader<'_>, now: jiff::Timestamp) -> Vec<Wait> {
    let mut waits = Vec::new();
    for (name, file, service) in LOCKS {
        let Some(folder) = reader.folder(name).take() else { continue };
        let found = look(&folder, name, file, service, now);
        waits.extend(reader.heard(found).take().flatten());
    }
    let name = "gitops/locks";
    if let Some(folder) = reader.folder(name).take() {
        let entries = folder.entries(MOST);
        for entry in reader.heard(entries).take().unwrap_or_default() {
            let found = look(&folder, name, &entry.name.to_string_lossy(), GITOPS_SYNC, now);
            waits.extend(reader.heard(found).take().flatten());
        }
    }
    waits
}

fn look(
    folder: &Folder,
    name: &str,
    file: &str,
    service: &'static str,
    now: jiff::Timestamp,
) -> Result<Option<Wait>, Error> {
    let Some(holder) = lock_holder(folder, file)? else { return Ok(None) };
    let is_strange = !is_of(holder, service);
    // A service writes its mark into the lock when it has got it. Threads of one run wait for one another as they should.
    let since = folder.entry(file.as_ref())?.map_or(0, |entry| entry.modified);
    let held = u64::try_from(now.as_second() - since).unwrap_or(0);
    let limit = if is_strange { u64::MAX } else { held };
    let waiters = lock_waiters(folder, file)?.into_iter().filter(|pid| *pid != holder);
    let longest = waiters.filter_map(|pid| Some((pid, age(pid)?.min(limit)))).max_by_key(|(_, age)| *age);
    let waiter = longest.filter(|(_, age)| *age > LONG);
    let wait = || Wait { lock: format!("{name}/{file}"), service, holder, described: described(holder), waiter };
    Ok((waiter.is_some() || is_strange).then(wait))
}

/// How long a process runs, which is as long as it can have waited.
fn age(pid: u32) -> Option<u64> {
    let started = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?.starttime / procfs::ticks_per_second();
    (Uptime::current().ok()?.uptime as u64).checked_sub(started)
}

/// True for a process of a service, under its own name or as a part of `hub up`; also where it cannot be looked at.
fn is_of(pid: u32, service: &str) -> bool {
    ["hub", service].into_iter().any(|name| is_called(pid, name) != Some(false))
}

fn described(pid: u32) -> String {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(format!("/proc/{pid}")).ok().map(|found| found.uid());
    let user = owner.map(|uid| Account::by_uid(uid).map_or_else(|| uid.to_string(), |user| user.name));
    let name = name_of(pid).map_or_else(|| "?".to_owned(), |name| text::shown(&name).into_owned());
    format!("process {pid} ({name}, user {})", user.as_deref().unwrap_or("?"))
}
