use std::time::{Duration, Instant};

use super::Error;
use crate::config::Repository;
use crate::http::{self, Trusting};

/// The longest one question to a health URL takes.
const ANSWER: Duration = Duration::from_secs(5);
/// The shortest, when the time is over.
const SHORTEST: Duration = Duration::from_secs(1);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until the repository's health URL answers 2xx, until the deadline at most; it is asked once in any case. Done at
/// once where no URL is configured.
pub(super) fn wait_healthy(repository: &Repository, deadline: Instant) -> Result<(), Error> {
    let Some(url) = &repository.health.url else { return Ok(()) };
    let trusting = trusting(repository, &url.0).map_err(|reason| Error::Step { step: "health", reason })?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let reason = match ask(&trusting.agent(left.clamp(SHORTEST, ANSWER)), &url.0) {
            Ok(200..=299) => return Ok(()),
            Ok(status) => format!("answers {status}"),
            Err(reason) => reason,
        };
        if left <= PAUSE {
            let reason = format!("{} was not healthy within {} s: {reason}", url.0, repository.health.grace_seconds);
            return Err(Error::Step { step: "health", reason });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Asks the health URL once.
fn ask(agent: &ureq::Agent, url: &str) -> Result<u16, String> {
    let answer = agent.get(url).call().map_err(|error| format!("{error}{}", http::advice(&error, CA)))?;
    Ok(answer.status().as_u16())
}

/// Whether the health URL can be asked at all, before anything is deployed: no commit is to blame for a missing file.
///
/// # Errors
/// `Refused` where `health.ca` cannot be used, or this build has no TLS.
pub(super) fn check(repository: &Repository) -> Result<(), Error> {
    let Some(url) = &repository.health.url else { return Ok(()) };
    trusting(repository, &url.0).map(drop).map_err(|reason| Error::Refused(format!("health: {reason}")))
}

/// How a person names the authority of a health URL.
const CA: &str = "ca = \"/path/ca.pem\" in health";

/// What the client of the health URL trusts.
fn trusting(repository: &Repository, url: &str) -> Result<Trusting, String> {
    Trusting::of(url, repository.health.ca.as_ref().map(|path| path.0.as_path()), CA)
}
