use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat, flock, fstat, major, minor, openat, renameat, statat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};

use super::{Error, Folder, mounts};
use crate::command::is_alive;
use crate::host::mount_lines;

/// How long the lock of a process that is gone may be held by what it left behind.
const LEFTOVER: Duration = Duration::from_millis(500);

/// Its owner's alone: flock(2) takes no right but that to open the file.
const MODE: Mode = Mode::from_raw_mode(0o600);

/// An exclusive lock (flock(2)) on a file of a folder; dropping it, or the end of the process, releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: std::path::PathBuf,
}

impl Lock {
    /// Takes the lock, waiting for as long as another process holds it.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn wait(folder: &Folder, name: &str) -> Result<Self, Error> {
        Self::take(folder, name, FlockOperation::LockExclusive)
            .and_then(|lock| lock.ok_or_else(|| Error::io("lock", &folder.path().join(name), Errno::WOULDBLOCK)))
    }

    /// Takes the lock, or returns none where another process holds it.
    ///
    /// A holder that was killed while it started a child leaves its lock to that child for the moment until the child
    /// executes its program: that is waited for.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn attempt(folder: &Folder, name: &str) -> Result<Option<Self>, Error> {
        let until = Instant::now() + LEFTOVER;
        loop {
            let lock = Self::take(folder, name, FlockOperation::NonBlockingLockExclusive)?;
            // No holder is one that let go between the two looks, or a kernel that does not say.
            if lock.is_some() || lock_holder(folder, name)?.is_some_and(is_alive) || Instant::now() >= until {
                return Ok(lock);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Replaces the note in the lock's file and returns the earlier one, at most 4 KiB: what a holder wrote and did not
    /// take away tells the next one how it ended. It is not made durable, so after a power cut it can be anything.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn exchange(&mut self, note: &str) -> Result<String, Error> {
        let mut earlier = Vec::new();
        let mut exchange = || {
            self.file.rewind()?;
            (&self.file).take(4096).read_to_end(&mut earlier)?;
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(note.as_bytes())
        };
        exchange().map_err(|error| Error::io("write", &self.path, error))?;
        Ok(String::from_utf8_lossy(&earlier).into_owned())
    }

    fn take(folder: &Folder, name: &str, operation: FlockOperation) -> Result<Option<Self>, Error> {
        let path = folder.path().join(name);
        let failed = |act: &'static str| {
            let path = path.clone();
            move |error: Errno| Error::io(act, &path, error)
        };
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(folder.fd(), name, flags, MODE).map_err(failed("open"))?;
            let stat = fstat(&fd).map_err(failed("inspect"))?;
            if is_shared(folder, &stat).map_err(failed("inspect"))? {
                // Whoever may open it may hold it for ever, and whoever had it open does so whatever its mode is now.
                match holder_in(&locks(), &files_of(folder, &stat)).filter(|pid| is_trusted(*pid)) {
                    None => make_anew(folder, name).map_err(failed("make anew"))?,
                    Some(_) if operation == FlockOperation::NonBlockingLockExclusive => return Ok(None),
                    // A run of an earlier version, at work.
                    Some(pid) => wait_for_end(pid).map_err(failed("wait for the holder of"))?,
                }
                continue;
            }
            match flock(&fd, operation) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed("lock")(error)),
            }
            // Made anew while this one waited: a lock on a file that nobody finds any more locks nothing.
            match statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if (found.st_dev, found.st_ino) == (stat.st_dev, stat.st_ino) => {
                    return Ok(Some(Self { file: File::from(fd), path }));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("inspect")(error)),
            }
        }
    }
}

/// True for the lock in a folder of this process's user that somebody else could open: earlier versions made it so.
fn is_shared(folder: &Folder, lock: &Stat) -> Result<bool, Errno> {
    let me = geteuid().as_raw();
    Ok(fstat(folder.fd())?.st_uid == me && (lock.st_uid != me || lock.st_mode & 0o077 != 0))
}

/// Puts a new file in a lock's place.
fn make_anew(folder: &Folder, name: &str) -> Result<(), Errno> {
    let unfinished = format!(".{name}.{}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(folder.fd(), &unfinished, flags, MODE) {
        // Left by a process that was killed here and whose number this one has now.
        Ok(_) | Err(Errno::EXIST) => renameat(folder.fd(), &unfinished, folder.fd(), name),
        Err(error) => Err(error),
    }
}

/// True for a process of root's or of this user's.
fn is_trusted(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|found| [0, geteuid().as_raw()].contains(&found.uid()))
}

fn wait_for_end(pid: u32) -> Result<(), Errno> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => loop {
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], None) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        },
        Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

fn locks() -> String {
    std::fs::read_to_string("/proc/locks").unwrap_or_default()
}

/// The process that holds the lock on a file of a folder, by `/proc/locks` (proc_locks(5)): looking takes nothing, so
/// that nobody who wants the lock meanwhile is turned away, and needs no right on the file.
///
/// None where nobody holds it, or the kernel does not say.
///
/// # Errors
/// When the file is there and cannot be looked at.
pub fn lock_holder(folder: &Folder, name: &str) -> Result<Option<u32>, Error> {
    let stat = match statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(Error::io("inspect", &folder.path().join(name), error)),
    };
    Ok(holder_in(&locks(), &files_of(folder, &stat)))
}

