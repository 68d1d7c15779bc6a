use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use super::{Error, Folder};

/// How long the lock of a process that is gone may be held by what it left behind.
const LEFTOVER: Duration = Duration::from_millis(500);

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
    /// take away tells the next one how it ended. It is not made durable.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn exchange(&mut self, note: &str) -> Result<String, Error> {
        let mut earlier = String::new();
        let mut exchange = || {
            self.file.rewind()?;
            (&self.file).take(4096).read_to_string(&mut earlier)?;
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(note.as_bytes())
        };
        exchange().map_err(|error| Error::io("write", &self.path, error))?;
        Ok(earlier)
    }

    fn take(folder: &Folder, name: &str, operation: FlockOperation) -> Result<Option<Self>, Error> {
        let path = folder.path().join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(folder.fd(), name, flags, Mode::from_raw_mode(0o640))
            .map_err(|error| Error::io("open", &path, error))?;
        loop {
            match flock(&fd, operation) {
                Ok(()) => return Ok(Some(Self { file: File::from(fd), path })),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(Error::io("lock", &path, error)),
            }
        }
    }
}

/// The process that holds the lock on a file of a folder, by `/proc/locks` (proc_locks(5)): looking takes nothing, so
/// that nobody who wants the lock meanwhile is turned away, and needs no right on the file.
///
/// None where nobody holds it, or the kernel does not say.
///
/// # Errors
/// When the file is there and cannot be looked at.
pub fn lock_holder(folder: &Folder, name: &str) -> Result<Option<u32>, Error> {
    let stat = match rustix::fs::statat(folder.fd(), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(Error::io("inspect", &folder.path().join(name), error)),
    };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    Ok(holder_in(&locks, stat.st_ino))
}

/// False for a process that is gone or only waits to be reaped (proc_pid_stat(5)).
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The device is not compared: with some file systems it is another one here than stat(2) tells.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { return None };
        (file.rsplit(':').next()? == inode.to_string()).then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_seen_and_waiters_are_not() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 fd:01:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 fd:01:79 0 EOF\n";
        assert_eq!([77, 78, 79, 8].map(|inode| holder_in(locks, inode)), [None, Some(12), None, None]);
    }

    #[test]
    fn the_holder_of_a_real_lock_is_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(lock_holder(&folder, "lock").unwrap(), None);
        let lock = Lock::attempt(&folder, "lock").unwrap();
        assert_eq!(lock_holder(&folder, "lock").unwrap(), Some(std::process::id()));
        drop(lock);
        assert_eq!(lock_holder(&folder, "lock").unwrap(), None);
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
