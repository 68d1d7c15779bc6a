use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// What counts as a change: names that come and go, files whose content, owner or mode changed, and the watched thing
/// itself being replaced.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// An inotify descriptor that becomes readable when something changed near its paths. It says no more than that:
/// whoever is woken looks at the disk again, so that no lost or doubled event can matter (inotify(7)).
pub(super) struct Watch {
    fd: OwnedFd,
    paths: Vec<PathBuf>,
}

impl Watch {
    /// Watches files and folders, absolute paths; they need not exist.
    ///
    /// # Errors
    /// When the system gives no inotify instance or watch.
    pub(super) fn new(paths: Vec<PathBuf>) -> std::io::Result<Self> {
        let watch = Self { fd: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?, paths };
        watch.arm()?;
        Ok(watch)
    }

    /// The descriptor to poll.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Forgets what has happened so far and watches what exists now. What changes from here on is seen again, so look
    /// at the disk after this call, not before.
    ///
    /// # Errors
    /// When the descriptor cannot be read or a watch not be set.
    pub(super) fn renew(&self) -> std::io::Result<()> {
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.fd, &mut events) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.arm()
    }

    fn arm(&self) -> std::io::Result<()> {
        for path in &self.paths {
            // A folder that exists tells about its names. Everything else is told about by the folder it is in, or
            // will be in, and by itself: it may be a link to a file elsewhere.
            let is_folder = path.is_dir();
            if self.add(path)? && is_folder {
                continue;
            }
            for ancestor in path.ancestors().skip(1) {
                if self.add(ancestor)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// False where there is nothing at the path.
    fn add(&self, path: &Path) -> std::io::Result<bool> {
        match inotify::add_watch(&self.fd, path, CHANGES) {
            Ok(_) => Ok(true),
            // A folder that may not be read is changed by others only; the one above it still tells when it goes.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// One version of an entry of the queue: a delivery that replaces a file makes another one.
pub(super) type Request = (OsString, u64, i64, i64);

/// What waits in the queue folder; names that begin with a dot are unfinished. Empty where there is no folder.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn requests(queue: &Path) -> std::io::Result<BTreeSet<Request>> {
    let mut requests = BTreeSet::new();
    let entries = match std::fs::read_dir(queue) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(requests),
        Err(error) => return Err(error),
    };
    for entry in entries.take(10_000) {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        match entry.metadata() {
            Ok(stat) => requests.insert((entry.file_name(), entry.ino(), stat.mtime(), stat.mtime_nsec())),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn changed(watch: &Watch) -> bool {
        let mut fds = [PollFd::new(watch.fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn a_path_is_seen_to_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etc/hub/hub.toml");
        let watch = Watch::new(vec![file.clone()]).unwrap();
        assert!(!changed(&watch));
        let steps: [(&str, &dyn Fn()); 6] = [
            ("its grandparent is made", &|| std::fs::create_dir(dir.path().join("etc")).unwrap()),
            ("its parent is made", &|| std::fs::create_dir(dir.path().join("etc/hub")).unwrap()),
            ("it is written", &|| std::fs::write(&file, "one").unwrap()),
            ("it is replaced", &|| {
                std::fs::write(dir.path().join("etc/hub/new"), "two").unwrap();
                std::fs::rename(dir.path().join("etc/hub/new"), &file).unwrap();
            }),
            ("it is removed", &|| std::fs::remove_file(&file).unwrap()),
            ("its folder is replaced", &|| std::fs::rename(dir.path().join("etc/hub"), dir.path().join("x")).unwrap()),
        ];
        for (what, step) in steps {
            step();
            assert!(changed(&watch), "{what}");
            watch.renew().unwrap();
            assert!(!changed(&watch), "{what}");
        }
    }

    #[test]
    fn a_change_behind_a_link_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("store/real.toml"), "one").unwrap();
        std::os::unix::fs::symlink("../store/real.toml", dir.path().join("etc/hub.toml")).unwrap();
        let watch = Watch::new(vec![dir.path().join("etc/hub.toml")]).unwrap();
        std::fs::write(dir.path().join("store/real.toml"), "two").unwrap();
        assert!(changed(&watch));
    }

    #[test]
    fn only_finished_requests_count_and_a_replaced_one_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("queue");
        assert!(requests(&queue).unwrap().is_empty());
        std::fs::create_dir(&queue).unwrap();
        std::fs::write(queue.join(".unfinished"), "").unwrap();
        assert!(requests(&queue).unwrap().is_empty());
        std::fs::write(queue.join("acme__infra.json"), "1").unwrap();
        let first = requests(&queue).unwrap();
        assert_eq!(first.len(), 1);
        std::fs::write(queue.join(".new"), "2").unwrap();
        std::fs::rename(queue.join(".new"), queue.join("acme__infra.json")).unwrap();
        assert!(requests(&queue).unwrap().is_disjoint(&first));
    }
}
