//! The socket that the gate holds: end of file on it means that this process is gone.
//!
//! Everybody in the group can connect. Places are counted by the user at the other end, and root and the gate's account
//! have places that nobody else can take, so that nobody can keep the gate out or use up this process's descriptors.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

use crate::log;
use crate::state::Folder;

const NAME: &str = "alive.sock";
const BACKLOG: i32 = 64;
/// Rest after an accept that failed for want of descriptors: the connection stays in the kernel's queue, and the next
/// poll would report it again at once.
const REST: Duration = Duration::from_millis(500);
/// Connections that one user may hold who is neither root nor the gate's account. `hub status` takes one for a moment.
const EACH: usize = 16;
/// Connections that all of these users together may hold.
const OTHERS: usize = 64;
/// Whoever is unknown in this process's user namespace (`PrivateUsers=`) looks like this user: user_namespaces(7).
const UNKNOWN: u32 = 65_534;
/// The longest silence about connections that were turned away.
const TELL: Duration = Duration::from_secs(60);

/// Why there is no socket.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// Another process answers on it.
    #[error("another proxy answers on {0}; stop it first")]
    InUse(PathBuf),
    /// Something that is no socket has its name.
    #[error("{0} is not a socket; remove it")]
    NotASocket(PathBuf),
    /// It cannot be made.
    #[error("cannot listen on {0}: {1}")]
    Bind(PathBuf, std::io::Error),
    /// Its folder cannot be opened.
    #[error(transparent)]
    Folder(crate::state::Error),
}

/// The socket and the connections that are held open and silent until this process ends.
pub(super) struct Alive {
    listener: UnixListener,
    path: PathBuf,
    greeting: String,
    holders: Vec<Holder>,
    /// The folder whose owner is the gate's account.
    gate: PathBuf,
    resting: Option<Instant>,
    turned_away: TurnedAway,
}

struct Holder {
    stream: UnixStream,
    /// None where it has a place that only root and the gate's account can take.
    other: Option<u32>,
}

/// Connections that had no place, since it was last told.
#[derive(Default)]
struct TurnedAway {
    count: u64,
    told: Option<Instant>,
}

/// The folder of the socket: the first of `$RUNTIME_DIRECTORY` (systemd.exec(5)), else the state root.
pub(super) fn folder(state_dir: &Path) -> PathBuf {
    let runtime = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    let first = std::env::split_paths(&runtime).next().filter(|path| path.is_absolute());
    first.unwrap_or_else(|| state_dir.to_owned())
}

impl Alive {
    /// Listens in `folder`, mode 0660. The socket of a dead process is replaced. The owner of `gate/` in `state_dir` is the
    /// gate's account.
    ///
    /// # Errors
    /// When a living process has the socket, or it cannot be made.
    pub fn listen(folder: &Path, state_dir: &Path, instance: &str) -> Result<Self, Error> {
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
        Ok(Self {
            listener,
            path,
            greeting: format!("{instance}\n"),
            holders: Vec::new(),
            gate: state_dir.join("gate"),
            resting: None,
            turned_away: TurnedAway::default(),
        })
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
        self.holders.retain(|holder| !is_gone(&holder.stream));
        self.tell();
        self.holders.len()
    }

    /// Says how many were turned away, once a minute.
    fn tell(&mut self) {
        if self.turned_away.count > 0 && self.turned_away.told.is_none_or(|told| told.elapsed() >= TELL) {
            let count = std::mem::take(&mut self.turned_away.count);
            self.turned_away.told = Some(Instant::now());
            let reason = "users other than root and the gate's account hold too many; hub status of theirs fails";
            log::warn!("alive_connections_refused", count = count, reason = reason);
        }
    }

    /// Finds the place of a connection: none where its user has too many.
    fn place(&self, stream: &UnixStream) -> Option<Option<u32>> {
        let uid = socket_peercred(stream).map_or(UNKNOWN, |peer| peer.uid.as_raw());
        let is_gate = || uid != UNKNOWN && std::fs::symlink_metadata(&self.gate).is_ok_and(|gate| gate.uid() == uid);
        if uid == 0 || is_gate() {
            return Some(None);
        }
        let others = || self.holders.iter().filter_map(|holder| holder.other);
        (others().count() < OTHERS && others().filter(|other| *other == uid).count() < EACH).then_some(Some(uid))
    }

    /// Takes new connections: says the instance id, then nothing any more.
    pub fn accept(&mut self) {
        self.prune();
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let Some(other) = self.place(&stream) else {
                        self.turned_away.count += 1;
                        continue;
                    };
                    // The line fits the socket's empty buffer; whoever hung up already does not need it.
                    let greeted =
                        stream.set_nonblocking(true).is_ok() && stream.write_all(self.greeting.as_bytes()).is_ok();
                    if greeted {
                        self.holders.push(Holder { stream, other });
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
