//! Gives the programs their version: that of Cargo.toml, with the day and the commit they are built from where those are
//! known: `0.1.0+20261129.891e73b`. Changes that are not committed do not show. Nothing here needs the network.
#![allow(clippy::print_stdout, reason = "cargo reads it")]

use std::path::Path;
use std::process::Command;

/// Written by `git archive`, so that a tarball without `.git` still says what it is.
const ARCHIVED: &str = "contrib/commit";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={ARCHIVED}");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    // Only a repository of its own: a tarball may have been unpacked somewhere in another one.
    let commit = if Path::new(&folder).join(".git").exists() { of_repository(&folder) } else { of_archive() };
    match commit {
        Some(commit) => println!("cargo:rustc-env=HUB_VERSION={version}+{commit}"),
        None => println!("cargo:rustc-env=HUB_VERSION={version}"),
    }
}

/// The newest commit. The log of HEAD, and HEAD itself where there is none, changes with each commit.
fn of_repository(folder: &str) -> Option<String> {
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(folder, &["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    commit(&git(folder, &["log", "-1", "--no-show-signature", "--abbrev=7", "--format=%cs.%h"])?)
}

fn of_archive() -> Option<String> {
    commit(std::fs::read_to_string(ARCHIVED).ok()?.lines().last()?)
}

/// A commit's day and name, as git's format `%cs.%h` gives them: `2026-11-29.891e73b`.
fn commit(text: &str) -> Option<String> {
    let (day, name) = text.split_once('.')?;
    let day = day.replace('-', "");
    let fits = |text: &str, least: usize| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (fits(&day, 8) && fits(name, 7)).then(|| format!("{day}.{name}"))
}

/// One line of git's. Root may build another user's checkout, which git refuses to look at otherwise.
fn git(folder: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.args(["-c", &format!("safe.directory={folder}")]).args(arguments).current_dir(folder);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
