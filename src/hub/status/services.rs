use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::states::State;
use super::{FUNNEL, Facts, Level, Reason};
use crate::config::Source;
use crate::gate;
use crate::hub::units::Unit;
use crate::log::rfc3339;
use crate::records::{self, Details, Door, FormerName, Outcome, Pipeline, SERVICES, ago, seconds_between, span};
use crate::state::{Record, Run};

/// The host is measured every minute.
const METRICS_STALE: u64 = 5 * 60;
/// How long a new name of the node is a reason, in seconds: 3 days, as long as GitHub can send a delivery again.
const RENAMED_LATELY: u64 = 3 * 24 * 3600;
/// The gate writes its record anew every 15 minutes, changed or not.
const GATE_STALE: u64 = 20 * 60;
/// Pipelines run daily.
const READING_STALE: u64 = 26 * 3600;

/// A service as status shows it.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub service: &'static str,
    pub level: Level,
    /// One or two words.
    pub state: String,
    /// Since when a service that is always on runs, RFC 3339.
    pub since: Option<String>,
    /// systemd's words for its units: `active (running), enabled`.
    pub units: BTreeMap<String, String>,
    pub last_run: Option<LastRun>,
    /// True where it runs now, or will by itself.
    #[serde(skip)]
    pub runs: bool,
}

/// The newest run of a record.
#[derive(Debug, Serialize)]
pub(super) struct LastRun {
    pub started: String,
    pub duration_ms: u64,
    pub status: String,
    pub counts: Map<String, Value>,
    pub error: Option<String>,
}

/// The public door, by the gate's record.
#[derive(Debug, Serialize)]
pub(super) struct Funnel {
    pub state: String,
    pub reason: String,
    pub since: Option<String>,
    pub url: Option<String>,
    /// False where the record is older than it may be, or its gate has gone.
    pub current: bool,
}

/// Judges the services, and gathers why one is not healthy.
pub(super) struct Judge<'a> {
    pub facts: &'a Facts,
    pub reasons: Vec<Reason>,
}

