use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn text(bytes: &mut Vec<u8>, value: &str) {
    pad(bytes, 4);
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(value.bytes().chain([0]));
}

/// The body of an answer with these units.
fn units_of(names: &[&str]) -> Vec<u8> {
    let mut units = Vec::new();
    for name in names {
        pad(&mut units, 8);
        for value in [name, "A unit", "loaded", "failed", "failed", "", "/org/freedesktop/systemd1/unit/x"] {
            text(&mut units, value);
        }
        pad(&mut units, 4);
        units.extend(0_u32.to_le_bytes());
        text(&mut units, "");
        text(&mut units, "/");
    }
    [&(units.len() as u32).to_le_bytes()[..], &[0; 4], &units].concat()
}

/// A message from the bus.
fn from_bus(kind: u8, reply_to: u32, body: &[u8]) -> Vec<u8> {
    let mut fields = vec![REPLY_SERIAL, 1, b'u', 0];
    fields.extend(reply_to.to_le_bytes());
    fields.extend([7, 1, b's', 0]);
    text(&mut fields, "org.freedesktop.DBus");
    pad(&mut fields, 8);
    fields.extend([SIGNATURE, 1, b'g', 0, 1, b's', 0]);
    let mut message = vec![b'l', kind, 0, 1];
    for number in [body.len() as u32, 77, fields.len() as u32] {
        message.extend(number.to_le_bytes());
    }
    message.extend(fields);
    pad(&mut message, 8);
    [&message, body].concat()
}

/// A bus that says these two things, one to the login and one to the calls, and what it was told.
fn bus(login: &'static [u8], answer: Vec<u8>) -> (tempfile::TempDir, JoinHandle<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("bus")).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut told = Vec::new();
        let mut piece = [0; 4096];
        while !told.ends_with(b"\r\n") {
            let count = stream.read(&mut piece).unwrap();
            told.extend(&piece[..count]);
        }
        stream.write_all(login).unwrap();
        while !told.ends_with(b"failed\0") {
            match stream.read(&mut piece) {
                Ok(count) if count > 0 => told.extend(&piece[..count]),
                _ => return told,
            }
        }
        // Whoever asks may have heard enough.
        let _ = stream.write_all(&answer);
        let _ = stream.read(&mut piece);
        told
    });
    (dir, thread)
}

fn asked(login: &'static [u8], answer: Vec<u8>, limit: Duration) -> (Result<Vec<String>>, Vec<u8>) {
    let (dir, thread) = bus(login, answer);
    let result = ask(&dir.path().join("bus"), limit);
    (result, thread.join().unwrap())
}

const WELCOME: &[u8] = b"OK 1234deadbeef\r\n";

#[test]
fn the_failed_units_are_named_in_order_whatever_else_the_bus_says() {
    const SIGNAL: u8 = 4;
    let mut hello = Vec::new();
    text(&mut hello, ":1.42");
    let units = units_of(&["web.service", "app.service", "mnt-x.mount"]);
    let answer =
        [from_bus(METHOD_RETURN, 1, &hello), from_bus(SIGNAL, 0, &hello), from_bus(METHOD_RETURN, SERIAL, &units)];
    let (result, told) = asked(WELCOME, answer.concat(), LIMIT);
    assert_eq!(result.unwrap(), ["app.service", "mnt-x.mount", "web.service"]);
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.starts_with("\0AUTH EXTERNAL ") && told.contains("\r\nBEGIN\r\nl"), "{told:?}");
    let (none, _) = asked(WELCOME, from_bus(METHOD_RETURN, SERIAL, &units_of(&[])), LIMIT);
    assert_eq!(none.unwrap(), [] as [String; 0]);
}

#[test]
fn who_does_not_answer_or_refuses_is_an_error() {
    let refused = asked(b"REJECTED EXTERNAL\r\n", Vec::new(), LIMIT).0;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(asked(WELCOME, from_bus(ERROR, SERIAL, b""), LIMIT).0.is_err());
    let silent = asked(WELCOME, Vec::new(), Duration::from_millis(100)).0.unwrap_err();
    assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");
    assert_eq!(ask(Path::new("/nonexistent/bus"), LIMIT).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_damaged_answer_is_an_error_or_other_names_and_never_a_panic() {
    let body = units_of(&["web.service", "app.service"]);
    for length in 0..body.len() {
        assert!(units(&body[..length]).is_err(), "{length}");
    }
    for at in 0..body.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = body.clone();
            damaged[at] = value;
            let _ = units(&damaged);
        }
    }
    let fields = from_bus(METHOD_RETURN, SERIAL, b"")[16..].to_vec();
    assert_eq!(reply_serial(&fields).unwrap(), Some(SERIAL));
    for at in 0..fields.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = fields.clone();
            damaged[at] = value;
            let _ = reply_serial(&damaged);
        }
    }
}
