//! JSON text as a tree that keeps what maps lose: the order of keys and keys that are there twice (RFC 8259).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::bson::DEPTH;
use super::{Rejection, wording};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    /// A number that neither of them holds, as it stands there.
    Beyond(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The wrappers of Extended JSON add up to two levels to a value, `$scope` three.
const LEVELS: usize = DEPTH + 4;
/// More values than the 16 MiB of a MongoDB document have room for; a tree of them takes about 200 MB.
pub(super) const VALUES: usize = 2_000_000;

/// The name of a member that stands for a number; no document can have it, as BSON's names end with NUL.
const NUMBER: &str = "\0";

/// Parses one JSON value; white space around it is allowed. Also returns how many numbers are `Beyond`.
pub(super) fn parse(text: &[u8]) -> Result<(Json, u64), Rejection> {
    let told = Told::default();
    let tree = told.tree(text);
    // serde_json has rounded such a number, or refused it; seldom enough to look for it then only.
    if (tree.is_err() || told.doubtful.get())
        && let Some(exact) = with_exact_numbers(text)
    {
        let told = Told { exact: true, ..Told::default() };
        let tree = told.tree(&exact).map_err(|error| told.explain(&error, &exact))?;
        return Ok((tree, told.beyond.get()));
    }
    let tree = tree.map_err(|error| told.explain(&error, text))?;
    Ok((tree, told.beyond.get()))
}

/// What is known of a text beside its tree.
#[derive(Default)]
struct Told {
    too_deep: Cell<bool>,
    values: Cell<usize>,
    /// There is a number that may have been rounded.
    doubtful: Cell<bool>,
    beyond: Cell<u64>,
    /// Numbers that would be rounded are members named `NUMBER`.
    exact: bool,
}

impl Told {
    fn tree(&self, text: &[u8]) -> Result<Json, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        // The tree's own limit takes the place of serde_json's, which is lower than Extended JSON asks for.
        deserializer.disable_recursion_limit();
        let tree = Tree { level: 0, told: self }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(tree)
    }

    fn explain(&self, error: &serde_json::Error, text: &[u8]) -> Rejection {
        match () {
            () if self.too_deep.get() => Rejection::TooDeep,
            () if self.values.get() > VALUES => Rejection::TooManyValues,
            () if error.is_eof() => Rejection::Unfinished,
            () => wording::rejection(error, text),
        }
    }

    fn beyond(&self, number: String) -> Json {
        self.beyond.set(self.beyond.get() + 1);
        Json::Beyond(number)
    }
}

/// The text with every number that 64 bits do not hold as a member named `NUMBER`; none where there is none.
fn with_exact_numbers(text: &[u8]) -> Option<Vec<u8>> {
    let mut exact = Vec::new();
    let (mut rest, mut done) = (text, 0);
    let at = |rest: &[u8]| text.len() - rest.len();
    while let Some(skipped) = rest.iter().position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9')) {
        rest = &rest[skipped..];
        if rest[0] == b'"' {
            rest = &rest[string_length(rest)..];
            continue;
        }
        let in_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let (number, after) = rest.split_at(rest.iter().position(|byte| !in_number(byte)).unwrap_or(rest.len()));
        if let Ok(number) = std::str::from_utf8(number)
            && is_beyond(number)
        {
            exact.extend(&text[done..at(rest)]);
            exact.extend(format!("{{\"\\u0000\":\"{number}\"}}").as_bytes());
            done = at(after);
        }
        rest = after;
    }
    exact.extend(&text[done..]);
    (done > 0).then_some(exact)
}

