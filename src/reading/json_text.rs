//! JSON text as a tree that keeps what maps lose: the order of keys and keys that are there twice (RFC 8259).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Rejection;
use super::bson::DEPTH;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The wrappers of Extended JSON add up to two levels to a value, `$scope` three.
const LEVELS: usize = DEPTH + 4;
/// More values than the 16 MiB of a MongoDB document have room for; a tree of them takes about 200 MB.
pub(super) const VALUES: usize = 2_000_000;

/// Parses one JSON value; white space around it is allowed.
pub(super) fn parse(text: &[u8]) -> Result<Json, Rejection> {
    let (too_deep, values) = (Cell::new(false), Cell::new(0));
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // The tree's own limit takes the place of serde_json's, which is lower than Extended JSON asks for.
    deserializer.disable_recursion_limit();
    let tree = Tree { level: 0, too_deep: &too_deep, values: &values }.deserialize(&mut deserializer);
    match tree.and_then(|tree| deserializer.end().map(|()| tree)) {
        Ok(tree) => Ok(tree),
        Err(_) if too_deep.get() => Err(Rejection::TooDeep),
        Err(_) if values.get() > VALUES => Err(Rejection::TooManyValues),
        Err(error) => Err(Rejection::Json(error.to_string())),
    }
}

#[derive(Clone, Copy)]
struct Tree<'a> {
    level: usize,
    too_deep: &'a Cell<bool>,
    values: &'a Cell<usize>,
}

impl<'a> Tree<'a> {
    fn inner<E: serde::de::Error>(self) -> Result<Tree<'a>, E> {
        if self.level >= LEVELS {
            self.too_deep.set(true);
            return Err(E::custom("too deep"));
        }
        Ok(Tree { level: self.level + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > VALUES {
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
        Ok(i64::try_from(value).map_or(Json::Double(value as f64), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
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
        while let Some(key) = access.next_key()? {
            members.push((key, access.next_value_seed(seed)?));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_too_many_values_is_refused_before_they_are_in_memory() {
        let line = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
        assert!(parse(line(VALUES).as_bytes()).is_ok());
        assert_eq!(parse(line(VALUES + 1).as_bytes()), Err(Rejection::TooManyValues));
    }
}