/// The processes that wait for the lock on a file of a folder; empty where the kernel does not say.
///
/// # Errors
/// As `lock_holder`.
pub fn lock_waiters(folder: &Folder, name: &str) -> Result<Vec<u32>, Error> {
    let stat = match statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("inspect", &folder.path().join(name), error)),
    };
    Ok(waiters_in(&locks(), &files_of(folder, &stat)))
}

/// The names that a file may have in /proc/locks: by the device that stat(2) tells, and by that of its mount, which is another
/// one with btrfs and overlayfs.
fn files_of(folder: &Folder, stat: &Stat) -> Vec<String> {
    let devices = [Some((major(stat.st_dev), minor(stat.st_dev))), mounted_device(folder)];
    devices.into_iter().flatten().map(|(major, minor)| format!("{major:02x}:{minor:02x}:{}", stat.st_ino)).collect()
}

/// The device of the mount that a folder is in, by proc_pid_mountinfo(5); none where the kernel does not say.
fn mounted_device(folder: &Folder) -> Option<(u32, u32)> {
    let mount = mounts::id(folder.fd())?;
    let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
    let line = mount_lines(&mounts).find(|line| line.id == mount.as_bytes())?;
    let (major, minor) = std::str::from_utf8(line.device).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn holder_in(locks: &str, files: &[String]) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { return None };
        files.iter().any(|known| known == file).then(|| pid.parse().ok()).flatten()
    })
}

fn waiters_in(locks: &str, files: &[String]) -> Vec<u32> {
    let waiter = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "->", "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { return None };
        files.iter().any(|known| known == file).then(|| pid.parse().ok()).flatten()
    };
    locks.lines().filter_map(waiter).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_lock_that_others_could_open_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let file = dir.path().join("lock");
        let with_mode = |mode| {
            let old = File::create(&file).unwrap();
            old.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            old
        };
        // Nobody of whom this process need take note holds it; the kernel lets it be locked by a handle on the old file.
        let old = with_mode(0o640);
        let lock = Lock::attempt(&folder, "lock").unwrap().unwrap();
        let found = std::fs::metadata(&file).unwrap();
        assert_eq!((found.mode() & 0o7777, found.ino() == old.metadata().unwrap().ino()), (0o600, false));
        assert!(Lock::attempt(&folder, "lock").unwrap().is_none());
        drop(lock);
        // A holder that is trusted is respected until it ends.
        drop(std::fs::remove_file(&file));
        drop(with_mode(0o660));
        let mut holder = std::process::Command::new("flock");
        let mut holder =
            holder.arg("--no-fork").arg(&file).arg("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        while lock_holder(&folder, "lock").unwrap() != Some(holder.id()) {
            std::thread::yield_now();
        }
        assert!(Lock::attempt(&folder, "lock").unwrap().is_none());
        let waited = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::wait(&folder, "lock"));
            drop(holder.stdin.take());
            holder.wait().unwrap();
            waiting.join().unwrap()
        });
        assert!(waited.is_ok());
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_holder_is_seen_and_waiters_are_not() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 fd:01:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 fd:01:79 0 EOF\n";
        let file = |inode: u64| ["00:2f", "fd:01"].map(|device| format!("{device}:{inode}"));
        assert_eq!([77, 78, 79, 8].map(|inode| holder_in(locks, &file(inode))), [None, Some(12), None, None]);
        assert_eq!([77, 78, 79].map(|inode| waiters_in(locks, &file(inode))), [vec![], vec![], vec![13]]);
        assert_eq!(holder_in(locks, &["fd:02:78".to_owned()]), None, "a file of that number on another device");
    }

    #[test]
    fn the_holder_of_a_real_lock_is_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(lock_holder(&folder, "lock").unwrap(), None);
        let lock = Lock::attempt(&folder, "lock").unwrap();
        assert_eq!(lock_holder(&folder, "lock").unwrap(), Some(std::process::id()));
        drop(lock);
        // A child that another test is just starting has the descriptor too, until it is another program.
        let begin = Instant::now();
        while lock_holder(&folder, "lock").unwrap().is_some() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the lock is held by nobody");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_killed_holder_left_behind_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        // `flock` of util-linux gives the lock to its child, as a process does that is killed between fork and exec.
        let file = dir.path().join("lock");
        let mut holder = std::process::Command::new("flock");
        let mut holder = holder.arg(&file).arg("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let input = holder.stdin.take();
        while lock_holder(&folder, "lock").unwrap() != Some(holder.id()) {
            std::thread::yield_now();
        }
        assert!(Lock::attempt(&folder, "lock").unwrap().is_none(), "its holder lives");
        holder.kill().unwrap();
        holder.wait().unwrap();
        std::thread::scope(|scope| {
            let attempt = scope.spawn(|| Lock::attempt(&folder, "lock"));
            drop(input);
            assert!(attempt.join().unwrap().unwrap().is_some());
        });
    }
}
