use std::path::Path;

use crate::config::{Config, Pipeline, Repository};
use crate::records::{FailedUnits, Left};
use crate::systemd::{Unit, Units};

/// Everything that is judged, as it was at one moment.
pub struct Seen<'a> {
    /// That moment.
    pub now: jiff::Timestamp,
    /// The configuration, or why there is none that could be in force.
    pub config: Result<&'a Config, &'a str>,
    /// The last one that could be in force, where this one could not; none where nobody knows it.
    pub last_valid: Option<&'a Config>,
    /// How commands are to be typed here.
    pub ways: &'a Ways,
    /// What the services left.
    pub left: &'a Left,
    /// The hub's units; none where systemd was not asked, does not run this host, or does not answer.
    pub units: Option<&'a Units>,
    /// Why it does not answer.
    pub units_error: Option<&'a str>,
    /// All other units that have failed; none where nobody knows.
    pub failed: Option<&'a FailedUnits>,
    /// The process of `hub up`.
    pub up: Option<u32>,
    /// How the proxy answers.
    pub proxy: &'a Answer,
    /// Whether a proxy holds this state folder's alive.sock, wherever it listens.
    pub lives: bool,
    /// Locks that are held too long, or by a stranger.
    pub waits: &'a [Wait],
}

/// How the proxy answers `GET /healthz`, and whether it would take a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It could not be asked: no address is known.
    NotAsked,
    /// It takes work.
    Well,
    /// It is well, and refuses every delivery: none can be verified.
    Unverified(String),
    /// It answers, and takes none.
    Unwell(String),
    /// Nobody answers, or somebody else does.
    Silent(String),
}

/// A lock that somebody waits for, or that is not its service's.
#[derive(Clone, Debug)]
pub struct Wait {
    /// The lock, such as `gitops/lock`.
    pub lock: String,
    /// Whose work it guards.
    pub service: &'static str,
    /// The process that has it.
    pub holder: u32,
    /// The same with its name and user.
    pub described: String,
    /// Who has waited for longest, and for how many seconds.
    pub waiter: Option<(u32, u64)>,
}

/// How commands are to be typed on this host.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// What stands before and after the words of a command of the hub, for the same state and configuration.
    pub hub: (String, String),
    /// True where systemd has the hub's units.
    pub is_installed: bool,
    /// hub.toml.
    pub file: String,
    /// The state folder.
    pub state: String,
}

impl Ways {
    pub fn hub(&self, command: &str) -> String {
        format!("{}{command}{}", self.hub.0, self.hub.1)
    }

    /// Where to read on.
    pub fn journal(&self, service: &str) -> String {
        if self.is_installed { format!("journalctl -u {service} -n 20") } else { self.hub("doctor") }
    }

    /// How to have a unit's work done.
    pub fn start(&self, unit: &str) -> String {
        if self.is_installed { format!("systemctl enable --now {unit}") } else { self.hub("up") }
    }

    /// How to start it all.
    pub fn start_all(&self) -> String {
        self.start("proxy gitops-sync.path gitops-sync.timer system-metrics.timer")
    }
}

impl Seen<'_> {
    /// What is configured, by the last that was valid: what runs goes on with that.
    pub fn known_config(&self) -> Option<&Config> {
        self.config.ok().or(self.last_valid)
    }

    /// A configured repository.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.known_config()?.repositories.iter().find(|known| known.name == name)
    }

    /// A configured pipeline.
    pub fn pipeline(&self, name: &str) -> Option<&Pipeline> {
        self.known_config()?.pipelines.iter().find(|known| known.name == name)
    }

    /// The installed units of a service.
    pub fn units_of(&self, service: &'static str) -> impl Iterator<Item = (&str, &Unit)> {
        let all = self.units.into_iter().flatten();
        let of_service = move |name: &str| name.rsplit_once('.').is_some_and(|(stem, _)| stem == service);
        all.filter(move |(name, unit)| of_service(name) && unit.is_installed())
            .map(|(name, unit)| (name.as_str(), unit))
    }

    /// Nothing has run here, and nothing is configured.
    pub fn is_fresh(&self) -> bool {
        self.left.is_empty() && self.config.is_ok_and(|config| config.repositories.is_empty())
    }

    /// Seconds since an instant in RFC 3339; none where it is none.
    pub(super) fn age(&self, instant: &str) -> Option<u64> {
        instant.parse().ok().map(|at| crate::records::seconds_between(at, self.now))
    }

    /// True where an instant in RFC 3339 lies before the start of this host.
    pub(super) fn is_before_boot(&self, instant: Option<&str>) -> bool {
        let at = instant.and_then(|instant| instant.parse::<jiff::Timestamp>().ok());
        at.zip(self.left.booted).is_some_and(|(at, booted)| at < booted)
    }

    /// A path in the state folder.
    pub(super) fn path(&self, path: &str) -> String {
        Path::new(&self.ways.state).join(path).display().to_string()
    }
}
