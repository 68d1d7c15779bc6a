//! The machine in a world made of numbers: random things happen to the proxy, to tailscale and to the funnel, and the
//! promises hold all the same.

use super::*;

const MS: Duration = Duration::from_millis(1);
/// Killed proxy, hung proxy, what somebody else opened: how long the port may be public then.
const AFTER_KILL: Duration = Duration::from_secs(1);
const AFTER_HANG: Duration = Duration::from_secs(2);
const FOREIGN: Duration = Duration::from_secs(30);
/// Two slow looks: how long it may not have noticed that its own funnel has opened.
const UNSAID: Duration = Duration::from_secs(11);

/// xorshift64 (Marsaglia 2003): the same number gives the same story.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn within(&mut self, least: u64, most: u64) -> Duration {
        MS * (least + self.below(most - least + 1)) as u32
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Dead,
    Hung,
    Well,
}

#[derive(Debug)]
enum Happening {
    Event(Event),
    /// An answer that is decided when it arrives.
    Answer(Action, u32),
    /// A job that saw the world when it began.
    Job(Job, Result<Seen, String>),
    /// The child with this number opens, or the session of a killed one disappears.
    Opened(u32),
    Closed(u32),
}

struct World {
    now: Instant,
    random: Random,
    machine: Machine,
    coming: Vec<(Instant, Happening)>,
    proxy: Life,
    instance: u32,
    /// When the port must no longer be public because of what happened to the proxy.
    limit: Option<Instant>,
    squatter: bool,
    connected: bool,
    child: Option<u32>,
    children: u32,
    /// The child whose session is public.
    session: Option<u32>,
    foreign: Option<Instant>,
    daemon: bool,
    write_fails: bool,
    story: Vec<String>,
    /// When it last said what was.
    honest: Instant,
    /// Since when its own funnel is public and it says that the port is closed.
    unsaid: Option<Instant>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            machine: Machine::new(now),
            coming: Vec::new(),
            proxy: Life::Dead,
            instance: 0,
            limit: None,
            squatter: false,
            connected: false,
            child: None,
            children: 0,
            session: None,
            foreign: None,
            daemon: true,
            write_fails: false,
            story: Vec::new(),
            honest: now,
            unsaid: None,
        }
    }

    fn later(&mut self, wait: Duration, what: Happening) {
        self.coming.push((self.now + wait, what));
    }

    fn feed(&mut self, event: Event) {
        for action in self.machine.step(event, self.now) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect | Action::Check | Action::Ask => {
                let wait = match (action, self.proxy) {
                    (_, Life::Dead) => MS,
                    (Action::Connect, Life::Hung) => MS * 2000,
                    (_, Life::Hung) => PERIOD,
                    (_, Life::Well) => self.random.within(1, 60),
                };
                self.later(wait, Happening::Answer(action, self.instance));
            }
            Action::Start => {
                assert!(self.child.is_none(), "one process at a time");
                self.children += 1;
                self.child = Some(self.children);
                match self.random.below(20) {
                    0 => {
                        self.child = None;
                        let wait = self.random.within(5, 100);
                        self.later(wait, Happening::Event(Event::Ended("exit status: 0".into())));
                    }
                    // It waits for a person.
                    1 => {}
                    _ => {
                        let wait = self.random.within(5, 800);
                        self.later(wait, Happening::Opened(self.children));
                    }
                }
            }
            Action::Kill => {
                if let Some(child) = self.child.take() {
                    let (end, gone) = (self.random.within(1, 5), self.random.within(1, 60));
                    self.later(end, Happening::Event(Event::Ended("signal: 9".into())));
                    self.later(gone, Happening::Closed(child));
                }
            }
            Action::Run(job) => {
                let slow = self.random.below(30) == 0;
                let wait = if slow { self.random.within(1000, 5000) } else { self.random.within(5, 200) };
                let seen = self.daemon.then(|| self.seen()).ok_or_else(|| "tailscaled is not running".to_owned());
                self.later(wait, Happening::Job(job, seen));
            }
        }
    }

    fn answer(&mut self, action: Action, instance: u32) -> Event {
        let same = self.instance == instance;
        match (action, self.proxy) {
            (Action::Connect, Life::Well) if same => {
                self.connected = true;
                Event::Alive(instance.to_string())
            }
            (Action::Connect, _) => Event::NotAlive("no proxy".into()),
            (Action::Ask, Life::Well) if same => Event::Guarded(Ok(true)),
            (Action::Ask, _) => Event::Guarded(Err("no answer".into())),
            (_, Life::Well) if same => Event::Health(Ok(instance.to_string())),
            (_, Life::Dead) if self.squatter => Event::Health(Ok("stranger".into())),
            _ => Event::Health(Err("no answer".into())),
        }
    }

    fn seen(&self) -> Seen {
        match (self.session, self.foreign) {
            (_, Some(_)) => Seen::Other("somebody's".into()),
            (Some(_), None) => Seen::Ours,
            (None, None) => Seen::Nothing,
        }
    }

    fn report(&mut self, job: Job, seen: Result<Seen, String>) -> Report {
        match job {
            Job::Look | Job::Inspect => Report::Looked(seen),
            Job::Prepare => Report::Prepared(seen),
            Job::Close if !self.daemon => Report::Closed(Err("tailscaled is not running".to_owned())),
            Job::Close if self.write_fails && self.seen() != Seen::Nothing => Report::Closed(Err("no space".into())),
            Job::Close => {
                (self.foreign, self.session) = (None, None);
                Report::Closed(Ok(()))
            }
        }
    }

    /// Something random happens.
    fn disturb(&mut self) {
        let choice = self.random.below(13);
        self.story.push(format!("{:?}: {choice}", self.now));
        match choice {
            0 | 1 => self.proxy_ends(),
            2 | 3 if self.proxy == Life::Well => {
                self.proxy = Life::Hung;
                self.limit = Some(self.now + AFTER_HANG);
            }
            4..=6 => self.proxy_is_well(),
            7 => self.squatter = !self.squatter,
            8 if self.session.is_none() && self.daemon => self.foreign = Some(self.now),
            // Somebody takes the session away; its process ends, or not.
            9 if self.session.take().is_some() && self.random.below(2) == 0 => {
                self.child = None;
                self.feed(Event::Ended("exit status: 1".into()));
            }
            10 => self.daemon_ends(),
            11 => self.daemon = true,
            12 => self.write_fails = !self.write_fails,
            _ => {}
        }
    }

    fn proxy_ends(&mut self) {
        if self.proxy != Life::Dead {
            let kill = self.now + AFTER_KILL;
            self.limit = Some(self.limit.map_or(kill, |limit| limit.min(kill)));
        }
        self.proxy = Life::Dead;
        if std::mem::take(&mut self.connected) {
            self.feed(Event::NotAlive("the proxy has ended".into()));
        }
    }

    fn proxy_is_well(&mut self) {
        if self.proxy == Life::Dead {
            self.instance += 1;
        }
        (self.proxy, self.limit, self.squatter) = (Life::Well, None, false);
    }

    fn daemon_ends(&mut self) {
        self.daemon = false;
        self.session = None;
        if self.child.take().is_some() {
            self.feed(Event::Ended("exit status: 1".into()));
        }
    }

    /// Goes on to the next thing that happens, at most to `end`.
    fn turn(&mut self, end: Instant) {
        let wake = self.machine.wake().max(self.now);
        let first = (0..self.coming.len()).min_by_key(|index| self.coming[*index].0);
        match first.filter(|index| self.coming[*index].0 <= wake.min(end)) {
            Some(index) => {
                let (at, what) = self.coming.swap_remove(index);
                self.now = at.max(self.now);
                self.happen(what);
            }
            None => {
                self.now = wake.min(end);
                self.feed(Event::Tick);
            }
        }
        self.check();
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Event(event) => self.feed(event),
            Happening::Answer(action, instance) => {
                let event = self.answer(action, instance);
                self.feed(event);
            }
            Happening::Job(job, seen) => {
                let report = self.report(job, seen);
                self.feed(Event::Done(report));
            }
            Happening::Opened(child) => {
                if self.child == Some(child) && self.daemon && self.foreign.is_none() {
                    self.session = Some(child);
                    self.feed(Event::Spoke);
                }
            }
            Happening::Closed(child) => self.session = self.session.filter(|session| *session != child),
        }
    }

    fn check(&mut self) {
        // What the gate says may lag behind the world by the look that is under way and the next one.
        let public = self.seen() != Seen::Nothing;
        let honest = match self.machine.state().0 {
            State::Open => public,
            State::Closed => !public,
            State::Unknown => true,
        };
        self.honest = if honest { self.now } else { self.honest };
        assert!(
            self.now <= self.honest + FOREIGN,
            "it does not say what is: {:?} {} {:#?}",
            self.seen(),
            self.daemon,
            self.machine
        );
        if self.session.is_some() && self.machine.state().0 == State::Closed {
            self.unsaid.get_or_insert(self.now);
        } else {
            self.unsaid = None;
        }
        assert!(self.unsaid.is_none_or(|since| self.now <= since + UNSAID), "it says closed: {:#?}", self.machine);
        if self.session.is_some()
            && let Some(limit) = self.limit
        {
            assert!(self.now <= limit, "public {:?} too long: {:#?}", self.now - limit, self.machine);
        }
        if self.daemon
            && !self.write_fails
            && let Some(since) = self.foreign
        {
            assert!(self.now <= since + FOREIGN, "somebody's funnel stays: {:#?} {:#?}", self.machine, self.story);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn(end);
        }
    }
}

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
        (world.daemon, world.write_fails) = (true, false);
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
