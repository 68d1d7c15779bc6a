use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::judge::Judge;
use super::{Answer, Cause, Level, Reason, Seen};
use crate::log::rfc3339;
use crate::records::{self, Details, Found, Gitops, Outcome, SERVICES, failed_repositories, span};
use crate::state::{Record, Run};
use crate::systemd::{Own, Unit};

/// The host is measured every minute.
const METRICS_STALE: u64 = 5 * 60;
/// Pipelines run daily.
const READING_STALE: u64 = 26 * 3600;
/// The host is judged every minute.
const WATCH_STALE: u64 = 5 * 60;

/// The room whose name the keys of a service's reasons begin with.
fn room(service: &str) -> &str {
    let folder = Own::named(service).and_then(|own| own.folder).unwrap_or(service);
    folder.rsplit('/').next().unwrap_or(folder)
}

/// A service as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// Its name.
    pub service: &'static str,
    /// How well it is.
    pub level: Level,
    /// One or two words.
    pub state: String,
    /// Since when a service that is always on runs, RFC 3339.
    pub since: Option<String>,
    /// systemd's words for its units: `active (running), enabled`.
    pub units: BTreeMap<String, String>,
    /// The newest run of its record.
    pub last_run: Found<Run>,
    /// True where it runs now, or will by itself.
    #[serde(skip)]
    pub runs: bool,
}

/// All services, by the reasons that `judge` gave.
pub fn services(seen: &Seen<'_>, reasons: &[Reason]) -> Vec<Service> {
    let service = |service: &'static str| {
        let state = seen.state(service);
        let about = if service == "tailscale-gate" { "funnel" } else { service };
        let own = reasons.iter().filter(|reason| reason.about == service || reason.about == about);
        Service {
            service,
            level: Level::of(own),
            state: state.word,
            since: state.since.map(rfc3339),
            units: seen.units_of(service).map(|(name, unit)| (name.to_owned(), unit.words())).collect(),
            last_run: seen.left.service(service).map(|record| Run { details: Value::Null, ..record.last.clone() }),
            runs: state.runs,
        }
    };
    SERVICES.iter().map(|(name, _)| service(name)).collect()
}

/// What systemd, or `hub up`, makes of a service.
struct State {
    word: String,
    runs: bool,
    since: Option<jiff::Timestamp>,
    /// What is wrong with it: level, end of the key, sentence and what to run.
    wrong: Option<(Level, &'static str, String, String)>,
    comes_of: Option<Cause>,
}

impl State {
    fn new(word: &str, runs: bool) -> Self {
        Self { word: word.to_owned(), runs, since: None, wrong: None, comes_of: None }
    }

    fn wrong(word: &'static str, level: Level, reason: String, mend: String) -> Self {
        Self { wrong: Some((level, word, reason, mend)), ..Self::new(word, false) }
    }
}

impl Seen<'_> {
    /// How a service is, by its units, else by `hub up`, else by its own signs of life.
    fn state(&self, service: &'static str) -> State {
        let installed = self.units.and_then(|units| units.get(&format!("{service}.service")));
        let state = match installed.filter(|unit| unit.is_installed()) {
            Some(unit) => self.by_units(service, unit),
            None => State::new("not running", false),
        };
        if state.runs || state.wrong.is_some() {
            return state;
        }
        match self.up {
            // `hub up` runs the gate only where it was asked to.
            Some(_) if service != "tailscale-gate" => self.checked(service, State::new("hub up", true)),
            _ if service == "tailscale-gate" && self.left.gate == Some(true) => State::new("running", true),
            _ if service == "proxy" && self.lives => self.checked(service, State::new("running", true)),
            _ => state,
        }
    }

