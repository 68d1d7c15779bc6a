use std::time::{Duration, Instant};

use super::Error;
use crate::config::Repository;

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
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let reason = match ask(&url.0, left.clamp(SHORTEST, ANSWER)) {
            Ok(200..=299) => return Ok(()),
            Ok(status) => format!("answers {status}"),
            Err(error) => error.to_string(),
        };
        if left <= PAUSE {
            let reason = format!("{} was not healthy within {} s: {reason}", url.0, repository.health.grace_seconds);
            return Err(Error::Step { step: "health", reason });
        }
        std::thread::sleep(PAUSE);
    }
}

fn ask(url: &str, limit: Duration) -> Result<u16, ureq::Error> {
    crate::http::agent(limit).get(url).call().map(|answer| answer.status().as_u16())
}
