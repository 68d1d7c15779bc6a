//! The two listening sockets: those that the process before this one left with systemd, else new ones.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use rustix::net::{Shutdown, shutdown};

use crate::systemd;

/// A bound socket.
pub(super) struct Bound {
    pub socket: TcpListener,
    /// Where it listens, with the port that the kernel chose for port 0.
    pub address: SocketAddr,
    /// Whether it is older than this process.
    pub kept: bool,
}

/// The sockets of the process before, as far as they are still wanted.
pub(super) struct Sockets(Vec<TcpListener>);

impl Sockets {
    /// Takes the sockets on `wanted` addresses; the others are closed at once, so that they cannot be in the way of new ones.
    pub fn take(wanted: &[SocketAddr]) -> Self {
        let (kept, others): (Vec<_>, Vec<_>) = systemd::kept_sockets()
            .into_iter()
            .partition(|socket| socket.local_addr().is_ok_and(|address| wanted.contains(&address)));
        for other in others {
            // Closing this copy would leave systemd's listening. An error says that it does not listen any more; systemd
            // drops its copy when it sees the hang-up.
            let _ = shutdown(&other, Shutdown::Both);
        }
        Self(kept)
    }

    /// The socket on `address`, known to systemd as `name` and to the reader of an error as `key` of hub.toml.
    pub fn bind(&mut self, name: &str, key: &str, address: SocketAddr) -> Result<Bound, String> {
        let is_it = |socket: &TcpListener| socket.local_addr().is_ok_and(|actual| actual == address);
        if let Some(index) = self.0.iter().position(is_it) {
            return Ok(Bound { socket: self.0.swap_remove(index), address, kept: true });
        }
        let bound = TcpListener::bind(address).and_then(|socket| socket.local_addr().map(|actual| (socket, actual)));
        let (socket, address) = bound.map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                format!("{key}: another process listens on {address}; stop it or choose another port in hub.toml")
            }
            _ => format!("{key}: cannot listen on {address}: {error}"),
        })?;
        systemd::keep_socket(name, socket.as_fd());
        Ok(Bound { socket, address, kept: false })
    }
}
