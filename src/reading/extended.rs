//! Extended JSON v2 to BSON (MongoDB specifications, "Extended JSON", 2.1), canonical, relaxed or mixed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json_text::{Json, parse};
use super::{Rejection, decimal};

/// Keys that make an object a value of another type. A document that really has such a key cannot be told from one.
pub(super) const WRAPPERS: [&str; 16] = [
    "$binary",
    "$code",
    "$date",
    "$dbPointer",
    "$maxKey",
    "$minKey",
    "$numberDecimal",
    "$numberDouble",
    "$numberInt",
    "$numberLong",
    "$oid",
    "$regularExpression",
    "$symbol",
    "$timestamp",
    "$undefined",
    "$uuid",
];

type Members = [(String, Json)];

/// The BSON of a line of Extended JSON, which must be an object.
pub(super) fn to_bson(line: &[u8]) -> Result<Vec<u8>, Rejection> {
    match parse(line)? {
        Json::Object(members) => {
            let mut bytes = Vec::with_capacity(line.len());
            document(&mut bytes, members.iter().map(|(key, value)| (key.as_str(), value)))?;
            Ok(bytes)
        }
        _ => Err(Rejection::Json("a line must be one object: {…}".to_owned())),
    }
}

fn wrong(wrapper: &str, expected: &str) -> Rejection {
    Rejection::Json(format!("{wrapper} takes {expected}"))
}

fn with_length(
    bytes: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let start = bytes.len();
    bytes.extend([0; 4]);
    write(bytes)?;
    let length = i32::try_from(bytes.len() - start).map_err(|_| Rejection::Json("it is longer than 2 GiB".into()))?;
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn document<'a>(bytes: &mut Vec<u8>, members: impl Iterator<Item = (&'a str, &'a Json)>) -> Result<(), Rejection> {
    with_length(bytes, |bytes| {
        for (key, value) in members {
            let at = bytes.len();
            bytes.push(0);
            cstring(bytes, key)?;
            let kind = element(bytes, value)?;
            bytes[at] = kind;
        }
        bytes.push(0);
        Ok(())
    })
}

fn cstring(bytes: &mut Vec<u8>, text: &str) -> Result<(), Rejection> {
    if text.contains('\0') {
        return Err(Rejection::Json("a key or regular expression has a NUL character, which BSON cannot hold".into()));
    }
    bytes.extend(text.as_bytes());
    bytes.push(0);
    Ok(())
}

fn string(bytes: &mut Vec<u8>, text: &str) -> Result<(), Rejection> {
    let length = i32::try_from(text.len() + 1).map_err(|_| Rejection::Json("it is longer than 2 GiB".into()))?;
    bytes.extend(length.to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
    Ok(())
}

/// Writes a value and returns its type.
fn element(bytes: &mut Vec<u8>, value: &Json) -> Result<u8, Rejection> {
    Ok(match value {
        Json::Null => 0x0a,
        Json::Bool(value) => {
            bytes.push(u8::from(*value));
            0x08
        }
        Json::Int(value) => match i32::try_from(*value) {
            Ok(value) => {
                bytes.extend(value.to_le_bytes());
                0x10
            }
            Err(_) => {
                bytes.extend(value.to_le_bytes());
                0x12
            }
        },
        Json::Double(value) => {
            bytes.extend(value.to_le_bytes());
            0x01
        }
        Json::Text(text) => {
            string(bytes, text)?;
            0x02
        }
        Json::Array(items) => {
            let keys: Vec<String> = (0..items.len()).map(|index| index.to_string()).collect();
            document(bytes, keys.iter().map(String::as_str).zip(items))?;
            0x04
        }
        Json::Object(members) => {
            let wrapper = members.iter().find(|(key, _)| WRAPPERS.contains(&key.as_str()));
            match wrapper {
                Some((wrapper, inner)) => wrapped(bytes, wrapper, inner, members)?,
                None => {
                    document(bytes, members.iter().map(|(key, value)| (key.as_str(), value)))?;
                    0x03
                }
            }
        }
    })
}

/// The members of an object that has exactly these keys, in any order.
fn exactly<'a, const N: usize>(members: &'a Members, keys: [&str; N]) -> Option<[&'a Json; N]> {
    if members.len() != N {
        return None;
    }
    let found = keys.map(|key| members.iter().find(|(name, _)| name == key).map(|(_, value)| value));
    found.iter().all(Option::is_some).then(|| found.map(|value| value.unwrap_or(&Json::Null)))
}

