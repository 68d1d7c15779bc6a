//! A world made of numbers, in which time passes only when the machine waits.

use super::super::*;
use crate::gate::health::Failure;

pub(super) const MS: Duration = Duration::from_millis(1);
/// Killed proxy, hung proxy, what somebody else opened: how long the port may be public then.
pub(super) const AFTER_KILL: Duration = Duration::from_secs(1);
pub(super) const AFTER_HANG: Duration = Duration::from_secs(2);
pub(super) const FOREIGN: Duration = Duration::from_secs(30);
/// Two slow looks: how long it may not have noticed that its own funnel has opened.
pub(super) const UNSAID: Duration = Duration::from_secs(11);

/// xorshift64 (Marsaglia 2003): the same number gives the same story.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub(super) fn within(&mut self, least: u64, most: u64) -> Duration {
        MS * (least + self.below(most - least + 1)) as u32
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Life {
    Dead,
    Hung,
    Well,
}

#[derive(Debug)]
pub(super) enum Happening {
    Event(Event),
    /// An answer that is decided when it arrives.
    Answer(Action, u32),
    /// A job that saw the world when it began.
    Job(Job, Result<Look, String>),
    /// The child with this number opens, or the session of a killed one disappears.
    Opened(u32),
    Closed(u32),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) random: Random,
    pub(super) machine: Machine,
    pub(super) coming: Vec<(Instant, Happening)>,
    pub(super) proxy: Life,
    pub(super) instance: u32,
    /// When the port must no longer be public because of what happened to the proxy.
    pub(super) limit: Option<Instant>,
    pub(super) squatter: bool,
    /// The public listener answers late because of attackers.
    pub(super) flooded: bool,
    pub(super) connected: bool,
    pub(super) child: Option<u32>,
    pub(super) children: u32,
    /// The child whose session is public.
    pub(super) session: Option<u32>,
    pub(super) foreign: Option<Instant>,
    pub(super) daemon: bool,
    /// The node is not connected: what is public is reached by nobody.
    pub(super) away: bool,
    pub(super) write_fails: bool,
    pub(super) story: Vec<String>,
    /// When it last said what was.
    pub(super) honest: Instant,
    /// Since when its own funnel is public and it says that the port is closed.
    pub(super) unsaid: Option<Instant>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
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
            flooded: false,
            connected: false,
            child: None,
            children: 0,
            session: None,
            foreign: None,
            daemon: true,
            away: false,
            write_fails: false,
            story: Vec::new(),
            honest: now,
            unsaid: None,
        }
    }

    pub(super) fn later(&mut self, wait: Duration, what: Happening) {
        self.coming.push((self.now + wait, what));
    }

    pub(super) fn feed(&mut self, event: Event) {
        for action in self.machine.step(event, self.now) {
            self.act(action);
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Connect | Action::Check(_) | Action::Ask | Action::Probe => {
                let wait = match (action, self.proxy) {
                    (_, Life::Dead) => MS,
                    (Action::Connect, Life::Hung) => MS * 2000,
                    (Action::Check(limit), Life::Hung) => limit,
                    (_, Life::Hung) => PERIOD,
                    (Action::Check(limit), Life::Well) if self.flooded => limit.min(MS * 1500),
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
                let away = self.away.then(|| "tailscale is stopped".to_owned());
                let look = Look { seen: self.seen(), away };
                let look = self.daemon.then_some(look).ok_or_else(|| "tailscaled is not running".to_owned());
                self.later(wait, Happening::Job(job, look));
            }
        }
    }

    pub(super) fn answer(&mut self, action: Action, instance: u32) -> Event {
        let same = self.instance == instance;
        match (action, self.proxy) {
            (Action::Connect, Life::Well) if same => {
                self.connected = true;
                Event::Alive(instance.to_string())
            }
            (Action::Connect, _) => Event::NotAlive("no proxy".into()),
            (Action::Ask, Life::Well) if same => Event::Guarded(Ok(true)),
            (Action::Ask, _) => Event::Guarded(Err(Failure::Late(PERIOD))),
            (Action::Probe, life) => Event::Probed(same && life == Life::Well),
            (Action::Check(PERIOD), Life::Well) if self.flooded => Event::Health(Err(Failure::Late(PERIOD))),
            (_, Life::Well) if same => Event::Health(Ok(instance.to_string())),
            (_, Life::Dead) if self.squatter => Event::Health(Ok("stranger".into())),
            (_, Life::Dead) => Event::Health(Err(Failure::Wrong("nobody listens".into()))),
            _ => Event::Health(Err(Failure::Late(PERIOD))),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        match (self.session, self.foreign) {
            (_, Some(_)) => Seen::Other("somebody's".into()),
            (Some(_), None) => Seen::Ours,
            (None, None) => Seen::Nothing,
        }
    }

    pub(super) fn report(&mut self, job: Job, look: Result<Look, String>) -> Report {
        match job {
            Job::Look => Report::Looked(look),
            Job::Prepare => Report::Prepared(look.and_then(|look| look.away.map_or(Ok(look.seen), Err))),
            Job::Close if !self.daemon => Report::Closed(Err("tailscaled is not running".to_owned())),
            Job::Close if self.write_fails && self.seen() != Seen::Nothing => Report::Closed(Err("no space".into())),
            Job::Close => {
                (self.foreign, self.session) = (None, None);
                Report::Closed(Ok(()))
            }
        }
    }

    /// Something random happens.
    pub(super) fn disturb(&mut self) {
        let choice = self.random.below(15);
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
            11 => (self.daemon, self.away) = (true, false),
            12 => self.write_fails = !self.write_fails,
            13 => self.flooded = !self.flooded,
            14 => self.away = !self.away,
            _ => {}
        }
    }

    pub(super) fn proxy_ends(&mut self) {
        if self.proxy != Life::Dead {
            let kill = self.now + AFTER_KILL;
            self.limit = Some(self.limit.map_or(kill, |limit| limit.min(kill)));
        }
        self.proxy = Life::Dead;
        if std::mem::take(&mut self.connected) {
            self.feed(Event::NotAlive("the proxy has ended".into()));
        }
    }

    pub(super) fn proxy_is_well(&mut self) {
        if self.proxy == Life::Dead {
            self.instance += 1;
        }
        (self.proxy, self.limit, self.squatter) = (Life::Well, None, false);
    }

    pub(super) fn daemon_ends(&mut self) {
        self.daemon = false;
        self.session = None;
        if self.child.take().is_some() {
            self.feed(Event::Ended("exit status: 1".into()));
        }
    }

    /// Goes on to the next thing that happens, at most to `end`.
    pub(super) fn turn(&mut self, end: Instant) {
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

    pub(super) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Event(event) => self.feed(event),
            Happening::Answer(action, instance) => {
                let event = self.answer(action, instance);
                self.feed(event);
            }
            Happening::Job(job, look) => {
                let report = self.report(job, look);
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

    pub(super) fn check(&mut self) {
        // What the gate says may lag behind the world by the look that is under way and the next one.
        let public = self.seen() != Seen::Nothing;
        let honest = match self.machine.state().0 {
            State::Open => public && !self.away,
            State::Unreachable => public && self.away,
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

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn(end);
        }
    }
}
