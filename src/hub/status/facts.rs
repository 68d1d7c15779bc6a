use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Level, Reason};
use crate::config::Config;
use crate::hub::greeting::url;
use crate::hub::units::{self, Units};
use crate::log::printable;
use crate::state::{self, Folder, lock_holder};
use crate::systemd;

/// How long the proxy gets to answer; it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(2);

/// What `GET /healthz` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It could not be asked: no address is known.
    NotAsked,
    /// It takes work.
    Well,
    /// It answers, and takes none.
    Unwell(String),
    /// Nobody answers, or somebody else does.
    Silent(String),
}

/// What everything else is judged by.
#[derive(Debug)]
pub(super) struct Facts {
    pub path: PathBuf,
    pub config: Result<Config, String>,
    pub state_dir: Option<PathBuf>,
    pub root: Option<Folder>,
    /// None where systemd does not run this host, or does not answer.
    pub units: Option<Units>,
    pub units_error: Option<String>,
    /// The process of `hub up`.
    pub up: Option<u32>,
    pub proxy: Answer,
    pub unreadable: Vec<String>,
    pub now: jiff::Timestamp,
}

impl Facts {
    /// Looks around. `flag` is `--config`.
    pub fn find(flag: Option<&Path>) -> Self {
        let config = Config::load(flag).map_err(|error| error.to_string());
        let mut unreadable = Vec::new();
        // Without the file its key `state_dir` is unknown; where that was not set, this is right.
        let state_dir = match &config {
            Ok(config) => Some(config.state_dir.clone()),
            Err(_) => state::root(None).map_err(|error| unreadable.push(error.to_string())).ok(),
        };
        let root = state_dir.as_deref().and_then(|path| match Folder::open(path) {
            Ok(folder) => Some(folder),
            Err(error) if error.is_missing() => None,
            Err(error) => {
                unreadable.push(error.to_string());
                None
            }
        });
        let up = root.as_ref().and_then(|root| match lock_holder(root, "up.lock") {
            Ok(holder) => holder,
            Err(error) => {
                unreadable.push(error.to_string());
                None
            }
        });
        let (units, units_error) = match systemd::is_running().then(units::look) {
            None => (None, None),
            Some(Ok(units)) => (Some(units), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        let proxy = config.as_ref().map_or(Answer::NotAsked, |config| ask(config.proxy.listen));
        Self {
            path: Config::file_path(flag),
            config,
            state_dir,
            root,
            units,
            units_error,
            up,
            proxy,
            unreadable,
            now: jiff::Timestamp::now(),
        }
    }

    /// What is wrong before anything is looked at.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Err(error) = &self.config {
            let reason = format!("{error}; what runs goes on as before, and nothing starts with it");
            reasons.push(Reason::new(Level::Failed, "configuration", reason, "hub doctor"));
        }
        if let Some(error) = &self.units_error {
            let reason = format!("systemd does not say how the units are: {error}");
            reasons.push(Reason::new(Level::Degraded, "services", reason, "systemctl status"));
        }
        reasons
    }

    /// The configured repositories with their branches; none where the configuration cannot be read.
    pub fn repositories(&self) -> Vec<(&str, &str)> {
        let all = self.config.iter().flat_map(|config| &config.repositories);
        all.map(|repository| (repository.name.as_str(), repository.branch.as_str())).collect()
    }

    /// True where systemd has the hub's units.
    pub fn is_installed(&self) -> bool {
        self.units.iter().flatten().any(|(_, unit)| unit.is_installed())
    }

    /// How to start it all.
    pub fn start_all(&self) -> &'static str {
        if self.is_installed() {
            "systemctl enable --now proxy gitops-sync.path gitops-sync.timer system-metrics.timer"
        } else {
            "hub up"
        }
    }
}

/// Asks the proxy how it is.
fn ask(listen: SocketAddr) -> Answer {
    if listen.port() == 0 {
        return Answer::NotAsked;
    }
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build(),
    );
    let mut response = match agent.get(url(listen, "/healthz")).call() {
        Ok(response) => response,
        Err(error) => return Answer::Silent(format!("{listen} does not answer: {error}")),
    };
    let text = response.body_mut().with_config().limit(16 << 10).read_to_string().unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let reason = body["reason"].as_str().map(|reason| printable(reason.as_bytes()));
    match response.status().as_u16() {
        200 if body["instance"].is_string() => Answer::Well,
        503 => Answer::Unwell(reason.unwrap_or_else(|| "it does not say why".to_owned())),
        status => Answer::Silent(format!("what answers on {listen} is not the proxy (it says {status})")),
    }
}
