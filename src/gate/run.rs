//! The loop: one thread that waits for the proxy's end, its answers, the funnel's process, the worker and signals.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::alive::{self, Alive, News};
use super::funnel::Funnel;
use super::health::{Answer, Check, Failure, Question};
use super::machine::{Action, Event, Machine, PERIOD, State};
use super::report::Reporter;
use super::tailscale::Tailscale;
use super::target::{Target, folder, publishable};
use super::worker::Worker;
use crate::command::timespec;
use crate::config::{Config, Look, Renew, Renewal};
use crate::program::{Asked, Exit, Signals};
use crate::state::Lock;
use crate::systemd::Watchdog;
use crate::{log, systemd};

/// How long the end may take; systemd's own patience is longer.
const STOP_WITHIN: Duration = Duration::from_secs(20);

struct Gate {
    machine: Machine,
    tailscale: Tailscale,
    worker: Worker,
    reporter: Reporter,
    folders: Vec<PathBuf>,
    made_for: Moved,
    alive: Option<Alive>,
    /// The question to the public listener, and the one to the other.
    checks: [Option<Check>; 2],
    funnel: Option<Funnel>,
    signals: Signals,
    stopping: Option<Instant>,
    /// What comes after the stop; none where that is the end.
    moving: Option<Moved>,
}

/// What a gate is made for.
#[derive(Clone)]
struct Moved {
    config: Config,
    target: Target,
}

/// Keeps the door until a signal asks for the end.
pub(super) fn keep(mut renewal: Renewal, target: Target) -> Exit {
    let started = Signals::watch().map_err(not_given).and_then(|signals| {
        let lock = Lock::attempt(&folder(renewal.config()).map_err(|error| error.to_string())?, "lock");
        Ok((signals, lock.map_err(|error| error.to_string())?))
    });
    let (mut signals, _lock) = match started {
        Ok((signals, Some(lock))) => (signals, lock),
        Ok((_, None)) => {
            log::error!("already_running", error = "another tailscale-gate runs with this state folder; stop it first");
            return Exit::Busy;
        }
        Err(error) => return failed(&error),
    };
    let mut next = Moved { config: renewal.config().clone(), target };
    let mut is_first = true;
    loop {
        let mut gate = match prepare(&next, signals) {
            Ok(gate) => gate,
            Err(error) => return failed(&error),
        };
        let Moved { config, target } = &next;
        log::info!("watching", port = config.gate.port, target = target.url, proxy = target.address.to_string());
        if std::mem::take(&mut is_first) {
            systemd::ready("started");
        }
        let result = gate.run(&mut renewal);
        let (state, cause) = gate.machine.state();
        gate.reporter.finish(!matches!(result, Ok(Some(_))), &gate.worker.facts());
        match (result, state) {
            (Ok(None), State::Closed) => {
                log::info!("stopped", port = config.gate.port);
                return Exit::Done;
            }
            (Ok(Some(moved)), state) => {
                if state != State::Closed {
                    let reason = format!("nobody knows whether the port that is left is closed: {cause}");
                    log::error!("left_without_closing", port = config.gate.port, reason = reason);
                }
                next = moved;
            }
            (result, _) => {
                let reason = result.err().unwrap_or_else(|| cause.to_string());
                log::error!("stopped_without_closing", port = config.gate.port, error = reason);
                return Exit::Error;
            }
        }
        signals = gate.signals;
    }
}

fn failed(error: &str) -> Exit {
    log::error!("gate_failed", error = error);
    Exit::Error
}

fn not_given(error: std::io::Error) -> String {
    format!("the system does not give what the gate needs: {error}")
}

