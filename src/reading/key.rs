//! The text key of a document: unique, and short enough for an index.

use sha2::{Digest, Sha256};

use super::bson::Raw;
use super::json::{Shape, value_text};
use super::{Oddities, Rejection};
use crate::random::hex;
use crate::store::Keys;

/// Longer keys are hashed: an entry of PostgreSQL's index takes at most 2,704 bytes ("Indexes: 67.1.4. B-Tree").
const LONGEST_KEY: usize = 1024;
/// Bytes of such a key that stay for the reader.
const KEPT_OF_KEY: usize = 100;

/// The key of a document in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub text: String,
    /// Whether it tells the id; otherwise it is a hash.
    pub is_whole: bool,
}

impl Key {
    /// That of a document without an id, which its place tells from its like.
    pub(super) fn without_id(place: &str, document: &[u8]) -> Self {
        Self { text: hashed("line", place, document), is_whole: true }
    }
}

/// The text key of an id: an ObjectId's hex digits, as the Go version wrote them; of every other type its canonical
/// Extended JSON, which tells `"5"` from `5`. Where that is too long for an index, or could be of another id, it is cut
/// and a hash follows, so that it ends like no Extended JSON does.
pub(super) fn key(id: Raw<'_>, keys: Keys) -> Result<Key, Rejection> {
    if let Raw::ObjectId(id) = id {
        return Ok(Key { text: hex(&id), is_whole: true });
    }
    let shape = match keys {
        Keys::Types => Shape::Canonical,
        Keys::Values => Shape::Value,
    };
    let text = value_text(id, shape, &mut Oddities::default())?;
    let nested = match id {
        Raw::Document(inner) | Raw::Array(inner) | Raw::CodeWithScope { scope: inner, .. } => inner,
        _ => &[],
    };
    // What Extended JSON cannot hold, such as a key `$oid` of the id's own, its bytes tell apart.
    let ambiguous = !nested.is_empty() && value_text(id, Shape::Extended, &mut Oddities::default()).is_err();
    if text.len() <= LONGEST_KEY && !ambiguous {
        return Ok(Key { text, is_whole: true });
    }
    // The bytes of one value may differ by the types of its numbers.
    let nested = if ambiguous || keys == Keys::Types { nested } else { &[] };
    let digest = Sha256::new().chain_update(&text).chain_update([0]).chain_update(nested).finalize();
    Ok(Key { text: cut(text, &digest), is_whole: false })
}

fn cut(mut text: String, digest: &[u8]) -> String {
    text.truncate(text.floor_char_boundary(KEPT_OF_KEY));
    format!("{text}...sha256:{}", hex(digest))
}

/// The id in its plain form, as other tables name it: a text as it is, every other type as `json = "plain"` writes it.
pub(super) fn source_id(id: Raw<'_>, key: &Key) -> Result<String, Rejection> {
    if let Raw::ObjectId(_) = id {
        return Ok(key.text.clone());
    }
    let json = value_text(id, Shape::Plain, &mut Oddities::default())?;
    let text = if json.starts_with('"') { serde_json::from_str(&json).unwrap_or(json) } else { json };
    let digest = (text.len() > LONGEST_KEY).then(|| Sha256::digest(&text));
    Ok(digest.map_or(text.clone(), |digest| cut(text, &digest)))
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
        key(bson::find(document, "_id").unwrap().unwrap(), Keys::Types).unwrap().text
    }

    fn both(id: &str) -> (String, String) {
        let document = extended::to_bson(format!(r#"{{"_id":{id}}}"#).as_bytes()).unwrap().bson;
        let id = bson::find(&document, "_id").unwrap().unwrap();
        let key = key(id, Keys::Values).unwrap();
        let source_id = source_id(id, &key).unwrap();
        (key.text, source_id)
    }

    #[test]
    fn numbers_of_one_value_are_one_key_and_the_plain_form_can_be_joined() {
        for (ids, key, plain) in [
            (&["5", "5.0", r#"{"$numberLong":"5"}"#, r#"{"$numberDouble":"5"}"#][..], r#"{"$numberInt":"5"}"#, "5"),
            (&["-0.0", "0"], r#"{"$numberInt":"0"}"#, "0"),
            (&["5000000000", "5e9"], r#"{"$numberLong":"5000000000"}"#, "5000000000"),
            (
                &[r#"{"n":5,"m":[1.0]}"#, r#"{"n":{"$numberLong":"5"},"m":[1]}"#],
                r#"{"n":{"$numberInt":"5"},"m":[{"$numberInt":"1"}]}"#,
                r#"{"n":5,"m":[1]}"#,
            ),
            (&["5.5"], r#"{"$numberDouble":"5.5"}"#, "5.5"),
            (&[r#""abc""#], r#""abc""#, "abc"),
            (&[r#""a\"b\n""#], r#""a\"b\n""#, "a\"b\n"),
            (&[r#""5""#], r#""5""#, "5"),
            (&["12345678901234567890"], r#"{"$numberDecimal":"12345678901234567890"}"#, "12345678901234567890"),
            (&["12345678901234567891"], r#"{"$numberDecimal":"12345678901234567891"}"#, "12345678901234567891"),
            (
                &[r#"{"$date":"2026-01-04T12:00:00Z"}"#],
                r#"{"$date":{"$numberLong":"1767528000000"}}"#,
                "2026-01-04T12:00:00Z",
            ),
            (&["null"], "null", "null"),
        ] {
            for id in ids {
                assert_eq!(both(id), (key.to_owned(), plain.to_owned()), "{id}");
            }
        }
        let long = "x".repeat(5000);
        let (key, plain) = both(&format!("\"{long}\""));
        assert!(key.len() < 200 && plain.len() < 200 && plain.starts_with("xxx"), "{plain}");
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
        let mut keys: std::collections::HashSet<String> = ids
            .iter()
            .map(|id| of(&extended::to_bson(format!(r#"{{"_id":{id}}}"#).as_bytes()).unwrap().bson))
            .collect();
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