    fn by_units(&self, service: &'static str, unit: &Unit) -> State {
        let name = format!("{service}.service");
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
            let comes_of = Cause::of_end(&unit.result, Some(&unit.exit_status));
            return State { comes_of, ..State::wrong(word, Level::Failed, reason, self.ways.journal(service)) };
        }
        let Some(own) = Own::named(service).filter(|own| !own.lasts()) else {
            return self.lasting(service, unit);
        };
        let starters = own.starters().filter_map(|name| self.units?.get_key_value(name));
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
            let mend = format!("systemctl start {}", stopped.join(" "));
            state.wrong = Some((Level::Degraded, "stopped", reason, mend));
        }
        state
    }

    /// A service that is always on.
    fn lasting(&self, service: &str, unit: &Unit) -> State {
        match unit.active.as_str() {
            "active" | "reloading" => self.checked(service, State { since: unit.since, ..State::new("running", true) }),
            "activating" => State::new("starting", true),
            "deactivating" => State::new("stopping", false),
            _ if unit.is_enabled() => {
                // Without the gateway nothing comes in; without the gate the door is shut, which is its safe side.
                let level = if service == "proxy" { Level::Failed } else { Level::Degraded };
                let reason = format!("{service}.service is enabled and does not run");
                State::wrong("stopped", level, reason, format!("systemctl start {service}"))
            }
            _ => State::new("off", false),
        }
    }

    /// A proxy that runs must answer too.
    fn checked(&self, service: &str, state: State) -> State {
        if service != "proxy" {
            return state;
        }
        let journal = self.ways.journal(service);
        let wrong = match self.proxy {
            Answer::Unwell(reason) => {
                (Level::Failed, "takes-nothing", format!("it takes no deliveries: {reason}"), journal)
            }
            Answer::Unverified(reason) => {
                let mend = self.ways.hub("webhook-test");
                (Level::Degraded, "no-secret", format!("it takes no deliveries: {reason}"), mend)
            }
            Answer::Silent(reason) => {
                let again = self.up.map(|pid| format!("kill {pid}, then: {}", self.ways.hub("up")));
                (Level::Failed, "silent", reason.clone(), again.unwrap_or(journal))
            }
            Answer::Well | Answer::NotAsked => return state,
        };
        State { wrong: Some(wrong), ..state }
    }
}

