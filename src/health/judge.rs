use super::{Cause, Level, Reason, Seen};
use crate::records::{SERVICES, span};

/// Gathers reasons.
pub(super) struct Judge<'a> {
    pub seen: &'a Seen<'a>,
    pub reasons: Vec<Reason>,
}

impl Judge<'_> {
    /// Adds a reason; its `since` is the caller's to write.
    pub fn say(
        &mut self,
        level: Level,
        key: impl Into<String>,
        about: &str,
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.say_since(None, level, key, about, reason, mend);
    }

    /// The same, with the instant since when it is so.
    pub fn say_since(
        &mut self,
        since: Option<&str>,
        level: Level,
        key: impl Into<String>,
        about: &str,
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let reason = reason.into();
        self.reasons.push(Reason {
            key: key.into(),
            level,
            about: about.to_owned(),
            comes_of: Cause::of_words(&reason),
            reason,
            mend: Some(mend.into()).filter(|mend| !mend.is_empty()),
            since: since.filter(|since| !since.is_empty()).map(str::to_owned),
        });
    }

    /// Writes down what the newest reason comes of, where its own words do not say it.
    pub fn comes_of(&mut self, cause: Option<Cause>) {
        if let Some(reason) = self.reasons.last_mut() {
            reason.comes_of = reason.comes_of.or(cause);
        }
    }

    fn configuration(&mut self) {
        let seen = self.seen;
        let doctor = seen.ways.hub("doctor");
        if let Err(error) = seen.config {
            let reason = format!("{error}; what runs goes on as before, and nothing starts with it");
            self.say(Level::Failed, "configuration/invalid", "configuration", reason, doctor);
        }
        let renewing = seen.units.and_then(|units| units.get("hub-credentials.service"));
        if renewing.is_some_and(|unit| unit.active == "failed") {
            let reason = "changed credentials were refused, or not taken; what runs goes on with those that it has";
            let look = "journalctl -u hub-credentials -n 20, then: hub credentials";
            self.say(Level::Degraded, "credentials/refused", "credentials", reason, look);
        }
        if let Some(error) = seen.units_error {
            let reason = format!("systemd does not report how the units are: {error}");
            self.say(Level::Degraded, "units/unknown", "services", reason, "systemctl status");
        }
    }

    fn waits(&mut self) {
        for wait in self.seen.waits {
            let (key, reason) = match wait.waiter {
                Some((waiter, age)) => {
                    let reason =
                        format!("process {waiter} waits for {} for the lock that {} holds", span(age), wait.described);
                    ("waited-for", reason)
                }
                None => {
                    let reason =
                        format!("{} holds the lock of {}, which cannot work meanwhile", wait.described, wait.service);
                    ("strange-lock", reason)
                }
            };
            let mend = format!("ps -fp {}", wait.holder);
            self.say(Level::Degraded, format!("{}/{key}", wait.lock), wait.service, reason, mend);
        }
    }

    /// Since when it is so, where nobody but hub watch wrote that down.
    fn remember(&mut self) {
        let Some(look) = self.seen.left.look.get() else { return };
        for reason in self.reasons.iter_mut().filter(|reason| reason.since.is_none()) {
            reason.since = look.since.get(&reason.key).cloned();
        }
    }

    fn unreadable(&mut self) {
        for trouble in &self.seen.left.unreadable {
            let (key, mend) = if trouble.is_denied {
                let mend = "run it as root, or: usermod -aG hub NAME, and log in again";
                ("denied", mend.to_owned())
            } else {
                ("unreadable", self.seen.ways.hub("doctor"))
            };
            self.say(Level::Degraded, format!("state/{}/{key}", trouble.path), "state", &trouble.sentence, mend);
        }
    }
}

/// Why this host is not healthy, the worst first; empty where it is, as far as it can be seen.
pub fn judge(seen: &Seen<'_>) -> Vec<Reason> {
    let mut judge = Judge { seen, reasons: Vec::new() };
    judge.configuration();
    judge.repositories();
    judge.queue();
    judge.waits();
    let mut runs = false;
    for (service, _) in SERVICES {
        runs |= judge.service(service);
    }
    judge.pipelines();
    judge.door();
    judge.limits();
    judge.failed_units();
    if !runs && seen.units_error.is_none() && !seen.is_fresh() {
        let reason = "nothing of the hub runs here, so none of this is up to date";
        judge.say(Level::Degraded, "units/none-runs", "services", reason, seen.ways.start_all());
    }
    judge.unreadable();
    judge.remember();
    judge.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
    judge.reasons
}
