//! The machine in a world made of numbers: random things happen to the proxy, to tailscale and to the funnel, and the
//! promises hold all the same.

mod world;

use super::*;
use world::{AFTER_HANG, Happening, Life, MS, World};

#[test]
fn a_thousand_random_stories_never_leave_the_door_open() {
    let mut opened = 0;
    for seed in 1..=1000 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            let calm = world.random.within(10, 6000);
            world.run(calm);
            world.disturb();
            // What somebody else opened counts from when it could be seen and closed.
            if !world.daemon || world.write_fails {
                world.foreign = world.foreign.map(|_| world.now);
            }
            opened += usize::from(world.session.is_some());
        }
        (world.daemon, world.away, world.write_fails, world.flooded) = (true, false, false, false);
        world.foreign = world.foreign.map(|_| world.now);
        if seed % 2 == 0 {
            world.proxy_is_well();
            world.run(Duration::from_secs(300));
            assert_eq!((world.machine.state().0, world.seen()), (State::Open, Seen::Ours), "seed {seed}");
        } else {
            world.proxy_ends();
            world.run(Duration::from_secs(60));
            assert_eq!((world.machine.state().0, world.seen()), (State::Closed, Seen::Nothing), "seed {seed}");
        }
        world.feed(Event::Stop);
        world.run(Duration::from_secs(30));
        assert!(world.machine.stopped(), "seed {seed}: it does not stop");
        assert_eq!((world.machine.state().0, world.seen()), (State::Closed, Seen::Nothing), "seed {seed}");
    }
    assert!(opened > 3000, "the stories must be about an open door: {opened}");
}

/// A world whose proxy is well and whose funnel is open.
fn open_world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.proxy_is_well();
    while world.machine.state().0 != State::Open {
        let end = world.now + Duration::from_secs(300);
        world.turn(end);
    }
    world
}

#[test]
fn a_hang_and_a_kill_close_within_their_limits() {
    for seed in 1..300 {
        let mut world = open_world(seed);
        let wait = world.random.within(0, 3000);
        world.run(wait);
        if world.session.is_none() {
            continue;
        }
        let begin = world.now;
        if seed % 2 == 0 {
            world.proxy = Life::Hung;
            world.limit = Some(begin + AFTER_HANG);
        } else {
            world.proxy_ends();
        }
        let turn = |world: &mut World| {
            world.turn(begin + Duration::from_secs(20));
            let (_, cause) = world.machine.state();
            assert!(!cause.to_string().contains("not opened"), "it takes its own session for another's: {cause}");
        };
        while world.session.is_some() && world.now - begin <= AFTER_HANG {
            turn(&mut world);
        }
        let ended = world.now;
        (0..100).for_each(|_| turn(&mut world));
        let limit = if seed % 2 == 0 { MS * 1700 } else { MS * 100 };
        assert!(ended - begin <= limit, "seed {seed}: {:?}", ended - begin);
    }
}

#[test]
fn a_node_that_is_away_is_unreachable_until_it_is_back() {
    for seed in 1..100 {
        let mut world = open_world(seed);
        world.away = true;
        world.run(Duration::from_secs(25));
        assert_eq!(world.machine.state().0, State::Unreachable, "seed {seed}");
        assert!(world.session.is_some(), "seed {seed}: there is nothing to be gained by closing it");
        world.away = false;
        world.run(Duration::from_secs(25));
        assert_eq!(world.machine.state().0, State::Open, "seed {seed}");
    }
}

#[test]
fn a_flood_does_not_close_and_a_hang_in_it_does() {
    for seed in 1..100 {
        let mut world = open_world(seed);
        world.flooded = true;
        let end = world.now + Duration::from_secs(120);
        while world.now < end {
            world.turn(end);
            assert!(world.session.is_some(), "seed {seed}: closed by a flood: {:#?}", world.machine);
        }
        let wait = world.random.within(0, 3000);
        world.run(wait);
        let begin = world.now;
        world.proxy = Life::Hung;
        world.limit = Some(begin + AFTER_HANG);
        world.run(AFTER_HANG + MS);
        assert!(world.session.is_none(), "seed {seed}");
    }
}

#[test]
fn a_stop_waits_for_a_look_that_tells_and_not_without_end() {
    for seed in 1..100 {
        let comes_back = seed % 2 == 0;
        let mut world = open_world(seed);
        world.daemon = false;
        world.feed(Event::Stop);
        world.run(MS * 300);
        assert!(!world.machine.stopped(), "seed {seed}: a look failed, which tells nothing");
        world.daemon = comes_back;
        world.run(Duration::from_secs(17));
        assert!(world.machine.stopped(), "seed {seed}: it does not stop");
        let state = if comes_back { State::Closed } else { State::Unknown };
        assert_eq!(world.machine.state().0, state, "seed {seed}");
    }
}

#[test]
fn a_flapping_proxy_is_opened_less_and_less_often() {
    let mut world = open_world(7);
    let mut opened = Vec::new();
    for _ in 0..8 {
        world.proxy_ends();
        world.run(MS * 500);
        world.proxy_is_well();
        let begin = world.now;
        while world.session.is_none() {
            let end = world.now + Duration::from_secs(600);
            world.turn(end);
        }
        opened.push((world.now - begin).as_secs());
    }
    assert!(opened[0] < 10 && opened[7] >= 30 && opened[7] <= 200, "{opened:?}");
}

#[test]
fn at_rest_tailscale_is_asked_every_fifteen_seconds_and_not_more() {
    let mut world = open_world(3);
    let jobs = |world: &World| world.coming.iter().filter(|(_, what)| matches!(what, Happening::Job(..))).count();
    let (mut count, end) = (0, world.now + Duration::from_secs(600));
    while world.now < end {
        let before = jobs(&world);
        world.turn(end);
        count += jobs(&world).saturating_sub(before);
    }
    assert!((36..=41).contains(&count), "{count} in ten minutes");
}
