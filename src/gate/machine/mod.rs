//! The gate's decisions, without processes, sockets or a clock of its own: events in, actions out.
//!
//! The funnel is open only while every reason for it holds; whatever is not known counts as a reason against it.

mod events;
mod proxy;
mod state;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::exposure::{Look, Seen};
use crate::command::Backoff;
pub(super) use events::{Action, Event, Job, Report};
use proxy::Proxy;
pub(super) use state::{Cause, State};

/// How often the proxy is asked, and how long it has to answer.
pub(super) const PERIOD: Duration = Duration::from_millis(400);
/// How often the configuration that is really in force is read while nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long `tailscale funnel` may take to open; one that waits for a person waits without end.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Rest between looks while a change is awaited or tailscale does not answer.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long a session may outlive its process.
const SESSION_ENDS: Duration = Duration::from_millis(500);
/// Looks in a row that fail before the funnel is closed, or the gate ends, because nobody can say what is public.
const BLIND: u8 = 3;
/// A funnel that was open this long starts the backoff anew.
const STABLE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
enum Held {
    None,
    Opening(Instant),
    Open(Instant),
    Ending,
}

/// The state machine. Instants come from the caller and are monotonic, so no change of the wall clock reaches it.
#[derive(Debug)]
pub(super) struct Machine {
    proxy: Proxy,
    turned: Instant,

    child: Held,
    ended: Option<Instant>,
    /// When the child last changed: a look that began before is out of date.
    changed: Instant,
    drift: Option<String>,
    obstacle: Option<String>,
    reopen: Backoff,
    reopen_at: Instant,

    /// When the job under way began.
    job: Option<Instant>,
    blind: u8,
    stray: bool,
    look_due: Instant,
    retry: Backoff,
    close_due: Instant,
    closing: Backoff,
    /// Why the last try to close failed.
    not_closed: Option<String>,

    state: State,
    cause: Cause,
    stopping: bool,
    stopped: bool,
}

impl Machine {
    /// A machine that knows nothing yet: the first thing it does is to look.
    pub fn new(now: Instant) -> Self {
        let seconds = Duration::from_secs;
        Self {
            proxy: Proxy::new(now),
            turned: now,
            child: Held::None,
            ended: None,
            changed: now,
            drift: None,
            obstacle: None,
            reopen: Backoff::new(seconds(1), seconds(60)),
            reopen_at: now,
            job: None,
            blind: 0,
            stray: false,
            look_due: now,
            retry: Backoff::new(seconds(1), LOOK_EVERY * 2),
            close_due: now,
            closing: Backoff::new(seconds(1), LOOK_EVERY),
            not_closed: None,
            state: State::Unknown,
            cause: Cause::Change("tailscale has not been asked yet".to_owned()),
            stopping: false,
            stopped: false,
        }
    }

