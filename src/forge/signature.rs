//! The proof of a delivery: HMAC-SHA256 over the raw body, under a secret shared with the forge, or that secret itself.
//!
//! GitHub: docs.github.com, "Validating webhook deliveries". Gitea and Forgejo: docs, "Webhooks". GitLab: docs.gitlab.com,
//! "Webhooks", secret token. Bitbucket Cloud: support.atlassian.com, "Manage webhooks".

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use super::{Forge, Headers, Proof};
use crate::config::Secret;
use crate::random::hex;

/// Why a delivery is not believed. The texts name headers only: nothing an unknown sender wrote, and no MAC.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No signature header.
    #[error(
        "no signature: X-Hub-Signature-256 is missing; set the webhook's secret on the forge (SHA-1 is not accepted)"
    )]
    Missing,
    /// The deciding header came more than once.
    #[error("{0} came more than once")]
    Doubled(&'static str),
    /// The deciding header does not have the form of a signature; what that begins with.
    #[error("{} is not {}{}64 lower-case hex digits", .0, .1, if .1.is_empty() { "" } else { " and " })]
    Malformed(&'static str, &'static str),
    /// The deciding header is there without digits, as Gitea and Forgejo send it where a webhook has no secret.
    #[error("{0} is empty: the webhook has no secret on the forge; set the hub's webhook-secret there")]
    Empty(&'static str),
    /// No secret made this signature for this body.
    #[error("{0} does not fit the body; the secret on the forge and the hub's webhook-secret differ")]
    Wrong(&'static str),
    /// It is none of the secrets.
    #[error("{0} is not the hub's webhook-secret; set that as the webhook's secret token on the forge")]
    WrongToken(&'static str),
}

/// What GitHub would put into `X-Hub-Signature-256`.
///
/// # Errors
/// When the secret has a length that HMAC does not take; there is none.
pub fn sign(secret: &Secret, body: &[u8]) -> Result<String, hmac::digest::InvalidLength> {
    let digest = Hmac::<Sha256>::new_from_slice(secret.bytes())?.chain_update(body).finalize().into_bytes();
    Ok(format!("sha256={}", hex(&digest)))
}

/// The proof that a request claims to have, well-formed and not yet verified.
pub struct Claim {
    /// The forge that sent it, if the claim holds.
    pub forge: &'static dyn Forge,
    header: &'static str,
    proof: Sent,
}

enum Sent {
    Mac([u8; 32]),
    Token(Vec<u8>),
}

impl Claim {
    /// Reads the claim from header fields. One header decides; there is no second try with another.
    ///
    /// # Errors
    /// When there is none, or the deciding one is doubled or malformed.
    pub fn read(headers: &Headers) -> Result<Self, Error> {
        let forge = super::sender_of(headers).ok_or(Error::Missing)?;
        let header = forge.proof().header();
        let mut values = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(header)).map(|(_, value)| *value);
        let value = values.next().ok_or(Error::Missing)?;
        if values.next().is_some() {
            return Err(Error::Doubled(header));
        }
        let proof = match forge.proof() {
            Proof::Mac { prefix, .. } if value.is_empty() || value == prefix => return Err(Error::Empty(header)),
            Proof::Mac { prefix, .. } => {
                Sent::Mac(value.strip_prefix(prefix).and_then(digits).ok_or(Error::Malformed(header, prefix))?)
            }
            Proof::Token { .. } if value.is_empty() => return Err(Error::Empty(header)),
            Proof::Token { .. } => Sent::Token(value.as_bytes().to_owned()),
        };
        Ok(Self { forge, header, proof })
    }

    /// Verifies the claim against the body, with every secret, in constant time for each.
    ///
    /// # Errors
    /// When no secret fits.
    pub fn verify(&self, secrets: &[Secret], body: &[u8]) -> Result<(), Error> {
        // HMAC takes keys of any length, so the error never comes; should it, the secret does not fit.
        let mac = |secret: &Secret| Hmac::<Sha256>::new_from_slice(secret.bytes());
        let fits = |secret: &Secret| match &self.proof {
            Sent::Mac(sent) => mac(secret).is_ok_and(|mac| mac.chain_update(body).verify_slice(sent).is_ok()),
            // Comparing MACs takes the same time wherever texts differ.
            Sent::Token(sent) => mac(secret).is_ok_and(|mac| {
                let right = mac.clone().chain_update(secret.bytes()).finalize().into_bytes();
                mac.chain_update(sent).verify_slice(&right).is_ok()
            }),
        };
        match self.proof {
            _ if secrets.iter().any(fits) => Ok(()),
            Sent::Mac(_) => Err(Error::Wrong(self.header)),
            Sent::Token(_) => Err(Error::WrongToken(self.header)),
        }
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

    fn read(headers: &Headers) -> Result<Claim, Error> {
        Claim::read(headers)
    }

    fn header(headers: &Headers) -> Result<&'static str, Error> {
        Claim::read(headers).map(|claim| claim.header)
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
        assert_eq!(header(&[]), Err(Error::Missing));
        assert_eq!(header(&[("X-Hub-Signature", "sha1=00")]), Err(Error::Missing));
        assert_eq!(header(&[("X-Gitea-Signature", HEX)]), Ok("X-Gitea-Signature"));
        let both = [("X-Gitea-Signature", HEX), ("X-Forgejo-Signature", HEX)];
        assert_eq!(header(&both), Ok("X-Forgejo-Signature"));
        let github_first = [("X-Gitea-Signature", HEX), ("X-Hub-Signature-256", "sha256=")];
        assert_eq!(header(&github_first), Err(Error::Empty("X-Hub-Signature-256")));
        // Gitea's four headers where the webhook has no secret.
        let without_secret = [("X-Gitea-Signature", ""), ("X-Gogs-Signature", ""), ("X-Hub-Signature-256", "sha256=")];
        assert_eq!(header(&without_secret), Err(Error::Empty("X-Hub-Signature-256")));
        assert_eq!(header(&without_secret[..2]), Err(Error::Empty("X-Gitea-Signature")));
        let doubled = [("X-Hub-Signature-256", &*good), ("x-hub-signature-256", &*good)];
        assert_eq!(header(&doubled), Err(Error::Doubled("X-Hub-Signature-256")));
    }

    #[test]
    fn the_forge_is_the_one_whose_header_proves() {
        let bitbucket = [("X-Hub-Signature", &*format!("sha256={HEX}")), ("X-Event-Key", "repo:push")];
        assert_eq!(header(&bitbucket), Ok("X-Hub-Signature"));
        // GitHub sends SHA-1 there, and its other header decides.
        assert_eq!(header(&bitbucket[..1]), Err(Error::Missing));
        assert_eq!(
            header(&[("X-Hub-Signature", "sha1=00"), bitbucket[1]]),
            Err(Error::Malformed("X-Hub-Signature", "sha256="))
        );
        assert_eq!(header(&[("X-Gitlab-Token", "")]), Err(Error::Empty("X-Gitlab-Token")));
        assert_eq!(header(&[("X-Gitlab-Token", "a"), ("x-gitlab-token", "a")]), Err(Error::Doubled("X-Gitlab-Token")));
        let both = [("X-Gitlab-Token", "It's a Secret to Everybody"), ("X-Gitea-Signature", HEX)];
        assert_eq!(header(&both), Ok("X-Gitea-Signature"));
    }

    #[test]
    fn a_token_is_the_whole_secret_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("webhook-secret"), "another secret of mine\nIt's a Secret to Everybody\n")
            .unwrap();
        let secrets = crate::config::Credentials::in_folder(dir.path()).webhook_secrets().unwrap();
        let verify = |token: &str| read(&[("X-Gitlab-Token", token)]).unwrap().verify(&secrets, b"{}");
        assert_eq!(verify("It's a Secret to Everybody"), Ok(()));
        assert_eq!(verify("another secret of mine"), Ok(()));
        for wrong in
            ["It's a Secret to Everybod", "It's a Secret to Everybody ", "it's a secret to everybody", "another"]
        {
            assert_eq!(verify(wrong), Err(Error::WrongToken("X-Gitlab-Token")), "{wrong}");
        }
        // A MAC of the body is no token, nor is one of the secret.
        assert_eq!(verify(HEX), Err(Error::WrongToken("X-Gitlab-Token")));
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
                header(&[("X-Hub-Signature-256", value)]),
                Err(Error::Malformed("X-Hub-Signature-256", "sha256=")),
                "{value:?}"
            );
        }
        let prefixed = format!("sha256={HEX}");
        assert_eq!(header(&[("X-Gitea-Signature", &prefixed)]), Err(Error::Malformed("X-Gitea-Signature", "")));
    }
}
