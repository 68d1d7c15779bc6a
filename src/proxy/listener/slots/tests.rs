//! Cap, budget, squeeze and stop, with leases that nobody serves.

use super::*;
use std::net::TcpListener;

/// Slots, and a maker of connections in a phase.
fn setup(cap: usize, budget: usize) -> (Arc<Slots>, impl Fn(Phase) -> Option<Lease>) {
    let slots = Arc::new(Slots::new(cap, budget, Arc::default()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let taken = Arc::clone(&slots);
    (slots, move |phase| {
        let lease = taken.enter(&stream)?;
        assert!(lease.enter(phase));
        Some(lease)
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[test]
fn the_oldest_incomplete_makes_way() {
    let (slots, connect) = setup(3, 0);
    let answering = connect(Phase::Answering).unwrap();
    let reading = connect(Phase::Reading).unwrap();
    let draining = connect(Phase::Draining).unwrap();
    std::thread::sleep(GRACE);
    let first = connect(Phase::Answering).unwrap();
    assert!(!reading.enter(Phase::Answering));
    assert!(answering.enter(Phase::Answering) && draining.enter(Phase::Draining));
    let _second = connect(Phase::Answering).unwrap();
    assert!(!draining.enter(Phase::Draining));
    assert!(connect(Phase::Answering).is_none(), "all are being answered");
    drop((reading, draining));
    assert!(connect(Phase::Answering).is_none(), "their places are taken");
    drop(first);
    assert!(connect(Phase::Answering).is_some());
    assert_eq!(slots.counters.snapshot().evicted, 2);
    assert_eq!(slots.open(), 2);
}

#[test]
fn a_thread_gets_its_chance_to_start() {
    let (slots, connect) = setup(2, 0);
    let starting = [connect(Phase::Starting).unwrap(), connect(Phase::Answering).unwrap()];
    assert_eq!(slots.room(), Room::Soon);
    assert!(starting[0].enter(Phase::Silent));
    assert_eq!(slots.room(), Room::Soon);
    let deadline = soon();
    while slots.room() == Room::Soon && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(slots.room(), Room::Now);
    assert!(starting[0].enter(Phase::Answering));
    assert_eq!(slots.room(), Room::Now, "to be refused");
}

#[test]
fn evicted_threads_pile_up_to_a_bound() {
    let (slots, connect) = setup(1, 0);
    let mut leases: Vec<_> = (0..4).map(|_| connect(Phase::Draining).unwrap()).collect();
    assert_eq!(slots.room(), Room::Now);
    leases.extend(connect(Phase::Draining));
    assert_eq!(slots.room(), Room::Soon);
    drop(leases);
    assert_eq!(slots.room(), Room::Now);
}

#[test]
fn bodies_stay_within_the_budget() {
    let (slots, connect) = setup(9, 100);
    let oldest = connect(Phase::Reading).unwrap();
    let older = connect(Phase::Reading).unwrap();
    let newest = connect(Phase::Reading).unwrap();
    assert_eq!(oldest.hold(60, soon()), Ok(()));
    assert_eq!(older.hold(40, soon()), Ok(()));
    assert_eq!(oldest.hold(1, soon()), Err(Denied::Full), "never a younger one for an older one");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| newest.hold(50, soon()));
        let deadline = soon();
        while slots.counters.snapshot().evicted == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!oldest.enter(Phase::Reading), "evicted");
        assert!(older.enter(Phase::Answering), "one was enough");
        assert!(slots.table().body <= 100);
        drop(oldest);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
    assert_eq!(newest.hold(11, Instant::now()), Err(Denied::Late), "an answer holds the rest");
    older.release();
    assert_eq!(newest.hold(50, soon()), Ok(()));
    assert_eq!(newest.hold(1, soon()), Err(Denied::Full));
}

#[test]
fn a_squeeze_gives_places_back() {
    let (slots, connect) = setup(16, 0);
    let starting: Vec<_> = (0..16).map(|_| connect(Phase::Starting).unwrap()).collect();
    slots.squeeze();
    assert_eq!(slots.table().held(), 16);
    starting.iter().for_each(|lease| assert!(lease.enter(Phase::Silent)));
    assert_eq!(slots.room(), Room::Soon);
    assert_eq!(slots.table().held(), 11, "caught up with");
    drop(starting);
    slots.table().squeezed = None;
    let leases: Vec<_> = (0..16).map(|_| connect(Phase::Draining).unwrap()).collect();
    slots.squeeze();
    assert_eq!(slots.room(), Room::Soon);
    assert_eq!(slots.table().held(), 11);
    drop(leases);
    let leases: Vec<_> = (0..12).map(|_| connect(Phase::Draining).unwrap()).collect();
    assert_eq!(slots.room(), Room::Soon);
    assert_eq!(slots.table().held(), 11);
    drop(leases);
}

#[test]
fn finishing_waits_for_requests_only() {
    let (slots, connect) = setup(9, 0);
    let silent = connect(Phase::Silent).unwrap();
    let answering = connect(Phase::Answering).unwrap();
    let stuck = connect(Phase::Reading).unwrap();
    let cut = std::thread::scope(|scope| {
        let finish = scope.spawn(|| slots.finish(Instant::now() + Duration::from_millis(200)));
        let deadline = soon();
        while silent.enter(Phase::Silent) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!answering.enter(Phase::Draining));
        drop((silent, answering));
        finish.join().unwrap()
    });
    assert_eq!(cut, 1);
    assert!(!stuck.enter(Phase::Answering));
}
