//! Who may stay: the cap on connections, the budget of body bytes, and the eviction of the incomplete request that is
//! furthest behind its pace when either is used up. A complete request is never evicted, so the newcomer that arrives
//! whole is served however many slow ones are held; one that arrives slowly but steadily outlasts those that stand still.

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

/// How far ahead of its pace a request can be. A whole head brings it there, and every byte brings it nearer: whoever
/// then stands still has this long before it falls behind, and no byte sent earlier buys it more.
const CREDIT: Duration = Duration::from_secs(2);

/// What a head should bring, in bytes a second, at least. Bodies should bring what ends them before their deadline.
pub(super) const SLOWEST: u64 = 256;

/// Bodies whose last bytes came as little apart as this keep the same pace, as far as the network lets one tell.
const SAME_PACE: Duration = Duration::from_millis(500);

/// How often one that waits for memory looks who has fallen behind meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Longer bodies are large: a quarter of places and memory is kept from them, so that many of them leave room for
/// ordinary deliveries.
const SMALL_BODY: usize = 64 << 10;

/// What large bodies may take of a whole.
fn large_share(whole: usize) -> usize {
    whole - whole / 4
}

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
    /// Until when it is in its pace if nothing more comes. The earliest is the one furthest behind.
    due: Instant,
    phase: Phase,
    /// Bytes of body that it holds.
    body: usize,
    /// Whether its body is longer than a small one.
    large: bool,
    /// Whether it waits for memory.
    waits: bool,
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
    /// By number in order of arrival.
    slots: BTreeMap<u64, Slot>,
    next: u64,
    squeezed: Option<(Caps, Instant)>,
    closing: bool,
}

impl Table {
    fn held(&self) -> usize {
        self.slots.values().filter(|slot| !slot.evicted).count()
    }

    /// The one furthest behind its pace, the oldest of several.
    fn furthest_behind(&self, also: impl Fn(&Slot) -> bool) -> Option<u64> {
        let slots = self.slots.iter().filter(|(_, slot)| slot.evictable() && also(slot));
        slots.min_by_key(|(_, slot)| slot.due).map(|(id, _)| *id)
    }

    /// Whose body makes way for the one of `asking`: of those that stand still, the one furthest behind; where all wait for
    /// memory, the youngest, so that what was begun is ended.
    fn last_body(&self, asking: u64, counts: impl Fn(&Slot) -> bool) -> Option<u64> {
        let due = self.slots.get(&asking)?.due;
        let others = || {
            let others = self.slots.iter().filter(|(id, slot)| **id != asking && slot.evictable() && counts(slot));
            others.filter(|(_, slot)| slot.body > 0)
        };
        let behind = others().min_by_key(|(_, slot)| slot.due).filter(|(_, slot)| slot.due + SAME_PACE < due);
        let stuck = || others().all(|(_, slot)| slot.waits).then(|| others().last()).flatten();
        behind.or_else(stuck).map(|(id, _)| *id)
    }

    /// Body bytes that are held by requests of which `which` is true.
    fn body_of(&self, which: impl Fn(&Slot) -> bool) -> usize {
        self.slots.values().filter(|slot| which(slot)).map(|slot| slot.body).sum()
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
    /// There is no room, and nobody else's to wait for.
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
            let Some(last) = table.furthest_behind(|_| true) else { break };
            self.evict(table, last);
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
        let full = table.held() >= caps.held && table.furthest_behind(Slot::has_had_its_chance).is_none();
        // When all are being answered, the newcomer is better told than left waiting.
        let blocked = full && table.slots.values().any(|slot| slot.phase != Phase::Answering);
        if blocked || table.slots.len() >= caps.all { Room::Soon } else { Room::Now }
    }