impl Judge<'_> {
    /// All services, each with its record where it has one.
    pub fn all(&mut self, records: &[Record]) -> Vec<Service> {
        let record = |service| records.iter().find(|record| record.service == service);
        SERVICES.iter().map(|(service, _)| self.judge(service, record(*service))).collect()
    }

    fn judge(&mut self, service: &'static str, record: Option<&Record>) -> Service {
        let before = self.reasons.len();
        let state = self.facts.state(service, record);
        let judged = record.is_some_and(|record| self.last_run(service, record, &state));
        let mut wrong = state.wrong;
        if let Some(reason) = record.filter(|_| state.runs || wrong.is_some()).and_then(records::refused_configuration)
        {
            self.refused_configuration(service, &reason.reason);
            // It listens where its own configuration says.
            wrong = wrong.filter(|_| service != "proxy" || !self.facts.lives);
        }
        // A failed unit says no more than the record of the run that failed.
        if let Some((level, reason, mend)) = wrong.filter(|_| !(judged && state.word == "failed")) {
            self.reasons.push(Reason::new(level, service, reason, mend));
        }
        let level = self.reasons[before..].iter().map(|reason| reason.level).max().unwrap_or(Level::Healthy);
        Service {
            service,
            level,
            state: state.word,
            since: state.since.map(rfc3339),
            units: self.facts.units_of(service).map(|(name, unit)| (name.to_owned(), words(unit))).collect(),
            last_run: record.map(|record| LastRun::from(&record.last)),
            runs: state.runs,
        }
    }

    /// That a service goes on with an older configuration, unless the disk's own is told to be wrong already.
    fn refused_configuration(&mut self, service: &'static str, reason: &str) {
        let is_told = self.facts.config.as_ref().err().is_some_and(|error| error == reason)
            || self.reasons.iter().any(|told| told.reason.ends_with(reason));
        if !is_told {
            let mend = self.facts.hub("doctor");
            self.reasons.push(Reason::new(Level::Degraded, service, records::refused(service, reason), mend));
        }
    }

    /// What the newest run says; true where it says that something is wrong.
    fn last_run(&mut self, service: &'static str, record: &Record, state: &State) -> bool {
        let run = &record.last;
        let error = run.error.clone().unwrap_or_else(|| run.status.replace('_', " "));
        let look = self.facts.journal(service);
        let mut say =
            |level, reason: String, mend: String| self.reasons.push(Reason::new(level, service, reason, mend));
        let age = run.started.parse().map(|at| seconds_between(at, self.facts.now)).unwrap_or(u64::MAX);
        let start = |unit: &str| {
            if state.runs { look.clone() } else { self.facts.start(unit).to_owned() }
        };
        let failed = Outcome::of(run) == Outcome::Failed;
        match service {
            // Its record is about an earlier process; one that is alive has got over that.
            "proxy" if failed && !state.runs => say(Level::Failed, error, look.clone()),
            "gitops-sync" if failed => say(
                level_of(&run.status),
                records::failed_repositories(run).map_or(error, |told| format!("the last run: {told}")),
                look.clone(),
            ),
            "reading-sync" if failed => say(Level::Failed, error, look.clone()),
            "reading-sync" if age > READING_STALE && !self.facts.has_no_pipeline() => {
                let reason = format!("the pipelines ran {} ago, and should daily", span(age));
                say(Level::Degraded, reason, start("reading-sync.timer"));
            }
            "system-metrics" => {
                match run.status.as_str() {
                    "spooled" => {
                        let rows = waiting(record).unwrap_or(0);
                        let reason = format!("{rows} rows wait, the database does not take them: {error}");
                        say(Level::Degraded, reason, self.facts.hub("doctor"));
                    }
                    "lost" | "failed" => say(Level::Failed, format!("samples were lost: {error}"), look.clone()),
                    _ => {}
                }
                if age > METRICS_STALE {
                    let reason = format!("the last sample is {} old, and there should be one a minute", span(age));
                    say(Level::Degraded, reason, start("system-metrics.timer"));
                }
            }
            _ => {}
        }
        failed && service != "tailscale-gate" && service != "proxy"
    }

    /// Which pipelines failed, and what they could not store and keep.
    pub fn pipelines(&mut self, pipelines: &[Pipeline]) {
        let now = self.facts.now;
        for pipeline in pipelines {
            // The one of the record's newest run is told already.
            if let Some(error) = &pipeline.failed
                && !self.reasons.iter().any(|reason| reason.reason == *error)
            {
                let look = self.facts.journal("reading-sync");
                self.reasons.push(Reason::new(Level::Failed, "reading-sync", error, look));
            }
            let counted = pipeline.kept.as_ref().map(|kept| ago(&kept.counted, now)).unwrap_or_default();
            let mut say = |what: String, mend| {
                let reason = format!("{what} (counted {counted})");
                self.reasons.push(Reason::new(Level::Degraded, "reading-sync", reason, mend));
            };
            if let Some(what) = pipeline.dead_letters() {
                say(what, self.facts.hub("dead-letters"));
            }
            let inbox = self.facts.pipelines().find(|known| known.name == pipeline.pipeline);
            if let (Some(what), Some(Source::Folder(path))) =
                (pipeline.damaged_files(), inbox.map(|known| &known.source))
            {
                say(what, records::look_into_failed(path));
            }
        }
    }

    /// The funnel, by the record of the gate.
    pub fn funnel(&mut self, records: &[Record]) -> Option<Funnel> {
        let record = records.iter().find(|record| record.service == "tailscale-gate")?;
        let door = Door::known(&record.last);
        let state = if door.state.is_empty() { record.last.status.clone() } else { door.state };
        let reason = door.reason;
        let is_installed = self.facts.units_of("tailscale-gate").next().is_some();
        let active = self.facts.units_of("tailscale-gate").any(|(_, unit)| unit.is_active());
        let runs = if is_installed { active } else { gate::writer(record).is_some() };
        let written = door.written.and_then(|at| at.parse().ok());
        let age = written.map(|at| seconds_between(at, self.facts.now));
        let current = runs && age.is_some_and(|age| age <= GATE_STALE);
        let mut say = |level, reason: String, mend: &str| {
            self.reasons.push(Reason::new(level, FUNNEL, reason, mend));
        };
        let look = "tailscale-gate status";
        match (runs, state.as_str()) {
            (true, _) if !current => {
                let age = age.map_or_else(|| "of unknown age".to_owned(), |age| format!("{} old", span(age)));
                say(
                    Level::Degraded,
                    format!("the gate runs, and its record is {age}: nobody knows what is public"),
                    look,
                );
            }
            (_, "open") if record.last.error.is_some() => say(Level::Failed, reason.clone(), "tailscale-gate close"),
            (false, "open") => {
                let reason = "the record says open, and no gate runs: the port may be public without a guard";
                say(Level::Degraded, reason.to_owned(), "tailscale-gate close");
            }
            (_, "unreachable") => {
                say(Level::Degraded, format!("open, and nobody reaches it: {reason}"), "tailscale status");
            }
            (_, "unknown") => say(Level::Degraded, format!("nobody knows what is public: {reason}"), look),
            (true, "closed") => say(Level::Degraded, format!("closed: {reason}"), &self.facts.hub("doctor")),
            _ => {}
        }
        if let Some(left) = door.key_expiry.and_then(|at| at.parse().ok()).map(|at| seconds_between(self.facts.now, at))
            && runs
            && left <= gate::KEY_EXPIRES_SOON
        {
            let reason = match left {
                0 => "this node's key has expired: nobody reaches it".to_owned(),
                left => format!("this node's key expires in {}, and the funnel closes with it", span(left)),
            };
            say(Level::Degraded, reason, "tailscale up --force-reauth");
        }
        if let Some(FormerName { dns_name: name, until }) = door.former_name
            && until.parse().is_ok_and(|until| seconds_between(until, self.facts.now) <= RENAMED_LATELY)
        {
            let now = door.url.as_deref().unwrap_or_default();
            let reason = format!("this node was called {name} until {until}; the forge needs its new address, {now}");
            say(Level::Degraded, reason, "hub webhook-test");
        }
        let current = current || (!runs && state == "closed");
        Some(Funnel { state, reason, since: door.since, url: door.url, current })
    }
}

/// What was rolled back or refused leaves the last good commit in place.
fn level_of(status: &str) -> Level {
    if matches!(status, "rolled_back" | "refused") { Level::Degraded } else { Level::Failed }
}

/// The rows that wait for the database, as the last run counted them; none where there are none.
pub(super) fn waiting(record: &Record) -> Option<u64> {
    record.last.counts.get("waiting").and_then(Value::as_u64).filter(|rows| *rows > 0)
}

/// systemd's words.
fn words(unit: &Unit) -> String {
    let file = if unit.file.is_empty() { String::new() } else { format!(", {}", unit.file) };
    format!("{} ({}){file}", unit.active, unit.sub)
}

impl From<&Run> for LastRun {
    fn from(run: &Run) -> Self {
        Self {
            started: run.started.clone(),
            duration_ms: run.duration_ms,
            status: run.status.clone(),
            counts: run.counts.clone(),
            error: run.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
