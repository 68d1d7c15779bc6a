use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Level, Reason};
use crate::config::{Config, Pipeline};
use crate::hint::command_line;
use crate::hub::greeting::{WEBHOOK, url};
use crate::hub::units::{self, Units};
use crate::records::Trouble;
use crate::state::{self, Folder, lock_holder};
use crate::text;
use crate::{gate, http, systemd};

/// How long the proxy gets to answer; it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(2);

/// What `GET /healthz` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
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

/// What everything else is judged by.
#[derive(Debug)]
pub(super) struct Facts {
    /// `--config`
    pub flag: Option<PathBuf>,
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
    /// Whether a proxy holds this state folder's alive.sock, wherever it listens.
    pub lives: bool,
    pub unreadable: Vec<Trouble>,
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
            Err(_) => state::root(None).map_err(|error| unreadable.push(Trouble::new(&error, None))).ok(),
        };
        let root = state_dir.as_deref().and_then(|path| match Folder::open(path) {
            Ok(folder) => Some(folder),
            Err(error) if error.is_missing() => None,
            Err(error) => {
                unreadable.push(Trouble::new(&error, None));
                None
            }
        });
        let up = root.as_ref().and_then(|root| match lock_holder(root, "up.lock") {
            Ok(holder) => holder,
            Err(error) => {
                unreadable.push(Trouble::new(&error, None));
                None
            }
        });
        let (units, units_error) = match systemd::is_running().then(units::look) {
            None => (None, None),
            Some(Ok(units)) => (Some(units), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        let proxy = config.as_ref().map_or(Answer::NotAsked, ask);
        // It goes on where it is while what hub.toml says now is refused.
        let holds = |state: &PathBuf| gate::instance(state).is_ok_and(|own| own.is_some());
        let lives = !matches!(proxy, Answer::NotAsked | Answer::Silent(_)) || state_dir.as_ref().is_some_and(holds);
        Self {
            flag: flag.map(Path::to_owned),
            path: Config::file_path(flag),
            config,
            state_dir,
            root,
            units,
            units_error,
            up,
            proxy,
            lives,
            unreadable,
            now: jiff::Timestamp::now(),
        }
    }

    /// What is wrong before anything is looked at.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Err(error) = &self.config {
            let reason = format!("{error}; what runs goes on as before, and nothing starts with it");
            reasons.push(Reason::new(Level::Failed, "configuration", reason, self.hub("doctor")));
        }
        let renewing = self.units.as_ref().and_then(|units| units.get("hub-credentials.service"));
        if renewing.is_some_and(|unit| unit.active == "failed") {
            let reason = "changed credentials were refused, or not taken; what runs goes on with those that it has";
            let look = "journalctl -u hub-credentials -n 20, then: hub credentials";
            reasons.push(Reason::new(Level::Degraded, "credentials", reason, look));
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

    /// How often a repository should be looked at, in seconds.
    pub fn poll_seconds(&self, name: &str) -> u64 {
        let configured = self.config.iter().flat_map(|config| &config.repositories).find(|known| known.name == name);
        configured.map_or(3600, |repository| u64::from(repository.poll_minutes) * 60)
    }

    /// The configured pipelines; none where the configuration cannot be read.
    pub fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.config.iter().flat_map(|config| &config.pipelines)
    }

    /// True where systemd has the hub's units.
    pub fn is_installed(&self) -> bool {
        self.units.iter().flatten().any(|(_, unit)| unit.is_installed())
    }

    /// Another command of this hub, as it is to be typed for the same state and configuration.
    pub fn hub(&self, command: &str) -> String {
        command_line("hub", command, self.flag.as_deref())
    }

    /// How to start it all.
    pub fn start_all(&self) -> String {
        if self.is_installed() {
            "systemctl enable --now proxy gitops-sync.path gitops-sync.timer system-metrics.timer".to_owned()
        } else {
            self.hub("up")
        }
    }
}

/// Asks the proxy how it is.
fn ask(config: &Config) -> Answer {
    let listen = config.proxy.listen;
    if listen.port() == 0 {
        return Answer::NotAsked;
    }
    let agent = http::agent(ANSWER);
    let (status, body) = match read(agent.get(url(listen, "/healthz")).call()) {
        Ok(answer) => answer,
        Err(error) => return Answer::Silent(format!("{listen} does not answer: {}", http::said(&error))),
    };
    let reason = |body: &Value| {
        let reason = body["reason"].as_str().map(text::sentence);
        reason.unwrap_or_else(|| "it does not say why".to_owned())
    };
    // Where the socket may not be used, the port alone has to be believed.
    if let (Some(answering), Ok(own)) = (body["instance"].as_str(), gate::instance(&config.state_dir))
        && own.as_deref() != Some(answering)
    {
        let whose = "the proxy of another state folder, or of another user";
        return Answer::Silent(format!("what answers on {listen} is {whose}"));
    }
    match status {
        200 if body["instance"].is_string() && config.repositories.is_empty() => Answer::Well,
        200 if body["instance"].is_string() => {
            // Without a body and a signature it is refused in any case; the question is what for.
            let request = agent.post(url(listen, WEBHOOK)).header("Content-Type", "application/json");
            match read(request.send(&[])) {
                Ok((503, body)) => Answer::Unverified(reason(&body)),
                Ok(_) => Answer::Well,
                Err(error) => Answer::Silent(format!("{listen} does not answer: {}", http::said(&error))),
            }
        }
        503 => Answer::Unwell(reason(&body)),
        status => Answer::Silent(format!("what answers on {listen} is not the proxy (it says {status})")),
    }
}

/// Status and body of an answer; a body that is no JSON is null.
fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(u16, Value), ureq::Error> {
    let mut response = answer?;
    let text = response.body_mut().with_config().limit(16 << 10).read_to_string()?;
    Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or_default()))
}
