//! The numbers of a row that somebody wants, found in its JSON text without taking the rest apart.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{ALL, Each};

/// Some of the numbers that `each_number` finds: kind and key. A number is told by its place here.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    keys: Vec<(&'static str, &'static str)>,
    /// The way to each in its row.
    ways: Vec<Vec<Step>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Name(&'static str),
    /// A key of any name, which is the label or a part of it.
    Label,
}

/// What is stored of a number that is wanted: a sample, or its course in an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<'a> {
    /// When it was measured, or the hour begins, in milliseconds since 1970.
    pub time: i64,
    /// Its place among those that are wanted.
    pub place: usize,
    /// What it belongs to.
    pub label: &'a str,
    /// The lowest value.
    pub min: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The highest value.
    pub max: f64,
    /// How many there are.
    pub samples: u64,
}

impl<'a> Found<'a> {
    /// A sample.
    pub fn sample(time: i64, place: usize, label: &'a str, value: f64) -> Self {
        Self { time, place, label, min: value, mean: value, max: value, samples: 1 }
    }
}

/// Ways that a row is compared with at once; no kind has as many.
const MOST: usize = 64;

impl Wanted {
    /// Of kinds and keys.
    pub fn new(keys: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        let keys: Vec<_> = keys.into_iter().collect();
        let ways = keys.iter().map(|(kind, key)| way(kind, key)).collect();
        Self { keys, ways }
    }

    /// Kind and key of each.
    pub fn keys(&self) -> &[(&'static str, &'static str)] {
        &self.keys
    }

    /// The kinds, each once.
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.keys.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The place of a number; none where nobody wants it.
    pub fn place(&self, kind: &str, key: &str) -> Option<usize> {
        self.keys.iter().position(|known| *known == (kind, key))
    }

    /// Calls `each` with place, label and value of what is wanted of a row. What is no JSON has nothing.
    pub fn find(&self, kind: &str, payload: &str, each: &mut dyn FnMut(usize, &str, f64)) {
        let places = (0..self.keys.len()).filter(|place| self.keys[*place].0 == kind).take(MOST);
        let ways: Vec<(usize, &[Step])> = places.map(|place| (place, self.ways[place].as_slice())).collect();
        let live = if ways.len() == MOST { u64::MAX } else { (1 << ways.len()) - 1 };
        let mut label = String::new();
        let walk = Walk { ways: &ways, live, depth: 0, label: &mut label, each };
        // What was found before an error is true all the same.
        let _ = walk.deserialize(&mut serde_json::Deserializer::from_str(payload));
    }
}

/// The way to a key, as `each_number` goes it.
fn way(kind: &str, key: &'static str) -> Vec<Step> {
    let names = |key: &'static str| key.split('.').map(Step::Name);
    let parts = ALL.iter().filter(|known| known.name == kind).flat_map(|kind| kind.parts);
    for part in parts {
        let has = |key: &str| part.table.iter().any(|measure| measure.key == key);
        match part.each {
            Each::Row if has(key) => return names(key).collect(),
            Each::Object("", _) if has(key) => return [Step::Label].into_iter().chain(names(key)).collect(),
            Each::Object(within, _) => {
                let inner = key.strip_prefix(within).and_then(|rest| rest.strip_prefix('.'));
                if let Some(inner) = inner.filter(|inner| has(inner)) {
                    return [Step::Name(within), Step::Label].into_iter().chain(names(inner)).collect();
                }
            }
            Each::Number(within, _) if within == key => return vec![Step::Name(within), Step::Label],
            Each::Nested(..) if part.table.first().is_some_and(|measure| measure.column == key) => {
                return vec![Step::Label, Step::Label];
            }
            _ => {}
        }
    }
    // Nobody's number; no row has it.
    Vec::new()
}

/// A place in a row, and the ways that lead there.
struct Walk<'a> {
    ways: &'a [(usize, &'a [Step])],
    /// A bit for each of them.
    live: u64,
    depth: usize,
    label: &'a mut String,
    each: &'a mut dyn FnMut(usize, &str, f64),
}

impl Walk<'_> {
    /// The ways that go on with this key, and whether it is a label.
    fn after(&self, key: &str) -> (u64, bool) {
        let (mut live, mut is_label) = (0, false);
        for (bit, (_, way)) in self.ways.iter().enumerate().filter(|(bit, _)| self.live >> bit & 1 == 1) {
            match way.get(self.depth) {
                Some(Step::Label) => (live, is_label) = (live | 1 << bit, true),
                Some(Step::Name(name)) if *name == key => live |= 1 << bit,
                _ => {}
            }
        }
        (live, is_label)
    }

    fn number(self, value: f64) {
        for (bit, (place, way)) in self.ways.iter().enumerate() {
            if self.live >> bit & 1 == 1 && way.len() == self.depth && self.depth > 0 {
                (self.each)(*place, self.label, value);
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let (live, is_label) = self.after(&key.0);
            if live == 0 {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let before = self.label.len();
            if is_label {
                let space = if before == 0 { "" } else { " " };
                self.label.push_str(space);
                self.label.push_str(&key.0);
            }
            let depth = self.depth + 1;
            map.next_value_seed(Walk { ways: self.ways, live, depth, label: self.label, each: self.each })?;
            self.label.truncate(before);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.number(value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(value as f64);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(value as f64);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.number(if value { 1.0 } else { 0.0 });
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::each_number;

    fn all() -> Wanted {
        Wanted::new([
            ("cpu", "usage"),
            ("cpu", "modes.user"),
            ("cpu", "core_temps"),
            ("cpu", "cpus.usage"),
            ("cpu", "package_temp"),
            ("disk", "used"),
            ("disk", "read_only"),
            ("temperature", "celsius"),
            ("pressure", "some.avg60"),
            ("nobody's", "usage"),
        ])
    }

    #[test]
    fn what_is_wanted_is_found_as_in_the_whole_row() {
        let rows = [
            (
                "cpu",
                r#"{"usage": 12.5, "modes": {"user": 1, "usage": 4}, "core_temps": {"core_0": 40, "x": "hot"},
                "cpus": {"0": {"usage": 3, "seconds": {"user": 9}}, "1": 5}, "package_temp": null, "more": [1, {"usage": 2}]}"#,
            ),
            (
                "disk",
                r#"{"/": {"used": 7, "used_percent": 5.5, "read_only": true}, "/a \"b\"\u00e9": {"used": -1e3}, "used": 3}"#,
            ),
            ("temperature", r#"{"nvme": {"Composite": 41, "Sensor 1": 50.5}, "odd": 3}"#),
            (
                "pressure",
                r#"{"cpu": {"some": {"avg10": 1, "avg60": 2.5}, "full": null}, "io": {"some": {"avg60": "x"}}}"#,
            ),
            ("nobody's", r#"{"usage": 1}"#),
            ("cpu", "[1, 2]"),
            ("cpu", "3"),
        ];
        let wanted = all();
        let mut count = 0;
        for (kind, row) in rows {
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            wanted.find(kind, row, &mut |place, label, value| found.push((place, label.to_owned(), value.to_bits())));
            each_number(kind, &serde_json::from_str(row).unwrap(), &mut |label, key, value| {
                expected.extend(wanted.place(kind, key).map(|place| (place, label.to_owned(), value.to_bits())));
            });
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{row}");
            count += found.len();
        }
        assert_eq!(count, 10);
        wanted.find("cpu", "{\"usage\": 5, \"modes\": {", &mut |_, _, value| assert_eq!(value, 5.0));
    }
}
