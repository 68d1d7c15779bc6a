//! The signature of a delivery: HMAC-SHA256 over the raw body, under a secret shared with the forge.
//!
//! GitHub: docs.github.com, "Validating webhook deliveries". Gitea and Forgejo: docs, "Webhooks".

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Secret;
use crate::random::hex;

/// The headers that may carry a signature and what stands before the digits. The first that is there decides.
const HEADERS: [(&str, &str); 3] =
    [("X-Hub-Signature-256", "sha256="), ("X-Forgejo-Signature", ""), ("X-Gitea-Signature", "")];

/// Why a delivery is not believed. The texts name headers only: nothing an unknown sender wrote, and no MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No signature header.
    Missing,
    /// The deciding header came more than once.
    Doubled(&'static str),
    /// The deciding header does not have the form of a signature.
    Malformed(&'static str),
    /// The deciding header is there without digits, as Gitea and Forgejo send it where a webhook has no secret.
    Empty(&'static str),
    /// No secret made this signature for this body.
    Wrong(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "no signature: X-Hub-Signature-256 is missing; set the webhook's secret on the forge (SHA-1 is not accepted)",
            ),
            Self::Doubled(header) => write!(f, "{header} came more than once"),
            Self::Malformed(header @ "X-Hub-Signature-256") => {
                write!(f, "{header} is not sha256= and 64 lower-case hex digits")
            }
            Self::Malformed(header) => write!(f, "{header} is not 64 lower-case hex digits"),
            Self::Empty(header) => {
                write!(f, "{header} is empty: the webhook has no secret on the forge; set the hub's webhook-secret there")
            }
            Self::Wrong(header) => {
                write!(f, "{header} does not fit the body; the secret on the forge and the hub's webhook-secret differ")
            }
        }
    }
}

impl std::error::Error for Error {}

/// What GitHub would put into `X-Hub-Signature-256`.
///
/// # Errors
/// When the secret has a length that HMAC does not take; there is none.
pub fn sign(secret: &Secret, body: &[u8]) -> Result<String, hmac::digest::InvalidLength> {
    let digest = Hmac::<Sha256>::new_from_slice(secret.bytes())?.chain_update(body).finalize().into_bytes();
    Ok(format!("sha256={}", hex(&digest)))
}

/// The signature that a request claims to have, well-formed and not yet verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    header: &'static str,
    mac: [u8; 32],
}

impl Claim {
    /// Reads the claim from header fields (names in any letter case). One header decides; there is no second try with
    /// another.
    ///
    /// # Errors
    /// When there is none, or the deciding one is doubled or malformed.
    pub fn read<'a>(headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Result<Self, Error> {
        for (header, prefix) in HEADERS {
            let mut values = headers.clone().filter(|(name, _)| name.eq_ignore_ascii_case(header));
            let Some((_, value)) = values.next() else { continue };
            if values.next().is_some() {
                return Err(Error::Doubled(header));
            }
            if matches!(value, "" | "sha256=") {
                return Err(Error::Empty(header));
            }
            let mac = value.strip_prefix(prefix).and_then(digits).ok_or(Error::Malformed(header))?;
            return Ok(Self { header, mac });
        }
        Err(Error::Missing)
    }

    /// Verifies the claim against the body, with every secret, in constant time for each.
    ///
    /// # Errors
    /// When no secret fits.
    pub fn verify(&self, secrets: &[Secret], body: &[u8]) -> Result<(), Error> {
        let fits = |secret: &Secret| {
            // HMAC takes keys of any length, so the error never comes; should it, the secret does not fit.
            Hmac::<Sha256>::new_from_slice(secret.bytes())
                .is_ok_and(|mac| mac.chain_update(body).verify_slice(&self.mac).is_ok())
        };
        if secrets.iter().any(fits) { Ok(()) } else { Err(Error::Wrong(self.header)) }
    }
}

fn digits(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut mac = [0; 32];
    if text.len() != 2 * mac.len() {
        return None;
    }
    for (byte, pair) in mac.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn read(headers: &[(&str, &str)]) -> Result<Claim, Error> {
        Claim::read(headers.iter().copied())
    }

    #[test]
    fn the_vector_that_github_publishes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("credentials")).unwrap();
        let secrets = |lines: &str| {
            let folder = dir.path().join("credentials");
            std::fs::write(folder.join("webhook-secret"), lines).unwrap();
            crate::config::Credentials::in_folder(&folder).webhook_secrets().unwrap()
        };
        let claim = read(&[("x-hub-signature-256", &format!("sha256={HEX}"))]).unwrap();
        let secret = "It's a Secret to Everybody";
        assert_eq!(claim.verify(&secrets(secret), b"Hello, World!"), Ok(()));
        assert_eq!(claim.verify(&secrets(&format!("another secret of mine\n{secret}\n")), b"Hello, World!"), Ok(()));
        assert_eq!(claim.verify(&secrets(secret), b"Hello, World?"), Err(Error::Wrong("X-Hub-Signature-256")));
        assert_eq!(
            claim.verify(&secrets("another secret of mine"), b"Hello, World!"),
            Err(Error::Wrong("X-Hub-Signature-256"))
        );
        assert!(claim.verify(&[], b"Hello, World!").is_err());
    }

    #[test]
    fn one_header_decides() {
        let good = format!("sha256={HEX}");
        assert_eq!(read(&[]), Err(Error::Missing));
        assert_eq!(read(&[("X-Hub-Signature", "sha1=00")]), Err(Error::Missing));
        assert_eq!(read(&[("X-Gitea-Signature", HEX)]).unwrap().header, "X-Gitea-Signature");
        let both = [("X-Gitea-Signature", HEX), ("X-Forgejo-Signature", HEX)];
        assert_eq!(read(&both).unwrap().header, "X-Forgejo-Signature");
        let github_first = [("X-Gitea-Signature", HEX), ("X-Hub-Signature-256", "sha256=")];
        assert_eq!(read(&github_first), Err(Error::Empty("X-Hub-Signature-256")));
        // Gitea's four headers where the webhook has no secret.
        let without_secret = [("X-Gitea-Signature", ""), ("X-Gogs-Signature", ""), ("X-Hub-Signature-256", "sha256=")];
        assert_eq!(read(&without_secret), Err(Error::Empty("X-Hub-Signature-256")));
        assert_eq!(read(&without_secret[..2]), Err(Error::Empty("X-Gitea-Signature")));
        let doubled = [("X-Hub-Signature-256", &*good), ("x-hub-signature-256", &*good)];
        assert_eq!(read(&doubled), Err(Error::Doubled("X-Hub-Signature-256")));
    }

    #[test]
    fn only_one_form_is_a_signature() {
        let cut = &HEX[..63];
        for value in [
            "sha256",
            "sha256= ",
            HEX,
            &format!("sha256={cut}"),
            &format!("sha256={HEX}0"),
            &format!("sha256={}", HEX.to_uppercase()),
            &format!("SHA256={HEX}"),
            &format!("sha1={HEX}"),
            &format!("sha256={HEX},sha256={HEX}"),
            &format!("sha256={cut}g"),
            &format!("sha256= {cut}"),
            &format!("sha256={}é", &HEX[..62]),
        ] {
            assert_eq!(
                read(&[("X-Hub-Signature-256", value)]),
                Err(Error::Malformed("X-Hub-Signature-256")),
                "{value:?}"
            );
        }
        let prefixed = format!("sha256={HEX}");
        assert_eq!(read(&[("X-Gitea-Signature", &prefixed)]), Err(Error::Malformed("X-Gitea-Signature")));
    }
}
