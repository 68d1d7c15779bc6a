//! What a verified delivery asks for. Payloads: docs.github.com, "Webhook events and payloads"; Gitea and Forgejo send
//! the same keys for the two events that matter.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// No forge nests payloads nearly as deep.
const DEEPEST: usize = 128;
/// Characters of received text in a reason.
const LONGEST_SHOWN: usize = 200;

const NAME_HEADERS: [&str; 3] = ["X-GitHub-Event", "X-Forgejo-Event", "X-Gitea-Event"];
const ID_HEADERS: [&str; 3] = ["X-GitHub-Delivery", "X-Forgejo-Delivery", "X-Gitea-Delivery"];

/// Why a payload cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// It is not UTF-8, as JSON must be (RFC 8259, section 8.1).
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// It is nested too deep.
    TooDeep,
    /// It is not JSON, or lacks a key that the event has.
    Json(String),
    /// No header says which event it is.
    NoEvent,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { at } => write!(f, "the body is not UTF-8 at byte {at}"),
            Self::TooDeep => write!(f, "the JSON is nested deeper than {DEEPEST} levels"),
            Self::Json(reason) => write!(f, "the JSON is not what the event promises: {reason}"),
            Self::NoEvent => f.write_str("X-GitHub-Event is missing; it says what happened"),
        }
    }
}

impl std::error::Error for Error {}

/// What happened, as far as the hub cares.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The forge tries the webhook out.
    Ping,
    /// A branch or tag moved.
    Push {
        /// `owner/name`.
        repository: String,
        /// The full ref, such as `refs/heads/main`.
        reference: String,
        /// Whether the ref is gone.
        deleted: bool,
        /// The commit that the ref is at, by the sender's account.
        after: Option<String>,
    },
    /// Something happened to a pull request.
    PullRequest {
        /// `owner/name` of the base.
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

/// Any object.
#[derive(Deserialize)]
struct Object {}

/// The event's name in the headers of GitHub, Forgejo or Gitea.
pub fn name<'a>(headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<&'a str> {
    first(&NAME_HEADERS, headers)
}

/// The delivery id in the headers of GitHub, Forgejo or Gitea. It is not signed.
pub fn id<'a>(headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<&'a str> {
    first(&ID_HEADERS, headers)
}

fn first<'a>(names: &[&str], headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<&'a str> {
    let value = |wanted: &&str| headers.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    names.iter().find_map(value).map(|(_, value)| value)
}

impl Event {
    /// Reads a verified body. `name` is the event's name from the headers. JSON comes first, so that a body which is
    /// none is refused whatever the event.
    ///
    /// # Errors
    /// When the body is not JSON, lacks a key, or the event has no name.
    pub fn read(name: Option<&str>, body: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|error| Error::NotUtf8 { at: error.valid_up_to() })?;
        if is_too_deep(text) {
            return Err(Error::TooDeep);
        }
        // serde takes an array for a struct too.
        if text.trim_ascii_start().starts_with('[') {
            return Err(Error::Json("it is an array, not an object".to_owned()));
        }
        match name {
            Some("push") => {
                let push: Push = from_json(text)?;
                let gone = |after: &str| !after.is_empty() && after.bytes().all(|digit| digit == b'0');
                Ok(Self::Push {
                    repository: push.repository.full_name,
                    reference: push.reference,
                    deleted: push.deleted == Some(true) || push.after.as_deref().is_some_and(gone),
                    after: push.after,
                })
            }
            Some("pull_request") => {
                let event: PullRequestEvent = from_json(text)?;
                Ok(Self::PullRequest {
                    repository: event.repository.full_name,
                    action: event.action,
                    merged: event.pull_request.merged == Some(true),
                    base: event.pull_request.base.reference,
                })
            }
            other => {
                let Object {} = from_json(text)?;
                match other {
                    None => Err(Error::NoEvent),
                    Some("ping") => Ok(Self::Ping),
                    Some(name) => Ok(Self::Other(shown(name))),
                }
            }
        }
    }

    /// The repository that it concerns, where the hub cares.
    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Push { repository, .. } | Self::PullRequest { repository, .. } => Some(repository),
            Self::Ping | Self::Other(_) => None,
        }
    }

    /// The commit that a branch is at by now, where the sender names one; a hint, since the forge may show it later.
    pub fn after(&self) -> Option<&str> {
        let Self::Push { after: Some(after), .. } = self else { return None };
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
            Self::Push { reference, deleted: true, .. } => {
                Some(format!("{} was deleted; {configured}", shown(reference)))
            }
            Self::Push { reference, .. } => {
                (!reference.strip_prefix("refs/heads/").is_some_and(|name| branches.contains(&name)))
                    .then(|| format!("the push is to {}; {configured}", shown(reference)))
            }
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

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
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
fn is_too_deep(text: &str) -> bool {
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

    fn ignored(name: &str, body: &str) -> Option<String> {
        Event::read(Some(name), body.as_bytes()).unwrap().ignored(&["main"])
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
        assert_eq!(Event::read(Some("ping"), b"{}"), Ok(Event::Ping));
    }

    #[test]
    fn any_of_several_branches_triggers() {
        let event = |reference: &str| Event::read(Some("push"), push(reference, "").as_bytes()).unwrap();
        assert_eq!(event("refs/heads/staging").ignored(&["main", "staging"]), None);
        let reason = event("refs/heads/dev").ignored(&["main", "staging"]).unwrap();
        assert!(reason.ends_with("the configured branches are refs/heads/main, refs/heads/staging"), "{reason}");
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
            let error = Event::read(Some(name), body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert_eq!(Event::read(None, b"{}"), Err(Error::NoEvent));
        assert!(matches!(Event::read(None, b"{"), Err(Error::Json(_))));
        assert_eq!(Event::read(Some("push"), b"{\"ref\":\"\xff\"}"), Err(Error::NotUtf8 { at: 8 }));
    }

    #[test]
    fn deep_json_is_refused_and_brackets_in_strings_are_not_deep() {
        let nested = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(Event::read(Some("star"), nested(DEEPEST - 1).as_bytes()).is_ok());
        assert_eq!(Event::read(Some("star"), nested(DEEPEST).as_bytes()), Err(Error::TooDeep));
        assert_eq!(Event::read(Some("star"), "[".repeat(3 << 20).as_bytes()), Err(Error::TooDeep));
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
