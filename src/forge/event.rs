//! What a verified delivery asks for, whichever forge sent it.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// No forge nests payloads nearly as deep.
const DEEPEST: usize = 128;
/// Characters of received text in a reason.
const LONGEST_SHOWN: usize = 200;

/// Why a payload cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// It is not UTF-8, as JSON must be (RFC 8259, section 8.1).
    #[error("the body is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// It is nested too deep.
    #[error("the JSON is nested deeper than {DEEPEST} levels")]
    TooDeep,
    /// It is not JSON, or lacks a key that the event has.
    #[error("the JSON is not what the event promises: {0}")]
    Json(String),
    /// The header that says which event it is, is not there.
    #[error("{0} is missing; it names the event")]
    NoEvent(&'static str),
}

/// What happened, as far as the hub cares.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The forge tries the webhook out.
    Ping,
    /// Branches or tags moved.
    Push {
        /// The repository's whole name at the forge, such as `owner/name`.
        repository: String,
        /// What moved; most forges send a delivery for each.
        moved: Vec<Moved>,
    },
    /// Something happened to a pull request.
    PullRequest {
        /// The name of the repository that it is to be merged into.
        repository: String,
        /// `closed` is the one that matters.
        action: String,
        /// Whether it was merged.
        merged: bool,
        /// The name of the base branch.
        base: String,
    },
    /// Any other event, by name.
    Other(String),
}

/// A branch or tag that moved.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    /// The full ref, such as `refs/heads/main`.
    pub reference: String,
    /// Whether it is gone.
    pub deleted: bool,
    /// The commit that it is at, by the sender's account.
    pub after: Option<String>,
}

impl Moved {
    fn is_branch(&self, branch: &str) -> bool {
        !self.deleted && self.reference.strip_prefix("refs/heads/") == Some(branch)
    }
}

/// Any object.
#[derive(Deserialize)]
struct Object {}

impl Event {
    /// The repository that it concerns, where the hub cares.
    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Push { repository, .. } | Self::PullRequest { repository, .. } => Some(repository),
            Self::Ping | Self::Other(_) => None,
        }
    }

    /// The commit that a branch is at by now, where the sender names one; a hint, since the forge may show it later.
    pub fn after(&self, branch: &str) -> Option<&str> {
        let Self::Push { moved, .. } = self else { return None };
        let after = moved.iter().find(|moved| moved.is_branch(branch))?.after.as_deref()?;
        let digits = after.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (digits && matches!(after.len(), 40 | 64)).then_some(after)
    }

    /// Why there is nothing to do for a repository that is deployed from `branches`; none where there is something.
    pub fn ignored(&self, branches: &[&str]) -> Option<String> {
        let configured = match branches {
            [branch] => format!("the configured branch is refs/heads/{branch}"),
            several => format!("the configured branches are refs/heads/{}", several.join(", refs/heads/")),
        };
        match self {
            Self::Ping => Some("a ping asks for nothing".to_owned()),
            Self::Other(name) => Some(format!("the event {name} is not push or pull_request")),
            Self::Push { moved, .. } if moved.iter().any(|one| branches.iter().any(|branch| one.is_branch(branch))) => {
                None
            }
            Self::Push { moved, .. } => match moved.as_slice() {
                [] => Some(format!("the push moves no branch; {configured}")),
                [Moved { reference, deleted: true, .. }] => {
                    Some(format!("{} was deleted; {configured}", shown(reference)))
                }
                [Moved { reference, .. }] => Some(format!("the push is to {}; {configured}", shown(reference))),
                [Moved { reference, .. }, others @ ..] => {
                    Some(format!("the push is to {} and {} more; {configured}", shown(reference), others.len()))
                }
            },
            Self::PullRequest { action, base, .. } if action != "closed" => {
                let (action, base) = (shown(action), shown(base));
                Some(format!("the pull request into refs/heads/{base} is {action}, not closed; {configured}"))
            }
            Self::PullRequest { merged: false, base, .. } => {
                Some(format!("the pull request into refs/heads/{} was closed unmerged; {configured}", shown(base)))
            }
            Self::PullRequest { base, .. } => (!branches.contains(&base.as_str()))
                .then(|| format!("the pull request was merged into refs/heads/{}; {configured}", shown(base))),
        }
    }
}

