//! BSON to JSON text in the pipeline's two shapes, and in canonical Extended JSON for keys.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::bson::{Raw, elements};
use super::extended::WRAPPERS;
use super::{Oddities, Rejection, decimal};
use crate::random::hex;

/// The shape of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rows of the Go version: what JSON cannot hold becomes a text.
    Plain,
    /// Relaxed Extended JSON v2. A document that it cannot hold is rejected.
    Extended,
    /// Canonical Extended JSON v2, for keys: every type is told from every other.
    Canonical,
    /// The same, but an integer and a whole double of one value are one, as in MongoDB's own index of `_id`.
    Value,
}

/// What of a document is not written.
#[derive(Clone, Debug, Default)]
pub(super) struct Without<'a> {
    /// Fields of its own.
    pub top: Vec<&'a str>,
    /// Fields inside of others, each as the names that lead to it. What holds nothing else is not written either.
    pub deep: Vec<&'a [String]>,
}

impl<'a> Without<'a> {
    /// What is not written of the field `key`; none where it is written whole.
    fn inside(&self, key: &str) -> Option<Without<'a>> {
        let mut inside = Self::default();
        for path in &self.deep {
            match path {
                [first, last] if first == key => inside.top.push(last),
                [first, rest @ ..] if first == key => inside.deep.push(rest),
                _ => {}
            }
        }
        (!inside.top.is_empty() || !inside.deep.is_empty()).then_some(inside)
    }
}

/// Stands for a NUL character, which PostgreSQL cannot store ("8.14. JSON Types"): the symbol for it.
const NUL_SYMBOL: char = '\u{2400}';

/// Beyond 2^63 no integer can be meant.
const WHOLE: f64 = 9_223_372_036_854_775_808.0;

/// Writes values to one text.
pub(super) struct Writer<'o> {
    pub text: String,
    pub shape: Shape,
    pub oddities: &'o mut Oddities,
}

/// The text of one value.
pub(super) fn value_text(value: Raw<'_>, shape: Shape, oddities: &mut Oddities) -> Result<String, Rejection> {
    let size = if let Raw::Document(bytes) | Raw::Array(bytes) = value { bytes.len() } else { 16 };
    let mut writer = Writer { text: String::with_capacity(size), shape, oddities };
    writer.value(value)?;
    Ok(writer.text)
}

/// Milliseconds since 1970 as RFC 3339 in UTC, without trailing zeros; none outside the years 0 to 9999.
pub(super) fn rfc3339(milliseconds: i64) -> Option<String> {
    // A timestamp of jiff ends a day before the year 9999 does, a date and its time of day do not.
    let since = jiff::SignedDuration::from_millis(milliseconds);
    let time = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0).checked_add(since).ok()?;
    (0..=9999).contains(&time.year()).then(|| format!("{time}Z"))
}

/// A text with NUL replaced.
pub(super) fn without_nul(text: &str, shape: Shape, oddities: &mut Oddities) -> Result<String, Rejection> {
    if !text.contains('\0') {
        return Ok(text.to_owned());
    }
    if shape == Shape::Extended {
        return Err(Rejection::Nul);
    }
    oddities.nul_replaced += 1;
    Ok(text.replace('\0', &NUL_SYMBOL.to_string()))
}