fn prepare(Moved { config, target }: &Moved, signals: Signals) -> Result<Gate, String> {
    let folder = || folder(config).map_err(|error| error.to_string());
    let tailscale = || Tailscale::new(&config.gate, &target.url);
    Ok(Gate {
        machine: Machine::new(Instant::now()),
        tailscale: tailscale(),
        worker: Worker::start(tailscale().with_folder(folder()?)).map_err(not_given)?,
        reporter: Reporter::start(folder()?, config.gate.port, target.url.clone()).map_err(not_given)?,
        folders: alive::folders(&config.state_dir),
        made_for: Moved { config: config.clone(), target: target.clone() },
        alive: None,
        checks: [None, None],
        funnel: None,
        signals,
        stopping: None,
        moving: None,
    })
}

impl Renew for Gate {
    type Prepared = Target;

    fn prepare(&self, config: &Config) -> Result<Target, String> {
        publishable(config)
    }

    fn renew(&mut self, config: &Config, target: Target) -> Result<(), String> {
        let Moved { config: before, target: old } = &self.made_for;
        if *old != target || before.gate.port != config.gate.port || before.gate.socket != config.gate.socket {
            self.moving = Some(Moved { config: config.clone(), target });
        }
        Ok(())
    }
}

impl Gate {
    /// Keeps the door until its end; what comes next, where it is to move.
    fn run(&mut self, renewal: &mut Renewal) -> Result<Option<Moved>, String> {
        let mut watchdog = Watchdog::from_environment();
        let mut looked = Instant::now();
        self.reporter.renewed(renewal);
        loop {
            let now = Instant::now();
            watchdog.attend(now);
            self.attend(now, renewal)?;
            if now >= renewal.due(looked) && self.stopping.is_none() {
                looked = now;
                if renewal.look(now, self) != Look::Nothing {
                    self.reporter.renewed(renewal);
                }
                if self.moving.is_some() {
                    // Closed and verified on the old port before anything is opened on the new one.
                    log::info!("moving", reason = "hub.toml names another port, socket or proxy");
                    self.stopping = Some(now);
                    self.feed(Event::Stop)?;
                }
            }
            self.feed(Event::Tick)?;
            self.reporter.observe(self.machine.state(), &self.worker.facts(), Instant::now());
            if self.machine.stopped() {
                return Ok(self.moving.take());
            }
            if self.stopping.is_some_and(|since| now.duration_since(since) >= STOP_WITHIN) {
                return Err(format!("it is not verified after {} s that the port is closed", STOP_WITHIN.as_secs()));
            }
            self.wait(watchdog.turn(PERIOD))?;
        }
    }

