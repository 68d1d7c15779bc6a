//! GitLab (docs.gitlab.com, "Webhook events"; "System hooks"). It sends the secret itself, and may have names of more
//! than two parts.

use serde::Deserialize;
use serde_json::{Value, json};

use super::board::{Board, OWN, Page, Said, State, Word};
use super::event::{self, Error, Event, Moved};
use super::sender::{Forge, Proof};

pub(super) struct GitLab;

/// What the payload is: hooks of projects say so in `object_kind`, system hooks of pushes in `event_name`.
#[derive(Deserialize)]
struct Kind {
    object_kind: Option<String>,
    event_name: Option<String>,
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: String,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    after: Option<String>,
    project: Project,
}

#[derive(Deserialize)]
struct MergeRequestEvent {
    object_attributes: MergeRequest,
    project: Project,
}

#[derive(Deserialize)]
struct MergeRequest {
    target_branch: String,
    state: String,
    action: Option<String>,
}

impl Forge for GitLab {
    fn proof(&self) -> Proof {
        Proof::Token { header: "X-Gitlab-Token" }
    }

    fn event_headers(&self) -> &'static [&'static str] {
        &["X-Gitlab-Event"]
    }

    fn id_headers(&self) -> &'static [&'static str] {
        &["X-Gitlab-Event-UUID", "X-Gitlab-Webhook-UUID"]
    }

    fn hosts(&self) -> &'static [&'static str] {
        &["gitlab"]
    }

    fn has_groups(&self) -> bool {
        true
    }

    fn commit_path(&self) -> &'static str {
        "-/commit"
    }

    fn board(&self) -> Option<&'static dyn Board> {
        Some(&Statuses)
    }

    fn read(&self, name: &str, text: &str) -> Result<Event, Error> {
        let Kind { object_kind, event_name } = event::from_json(text)?;
        match object_kind.or(event_name).as_deref() {
            Some("push" | "tag_push") => {
                let Push { reference, after, project } = event::from_json(text)?;
                let deleted = after.as_deref().is_some_and(event::is_none);
                let moved = vec![Moved { reference, deleted, after }];
                Ok(Event::Push { repository: project.path_with_namespace, moved })
            }
            Some("merge_request") => {
                let MergeRequestEvent { object_attributes: request, project } = event::from_json(text)?;
                let action = match request.action.as_deref() {
                    Some("merge" | "close") => "closed".to_owned(),
                    Some(other) => other.to_owned(),
                    None => request.state.clone(),
                };
                Ok(Event::PullRequest {
                    repository: project.path_with_namespace,
                    action,
                    merged: request.state == "merged",
                    base: request.target_branch,
                })
            }
            _ => event::other(name, text),
        }
    }
}

/// GitLab's board (docs.gitlab.com, "Commits API": commit status). The jobs of its pipelines are on it, too.
struct Statuses;

/// More characters of a description are refused.
const LONGEST: usize = 255;

#[derive(Deserialize)]
struct Status {
    name: String,
    status: String,
    #[serde(default)]
    allow_failure: bool,
}

impl Board for Statuses {
    fn ending(&self) -> &'static str {
        "/api/v4"
    }

    fn authorization(&self, token: &str) -> (&'static str, String) {
        ("PRIVATE-TOKEN", token.to_owned())
    }

    fn say(&self, repository: &str, commit: &str, said: &Said) -> (String, Value) {
        let state = match said.state {
            State::Pending => "pending",
            State::Success => "success",
            State::Failure => "failed",
        };
        let body = json!({ "name": said.context, "state": state, "description": said.within(LONGEST) });
        (format!("/projects/{}/statuses/{commit}", id(repository)), body)
    }

    /// Who says once more that something is pending is told that this is no step ("Cannot transition status via :enqueue from
    /// :pending").
    fn stands_already(&self, status: u16, answer: &str) -> bool {
        status == 400 && answer.contains("Cannot transition status")
    }

    fn questions(&self, repository: &str, commit: &str) -> Vec<String> {
        vec![format!("/projects/{}/repository/commits/{commit}/statuses?per_page=100", id(repository))]
    }

    fn read(&self, answer: &str) -> serde_json::Result<Page> {
        let statuses: Vec<Status> = serde_json::from_str(answer)?;
        let word = |Status { name, status, allow_failure }| {
            let state = match status.as_str() {
                "success" | "skipped" => State::Success,
                // A job that waits for a person and stops nothing.
                "manual" | "failed" | "canceled" if allow_failure => State::Success,
                "failed" | "canceled" => State::Failure,
                _ => State::Pending,
            };
            Word { name, state }
        };
        let count = statuses.len();
        let others = statuses.into_iter().filter(|status| !status.name.starts_with(OWN));
        Ok(Page { words: others.map(word).collect(), count, of: None })
    }
}

/// What stands for a project in a path.
fn id(repository: &str) -> String {
    repository.replace('/', "%2F")
}
