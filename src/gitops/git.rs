use std::path::Path;
use std::time::Duration;

use crate::command::{Account, Command};

/// For git commands that work on local files only; a healthy one takes milliseconds, a first checkout minutes.
pub(super) const LOCAL: Duration = Duration::from_secs(600);

/// Settings that keep a repository's content and its `.git/config` from running programs or reaching elsewhere, each on
/// the command line because that beats every file (git-config(1)).
const SETTINGS: [&str; 12] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.askPass=",
    "credential.helper=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "transfer.bundleURI=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
];

/// A git command in `folder` as `user`, free of ambient configuration, hooks, prompts and submodules.
pub(super) fn git(user: &Account, folder: &Path, limit: Duration) -> Command {
    let mut command = Command::new("git", limit).user(user).folder(folder);
    for setting in SETTINGS {
        command = command.args(["-c", setting]);
    }
    // git compares with the resolved path of where it is.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let above = folder.parent().unwrap_or(&folder);
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_LITERAL_PATHSPECS", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_MERGE_AUTOEDIT", "no")
        // A folder that is no repository must not be taken for a part of one above it.
        .env("GIT_CEILING_DIRECTORIES", above)
}

/// True for a full object name: SHA-1 or SHA-256 in lower-case hex.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The first twelve digits, for people.
pub(super) fn short(commit: &str) -> &str {
    &commit[..commit.len().min(12)]
}

/// What a commit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// git's letter: `A` added, `M` modified, `D` deleted, `T` type changed (git-diff(1), --name-status).
    pub kind: u8,
    /// The path relative to the repository's root, any bytes but NUL.
    pub path: Vec<u8>,
}

/// Parses `git diff-tree -r -z --no-renames --name-status`; none where it has another form.
pub(super) fn parse_changes(output: &[u8]) -> Option<Vec<Change>> {
    let mut fields = output.split(|byte| *byte == 0);
    let mut changes = Vec::new();
    loop {
        match (fields.next()?, fields.next()) {
            ([], None) => return Some(changes),
            ([kind], Some(path)) if !path.is_empty() => changes.push(Change { kind: *kind, path: path.to_owned() }),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_with_odd_names_are_parsed() {
        let changes = parse_changes(b"A\0new line\n\0M\0-c\0D\0\xff\0").unwrap();
        let seen: Vec<_> = changes.iter().map(|c| (c.kind as char, c.path.as_slice())).collect();
        assert_eq!(seen, [('A', &b"new line\n"[..]), ('M', b"-c"), ('D', b"\xff")]);
        assert_eq!(parse_changes(b""), Some(vec![]));
        assert_eq!(parse_changes(b"A\0"), None);
        assert_eq!(parse_changes(b"AM\0x\0"), None);
    }

    #[test]
    fn only_full_object_names_are_commits() {
        assert!(is_commit(&"a".repeat(40)) && is_commit(&"0".repeat(64)));
        assert!(!is_commit("HEAD") && !is_commit(&"A".repeat(40)) && !is_commit(&"a".repeat(41)));
    }
}
