//! GitHub (docs.github.com, "Webhook events and payloads"), and Gitea and Forgejo, which send the same keys for the two
//! events that matter (their docs, "Webhooks").

use serde::Deserialize;
use serde_json::Value;

use super::board::{Board, OWN, Page, Said, State, Word, said_as_status};
use super::event::{self, Error, Event, Moved};
use super::gitea::Gitea;
use super::sender::{Forge, Proof};

/// GitHub, or a forge that sends what it sends.
pub(super) struct GitHub(Proof, &'static [&'static str], &'static dyn Board);

/// Gitea and Forgejo send this header too, beside their own.
pub(super) const GITHUB: GitHub =
    GitHub(Proof::Mac { header: "X-Hub-Signature-256", prefix: "sha256=" }, &["github"], &Statuses);
pub(super) const FORGEJO: GitHub =
    GitHub(Proof::Mac { header: "X-Forgejo-Signature", prefix: "" }, &["forgejo", "codeberg"], &Gitea);
pub(super) const GITEA: GitHub = GitHub(Proof::Mac { header: "X-Gitea-Signature", prefix: "" }, &["gitea"], &Gitea);

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    deleted: Option<bool>,
    after: Option<String>,
    repository: Repository,
}

#[derive(Deserialize)]
struct PullRequestEvent {
    action: String,
    pull_request: PullRequest,
    repository: Repository,
}

#[derive(Deserialize)]
struct PullRequest {
    merged: Option<bool>,
    base: Base,
}

#[derive(Deserialize)]
struct Base {
    #[serde(rename = "ref")]
    reference: String,
}

impl Forge for GitHub {
    fn proof(&self) -> Proof {
        self.0
    }

    fn event_headers(&self) -> &'static [&'static str] {
        &["X-GitHub-Event", "X-Forgejo-Event", "X-Gitea-Event"]
    }

    fn id_headers(&self) -> &'static [&'static str] {
        &["X-GitHub-Delivery", "X-Forgejo-Delivery", "X-Gitea-Delivery"]
    }

    fn hosts(&self) -> &'static [&'static str] {
        self.1
    }

    fn board(&self) -> Option<&'static dyn Board> {
        Some(self.2)
    }

    fn read(&self, name: &str, text: &str) -> Result<Event, Error> {
        match name {
            "push" => {
                let Push { reference, deleted, after, repository } = event::from_json(text)?;
                let deleted = deleted == Some(true) || after.as_deref().is_some_and(event::is_none);
                Ok(Event::Push { repository: repository.full_name, moved: vec![Moved { reference, deleted, after }] })
            }
            "pull_request" => {
                let event: PullRequestEvent = event::from_json(text)?;
                Ok(Event::PullRequest {
                    repository: event.repository.full_name,
                    action: event.action,
                    merged: event.pull_request.merged == Some(true),
                    base: event.pull_request.base.reference,
                })
            }
            "ping" => event::any(text).map(|()| Event::Ping),
            other => event::other(other, text),
        }
    }
}

/// GitHub's own board (docs.github.com, "REST API endpoints for commit statuses" and "for check runs").
struct Statuses;

/// More characters of a description are refused (422).
const LONGEST: usize = 140;

/// The answer to one of the two questions: the combined status has no check runs in it.
#[derive(Deserialize)]
struct Words {
    total_count: usize,
    #[serde(default)]
    statuses: Vec<Status>,
    #[serde(default)]
    check_runs: Vec<CheckRun>,
}

#[derive(Deserialize)]
struct Status {
    context: String,
    state: String,
}

#[derive(Deserialize)]
struct CheckRun {
    name: String,
    conclusion: Option<String>,
}

impl Board for Statuses {
    fn ending(&self) -> &'static str {
        "/api/v3"
    }

    fn root(&self, host: &str) -> String {
        if host.eq_ignore_ascii_case("github.com") {
            return "https://api.github.com".to_owned();
        }
        format!("https://{host}{}", self.ending())
    }

    fn authorization(&self, token: &str) -> (&'static str, String) {
        ("Authorization", format!("Bearer {token}"))
    }

    fn say(&self, repository: &str, commit: &str, said: &Said) -> (String, Value) {
        said_as_status(repository, commit, said, LONGEST)
    }

    fn questions(&self, repository: &str, commit: &str) -> Vec<String> {
        let of_commit = format!("/repos/{repository}/commits/{commit}");
        vec![format!("{of_commit}/status?per_page=100"), format!("{of_commit}/check-runs?filter=latest&per_page=100")]
    }

    fn read(&self, answer: &str) -> serde_json::Result<Page> {
        let Words { total_count, statuses, check_runs } = serde_json::from_str(answer)?;
        let count = statuses.len() + check_runs.len();
        let others = statuses.into_iter().filter(|status| !status.context.starts_with(OWN));
        let statuses = others.map(|Status { context: name, state }| {
            let state = match state.as_str() {
                "success" => State::Success,
                "pending" => State::Pending,
                _ => State::Failure,
            };
            Word { name, state }
        });
        // A run has a conclusion when it is completed.
        let runs = check_runs.into_iter().map(|CheckRun { name, conclusion }| {
            let state = match conclusion.as_deref() {
                None => State::Pending,
                Some("success" | "neutral" | "skipped") => State::Success,
                Some(_) => State::Failure,
            };
            Word { name, state }
        });
        Ok(Page { words: statuses.chain(runs).collect(), count, of: Some(total_count) })
    }
}
