//! GitLab (docs.gitlab.com, "Webhook events"; "System hooks"). It sends the secret itself, and may have names of more
//! than two parts.

use serde::Deserialize;

use super::event::{self, Error, Event, Moved};
use super::{Forge, Proof};

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

    fn commit_path(&self) -> &'static str {
        "-/commit"
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
