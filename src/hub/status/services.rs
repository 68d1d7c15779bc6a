use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::facts::Answer;
use super::{Facts, Level, Reason};
use crate::hub::units::Unit;
use crate::log::rfc3339;
use crate::records::{Outcome, SERVICES, seconds_between, span};
use crate::state::{Record, Run};

/// The host is measured every minute.
const METRICS_STALE: u64 = 5 * 60;
/// The gate writes its record anew every 15 minutes, changed or not.
const GATE_STALE: u64 = 20 * 60;
/// Pipelines run daily.
const READING_STALE: u64 = 26 * 3600;

/// What starts a service that does not run all the time.
const STARTERS: [(&str, &[&str]); 3] = [
    ("gitops-sync", &["gitops-sync.path", "gitops-sync.timer"]),
    ("reading-sync", &["reading-sync.timer"]),
    ("system-metrics", &["system-metrics.timer"]),
];

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

/// What systemd, or `hub up`, makes of a service.
struct State {
    word: String,
    runs: bool,
    since: Option<jiff::Timestamp>,
    /// What is wrong with it.
    wrong: Option<(Level, String, String)>,
}

impl State {
    fn new(word: &str, runs: bool) -> Self {
        Self { word: word.to_owned(), runs, since: None, wrong: None }
    }

    fn wrong(word: &str, level: Level, reason: String, mend: String) -> Self {
        Self { wrong: Some((level, reason, mend)), ..Self::new(word, false) }
    }
}

