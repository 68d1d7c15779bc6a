use std::path::Path;
use std::time::Duration;

use crate::command::{Account, Command};

/// For git commands that work on local files only; a healthy one takes milliseconds, a first checkout minutes.
pub(super) const LOCAL: Duration = Duration::from_secs(600);

/// Settings that keep a repository's content and its `.git/config` from running programs or reaching elsewhere. They are
/// handed over as `GIT_CONFIG_COUNT`, which beats every file as `-c` does (git-config(1)) and keeps errors readable.
const SETTINGS: [(&str, &str); 12] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("transfer.bundleURI", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
];

/// A git command in `folder` as `user`, free of ambient configuration, hooks, prompts and submodules.
pub(super) fn git(user: &Account, folder: &Path, limit: Duration) -> Command {
    let mut command = Command::new("git", limit).user(user).folder(folder);
    command = command.env("GIT_CONFIG_COUNT", SETTINGS.len().to_string());
    for (number, (key, value)) in SETTINGS.iter().enumerate() {
        command =
            command.env(&format!("GIT_CONFIG_KEY_{number}"), key).env(&format!("GIT_CONFIG_VALUE_{number}"), value);
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

/// git's word for the hash that names a commit.
pub(super) fn object_format(commit: &str) -> &'static str {
    if commit.len() == 64 { "sha256" } else { "sha1" }
}

/// What a commit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// git's letter: `A` added, `M` modified, `D` deleted, `T` type changed (git-diff(1), --name-status).
    pub kind: u8,
    /// The path relative to the repository's root, any bytes but NUL.
    pub path: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_object_names_are_commits() {
        assert!(is_commit(&"a".repeat(40)) && is_commit(&"0".repeat(64)));
        assert!(!is_commit("HEAD") && !is_commit(&"A".repeat(40)) && !is_commit(&"a".repeat(41)));
    }
}
