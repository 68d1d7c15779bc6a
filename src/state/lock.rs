use std::fs::File;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use super::{Error, Folder};

/// An exclusive lock (flock(2)) on a file of a folder; dropping it, or the end of the process, releases it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
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
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn attempt(folder: &Folder, name: &str) -> Result<Option<Self>, Error> {
        Self::take(folder, name, FlockOperation::NonBlockingLockExclusive)
    }

    fn take(folder: &Folder, name: &str, operation: FlockOperation) -> Result<Option<Self>, Error> {
        let path = folder.path().join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(folder.fd(), name, flags, Mode::from_raw_mode(0o640))
            .map_err(|error| Error::io("open", &path, error))?;
        loop {
            match flock(&fd, operation) {
                Ok(()) => return Ok(Some(Self { _file: File::from(fd) })),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(Error::io("lock", &path, error)),
            }
        }
    }
}
