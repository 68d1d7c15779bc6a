//! The right to change the host, as a deployment has it: it is passed on while a command of the repository's owner takes long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Error;
use super::locks::{Held, Locks};
use super::wake::Wake;
use crate::command::scoped_thread;
use crate::log;

/// How long other repositories wait in all, while one is deployed, for what is its own affair.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long they wait for each step of it when that is over: passing the turn on has the host looked at once more.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// A look's place among those that are at work.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// False while it waits, for its remote or for a command of its owner's; when that is slow, others take its place.
    pub is_busy: &'a AtomicBool,
    pub wake: &'a Wake,
}

impl Place<'_> {
    pub fn set_busy(self, is_busy: bool) {
        self.is_busy.store(is_busy, Ordering::Relaxed);
        if !is_busy {
            self.wake.ring();
        }
    }
}

/// The right to change the host, from here to the end of a deployment but for the times in which it is passed on.
pub(super) struct Turn<'a> {
    locks: &'a Locks,
    place: Place<'a>,
    repository: &'a str,
    held: Mutex<Option<Held>>,
    /// What is left of the others' patience.
    patience: Mutex<Duration>,
    /// Whether it may be passed on: another run of the repository must not be able to come between.
    passes: bool,
}

impl<'a> Turn<'a> {
    /// Waits for the right.
    pub fn wait(locks: &'a Locks, place: Place<'a>, repository: &'a str) -> Result<Self, Error> {
        Ok(Self::of(locks, place, repository, locks.apply()?, true))
    }

    /// The same for a right that is held already.
    pub fn of(locks: &'a Locks, place: Place<'a>, repository: &'a str, held: Held, passes: bool) -> Self {
        Self { locks, place, repository, held: Mutex::new(Some(held)), patience: Mutex::new(PATIENCE), passes }
    }

    /// Does what touches nothing but the repository's own checkout, and is its owner's to prolong. Where it takes long, others
    /// change the host meanwhile, and what was learnt of it is old: then what `look` saw just before comes with the result.
    ///
    /// # Errors
    /// When the right cannot be had again.
    pub fn aside<T, L: Send>(
        &self,
        work: impl FnOnce() -> T,
        look: impl FnOnce() -> L + Send,
    ) -> Result<(T, Option<L>), Error> {
        if !self.passes {
            return Ok((work(), None));
        }
        let (done, waited) = mpsc::channel::<()>();
        let (patience, began) = (*self.patience(), Instant::now());
        let (result, seen) = std::thread::scope(|scope| {
            let passing = scoped_thread(scope, move || {
                let is_long = waited.recv_timeout(patience.max(LAST_PATIENCE)) == Err(RecvTimeoutError::Timeout);
                is_long.then(|| {
                    let seen = look();
                    self.pass();
                    seen
                })
            });
            let result = work();
            drop(done);
            // Where there was no thread to be had, the others have waited.
            (result, passing.ok().and_then(|passing| passing.join().ok().flatten().flatten()))
        });
        *self.patience() = patience.saturating_sub(began.elapsed());
        self.take_again()?;
        Ok((result, seen))
    }

    /// Waits for the right where it was passed on.
    pub fn take_again(&self) -> Result<(), Error> {
        if self.held().is_none() {
            let held = self.locks.apply()?;
            *self.held() = Some(held);
            self.place.set_busy(true);
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patience(&self) -> MutexGuard<'_, Duration> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) {
        log::info!("turn_passed_on", repo = self.repository);
        *self.held() = None;
        self.place.set_busy(false);
    }
}
