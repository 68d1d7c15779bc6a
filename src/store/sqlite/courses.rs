//! What a row of `hub_hours` has: for each label a list of `[key, samples, min, max, sum]`, the key by its number in
//! `hub_keys`; `[key, samples, value]` where all were the same. The hub alone writes it; what it cannot be is left out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use rusqlite::{Connection, Error};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::kinds::Wanted;
use crate::store::hourly::Course;

/// Hands each course of a row to `take` whose key's number is wanted.
pub(super) fn each(data: &str, is_wanted: &dyn Fn(i64) -> bool, take: &mut dyn FnMut(&str, i64, Course)) {
    // What was read before an error is true all the same.
    let _ = serde_json::Deserializer::from_str(data).deserialize_map(Labels { is_wanted, take });
}

/// How those keys are found in rows that somebody wants to read.
pub(super) struct Places {
    /// Kind, number of the key, place.
    places: Vec<(&'static str, i64, usize)>,
}

impl Places {
    pub(super) fn of(connection: &Connection, wanted: &Wanted) -> Result<Self, Error> {
        let mut statement = connection.prepare("SELECT key, id FROM hub_keys")?;
        let ids: HashMap<String, i64> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let keys = wanted.keys().iter().enumerate();
        Ok(Self { places: keys.filter_map(|(place, (kind, key))| Some((*kind, *ids.get(*key)?, place))).collect() })
    }

    /// Hands what is wanted of a row to `take`: its place, what it belongs to, and its course.
    pub(super) fn each(&self, kind: &str, data: &str, take: &mut dyn FnMut(usize, &str, Course)) {
        let place = |id: i64| self.places.iter().find(|known| known.0 == kind && known.1 == id).map(|known| known.2);
        each(data, &|id| place(id).is_some(), &mut |label, id, course| {
            place(id).into_iter().for_each(|place| take(place, label, course));
        });
    }
}

struct Labels<'a> {
    is_wanted: &'a dyn Fn(i64) -> bool,
    take: &'a mut dyn FnMut(&str, i64, Course),
}

impl<'de> Visitor<'de> for Labels<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(label) = map.next_key::<Label<'de>>()? {
            map.next_value_seed(List { label: &label.0, is_wanted: self.is_wanted, take: &mut *self.take })?;
        }
        Ok(())
    }
}

/// A label, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Label<'a>(#[serde(borrow)] Cow<'a, str>);

/// The courses of a label.
struct List<'a> {
    label: &'a str,
    is_wanted: &'a dyn Fn(i64) -> bool,
    take: &'a mut dyn FnMut(&str, i64, Course),
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("courses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(found) = seq.next_element_seed(Entry(self.is_wanted))? {
            found.into_iter().for_each(|(id, course)| (self.take)(self.label, id, course));
        }
        Ok(())
    }
}

struct Entry<'a>(&'a dyn Fn(i64) -> bool);

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = Option<(i64, Course)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = Option<(i64, Course)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a course")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let short = || A::Error::custom("a course is short");
        let id = seq.next_element()?.ok_or_else(short)?;
        let found = if (self.0)(id) {
            let samples: i64 = seq.next_element()?.ok_or_else(short)?;
            let min: f64 = seq.next_element()?.ok_or_else(short)?;
            let max = seq.next_element()?.unwrap_or(min);
            let sum = seq.next_element()?.unwrap_or(min * samples as f64);
            Some((id, Course { samples, min, max, sum }))
        } else {
            None
        };
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}
