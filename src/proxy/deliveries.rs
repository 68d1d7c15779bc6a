//! What became of deliveries: counted, and logged at a rate that strangers cannot use to fill the disk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::log;

/// Refusals that are logged in a second, and as many signed deliveries; the others are counted. Apart, so that strangers
/// hide nothing of the forge's.
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

impl Counts {
    /// True where one was signed as it should be.
    pub fn any_signed(&self) -> bool {
        self.queued + self.ignored + self.pong > 0
    }
}

#[derive(Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Window {
    /// True where a line may be logged now; else it is counted.
    fn takes(window: &Mutex<Self>) -> bool {
        let mut window = lock(window);
        if window.since.is_none_or(|since| since.elapsed() >= WINDOW) {
            *window = Self { since: Some(Instant::now()), lines: 0, suppressed: window.suppressed };
        }
        let takes = window.lines < LINES;
        if takes {
            window.lines += 1
        } else {
            window.suppressed += 1
        }
        takes
    }

    /// How many lines were not logged, once their second is over, or at the end of the process.
    fn suppressed(window: &Mutex<Self>, is_end: bool) -> Option<u64> {
        let mut window = lock(window);
        let is_over = is_end || window.since.is_none_or(|since| since.elapsed() >= WINDOW);
        Some(window.suppressed).filter(|count| is_over && *count > 0).inspect(|_| window.suppressed = 0)
    }
}

fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    // Three plain values: whatever a panicking thread left is good enough for a log.
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters and log of deliveries.
#[derive(Default)]
pub(super) struct Deliveries {
    queued: AtomicU64,
    ignored: AtomicU64,
    pong: AtomicU64,
    refused: AtomicU64,
    refusals: Mutex<Window>,
    signed: Mutex<Window>,
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
        if !Window::takes(&self.signed) {
            return;
        }
        log::info!("delivery_queued", repo = repository, delivery = delivery, event = event);
    }

    pub fn ignored(&self, delivery: &str, event: &str, reason: &str) {
        self.ignored.fetch_add(1, Relaxed);
        if !Window::takes(&self.signed) {
            return;
        }
        log::info!("delivery_ignored", delivery = delivery, event = event, reason = reason);
    }

    pub fn pong(&self, delivery: &str) {
        self.pong.fetch_add(1, Relaxed);
        if !Window::takes(&self.signed) {
            return;
        }
        log::info!("ping_answered", delivery = delivery);
    }

    pub fn refused(&self, status: u16, reason: &str) {
        self.refused.fetch_add(1, Relaxed);
        if !Window::takes(&self.refusals) {
            return;
        }
        log::warn!("delivery_refused", status = status, reason = reason);
    }

    /// Logs how many lines were not logged, once their second is over. Called from the accept loop.
    pub fn flush(&self) {
        self.tell(false);
    }

    /// Logs what is not told yet, before the process ends.
    pub fn end(&self) {
        self.tell(true);
    }

    fn tell(&self, is_end: bool) {
        if let Some(count) = Window::suppressed(&self.refusals, is_end) {
            log::warn!("delivery_refusals_suppressed", count = count);
        }
        if let Some(count) = Window::suppressed(&self.signed, is_end) {
            log::warn!(
                "signed_deliveries_suppressed",
                count = count,
                note = "the forge sends many; they were answered"
            );
        }
    }
}
