use serde_json::{Map, Value};

use super::baseline::{Past, increase};
use super::counters::{Barred, Counters, StuckMounts};

/// The content of one row.
pub(super) type Payload = Map<String, Value>;

/// What one collector has to say.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Rows, by their `metric_type`.
    pub rows: Vec<(&'static str, Payload)>,
    /// What the next run's rates are measured from.
    pub counters: Counters,
    /// What is missing from the rows and why, for the log and the `run` row.
    pub notes: Vec<String>,
    /// The same of what will stay so for long: told once a boot.
    pub lasting: Vec<String>,
    /// What belongs to the row of another collector, where that has one.
    pub additions: Vec<(&'static str, Payload)>,
    /// The file systems that did not answer; none of a collector that asks none.
    pub stuck: Option<StuckMounts>,
    /// The file systems that this user cannot reach, by mount point, with the folder that bars the way.
    pub barred: Barred,
}

impl Report {
    /// A report of one row.
    pub fn row(kind: &'static str, payload: Payload) -> Self {
        Self { rows: vec![(kind, payload)], ..Self::default() }
    }
}

/// A number with at most `places` decimals; null where it is none, because JSON has neither NaN nor infinity and a
/// database refuses the whole statement.
pub(super) fn decimal(value: f64, places: i32) -> Value {
    let scale = 10f64.powi(places);
    let rounded = (value * scale).round() / scale;
    serde_json::Number::from_f64(if rounded.is_finite() { rounded } else { value }).map_or(Value::Null, Value::Number)
}

/// A share of a whole in percent with two decimals, from 0 to 100; null where the whole is 0.
pub(super) fn percent(part: f64, whole: f64) -> Value {
    if whole > 0.0 { decimal((part / whole * 100.0).clamp(0.0, 100.0), 2) } else { Value::Null }
}

/// What a payload gets its keys by.
pub(super) trait Put {
    /// Sets a key.
    fn put(&mut self, key: &str, value: impl Into<Value>);
    /// Sets a key where there is a value: what is not known has no key.
    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }
}

impl Put for Payload {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.insert(key.to_owned(), value.into());
    }
}

/// Adds counters and their rates to a row, and the counters to the next baseline. `<key>_per_second` has no key where
/// there is no run before or the counter went back.
pub(super) fn put_counters<'a>(
    row: &mut Payload,
    counters: &mut Counters,
    past: Option<&Past>,
    values: impl IntoIterator<Item = (&'a str, &'a str, u64)>,
) {
    for (key, name, value) in values {
        row.put(key, value);
        counters.kernel.insert(name.to_owned(), value);
        let before = past.and_then(|past| Some((past.counters.kernel.get(name)?, past.interval)));
        let rate = before.and_then(|(before, interval)| Some(increase(*before, value)? as f64 / interval));
        row.put_some(&format!("{key}_per_second"), rate.map(|rate| decimal(rate, 2)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_becomes_null() {
        assert_eq!(decimal(1.005_000_1, 2), 1.01);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(decimal(value, 2), Value::Null);
        }
        assert_eq!(percent(1.0, 0.0), Value::Null);
        assert_eq!(percent(5.0, 4.0), 100.0);
    }
}
