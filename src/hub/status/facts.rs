use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::waits;
use crate::config::Config;
use crate::health::{Answer, Seen, Wait, Ways};
use crate::hint::command_line;
use crate::hub::greeting::{WEBHOOK, url};
use crate::log::rfc3339;
use crate::records::{FailedUnits, Found, Left, Look, Reader, Sample, Trouble, UnitState, Wanted};
use crate::state::{self, Folder, lock_holder};
use crate::systemd::{Looked, Units};
use crate::text;
use crate::{gate, http, systemd};

/// How long the proxy gets to answer; it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(2);

/// What is looked at, once.
pub(super) struct Facts {
    pub path: PathBuf,
    pub config: Result<Config, String>,
    /// The last that was valid, where this one is not.
    last_valid: Option<Config>,
    pub state_dir: Option<PathBuf>,
    pub left: Left,
    pub now: jiff::Timestamp,
    ways: Ways,
    /// None where systemd does not run this host, or does not answer.
    units: Option<Units>,
    units_error: Option<String>,
    /// What systemd says now of all other units.
    pub look: Look,
    /// The process of `hub up`.
    up: Option<u32>,
    proxy: Answer,
    lives: bool,
    waits: Vec<Wait>,
}

impl Facts {
    /// Looks around. `flag` is `--config`; `last_valid` is by what to judge where hub.toml cannot be read.
    pub fn find(flag: Option<&Path>, last_valid: Option<&Config>) -> Self {
        let now = jiff::Timestamp::now();
        let config = Config::load(flag).map_err(|error| error.to_string());
        let last_valid = last_valid.filter(|_| config.is_err()).cloned();
        let known = config.as_ref().ok().or(last_valid.as_ref());
        // Without the file its key `state_dir` is unknown; where that was not set, this is right.
        let state_dir = known.map_or_else(|| state::root(None), |config| Ok(config.state_dir.clone()));
        let root = state_dir.as_ref().map_err(|error| Trouble::new(error, None)).and_then(|path| {
            Folder::open(path)
                .map(Found::There)
                .or_else(|error| if error.is_missing() { Ok(Found::Missing) } else { Err(Trouble::new(&error, None)) })
        });
        let (root, trouble) = match root {
            Ok(root) => (root, None),
            Err(trouble) => (Found::Unreadable(trouble.sentence.clone()), Some(trouble)),
        };
        let mut left = Left::read(&root, &Wanted::of(known), now);
        left.unreadable.extend(trouble);
        let (mut up, mut waits) = (None, Vec::new());
        if let Some(root) = root.get() {
            let mut reader = Reader::new(root);
            up = reader.heard(lock_holder(root, "up.lock")).take().flatten();
            waits = waits::long(&mut reader, now);
            let first = std::mem::take(&mut left.unreadable);
            let more = reader.unreadable.into_iter().filter(|trouble| !first.contains(trouble));
            left.unreadable = first.iter().cloned().chain(more).collect();
        }
        let (mut units, mut units_error) = (None, None);
        let mut look = Look { at: rfc3339(now), ..Look::default() };
        let mut names = left.sample.get().map(Sample::services).unwrap_or_default();
        let deployed = Look::told(left.owners.values().flatten());
        names.extend(deployed.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
        let before = left.look.get().and_then(Look::last_failed);
        match systemd::is_running().then(|| systemd::look(&names)) {
            None => {}
            Some(Ok(looked)) => {
                // Those that may fail are counted by system-metrics, and told by nobody.
                let limits = known.map(|config| config.limits.clone()).unwrap_or_default();
                let (told, untold): (Units, Units) =
                    looked.failed.clone().into_iter().partition(|(name, _)| limits.wants_unit(name));
                look.failed = Some(FailedUnits::of(&told, before));
                look.untold = looked.own_failed().chain(untold.into_keys()).collect();
                look.restarts = looked.restarts();
                look.deployed = Some(deployed.into_iter().map(|name| state_of(&looked, name)).collect());
                units = Some(looked.own);
            }
            Some(Err(error)) => {
                units_error = Some(error.to_string());
                look.failed_before = before.cloned();
            }
        }
        let proxy = known.map_or(Answer::NotAsked, ask);
        let state_dir = state_dir.ok();
        // It goes on where it is while what hub.toml says now is refused.
        let holds = |state: &PathBuf| gate::instance(state).is_ok_and(|own| own.is_some());
        let lives = !matches!(proxy, Answer::NotAsked | Answer::Silent(_)) || state_dir.as_ref().is_some_and(holds);
        let path = Config::file_path(flag);
        let ways = ways(flag, &path, state_dir.as_deref(), units.as_ref());
        Self { path, config, last_valid, state_dir, left, now, ways, units, units_error, look, up, proxy, lives, waits }
    }

    /// What is judged.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
            now: self.now,
            config: self.config.as_ref().map_err(String::as_str),
            last_valid: self.last_valid.as_ref(),
            ways: &self.ways,
            left: &self.left,
            units: self.units.as_ref(),
            units_error: self.units_error.as_deref(),
            failed: self.look.failed.as_ref(),
            up: self.up,
            proxy: &self.proxy,
            lives: self.lives,
            waits: &self.waits,
        }
    }
}

/// How a unit is, by its name; as nothing where systemd does not know it.
fn state_of(looked: &Looked, name: String) -> (String, UnitState) {
    let unit = looked.named.get(&name).filter(|unit| unit.is_installed());
    let state = unit.map(|unit| UnitState {
        active: unit.active.clone(),
        sub: unit.sub.clone(),
        since: unit.changed.map(rfc3339),
        restarts: unit.restarts,
    });
    (name, state.unwrap_or_default())
}

/// How commands are to be typed here. `flag` is `--config`.
pub(in crate::hub) fn ways(flag: Option<&Path>, file: &Path, state: Option<&Path>, units: Option<&Units>) -> Ways {
    // No word of a command line can hold this.
    let whole = command_line("hub", "\0", flag);
    let (before, after) = whole.split_once('\0').unwrap_or((&whole, ""));
    Ways {
        hub: (before.to_owned(), after.to_owned()),
        is_installed: units.into_iter().flatten().any(|(_, unit)| unit.is_installed()),
        file: file.display().to_string(),
        state: state.unwrap_or(Path::new("")).display().to_string(),
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
        reason.unwrap_or_else(|| "it gives no reason".to_owned())
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
        status => Answer::Silent(format!("what answers on {listen} is not the proxy (it answers {status})")),
    }
}

/// Status and body of an answer; a body that is no JSON is null.
fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(u16, Value), ureq::Error> {
    let mut response = answer?;
    let text = response.body_mut().with_config().limit(16 << 10).read_to_string()?;
    Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or_default()))
}
