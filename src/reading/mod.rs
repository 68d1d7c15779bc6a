//! The reading pipeline: documents of MongoDB, or of files, become rows, every one exactly once or a dead letter.
//! A run is a process of its own that the proxy starts; `reading-sync` asks the proxy for it and shows how it goes.
//! No HTTP answer is made here, no statement is written here: the proxy and the store do that.

mod bson;
mod columns;
#[cfg(test)]
mod corpus;
pub mod dead_letters;
mod decimal;
mod error;
mod extended;
mod json;
mod json_text;
mod key;
mod load;
mod run;
mod shown;
mod source;
mod sync;
mod time;
mod transform;
mod tries;
mod wording;

use error::Rejection;
use transform::Oddities;

pub(crate) use error::Error;
pub use run::{RUN, record_death, run_main};
pub use source::{check_source, inboxes, is_input};
pub use sync::{described, main};

/// The name in logs, records and results.
const SERVICE: &str = "reading-sync";