/// True of the commit that a forge names where a branch is gone: all zeros.
pub(super) fn is_none(commit: &str) -> bool {
    !commit.is_empty() && commit.bytes().all(|digit| digit == b'0')
}

/// Reads an object of which no key matters.
pub(super) fn any(text: &str) -> Result<(), Error> {
    from_json(text).map(|Object {}| ())
}

/// An event that the hub does not know.
pub(super) fn other(name: &str, text: &str) -> Result<Event, Error> {
    any(text).map(|()| Event::Other(shown(name)))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.inner().to_string();
        Error::Json(shown(&if path == "." { reason } else { format!("{path}: {reason}") }))
    })?;
    reader.end().map_err(|error| Error::Json(error.to_string()))?;
    Ok(value)
}

/// Received text for answers and log lines: without control characters, not too long.
pub fn shown(text: &str) -> String {
    // Cut first: printable makes copies, and a payload's text may be megabytes.
    let end = text.char_indices().nth(4 * LONGEST_SHOWN).map_or(text.len(), |(end, _)| end);
    let text = crate::text::shown(text.get(..end).unwrap_or_default()).into_owned();
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The parser skips what it does not know without recursion, at a byte of memory a level: this bounds it.
pub(super) fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string && depth == DEEPEST => return true,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::bitbucket::Bitbucket;
    use crate::forge::github::GITHUB;
    use crate::forge::gitlab::GitLab;

    fn read(name: Option<&str>, body: &[u8]) -> Result<Event, Error> {
        Event::read(&GITHUB, name, body)
    }

    fn ignored(name: &str, body: &str) -> Option<String> {
        read(Some(name), body.as_bytes()).unwrap().ignored(&["main"])
    }

    fn push(reference: &str, more: &str) -> String {
        format!(r#"{{"ref":"{reference}","repository":{{"full_name":"acme/infra","id":1}}{more}}}"#)
    }

    fn pull_request(action: &str, merged: bool, base: &str) -> String {
        format!(
            r#"{{"action":"{action}","pull_request":{{"merged":{merged},"base":{{"ref":"{base}"}}}},
                "repository":{{"full_name":"acme/infra"}}}}"#
        )
    }

    #[test]
    fn what_triggers() {
        assert_eq!(ignored("push", &push("refs/heads/main", "")), None);
        assert_eq!(ignored("push", &push("refs/heads/main", r#","deleted":false,"after":"00a0""#)), None);
        assert_eq!(ignored("pull_request", &pull_request("closed", true, "main")), None);
    }

    #[test]
    fn what_is_ignored_names_both_refs() {
        for (name, body, received) in [
            ("push", push("refs/heads/dev", ""), "refs/heads/dev"),
            ("push", push("refs/tags/main", ""), "refs/tags/main"),
            ("push", push("main", ""), "to main;"),
            ("push", push("refs/heads/main", r#","deleted":true"#), "refs/heads/main was deleted"),
            ("push", push("refs/heads/main", r#","after":"0000000000000000""#), "refs/heads/main was deleted"),
            ("pull_request", pull_request("closed", false, "main"), "refs/heads/main was closed unmerged"),
            ("pull_request", pull_request("opened", false, "main"), "is opened"),
            ("pull_request", pull_request("closed", true, "dev"), "refs/heads/dev"),
        ] {
            let reason = ignored(name, &body).unwrap();
            assert!(reason.contains(received) && reason.contains("configured branch is refs/heads/main"), "{reason}");
        }
        assert!(ignored("registry_package", "{}").unwrap().contains("registry_package"));
        assert_eq!(read(Some("ping"), b"{}"), Ok(Event::Ping));
    }

    #[test]
    fn any_of_several_branches_triggers() {
        let event = |reference: &str| read(Some("push"), push(reference, "").as_bytes()).unwrap();
        assert_eq!(event("refs/heads/staging").ignored(&["main", "staging"]), None);
        let reason = event("refs/heads/dev").ignored(&["main", "staging"]).unwrap();
        assert!(reason.ends_with("the configured branches are refs/heads/main, refs/heads/staging"), "{reason}");
    }

    #[test]
    fn merge_requests_and_pushes_of_gitlab() {
        let read = |name: &str, body: String| Event::read(&GitLab, Some(name), body.as_bytes()).unwrap();
        let project = r#""project":{"id":15,"path_with_namespace":"acme/ops/infra"}"#;
        let push = |reference: &str, after: &str| {
            let body = format!(r#"{{"object_kind":"push","ref":"{reference}","after":"{after}",{project}}}"#);
            read("Push Hook", body)
        };
        let commit = "da1560886d4f094c3e6c9ef40349f7d38b5d27d7";
        let event = push("refs/heads/main", commit);
        assert_eq!(event.repository(), Some("acme/ops/infra"));
        assert_eq!((event.ignored(&["main"]), event.after("main"), event.after("dev")), (None, Some(commit), None));
        let gone = push("refs/heads/main", &"0".repeat(40)).ignored(&["main"]).unwrap();
        assert!(gone.contains("refs/heads/main was deleted"), "{gone}");
        let tag = format!(r#"{{"object_kind":"tag_push","ref":"refs/tags/main","after":"{commit}",{project}}}"#);
        assert!(read("Tag Push Hook", tag).ignored(&["main"]).unwrap().contains("refs/tags/main"));
        let system = format!(r#"{{"event_name":"push","ref":"refs/heads/main","after":"{commit}",{project}}}"#);
        assert_eq!(read("System Hook", system).ignored(&["main"]), None);
        let merge = |state: &str, action: &str, target: &str| {
            let request = format!(r#"{{"target_branch":"{target}","state":"{state}"{action}}}"#);
            let body = format!(r#"{{"object_kind":"merge_request",{project},"object_attributes":{request}}}"#);
            read("Merge Request Hook", body).ignored(&["main"])
        };
        assert_eq!(merge("merged", r#","action":"merge""#, "main"), None);
        assert!(merge("merged", r#","action":"merge""#, "dev").unwrap().contains("refs/heads/dev"));
        assert!(merge("closed", r#","action":"close""#, "main").unwrap().contains("closed unmerged"));
        assert!(merge("opened", r#","action":"update""#, "main").unwrap().contains("is update"));
        assert!(merge("opened", "", "main").unwrap().contains("is opened"));
        let note = read("Note Hook", r#"{"object_kind":"note"}"#.to_owned()).ignored(&["main"]).unwrap();
        assert!(note.contains("Note Hook"), "{note}");
        let error = Event::read(&GitLab, Some("Push Hook"), br#"{"object_kind":"push","ref":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("`project`"), "{error}");
        assert_eq!(Event::read(&GitLab, None, b"{}"), Err(Error::NoEvent("X-Gitlab-Event")));
    }

    #[test]
    fn pull_requests_and_pushes_of_bitbucket() {
        let read = |name: &str, body: String| Event::read(&Bitbucket, Some(name), body.as_bytes()).unwrap();
        let repository = r#""repository":{"full_name":"acme/infra"}"#;
        let commit = "709d658dc5b6d6afcd46049c2f332ee3f515a67d";
        let branch = |name: &str| format!(r#"{{"type":"branch","name":"{name}","target":{{"hash":"{commit}"}}}}"#);
        let push = |changes: &str| read("repo:push", format!(r#"{{"push":{{"changes":[{changes}]}},{repository}}}"#));
        let main = format!(r#"{{"new":{},"old":null}}"#, branch("main"));
        let dev = format!(r#"{{"new":{0},"old":{0}}}"#, branch("dev"));
        let gone = format!(r#"{{"new":null,"old":{}}}"#, branch("main"));
        let tag = main.replace(r#""branch""#, r#""tag""#);
        // One delivery tells of everything that one push moved.
        let both = push(&format!("{dev},{tag},{main}"));
        assert_eq!(both.repository(), Some("acme/infra"));
        assert_eq!((both.ignored(&["main"]), both.after("main")), (None, Some(commit)));
        for (changes, said) in [
            (dev.clone(), "the push is to refs/heads/dev;"),
            (format!("{dev},{tag}"), "the push is to refs/heads/dev and 1 more;"),
            (gone.clone(), "refs/heads/main was deleted"),
            (tag.clone(), "refs/tags/main"),
            (String::new(), "moves no branch"),
        ] {
            let event = push(&changes);
            let reason = event.ignored(&["main"]).unwrap();
            assert!(reason.contains(said), "{reason}");
            assert_eq!(event.after("main"), None);
        }
        let pull = |key: &str, target: &str| {
            let request = format!(r#"{{"state":"MERGED","destination":{{"branch":{{"name":"{target}"}}}}}}"#);
            read(key, format!(r#"{{"pullrequest":{request},{repository}}}"#)).ignored(&["main"])
        };
        assert_eq!(pull("pullrequest:fulfilled", "main"), None);
        assert!(pull("pullrequest:fulfilled", "dev").unwrap().contains("refs/heads/dev"));
        assert!(pull("pullrequest:rejected", "main").unwrap().contains("closed unmerged"));
        assert!(pull("pullrequest:comment_created", "main").unwrap().contains("is comment_created"));
        assert!(read("repo:fork", "{}".to_owned()).ignored(&["main"]).unwrap().contains("repo:fork"));
    }

    #[test]
    fn a_missing_key_is_named() {
        for (name, body, key) in [
            ("push", r#"{"repository":{"full_name":"a/b"}}"#, "`ref`"),
            ("push", r#"{"ref":"x"}"#, "`repository`"),
            ("push", r#"{"ref":"x","repository":{"name":"b"}}"#, "repository: missing field `full_name`"),
            ("push", r#"{"ref":5,"repository":{"full_name":"a/b"}}"#, "ref: invalid type"),
            ("push", r#"{"ref":"x","ref":"y","repository":{"full_name":"a/b"}}"#, "duplicate field `ref`"),
            ("pull_request", r#"{"action":"closed","repository":{"full_name":"a/b"}}"#, "`pull_request`"),
            ("pull_request", r#"{"action":"closed","pull_request":{"merged":true}}"#, "pull_request: missing field"),
            ("ping", "[]", "not an object"),
            ("ping", "5", "invalid type"),
            ("star", "{} {}", "trailing"),
            ("push", "", "EOF"),
        ] {
            let error = read(Some(name), body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert_eq!(read(None, b"{}"), Err(Error::NoEvent("X-GitHub-Event")));
        assert!(matches!(read(None, b"{"), Err(Error::Json(_))));
        assert_eq!(read(Some("push"), b"{\"ref\":\"\xff\"}"), Err(Error::NotUtf8 { at: 8 }));
    }

    #[test]
    fn deep_json_is_refused_and_brackets_in_strings_are_not_deep() {
        let nested = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(Some("star"), nested(DEEPEST - 1).as_bytes()).is_ok());
        assert_eq!(read(Some("star"), nested(DEEPEST).as_bytes()), Err(Error::TooDeep));
        assert_eq!(read(Some("star"), "[".repeat(3 << 20).as_bytes()), Err(Error::TooDeep));
        let text = push("refs/heads/main", &format!(r#","message":"{}\"{{""#, "[".repeat(500)));
        assert_eq!(ignored("push", &text), None);
    }

    #[test]
    fn received_text_is_cut_and_cleaned() {
        let reason = ignored("push", &push(&format!(r"\u001b[31m{}", "é".repeat(5000)), "")).unwrap();
        assert!(reason.len() < 600 && !reason.contains('\u{1b}'), "{reason}");
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/event.rs"]
mod events;
