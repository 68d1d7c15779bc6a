//! What the gate says about itself: log lines, the run record, `systemctl status`.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::machine::{Cause, State};
use super::tailscale::Facts;
use crate::config::{InForce, Refused, Renewal};
use crate::records::history::{Event, Kind};
use crate::records::{Details, Door, seconds_between};
use crate::state::{Folder, Record, Run};
use crate::{log, systemd};

/// How long before the end of the node's key the log tells it, in seconds: 14 days.
const KEY_EXPIRES_SOON: u64 = 14 * 24 * 3600;

/// The service's name in records and log lines.
pub(super) const SERVICE: &str = "tailscale-gate";
/// How often a gate whose state does not change says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reports changes, and once in a while that there was none.
pub(super) struct Reporter {
    port: u16,
    target: String,
    last: Option<(State, Cause)>,
    since: jiff::Timestamp,
    begun: Instant,
    said: Instant,
    closing: Option<Instant>,
    expiry_said: Option<Instant>,
    counts: Map<String, Value>,
    in_force: Option<InForce>,
    refused: Option<Refused>,
    /// Whether `refused` is still to be written down.
    is_renewed: bool,
    /// Whether it is the gate's last word.
    ended: bool,
    records: Option<Sender<(Run, bool)>>,
    writer: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Records go to `folder`, from a thread of their own: a slow disk must not delay the closing.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(folder: Folder, port: u16, target: String) -> std::io::Result<Self> {
        let (records, orders) = channel();
        let write = move || {
            Event::new(Kind::Started, "", "started").with("version", crate::VERSION).append(&folder);
            for (run, is_new) in orders {
                if let Err(error) = write(&folder, run, is_new) {
                    log::warn!("run_record_failed", error = error.to_string());
                }
            }
        };
        let writer = std::thread::Builder::new().name("records".to_owned()).stack_size(256 << 10).spawn(write)?;
        let now = Instant::now();
        Ok(Self {
            port,
            target,
            last: None,
            since: jiff::Timestamp::now(),
            begun: now,
            said: now,
            closing: None,
            expiry_said: None,
            counts: Map::new(),
            in_force: None,
            refused: None,
            is_renewed: false,
            ended: false,
            records: Some(records),
            writer: Some(writer),
        })
    }

    /// The funnel's process is being killed: what is measured until it is verified that nothing is public.
    pub fn closing(&mut self, now: Instant) {
        self.closing.get_or_insert(now);
    }

    /// What is in force, and why what is on the disk is not, from now on.
    pub fn renewed(&mut self, renewal: &Renewal) {
        let (in_force, refused) = (renewal.in_force(), renewal.refused().cloned());
        self.is_renewed |= self.refused != refused || self.in_force != in_force;
        (self.in_force, self.refused) = (in_force, refused);
    }

    /// Says what has changed, if anything has.
    pub fn observe(&mut self, (state, cause): (State, Cause), facts: &Facts, now: Instant) {
        self.announce_expiry(facts, now);
        let before = self.last.as_ref().map(|(state, _)| *state);
        let due = now.duration_since(self.said) >= HEARTBEAT;
        let is_known = !due && self.last.as_ref().is_some_and(|last| *last == (state, cause.clone()));
        let is_renewed = std::mem::take(&mut self.is_renewed);
        if is_known && !is_renewed {
            return;
        }
        let is_new = before != Some(state);
        if is_new {
            (self.since, self.begun) = (jiff::Timestamp::now(), now);
            let count = self.counts.get(state.name()).and_then(Value::as_u64).unwrap_or(0);
            self.counts.insert(state.name().to_owned(), (count + 1).into());
        }
        self.last = Some((state, cause.clone()));
        if !is_known {
            self.said = now;
            self.log(state, &cause, is_new, due, facts, now);
        }
        let refused = Refused::suffix(self.refused.as_ref());
        systemd::status(&format!("{}: {cause}{refused}", state.name()));
        self.record((state, &cause), facts, now, is_new);
    }

    fn record(&self, (state, cause): (State, &Cause), facts: &Facts, now: Instant, is_new: bool) {
        let run = self.run(state, cause, facts, now);
        if self.records.as_ref().is_some_and(|records| records.send((run, is_new)).is_err()) {
            log::warn!("run_record_failed", error = "the thread that writes it has ended");
        }
    }