impl Judge<'_> {
    /// All services, each with its record where it has one.
    pub fn all(&mut self, records: &[Record]) -> Vec<Service> {
        let record = |service| records.iter().find(|record| record.service == service);
        SERVICES.iter().map(|(service, _)| self.judge(service, record(*service))).collect()
    }

    fn judge(&mut self, service: &'static str, record: Option<&Record>) -> Service {
        let before = self.reasons.len();
        let state = self.state(service, record);
        let judged = record.is_some_and(|record| self.last_run(service, record, &state));
        // A failed unit says no more than the record of the run that failed.
        if let Some((level, reason, mend)) = state.wrong.filter(|_| !(judged && state.word == "failed")) {
            self.reasons.push(Reason::new(level, service, reason, mend));
        }
        let level = self.reasons[before..].iter().map(|reason| reason.level).max().unwrap_or(Level::Healthy);
        Service {
            service,
            level,
            state: state.word,
            since: state.since.map(rfc3339),
            units: self.units_of(service).map(|(name, unit)| (name.to_owned(), words(unit))).collect(),
            last_run: record.map(|record| LastRun::from(&record.last)),
            runs: state.runs,
        }
    }

    fn units_of(&self, service: &'static str) -> impl Iterator<Item = (&str, &Unit)> {
        let all = self.facts.units.iter().flatten();
        let of_service = move |name: &str| name.rsplit_once('.').is_some_and(|(stem, _)| stem == service);
        all.filter(move |(name, unit)| of_service(name) && unit.is_installed())
            .map(|(name, unit)| (name.as_str(), unit))
    }

    fn state(&self, service: &'static str, record: Option<&Record>) -> State {
        let installed = self.facts.units.as_ref().and_then(|units| units.get(&format!("{service}.service")));
        let state = match installed.filter(|unit| unit.is_installed()) {
            Some(unit) => self.by_units(service, unit),
            None => State::new("not running", false),
        };
        if state.runs || state.wrong.is_some() {
            return state;
        }
        let answers = service == "proxy" && !matches!(self.facts.proxy, Answer::NotAsked | Answer::Silent(_));
        match self.facts.up {
            // `hub up` runs the gate only where it was asked to.
            Some(_) if service != "tailscale-gate" => self.checked(service, State::new("hub up", true)),
            _ if service == "tailscale-gate" && record.is_some_and(gate_lives) => State::new("running", true),
            _ if answers => self.checked(service, State::new("running", true)),
            _ => state,
        }
    }

    fn by_units(&self, service: &'static str, unit: &Unit) -> State {
        let name = format!("{service}.service");
        let look = || self.facts.journal(service);
        if unit.load == "masked" {
            return State::new("masked", false);
        }
        if unit.load != "loaded" {
            let reason = format!("systemd does not load {name}: {} {}", unit.load, unit.load_error);
            return State::wrong("broken", Level::Failed, reason, format!("systemctl status {name}"));
        }
        if unit.active == "failed" || unit.is_restarting() {
            let word = if unit.is_restarting() { "restarting" } else { "failed" };
            let reason = format!("{name} is {word} ({}, exit status {})", unit.result, unit.exit_status);
            return State::wrong(word, Level::Failed, reason, look());
        }
        let Some((_, starters)) = STARTERS.iter().find(|(of, _)| *of == service) else {
            return self.lasting(service, unit);
        };
        let starters = starters.iter().filter_map(|name| self.facts.units.as_ref()?.get_key_value(*name));
        let (mut waits, mut stopped) = (false, Vec::new());
        for (name, starter) in starters {
            if starter.active == "failed" {
                let reason = format!("{name} has failed ({}), so nothing starts {service}", starter.result);
                return State::wrong("failed", Level::Failed, reason, format!("systemctl restart {name}"));
            }
            waits |= starter.is_active();
            if !starter.is_active() && starter.is_enabled() {
                stopped.push(name.as_str());
            }
        }
        let mut state = match (unit.is_active(), waits) {
            (true, _) => State::new("running", true),
            (false, true) => State::new("waiting", true),
            (false, false) => State::new(if stopped.is_empty() { "off" } else { "stopped" }, false),
        };
        if !stopped.is_empty() {
            let reason = format!("{} is enabled and does not run", stopped.join(" and "));
            state.wrong = Some((Level::Degraded, reason, format!("systemctl start {}", stopped.join(" "))));
        }
        state
    }

    /// A service that is always on.
    fn lasting(&self, service: &str, unit: &Unit) -> State {
        let name = format!("{service}.service");
        match unit.active.as_str() {
            "active" | "reloading" => self.checked(service, State { since: unit.since, ..State::new("running", true) }),
            "activating" => State::new("starting", true),
            "deactivating" => State::new("stopping", false),
            _ if unit.is_enabled() => {
                // Without the gateway nothing comes in; without the gate the door is shut, which is its safe side.
                let level = if service == "proxy" { Level::Failed } else { Level::Degraded };
                let reason = format!("{name} is enabled and does not run");
                State::wrong("stopped", level, reason, format!("systemctl start {service}"))
            }
            _ => State::new("off", false),
        }
    }

    /// A proxy that runs must answer too.
    fn checked(&self, service: &str, state: State) -> State {
        let wrong = match &self.facts.proxy {
            Answer::Unwell(reason) => format!("it takes no deliveries: {reason}"),
            Answer::Silent(reason) => reason.clone(),
            Answer::Well | Answer::NotAsked => return state,
        };
        if service != "proxy" {
            return state;
        }
        State { wrong: Some((Level::Failed, wrong, self.facts.journal(service))), ..state }
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
        let failed = Outcome::of(run) == Outcome::Failed || run.status == "lost";
        match service {
            // Its record is about an earlier process; one that is alive has got over that.
            "proxy" if failed && !state.runs => say(Level::Failed, error, look.clone()),
            "gitops-sync" if failed => {
                say(level_of(&run.status), worst_repositories(run).unwrap_or(error), look.clone())
            }
            "reading-sync" if failed => say(Level::Failed, error, look.clone()),
            "reading-sync" if age > READING_STALE && !self.facts.pipelines_are_few() => {
                let reason = format!("the pipelines ran {} ago, and should daily", span(age));
                say(Level::Degraded, reason, start("reading-sync.timer"));
            }
            "system-metrics" => {
                match run.status.as_str() {
                    "spooled" => {
                        let rows = waiting(record).unwrap_or(0);
                        let reason = format!("{rows} rows wait, the database does not take them: {error}");
                        say(Level::Degraded, reason, "hub doctor".to_owned());
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
        if service == "reading-sync"
            && let Some(dead @ 1..) = run.counts.get("dead_letters").and_then(Value::as_u64)
        {
            let reason = format!("{dead} documents of the last run could not be stored and are kept");
            say(Level::Degraded, reason, "hub dead-letters".to_owned());
        }
        failed && service != "tailscale-gate" && service != "proxy"
    }

    /// The funnel, by the record of the gate.
    pub fn funnel(&mut self, records: &[Record]) -> Option<Funnel> {
        let record = records.iter().find(|record| record.service == "tailscale-gate")?;
        let details = &record.last.details;
        let text = |key: &str| details[key].as_str().map(str::to_owned);
        let state = text("state").unwrap_or_else(|| record.last.status.clone());
        let reason = text("reason").unwrap_or_default();
        let is_installed = self.units_of("tailscale-gate").next().is_some();
        let active = self.units_of("tailscale-gate").any(|(_, unit)| unit.is_active());
        let runs = if is_installed { active } else { gate_lives(record) };
        let written = details["written"].as_str().and_then(|at| at.parse().ok());
        let age = written.map(|at| seconds_between(at, self.facts.now));
        let current = runs && age.is_some_and(|age| age <= GATE_STALE);
        let mut say = |level, reason: String, mend: &str| {
            self.reasons.push(Reason::new(level, "funnel", reason, mend));
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
            (_, "unknown") => say(Level::Degraded, format!("nobody knows what is public: {reason}"), look),
            (true, "closed") => say(Level::Degraded, format!("closed: {reason}"), "hub doctor"),
            _ => {}
        }
        let current = current || (!runs && state == "closed");
        Some(Funnel { state, reason, since: text("since"), url: text("url"), current })
    }
}

impl Facts {
    /// Where to read on.
    pub fn journal(&self, service: &str) -> String {
        if self.is_installed() {
            format!("journalctl -u {service} -n 20")
        } else {
            "see the output of hub up".to_owned()
        }
    }

    fn start(&self, unit: &str) -> String {
        if self.is_installed() { format!("systemctl enable --now {unit}") } else { "hub up".to_owned() }
    }

    fn pipelines_are_few(&self) -> bool {
        self.config.as_ref().is_ok_and(|config| config.pipelines.is_empty())
    }
}

/// What was rolled back or refused leaves the last good commit in place.
fn level_of(status: &str) -> Level {
    if matches!(status, "rolled_back" | "refused") { Level::Degraded } else { Level::Failed }
}

/// The repositories that a run failed on, each with one word: its own line says why. None where the run failed as a whole.
fn worst_repositories(run: &Run) -> Option<String> {
    let all = run.details["repositories"].as_array()?;
    let bad = all.iter().filter_map(|outcome| Some((outcome["repository"].as_str()?, outcome["status"].as_str()?)));
    let bad = bad.filter(|(_, status)| Outcome::of_word(status) == Outcome::Failed);
    let told: Vec<String> = bad.map(|(name, status)| format!("{name} {}", status.replace('_', " "))).collect();
    (!told.is_empty()).then(|| format!("the last run: {}", told.join(", ")))
}

/// The rows that wait for the database: what the record says, else what the newest runs in a row could not store.
pub(super) fn waiting(record: &Record) -> Option<u64> {
    let runs = std::iter::once(&record.last).chain(&record.history);
    let count = |run: &Run| run.counts.get("spooled").and_then(Value::as_u64).unwrap_or(0);
    let known = record.last.counts.get("waiting").and_then(Value::as_u64);
    known.or_else(|| Some(runs.take_while(|run| run.status == "spooled").map(count).sum())).filter(|rows| *rows > 0)
}

/// True where the process that wrote the gate's record is there.
fn gate_lives(record: &Record) -> bool {
    let Some(pid) = record.last.details["pid"].as_u64() else { return false };
    // The kernel keeps 15 bytes of a name.
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| "tailscale-gate".starts_with(name.trim_end()))
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
