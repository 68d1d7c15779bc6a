//! The text key of a document: unique, and short enough for an index.

use sha2::{Digest, Sha256};

use super::bson::Raw;
use super::json::{Shape, value_text};
use super::{Oddities, Rejection};
use crate::random::hex;

/// Longer keys are hashed: an entry of PostgreSQL's index takes at most 2,704 bytes ("Indexes: 67.1.4. B-Tree").
const LONGEST_KEY: usize = 1024;
/// Bytes of such a key that stay for the reader.
const KEPT_OF_KEY: usize = 100;

/// The text key of an id: an ObjectId's hex digits, as the Go version wrote them; of every other type its canonical
/// Extended JSON, which tells `"5"` from `5`. Where that is too long for an index, or could be of another id, it is cut
/// and a hash follows, so that it ends like no Extended JSON does.
pub(super) fn key(id: Raw<'_>) -> Result<String, Rejection> {
    if let Raw::ObjectId(id) = id {
        return Ok(hex(&id));
    }
    let mut text = value_text(id, Shape::Canonical, &mut Oddities::default())?;
    let nested = match id {
        Raw::Document(inner) | Raw::Array(inner) | Raw::CodeWithScope { scope: inner, .. } => inner,
        _ => &[],
    };
    // What Extended JSON cannot hold, such as a key `$oid` of the id's own, its bytes tell apart.
    let ambiguous = !nested.is_empty() && value_text(id, Shape::Extended, &mut Oddities::default()).is_err();
    if text.len() <= LONGEST_KEY && !ambiguous {
        return Ok(text);
    }
    let digest = Sha256::new().chain_update(&text).chain_update([0]).chain_update(nested).finalize();
    text.truncate(text.floor_char_boundary(KEPT_OF_KEY));
    Ok(format!("{text}...sha256:{}", hex(&digest)))
}

/// The key of a document without an id that can be read: by its content, and by the place that tells it from its like.
pub(super) fn hashed(what: &str, place: &str, bytes: &[u8]) -> String {
    let digest = Sha256::new().chain_update(place).chain_update([0]).chain_update(bytes).finalize();
    format!("{what}:sha256:{}", hex(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{bson, extended};

    fn of(document: &[u8]) -> String {
        key(bson::find(document, "_id").unwrap().unwrap()).unwrap()
    }

    #[test]
    fn ids_of_all_types_have_keys_of_their_own() {
        let ids = [
            r#""5""#,
            "5",
            r#"{"$numberLong":"5"}"#,
            r#"{"$numberDecimal":"5"}"#,
            "5.0",
            "null",
            "true",
            r#"{"a":5}"#,
            r#"{"$oid":"5f43a1b2c3d4e5f601020304"}"#,
            r#""5f43a1b2c3d4e5f601020304""#,
            r#"{"$date":"2026-01-04T12:00:00Z"}"#,
            r#"{"$binary":{"base64":"AAAA","subType":"00"}}"#,
            r#"{"$binary":{"base64":"AAAA","subType":"05"}}"#,
            r#""a\u0000b""#,
            r#""a\\u0000b""#,
            r#"{"$minKey":1}"#,
            r#"{"a":{"$oid":"5f43a1b2c3d4e5f601020304"}}"#,
            &format!(r#""{}""#, "ž".repeat(5000)),
            &format!(r#""{}x""#, "ž".repeat(5000)),
            &format!(r#"{{"a":"{}"}}"#, "x".repeat(5000)),
        ];
        let mut keys: std::collections::HashSet<String> =
            ids.iter().map(|id| of(&extended::to_bson(format!(r#"{{"_id":{id}}}"#).as_bytes()).unwrap())).collect();
        // {_id: {a: {$oid: "5f43a1b2c3d4e5f601020304"}}}, which only BSON can say.
        let inner = b"\x28\0\0\0\x02$oid\0\x19\0\0\x005f43a1b2c3d4e5f601020304\0\0";
        let inner = [&(inner.len() as i32).to_le_bytes()[..], &inner[4..]].concat();
        let wrap = |name: &[u8], inner: &[u8]| {
            let length = (4 + 1 + name.len() + 1 + inner.len() + 1) as i32;
            [&length.to_le_bytes()[..], b"\x03", name, b"\0", inner, b"\0"].concat()
        };
        let document = wrap(b"_id", &wrap(b"a", &inner));
        keys.insert(of(&document));
        assert_eq!(keys.len(), ids.len() + 1, "{keys:?}");
        assert!(keys.iter().all(|key| key.len() <= LONGEST_KEY), "{keys:?}");
    }
}
