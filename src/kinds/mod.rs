//! What a row of a sample holds, one file and one TABLE a kind: the key of each value, the column of its view, its name for
//! Prometheus, its unit and what it is. `metrics` fills the rows, `store` makes the views; neither knows of the other.
//! The kinds of the first version are still in `names` and `store::view_list`.

mod array;
mod btrfs;
mod exposition;
mod names;
mod unit;

pub use array::KIND as ARRAY;
pub use btrfs::KIND as BTRFS;
pub use exposition::exposition;
pub use unit::KIND as UNIT;

/// A kind of rows that hold an object for each of something.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The `metric_type`.
    pub name: &'static str,
    /// What the keys of the objects name: a column of the view, and a label.
    pub each: &'static str,
    /// The view, and the version of the views that it came with.
    pub view: (&'static str, i64),
    /// What each object holds.
    pub table: &'static [Measure],
}

/// Every kind, in the order in which they are shown.
pub const ALL: [Kind; 3] = [array::KIND, btrfs::KIND, unit::KIND];

/// A value of each object in a row, which is named by the object's key.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its key, and its column in the view.
    pub key: &'static str,
    /// What it is for Prometheus.
    pub export: Export,
    /// What it is, in a sentence.
    pub help: &'static str,
}

/// How a value is told to Prometheus (prometheus.io/docs/practices/naming).
#[derive(Clone, Copy, Debug)]
pub enum Export {
    /// A number under this name, and what to multiply with for the base unit.
    Number(&'static str, f64),
    /// A text: a label of the metric of this name, which is always 1.
    Label(&'static str),
}

const fn number(key: &'static str, name: &'static str, scale: f64, help: &'static str) -> Measure {
    Measure { key, export: Export::Number(name, scale), help }
}

const fn label(key: &'static str, name: &'static str, help: &'static str) -> Measure {
    Measure { key, export: Export::Label(name), help }
}
