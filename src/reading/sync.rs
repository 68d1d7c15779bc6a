//! `reading-sync`: asks the proxy to run the pipelines, shows how it goes, ends with what came of it.

use std::io::{BufRead, BufReader, IsTerminal, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::{SERVICE, record_death};
use crate::command::Backoff;
use crate::config::{self, Config, reachable};
use crate::exit::{self, Exit};
use crate::{http, log};

/// Ask the proxy on this host to move what waits in the configured pipelines' sources, and show how it goes: a bar on
/// a terminal, JSON log lines elsewhere.
#[derive(argh::FromArgs)]
#[argh(
    example = "reading-sync\nreading-sync --pipeline reading --deadline 600",
    error_code(1, "A pipeline failed, or the proxy is down; the message says which side and what to do."),
    error_code(2, "The command line is wrong, or the pipeline is not configured."),
    error_code(75, "A run is going on already."),
    error_code(78, "The configuration is wrong.")
)]
struct Arguments {
    /// the pipeline; default: every configured one, one after the other
    #[argh(option, arg_name = "NAME")]
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
    /// say whether the configuration is right, and do nothing
    #[argh(switch)]
    check: bool,
}

/// How long a proxy that does not answer is given: at boot both start at once.
const START_UP: Duration = Duration::from_secs(15);
/// Between two log lines about progress.
const TELL_EVERY: Duration = Duration::from_secs(5);
const LONGEST_LINE: u64 = 64 << 10;

/// The program `reading-sync`.
///
/// Returns 0 when everything was moved, 1 when a pipeline failed or the proxy is down, 2 for a wrong command line, 75
/// while a run is going on, 78 for a wrong configuration.
pub fn main() -> ExitCode {
    log::start(SERVICE);
    let arguments: Arguments = match exit::arguments("reading-sync") {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) if arguments.check => return exit::configuration_valid(&config).into(),
        Ok(config) => config,
        Err(error) => return exit::configuration_error(&error).into(),
    };
    let token = match token(&config) {
        Ok(token) => token,
        Err(error) => return exit::configuration_error(&error).into(),
    };
    let names: Vec<String> = match &arguments.pipeline {
        Some(name) => vec![name.clone()],
        None => config.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect(),
    };
    if names.is_empty() {
        log::info!("nothing_configured", note = "hub.toml has no [[pipeline]]; contrib/hub.toml shows one");
        return Exit::Done.into();
    }
    // Of another proxy's runs this host's record says nothing.
    let state_dir = arguments.url.is_none().then(|| config.state_dir.clone());
    let base = arguments.url.unwrap_or_else(|| admin_url(&config));
    if let Some(reason) = unusable(&base) {
        complain(&format!("reading-sync: --url {base:?} {reason}; write one such as http://127.0.0.1:8086"));
        return Exit::Usage.into();
    }
    let client = Client { base, token, state_dir, deadline: Duration::from_secs(arguments.deadline.max(1)) };
    let mut worst = Exit::Done;
    for name in &names {
        let code = client.sync(name);
        if code != Exit::Done && worst != Exit::Error {
            worst = code;
        }
    }
    worst.into()
}

fn token(config: &Config) -> Result<Option<String>, config::Error> {
    let secret = config.credentials().read("admin-token")?;
    Ok(secret.map(|secret| String::from_utf8_lossy(secret.bytes()).trim().to_owned()))
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
                let start = "is the proxy up? Start it with: systemctl start proxy.service, or: hub up";
                let reason = format!("the proxy does not answer on {}: {error}; {start}", self.base);
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

/// What a person or a log sees of a run.
struct Shown {
    bar: Option<ProgressBar>,
    name: String,
    told: Instant,
}

impl Shown {
    fn new(name: &str) -> Self {
        Self { bar: None, name: name.to_owned(), told: Instant::now() }
    }

    fn show(&mut self, line: &Value) {
        if line["status"] != "running" {
            return;
        }
        let number = |key: &str| line[key].as_u64().unwrap_or(0);
        let (done, total, unit) = (number("done"), number("total"), line["unit"].as_str().unwrap_or("documents"));
        let (documents, dead) = (number("processed_count"), number("dead_letters"));
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| bar(&self.name, total, unit));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{documents} documents, {dead} dead letters"));
        } else if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            log::info!(
                "sync_progress",
                pipeline = self.name,
                processed_count = documents,
                dead_letters = dead,
                done = done,
                total = total,
                unit = unit
            );
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, total: u64, unit: &str) -> ProgressBar {
    let amount = if unit == "bytes" { "{bytes}/{total_bytes}" } else { "{human_pos}/{human_len}" };
    let template = format!("{{prefix}} [{{wide_bar}}] {amount} {{msg}} {{eta}}");
    // The template is one of two fixed ones; without it the bar has another look.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style);
    bar.set_prefix(name.to_owned());
    bar
}

