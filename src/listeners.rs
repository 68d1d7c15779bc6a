//! Who listens on this host, by /proc/PID/net/tcp (proc_pid_net(5)).

use std::net::{IpAddr, SocketAddr};

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    /// The user that made it, as this process's user namespace calls it.
    pub uid: u32,
    pub inode: u64,
}

/// The listening TCP sockets, and why some could not be seen.
pub fn all() -> (Vec<Listener>, Vec<String>) {
    let (mut found, mut unseen) = (Vec::new(), Vec::new());
    // Not /proc/net: with ProcSubset=pid there is none.
    for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match std::fs::read_to_string(file) {
            Ok(text) => found.extend(text.lines().filter_map(listener)),
            Err(error) => unseen.push(format!("{file}: {error}")),
        }
    }
    (found, unseen)
}

/// The user whose socket takes a connection to an address of this host; none where nobody listens there.
pub fn user_at(address: SocketAddr) -> Option<u32> {
    let listeners = all().0;
    let takes = |any: bool| {
        let fits = |found: &&Listener| {
            let is_same = if any { found.address.ip().is_unspecified() } else { found.address.ip() == address.ip() };
            is_same && found.address.port() == address.port()
        };
        listeners.iter().find(fits).map(|found| found.uid)
    };
    takes(false).or_else(|| takes(true))
}

/// A listening socket of a line of /proc/net/tcp.
fn listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, "0A", _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    let (address, port) = local.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let address: IpAddr = match words?.as_slice() {
        [word] => IpAddr::from(*word),
        words => IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?),
    };
    let address = SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?);
    Some(Listener { address, uid: uid.parse().ok()?, inode: inode.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 4711 1 0 100 0 0 10 0";
        let expected = Listener { address: "127.0.0.1:8080".parse().unwrap(), uid: 7, inode: 4711 };
        assert_eq!(listener(line), Some(expected));
        let six =
            "   1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 99 1";
        let expected = Listener { address: "[::1]:22".parse().unwrap(), uid: 0, inode: 99 };
        assert_eq!(listener(six), Some(expected));
        let mapped = six.replace("00000000000000000000000001000000:0016", "0000000000000000FFFF00000100007F:0016");
        assert_eq!(listener(&mapped).map(|found| found.address), Some("[::ffff:127.0.0.1]:22".parse().unwrap()));
        assert_eq!(listener(" 0: xx:yy z 0A 0 0 0 0 0 1"), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn the_user_of_a_listener_is_found() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        assert_eq!(user_at(address), Some(rustix::process::geteuid().as_raw()));
        drop(server);
        assert_eq!(user_at(address), None);
        let server = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let address = SocketAddr::new([127, 0, 0, 1].into(), server.local_addr().unwrap().port());
        assert_eq!(user_at(address), Some(rustix::process::geteuid().as_raw()));
    }
}
