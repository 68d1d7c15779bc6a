//! GitHub (docs.github.com, "Webhook events and payloads"), and Gitea and Forgejo, which send the same keys for the two
//! events that matter (their docs, "Webhooks").

use serde::Deserialize;

use super::event::{self, Error, Event, Moved};
use super::{Forge, Proof};

/// GitHub, or a forge that sends what it sends.
pub(super) struct GitHub(Proof, &'static [&'static str]);

/// Gitea and Forgejo send this header too, beside their own.
pub(super) const GITHUB: GitHub = GitHub(Proof::Mac { header: "X-Hub-Signature-256", prefix: "sha256=" }, &["github"]);
pub(super) const FORGEJO: GitHub =
    GitHub(Proof::Mac { header: "X-Forgejo-Signature", prefix: "" }, &["forgejo", "codeberg"]);
pub(super) const GITEA: GitHub = GitHub(Proof::Mac { header: "X-Gitea-Signature", prefix: "" }, &["gitea"]);

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
