use std::time::{Duration, Instant};

use super::{Action, Cause, PERIOD};
use crate::gate::health::Failure;

/// Good answers in a row that make the proxy healthy.
const RISE: u8 = 3;
/// Missing answers in a row that make it ill.
const FALL: u8 = 2;
/// How long a proxy that is flooded from outside, and not hung, may take for one good answer.
const FLOODED: Duration = Duration::from_secs(5);
/// How often a proxy is asked again whether it has a secret: it may get one, and lose it, while it lives.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What is known about the proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    connecting: bool,
    instance: Option<String>,
    absent: String,
    asking: bool,
    check_due: Instant,
    hits: u8,
    misses: u8,
    healthy: bool,
    ill: Option<String>,
    flooded: bool,
    probing: bool,
    probe_due: Instant,
    probe_answered: bool,
    probe_misses: u8,
    guarded: Option<bool>,
    guard_due: Instant,
}

impl Proxy {
    pub fn new(now: Instant) -> Self {
        Self {
            connecting: false,
            instance: None,
            absent: "the gate has just started".to_owned(),
            asking: false,
            check_due: now,
            hits: 0,
            misses: 0,
            healthy: false,
            ill: None,
            flooded: false,
            probing: false,
            probe_due: now,
            probe_answered: false,
            probe_misses: 0,
            guarded: None,
            guard_due: now,
        }
    }

    pub fn appeared(&mut self, instance: String, now: Instant) {
        (self.connecting, self.instance) = (false, Some(instance));
        (self.hits, self.misses, self.healthy) = (0, 0, false);
        (self.ill, self.guarded, self.flooded) = (None, None, false);
        self.check_due = now;
    }

    pub fn vanished(&mut self, reason: String) {
        (self.connecting, self.instance, self.healthy, self.flooded) = (false, None, false, false);
        self.absent = reason;
    }

    /// Takes the answer to `Check`.
    pub fn judge(&mut self, answer: Result<String, Failure>) {
        self.asking = false;
        let Some(expected) = &self.instance else { return };
        match answer {
            Ok(instance) if &instance == expected => {
                (self.misses, self.flooded, self.probe_answered) = (0, false, false);
                self.hits = self.hits.saturating_add(1);
                if self.hits >= RISE {
                    (self.healthy, self.ill) = (true, None);
                }
            }
            // Proof, not a suspicion: it closes at once.
            Ok(_) => self.fall_ill("a stranger answers on the proxy's port: it names another instance".to_owned()),
            // Whoever fills the public listener makes it late; a proxy that is hung answers nowhere.
            Err(Failure::Late(_)) if self.healthy && self.probe_answered && !self.flooded => self.flooded = true,
            Err(failure) => {
                self.hits = 0;
                self.misses = self.misses.saturating_add(1);
                if self.misses >= FALL || self.flooded {
                    self.fall_ill(failure.to_string());
                }
            }
        }
    }

    /// Takes the answer to `Probe`: whether the listener that nobody outside reaches answers.
    pub fn probed(&mut self, answered: bool) {
        (self.probing, self.probe_answered) = (false, answered);
        self.probe_misses = if answered { 0 } else { self.probe_misses.saturating_add(1) };
        if self.flooded && self.probe_misses >= FALL {
            self.fall_ill(Failure::Late(PERIOD).to_string());
        }
    }

    fn fall_ill(&mut self, reason: String) {
        (self.hits, self.healthy, self.flooded) = (0, false, false);
        self.ill = Some(reason);
    }

    /// Takes the answer to `Ask`.
    pub fn guards(&mut self, answer: Result<bool, Failure>, now: Instant) {
        self.asking = false;
        self.guard_due = now + ASK_AGAIN;
        match answer {
            Ok(guarded) => self.guarded = Some(guarded),
            Err(reason) => self.judge(Err(reason)),
        }
    }

    /// Why it does not count as healthy; none where it does.
    pub fn illness(&self) -> Option<Cause> {
        if self.instance.is_none() {
            return Some(Cause::Lasting(self.absent.clone()));
        }
        let hopes = || Cause::Change(format!("waiting for {RISE} good answers from the proxy"));
        (!self.healthy).then(|| self.ill.clone().map_or_else(hopes, Cause::Lasting))
    }

    /// Why it must not be published; none where it may.
    pub fn objection(&self) -> Option<Cause> {
        self.illness().or_else(|| match self.guarded {
            Some(true) => None,
            Some(false) => Some(Cause::Lasting(
                "no webhook secret is configured, so the proxy takes no delivery; put one into the credential \
                 webhook-secret"
                    .to_owned(),
            )),
            None => Some(Cause::Change("waiting to see that the proxy refuses unsigned deliveries".to_owned())),
        })
    }

    /// When the next question is due; none while nothing is to be asked.
    pub fn due(&self) -> Option<Instant> {
        let check = (!self.connecting && !self.asking).then_some(self.check_due);
        let probe = (self.flooded && !self.probing).then_some(self.probe_due);
        check.into_iter().chain(probe).min()
    }

    /// The questions that are due.
    pub fn questions(&mut self, now: Instant) -> Vec<Action> {
        let mut questions = Vec::new();
        if !self.connecting && !self.asking && now >= self.check_due {
            self.check_due = now + PERIOD;
            questions.push(self.question(now));
        }
        // Beside the second try after a miss, so that it costs a hang no time; then as long as the flood lasts.
        let doubtful = self.healthy && (self.flooded || (self.misses > 0 && !questions.is_empty()));
        if doubtful && !self.probing && now >= self.probe_due {
            self.probe_due = now + PERIOD;
            (self.probing, self.probe_answered) = (true, false);
            if !self.flooded {
                self.probe_misses = 0;
            }
            questions.push(Action::Probe);
        }
        questions
    }

    fn question(&mut self, now: Instant) -> Action {
        if self.instance.is_none() {
            self.connecting = true;
            return Action::Connect;
        }
        self.asking = true;
        // In doubt the question is whether it lives.
        let well = self.healthy && !self.flooded && self.misses == 0;
        let ask = match self.guarded {
            None => self.healthy,
            Some(_) => well && now >= self.guard_due,
        };
        if ask { Action::Ask } else { Action::Check(if self.flooded { FLOODED } else { PERIOD }) }
    }
}