fn object<'a, const N: usize>(value: &'a Json, keys: [&str; N]) -> Option<[&'a Json; N]> {
    if let Json::Object(members) = value { exactly(members, keys) } else { None }
}

fn text(value: &Json) -> Option<&str> {
    if let Json::Text(text) = value { Some(text) } else { None }
}

fn small(value: &Json) -> Option<u32> {
    if let Json::Int(value) = value { u32::try_from(*value).ok() } else { None }
}

fn oid(value: &Json) -> Option<[u8; 12]> {
    hex(text(value)?)
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn wrapped(bytes: &mut Vec<u8>, wrapper: &str, inner: &Json, members: &Members) -> Result<u8, Rejection> {
    if wrapper == "$code" {
        return code(bytes, inner, members);
    }
    if members.len() != 1 {
        return Err(wrong(wrapper, "no other key beside it"));
    }
    match wrapper {
        "$oid" => {
            bytes.extend(oid(inner).ok_or_else(|| wrong(wrapper, "24 hex digits"))?);
            Ok(0x07)
        }
        "$symbol" => {
            string(bytes, text(inner).ok_or_else(|| wrong(wrapper, "a text"))?)?;
            Ok(0x0e)
        }
        "$numberInt" | "$numberLong" | "$numberDouble" | "$numberDecimal" => number(bytes, wrapper, inner),
        "$binary" | "$uuid" => binary(bytes, wrapper, inner),
        "$date" => date(bytes, inner),
        "$timestamp" => {
            let parts = object(inner, ["t", "i"]).and_then(|[t, i]| Some((small(t)?, small(i)?)));
            let (seconds, increment) = parts.ok_or_else(|| wrong(wrapper, "{\"t\": seconds, \"i\": number}"))?;
            bytes.extend(increment.to_le_bytes());
            bytes.extend(seconds.to_le_bytes());
            Ok(0x11)
        }
        "$regularExpression" => {
            let parts = object(inner, ["pattern", "options"]).and_then(|[p, o]| Some((text(p)?, text(o)?)));
            let (pattern, options) = parts.ok_or_else(|| wrong(wrapper, "{\"pattern\": text, \"options\": text}"))?;
            cstring(bytes, pattern)?;
            // BSON wants them in alphabetical order.
            let mut options: Vec<char> = options.chars().collect();
            options.sort_unstable();
            cstring(bytes, &options.into_iter().collect::<String>())?;
            Ok(0x0b)
        }
        "$dbPointer" => {
            let parts = object(inner, ["$ref", "$id"]).and_then(|[name, id]| {
                let [id] = object(id, ["$oid"])?;
                Some((text(name)?, oid(id)?))
            });
            let (name, id) = parts.ok_or_else(|| wrong(wrapper, "{\"$ref\": text, \"$id\": {\"$oid\": …}}"))?;
            string(bytes, name)?;
            bytes.extend(id);
            Ok(0x0c)
        }
        "$undefined" if *inner == Json::Bool(true) => Ok(0x06),
        "$minKey" if *inner == Json::Int(1) => Ok(0xff),
        "$maxKey" if *inner == Json::Int(1) => Ok(0x7f),
        other => Err(wrong(other, if other == "$undefined" { "true" } else { "1" })),
    }
}

fn code(bytes: &mut Vec<u8>, code: &Json, members: &Members) -> Result<u8, Rejection> {
    let code = text(code).ok_or_else(|| wrong("$code", "a text"))?;
    if members.len() == 1 {
        string(bytes, code)?;
        return Ok(0x0d);
    }
    let Some([_, Json::Object(scope)]) = exactly(members, ["$code", "$scope"]) else {
        return Err(wrong("$code", "$scope with an object beside it, and nothing else"));
    };
    with_length(bytes, |bytes| {
        string(bytes, code)?;
        document(bytes, scope.iter().map(|(key, value)| (key.as_str(), value)))
    })?;
    Ok(0x0f)
}

fn number(bytes: &mut Vec<u8>, wrapper: &str, inner: &Json) -> Result<u8, Rejection> {
    let refused = || wrong(wrapper, "a number of its type as text");
    let value = text(inner).ok_or_else(refused)?;
    match wrapper {
        "$numberInt" => bytes.extend(value.parse::<i32>().map_err(|_| refused())?.to_le_bytes()),
        "$numberLong" => bytes.extend(value.parse::<i64>().map_err(|_| refused())?.to_le_bytes()),
        "$numberDouble" => bytes.extend(double(value).ok_or_else(refused)?.to_le_bytes()),
        _ => bytes.extend(decimal::from_text(value).ok_or_else(refused)?),
    }
    Ok(match wrapper {
        "$numberInt" => 0x10,
        "$numberLong" => 0x12,
        "$numberDouble" => 0x01,
        _ => 0x13,
    })
}

fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        number if number.bytes().any(|byte| byte.is_ascii_digit()) => number.parse().ok(),
        _ => None,
    }
}

