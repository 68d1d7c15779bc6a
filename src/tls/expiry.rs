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

use super::version::element;
use super::{Key, Trust, Wants, client};

/// When the certificate that this server shows is valid no more, whoever signed it.
///
/// # Errors
/// When it does not answer within `limit`, or shows none that can be read.
pub fn expiry(host: &str, port: u16, limit: Duration) -> Result<Timestamp, String> {
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
    use super::*;

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
