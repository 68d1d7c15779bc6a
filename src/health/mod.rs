//! How well this host is, judged in one place: from what the services left, what systemd says and what the proxy answers to
//! reasons. The page, `/api/status`, `/metrics`, `hub status` and what doctor says of the past only render them.
//! Nothing in here looks at a disk, a process or a clock: whoever asks puts what was seen into `Seen`, and what it cannot
//! see is left out there, which is never taken for good.

mod door;
mod host;
mod judge;
mod pipelines;
mod queue;
mod reason;
mod repositories;
mod seen;
mod services;

pub use door::{Funnel, funnel};
pub use judge::judge;
pub use reason::{Cause, Level, Reason};
pub use seen::{Answer, Seen, Wait, Ways};
pub use services::{Service, services};

#[cfg(test)]
mod tests;
