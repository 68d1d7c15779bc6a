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
fn the_oldest_of_those_that_stand_still_makes_way() {
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
    let [oldest, older, newest] = std::array::from_fn(|_| connect(Phase::Reading).unwrap());
    [&oldest, &older, &newest].iter().for_each(|lease| lease.has_head());
    assert_eq!(oldest.hold(50, soon()), Ok(()));
    assert_eq!(older.hold(50, soon()), Ok(()));
    assert_eq!(newest.hold(1, Instant::now()), Err(Denied::Late), "what was begun is ended first");
    assert_eq!(older.hold(1, Instant::now()), Err(Denied::Late), "the younger of two");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| oldest.hold(50, soon()));
        let deadline = soon();
        while slots.counters.snapshot().evicted == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!older.enter(Phase::Answering), "evicted");
        assert!(slots.table().body_of(|_| true) <= 100);
        drop(older);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
    assert_eq!(oldest.hold(1, soon()), Err(Denied::Full), "nobody else has any");
    assert!(oldest.enter(Phase::Answering));
    assert_eq!(newest.hold(1, Instant::now()), Err(Denied::Late), "an answer holds it all");
    oldest.release();
    assert_eq!(newest.hold(50, soon()), Ok(()));
}

#[test]
fn memory_is_given_in_the_order_of_arrival() {
    let (slots, connect) = setup(9, 100);
    let answered = connect(Phase::Reading).unwrap();
    assert_eq!(answered.hold(100, soon()), Ok(()));
    assert!(answered.enter(Phase::Answering));
    let [first, second] = std::array::from_fn(|_| connect(Phase::Reading).unwrap());
    let waits = |lease: &Lease| slots.table().slots.get(&lease.id).is_some_and(|slot| slot.waits);
    let until_it_waits = |lease: &Lease| {
        let deadline = soon();
        while !waits(lease) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(waits(lease));
    };
    std::thread::scope(|scope| {
        let later = scope.spawn(|| second.hold(50, soon()));
        until_it_waits(&second);
        let sooner = scope.spawn(|| first.hold(60, soon()));
        until_it_waits(&first);
        answered.release();
        assert_eq!(sooner.join().unwrap(), Ok(()));
        assert!(waits(&second), "there is no room for both");
        first.release();
        assert_eq!(later.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_body_that_stands_still_makes_way_for_a_younger_one() {
    let (_, connect) = setup(9, 100);
    let still = connect(Phase::Reading).unwrap();
    still.has_head();
    assert_eq!(still.hold(100, soon()), Ok(()));
    let steady = connect(Phase::Reading).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| steady.hold(50, soon()));
        let deadline = soon();
        while still.enter(Phase::Reading) && Instant::now() < deadline {
            steady.received(1, 1);
            std::thread::yield_now();
        }
        drop(still);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
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

#[test]
fn whoever_keeps_its_pace_outlasts_those_that_stand_still() {
    let (_, connect) = setup(3, 0);
    let steady = connect(Phase::Reading).unwrap();
    steady.has_head();
    let silent = connect(Phase::Silent).unwrap();
    let one_byte = connect(Phase::Reading).unwrap();
    one_byte.received(1, SLOWEST);
    std::thread::sleep(GRACE);
    let newcomer = connect(Phase::Reading).unwrap();
    assert!(!silent.enter(Phase::Reading), "the one that sent nothing");
    drop(silent);
    newcomer.has_head();
    std::thread::sleep(GRACE);
    let _third = connect(Phase::Answering).unwrap();
    assert!(!one_byte.enter(Phase::Reading), "then the one that sent a byte");
    drop(one_byte);
    steady.received(100, SLOWEST);
    let _fourth = connect(Phase::Answering).unwrap();
    assert!(!newcomer.enter(Phase::Answering), "a whole head buys time, not immunity");
    assert!(steady.enter(Phase::Answering), "younger ones have not sent as much");
}

#[test]
fn no_byte_buys_more_than_the_credit() {
    let (slots, connect) = setup(1, 0);
    let lease = connect(Phase::Reading).unwrap();
    lease.has_head();
    lease.received(3 << 20, 1);
    let due = slots.table().slots.values().next().unwrap().due;
    assert!(due <= Instant::now() + CREDIT);
}

#[test]
fn large_bodies_leave_room_for_small_ones() {
    let (slots, connect) = setup(8, 100);
    let large: Vec<_> = (0..6).map(|_| connect(Phase::Reading).unwrap()).collect();
    for lease in &large {
        assert_eq!(lease.expect(SMALL_BODY + 1), Ok(()));
        lease.has_head();
    }
    assert_eq!(large[0].hold(75, soon()), Ok(()));
    assert_eq!(large[0].hold(1, soon()), Err(Denied::Full), "three quarters are all that they get");
    let small = connect(Phase::Reading).unwrap();
    assert_eq!(small.expect(SMALL_BODY), Ok(()));
    assert_eq!(small.hold(25, soon()), Ok(()), "and nobody is evicted for it");
    assert_eq!(slots.counters.snapshot().evicted, 0);
    let seventh = connect(Phase::Reading).unwrap();
    seventh.has_head();
    assert_eq!(seventh.expect(SMALL_BODY + 1), Ok(()));
    assert!(!large[0].enter(Phase::Reading), "the large one furthest behind made way for the next large one");
    assert!(small.enter(Phase::Reading));
}
