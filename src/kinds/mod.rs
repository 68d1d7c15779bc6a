//! What a row of a sample holds, one file and one TABLE a kind: the key of each value, the column of its view, its name for
//! Prometheus, its unit and what it is. `metrics` fills the rows, `store` makes the views, `proxy` shows the newest sample;
//! none of them knows of the others, and no key stands anywhere but here and where it is measured.

pub mod array;
pub mod btrfs;
pub mod cpu;
pub mod disk;
pub mod disk_io;
#[cfg(test)]
mod document;

mod exposition;
pub mod fan;
pub mod kernel;
pub mod load;
pub mod memory;
pub mod network;
pub mod power;
pub mod pressure;
pub mod run;
#[cfg(any(feature = "postgres", feature = "sqlite", test))]
mod series;
pub mod swap;
pub mod systemd;
pub mod temperature;
pub mod temperature_critical;
pub mod time;
pub mod unit;
mod wanted;

pub use exposition::exposition;
#[cfg(any(feature = "postgres", feature = "sqlite", test))]
pub use series::each_number;
pub use wanted::{Found, Wanted};

/// An hour, in milliseconds.
pub const HOUR: i64 = 60 * MINUTE;

/// A minute, in milliseconds.
pub const MINUTE: i64 = 60_000;

/// The hour of a time, in milliseconds since 1970.
pub fn hour_of(millis: i64) -> i64 {
    millis.div_euclid(HOUR) * HOUR
}

/// A kind of rows.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The `metric_type`.
    pub name: &'static str,
    /// What it is about, in a sentence.
    #[cfg_attr(not(test), expect(dead_code, reason = "for contrib/doc/metrics.md, which a test writes"))]
    pub help: &'static str,
    /// What it holds.
    pub parts: &'static [Part],
}

/// A part of a kind's rows, with a view of its own where it has one.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What of the row it is about.
    pub each: Each,
    /// The view, and the version of the views that it came with.
    pub view: Option<(&'static str, i64)>,
    /// Its values. Columns of a view are only ever added at the end.
    pub table: &'static [Measure],
}

/// What the values of a part belong to, and what becomes a row of its view.
#[derive(Clone, Copy, Debug)]
pub enum Each {
    /// The row itself.
    Row,
    /// Every object in the row, or in its object of this name where that is not empty; its key is named so.
    Object(&'static str, Name),
    /// Every number in the row's object of this name; its key is named so. The table is of one value without a key.
    Number(&'static str, Name),
    /// Every number in every object of the row; the keys are named so. The table is of one value without a key.
    Nested(Name, Name),
}

/// What a key in a row is called, as a column of a view and as a label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    #[cfg_attr(
        not(any(feature = "postgres", feature = "sqlite")),
        expect(dead_code, reason = "no engine makes views")
    )]
    pub column: &'static str,
    pub label: &'static str,
}

/// Every kind, in the order in which rows are stored and shown.
pub const ALL: &[Kind] = &[
    cpu::KIND,
    memory::KIND,
    disk::KIND,
    network::KIND,
    load::KIND,
    swap::KIND,
    pressure::KIND,
    disk_io::KIND,
    temperature::KIND,
    temperature_critical::KIND,
    fan::KIND,
    power::KIND,
    array::KIND,
    btrfs::KIND,
    kernel::KIND,
    time::KIND,
    systemd::KIND,
    unit::KIND,
    run::KIND,
];

/// A value of a part.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its key; dotted where it lies in objects, with `{name}` for keys of any name.
    pub key: &'static str,
    /// Its column in the view; empty where it has none.
    pub column: &'static str,
    /// True for a text, false for a number.
    pub is_text: bool,
    /// Its name for Prometheus (prometheus.io/docs/practices/naming), and what to multiply with for the base unit. A text is a
    /// label of the metric of this name, which is always 1. Names follow node_exporter's where they mean the same.
    pub metric: Option<(&'static str, f64)>,
    /// The unit in the row; empty for a number of things, and for a text.
    #[cfg_attr(not(test), expect(dead_code, reason = "for contrib/doc/metrics.md, which a test writes"))]
    pub unit: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
}

/// The unit of what is true or false: 1 or 0 in views and metrics.
const FLAG: &str = "flag";

impl Measure {
    /// The same under another name in the view.
    const fn column(self, column: &'static str) -> Self {
        Self { column, ..self }
    }

    /// The same without a column.
    const fn unseen(self) -> Self {
        self.column("")
    }

    /// The same as a metric. Of a text a label of it.
    const fn metric(self, name: &'static str) -> Self {
        self.scaled(name, 1.0)
    }

    /// The same as a metric in another unit.
    const fn scaled(self, name: &'static str, scale: f64) -> Self {
        Self { metric: Some((name, scale)), ..self }
    }
}

/// A number, in its unit.
const fn number(key: &'static str, unit: &'static str, help: &'static str) -> Measure {
    Measure { key, column: key, is_text: false, metric: None, unit, help }
}

const fn text(key: &'static str, help: &'static str) -> Measure {
    Measure { key, column: key, is_text: true, metric: None, unit: "", help }
}

const fn name(column: &'static str, label: &'static str) -> Name {
    Name { column, label }
}
