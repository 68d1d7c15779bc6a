//! Who may stay: the cap on connections, the budget of body bytes, and the eviction of the oldest incomplete
//! request when either is used up. A complete request is never evicted, so the newcomer that arrives whole is
//! served however many slow ones are held.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::counters::Counters;

/// How many connections are wanted.
#[derive(Clone, Copy)]
struct Caps {
    held: usize,
    /// With those evicted and on their way out. Without this bound a flood makes threads faster than the
    /// evicted ones can end.
    all: usize,
}

impl Caps {
    fn new(held: usize) -> Self {
        Caps { held, all: held + (held / 4).max(4) }
    }
}

/// What every connection gets before it has to make way for another: an honest client's request is rarely
/// there in full when it is accepted. A flood waits in the kernel's queue meanwhile.
const GRACE: Duration = Duration::from_millis(50);

/// How long fewer connections are held after the process ran out of descriptors or threads.
const SQUEEZE: Duration = Duration::from_secs(30);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its thread has not run yet: not evicted, since its request may be here already.
    Starting,
    /// Not a byte has come.
    Silent,
    /// Head or body is coming.
    Reading,
    /// The request is complete, or refused, and its answer is made or written: not evicted.
    Answering,
    /// The answer is written; what the client still sends is thrown away.
    Draining,
}

#[derive(Debug)]
struct Slot {
    stream: Arc<TcpStream>,
    since: Instant,
    phase: Phase,
    body: usize,
    evicted: bool,
}

impl Slot {
    fn evictable(&self) -> bool {
        !self.evicted && !matches!(self.phase, Phase::Starting | Phase::Answering)
    }

    fn has_had_its_chance(&self) -> bool {
        self.phase == Phase::Draining || self.since.elapsed() >= GRACE
    }

    fn shut(&mut self) {
        self.evicted = true;
        // An error means that the connection is gone already, which is what was wanted.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[derive(Default)]
struct Table {
    /// By number in order of arrival, so the first is the oldest.
    slots: BTreeMap<u64, Slot>,
    next: u64,
    body: usize,
    squeezed: Option<(Caps, Instant)>,
    closing: bool,
}

impl Table {
    fn held(&self) -> usize {
        self.slots.values().filter(|slot| !slot.evicted).count()
    }

    fn oldest(&self, also: impl Fn(&Slot) -> bool) -> Option<u64> {
        let mut slots = self.slots.iter();
        slots.find(|(_, slot)| slot.evictable() && also(slot)).map(|(id, _)| *id)
    }
}

/// Whether a listener should accept now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    /// In a moment: threads are about to start or to end.
    Soon,
}

/// Why a body may not grow.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The connection was evicted meanwhile.
    Evicted,
    /// The budget is used up, and the one asking is the oldest.
    Full,
    /// No room came free before the deadline.
    Late,
}

/// The connections of one listener.
pub(super) struct Slots {
    table: Mutex<Table>,
    changed: Condvar,
    caps: Caps,
    budget: usize,
    counters: Arc<Counters>,
}

