//! The heartbeat, in the way of healthchecks.io ("Pinging API"): the URL while the host is well enough, `/fail` with the
//! reasons as the body where something failed. That none comes is what tells that the host is dead.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::ways::{MOST_OF_ANSWER, Unsent, answer, outward, silent};
use crate::config::{Config, Error, WebUrl};
use crate::health::{Level, Reason};
use crate::text;

/// healthchecks.io keeps 100 kB of a body; nobody reads more than a page.
const LONGEST_BODY: usize = 10_000;

/// When the last heartbeat was sent, and what came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// When it was tried.
    at: Option<Timestamp>,
    /// Since when it does not arrive, and why.
    failing: Option<(Timestamp, String)>,
}

impl Heartbeat {
    /// Where it goes: the credential `heartbeat-url`, else the configured one.
    ///
    /// # Errors
    /// When the credential cannot be read, or is no URL.
    pub fn url(config: &Config) -> Result<Option<WebUrl>, Error> {
        Ok(config.credentials().url("heartbeat-url")?.or_else(|| config.notify.heartbeat.clone()))
    }

    /// True when it is time for one. `every` is the time between two.
    pub fn is_due(&self, now: Timestamp, every: SignedDuration) -> bool {
        // A look is a few seconds early or late; a clock that was set back must not silence it.
        self.at.is_none_or(|at| at > now || now.duration_since(at) + SignedDuration::from_secs(30) >= every)
    }

    /// Sends one, and takes down how it went.
    pub fn send(&mut self, config: &Config, url: &WebUrl, reasons: &[Reason], now: Timestamp) {
        self.at = Some(now);
        match send(config, url, reasons) {
            Ok(()) => self.failing = None,
            Err(unsent) => {
                let since = self.failing.take().map_or(now, |(since, _)| since);
                crate::log::warn!("heartbeat_failed", error = unsent.reason);
                self.failing = Some((since, unsent.reason));
            }
        }
    }

    /// Since when it does not arrive, and why.
    pub fn failing(&self) -> Option<&(Timestamp, String)> {
        self.failing.as_ref()
    }
}

fn send(config: &Config, url: &WebUrl, reasons: &[Reason]) -> Result<(), Unsent> {
    let agent = outward(url, config.notify.ca.as_deref())?;
    let failed: Vec<&Reason> = reasons.iter().filter(|reason| reason.level == Level::Failed).collect();
    let target = if failed.is_empty() { url.secret().to_owned() } else { below(url.secret(), "fail") };
    let name = crate::records::ASKS_ITSELF;
    let result = if failed.is_empty() {
        agent.get(target).header("User-Agent", name).call()
    } else {
        let lines: String = reasons.iter().map(|reason| format!("{}: {}\n", reason.about, reason.reason)).collect();
        let request = agent.post(target).header("User-Agent", name).header("Content-Type", "text/plain; charset=utf-8");
        request.send(text::cut(&text::shown_lines(&lines), LONGEST_BODY).as_ref())
    };
    let mut heard = result.map_err(|error| silent(url, &error))?;
    if heard.status().is_success() {
        // healthchecks.io says 200 to whoever pings what it does not have, or pings too often ("Pinging API", "Response").
        let words = heard.body_mut().with_config().limit(MOST_OF_ANSWER).read_to_string().unwrap_or_default();
        if words.starts_with("OK (") {
            let words = text::sentence(text::cut(words.trim(), 100).as_ref());
            return Err(format!("{url} answered 200: {words}; look at the URL").into());
        }
        return Ok(());
    }
    answer(url, heard, None).map(drop)
}

/// A path below that of a URL, its query kept.
fn below(url: &str, name: &str) -> String {
    let (path, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    format!("{}/{name}{query}", path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn fail_is_below_the_url() {
        assert_eq!(below("https://hc-ping.com/uuid", "fail"), "https://hc-ping.com/uuid/fail");
        assert_eq!(below("https://hc.example/ping/x/?rid=1", "fail"), "https://hc.example/ping/x/fail?rid=1");
    }
}
