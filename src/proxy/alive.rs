//! The socket that the gate holds: end of file on it means that this process is gone.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::state::Folder;

const NAME: &str = "alive.sock";
const BACKLOG: i32 = 64;
/// Rest after an accept that failed for want of descriptors: the connection stays in the kernel's queue, and the next
/// poll would report it again at once.
const REST: Duration = Duration::from_millis(500);

/// Why there is no socket.
#[derive(Debug)]
pub(super) enum Error {
    /// Another process answers on it.
    InUse(PathBuf),
    /// Something that is no socket has its name.
    NotASocket(PathBuf),
    /// It cannot be made.
    Bind(PathBuf, std::io::Error),
    /// Its folder cannot be opened.
    Folder(crate::state::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "another proxy answers on {}; stop it first", path.display()),
            Self::NotASocket(path) => write!(f, "{} is not a socket; remove it", path.display()),
            Self::Bind(path, error) => write!(f, "cannot listen on {}: {error}", path.display()),
            Self::Folder(error) => error.fmt(f),
        }
    }
}

/// The socket and the connections that are held open and silent until this process ends.
pub(super) struct Alive {
    listener: UnixListener,
    path: PathBuf,
    greeting: String,
    /// Without a cap: who is turned away takes this process for dead. The group is the only one that can connect.
    holders: Vec<UnixStream>,
    resting: Option<Instant>,
}

/// The folder of the socket: the first of `$RUNTIME_DIRECTORY` (systemd.exec(5)), else the state root.
pub(super) fn folder(state_dir: &Path) -> PathBuf {
    let runtime = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    let first = std::env::split_paths(&runtime).next().filter(|path| path.is_absolute());
    first.unwrap_or_else(|| state_dir.to_owned())
}

impl Alive {
    /// Listens in `folder`, mode 0660. The socket of a dead process is replaced.
    ///
    /// # Errors
    /// When a living process has the socket, or it cannot be made.
    pub fn listen(folder: &Path, instance: &str) -> Result<Self, Error> {
        let folder = Folder::open_or_make(folder, 0o755).map_err(Error::Folder)?;
        let path = folder.path().join(NAME);
        let failed = |error: std::io::Error| Error::Bind(path.clone(), error);
        // A socket address holds 108 bytes (unix(7)), a path may be longer.
        let short = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", folder.fd().as_raw_fd()));
        match std::fs::symlink_metadata(&short) {
            Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket(path)),
            Ok(_) => match UnixStream::connect(&short) {
                Ok(_) => return Err(Error::InUse(path)),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    folder.remove(NAME.as_ref()).map_err(Error::Folder)?;
                }
                Err(error) => return Err(failed(error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let bind = || -> rustix::io::Result<_> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::bind(&socket, &SocketAddrUnix::new(&short)?)?;
            // Before listen nobody can connect, so nobody can who may not.
            rustix::fs::chmod(&short, rustix::fs::Mode::from_raw_mode(0o660))?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        let listener = UnixListener::from(bind().map_err(|error| failed(error.into()))?);
        Ok(Self { listener, path, greeting: format!("{instance}\n"), holders: Vec::new(), resting: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor to poll, unless the socket rests.
    pub fn fd(&mut self) -> Option<BorrowedFd<'_>> {
        self.resting = self.resting.filter(|until| Instant::now() < *until);
        self.resting.is_none().then(|| self.listener.as_fd())
    }

    /// Lets go of the connections whose other end is gone. Returns how many are held.
    pub fn prune(&mut self) -> usize {
        self.holders.retain(|holder| !is_gone(holder));
        self.holders.len()
    }

    /// Takes new connections: says the instance id, then nothing any more.
    pub fn accept(&mut self) {
        self.prune();
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    // The line fits the socket's empty buffer; whoever hung up already does not need it.
                    let greeted =
                        stream.set_nonblocking(true).is_ok() && stream.write_all(self.greeting.as_bytes()).is_ok();
                    if greeted {
                        self.holders.push(stream);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        self.resting = Some(Instant::now() + REST);
                    }
                    return;
                }
            }
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // A stale socket is replaced at the next start anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_gone(holder: &UnixStream) -> bool {
    let mut polled = [PollFd::new(holder, PollFlags::empty())];
    let gone = PollFlags::HUP | PollFlags::ERR;
    poll(&mut polled, Some(&Timespec::default())).is_ok() && polled.iter().any(|fd| fd.revents().intersects(gone))
}