impl Writer<'_> {
    /// Writes a value. `bson::check` has bounded its depth, and so this recursion.
    pub(super) fn value(&mut self, value: Raw<'_>) -> Result<(), Rejection> {
        match value {
            Raw::String(text) => self.string(text),
            Raw::Document(document) => self.document(document, &Without::default()).map(drop),
            Raw::Array(array) => self.array(array),
            Raw::Null => self.raw("null"),
            Raw::Bool(value) => self.raw(if value { "true" } else { "false" }),
            Raw::Int32(value) if self.shape == Shape::Canonical => self.wrapped("$numberInt", &value.to_string()),
            Raw::Int64(value) if self.shape == Shape::Canonical => self.wrapped("$numberLong", &value.to_string()),
            Raw::Int32(value) if self.shape == Shape::Value => self.integer(value.into()),
            Raw::Int64(value) if self.shape == Shape::Value => self.integer(value),
            Raw::Int32(value) => self.number(value),
            Raw::Int64(value) => self.number(value),
            Raw::Double(value) => self.double(value),
            other if self.shape == Shape::Plain => self.plain(other),
            other => self.extended(other),
        }
    }

    fn raw(&mut self, text: &str) -> Result<(), Rejection> {
        self.text.push_str(text);
        Ok(())
    }

    fn number(&mut self, value: impl std::fmt::Display) -> Result<(), Rejection> {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
        Ok(())
    }

    fn integer(&mut self, value: i64) -> Result<(), Rejection> {
        let wrapper = if i32::try_from(value).is_ok() { "$numberInt" } else { "$numberLong" };
        self.wrapped(wrapper, &value.to_string())
    }

    fn wrapped(&mut self, wrapper: &str, text: &str) -> Result<(), Rejection> {
        self.number(format_args!("{{\"{wrapper}\":"))?;
        self.string(text)?;
        self.raw("}")
    }

    /// RFC 8259, section 7.
    fn string(&mut self, text: &str) -> Result<(), Rejection> {
        self.text.push('"');
        let mut rest = text;
        let special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        while let Some(at) = rest.bytes().position(special) {
            let (before, after) = rest.split_at(at);
            self.text.push_str(before);
            match after.as_bytes()[0] {
                0 => self.nul()?,
                b'"' => self.text.push_str("\\\""),
                b'\\' => self.text.push_str("\\\\"),
                b'\n' => self.text.push_str("\\n"),
                b'\r' => self.text.push_str("\\r"),
                b'\t' => self.text.push_str("\\t"),
                other => self.number(format_args!("\\u{other:04x}"))?,
            }
            rest = &after[1..];
        }
        self.text.push_str(rest);
        self.text.push('"');
        Ok(())
    }

    fn nul(&mut self) -> Result<(), Rejection> {
        match self.shape {
            Shape::Plain => {
                self.oddities.nul_replaced += 1;
                self.text.push(NUL_SYMBOL);
            }
            Shape::Extended => return Err(Rejection::Nul),
            // A key is a text, not jsonb, and the escape is only characters there.
            Shape::Canonical | Shape::Value => self.text.push_str("\\u0000"),
        }
        Ok(())
    }

    /// Writes a document without some of its fields; how many it has written.
    pub(super) fn document(&mut self, document: &[u8], without: &Without<'_>) -> Result<u64, Rejection> {
        let mut members = elements(document)?.collect::<Result<Vec<_>, _>>()?;
        if !without.top.is_empty() {
            members.retain(|(key, _)| !without.top.contains(key));
        }
        if let (Some(key), Shape::Extended) = (ambiguous(&members), self.shape) {
            return Err(Rejection::Ambiguous(key.to_owned()));
        }
        let repeated = self.repeated(&members)?;
        self.text.push('{');
        let mut written = 0;
        for (index, (key, value)) in members.iter().enumerate() {
            if repeated.as_ref().is_some_and(|repeated| repeated.contains(&index)) {
                continue;
            }
            let before = self.text.len();
            if written > 0 {
                self.text.push(',');
            }
            self.string(key)?;
            self.text.push(':');
            match (value, without.inside(key)) {
                (Raw::Document(inner), Some(inside)) => {
                    if self.document(inner, &inside)? == 0 {
                        self.text.truncate(before);
                        continue;
                    }
                }
                _ => self.value(*value)?,
            }
            written += 1;
        }
        self.text.push('}');
        Ok(written)
    }

    /// The places of members whose key comes again later: the last one wins, as in PostgreSQL's jsonb.
    fn repeated(&mut self, members: &[(&str, Raw<'_>)]) -> Result<Option<Vec<usize>>, Rejection> {
        if matches!(self.shape, Shape::Canonical | Shape::Value) || members.len() < 2 {
            return Ok(None);
        }
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|index| (members[*index].0, *index));
        let earlier = order.windows(2).filter(|pair| members[pair[0]].0 == members[pair[1]].0).map(|pair| pair[0]);
        let earlier: Vec<usize> = earlier.collect();
        let Some(one) = earlier.first() else { return Ok(None) };
        if self.shape == Shape::Extended {
            return Err(Rejection::DuplicateKey(members[*one].0.to_owned()));
        }
        self.oddities.duplicate_keys += earlier.len() as u64;
        Ok(Some(earlier))
    }

    fn array(&mut self, array: &[u8]) -> Result<(), Rejection> {
        self.text.push('[');
        for (index, element) in elements(array)?.enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.value(element?.1)?;
        }
        self.raw("]")
    }

    fn double(&mut self, value: f64) -> Result<(), Rejection> {
        let whole = value.fract() == 0.0;
        if self.shape == Shape::Value && whole && value.abs() < WHOLE {
            return self.integer(value as i64);
        }
        let name = match value {
            _ if value.is_nan() => Some("NaN"),
            f64::INFINITY => Some("Infinity"),
            f64::NEG_INFINITY => Some("-Infinity"),
            // PostgreSQL's numbers have no negative zero.
            _ if value == 0.0 && value.is_sign_negative() && self.shape != Shape::Plain => Some("-0.0"),
            _ => None,
        };
        match (name, self.shape) {
            (Some(name), Shape::Plain) => {
                self.oddities.non_finite += 1;
                self.string(name)
            }
            (Some(name), _) => self.wrapped("$numberDouble", name),
            (None, Shape::Canonical | Shape::Value) => self.wrapped("$numberDouble", &format!("{value:?}")),
            // Go writes whole numbers without a point, and dashboards cast them to integers.
            (None, Shape::Plain) if value == 0.0 => self.raw("0"),
            (None, Shape::Plain) if whole && value.abs() < 1e21 => self.number(format_args!("{value:.0}")),
            // With a point: PostgreSQL's numbers have no exponent, and an integer could not be told from it.
            (None, Shape::Extended) if whole => self.number(format_args!("{value:.1}")),
            (None, _) => self.number(format_args!("{value:?}")),
        }
    }

    /// A type that JSON has not, as a text.
    fn plain(&mut self, value: Raw<'_>) -> Result<(), Rejection> {
        match value {
            Raw::ObjectId(id) => self.string(&hex(&id)),
            Raw::DateTime(milliseconds) => match rfc3339(milliseconds) {
                Some(text) => self.string(&text),
                None => {
                    self.oddities.dates_out_of_range += 1;
                    self.string(&milliseconds.to_string())
                }
            },
            Raw::Decimal128(bytes) => self.string(&decimal::to_text(bytes)),
            Raw::Binary { subtype: 4, bytes } if bytes.len() == 16 => self.string(&uuid(bytes)),
            Raw::Binary { bytes, .. } => self.string(&STANDARD.encode(bytes)),
            Raw::Regex { pattern, options } => self.string(&format!("/{pattern}/{options}")),
            Raw::Timestamp { seconds, increment } => self.string(&format!("Timestamp({seconds}, {increment})")),
            Raw::Code(text) | Raw::Symbol(text) | Raw::CodeWithScope { code: text, .. } => self.string(text),
            Raw::DbPointer { name, id } => self.string(&format!("{name}/{}", hex(&id))),
            Raw::MinKey => self.string("MinKey"),
            Raw::MaxKey => self.string("MaxKey"),
            // Undefined, deprecated for ever, means that there is nothing.
            _ => self.raw("null"),
        }
    }

    fn extended(&mut self, value: Raw<'_>) -> Result<(), Rejection> {
        match value {
            Raw::ObjectId(id) => self.wrapped("$oid", &hex(&id)),
            Raw::DateTime(milliseconds) => self.date(milliseconds),
            Raw::Decimal128(bytes) => self.wrapped("$numberDecimal", &decimal::to_text(bytes)),
            Raw::Binary { subtype, bytes } => {
                let content = STANDARD.encode(bytes);
                self.number(format_args!("{{\"$binary\":{{\"base64\":\"{content}\",\"subType\":\"{subtype:02x}\"}}}}"))
            }
            Raw::Regex { pattern, options } => {
                self.raw("{\"$regularExpression\":{\"pattern\":")?;
                self.string(pattern)?;
                self.raw(",\"options\":")?;
                // In alphabetical order, as the format asks for, however they were stored.
                let mut options: Vec<char> = options.chars().collect();
                options.sort_unstable();
                self.string(&options.into_iter().collect::<String>())?;
                self.raw("}}")
            }
            Raw::Timestamp { seconds, increment } => {
                self.number(format_args!("{{\"$timestamp\":{{\"t\":{seconds},\"i\":{increment}}}}}"))
            }
            Raw::Code(text) => self.wrapped("$code", text),
            Raw::Symbol(text) => self.wrapped("$symbol", text),
            Raw::CodeWithScope { code, scope } => {
                self.raw("{\"$code\":")?;
                self.string(code)?;
                self.raw(",\"$scope\":")?;
                self.document(scope, &Without::default())?;
                self.raw("}")
            }
            Raw::DbPointer { name, id } => {
                self.raw("{\"$dbPointer\":{\"$ref\":")?;
                self.string(name)?;
                self.number(format_args!(",\"$id\":{{\"$oid\":\"{}\"}}}}}}", hex(&id)))
            }
            Raw::MinKey => self.raw("{\"$minKey\":1}"),
            Raw::MaxKey => self.raw("{\"$maxKey\":1}"),
            _ => self.raw("{\"$undefined\":true}"),
        }
    }

    fn date(&mut self, milliseconds: i64) -> Result<(), Rejection> {
        // Relaxed: RFC 3339 from 1970 to 9999, else the canonical form.
        let text = if self.shape == Shape::Extended && milliseconds >= 0 { rfc3339(milliseconds) } else { None };
        match text {
            Some(text) => self.wrapped("$date", &text),
            None => self.number(format_args!("{{\"$date\":{{\"$numberLong\":\"{milliseconds}\"}}}}")),
        }
    }
}

/// A key with which Extended JSON says a type; a document that really has it cannot be told from one.
fn ambiguous<'a>(members: &[(&'a str, Raw<'_>)]) -> Option<&'a str> {
    let is_text = |key: &str| members.iter().any(|(name, value)| *name == key && matches!(value, Raw::String(_)));
    let is_regex = members.len() == 2 && is_text("$regex") && is_text("$options");
    let wrapper = members.iter().map(|(key, _)| *key).find(|key| WRAPPERS.contains(key));
    wrapper.or_else(|| is_regex.then_some("$regex"))
}

fn uuid(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