    /// Waits until something happens, at most until the next deadline.
    fn wait(&self, longest: Duration) -> Result<(), String> {
        let signals = self.signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut waited = Vec::from(signals);
        let (worker, alive) = (self.worker.fd(), self.alive.as_ref().map(Alive::fd));
        waited.push(PollFd::from_borrowed_fd(worker, PollFlags::IN));
        waited.extend(alive.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let checks = self.checks.iter().flatten();
        waited.extend(checks.clone().map(Check::fd).map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        if let Some(funnel) = &self.funnel {
            waited.push(PollFd::from_borrowed_fd(funnel.ended(), PollFlags::IN));
            waited.extend(funnel.pipes().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        let mut deadlines: Vec<Instant> = checks.map(Check::deadline).collect();
        deadlines.push(self.machine.wake());
        deadlines.extend(self.alive.as_ref().and_then(Alive::deadline));
        let now = Instant::now();
        let next = deadlines.into_iter().map(|at| at.saturating_duration_since(now)).min();
        let left = next.unwrap_or(longest).min(longest);
        match poll(&mut waited, Some(&timespec(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(format!("the loop cannot wait: {error}")),
        }
    }

    /// Looks after everything that may have happened; nothing here waits. The proxy's end comes first.
    fn attend(&mut self, now: Instant, renewal: &mut Renewal) -> Result<(), String> {
        match self.alive.as_mut().map_or(News::None, |alive| alive.news(now)) {
            News::None => {}
            News::Instance(instance) => self.feed(Event::Alive(instance))?,
            News::Gone(reason) => {
                self.alive = None;
                self.feed(Event::NotAlive(reason))?;
            }
        }
        // The probe first: what it tells decides what a late answer means.
        for slot in [1, 0] {
            if let Some(check) = &mut self.checks[slot]
                && let Some(answer) = check.advance(now)
            {
                let question = check.question;
                self.checks[slot] = None;
                let event = self.judged(question, answer);
                self.feed(event)?;
            }
        }
        if let Some(funnel) = &mut self.funnel {
            let spoke = funnel.drain();
            if funnel.has_ended()? {
                let how = self.funnel.take().map_or_else(String::new, Funnel::reap);
                self.feed(Event::Ended(how))?;
            } else if spoke {
                self.feed(Event::Spoke)?;
            }
        }
        while let Some(report) = self.worker.report() {
            self.feed(Event::Done(report))?;
        }
        match self.signals.asked().map_err(not_given)? {
            Some(Asked::Stop) if self.stopping.is_none() || self.moving.take().is_some() => {
                log::info!("stopping");
                systemd::stopping();
                self.stopping = Some(now);
                self.feed(Event::Stop)?;
            }
            Some(Asked::Reload) => {
                log::info!("reload_asked");
                renewal.ask();
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self, question: Question, answer: Result<Answer, Failure>) -> Event {
        match question {
            Question::Health => Event::Health(answer.and_then(|answer| match answer {
                Answer { status: 200, instance: Some(instance) } => Ok(instance),
                Answer { status: 200, .. } => {
                    Err(Failure::Wrong("what answers on the proxy's port does not name an instance".to_owned()))
                }
                Answer { status, .. } => Err(Failure::Wrong(format!("the proxy answers {status} to GET /healthz"))),
            })),
            Question::Probe => Event::Probed(answer.is_ok()),
            Question::Guard => Event::Guarded(answer.map(|answer| self.is_guarded(answer.status))),
        }
    }

    /// Whether deliveries are checked, by the answer to an unsigned one. The proxy knows, and so the gate needs no
    /// secret of its own; where the answer says neither yes nor no, a secret that this process can see decides.
    fn is_guarded(&self, status: u16) -> bool {
        match status {
            401 => true,
            503 => false,
            _ => self.made_for.config.credentials().webhook_secrets().is_ok_and(|secrets| !secrets.is_empty()),
        }
    }

    /// Gives the machine an event, does what it asks for, and gives it what comes of that.
    fn feed(&mut self, event: Event) -> Result<(), String> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = Instant::now();
            for action in self.machine.step(event, now) {
                events.extend(self.perform(action, now)?);
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: Action, now: Instant) -> Result<Option<Event>, String> {
        let (slot, question, address, limit) = match action {
            Action::Connect => {
                return match Alive::connect(&self.folders, now) {
                    Ok(alive) => {
                        self.alive = Some(alive);
                        Ok(None)
                    }
                    Err(reason) => Ok(Some(Event::NotAlive(reason))),
                };
            }
            Action::Run(job) => return self.worker.run(job).map(|()| None),
            Action::Start => return Ok(self.open().err().map(Event::Ended)),
            Action::Kill => {
                self.reporter.closing(now);
                if let Some(funnel) = &mut self.funnel {
                    funnel.kill();
                }
                return Ok(None);
            }
            Action::Check(limit) => (0, Question::Health, self.made_for.target.address, limit),
            Action::Ask => (0, Question::Guard, self.made_for.target.address, PERIOD),
            Action::Probe => (1, Question::Probe, self.made_for.target.admin, PERIOD),
        };
        match Check::start(question, address, now, limit) {
            Ok(check) => {
                self.checks[slot] = Some(check);
                Ok(None)
            }
            Err(failure) => Ok(Some(self.judged(question, Err(failure)))),
        }
    }

    fn open(&mut self) -> Result<(), String> {
        let child = self.tailscale.open().map_err(|error| error.to_string())?;
        self.funnel = Some(Funnel::attend(child).map_err(|error| error.to_string())?);
        Ok(())
    }
}
