//! Charts of a host over a time: which there are, and the points of their lines, made of what `store` has.
//! No clock is read here and nothing is drawn: whoever shows a chart draws it.

mod points;
mod read;
mod table;

pub use points::{Line, Lines, Point, Window};
pub use read::read;
pub use table::{Chart, Unit};
