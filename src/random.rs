//! Identifiers that nobody can guess, and bytes in hex. What an identifier is for is its user's business.

use rustix::rand::{GetRandomFlags, getrandom};

/// A new identifier: 16 random bytes in hex.
///
/// # Errors
/// When the kernel gives no random bytes (getrandom(2)).
pub fn id() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        filled += getrandom(room, GetRandomFlags::empty())?;
    }
    Ok(hex(&bytes))
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_differ() {
        let (one, other) = (id().unwrap(), id().unwrap());
        assert!(one != other && one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }
}
