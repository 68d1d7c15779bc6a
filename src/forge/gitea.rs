//! What Gitea and Forgejo have at their API (their docs, "API", and `/api/swagger`: "repository").

use serde::Deserialize;
use serde_json::Value;

use super::board::{Board, OWN, Page, Said, State, Word, said_as_status};

/// The board of Gitea and Forgejo.
pub(super) struct Gitea;

/// They keep any length, and show one line.
const LONGEST: usize = 255;

#[derive(Deserialize)]
struct Combined {
    /// Null where there are none.
    // Null where there is none. Where the word is missing, it is another answer.
    #[serde(deserialize_with = "Option::deserialize")]
    statuses: Option<Vec<Status>>,
}

#[derive(Deserialize)]
struct Status {
    context: String,
    status: String,
}

impl Board for Gitea {
    fn ending(&self) -> &'static str {
        "/api/v1"
    }

    fn authorization(&self, token: &str) -> (&'static str, String) {
        ("Authorization", format!("token {token}"))
    }

    fn say(&self, repository: &str, commit: &str, said: &Said) -> (String, Value) {
        said_as_status(repository, commit, said, LONGEST)
    }

    fn questions(&self, repository: &str, commit: &str) -> Vec<String> {
        // A server gives 50 at most where nobody changed that.
        vec![format!("/repos/{repository}/commits/{commit}/status?limit=50")]
    }

    fn read(&self, answer: &str) -> serde_json::Result<Page> {
        let Combined { statuses } = serde_json::from_str(answer)?;
        let word = |Status { context, status }| {
            // A warning stops no merge either.
            let state = match status.as_str() {
                "success" | "warning" | "skipped" => State::Success,
                "pending" => State::Pending,
                _ => State::Failure,
            };
            Word { name: context, state }
        };
        // Its `total_count` is that of the page.
        let statuses = statuses.unwrap_or_default();
        let count = statuses.len();
        let others = statuses.into_iter().filter(|status| !status.context.starts_with(OWN));
        Ok(Page { words: others.map(word).collect(), count, of: None })
    }
}