impl Slots {
    pub fn new(cap: usize, budget: usize, counters: Arc<Counters>) -> Self {
        Slots { table: Mutex::default(), changed: Condvar::new(), caps: Caps::new(cap), budget, counters }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caps(&self, table: &Table) -> Caps {
        match table.squeezed {
            Some((caps, until)) if Instant::now() < until => caps,
            _ => self.caps,
        }
    }

    fn evict(&self, table: &mut Table, id: u64) {
        if let Some(slot) = table.slots.get_mut(&id) {
            slot.shut();
            self.counters.count_evicted();
            self.changed.notify_all();
        }
    }

    /// Evicts down to the cap, which a squeeze has lowered.
    fn trim(&self, table: &mut Table) {
        for _ in self.caps(table).held..table.held() {
            let Some(oldest) = table.oldest(|_| true) else { break };
            self.evict(table, oldest);
        }
    }

    /// Connections that have a thread, evicted ones included.
    pub fn open(&self) -> usize {
        self.table().slots.len()
    }

    /// Whether to accept.
    pub fn room(&self) -> Room {
        let mut table = self.table();
        // Those that were starting when the squeeze came could not be evicted then.
        self.trim(&mut table);
        let caps = self.caps(&table);
        let full = table.held() >= caps.held && table.oldest(Slot::has_had_its_chance).is_none();
        // When all are being answered, the newcomer is better told than left waiting.
        let blocked = full && table.slots.values().any(|slot| slot.phase != Phase::Answering);
        if blocked || table.slots.len() >= caps.all { Room::Soon } else { Room::Now }
    }

    /// Takes a connection in, evicting another at the cap. `None`: every one held is being answered.
    pub fn enter(self: &Arc<Self>, stream: &Arc<TcpStream>) -> Option<Lease> {
        let mut table = self.table();
        if table.held() >= self.caps(&table).held {
            let oldest = table.oldest(Slot::has_had_its_chance).or_else(|| table.oldest(|_| true))?;
            self.evict(&mut table, oldest);
        }
        let id = table.next;
        table.next += 1;
        let slot =
            Slot { stream: Arc::clone(stream), since: Instant::now(), phase: Phase::Starting, body: 0, evicted: false };
        table.slots.insert(id, slot);
        self.counters.set_open(table.slots.len());
        Some(Lease { slots: Arc::clone(self), id })
    }

    /// Gives an eighth of the connections back, and has no more than the rest for a while.
    /// For when the process is out of descriptors or threads, which the handlers need as well.
    pub fn squeeze(&self) {
        let mut table = self.table();
        let open = table.slots.len();
        let all = open.saturating_sub((open / 8).max(4)).max(2);
        let caps = Caps { held: all - (all / 8).max(1), all };
        table.squeezed = Some((caps, Instant::now() + SQUEEZE));
        self.trim(&mut table);
    }

    /// Waits until all requests are answered, but not beyond `deadline`; then shuts the rest.
    /// Returns how many that were.
    pub fn finish(&self, deadline: Instant) -> usize {
        let mut table = self.table();
        table.closing = true;
        while !table.slots.is_empty() {
            for slot in table.slots.values_mut() {
                if matches!(slot.phase, Phase::Silent | Phase::Draining) && slot.has_had_its_chance() {
                    slot.shut();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            table = self.changed.wait_timeout(table, left.min(GRACE)).unwrap_or_else(PoisonError::into_inner).0;
        }
        let cut = table.held();
        table.slots.values_mut().for_each(Slot::shut);
        self.changed.notify_all();
        cut
    }
}

/// A connection's place. Dropping it gives the place and its body bytes back.
pub(super) struct Lease {
    slots: Arc<Slots>,
    id: u64,
}

impl Lease {
    /// Moves on to another phase. False when the connection was evicted, or is to end because all are.
    #[must_use]
    pub fn enter(&self, phase: Phase) -> bool {
        let mut table = self.slots.table();
        let closing = table.closing;
        match table.slots.get_mut(&self.id) {
            Some(slot) if !(slot.evicted || closing && phase == Phase::Draining) => {
                slot.phase = phase;
                true
            }
            _ => false,
        }
    }

    /// Asks for `bytes` more of body. Within the budget they are given; else the oldest incomplete requests
    /// with a body are evicted, and the call waits until their memory is free.
    pub fn hold(&self, bytes: usize, deadline: Instant) -> Result<(), Denied> {
        let mut table = self.slots.table();
        loop {
            match table.slots.get_mut(&self.id) {
                Some(slot) if !slot.evicted => {}
                _ => return Err(Denied::Evicted),
            }
            if table.body + bytes <= self.slots.budget {
                table.body += bytes;
                if let Some(slot) = table.slots.get_mut(&self.id) {
                    slot.body += bytes;
                }
                return Ok(());
            }
            let coming = |slot: &&Slot| slot.evicted || slot.phase == Phase::Answering;
            let freed: usize = table.slots.values().filter(|slot| slot.evicted).map(|slot| slot.body).sum();
            if table.body - freed + bytes > self.slots.budget {
                match table.oldest(|slot| slot.body > 0) {
                    Some(oldest) if oldest < self.id => {
                        self.slots.evict(&mut table, oldest);
                        continue;
                    }
                    // The oldest is the one asking: it may wait for answers that hold bodies, for nothing else.
                    _ if table.slots.values().filter(coming).all(|slot| slot.body == 0) => {
                        return Err(Denied::Full);
                    }
                    _ => {}
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Denied::Late);
            }
            table = self.slots.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives the body's bytes back, once its memory is free.
    pub fn release(&self) {
        let mut table = self.slots.table();
        if let Some(slot) = table.slots.get_mut(&self.id) {
            let body = std::mem::take(&mut slot.body);
            table.body -= body;
            self.slots.changed.notify_all();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
        let mut table = self.slots.table();
        table.slots.remove(&self.id);
        self.slots.counters.set_open(table.slots.len());
        self.slots.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