impl Judge<'_> {
    /// Judges a service by its units and its record; true where it runs.
    pub fn service(&mut self, service: &'static str) -> bool {
        let seen = self.seen;
        let state = seen.state(service);
        let record = seen.left.service(service);
        let judged = record.get().is_some_and(|record| self.last_run(service, record, &state));
        let mut wrong = state.wrong;
        // A record of one that has gone says nothing; whether the gate has gone is not everybody's to see.
        let is_its = state.runs || wrong.is_some() || service == "tailscale-gate" && seen.left.gate.is_none();
        if let Some(refused) = record.get().filter(|_| is_its).and_then(|record| records::refused_configuration(record))
        {
            // Where the disk's own is told to be wrong already, this is why.
            if seen.config.err() != Some(&refused.reason) {
                let (key, reason) =
                    (format!("{}/older-configuration", room(service)), records::refused(service, &refused.reason));
                let mend = seen.ways.hub("doctor");
                self.say_since(Some(&refused.since), Level::Degraded, key, service, reason, mend);
                self.comes_of(Some(Cause::Configuration));
            }
            // It listens where its own configuration says.
            wrong = wrong.filter(|_| service != "proxy" || !seen.lives);
        }
        // A failed unit says no more than the record of the run that failed.
        if let Some((level, key, reason, mend)) = wrong.filter(|_| !(judged && state.word == "failed")) {
            self.say(level, format!("{}/{key}", room(service)), service, reason, mend);
            self.comes_of(state.comes_of);
        }
        state.runs
    }

    /// What the newest run says; true where it says that something is wrong.
    fn last_run(&mut self, service: &'static str, record: &Record, state: &State) -> bool {
        let (seen, run) = (self.seen, &record.last);
        let error = run.error.clone().unwrap_or_else(|| run.status.replace('_', " "));
        let look = seen.ways.journal(service);
        let age = seen.age(&run.started).unwrap_or(u64::MAX);
        let start = |unit: &str| if state.runs { look.clone() } else { seen.ways.start(unit) };
        let failed = Outcome::of(run) == Outcome::Failed;
        let before = self.reasons.len();
        match service {
            // Its record is about an earlier process; one that is alive has got over that.
            "proxy" if failed && !state.runs => {
                self.say(Level::Failed, "proxy/last-run", service, error, look);
                return false;
            }
            "gitops-sync" => self.last_looks(run, error, look),
            "reading-sync" if seen.known_config().is_some_and(|config| config.pipelines.is_empty()) => {}
            "reading-sync" if age > READING_STALE && !failed => {
                let reason = format!("the pipelines ran {} ago, and should daily", span(age));
                self.say(Level::Degraded, "reading/late", service, reason, start("reading-sync.timer"));
            }
            "reading-sync" => return failed,
            "hub-watch" if failed => {
                let reason = format!("notices of this host do not arrive: {error}");
                let mend = seen.ways.hub("notify test");
                self.say(Level::Degraded, "watch/unsent", service, reason, mend);
            }
            // Where it does not run, nobody asked for it.
            "hub-watch" if age > WATCH_STALE && state.runs => {
                let reason = format!("the host was last judged {} ago, and should be each minute", span(age));
                self.say_since(Some(&run.started), Level::Degraded, "watch/late", service, reason, look);
            }
            "system-metrics" => {
                match run.status.as_str() {
                    "spooled" => {
                        let rows = run.counts.get("waiting").and_then(Value::as_u64).unwrap_or(0);
                        let reason = format!("{rows} rows wait, the database does not take them: {error}");
                        self.say(Level::Degraded, "metrics/spooled", service, reason, seen.ways.hub("doctor"));
                        self.comes_of(Some(Cause::Database));
                    }
                    "lost" | "failed" => {
                        let error = run.error.as_deref().unwrap_or("the log has the reason");
                        self.say(
                            Level::Failed,
                            "metrics/lost",
                            service,
                            format!("samples were lost: {error}"),
                            look.clone(),
                        );
                    }
                    _ => {}
                }
                if age > METRICS_STALE {
                    let reason = format!("the last sample is {} old, and there should be one a minute", span(age));
                    let mend = start("system-metrics.timer");
                    self.say_since(Some(&run.started), Level::Degraded, "metrics/late", service, reason, mend);
                }
                return failed;
            }
            _ => {}
        }
        self.reasons.len() > before
    }

    /// The repositories whose last look failed, whichever run that was: a later one may have been about another. Each has a
    /// reason of its own, which says why; this one is about the service.
    fn last_looks(&mut self, run: &Run, error: String, look: String) {
        let seen = self.seen;
        let looks = Gitops::known(run).repositories;
        let status_of = |name: &str, checked: &Found<records::Checked>| match checked {
            Found::There(checked) => Some(checked.status.clone()),
            _ => looks.iter().rfind(|look| look.repository == name).map(|look| look.status.clone()),
        };
        let failed = |known: &records::Repository| {
            let status = status_of(&known.repository, &known.checked)?;
            (Outcome::of_word(&status) == Outcome::Failed).then(|| (known.repository.clone(), status))
        };
        let failed: Vec<(String, String)> = seen.left.repositories.iter().filter_map(failed).collect();
        let (level, reason) = if !failed.is_empty() {
            let told: Vec<String> =
                failed.iter().map(|(name, status)| format!("{name} {}", status.replace('_', " "))).collect();
            let level = failed.iter().map(|(_, status)| level_of(status)).max().unwrap_or_default();
            (level, crate::text::listed(&told, ", "))
        } else if Outcome::of(run) == Outcome::Failed && failed_repositories(run).is_none() {
            (level_of(&run.status), error)
        } else {
            return;
        };
        self.say(level, "gitops/last-run", "gitops-sync", reason, look);
    }
}

/// What was rolled back or refused leaves the last good commit in place.
fn level_of(status: &str) -> Level {
    if matches!(status, "rolled_back" | "refused") { Level::Degraded } else { Level::Failed }
}
