//! Bitbucket Cloud (support.atlassian.com, "Event payloads"; "Manage webhooks": the signature). Bitbucket Data Center has
//! other payloads, which are not read.

use serde::Deserialize;

use super::event::{self, Error, Event, Moved};
use super::sender::{Forge, Headers, Proof, first};

pub(super) struct Bitbucket;

const EVENT: &str = "X-Event-Key";

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct PushEvent {
    push: Push,
    repository: Repository,
}

#[derive(Deserialize)]
struct Push {
    changes: Vec<Change>,
}

/// A branch or tag that moved: `new` is none where it is gone, `old` where it was made.
#[derive(Deserialize)]
struct Change {
    new: Option<Reference>,
    old: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Option<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    hash: String,
}

#[derive(Deserialize)]
struct PullRequestEvent {
    pullrequest: PullRequest,
    repository: Repository,
}

#[derive(Deserialize)]
struct PullRequest {
    destination: Destination,
}

#[derive(Deserialize)]
struct Destination {
    branch: Branch,
}

#[derive(Deserialize)]
struct Branch {
    name: String,
}

impl Change {
    fn moved(self) -> Option<Moved> {
        let deleted = self.new.is_none();
        let Reference { kind, name, target } = self.new.or(self.old)?;
        // Of a bookmark, or whatever comes next, the name is not one of git's.
        let reference = match kind.as_str() {
            "branch" => format!("refs/heads/{name}"),
            "tag" => format!("refs/tags/{name}"),
            _ => name,
        };
        Some(Moved { reference, deleted, after: target.filter(|_| !deleted).map(|commit| commit.hash) })
    }
}

impl Forge for Bitbucket {
    fn proof(&self) -> Proof {
        Proof::Mac { header: "X-Hub-Signature", prefix: "sha256=" }
    }

    /// GitHub sends SHA-1 in the header of that name.
    fn sends(&self, headers: &Headers) -> bool {
        first(&[EVENT], headers).is_some()
    }

    fn event_headers(&self) -> &'static [&'static str] {
        &[EVENT]
    }

    fn id_headers(&self) -> &'static [&'static str] {
        &["X-Request-UUID"]
    }

    fn hosts(&self) -> &'static [&'static str] {
        &["bitbucket"]
    }

    fn commit_path(&self) -> &'static str {
        "commits"
    }

    fn read(&self, name: &str, text: &str) -> Result<Event, Error> {
        if name == "repo:push" {
            let PushEvent { push, repository } = event::from_json(text)?;
            let moved = push.changes.into_iter().filter_map(Change::moved).collect();
            return Ok(Event::Push { repository: repository.full_name, moved });
        }
        let Some(action) = name.strip_prefix("pullrequest:") else { return event::other(name, text) };
        let event: PullRequestEvent = event::from_json(text)?;
        let action = if matches!(action, "fulfilled" | "rejected") { "closed" } else { action };
        Ok(Event::PullRequest {
            repository: event.repository.full_name,
            action: event::shown(action),
            merged: name == "pullrequest:fulfilled",
            base: event.pullrequest.destination.branch.name,
        })
    }
}
