//! What a way makes of a notice, and why it was not taken.

use std::time::Duration;

use jiff::SignedDuration;

/// The longest one try takes.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Why a notice was not taken.
#[derive(Debug)]
pub struct Unsent {
    /// For a person; without the URL's path, which may be a secret.
    pub reason: String,
    /// How long the server does not want to be asked.
    pub retry_after: Option<SignedDuration>,
    /// True where the server will not take this notice later either, for what is in it.
    pub is_final: bool,
}

impl From<String> for Unsent {
    fn from(reason: String) -> Self {
        Self { reason, retry_after: None, is_final: false }
    }
}

/// The headers and the body of a request.
pub(super) type Parts = (Vec<(&'static str, String)>, String);
