//! The body of a verified delivery.

use super::{Error, Event};
use crate::fuzz::fuzz;
use crate::text::is_hidden;

const SEEDS: &[&[u8]] = &[
    br#"{"ref":"refs/heads/main","deleted":false,"after":"1111111111111111111111111111111111111111","repository":{"full_name":"acme/infra"}}"#,
    br#"{"ref":"refs/tags/v1","after":"0000000000000000000000000000000000000000","repository":{"full_name":"acme/infra"}}"#,
    br#"{"action":"closed","pull_request":{"merged":true,"base":{"ref":"main"}},"repository":{"full_name":"acme/infra"}}"#,
    br#"{"zen":"Keep it logically awesome.","hook_id":1,"hook":{"events":["push"]}}"#,
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
        for name in [Some("push"), Some("pull_request"), Some("ping"), Some("is\u{202e}sues"), None] {
            match Event::read(name, input) {
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
                            matches!(&event, Event::Push { reference, deleted: false, .. } if reference == "refs/heads/main")
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