fn binary(bytes: &mut Vec<u8>, wrapper: &str, inner: &Json) -> Result<u8, Rejection> {
    let (subtype, content) = if wrapper == "$uuid" {
        let digits = text(inner).filter(|text| {
            text.len() == 36 && text.char_indices().all(|(at, c)| (c == '-') == matches!(at, 8 | 13 | 18 | 23))
        });
        let uuid = digits.and_then(|digits| hex::<16>(&digits.replace('-', "")));
        (4, uuid.ok_or_else(|| wrong(wrapper, "a UUID as text"))?.to_vec())
    } else {
        let parts = object(inner, ["base64", "subType"]).and_then(|[content, subtype]| {
            let (content, subtype) = (text(content)?, text(subtype)?);
            let short = matches!(subtype.len(), 1 | 2) && subtype.bytes().all(|byte| byte.is_ascii_hexdigit());
            let subtype = short.then(|| u8::from_str_radix(subtype, 16).ok()).flatten()?;
            Some((subtype, STANDARD.decode(content).ok()?))
        });
        parts.ok_or_else(|| wrong(wrapper, "{\"base64\": text, \"subType\": two hex digits}"))?
    };
    let length = |count: usize| i32::try_from(count).map_err(|_| wrong(wrapper, "at most 2 GiB"));
    if subtype == 2 {
        bytes.extend(length(content.len() + 4)?.to_le_bytes());
        bytes.push(subtype);
        bytes.extend(length(content.len())?.to_le_bytes());
    } else {
        bytes.extend(length(content.len())?.to_le_bytes());
        bytes.push(subtype);
    }
    bytes.extend(content);
    Ok(0x05)
}

fn date(bytes: &mut Vec<u8>, inner: &Json) -> Result<u8, Rejection> {
    let milliseconds = match inner {
        Json::Text(text) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond),
        other => object(other, ["$numberLong"]).and_then(|[value]| text(value)?.parse().ok()),
    };
    let milliseconds: i64 = milliseconds.ok_or_else(|| wrong("$date", "RFC 3339 or {\"$numberLong\": text}"))?;
    bytes.extend(milliseconds.to_le_bytes());
    Ok(0x09)
}
