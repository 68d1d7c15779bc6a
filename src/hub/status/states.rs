use super::facts::Answer;
use super::{Facts, Level};
use crate::gate;
use crate::hub::units::Unit;
use crate::state::Record;

/// What starts a service that does not run all the time.
const STARTERS: [(&str, &[&str]); 3] = [
    ("gitops-sync", &["gitops-sync.path", "gitops-sync.timer"]),
    ("reading-sync", &["reading-sync.timer"]),
    ("system-metrics", &["system-metrics.timer"]),
];

/// What systemd, or `hub up`, makes of a service.
pub(super) struct State {
    pub word: String,
    pub runs: bool,
    pub since: Option<jiff::Timestamp>,
    /// What is wrong with it.
    pub wrong: Option<(Level, String, String)>,
}

impl State {
    fn new(word: &str, runs: bool) -> Self {
        Self { word: word.to_owned(), runs, since: None, wrong: None }
    }

    fn wrong(word: &str, level: Level, reason: String, mend: String) -> Self {
        Self { wrong: Some((level, reason, mend)), ..Self::new(word, false) }
    }
}

impl Facts {
    /// The installed units of a service.
    pub fn units_of(&self, service: &'static str) -> impl Iterator<Item = (&str, &Unit)> {
        let all = self.units.iter().flatten();
        let of_service = move |name: &str| name.rsplit_once('.').is_some_and(|(stem, _)| stem == service);
        all.filter(move |(name, unit)| of_service(name) && unit.is_installed())
            .map(|(name, unit)| (name.as_str(), unit))
    }

    /// How a service is, by its units, else by `hub up`, else by its own signs of life.
    pub fn state(&self, service: &'static str, record: Option<&Record>) -> State {
        let installed = self.units.as_ref().and_then(|units| units.get(&format!("{service}.service")));
        let state = match installed.filter(|unit| unit.is_installed()) {
            Some(unit) => self.by_units(service, unit),
            None => State::new("not running", false),
        };
        if state.runs || state.wrong.is_some() {
            return state;
        }
        let answers = service == "proxy" && self.lives;
        match self.up {
            // `hub up` runs the gate only where it was asked to.
            Some(_) if service != "tailscale-gate" => self.checked(service, State::new("hub up", true)),
            _ if service == "tailscale-gate" && record.is_some_and(|record| gate::writer(record).is_some()) => {
                State::new("running", true)
            }
            _ if answers => self.checked(service, State::new("running", true)),
            _ => state,
        }
    }

    fn by_units(&self, service: &'static str, unit: &Unit) -> State {
        let name = format!("{service}.service");
        let look = || self.journal(service);
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
        let starters = starters.iter().filter_map(|name| self.units.as_ref()?.get_key_value(*name));
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
        if service != "proxy" {
            return state;
        }
        let wrong = match &self.proxy {
            Answer::Unwell(reason) => {
                (Level::Failed, format!("it takes no deliveries: {reason}"), self.journal(service))
            }
            Answer::Unverified(reason) => {
                (Level::Degraded, format!("it takes no deliveries: {reason}"), self.hub("webhook-test"))
            }
            Answer::Silent(reason) => {
                let again = self.up.map(|pid| format!("kill {pid}, then: {}", self.hub("up")));
                (Level::Failed, reason.clone(), again.unwrap_or_else(|| self.journal(service)))
            }
            Answer::Well | Answer::NotAsked => return state,
        };
        State { wrong: Some(wrong), ..state }
    }

    /// Where to read on.
    pub fn journal(&self, service: &str) -> String {
        if self.is_installed() { format!("journalctl -u {service} -n 20") } else { self.hub("doctor") }
    }

    /// How to have a unit's work done.
    pub fn start(&self, unit: &str) -> String {
        if self.is_installed() { format!("systemctl enable --now {unit}") } else { self.hub("up") }
    }

    /// True where no pipeline is configured.
    pub fn has_no_pipeline(&self) -> bool {
        self.config.as_ref().is_ok_and(|config| config.pipelines.is_empty())
    }
}