    /// Takes a connection in, evicting another at the cap. `None`: every one held is being answered.
    pub fn enter(self: &Arc<Self>, stream: &Arc<TcpStream>) -> Option<Lease> {
        let mut table = self.table();
        if table.held() >= self.caps(&table).held {
            let last = table.furthest_behind(Slot::has_had_its_chance).or_else(|| table.furthest_behind(|_| true))?;
            self.evict(&mut table, last);
        }
        let id = table.next;
        table.next += 1;
        let now = Instant::now();
        let slot = Slot {
            stream: Arc::clone(stream),
            since: now,
            due: now + GRACE,
            phase: Phase::Starting,
            body: 0,
            large: false,
            waits: false,
            evicted: false,
        };
        table.slots.insert(id, slot);
        self.counters.count_open();
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
                if phase == Phase::Draining {
                    slot.due = Instant::now() + GRACE;
                }
                slot.phase = phase;
                true
            }
            _ => false,
        }
    }

    /// Counts bytes that came, of a request that should bring `pace` bytes a second.
    pub fn received(&self, bytes: usize, pace: u64) {
        self.move_due(|due| due + Duration::from_secs_f64(bytes as f64 / pace.max(1) as f64));
    }

    /// The head is whole.
    pub fn has_head(&self) {
        self.move_due(|due| due + CREDIT);
    }

    fn move_due(&self, later: impl Fn(Instant) -> Instant) {
        if let Some(slot) = self.slots.table().slots.get_mut(&self.id) {
            slot.due = later(slot.due).min(Instant::now() + CREDIT);
        }
    }

    /// Says how long the body is to be. Of too many large ones the one furthest behind makes way.
    pub fn expect(&self, length: usize) -> Result<(), Denied> {
        if length <= SMALL_BODY {
            return Ok(());
        }
        let mut table = self.slots.table();
        match table.slots.get_mut(&self.id) {
            Some(slot) if !slot.evicted => slot.large = true,
            _ => return Err(Denied::Evicted),
        }
        let large = table.slots.values().filter(|slot| slot.large && !slot.evicted).count();
        if large > large_share(self.slots.caps(&table).held).max(1) {
            match table.furthest_behind(|slot| slot.large) {
                Some(last) if last != self.id => self.slots.evict(&mut table, last),
                _ => return Err(Denied::Full),
            }
        }
        Ok(())
    }

    /// Asks for `bytes` more of body. Who asked first gets them first; where there is no memory, those that are behind give
    /// theirs, and the call waits until it is free.
    pub fn hold(&self, bytes: usize, deadline: Instant) -> Result<(), Denied> {
        let mut table = self.slots.table();
        let held = loop {
            if let Some(held) = self.take(&mut table, bytes) {
                break held;
            }
            let begin = Instant::now();
            let left = deadline.saturating_duration_since(begin);
            if left.is_zero() {
                break Err(Denied::Late);
            }
            if let Some(slot) = table.slots.get_mut(&self.id) {
                slot.waits = true;
            }
            table = self.slots.changed.wait_timeout(table, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner).0;
            // Who waits for memory does not read: what it does not bring meanwhile is not its own delay.
            if let Some(slot) = table.slots.get_mut(&self.id) {
                slot.due += begin.elapsed();
            }
        };
        if table.slots.get_mut(&self.id).is_some_and(|slot| std::mem::take(&mut slot.waits)) {
            // Whoever waits behind this one may have its turn.
            self.slots.changed.notify_all();
        }
        held
    }

    /// Takes `bytes` more of body, evicting those that make way for it. `None`: it is not its turn yet.
    fn take(&self, table: &mut Table, bytes: usize) -> Option<Result<(), Denied>> {
        let large = match table.slots.get(&self.id) {
            Some(slot) if !slot.evicted => slot.large,
            _ => return Some(Err(Denied::Evicted)),
        };
        // What is full for a large one may have room for a small one.
        let counts = |slot: &Slot| slot.large || !large;
        let budget = if large { large_share(self.slots.budget) } else { self.slots.budget };
        let waits_too = |older: &Slot| older.waits && !older.evicted && (large || !older.large);
        if table.slots.range(..self.id).any(|(_, older)| waits_too(older)) {
            return None;
        }
        let wanted = table.body_of(counts) + bytes;
        if wanted <= budget {
            if let Some(slot) = table.slots.get_mut(&self.id) {
                slot.body += bytes;
            }
            return Some(Ok(()));
        }
        let mut freed = table.body_of(|slot| slot.evicted && counts(slot));
        while wanted - freed > budget {
            let others = table.slots.iter().filter(|(id, slot)| **id != self.id && counts(slot));
            if others.map(|(_, slot)| slot.body).sum::<usize>() == 0 {
                return Some(Err(Denied::Full));
            }
            let last = table.last_body(self.id, counts)?;
            freed += table.slots.get(&last).map_or(0, |slot| slot.body);
            self.slots.evict(table, last);
        }
        None
    }

    /// Gives the body's bytes back, once its memory is free.
    pub fn release(&self) {
        let mut table = self.slots.table();
        if let Some(slot) = table.slots.get_mut(&self.id) {
            slot.body = 0;
            self.slots.changed.notify_all();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
        let mut table = self.slots.table();
        if table.slots.remove(&self.id).is_some() {
            self.slots.counters.count_closed();
        }
        self.slots.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
