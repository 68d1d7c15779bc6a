//! How the host speaks: what is open and since when, the notices about it, and the heartbeat.
//! What is wrong is judged elsewhere; nothing here looks at the host, and nothing goes out but a notice, a heartbeat, and the
//! result of a deployment to the forge that its commit is from.

mod book;
mod causes;
mod heartbeat;
mod journal;
mod last;
mod limits;
mod notice;
mod outbox;
mod past;
mod results;
mod run;
mod unseen;
mod ways;

pub use book::{Book, Change, News};
pub use causes::Causes;
pub use heartbeat::Heartbeat;
pub use journal::look_into_logs;
pub use last::{last_valid, remember};
pub use limits::Thresholds;
pub use notice::Notice;
pub use outbox::{Outbox, Sent};
pub use run::{Error, SERVICE, run};
pub use unseen::Unseen;
pub use ways::{Unsent, Way, of as ways};

use crate::config::Config;

/// Whether this host has anybody to speak to. Where a credential cannot be read it may have.
pub fn is_wanted(config: &Config) -> bool {
    let speaks = ways(config).map_or(true, |ways| !ways.is_empty());
    speaks || results::wanted(config).next().is_some() || Heartbeat::url(config).map_or(true, |url| url.is_some())
}
