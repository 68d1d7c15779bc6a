//! Webhooks: the durable queue that remembers what deliveries asked for.
//! No socket, route, status code or git may enter here: the gateway asks the questions, the worker does the work.
//! A payload is only a hint that something changed; nothing of it but a configured repository's name goes further.

pub mod queue;

use crate::random;

/// The longest delivery id that is kept; GitHub's have 36 characters.
const LONGEST_ID: usize = 64;

/// The id to know a delivery by: the forge's own where it has at most 64 of `A-Za-z0-9._-`, else a new one.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn delivery_id(sent: Option<&str>) -> std::io::Result<String> {
    let fits = |id: &&str| {
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    sent.filter(fits).map_or_else(random::id, |id| Ok(id.to_owned()))
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
    }
}
