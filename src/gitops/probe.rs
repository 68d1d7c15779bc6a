use std::time::{Duration, Instant};

use super::Error;
use crate::config::Repository;

/// The longest one question to a health URL takes.
const ANSWER: Duration = Duration::from_secs(5);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until the repository's health URL answers 2xx, for as long as the grace period lasts. Done at once where no
/// URL is configured.
pub(super) fn wait_healthy(repository: &Repository) -> Result<(), Error> {
    let Some(url) = &repository.health.url else { return Ok(()) };
    let grace = Duration::from_secs(repository.health.grace_seconds);
    let deadline = Instant::now() + grace;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let reason = match ask(&url.0, left.clamp(Duration::from_millis(100), ANSWER)) {
            Ok(200..=299) => return Ok(()),
            Ok(status) => format!("answers {status}"),
            Err(error) => error.to_string(),
        };
        if left <= PAUSE {
            let reason = format!("{} was not healthy within {} s: {reason}", url.0, grace.as_secs());
            return Err(Error::Step { step: "health", reason });
        }
        std::thread::sleep(PAUSE);
    }
}

fn ask(url: &str, limit: Duration) -> Result<u16, ureq::Error> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build()
        .new_agent();
    agent.get(url).call().map(|answer| answer.status().as_u16())
}
