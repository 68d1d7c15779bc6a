//! What became of deliveries: counted, and logged at a rate that strangers cannot use to fill the disk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::log;

/// Refusals that are logged in a second; the others are counted.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Deliveries since the proxy started, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Answered with 202.
    pub queued: u64,
    /// Signed, and nothing to do.
    pub ignored: u64,
    /// Signed pings.
    pub pong: u64,
    /// Answered with an error by the webhook's route.
    pub refused: u64,
}

#[derive(Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// Counters and log of deliveries.
#[derive(Default)]
pub(super) struct Deliveries {
    queued: AtomicU64,
    ignored: AtomicU64,
    pong: AtomicU64,
    refused: AtomicU64,
    window: Mutex<Window>,
}

impl Deliveries {
    pub fn counts(&self) -> Counts {
        Counts {
            queued: self.queued.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
            pong: self.pong.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    pub fn queued(&self, repository: &str, delivery: &str, event: &str) {
        self.queued.fetch_add(1, Relaxed);
        log::info!("delivery_queued", repo = repository, delivery = delivery, event = event);
    }

    pub fn ignored(&self, delivery: &str, event: &str, reason: &str) {
        self.ignored.fetch_add(1, Relaxed);
        log::info!("delivery_ignored", delivery = delivery, event = event, reason = reason);
    }

    pub fn pong(&self, delivery: &str) {
        self.pong.fetch_add(1, Relaxed);
        log::info!("ping_answered", delivery = delivery);
    }

    pub fn refused(&self, status: u16, reason: &str) {
        self.refused.fetch_add(1, Relaxed);
        let mut window = self.window();
        if window.since.is_none_or(|since| since.elapsed() >= WINDOW) {
            *window = Window { since: Some(Instant::now()), lines: 0, suppressed: window.suppressed };
        }
        if window.lines == LINES {
            window.suppressed += 1;
            return;
        }
        window.lines += 1;
        drop(window);
        log::warn!("delivery_refused", status = status, reason = reason);
    }

    /// Logs how many refusals were not logged, once their second is over. Called from the accept loop.
    pub fn flush(&self) {
        let mut window = self.window();
        if window.suppressed == 0 || window.since.is_some_and(|since| since.elapsed() < WINDOW) {
            return;
        }
        let suppressed = std::mem::take(&mut window.suppressed);
        drop(window);
        log::warn!("delivery_refusals_suppressed", count = suppressed);
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // Three plain values: whatever a panicking thread left is good enough for a log.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
