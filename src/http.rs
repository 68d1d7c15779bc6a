//! How the hub's programs ask one another over HTTP. For services of this host only: what goes out to the world is git's
//! and tailscale's. Nothing here knows a path or what an answer means.

use std::time::Duration;

/// A client for a service of this host: every status is an answer, nothing is followed, and no `*_proxy` of the environment
/// leads out. `limit` is for a whole request with its answer.
pub fn agent(limit: Duration) -> ureq::Agent {
    ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(limit))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build(),
    )
}