    /// Takes an event and returns what is to be done, in this order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Tick => {}
            Event::Alive(instance) => self.proxy.appeared(instance, now),
            Event::NotAlive(reason) => self.proxy.vanished(reason),
            Event::Health(answer) => self.proxy.judge(answer),
            Event::Probed(answered) => self.proxy.probed(answered),
            Event::Guarded(answer) => self.proxy.guards(answer, now),
            Event::Spoke if matches!(self.child, Held::Opening(_)) => self.look_due = now,
            Event::Spoke => {}
            Event::Ended(why) => self.child_ended(why, now),
            Event::Done(report) => return self.done(report, now),
            Event::Stop => {
                self.stopping = true;
                // What failed earlier is tried once more before the end.
                (self.not_closed, self.close_due) = (None, now);
                self.look_due = now;
            }
        }
        self.decide(now)
    }

    /// When to call `step` with `Tick` even if nothing happens.
    pub fn wake(&self) -> Instant {
        let looks = self.job.is_none() && self.child != Held::Ending && !self.stopped;
        let dues = [self.proxy.due().filter(|_| !self.stopping), looks.then_some(self.look_due)];
        dues.into_iter().flatten().fold(self.turned + PERIOD, Instant::min)
    }

    /// True when everything is done after `Stop`.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// What was last verified, and why it is so.
    pub fn state(&self) -> (State, Cause) {
        (self.state, if self.state == State::Closed { self.why_closed() } else { self.cause.clone() })
    }

    fn why_closed(&self) -> Cause {
        if self.stopping {
            return Cause::Change("the gate has stopped".to_owned());
        }
        let obstacle = || self.obstacle.clone().map(Cause::Lasting);
        let about = || Cause::Change("the funnel is about to be opened".to_owned());
        self.proxy.objection().or_else(obstacle).unwrap_or_else(about)
    }

    fn child_ended(&mut self, why: String, now: Instant) {
        if !matches!(self.child, Held::Ending | Held::None) {
            self.obstacle = Some(why);
            self.rest_before_reopening(now);
        }
        (self.child, self.drift, self.ended) = (Held::None, None, Some(now));
        self.changed = now;
        self.look_due = now;
    }

    fn rest_before_reopening(&mut self, now: Instant) {
        if let Held::Open(since) = self.child
            && now.duration_since(since) >= STABLE
        {
            self.reopen.reset();
        }
        self.reopen_at = now + self.reopen.next_wait();
    }

    fn done(&mut self, report: Report, now: Instant) -> Vec<Action> {
        let Some(begun) = self.job.take() else { return self.decide(now) };
        if begun < self.changed {
            self.look_due = now;
            return self.decide(now);
        }
        // Where it could not be prepared nothing was seen, so that puts no look off.
        if !matches!(report, Report::Prepared(Err(_))) {
            self.look_due = now + LOOK_EVERY;
        }
        match report {
            Report::Looked(Ok(look)) => self.looked(&look, begun, now),
            Report::Looked(Err(reason)) => self.not_seen(reason, now),
            Report::Prepared(Ok(Seen::Nothing)) => {
                self.looked(&Seen::Nothing.into(), begun, now);
                self.retry.reset();
                if self.wants_open() {
                    self.child = Held::Opening(now);
                    self.changed = now;
                    self.look_due = now + LOOK_AGAIN;
                    return vec![Action::Start];
                }
            }
            Report::Prepared(Ok(seen)) => self.looked(&seen.into(), begun, now),
            Report::Prepared(Err(reason)) => {
                self.obstacle = Some(reason);
                self.reopen_at = now + self.retry.next_wait();
            }
            Report::Closed(Ok(())) => {
                self.closing.reset();
                self.looked(&Seen::Nothing.into(), begun, now);
            }
            Report::Closed(Err(reason)) => {
                self.close_due = now + self.closing.next_wait();
                self.not_closed = Some(reason);
                // What it left is not a matter of guesses.
                self.look_due = now;
            }
        }
        self.decide(now)
    }

    fn looked(&mut self, Look { seen, away }: &Look, begun: Instant, now: Instant) {
        if self.blind > 0 {
            self.retry.reset();
        }
        self.blind = 0;
        self.stray = false;
        match (seen, &self.child) {
            (Seen::Nothing, Held::Opening(_)) => self.look_due = now + LOOK_AGAIN,
            (Seen::Nothing, child) => {
                if matches!(child, Held::Open(_)) {
                    self.drift = Some("the funnel was removed by somebody else".to_owned());
                }
                self.state = State::Closed;
                self.not_closed = None;
                self.stopped = self.stopping && self.child == Held::None;
            }
            (Seen::Ours, Held::Opening(_) | Held::Open(_)) => {
                if let Held::Opening(_) = self.child {
                    self.child = Held::Open(now);
                    self.obstacle = None;
                }
                (self.state, self.cause) = match away {
                    None => (State::Open, Cause::Change("the proxy is healthy".to_owned())),
                    Some(reason) => (State::Unreachable, Cause::Lasting(reason.clone())),
                };
            }
            // tailscaled is about to drop the session of the process that has just ended.
            (Seen::Ours, Held::None) if self.ended.is_some_and(|at| begun < at + SESSION_ENDS) => {
                self.look_due = now + SESSION_ENDS / 10;
            }
            (seen, child) => {
                let what = match seen {
                    Seen::Other(what) => what.as_str(),
                    _ => "a foreground session of another process",
                };
                let failed = self.not_closed.as_ref().map_or_else(String::new, |reason| format!("; {reason}"));
                let away = away.as_ref().map_or_else(String::new, |reason| format!("; {reason}"));
                self.cause = Cause::Lasting(format!("not opened by this gate: {what}{failed}{away}"));
                self.state = if away.is_empty() { State::Open } else { State::Unreachable };
                if *child == Held::None {
                    self.stray = true;
                    self.stopped = self.stopping && self.not_closed.is_some();
                } else {
                    self.drift = Some(format!("something else is public on the port: {what}"));
                }
            }
        }
    }

    fn not_seen(&mut self, reason: String, now: Instant) {
        self.blind = self.blind.saturating_add(1);
        if self.child == Held::None && !self.stopping {
            self.look_due = now + self.retry.next_wait().min(LOOK_EVERY);
        } else {
            self.look_due = now + LOOK_AGAIN;
            if self.blind >= BLIND {
                self.drift = Some(format!("it is not known what is public: {reason}"));
            }
        }
        self.state = State::Unknown;
        self.cause = Cause::Lasting(reason);
        // Not by the first one that fails: systemd's SIGTERM goes to the whole control group, a look under way among it.
        self.stopped = self.stopping && self.child == Held::None && self.blind >= BLIND;
    }

    fn wants_open(&self) -> bool {
        self.proxy.objection().is_none() && !self.stopping && self.child == Held::None
    }

    /// Why the funnel's process must not go on; none where it may.
    fn must_end(&mut self, now: Instant) -> Option<Cause> {
        let obstacle = match self.child {
            Held::None | Held::Ending => return None,
            Held::Opening(since) if now.duration_since(since) >= OPEN_WITHIN => {
                Some("tailscale funnel did not open within 10 s; it may wait for a person: run it by hand once".into())
            }
            _ => self.drift.take(),
        };
        if let Some(obstacle) = obstacle {
            self.obstacle = Some(obstacle.clone());
            return Some(Cause::Lasting(obstacle));
        }
        if self.stopping { Some(Cause::Change("the gate stops".to_owned())) } else { self.proxy.objection() }
    }

    fn decide(&mut self, now: Instant) -> Vec<Action> {
        self.turned = now;
        let mut actions = Vec::new();
        if let Some(cause) = self.must_end(now) {
            self.rest_before_reopening(now);
            self.child = Held::Ending;
            self.changed = now;
            // What holds until the next look: still open as far as anybody knows, and on its way to be closed.
            self.cause = cause;
            actions.push(Action::Kill);
        }
        if !self.stopping {
            actions.extend(self.proxy.questions(now));
        }
        if self.job.is_none()
            && self.child != Held::Ending
            && !self.stopped
            && let Some(job) = self.next_job(now)
        {
            self.job = Some(now);
            actions.push(Action::Run(job));
        }
        actions
    }

    fn next_job(&mut self, now: Instant) -> Option<Job> {
        if self.stray && now >= self.close_due {
            return Some(Job::Close);
        }
        // A look that has to tell what is public comes before everything but closing.
        if self.state == State::Closed && self.wants_open() && !self.stray && now >= self.reopen_at {
            return Some(Job::Prepare);
        }
        if now < self.look_due {
            return None;
        }
        Some(Job::Look)
    }
}
