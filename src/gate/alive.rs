//! The connection to `alive.sock`: its end is the end of the proxy's process, and it names the instance.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::timespec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

const NAME: &str = "alive.sock";
/// Where the socket is on a host whose proxy systemd runs (`RuntimeDirectory=observability-hub`).
const SYSTEM_FOLDER: &str = "/run/observability-hub";
/// A proxy that accepts connections greets within this time.
const GREETING: Duration = Duration::from_secs(2);
const LONGEST_INSTANCE: usize = 128;

/// The folders that may hold the socket: the first of `$RUNTIME_DIRECTORY` (systemd.exec(5)), which a supervisor sets
/// for both; else the state root, else the system's.
pub(super) fn folders(state_dir: &Path) -> Vec<PathBuf> {
    let runtime = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    match std::env::split_paths(&runtime).next().filter(|path| path.is_absolute()) {
        Some(folder) => vec![folder],
        None => vec![state_dir.to_owned(), SYSTEM_FOLDER.into()],
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Alive {
    stream: UnixStream,
    greeting: Vec<u8>,
    greeted: bool,
    deadline: Instant,
}

/// What the connection told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// The proxy's instance id.
    Instance(String),
    /// The proxy is gone; the text says how that showed.
    Gone(String),
}

impl Alive {
    /// Connects to the first folder whose proxy answers, without waiting.
    ///
    /// # Errors
    /// A sentence that says why there is no proxy in any of them.
    pub fn connect(folders: &[PathBuf], now: Instant) -> Result<Self, String> {
        let mut reasons = Vec::new();
        for folder in folders {
            match connect_in(folder) {
                Ok(stream) => return Ok(Self::over(stream, now)),
                Err(error) => reasons.push((folder.join(NAME), error)),
            }
        }
        // A socket that is missing everywhere is one fact; one that cannot be used is worth its own words.
        let worth = reasons.iter().find(|(_, error)| error.kind() != ErrorKind::NotFound).or(reasons.first());
        Err(match worth {
            Some((path, error)) if error.kind() == ErrorKind::PermissionDenied => {
                format!("{} may not be used: {error}; run the gate as root, in the group of the proxy", path.display())
            }
            Some((path, error)) => format!("the proxy is not running: {}: {error}", path.display()),
            None => "the proxy is not running".to_owned(),
        })
    }

    fn over(stream: UnixStream, now: Instant) -> Self {
        Self { stream, greeting: Vec::new(), greeted: false, deadline: now + GREETING }
    }

    /// Becomes readable when there may be news.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// When `news` is to be asked for even without a sign from `fd`; none once the greeting has come.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.greeted).then_some(self.deadline)
    }

    /// Reads what has come.
    pub fn news(&mut self, now: Instant) -> News {
        let mut buffer = [0; 256];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return News::Gone("the proxy has ended".to_owned()),
                // After the greeting the proxy stays silent; whatever it says is no news.
                Ok(_) if self.greeted => {}
                Ok(count) => self.greeting.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return News::Gone(format!("the connection to the proxy broke: {error}")),
            }
            if let Some(end) = self.greeting.iter().position(|byte| *byte == b'\n').filter(|_| !self.greeted) {
                self.greeted = true;
                return match std::str::from_utf8(&self.greeting[..end]) {
                    Ok(instance) if !instance.is_empty() => News::Instance(instance.to_owned()),
                    _ => News::Gone("the proxy does not name its instance".to_owned()),
                };
            }
            if self.greeting.len() > LONGEST_INSTANCE {
                return News::Gone("what answers on alive.sock is not the proxy".to_owned());
            }
        }
        if !self.greeted && now >= self.deadline {
            return News::Gone(format!("the proxy did not greet within {} s", GREETING.as_secs()));
        }
        News::None
    }
}

/// The instance that the proxy of a state folder names on its `alive.sock`; none where no proxy has the socket. Waits
/// at most 2 s.
///
/// # Errors
/// A sentence, where the socket may not be used by this user, or does not greet.
pub fn instance(state_dir: &Path) -> Result<Option<String>, String> {
    for folder in folders(state_dir) {
        match connect_in(&folder) {
            Ok(stream) => return greeted(Alive::over(stream, Instant::now())).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(format!("{}: {error}", folder.join(NAME).display())),
        }
    }
    Ok(None)
}

fn greeted(mut alive: Alive) -> Result<String, String> {
    loop {
        let now = Instant::now();
        match alive.news(now) {
            News::Instance(instance) => return Ok(instance),
            News::Gone(reason) => return Err(reason),
            News::None => {}
        }
        let left = timespec(alive.deadline.saturating_duration_since(now));
        match poll(&mut [PollFd::new(&alive.fd(), PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for the proxy: {error}")),
        }
    }
}

fn connect_in(folder: &Path) -> std::io::Result<UnixStream> {
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // A socket address holds 108 bytes (unix(7)), a path may be longer.
    let path = format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd());
    connect(&socket, &SocketAddrUnix::new(path.as_str())?)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn pair() -> (tempfile::TempDir, Alive, UnixStream, Instant) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(NAME)).unwrap();
        let now = Instant::now();
        let alive = Alive::connect(&[dir.path().join("missing"), dir.path().to_owned()], now).unwrap();
        let (proxy, _) = listener.accept().unwrap();
        (dir, alive, proxy, now)
    }

    #[test]
    fn the_instance_is_read_even_in_pieces_and_the_end_is_noticed() {
        let (_dir, mut alive, mut proxy, now) = pair();
        assert_eq!(alive.news(now), News::None);
        proxy.write_all(b"5f3").unwrap();
        assert_eq!(alive.news(now), News::None);
        proxy.write_all(b"a\n").unwrap();
        assert_eq!(alive.news(now), News::Instance("5f3a".to_owned()));
        assert_eq!((alive.deadline(), alive.news(now + GREETING * 9)), (None, News::None), "silence is what is agreed");
        drop(proxy);
        assert!(matches!(alive.news(now), News::Gone(_)));
    }

    #[test]
    fn one_that_does_not_greet_or_talks_nonsense_is_not_the_proxy() {
        let (_dir, mut alive, proxy, now) = pair();
        assert!(matches!(alive.news(now + GREETING), News::Gone(_)));
        drop(proxy);
        let (_dir, mut alive, mut proxy, now) = pair();
        proxy.write_all(&[b'x'; 300]).unwrap();
        assert!(matches!(alive.news(now), News::Gone(_)));
    }

    #[test]
    fn whoever_asks_once_learns_the_instance_or_that_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(instance(dir.path()), Ok(None));
        let listener = UnixListener::bind(dir.path().join(NAME)).unwrap();
        let proxy = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"5f3a\n").unwrap();
            listener.accept().unwrap();
        });
        assert_eq!(instance(dir.path()), Ok(Some("5f3a".to_owned())));
        assert!(instance(dir.path()).unwrap_err().contains("has ended"), "it hung up without a word");
        proxy.join().unwrap();
        assert_eq!(instance(dir.path()), Ok(None), "nobody listens any more");
    }

    #[test]
    fn a_missing_proxy_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Alive::connect(&[dir.path().to_owned()], Instant::now()).unwrap_err();
        assert!(error.starts_with("the proxy is not running: ") && error.contains("alive.sock"), "{error}");
        drop(UnixListener::bind(dir.path().join(NAME)).unwrap());
        let error = Alive::connect(&["/nowhere".into(), dir.path().to_owned()], Instant::now()).unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
}
