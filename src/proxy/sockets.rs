//! The two listening sockets: those that the process before this one left with systemd, else new ones; and others where the
//! configuration names other addresses.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use super::listener::Engine;
use crate::config::Config;
use crate::systemd;

/// The sockets, each with its name for systemd and its key of hub.toml for the reader of an error. Their places are those
/// of the listeners.
const NAMES: [(&str, &str); 2] = [("public", "proxy.listen"), ("admin", "proxy.admin_listen")];

/// A bound socket.
struct Bound {
    /// A second descriptor of what the engine listens on.
    socket: TcpListener,
    /// What the configuration says.
    wanted: SocketAddr,
    /// Where it listens, with the port that the kernel chose for port 0.
    address: SocketAddr,
    /// Whether it is older than this process.
    kept: bool,
}

/// What is prepared for one listener.
pub(super) enum Next {
    /// Its socket stays.
    Same,
    /// It gets this one.
    Bound(TcpListener),
    /// Its new address is taken by an old one of ours, which has to go first.
    Blocked,
}

/// What the configuration calls the two addresses.
pub(super) fn wanted(config: &Config) -> [SocketAddr; 2] {
    [config.proxy.listen, config.proxy.admin_listen]
}

/// The two sockets of the process.
pub(super) struct Sockets {
    bound: [Bound; 2],
    /// Why one of them listens no more, which nobody can mend but a new process.
    pub lost: Option<String>,
}

impl Sockets {
    /// Takes the sockets of the process before that are still wanted, and makes the others. Sockets that are wanted no more
    /// are closed first, so that they cannot be in the way of new ones.
    ///
    /// # Errors
    /// A sentence that names key and address.
    pub fn start(wanted: [SocketAddr; 2]) -> Result<Self, String> {
        let is_at =
            |socket: &TcpListener, address: SocketAddr| socket.local_addr().is_ok_and(|actual| actual == address);
        let all = systemd::kept_sockets().into_iter();
        let (mut kept, others): (Vec<_>, Vec<_>) =
            all.partition(|socket| wanted.iter().any(|address| is_at(socket, *address)));
        others.iter().for_each(close);
        let mut bind = |at: usize| -> Result<Bound, String> {
            let wanted: SocketAddr = wanted[at];
            if let Some(index) = kept.iter().position(|socket| is_at(socket, wanted)) {
                return Ok(Bound { socket: kept.swap_remove(index), wanted, address: wanted, kept: true });
            }
            let bound = TcpListener::bind(wanted).and_then(|socket| Bound::new(socket, wanted));
            let bound = bound.map_err(|error| failed(at, wanted, &error))?;
            systemd::keep_socket(NAMES[at].0, bound.socket.as_fd());
            Ok(bound)
        };
        Ok(Self { bound: [bind(0)?, bind(1)?], lost: None })
    }

