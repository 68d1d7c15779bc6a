//! `reading-sync`: asks the proxy to run the pipelines, shows how it goes, ends with what came of it.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use argh::ArgsInfo as _;
use serde_json::Value;

use super::shown::{Shown, complain, failed, finish, tell_unreachable};
use super::{SERVICE, record_death, tries};
use crate::command::Backoff;
use crate::config::{self, Config, reachable};
use crate::hint::hint;
use crate::program::{self, CommandLine, Exit};
use crate::{http, listeners, log};

/// Ask the proxy on this host to move what waits in the configured pipelines' sources, and show how it goes: a bar on
/// a terminal, JSON log lines elsewhere.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    example = "reading-sync\nreading-sync --pipeline reading --deadline 600",
    error_code(0, "Everything was moved; dead letters are named."),
    error_code(1, "A pipeline failed, or the proxy is down; the message names the side and what to do."),
    error_code(2, "The command line is wrong, or the pipeline is not configured."),
    error_code(
        75,
        "A run is going on already, or as a unit it has failed for six hours and is not tried again for now."
    ),
    error_code(78, "The configuration is wrong.")
)]
struct Arguments {
    /// the pipeline; default: every configured one, one after the other
    #[argh(option, arg_name = "PIPELINE")]
    pipeline: Option<String>,
    /// where the proxy's admin listener is; default: proxy.admin_listen of hub.toml
    #[argh(option, arg_name = "URL")]
    url: Option<String>,
    /// the most seconds that one pipeline may take; default: 21600 (6 h). The run itself goes on in the proxy
    #[argh(option, arg_name = "SECONDS", default = "21600")]
    deadline: u64,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// show whether the configuration is right, and do nothing
    #[argh(switch)]
    check: bool,
}

impl CommandLine for Arguments {
    const NAME: &'static str = SERVICE;

    fn configuration(&self) -> (Option<&Path>, bool) {
        (self.config.as_deref(), self.check)
    }

    fn check(&self, config: &Config) -> Result<(), impl Display> {
        token(config).map(drop)
    }
}

/// How long a proxy that does not answer is given: at boot both start at once.
const START_UP: Duration = Duration::from_secs(15);
const LONGEST_LINE: u64 = 64 << 10;

/// The command line, for the manual.
pub fn described() -> argh::CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// The program `reading-sync`.
pub fn main() -> ExitCode {
    program::run(sync)
}

fn sync(arguments: Arguments, config: Config) -> Exit {
    let token = match token(&config) {
        Ok(token) => token,
        Err(error) => return program::configuration_error(&error),
    };
    let names: Vec<String> = match &arguments.pipeline {
        Some(name) => vec![name.clone()],
        None => config.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect(),
    };
    if names.is_empty() {
        log::info!("nothing_configured", note = "hub.toml has no [[pipeline]]; contrib/hub.toml shows one");
        return Exit::Done;
    }
    // Of another proxy's runs this host's record says nothing.
    let state_dir = arguments.url.is_none().then(|| config.state_dir.clone());
    let base = arguments.url.unwrap_or_else(|| admin_url(&config));
    if let Some(reason) = unusable(&base) {
        complain(&format!("reading-sync: --url {base:?} {reason}; write one such as http://127.0.0.1:8086"));
        return Exit::Usage;
    }
    let started = jiff::Timestamp::now();
    let is_own = state_dir.is_some();
    let client = Client { base, token, state_dir, deadline: Duration::from_secs(arguments.deadline.max(1)) };
    let mut worst = Exit::Done;
    for name in &names {
        let code = client.sync(name);
        if code != Exit::Done && worst != Exit::Error {
            worst = code;
        }
    }
    if is_own { tries::end(&config.state_dir, started, worst) } else { worst }
}

fn token(config: &Config) -> Result<Option<String>, config::Error> {
    let secret = config.credentials().admin_token()?;
    Ok(secret.map(|secret| String::from_utf8_lossy(secret.bytes()).into_owned()))
}

fn admin_url(config: &Config) -> String {
    format!("http://{}", reachable(config.proxy.admin_listen))
}