/// Tells the end of a run by its last line; none where that tells no end.
fn finish(name: &str, status: u16, last: &Value, begin: Instant) -> Option<Exit> {
    let text = |key: &str| last[key].as_str().unwrap_or_default();
    let exit = match (status, text("status")) {
        (200, "success") => {
            let count = |key: &str| last[key].as_u64().unwrap_or(0);
            let seconds = begin.elapsed().as_secs_f64();
            let (dead, damaged) = (count("dead_letters"), count("damaged_files"));
            if std::io::stdout().is_terminal() {
                let look = if dead > 0 { "; look at them with: hub dead-letters" } else { "" };
                let (moved, stored) = (count("processed_count"), count("stored"));
                exit::print(&format!(
                    "{name}: {moved} documents moved in {seconds:.1} s ({stored} new or changed rows, {dead} dead letters{look})"
                ));
                if damaged > 0 {
                    exit::print(&format!(
                        "{damaged} damaged files were put into failed/ of the inbox; the proxy's log says why"
                    ));
                }
            } else {
                let mut fields = last.as_object().cloned().unwrap_or_default();
                for standard in ["service", "status", "timestamp"] {
                    fields.remove(standard);
                }
                fields.insert("duration_ms".to_owned(), (begin.elapsed().as_millis() as u64).into());
                log::write(log::Level::Info, "sync_done", fields);
                if dead > 0 {
                    log::warn!("dead_letters", pipeline = name, count = dead, look = "hub dead-letters list");
                }
                if damaged > 0 {
                    log::warn!("damaged_files", pipeline = name, count = damaged, look = "failed/ of the inbox");
                }
            }
            Exit::Done
        }
        (409, _) => failed(name, "pipeline", text("reason"), Exit::Busy),
        (404, _) => {
            let reason = format!("{}; is it the admin listener, and has the proxy read this hub.toml?", text("reason"));
            failed(name, "pipeline", &reason, Exit::Usage)
        }
        (_, "error") => {
            let side = if text("side").is_empty() { "proxy" } else { text("side") };
            failed(name, side, text("reason"), Exit::Error)
        }
        _ => return None,
    };
    Some(exit)
}

/// Says once that a proxy that does not answer yet is waited for.
fn tell_unreachable(base: &str, left: Duration) {
    let seconds = left.as_secs_f64().ceil() as u64;
    if std::io::stdout().is_terminal() {
        complain(&format!("reading-sync: the proxy does not answer on {base}; trying again for {seconds} s"));
    } else {
        let note = "nobody listens there; it is tried again, as at boot the proxy may be later";
        log::warn!("proxy_unreachable", url = base, seconds = seconds, note = note);
    }
}

fn failed(name: &str, side: &str, reason: &str, exit: Exit) -> Exit {
    if std::io::stdout().is_terminal() {
        complain(&format!("reading-sync: {name}: {side}: {reason}"));
    } else {
        log::error!("sync_failed", pipeline = name, side = side, error = reason);
    }
    exit
}

#[expect(clippy::print_stderr, reason = "the reason is for the person at the terminal")]
fn complain(text: &str) {
    eprintln!("{text}");
}
