//! Whether the owner can still reach the host after a deployment: its remote answers, sshd greets, tailscaled runs. What did
//! not answer before does not count.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use super::Error;
use super::mirror::Mirror;
use super::run::Run;
use crate::command::Command;
use crate::config::{Guard, Remote, Repository};
use crate::listeners;
use crate::log;

/// The longest one question takes.
const ANSWER: Duration = Duration::from_secs(5);
/// How long what answered before may take to answer again.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take when the deployment was taken back: addresses are asked for anew, tunnels built.
pub(super) const PATIENCE_BACK: Duration = Duration::from_secs(60);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// What answered before a deployment.
#[derive(Debug, Default)]
pub(super) struct Reached {
    remote: bool,
    ssh: Option<SocketAddr>,
    tailscale: bool,
}

impl Run<'_> {
    /// Looks at what answers now. The remote has just been fetched from, but for those who go back: they ask it nothing.
    pub(super) fn reached(&self, repository: &Repository) -> Reached {
        let guards = |guard| self.config.gitops.guard.contains(&guard);
        Reached {
            remote: guards(Guard::Remote) && !self.goes_back && !is_on_this_host(&repository.remote),
            ssh: if guards(Guard::Ssh) {
                listening_ssh().into_iter().find(|address| greets(*address).is_ok())
            } else {
                None
            },
            tailscale: guards(Guard::Tailscale) && self.tailscale().is_ok(),
        }
    }

    /// Waits until everything answers that answered before, and no longer than `patience`.
    ///
    /// # Errors
    /// `LockedOut` with what does not.
    pub(super) fn guard(&self, repository: &Repository, before: &Reached, patience: Duration) -> Result<(), Error> {
        let until = Instant::now() + patience;
        let mut missing = before.all();
        loop {
            let mut reasons = Vec::new();
            missing.retain(|guard| match self.ask(repository, before, *guard) {
                Ok(()) => false,
                Err(reason) => {
                    reasons.push(reason);
                    true
                }
            });
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Error::LockedOut(reasons.join("; ")));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn ask(&self, repository: &Repository, before: &Reached, guard: Guard) -> Result<(), String> {
        match (guard, before.ssh) {
            (Guard::Remote, _) => match Mirror::ask(self.config, repository, 2 * ANSWER) {
                // A remote that says that the branch is gone answers.
                Ok(()) | Err(Error::Refused(_)) => Ok(()),
                Err(error) => Err(format!("the remote answered before and does not now: {error}")),
            },
            (Guard::Ssh, Some(address)) => {
                greets(address).map_err(|error| format!("sshd greeted on {address} before and does not now: {error}"))
            }
            (Guard::Ssh, None) => Ok(()),
            (Guard::Tailscale, _) => {
                self.tailscale().map_err(|error| format!("tailscale was connected before and is not now: {error}"))
            }
        }
    }

    /// Done where tailscaled says that the node is connected (`ipn.State`: `Running`).
    fn tailscale(&self) -> Result<(), String> {
        let mut command = Command::new("tailscale", ANSWER);
        if let Some(socket) = &self.config.gate.socket {
            command = command.args([format!("--socket={}", socket.display())]);
        }
        let output =
            command.args(["status", "--json", "--peers=false"]).succeed().map_err(|error| error.to_string())?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        match status["BackendState"].as_str() {
            Some("Running") => Ok(()),
            other => Err(format!("its state is {}", crate::text::shown(other.unwrap_or("unknown")))),
        }
    }
}

impl Reached {
    fn all(&self) -> Vec<Guard> {
        let found =
            [(Guard::Remote, self.remote), (Guard::Ssh, self.ssh.is_some()), (Guard::Tailscale, self.tailscale)];
        found.into_iter().filter_map(|(guard, answered)| answered.then_some(guard)).collect()
    }
}

/// True for a remote on this host: a deployment may well take its own forge down for a moment.
fn is_on_this_host(remote: &Remote) -> bool {
    let host = remote.host().trim_start_matches('[').trim_end_matches(']');
    if remote.protocol() == "file" || host.is_empty() {
        return true;
    }
    let addresses = (host, 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    // Only an address of this host can be bound to.
    let is_own = |address: &SocketAddr| address.ip().is_loopback() || UdpSocket::bind((address.ip(), 0)).is_ok();
    addresses.is_ok_and(|addresses| addresses.iter().any(is_own))
}

/// Reads the greeting of a ssh server (RFC 4253, section 4.2).
fn greets(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting)?;
    if &greeting == b"SSH-" { Ok(()) } else { Err(std::io::Error::other("what answers there is no ssh server")) }
}

/// Where a ssh server seems to listen: the sockets of processes called sshd or dropbear first, then port 22 and the ports of
/// sshd_config, which systemd may listen on for it.
fn listening_ssh() -> Vec<SocketAddr> {
    let (listeners, unseen) = listeners::all();
    for error in unseen {
        log::warn!("guard_ssh_not_seen", error = error);
    }
    let servers = sockets_of(&["sshd", "dropbear"]);
    let ports = configured_ports();
    let (mut own, others): (Vec<_>, Vec<_>) = listeners.into_iter().partition(|found| servers.contains(&found.inode));
    own.extend(others.into_iter().filter(|found| ports.contains(&found.address.port())));
    own.into_iter().map(|found| reachable(found.address)).collect()
}

/// An address that stands for all of this host's, as one that can be connected to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The inodes of the sockets of processes with one of these names, as far as this process may see them.
fn sockets_of(names: &[&str]) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let is_named = std::fs::read_to_string(path.join("comm")).is_ok_and(|name| names.contains(&name.trim_end()));
        if !is_named {
            continue;
        }
        for fd in std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            let inode =
                target.as_os_str().as_bytes().strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
            inodes.extend(inode.and_then(|inode| std::str::from_utf8(inode).ok()?.parse::<u64>().ok()));
        }
    }
    inodes
}

fn configured_ports() -> BTreeSet<u16> {
    let text = std::fs::read_to_string("/etc/ssh/sshd_config").unwrap_or_default();
    let port = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|key| key.eq_ignore_ascii_case("Port")).and(words.next())?.parse().ok()
    };
    text.lines().filter_map(port).chain([22]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_greets_is_a_ssh_server() {
        use std::io::Write;
        for (said, greeting) in [(&b"SSH-2.0-x\r\n"[..], true), (b"HTTP/1.1 400\r\n", false), (b"", false)] {
            let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = server.local_addr().unwrap();
            let answering =
                std::thread::spawn(move || server.accept().and_then(|(mut stream, _)| stream.write_all(said)));
            assert_eq!(greets(address).is_ok(), greeting);
            answering.join().unwrap().unwrap();
            assert!(greets(address).is_err(), "nobody listens any more");
        }
    }

    #[test]
    fn remotes_on_this_host_are_not_asked() {
        for (url, own) in [
            ("/srv/a.git", true),
            ("http://127.0.0.1:3000/a/b.git", true),
            ("ssh://git@localhost:2222/a/b.git", true),
            ("https://192.0.2.1/a/b.git", false),
        ] {
            assert_eq!(is_on_this_host(&Remote::parse(url).unwrap()), own, "{url}");
        }
    }
}