/// The length of the text that begins here, its quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Whether a number of JSON (RFC 8259, section 6) is an integer beyond 64 bits, or so large or small that a double would
/// be infinite or zero.
fn is_beyond(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (mantissa, exponent) = digits.split_once(['e', 'E']).map_or((digits, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = are_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(are_digits)
        && exponent.is_none_or(|text| are_digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    if !is_number {
        return false;
    }
    if exponent.is_none() && fraction.is_none() {
        return number.parse::<i64>().is_err();
    }
    let is_zero = mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    number.parse::<f64>().is_ok_and(|value| value.is_infinite() || value == 0.0 && !is_zero)
}

#[derive(Clone, Copy)]
struct Tree<'a> {
    level: usize,
    told: &'a Told,
}

impl<'a> Tree<'a> {
    fn inner<E: serde::de::Error>(self) -> Result<Tree<'a>, E> {
        if self.level >= LEVELS {
            self.told.too_deep.set(true);
            return Err(E::custom("too deep"));
        }
        Ok(Tree { level: self.level + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let values = &self.told.values;
        values.set(values.get() + 1);
        if values.get() > VALUES {
            return Err(serde::de::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or_else(|_| self.told.beyond(value.to_string()), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        if value == 0.0 || value.abs() >= 9e18 {
            self.told.doubtful.set(true);
        }
        Ok(Json::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let seed = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let seed = self.inner()?;
        let mut members = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(seed)?;
            match value {
                Json::Text(number) if self.told.exact && key == NUMBER => return Ok(self.told.beyond(number)),
                value => members.push((key, value)),
            }
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Json {
        parse(text.as_bytes()).unwrap().0
    }

    #[test]
    fn a_line_of_too_many_values_is_refused_before_they_are_in_memory() {
        let line = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
        assert!(parse(line(VALUES).as_bytes()).is_ok());
        assert_eq!(parse(line(VALUES + 1).as_bytes()), Err(Rejection::TooManyValues));
    }

    /// A generator of no use but to be the same every time (xorshift64).
    fn random(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    #[test]
    fn doubles_are_those_of_rusts_own_parser() {
        let seed = std::env::var("HUB_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_129);
        println!("seed {seed} (HUB_TEST_SEED)");
        let mut next = random(seed);
        let same = |text: &str| {
            let expected: f64 = text.parse().unwrap();
            match parsed(text) {
                Json::Double(value) => assert_eq!(value.to_bits(), expected.to_bits(), "{text}"),
                Json::Int(value) => assert_eq!(value.to_string(), text, "{text}"),
                Json::Beyond(number) => assert_eq!(number, text),
                other => panic!("{text}: {other:?}"),
            }
        };
        for text in
            ["9.922444955766851", "99999999999999.99", "1e23", "5e-324", "2.2250738585072011e-308", "-0.0", "-0"]
        {
            same(text);
        }
        for _ in 0..20_000 {
            let value = f64::from_bits(next());
            if value.is_finite() {
                same(&format!("{value:?}"));
                same(&format!("{value:e}"));
            }
            let (digits, point, exponent) =
                (1 + next() % 10u64.pow(1 + (next() % 18) as u32), next() % 1_000_000, next() % 640);
            same(&format!("{digits}.{point:06}"));
            same(&format!("-{digits}e{}", exponent as i64 - 320));
            same(&format!("{digits}{point}{digits}"));
        }
    }

    #[test]
    fn numbers_that_64_bits_do_not_hold_are_kept_as_they_stand() {
        for number in [
            "18446744073709551615",
            "9223372036854775808",
            "-9223372036854775809",
            "12345678901234567890",
            "123456789012345678901234567890123456789012345",
            "1e400",
            "-1E+309",
            "1e-400",
            "0.1e-330",
        ] {
            assert_eq!(parsed(number), Json::Beyond(number.to_owned()));
            let nested = format!(r#"{{"a":[1,{{"b\"{number}":{number}}}],"c":"{number}\\"}}"#);
            let number = || Json::Beyond(number.to_owned());
            let inner = Json::Object(vec![(format!("b\"{}", nested_number(&number())), number())]);
            let (tree, beyond) = parse(nested.as_bytes()).unwrap();
            assert_eq!(beyond, 1);
            let Json::Object(members) = tree else { panic!("{nested}") };
            assert_eq!(members[0].1, Json::Array(vec![Json::Int(1), inner]), "{nested}");
        }
        for number in ["9223372036854775807", "-9223372036854775808", "0.0", "-0", "0e5", "1e308", "5e-324"] {
            assert!(!matches!(parsed(number), Json::Beyond(_)), "{number}");
        }
        for text in
            ["01", "1e", "--1", "1-2", "99999999999999999999x", "0123456789012345678901", "{\"\\u0000\":\"5\"}1e999"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    fn nested_number(number: &Json) -> &str {
        if let Json::Beyond(text) = number { text } else { "" }
    }
}