    /// Says once a day that the node's key is about to expire.
    fn announce_expiry(&mut self, facts: &Facts, now: Instant) {
        let Some(expiry) = facts.key_expiry else { return };
        let left = seconds_between(jiff::Timestamp::now(), expiry);
        let said = self.expiry_said.is_some_and(|at| now.duration_since(at) < DAY);
        if left <= KEY_EXPIRES_SOON && !said {
            self.expiry_said = Some(now);
            let reason = if left > 0 {
                "renew it before: tailscale up --force-reauth, or turn its expiry off in the admin console"
            } else {
                "it has expired; run: tailscale up --force-reauth"
            };
            log::warn!("key_expires", at = log::rfc3339(expiry), in_hours = left / 3600, reason = reason);
        }
    }

    fn log(&mut self, state: State, cause: &Cause, is_new: bool, due: bool, facts: &Facts, now: Instant) {
        let (port, reason) = (self.port, cause.to_string());
        match (state, cause) {
            (State::Open, Cause::Lasting(_)) => log::error!("funnel_exposed", port = port, reason = reason),
            (State::Open, _) if is_new => {
                let url = url(facts, port);
                log::info!("funnel_open", port = port, url = url, target = self.target, reason = reason);
            }
            (State::Closed, _) if is_new => {
                let duration = self.closing.take().map(|since| now.duration_since(since).as_millis() as u64);
                log::info!("funnel_closed", port = port, reason = reason, duration_ms = duration);
            }
            (State::Closed, Cause::Lasting(_)) => log::info!("stays_closed", port = port, reason = reason),
            (State::Unreachable, _) => log::warn!("funnel_unreachable", port = port, reason = reason),
            (State::Unknown, Cause::Lasting(_)) => log::warn!("funnel_unknown", port = port, reason = reason),
            _ if due => log::info!("unchanged", state = state.name(), port = port, reason = reason),
            _ => {}
        }
    }

    fn run(&self, state: State, cause: &Cause, facts: &Facts, now: Instant) -> Run {
        // Public without the gate's doing, or nobody knows: that is an error. To be closed is not.
        let wrong = matches!(state, State::Unknown | State::Unreachable)
            || (state == State::Open && matches!(cause, Cause::Lasting(_)));
        Run {
            started: log::rfc3339(self.since),
            duration_ms: now.duration_since(self.begun).as_millis() as u64,
            status: state.name().to_owned(),
            counts: self.counts.clone(),
            error: wrong.then(|| cause.to_string()),
            details: Door {
                state: state.name().to_owned(),
                reason: cause.to_string(),
                since: Some(log::rfc3339(self.since)),
                written: Some(log::now()),
                port: self.port,
                target: Some(self.target.clone()),
                url: url(facts, self.port),
                tailscale_version: facts.version.clone(),
                key_expiry: facts.key_expiry.map(log::rfc3339),
                former_name: facts.former.clone(),
                configuration: self.in_force.clone(),
                configuration_refused: self.refused.clone(),
                pid: Some(std::process::id()),
                ended: self.ended,
            }
            .written(),
        }
    }

    /// Waits until the last record is written. Where the gate `ended`, and does not only go on with another port, it says
    /// so: readers who cannot see whether its process lives tell a door without a gate from one that it keeps shut.
    pub fn finish(mut self, ended: bool, facts: &Facts) {
        self.ended = ended;
        if let Some((state, cause)) = self.last.as_ref().filter(|_| ended) {
            self.record((*state, cause), facts, Instant::now(), false);
        }
        self.records = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            log::warn!("run_record_failed", error = "the thread that writes it has panicked");
        }
    }
}

/// The public address; none before the node's name is known.
fn url(facts: &Facts, port: u16) -> Option<String> {
    let name = facts.name.as_ref()?;
    Some(if port == 443 { format!("https://{name}/") } else { format!("https://{name}:{port}/") })
}

/// A new state becomes a run of its own, anything else renews the last one.
fn write(folder: &Folder, run: Run, is_new: bool) -> Result<(), crate::state::Error> {
    if !is_new && let Some(mut record) = Record::read(folder)? {
        record.last = run;
        return folder.publish_json("run.json", &record);
    }
    add(folder, run)
}

/// Adds a run to the record, and to the history where the state is another one than the record had.
pub(super) fn add(folder: &Folder, run: Run) -> Result<(), crate::state::Error> {
    // A damaged record is told of where it is replaced.
    let before = Record::read(folder).ok().flatten();
    let kind = match run.status.as_str() {
        status if before.is_some_and(|before| before.last.status == status) => None,
        "open" => Some(Kind::Opened),
        "closed" => Some(Kind::Closed),
        "unreachable" => Some(Kind::Unreachable),
        // What nobody knows did not happen.
        _ => None,
    };
    if let Some(kind) = kind {
        let event = Event::new(kind, "", &run.status).because(run.details["reason"].as_str());
        event.with("url", &run.details["url"]).append(folder);
    }
    Record::add(folder, SERVICE, run)
}