    /// Where the listeners are.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.bound[0].address, self.bound[1].address]
    }

    /// Whether both are older than this process.
    pub fn are_kept(&self) -> bool {
        self.bound.iter().all(|bound| bound.kept)
    }

    /// A descriptor of a listener's socket, for the engine.
    ///
    /// # Errors
    /// When the process has none left.
    pub fn descriptor(&self, at: usize) -> Result<TcpListener, String> {
        let Bound { socket, wanted, .. } = &self.bound[at];
        socket.try_clone().map_err(|error| failed(at, *wanted, &error))
    }

    /// Binds what other addresses need, beside what is there.
    ///
    /// # Errors
    /// A sentence that names key and address.
    pub fn prepare(&self, wanted: [SocketAddr; 2]) -> Result<[Next; 2], String> {
        let next = |at: usize| {
            let address = wanted[at];
            if self.bound[at].wanted == address {
                return Ok(Next::Same);
            }
            // The two may change places.
            let bound = match self.bound.iter().find(|bound| bound.address == address) {
                Some(ours) => ours.socket.try_clone(),
                None => TcpListener::bind(address),
            };
            let going = |at: &usize| self.bound[*at].wanted != wanted[*at];
            let has_port = |at: usize| self.bound[at].address.port() == address.port();
            match bound {
                Ok(socket) => Ok(Next::Bound(socket)),
                // An address that stands for all cannot be bound beside one of them (ip(7)).
                Err(error)
                    if error.kind() == ErrorKind::AddrInUse
                        && [0, 1].iter().filter(|at| going(at)).any(|at| has_port(*at)) =>
                {
                    Ok(Next::Blocked)
                }
                Err(error) => Err(failed(at, address, &error)),
            }
        };
        Ok([next(0)?, next(1)?])
    }

    /// Listens where it is wanted from now on.
    ///
    /// # Errors
    /// A sentence that names key and address. The sockets are then where they were, or `lost` says why not.
    pub fn renew(&mut self, engine: &mut Engine, wanted: [SocketAddr; 2], next: [Next; 2]) -> Result<(), String> {
        let given =
            next.iter().filter_map(|next| if let Next::Bound(socket) = next { socket.local_addr().ok() } else { None });
        let given: Vec<SocketAddr> = given.collect();
        let goes = |bound: &Bound, at: usize| bound.wanted != wanted[at] && !given.contains(&bound.address);
        let blocked = next.iter().zip(wanted).filter(|(next, _)| matches!(next, Next::Blocked));
        let ports: Vec<u16> = blocked.map(|(_, wanted)| wanted.port()).collect();
        let in_the_way = |at: &usize| goes(&self.bound[*at], *at) && ports.contains(&self.bound[*at].address.port());
        let in_the_way: Vec<usize> = [0, 1].into_iter().filter(in_the_way).collect();
        if !in_the_way.is_empty() {
            // Who waits in them is taken first; what fails here fails in the next turn of the loop, too.
            let _ = engine.turn(Duration::ZERO, &[]);
        }
        in_the_way.iter().for_each(|at| close(&self.bound[*at].socket));
        let mut fresh = Vec::new();
        for (at, next) in next.into_iter().enumerate() {
            let bound = match next {
                Next::Same => continue,
                Next::Bound(socket) => Bound::new(socket, wanted[at]),
                Next::Blocked => TcpListener::bind(wanted[at]).and_then(|socket| Bound::new(socket, wanted[at])),
            };
            match bound {
                Ok(bound) => fresh.push((at, bound)),
                Err(error) => {
                    self.restore(engine, &in_the_way);
                    return Err(failed(at, wanted[at], &error));
                }
            }
        }
        for (at, bound) in fresh {
            let is_ours = self.bound.iter().any(|ours| ours.address == bound.address);
            if !is_ours {
                systemd::keep_socket(NAMES[at].0, bound.socket.as_fd());
            }
            let before = self.put(engine, at, bound);
            if !given.contains(&before.address) {
                close(&before.socket);
            }
        }
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Listens again where sockets were closed for others that could not be bound.
    fn restore(&mut self, engine: &mut Engine, closed: &[usize]) {
        for at in closed.iter().copied() {
            let Bound { wanted, address, .. } = self.bound[at];
            match TcpListener::bind(address).and_then(|socket| Bound::new(socket, wanted)) {
                Ok(bound) => {
                    systemd::keep_socket(NAMES[at].0, bound.socket.as_fd());
                    self.put(engine, at, bound);
                }
                Err(error) => self.lost = Some(failed(at, address, &error)),
            }
        }
    }

    /// Gives the engine another socket; returns the one before.
    fn put(&mut self, engine: &mut Engine, at: usize, bound: Bound) -> Bound {
        let before = std::mem::replace(&mut self.bound[at], bound);
        let given = self.descriptor(at).and_then(|socket| engine.rebind(at, socket).map_err(|error| error.to_string()));
        if let Err(error) = given {
            self.lost = Some(error);
        }
        before
    }
}

impl Bound {
    fn new(socket: TcpListener, wanted: SocketAddr) -> std::io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket, wanted, address, kept: false })
    }
}

/// Ends the listening of all copies of a socket: closing this one would leave systemd's. An error says that it does not
/// listen any more; systemd drops its copy when it sees the hang-up.
fn close(socket: &TcpListener) {
    let _ = shutdown(socket, Shutdown::Both);
}

fn failed(at: usize, address: SocketAddr, error: &Error) -> String {
    let key = NAMES[at].1;
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{key}: another process listens on {address}; stop it or choose another port in hub.toml")
        }
        _ => format!("{key}: cannot listen on {address}: {error}"),
    }
}
