//! Charts of a host over a time: which there are, and the points of their lines, made of stored samples.
//! No database is read here, no clock, and nothing is drawn: `store` gives the samples, whoever shows a chart draws it.

mod points;
mod table;

pub use points::{Line, Lines, Point, Window};
pub use table::{Chart, Unit, kinds};
