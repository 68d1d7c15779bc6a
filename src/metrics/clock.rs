use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::roots::Roots;

/// What systemd-timesyncd touches when it has set the clock (systemd-timesyncd.service(8)).
const SYNCHRONIZED: &str = "run/systemd/timesync/synchronized";
/// chronyd's port for its own monitor (`cmdport`, chrony.conf(5)).
const CHRONY: u16 = 323;
/// The port of the Network Time Protocol (RFC 5905, section 7.2).
const NTP: u16 = 123;
/// How long a daemon of this host may take; a port on which nobody listens is refused at once.
const LIMIT: Duration = Duration::from_millis(200);

/// True where whoever keeps the clock says that it is right, false where it says that it is not; none where nobody is
/// known to keep it.
///
/// The daemons are asked over loopback, because the kernel's own flag can only be read by adjtimex(2), which the
/// service's sandbox refuses together with setting the clock, and timedatectl(1) starts a service for each answer: 50 ms of CPU
/// and three lines in the journal, each minute. chronyd and ntpd come before timesyncd: its marker stays
/// behind when it is replaced by one of them.
pub(super) fn synchronized(roots: &Roots) -> Option<bool> {
    let daemons = || ask(CHRONY, &chrony_question(), chrony_answer).or_else(|| ask(NTP, &ntp_question(), ntp_answer));
    let said = if roots.is_live() { daemons() } else { None };
    said.or_else(|| {
        let keeper = roots.host("run/systemd/timesync");
        keeper.is_dir().then(|| roots.host(SYNCHRONIZED).exists())
    })
}

/// One datagram to this host and one back; none where nobody answers what can be understood.
fn ask(port: u16, question: &[u8], understand: fn(&[u8]) -> Option<bool>) -> Option<bool> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        socket.send(question)?;
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    understand(&exchange().ok()?)
}

/// Length of chronyd's answer to `tracking`; a question must be as long, or it is not answered.
const TRACKING: usize = 104;
/// `tracking` as a question, and as an answer.
const TRACKING_COMMAND: u16 = 33;
const TRACKING_REPLY: u16 = 5;

/// `chronyc tracking` as chronyd reads it (candm.h of chrony 2.0 and later, protocol version 6).
fn chrony_question() -> Vec<u8> {
    let mut question = vec![0; TRACKING];
    // Version, request; the sequence number after the command stays 0.
    question[..2].copy_from_slice(&[6, 1]);
    question[4..6].copy_from_slice(&TRACKING_COMMAND.to_be_bytes());
    question
}

/// The leap status in chronyd's answer: 3 where the clock is not synchronised, 0 to 2 where it is.
fn chrony_answer(bytes: &[u8]) -> Option<bool> {
    let number = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let is_answer = bytes.get(..2)? == [6, 2] && number(6)? == TRACKING_REPLY && number(8)? == 0;
    // After the header of 28 bytes: reference (4), address (20), stratum (2).
    let leap = number(54).filter(|_| is_answer && bytes.len() >= TRACKING)?;
    (leap <= 3).then_some(leap != 3)
}

/// A client's packet of version 4 (RFC 5905, section 7.3).
fn ntp_question() -> Vec<u8> {
    let mut question = vec![0; 48];
    question[0] = 4 << 3 | 3;
    // What comes back as the origin; chronyd answers nothing whose transmit time is 0.
    question[40..].copy_from_slice(b"obs-hub!");
    question
}

/// The leap indicator of a server's packet: 3 where its clock is not synchronised. A stratum of 0 with another
/// indicator is a refusal, not an answer.
fn ntp_answer(bytes: &[u8]) -> Option<bool> {
    const SERVER: u8 = 4;
    let [head, stratum] = *bytes.first_chunk()?;
    let is_answer = bytes.len() >= 48 && head & 7 == SERVER && bytes[24..32] == *b"obs-hub!";
    match (head >> 6, stratum) {
        _ if !is_answer => None,
        (3, _) | (_, 16) => Some(false),
        (_, 1..16) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chrony(leap: u16, status: u16) -> Vec<u8> {
        let mut answer = vec![0; TRACKING];
        answer[..2].copy_from_slice(&[6, 2]);
        answer[4..6].copy_from_slice(&33u16.to_be_bytes());
        answer[6..8].copy_from_slice(&5u16.to_be_bytes());
        answer[8..10].copy_from_slice(&status.to_be_bytes());
        answer[54..56].copy_from_slice(&leap.to_be_bytes());
        answer
    }

    #[test]
    fn chronyd_says_whether_it_follows_a_source() {
        assert_eq!(chrony_answer(&chrony(0, 0)), Some(true));
        assert_eq!(chrony_answer(&chrony(2, 0)), Some(true));
        assert_eq!(chrony_answer(&chrony(3, 0)), Some(false));
        assert_eq!(chrony_answer(&chrony(0, 2)), None, "not allowed");
        assert_eq!(chrony_answer(&chrony(9, 0)), None);
        assert_eq!(chrony_answer(&chrony(0, 0)[..60]), None);
        assert_eq!(chrony_answer(b""), None);
    }

    #[test]
    fn an_ntp_server_says_whether_it_follows_a_source() {
        let packet = |leap: u8, mode: u8, stratum: u8| {
            let mut packet = ntp_question();
            packet.copy_within(40..48, 24);
            packet[0] = leap << 6 | 4 << 3 | mode;
            packet[1] = stratum;
            packet
        };
        assert_eq!(ntp_answer(&packet(0, 4, 2)), Some(true));
        assert_eq!(ntp_answer(&packet(3, 4, 0)), Some(false));
        assert_eq!(ntp_answer(&packet(0, 4, 16)), Some(false));
        assert_eq!(ntp_answer(&packet(0, 4, 0)), None, "it asks for fewer questions");
        assert_eq!(ntp_answer(&packet(0, 3, 2)), None, "no server");
        assert_eq!(ntp_answer(&ntp_question()), None);
        assert_eq!(ntp_answer(b"\x24\x02"), None);
    }

    #[test]
    fn who_is_asked_is_believed_and_silence_says_nothing() {
        let daemon = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = daemon.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (length, client) = daemon.recv_from(&mut question).unwrap();
            assert_eq!(length, TRACKING);
            daemon.send_to(&chrony(0, 0), client).unwrap();
            // The second question stays without an answer.
            daemon.recv_from(&mut question).unwrap();
        });
        assert_eq!(ask(port, &chrony_question(), chrony_answer), Some(true));
        assert_eq!(ask(port, &chrony_question(), chrony_answer), None);
        answering.join().unwrap();
        assert_eq!(ask(port, &chrony_question(), chrony_answer), None, "nobody listens any more");
    }
}
