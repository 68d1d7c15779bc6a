use std::io::{Result, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::failed::{ERROR, METHOD_RETURN, SERIAL, SYSTEM_BUS, SYSTEMD, call, connect, message, pad};

/// How often the service manager restarted services by itself since they were started (`NRestarts`,
/// org.freedesktop.systemd1(5)), in the order of their names; none of a unit that it does not know, or that is no service.
///
/// # Errors
/// When there is no system bus, it refuses, or it does not answer within `limit`.
pub fn restarts(services: &[&str], limit: Duration) -> Result<Vec<Option<u32>>> {
    ask(Path::new(SYSTEM_BUS), services, limit)
}

fn ask(bus: &Path, services: &[&str], limit: Duration) -> Result<Vec<Option<u32>>> {
    let mut answers = vec![None; services.len()];
    if services.is_empty() {
        return Ok(answers);
    }
    let deadline = Instant::now() + limit;
    let mut stream = connect(bus, limit, deadline)?;
    let mut property = Vec::new();
    for text in ["org.freedesktop.systemd1.Service", "NRestarts"] {
        pad(&mut property, 4);
        property.extend((text.len() as u32).to_le_bytes());
        property.extend(text.bytes().chain([0]));
    }
    let mut questions = Vec::new();
    for (serial, service) in (SERIAL..).zip(services) {
        let object = format!("/org/freedesktop/systemd1/unit/{}", escaped(service));
        let get = call(SYSTEMD, &object, "Get", "org.freedesktop.DBus.Properties", serial, Some(("ss", &property)));
        questions.extend(get);
    }
    stream.write_all(&questions)?;
    let mut waiting = services.len();
    while waiting > 0 {
        let (kind, reply_to, body) = message(&mut stream, deadline)?;
        let at = reply_to.and_then(|serial| serial.checked_sub(SERIAL)).and_then(|at| usize::try_from(at).ok());
        let Some(answer) = at.and_then(|at| answers.get_mut(at)) else { continue };
        if kind == METHOD_RETURN || kind == ERROR {
            waiting -= 1;
            *answer = if kind == METHOD_RETURN { number(&body) } else { None };
        }
    }
    Ok(answers)
}

/// A unit's name as a part of its object's path (sd_bus_path_encode(3)).
fn escaped(unit: &str) -> String {
    let plain = |(at, byte): (usize, u8)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        b'0'..=b'9' if at > 0 => char::from(byte).to_string(),
        _ => format!("_{byte:02x}"),
    };
    unit.bytes().enumerate().map(plain).collect()
}

/// The number in a variant of the type `u`.
fn number(body: &[u8]) -> Option<u32> {
    match body {
        [1, b'u', 0, _, a, b, c, d] => Some(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_and_variants_numbers() {
        assert_eq!(escaped("getty@tty1.service"), "getty_40tty1_2eservice");
        assert_eq!(escaped("9p-x_y.service"), "_39p_2dx_5fy_2eservice");
        assert_eq!(number(&[1, b'u', 0, 0, 7, 1, 0, 0]), Some(263));
        assert_eq!(number(&[1, b's', 0, 0, 7, 1, 0, 0]), None);
        assert_eq!(number(&[1, b'u', 0]), None);
    }
}