/// Why a URL of `--url` cannot be called; none where it can.
fn unusable(url: &str) -> Option<&'static str> {
    match url.parse::<ureq::http::Uri>() {
        // Only TLS could be meant by another scheme, and this program goes to its own host without.
        Ok(url) if url.scheme_str() != Some("http") => Some("does not begin with http://"),
        Ok(url) if url.query().is_some() => Some("has a question mark"),
        Ok(_) => None,
        Err(_) => Some("is not a URL"),
    }
}

struct Client {
    base: String,
    token: Option<String>,
    /// Where a run that the proxy could not record is recorded.
    state_dir: Option<PathBuf>,
    deadline: Duration,
}

impl Client {
    /// Runs one pipeline.
    fn sync(&self, name: &str) -> Exit {
        let (begin, started) = (Instant::now(), jiff::Timestamp::now());
        let url = format!("{}/api/sync/{name}", self.base.trim_end_matches('/'));
        let response = match self.post(&url) {
            Ok(response) => response,
            Err(error) => {
                let start =
                    format!("is the proxy up? Start it with: systemctl start proxy.service, or: {}", hint("hub", "up"));
                let reason = format!("the proxy does not answer on {}: {}; {start}", self.base, http::said(&error));
                return self.died(name, started, &reason);
            }
        };
        let status = response.status().as_u16();
        let mut shown = Shown::new(name);
        let mut last = Value::Null;
        let mut lines = BufReader::new(response.into_body().into_reader());
        loop {
            let mut line = Vec::new();
            match lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {
                    last = serde_json::from_slice(&line).unwrap_or_default();
                    shown.show(&last);
                }
                Err(error) => {
                    shown.end();
                    if begin.elapsed() >= self.deadline {
                        let reason =
                            format!("not done within {} s; the run goes on in the proxy", self.deadline.as_secs());
                        return failed(name, "proxy", &reason, Exit::Error);
                    }
                    let reason = format!(
                        "the answer broke off: {error}; what is committed stays, the next run goes on from there"
                    );
                    return self.died(name, started, &reason);
                }
            }
        }
        shown.end();
        finish(name, status, &last, begin).unwrap_or_else(|| {
            let reason = format!("no result came ({status}); what is committed stays, the next run goes on from there");
            self.died(name, started, &reason)
        })
    }

    /// Why the admin token is not sent to what listens on this host; none where it may be. While the proxy is not there,
    /// anybody may listen in its place.
    fn stranger(&self) -> Option<String> {
        self.token.as_ref()?;
        let address: SocketAddr = self.base.trim_start_matches("http://").trim_end_matches('/').parse().ok()?;
        let uid = listeners::user_at(address).filter(|_| address.ip().is_loopback())?;
        let service = self.state_dir.as_ref().and_then(|state| std::fs::metadata(state.join("proxy")).ok());
        let known = [Some(0), Some(rustix::process::geteuid().as_raw()), service.map(|found| found.uid())];
        if known.contains(&Some(uid)) {
            return None;
        }
        Some(format!(
            "another user has taken {address}, and the admin token is not sent there: see ss -ltnp who, and end that first"
        ))
    }

    /// Tells and records a run that came to nothing because the proxy was not there, or not to its end.
    fn died(&self, name: &str, started: jiff::Timestamp, reason: &str) -> Exit {
        if let Some(state_dir) = &self.state_dir
            && let Err(error) = record_death(state_dir, name, started, reason)
        {
            log::warn!("run_record_failed", error = error.to_string());
        }
        failed(name, "proxy", reason, Exit::Error)
    }

    fn post(&self, url: &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let agent = http::agent(self.deadline);
        let until = Instant::now() + START_UP.min(self.deadline);
        let mut told = false;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let mut request = agent.post(url).header("Accept", "application/x-ndjson");
            if let Some(token) = &self.token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let refused = |error: &ureq::Error| matches!(error, ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused);
            let wait = backoff.next_wait();
            if let Some(reason) = self.stranger() {
                return Err(ureq::Error::Io(std::io::Error::other(reason)));
            }
            match request.send_empty() {
                Err(error) if refused(&error) && Instant::now() + wait < until => {
                    if !std::mem::replace(&mut told, true) {
                        tell_unreachable(&self.base, until.saturating_duration_since(Instant::now()));
                    }
                    std::thread::sleep(wait);
                }
                other => return other,
            }
        }
    }
}
