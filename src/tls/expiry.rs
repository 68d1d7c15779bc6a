//! Until when a server's certificate is valid.

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::client::{Key, Trust, Wants, client};
use super::version::element;
use crate::command::within;

/// When the certificate that this server shows is valid no more, whoever signed it.
///
/// # Errors
/// When it does not answer within `limit`, or shows none that can be read.
pub fn expiry(host: &str, port: u16, limit: Duration) -> Result<Timestamp, String> {
    let name = host.to_owned();
    // A name has no limit to be found in, and that of a connection is for each step, of which a server may make many.
    let heard = within(limit, move || ask(&name, port, limit));
    let heard = heard.map_err(|error| format!("cannot start a thread: {error}"))?;
    heard.unwrap_or_else(|| Err(format!("{host}:{port}: no answer within {limit:?}")))
}

fn ask(host: &str, port: u16, limit: Duration) -> Result<Timestamp, String> {
    let failed = |error: io::Error| format!("{host}:{port}: {error}");
    let name =
        ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let key = Key { name: "ca", example: "ca" };
    let config = client(Trust::Anyone, None, key, Wants::default())?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| format!("{host}: {error}"))?;
    let addresses = (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(failed)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses.take(2) {
        let stream = TcpStream::connect_timeout(&address, limit).and_then(|stream| {
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => {
                let mut stream = StreamOwned::new(connection, stream);
                // Nothing is asked for: the handshake is all.
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).map_err(failed)?;
                }
                stream.flush().map_err(failed)?;
                let first = stream.conn.peer_certificates().and_then(<[_]>::first);
                let until = first.and_then(|certificate| not_after(certificate));
                return until.ok_or_else(|| format!("{host}:{port}: its certificate cannot be read"));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// `notAfter` of a certificate (RFC 5280, section 4.1).
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (_, whole, _) = element(certificate)?;
    let (_, mut fields, _) = element(whole)?;
    // The version has a tag of its own, and is left out of version 1.
    if fields.first() == Some(&0xa0) {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    const UTC_TIME: u8 = 0x17;
    let whole = match (tag, text.get(..2)?.parse::<u8>().ok()?) {
        (UTC_TIME, 0..50) => format!("20{text}"),
        (UTC_TIME, _) => format!("19{text}"),
        _ => text.to_owned(),
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", whole).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_server_that_drips_holds_nobody_longer_than_the_limit() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let drips = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            // A record of a handshake that never becomes whole.
            let record = [0x16, 3, 3, 0x40, 0].into_iter().chain([0; 40]);
            for byte in record {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let begin = Instant::now();
        let error = expiry("127.0.0.1", port, Duration::from_millis(500)).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}: {error}", begin.elapsed());
        assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
        drips.join().unwrap();
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_time_and_damage_is_none() {
        for (year, expected) in [(2031, "2031-02-03T00:00:00Z"), (2060, "2060-02-03T00:00:00Z")] {
            let mut wanted = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
            wanted.not_after = rcgen::date_time_ymd(year, 2, 3);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = wanted.self_signed(&key).unwrap();
            let bytes: &[u8] = certificate.der();
            assert_eq!(not_after(bytes), Some(expected.parse().unwrap()));
            for length in 0..120 {
                assert_eq!(not_after(&bytes[..length]), None);
            }
        }
    }
}
