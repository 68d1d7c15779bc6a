use std::fs::File;
use std::io::{Read, Seek, Write};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use super::{Error, Folder};

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
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn attempt(folder: &Folder, name: &str) -> Result<Option<Self>, Error> {
        Self::take(folder, name, FlockOperation::NonBlockingLockExclusive)
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
