use std::time::{Duration, Instant};

use super::{Action, Cause, PERIOD};

/// Good answers in a row that make the proxy healthy.
const RISE: u8 = 3;
/// Missing answers in a row that make it ill.
const FALL: u8 = 2;
/// How often a proxy without a secret is asked again whether it has one.
const ASK_AGAIN: Duration = Duration::from_secs(15);

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
            guarded: None,
            guard_due: now,
        }
    }

    pub fn appeared(&mut self, instance: String, now: Instant) {
        (self.connecting, self.instance) = (false, Some(instance));
        (self.hits, self.misses, self.healthy) = (0, 0, false);
        (self.ill, self.guarded) = (None, None);
        self.check_due = now;
    }

    pub fn vanished(&mut self, reason: String) {
        (self.connecting, self.instance, self.healthy) = (false, None, false);
        self.absent = reason;
    }

    /// Takes the answer to `Check`.
    pub fn judge(&mut self, answer: Result<String, String>) {
        self.asking = false;
        let Some(expected) = &self.instance else { return };
        match answer {
            Ok(instance) if &instance == expected => {
                self.misses = 0;
                self.hits = self.hits.saturating_add(1);
                if self.hits >= RISE {
                    (self.healthy, self.ill) = (true, None);
                }
            }
            // Proof, not a suspicion: it closes at once.
            Ok(_) => {
                (self.hits, self.healthy) = (0, false);
                self.ill = Some("a stranger answers on the proxy's port: it names another instance".to_owned());
            }
            Err(reason) => {
                self.hits = 0;
                self.misses = self.misses.saturating_add(1);
                if self.misses >= FALL {
                    (self.healthy, self.ill) = (false, Some(reason));
                }
            }
        }
    }

    /// Takes the answer to `Ask`.
    pub fn guards(&mut self, answer: Result<bool, String>, now: Instant) {
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
                 webhook-secret and restart the proxy"
                    .to_owned(),
            )),
            None => Some(Cause::Change("waiting to see that the proxy refuses unsigned deliveries".to_owned())),
        })
    }

    /// When the next question is due; none while one is open.
    pub fn due(&self) -> Option<Instant> {
        (!self.connecting && !self.asking).then_some(self.check_due)
    }

    /// The question that is due, if one is.
    pub fn question(&mut self, now: Instant) -> Option<Action> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        self.check_due = now + PERIOD;
        if self.instance.is_none() {
            self.connecting = true;
            return Some(Action::Connect);
        }
        self.asking = true;
        // A proxy that has a secret keeps it as long as it lives, so one yes is enough.
        let ask = match self.guarded {
            None => self.healthy,
            Some(false) => self.healthy && now >= self.guard_due,
            Some(true) => false,
        };
        Some(if ask { Action::Ask } else { Action::Check })
    }
}
