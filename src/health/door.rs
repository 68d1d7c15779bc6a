use serde::Serialize;

use super::judge::Judge;
use super::{Level, Seen};
use crate::config::Limits;
use crate::records::{Details, Door, Found, seconds_between, span};

/// What the reasons about the public door are told under.
const FUNNEL: &str = "funnel";
/// How long a new name of the node is a reason, in seconds: 3 days, as long as GitHub can send a delivery again.
const RENAMED_LATELY: u64 = 3 * 24 * 3600;
/// The gate writes its record anew every 15 minutes, changed or not.
const GATE_STALE: u64 = 20 * 60;

/// The public door, by the gate's record.
#[derive(Clone, Debug, Serialize)]
pub struct Funnel {
    /// `open`, `closed`, `unreachable` or `unknown`.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// The public address.
    pub url: Option<String>,
    /// False where the record is older than it may be, or its gate has gone.
    pub current: bool,
}

/// What is known of the gate besides its record.
struct Gate {
    door: Door,
    /// None where that cannot be seen.
    runs: Option<bool>,
    age: Option<u64>,
    /// Its gate ended with the host, and with it what it held open: a funnel in the foreground outlives no process.
    is_over: bool,
}

impl Gate {
    fn of(seen: &Seen<'_>) -> Option<Self> {
        let record = seen.left.service("tailscale-gate").take()?;
        let mut door = Door::known(&record.last);
        if door.state.is_empty() {
            door.state.clone_from(&record.last.status);
        }
        let mut units = seen.units_of("tailscale-gate").peekable();
        let by_units = units.peek().is_some().then(|| units.any(|(_, unit)| unit.is_active()));
        let age = door.written.as_deref().and_then(|at| seen.age(at));
        // One that runs has written since the start of the host.
        let is_older_than_host = seen.is_before_boot(door.written.as_deref());
        let runs = by_units.or(seen.left.gate).or((door.ended || is_older_than_host).then_some(false));
        let is_over = runs == Some(false) && is_older_than_host;
        // What was open against the gate's will was somebody else's, and may be so again.
        let is_over = is_over && (door.state != "open" || record.last.error.is_none());
        Some(Self { door, runs, age, is_over })
    }

    fn is_fresh(&self) -> bool {
        self.age.is_some_and(|age| age <= GATE_STALE)
    }
}

/// The public door, which is missing where no gate has run here.
pub fn funnel(seen: &Seen<'_>) -> Found<Funnel> {
    let Some(gate) = Gate::of(seen) else { return seen.left.service("tailscale-gate").likewise() };
    let closed = gate.is_over || gate.runs == Some(false) && gate.door.state == "closed";
    let current = closed || gate.runs != Some(false) && gate.is_fresh();
    let Door { state, reason, since, url, .. } = gate.door;
    if gate.is_over && state != "closed" {
        let (reason, since) = ("the gate ended with the host, and has not run since", seen.left.booted);
        let (state, reason, since) = ("closed".to_owned(), reason.to_owned(), since.map(crate::log::rfc3339));
        return Found::There(Funnel { state, reason, since, url, current });
    }
    Found::There(Funnel { state, reason, since, url, current })
}

impl Judge<'_> {
    /// How many days before its end the node's key is told.
    fn key_days(&self) -> Option<f64> {
        self.seen.known_config().map_or_else(|| Limits::default().key_days, |config| config.limits.key_days)
    }

    /// The public door.
    pub fn door(&mut self) {
        let seen = self.seen;
        let Some(gate) = Gate::of(seen).filter(|gate| !gate.is_over) else { return };
        let is_wrong = seen.left.service("tailscale-gate").get().is_some_and(|record| record.last.error.is_some());
        let Gate { door, runs, .. } = &gate;
        let (since, reason) = (door.since.as_deref(), &door.reason);
        let look = "tailscale-gate status";
        let close = "tailscale-gate close";
        match (runs, door.state.as_str()) {
            (Some(true), _) | (None, _) if !gate.is_fresh() => {
                let age = gate.age.map_or_else(|| "of unknown age".to_owned(), |age| format!("{} old", span(age)));
                let gate =
                    if *runs == Some(true) { "the gate runs, and its record is" } else { "the gate's record is" };
                let reason = format!("{gate} {age}: nobody knows what is public");
                self.say_since(door.written.as_deref(), Level::Degraded, "gate/stale", FUNNEL, reason, look);
            }
            (_, "open") if is_wrong => self.say_since(since, Level::Failed, "gate/exposed", FUNNEL, reason, close),
            (Some(false), "open") => {
                let reason = "the record has it open, and no gate runs: the port may be public without a guard";
                self.say_since(since, Level::Degraded, "gate/unguarded", FUNNEL, reason, close);
            }
            (_, "unreachable") => {
                let reason = format!("open, and nobody reaches it: {reason}");
                self.say_since(since, Level::Degraded, "gate/unreachable", FUNNEL, reason, "tailscale status");
            }
            (_, "unknown") => {
                let reason = format!("nobody knows what is public: {reason}");
                self.say_since(since, Level::Degraded, "gate/unknown", FUNNEL, reason, look);
            }
            (Some(true) | None, "closed") => {
                let mend = seen.ways.hub("doctor");
                self.say_since(since, Level::Degraded, "gate/closed", FUNNEL, format!("closed: {reason}"), mend);
            }
            _ => {}
        }
        // The rest is about a door that somebody wants to be open.
        if *runs == Some(false) {
            return;
        }
        if let Some(left) =
            door.key_expiry.as_deref().and_then(|at| at.parse().ok()).map(|at| seconds_between(seen.now, at))
            && self.key_days().is_some_and(|days| left as f64 <= days * 86_400.0)
        {
            let reason = match left {
                0 => "this node's key has expired: nobody reaches it".to_owned(),
                left => format!("this node's key expires in {}, and the funnel closes with it", span(left)),
            };
            self.say(Level::Degraded, "gate/key-expires", FUNNEL, reason, "tailscale up --force-reauth");
        }
        if let Some(former) = &door.former_name
            && seen.age(&former.until).is_some_and(|age| age <= RENAMED_LATELY)
        {
            let reason = format!(
                "this node was called {} until {}; the forge needs its new address, {}",
                former.dns_name,
                former.until,
                door.url.as_deref().unwrap_or_default()
            );
            self.say_since(Some(&former.until), Level::Degraded, "gate/renamed", FUNNEL, reason, "hub webhook-test");
        }
    }
}
