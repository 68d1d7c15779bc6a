//! What a listener has done since it started, for a metrics page.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one listener, shared between its threads and whoever shows them.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    own: AtomicU64,
    answered: [AtomicU64; 4],
    evicted: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    open: AtomicU64,
}

/// The values of [`Counters`] at one moment. All but `open` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections taken from the kernel, without those of `own`. One counts once its head is known, or never will be.
    pub accepted: u64,
    /// The hub's own questions to itself. They are in no other number.
    pub own: u64,
    /// Answers begun, by class of status: 2xx, 3xx, 4xx, 5xx. Refusals are not among them.
    pub answered: [u64; 4],
    /// Connections closed to make way for others.
    pub evicted: u64,
    /// Connections turned away with 503, or dropped for want of a thread.
    pub refused: u64,
    /// Heads, bodies and answers that did not end before their deadline.
    pub timed_out: u64,
    /// Connections that have a thread now.
    pub open: u64,
}

impl Counters {
    /// Reads all values. They are read one after the other, so they may be a request apart.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            accepted: self.accepted.load(Relaxed),
            own: self.own.load(Relaxed),
            answered: self.answered.each_ref().map(|class| class.load(Relaxed)),
            evicted: self.evicted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            open: self.open.load(Relaxed),
        }
    }

    pub(super) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_own(&self) {
        self.own.fetch_add(1, Relaxed);
    }

    /// `status` is 200 to 599.
    pub(super) fn count_answered(&self, status: u16) {
        if let Some(class) = self.answered.get(usize::from(status / 100).saturating_sub(2)) {
            class.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn count_evicted(&self) {
        self.evicted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn count_timed_out(&self) {
        self.timed_out.fetch_add(1, Relaxed);
    }

    /// Of a listener's connections; while its limits change some are held by the former ones.
    pub(super) fn count_open(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn count_closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}
