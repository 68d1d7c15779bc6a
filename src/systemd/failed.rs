//! The units that have failed, asked for over D-Bus: starting systemctl(1) for it costs two thirds of the rest of a run of
//! system-metrics. One call of a fixed form, by hand: the crates for D-Bus bring an asynchronous runtime or a C library.
//!
//! The D-Bus Specification (dbus.freedesktop.org), "Authentication Protocol", "Message Protocol" and "Marshaling";
//! org.freedesktop.systemd1(5) for `ListUnitsFiltered`.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// The longest message that is read; each failed unit takes a few hundred bytes.
const LONGEST: usize = 1 << 20;
/// The service manager's name.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
/// The serial number of the first call whose answer counts.
pub(super) const SERIAL: u32 = 2;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
/// Codes of header fields.
const REPLY_SERIAL: u8 = 5;
const SIGNATURE: u8 = 8;

/// The names of the units in the state `failed`, sorted, asked of the system's service manager on the system bus.
///
/// # Errors
/// When there is no such bus, it refuses, or it does not answer within `limit`.
pub fn failed_units(limit: Duration) -> Result<Vec<String>> {
    ask(Path::new(SYSTEM_BUS), limit)
}

fn ask(bus: &Path, limit: Duration) -> Result<Vec<String>> {
    let deadline = Instant::now() + limit;
    let mut stream = connect(bus, limit, deadline)?;
    let states = [&11_u32.to_le_bytes()[..], &6_u32.to_le_bytes(), b"failed\0"].concat();
    let manager = "org.freedesktop.systemd1.Manager";
    let question = ("as", states.as_slice());
    stream.write_all(&call(
        SYSTEMD,
        "/org/freedesktop/systemd1",
        "ListUnitsFiltered",
        manager,
        SERIAL,
        Some(question),
    ))?;
    loop {
        let (kind, reply_to, body) = message(&mut stream, deadline)?;
        match kind {
            METHOD_RETURN if reply_to == Some(SERIAL) => return units(&body),
            ERROR if reply_to.is_some() => return Err(odd("an error")),
            _ => {}
        }
    }
}

/// Logs in to a bus.
pub(super) fn connect(bus: &Path, limit: Duration, deadline: Instant) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(bus)?;
    stream.set_write_timeout(Some(limit))?;
    let uid = rustix::process::geteuid().as_raw().to_string();
    write!(stream, "\0AUTH EXTERNAL {}\r\n", crate::random::hex(uid.as_bytes()))?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        answer.extend(read(&mut stream, 1, deadline)?);
        if answer.len() > 1024 {
            return Err(odd("a line without end"));
        }
    }
    if !answer.starts_with(b"OK ") {
        return Err(Error::new(ErrorKind::PermissionDenied, "the system bus refuses the login"));
    }
    stream.write_all(b"BEGIN\r\n")?;
    stream.write_all(&call(
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "Hello",
        "org.freedesktop.DBus",
        1,
        None,
    ))?;
    Ok(stream)
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the system bus answered with {what}"))
}

/// A method call in little-endian form.
pub(super) fn call(
    destination: &str,
    path: &str,
    member: &str,
    interface: &str,
    serial: u32,
    arguments: Option<(&str, &[u8])>,
) -> Vec<u8> {
    let mut fields = Vec::new();
    for (code, kind, value) in [(1, b'o', path), (2, b's', interface), (3, b's', member), (6, b's', destination)] {
        pad(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        fields.extend((value.len() as u32).to_le_bytes());
        fields.extend(value.bytes().chain([0]));
    }
    let mut body: &[u8] = &[];
    if let Some((signature, bytes)) = arguments {
        pad(&mut fields, 8);
        fields.extend([SIGNATURE, 1, b'g', 0, signature.len() as u8]);
        fields.extend(signature.bytes().chain([0]));
        body = bytes;
    }
    const METHOD_CALL: u8 = 1;
    const NO_AUTO_START: u8 = 2;
    let mut message = vec![b'l', METHOD_CALL, NO_AUTO_START, 1];
    for number in [body.len() as u32, serial, fields.len() as u32] {
        message.extend(number.to_le_bytes());
    }
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    message
}

pub(super) fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// The next message: its kind, the serial number of the call that it answers, and its body.
pub(super) fn message(stream: &mut UnixStream, deadline: Instant) -> Result<(u8, Option<u32>, Vec<u8>)> {
    let head = read(stream, 16, deadline)?;
    if head[0] != b'l' {
        return Err(odd("another byte order"));
    }
    let mut numbers = Cursor { bytes: &head, at: 4 };
    let (body, _, fields) = (numbers.number()? as usize, numbers.number()?, numbers.number()? as usize);
    if body > LONGEST || fields > LONGEST {
        return Err(odd("too much"));
    }
    let fields = read(stream, fields.next_multiple_of(8), deadline)?;
    let body = read(stream, body, deadline)?;
    Ok((head[1], reply_serial(&fields)?, body))
}

fn reply_serial(fields: &[u8]) -> Result<Option<u32>> {
    let mut cursor = Cursor { bytes: fields, at: 0 };
    while cursor.at + 8 <= fields.len() {
        let code = cursor.byte()?;
        // A variant: the length of its signature, the signature, NUL. All fields are of one letter.
        let (length, kind, _) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
        match (length, kind) {
            (1, b'u') => {
                let number = cursor.number()?;
                if code == REPLY_SERIAL {
                    return Ok(Some(number));
                }
            }
            (1, b's' | b'o') => drop(cursor.text()?),
            (1, b'g') => {
                let length = usize::from(cursor.byte()?);
                cursor.take(length + 1)?;
            }
            // What fills up the last field is zero.
            (0, 0) if code == 0 => break,
            _ => return Err(odd("an unknown header field")),
        }
        cursor.align(8);
    }
    Ok(None)
}

/// The names in a reply of the form `a(ssssssouso)`.
fn units(body: &[u8]) -> Result<Vec<String>> {
    let mut cursor = Cursor { bytes: body, at: 0 };
    let length = cursor.number()? as usize;
    cursor.align(8);
    let end = cursor.at + length;
    let mut names = Vec::new();
    while cursor.at < end {
        cursor.align(8);
        names.push(cursor.text()?);
        // Description, load state, active state, sub state, the unit it follows, its object.
        for _ in 0..6 {
            cursor.text()?;
        }
        // The job's number, kind and object.
        cursor.number()?;
        cursor.text()?;
        cursor.text()?;
    }
    names.sort();
    Ok(names)
}

/// Reads marshaled values, each at a multiple of its own size.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.saturating_add(count)).ok_or_else(|| odd("a short message"))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.number()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

/// Exactly so many bytes.
fn read(stream: &mut UnixStream, count: usize, deadline: Instant) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut filled = 0;
    while filled < count {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(more) => filled += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
