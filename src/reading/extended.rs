//! Extended JSON to BSON: version 2, canonical, relaxed or mixed (MongoDB specifications, "Extended JSON", 2.1), and the
//! "strict mode" of version 1, which mongoexport wrote before 4.2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json_text::{Json, parse};
use super::{Rejection, decimal, time};

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

/// A document that was Extended JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Converted {
    pub bson: Vec<u8>,
    /// How many of its numbers no type of BSON holds but as a text or a decimal.
    pub beyond: u64,
}

/// The BSON of a line of Extended JSON, which must be an object.
pub(super) fn to_bson(line: &[u8]) -> Result<Converted, Rejection> {
    match parse(line)? {
        (Json::Object(members), beyond) => {
            let mut bson = Vec::with_capacity(line.len());
            document(&mut bson, members.iter().map(|(key, value)| (key.as_str(), value)))?;
            Ok(Converted { bson, beyond })
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
        // A decimal tells it from a text; of one that is too long for that, its digits are all there is.
        Json::Beyond(number) => match decimal::from_text(number).filter(|bits| decimal::to_text(*bits) == *number) {
            Some(bits) => {
                bytes.extend(bits);
                0x13
            }
            None => {
                string(bytes, number)?;
                0x02
            }
        },
        Json::Array(items) => {
            let keys: Vec<String> = (0..items.len()).map(|index| index.to_string()).collect();
            document(bytes, keys.iter().map(String::as_str).zip(items))?;
            0x04
        }
        Json::Object(members) => {
            let wrapper = members.iter().find(|(key, _)| WRAPPERS.contains(&key.as_str()));
            match (exactly(members, ["$regex", "$options"]), wrapper) {
                (Some([Json::Text(pattern), Json::Text(options)]), _) => regex(bytes, pattern, options)?,
                (_, Some((wrapper, inner))) => wrapped(bytes, wrapper, inner, members)?,
                (_, None) => {
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
    if let Some([Json::Text(content), subtype]) = exactly(members, ["$binary", "$type"]) {
        return old_binary(bytes, content, subtype);
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
            regex(bytes, pattern, options)
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

fn regex(bytes: &mut Vec<u8>, pattern: &str, options: &str) -> Result<u8, Rejection> {
    cstring(bytes, pattern)?;
    // BSON wants them in alphabetical order.
    let mut options: Vec<char> = options.chars().collect();
    options.sort_unstable();
    cstring(bytes, &options.into_iter().collect::<String>())?;
    Ok(0x0b)
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
    // Version 1 has them as they are.
    let value = match inner {
        Json::Text(text) => text.clone(),
        Json::Int(value) if wrapper != "$numberDecimal" => value.to_string(),
        Json::Double(value) if wrapper == "$numberDouble" => format!("{value:?}"),
        _ => return Err(refused()),
    };
    match wrapper {
        "$numberInt" => bytes.extend(value.parse::<i32>().map_err(|_| refused())?.to_le_bytes()),
        "$numberLong" => bytes.extend(value.parse::<i64>().map_err(|_| refused())?.to_le_bytes()),
        "$numberDouble" => bytes.extend(double(&value).ok_or_else(refused)?.to_le_bytes()),
        _ => bytes.extend(decimal::from_text(&value).ok_or_else(refused)?),
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
        number if number.bytes().any(|byte| byte.is_ascii_digit()) => {
            // What is too large or too small for a double is none.
            let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
            let is_zero = !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
            number.parse().ok().filter(|value: &f64| value.is_finite() && (is_zero || *value != 0.0))
        }
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
    write_binary(bytes, subtype, &content)
}

/// Version 1 has the subtype beside the content, and those of users with the sign of a signed byte: `ffffff80`.
fn old_binary(bytes: &mut Vec<u8>, content: &str, subtype: &Json) -> Result<u8, Rejection> {
    let subtype = match subtype {
        Json::Int(value) => u8::try_from(*value).ok(),
        Json::Text(digits) => {
            let digits = if digits.len() == 8 { digits.strip_prefix("ffffff") } else { Some(digits.as_str()) };
            let is_hex =
                |digits: &&str| (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            digits.filter(is_hex).and_then(|digits| u8::from_str_radix(digits, 16).ok())
        }
        _ => None,
    };
    let content = STANDARD.decode(content).ok();
    let (Some(subtype), Some(content)) = (subtype, content) else {
        return Err(wrong("$binary", "base64 as text, and $type beside it two hex digits"));
    };
    write_binary(bytes, subtype, &content)
}

fn write_binary(bytes: &mut Vec<u8>, subtype: u8, content: &[u8]) -> Result<u8, Rejection> {
    let length = |count: usize| i32::try_from(count).map_err(|_| wrong("$binary", "at most 2 GiB"));
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
        Json::Int(milliseconds) => Some(*milliseconds),
        Json::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
        Json::Text(text) => time::instant(text),
        other => match object(other, ["$numberLong"]) {
            Some([Json::Int(milliseconds)]) => Some(*milliseconds),
            Some([Json::Text(text)]) => text.parse().ok(),
            _ => None,
        },
    };
    let milliseconds: i64 =
        milliseconds.ok_or_else(|| wrong("$date", "RFC 3339, milliseconds since 1970, or {\"$numberLong\": text}"))?;
    bytes.extend(milliseconds.to_le_bytes());
    Ok(0x09)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strict_mode_of_version_1_is_taken() {
        for (old, new) in [
            (r#"{"$date":1393804800000}"#, r#"{"$date":{"$numberLong":"1393804800000"}}"#),
            (r#"{"$date":-62135596800000}"#, r#"{"$date":{"$numberLong":"-62135596800000"}}"#),
            (r#"{"$date":{"$numberLong":1393804800000}}"#, r#"{"$date":{"$numberLong":"1393804800000"}}"#),
            (r#"{"$date":"2014-03-03T00:00:00"}"#, r#"{"$date":{"$numberLong":"1393804800000"}}"#),
            (r#"{"$date":"2014-03-03"}"#, r#"{"$date":{"$numberLong":"1393804800000"}}"#),
            (r#"{"$date":"2014-03-02T19:00:00.000-0500"}"#, r#"{"$date":{"$numberLong":"1393804800000"}}"#),
            (r#"{"$date":"2014-03-03T00:00:00.000+0000"}"#, r#"{"$date":{"$numberLong":"1393804800000"}}"#),
            (r#"{"$numberLong":5}"#, r#"{"$numberLong":"5"}"#),
            (r#"{"$numberInt":5}"#, r#"{"$numberInt":"5"}"#),
            (r#"{"$numberDouble":5.25}"#, r#"{"$numberDouble":"5.25"}"#),
            (r#"{"$binary":"AQID","$type":"00"}"#, r#"{"$binary":{"base64":"AQID","subType":"00"}}"#),
            (r#"{"$type":"05","$binary":"AQID"}"#, r#"{"$binary":{"base64":"AQID","subType":"05"}}"#),
            (r#"{"$binary":"AQID","$type":"ffffff80"}"#, r#"{"$binary":{"base64":"AQID","subType":"80"}}"#),
            (r#"{"$binary":"AQID","$type":2}"#, r#"{"$binary":{"base64":"AQID","subType":"02"}}"#),
            (r#"{"$regex":"^a","$options":"mi"}"#, r#"{"$regularExpression":{"pattern":"^a","options":"im"}}"#),
        ] {
            let of = |value: &str| to_bson(format!(r#"{{"a":{value}}}"#).as_bytes());
            assert!(of(new).is_ok() && of(old) == of(new), "{old}: {:?}", of(old));
        }
        for wrong in [
            r#"{"$date":"soon"}"#,
            r#"{"$date":1.5}"#,
            r#"{"$date":"2014-03-03T00:00:00[Europe/Prague]"}"#,
            r#"{"$binary":"?","$type":"00"}"#,
            r#"{"$binary":"AQID","$type":"100"}"#,
            r#"{"$numberLong":5.5}"#,
            r#"{"$numberInt":3000000000}"#,
        ] {
            assert!(to_bson(format!(r#"{{"a":{wrong}}}"#).as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_double_that_none_can_be_is_refused_and_not_made_another() {
        for number in ["1e400", "-1.5E+309", "1e-400", "0.001e-330"] {
            let line = format!(r#"{{"a":{{"$numberDouble":"{number}"}}}}"#);
            assert!(to_bson(line.as_bytes()).is_err(), "{number}");
        }
        for number in ["0e400", "-0.0e-400", "1e308", "5e-324", "Infinity", "18446744073709551616", "1."] {
            let line = format!(r#"{{"a":{{"$numberDouble":"{number}"}}}}"#);
            assert!(to_bson(line.as_bytes()).is_ok(), "{number}");
        }
    }
}
