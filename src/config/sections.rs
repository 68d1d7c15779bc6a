//! The short sections of hub.toml.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{DatabaseUrl, Guard};

/// `[proxy]`
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The public address, which the funnel exposes.
    pub listen: SocketAddr,
    /// The admin address, never exposed.
    pub admin_listen: SocketAddr,
    /// The longest webhook body that is read, in bytes.
    pub max_body: u64,
    /// `Host` names that the admin listener answers to besides localhost and loopback addresses.
    pub admin_hosts: Vec<String>,
}

impl Proxy {
    /// Why `address` cannot be that of one listener, where the key of the other is `other`: who reaches the public one would
    /// reach the admin one. None where they are apart.
    pub(super) fn clash(&self, other: &str, address: SocketAddr) -> Option<String> {
        let (public, admin) = (self.listen, self.admin_listen);
        // `::` takes what comes for IPv4, too.
        let takes = |all: SocketAddr, one: SocketAddr| {
            all.ip().is_unspecified() && (all.is_ipv6() || all.is_ipv4() == one.is_ipv4())
        };
        let is_one = public.ip() == admin.ip() || takes(public, admin) || takes(admin, public);
        (is_one && public.port() == admin.port() && public.port() != 0)
            .then(|| format!("{address} reaches {other} too; the two listeners need a port each"))
    }
}

/// `[database]`
#[derive(Clone, Debug)]
pub struct Database {
    /// What the file says, else the default `sqlite:hub.db`; `Config::database_url` is what is in force.
    pub url: DatabaseUrl,
}

/// `[gitops]`
#[derive(Clone, Debug)]
pub struct Gitops {
    /// Where unit files are installed.
    pub units_dir: PathBuf,
    /// Pinned ssh host keys, in the format of ssh's known_hosts (sshd(8)).
    pub known_hosts: PathBuf,
    /// The longest one fetch may take, in seconds.
    pub fetch_timeout_seconds: u64,
    /// The longest one `build` or `after` command may take, in seconds.
    pub command_timeout_seconds: u64,
    /// The most that one fetch may bring, in bytes.
    pub fetch_max: u64,
    /// What must answer after a deployment of units as it did before.
    pub guard: Vec<Guard>,
}

/// `[gate]`
#[derive(Clone, Debug)]
pub struct Gate {
    /// The funnel's port: 443, 8443 or 10000.
    pub port: u16,
    /// tailscaled's socket; none where it is tailscale's usual one.
    pub socket: Option<PathBuf>,
}

/// `[metrics]`
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Days that samples are kept; 0 keeps all; none where the file does not say.
    pub retention_days: Option<u32>,
    /// Days that the hours of samples are kept; 0 keeps all.
    pub hourly_days: u32,
}
