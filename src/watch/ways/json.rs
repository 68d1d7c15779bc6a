//! JSON, signed as Standard Webhooks 1.0.0 have it (github.com/standard-webhooks, "Signature scheme": `v1`, HMAC-SHA256).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::json;
use sha2::Sha256;

use super::sent::Parts;
use crate::health::Level;
use crate::watch::{Change, Notice};

/// A key to sign with.
#[derive(Clone)]
pub(super) struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Reads a secret as the specification writes it: `whsec_` and 24 to 64 bytes in base64.
    pub(super) fn read(secret: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(secret).unwrap_or_default().trim();
        let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        if !(24..=64).contains(&bytes.len()) {
            let how =
                "write whsec_ and 24 to 64 random bytes in base64, such as: echo whsec_$(openssl rand -base64 32)";
            return Err(format!("is no secret of Standard Webhooks; {how}"));
        }
        Ok(Self(bytes))
    }
}

pub(super) fn request(notice: &Notice, key: Option<&Key>, now: Timestamp) -> Result<Parts, serde_json::Error> {
    let kind = match notice.level {
        Level::Healthy if notice.events.iter().all(|event| event.kind == Change::Deployed) => "host.deployed",
        Level::Healthy => "host.recovered",
        Level::Degraded | Level::Failed => "host.problem",
    };
    let body =
        json!({ "type": kind, "timestamp": crate::log::rfc3339(notice.at), "data": serde_json::to_value(notice)? });
    let body = body.to_string();
    let time = now.as_second().to_string();
    let mut headers = vec![
        ("Content-Type", "application/json".to_owned()),
        ("webhook-id", notice.id.clone()),
        ("webhook-timestamp", time.clone()),
    ];
    if let Some(key) = key {
        headers.push(("webhook-signature", signature(key, &notice.id, &time, &body)));
    }
    Ok((headers, body))
}

fn signature(key: &Key, id: &str, time: &str, body: &str) -> String {
    // HMAC takes keys of any length (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key.0) else { return String::new() };
    mac.update(format!("{id}.{time}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example_is_signed_as_it_is_there() {
        let key = Key::read(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for wrong in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_???"] {
            assert!(Key::read(wrong.as_bytes()).unwrap_err().contains("openssl rand"), "{wrong}");
        }
    }
}
