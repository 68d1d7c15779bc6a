//! Webhooks: is a delivery signed, what does it ask for, and the durable queue that remembers it.
//! No socket, route, status code or git may enter here: the gateway asks the questions, the worker does the work.
//! A payload is only a hint that something changed; nothing of it but a configured repository's name goes further.

pub mod event;
pub mod queue;
pub mod signature;

/// The longest delivery id that is kept; GitHub's have 36 characters.
const LONGEST_ID: usize = 64;

/// A new identifier: 16 random bytes in hex.
///
/// # Errors
/// When the kernel gives no random bytes (getrandom(2)).
pub fn random_id() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        filled += rustix::rand::getrandom(room, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The id to know a delivery by: the forge's own where it has at most 64 of `A-Za-z0-9._-`, else a new one.
///
/// # Errors
/// As `random_id`.
pub fn delivery_id(sent: Option<&str>) -> std::io::Result<String> {
    let fits = |id: &&str| {
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    sent.filter(fits).map_or_else(random_id, |id| Ok(id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_delivery_ids_are_replaced() {
        let github = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
        assert_eq!(delivery_id(Some(github)).unwrap(), github);
        for odd in [None, Some(""), Some("../../etc"), Some("a b"), Some("a\nb"), Some("é"), Some(&*"x".repeat(65))] {
            let id = delivery_id(odd).unwrap();
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{odd:?} became {id}");
        }
        assert_ne!(random_id().unwrap(), random_id().unwrap());
    }
}
