//! The body of a verified delivery.

use super::{Error, Event};
use crate::forge::ALL;
use crate::fuzz::fuzz;
use crate::text::is_hidden;

const SEEDS: &[&[u8]] = &[
    br#"{"ref":"refs/heads/main","deleted":false,"after":"1111111111111111111111111111111111111111","repository":{"full_name":"acme/infra"}}"#,
    br#"{"ref":"refs/tags/v1","after":"0000000000000000000000000000000000000000","repository":{"full_name":"acme/infra"}}"#,
    br#"{"action":"closed","pull_request":{"merged":true,"base":{"ref":"main"}},"repository":{"full_name":"acme/infra"}}"#,
    br#"{"object_kind":"push","ref":"refs/heads/main","after":"1111111111111111111111111111111111111111","project":{"path_with_namespace":"acme/infra"}}"#,
    br#"{"object_kind":"merge_request","object_attributes":{"target_branch":"main","state":"merged","action":"merge"},"project":{"path_with_namespace":"acme/infra"}}"#,
    br#"{"push":{"changes":[{"new":{"type":"branch","name":"main","target":{"hash":"1111111111111111111111111111111111111111"}}},{"old":{"type":"tag","name":"v1"}}]},"repository":{"full_name":"acme/infra"}}"#,
    br#"{"pullrequest":{"destination":{"branch":{"name":"main"}}},"repository":{"full_name":"acme/infra"}}"#,
    br#"{"zen":"Keep it logically awesome.","hook_id":1,"hook":{"events":["push"]}}"#,
];

const NAMES: &[Option<&str>] = &[
    Some("push"),
    Some("pull_request"),
    Some("ping"),
    Some("repo:push"),
    Some("pullrequest:fulfilled"),
    Some("pullrequest:\u{202e}"),
    Some("Push Hook"),
    Some("is\u{202e}sues"),
    None,
];

const WORDS: &[&[u8]] = &[
    b"\"ref\":",
    b"null",
    b"true",
    b"false",
    b"[]",
    b"{}",
    b"[[[[",
    b"{\"a\":",
    b"\"\\u0000\"",
    b"\\ud800",
    b"\"\\u202e\"",
    b"1e999",
    b"-0",
    b"refs/heads/",
    b"main",
    b"acme/infra",
    b"ACME/INFRA",
    b"../..",
    b"\"deleted\":true,",
    b"\"after\":",
    b"\xef\xbb\xbf",
    b"\"repository\":{\"full_name\":\"acme/infra\"}",
    b"\xe2\x80\xae",
    b"\"merged\":",
    b"00000000",
];

#[test]
fn fuzz_events() {
    fuzz("events", SEEDS, WORDS, |input| {
        let mut answers = Vec::new();
        for (forge, name) in ALL.iter().flat_map(|forge| NAMES.iter().map(move |name| (*forge, *name))) {
            match Event::read(forge, name, input) {
                Err(error) => {
                    let said = error.to_string();
                    assert!(said.len() < 2000, "{said}");
                    answers.push(match error {
                        Error::Json(reason) => reason.chars().filter(|c| c.is_alphabetic()).take(24).collect(),
                        other => format!("{other:?}").chars().take(7).collect(),
                    });
                }
                Ok(event) => {
                    // What begins a deployment names the branch itself; what does not says why, plainly.
                    let ignored = event.ignored(&["main"]);
                    if ignored.is_none() {
                        assert!(
                            matches!(&event, Event::Push { moved, .. } if moved.iter().any(|one| !one.deleted && one.reference == "refs/heads/main"))
                                || matches!(&event, Event::PullRequest { base, merged: true, action, .. } if base == "main" && action == "closed"),
                            "{event:?}"
                        );
                        assert!(event.repository().is_some());
                    }
                    if let Some(reason) = &ignored {
                        assert!(reason.len() < 2000 && !reason.contains(is_hidden), "{reason:?}");
                    }
                    answers.push(format!("{} {}", ignored.is_some(), event.repository().is_some()));
                }
            }
        }
        answers
    });
}
