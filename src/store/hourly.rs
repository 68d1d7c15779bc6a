//! The course of every number, hour by hour: what `metrics_hourly` holds. It is kept in the transaction that stores a row, and
//! counts only rows that are new, so that a row that is sent twice counts once and a late one in its own hour.
//!
//! Rows of earlier versions are counted later, an hour of a host at a time, from the newest to the oldest. Until then a
//! host has an entry in `hub_unfilled` with the hour `before` which nothing is counted yet: a late row of such an hour is not
//! counted when it comes, but with its hour.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kinds::{self, hour_of};
use crate::text;

/// The table or view of hours.
pub(super) const HOURLY: &str = "metrics_hourly";
/// The table that says which hours are still to be counted; empty where none are.
pub(super) const UNFILLED: &str = "hub_unfilled";
/// For how long one run counts rows of earlier versions.
pub(super) const FILL_TIME: Duration = Duration::from_millis(300);

/// Bytes of a label: with the rest of the key an index takes no more than 2,704 (PostgreSQL manual, "11.2.1. B-Tree").
const LONGEST_LABEL: usize = 1000;

/// What is known of a number in an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Course {
    pub samples: i64,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
}

impl Course {
    pub(super) fn of(value: f64) -> Self {
        Self { samples: 1, min: value, max: value, sum: value }
    }

    /// The arithmetic mean; where all were the same, that.
    pub(super) fn mean(&self) -> f64 {
        if self.min == self.max { self.min } else { self.sum / self.samples as f64 }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum = rounded(self.sum + other.sum);
    }
}

/// Values have a few decimals, and their sum no more: what is beyond is what adding binary fractions makes of them. A sum
/// that really has more stays as it is.
fn rounded(sum: f64) -> f64 {
    let short = (sum * 1e6).round() / 1e6;
    if (short - sum).abs() <= sum.abs() * 1e-14 { short } else { sum }
}

/// The courses of one kind of a host in an hour, by label and key.
pub(super) type Courses = BTreeMap<(String, String), Course>;
/// By host, kind and hour.
pub(super) type Hours = BTreeMap<(String, String, i64), Courses>;

/// Counts a row. What is no JSON has no numbers.
pub(super) fn count(hours: &mut Hours, host: &str, kind: &str, millis: i64, payload: &str) {
    let Ok(row) = serde_json::from_str(payload) else { return };
    let mut courses = Courses::new();
    kinds::each_number(kind, &row, &mut |label, key, value| {
        courses.insert((text::cut(label, LONGEST_LABEL).replace('\0', "\u{fffd}"), key.to_owned()), Course::of(value));
    });
    if !courses.is_empty() {
        merge(hours.entry((host.to_owned(), kind.to_owned(), hour_of(millis))).or_default(), courses);
    }
}

/// Adds courses to others.
pub(super) fn merge(courses: &mut Courses, more: Courses) {
    for (name, course) in more {
        courses.entry(name).and_modify(|known| known.add(course)).or_insert(course);
    }
}
