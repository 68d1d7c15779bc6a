//! A commit that would cost the operator something is refused, and the checkout stays as it is to the last byte.
#![allow(clippy::type_complexity, reason = "a test may fail anywhere")]

use std::os::unix::fs::PermissionsExt;

use crate::support::git;
use crate::support::gitops::{Ran, Site, files, names, ran, sh};

/// The next commit is refused and the checkout stays as it is to the last byte.
fn refused(site: &Site, part: &str) -> Ran {
    let state = || (files(&site.checkout), site.head(), git(&site.checkout, &["status", "--short", "--ignored"]));
    let before = state();
    let run = site.sync().expect(5, "refused").says(part);
    assert_eq!(before, state());
    site.assert_settled();
    assert_eq!(names(&site.state("retry")), [] as [String; 0]);
    run
}

#[test]
fn a_commit_that_would_overwrite_something_is_refused() {
    type Change = fn(&Site);
    let cases: [(&str, Change, &[(&str, &str)], &str); 13] = [
        ("edited", |s| s.write("README", "mine\n"), &[("README", "two\n")], "local changes to README"),
        (
            "deleted",
            |s| std::fs::remove_file(s.checkout.join("README")).unwrap(),
            &[("README", "two\n")],
            "local changes to README",
        ),
        (
            "staged",
            |s| {
                s.write("README", "mine\n");
                git(&s.checkout, &["add", "README"]);
            },
            &[("README", "two\n")],
            "local changes to README",
        ),
        ("untracked", |s| s.write("new", "mine\n"), &[("new", "x")], "does not track where the commit adds some: new"),
        (
            "ignored",
            |s| s.write("a.log", "mine\n"),
            &[("a.log", "x")],
            "does not track where the commit adds some: a.log",
        ),
        ("ignored file at a folder's place", |s| s.write("b.log", "mine\n"), &[("b.log/x", "x")], "b.log"),
        ("untracked file at a folder's place", |s| s.write("dir", "mine\n"), &[("dir/x", "x")], "dir"),
        ("untracked folder at a file's place", |s| s.write("new/mine", "mine\n"), &[("new", "x")], "new"),
        (
            "assume-unchanged",
            |s| {
                git(&s.checkout, &["update-index", "--assume-unchanged", "README"]);
                s.write("README", "mine\n");
            },
            &[("README", "two\n")],
            "README",
        ),
        (
            "skip-worktree",
            |s| {
                git(&s.checkout, &["update-index", "--skip-worktree", "README"]);
                s.write("README", "mine\n");
            },
            &[("README", "two\n")],
            "README",
        ),
        (
            "removed from the index",
            |s| {
                git(&s.checkout, &["rm", "--quiet", "--cached", "README"]);
            },
            &[("README", "two\n")],
            "local changes to README",
        ),
        (
            "intent to add",
            |s| {
                s.write("new", "mine\n");
                git(&s.checkout, &["add", "-N", "new"]);
            },
            &[("new", "x")],
            "new",
        ),
        (
            "a repository in it",
            |s| {
                std::fs::create_dir(s.checkout.join("new")).unwrap();
                git(&s.checkout.join("new"), &["init", "--quiet"]);
            },
            &[("new", "x")],
            "new",
        ),
    ];
    for (case, change, push, part) in cases {
        let site = Site::with("", &sh("build", "true"));
        site.origin.push(&[(".gitignore", "*.log\n")]);
        site.sync().expect(0, "deployed");
        change(&site);
        std::fs::remove_file(site.origin.work.join(".gitignore")).unwrap();
        site.origin.push(push);
        eprintln!("case: {case}");
        refused(&site, part);
    }
}

#[test]
fn a_link_where_the_commit_adds_a_folder_is_not_followed() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let outside = site.host.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, site.checkout.join("dir")).unwrap();
    site.origin.push(&[("dir/x", "x")]);
    refused(&site, "dir");
    assert_eq!(names(&outside), [] as [String; 0]);
}

#[test]
fn a_checkout_elsewhere_than_on_the_branch_is_refused() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    git(&site.checkout, &["switch", "--quiet", "-c", "experiment"]);
    site.origin.push(&[("README", "two\n")]);
    refused(&site, "has branch experiment checked out, not main; run: git -C");
    git(&site.checkout, &["switch", "--quiet", "--detach", "main"]);
    refused(&site, "has no branch checked out, not main");
    git(&site.checkout, &["switch", "--quiet", "main"]);
    git(&site.checkout, &["commit", "--quiet", "--allow-empty", "-m", "mine"]);
    refused(&site, "has commits that the branch main does not have");
    git(&site.checkout, &["reset", "--quiet", "--hard", "HEAD~"]);
    site.sync().expect(0, "deployed");
}

#[test]
fn an_unfinished_merge_and_unmerged_files_stay_as_they_are() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let base = site.head();
    git(&site.checkout, &["switch", "--quiet", "-c", "side"]);
    site.write("app/config", "a=side\n");
    git(&site.checkout, &["commit", "--quiet", "-am", "side"]);
    git(&site.checkout, &["switch", "--quiet", "main"]);
    git(&site.checkout, &["merge", "--quiet", "--no-commit", "--no-ff", "side"]);
    site.origin.push(&[("README", "two\n")]);
    let before = files(&site.checkout);
    let run = site.sync();
    assert!(matches!(run.code, Some(1 | 5)), "{run:#?}");
    assert!(run.reason().contains("merge") || run.reason().contains("MERGE_HEAD"), "{run:#?}");
    assert_eq!((before, base), (files(&site.checkout), site.head()));
    assert!(site.checkout.join(".git/MERGE_HEAD").exists());
    site.assert_settled();
}

#[test]
fn a_path_that_cannot_be_a_checkout_is_refused() {
    let site = Site::new();
    std::fs::write(&site.checkout, "a file").unwrap();
    site.sync().expect(5, "refused").says("is not a folder; move it away");
    assert_eq!(std::fs::read_to_string(&site.checkout).unwrap(), "a file");
    std::fs::remove_file(&site.checkout).unwrap();
    site.write("notes", "mine");
    site.sync().expect(5, "refused").says("is not empty and no git checkout");
    assert_eq!(names(&site.checkout), ["notes"]);
    // A folder inside another repository is no checkout of its own.
    std::fs::remove_dir_all(&site.checkout).unwrap();
    let outer = site.host.path("");
    git(&outer, &["init", "--quiet"]);
    site.write("notes", "mine");
    site.sync().expect(5, "refused").says("is not empty and no git checkout");
    std::fs::remove_file(site.checkout.join("notes")).unwrap();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&site.head());
    // A damaged .git is not taken for a part of the repository above, and not made anew.
    std::fs::write(site.checkout.join(".git/HEAD"), "").unwrap();
    site.origin.push(&[("README", "two\n")]);
    site.sync().expect(5, "refused").says("checkout/.git is no repository that git can use");
    std::fs::remove_file(site.checkout.join(".git/HEAD")).unwrap();
    site.sync().expect(5, "refused").says("checkout/.git is no repository that git can use");
    assert!(!site.checkout.join(".git/HEAD").exists());
    assert!(!outer.join(".git/index").exists());
    assert_eq!(site.read("README"), "one\n");
}

#[test]
fn a_missing_parent_is_made_passable() {
    let mut site = Site::new();
    site.checkout = site.host.path("srv/deep/checkout");
    site.configure("", "");
    let mut command = std::process::Command::new("sh");
    let inner = site.host.command("gitops-sync");
    command.args(["-c", "umask 0027; exec \"$0\" --json acme/infra"]).arg(inner.get_program());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    ran(command).expect(0, "deployed");
    // The unit's umask is for the hub's own state, not for what a checkout's services read.
    for name in ["srv", "srv/deep/checkout/app"] {
        assert_eq!(std::fs::metadata(site.host.path(name)).unwrap().permissions().mode() & 0o777, 0o755, "{name}");
    }
    assert_eq!(std::fs::metadata(site.checkout.join("README")).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn history_that_does_not_follow_is_refused() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let base = site.head();
    let second = site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    let stays = |part: &str| {
        site.sync().expect(5, "refused").says(part);
        assert_eq!((site.head(), site.read("README")), (second.clone(), "two\n".to_owned()));
        site.assert_settled();
    };
    // Force-pushed to something else, then back behind the deployed commit.
    git(&site.origin.work, &["reset", "--quiet", "--hard", &base]);
    site.origin.commit(&[("README", "other\n")]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    stays("the branch main was rewritten");
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", &format!("{base}:main")]);
    stays("push a commit that does");
    // Without any common history.
    git(&site.origin.work, &["checkout", "--quiet", "--orphan", "fresh"]);
    site.origin.commit(&[("README", "orphan\n")]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    stays("was rewritten");
    git(&site.origin.bare, &["update-ref", "-d", "refs/heads/main"]);
    stays("the branch main does not exist at");
    // Back on the old line everything goes on.
    git(&site.origin.work, &["checkout", "--quiet", "--force", &second]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:refs/heads/main"]);
    let third = site.origin.push(&[("README", "three\n")]);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&third);
}

#[test]
fn what_is_damaged_in_the_state_names_what_mends_it() {
    let cases: [(&str, Option<&[&str]>); 4] = [
        ("deployed", Some(&["retry", "acme/infra", "--rewritten"])),
        ("bad", Some(&["retry", "acme/infra"])),
        ("hold", Some(&["release", "acme/infra"])),
        ("journal", None),
    ];
    for (folder, mends) in cases {
        for damage in [&b"{\"torn"[..], b"", b"[]", &[0; 512]] {
            let site = Site::new();
            site.sync().expect(0, "deployed");
            let commit = site.origin.push(&[("README", "two\n")]);
            let file = site.state(&format!("{folder}/acme__infra.json"));
            std::fs::write(&file, damage).unwrap();
            let run = site.sync().expect(1, "failed").says(&file.display().to_string());
            match mends {
                Some(mends) => {
                    assert!(run.reason().contains(&format!("hub {}", mends.join(" "))), "{}", run.reason());
                    let mended = site.host.run("hub", mends);
                    assert!(mended.status.success(), "{mended:?}");
                }
                None => {
                    assert!(run.reason().contains("remove this file"), "{}", run.reason());
                    std::fs::remove_file(&file).unwrap();
                }
            }
            site.sync().expect(0, "deployed");
            site.assert_exactly(&commit);
        }
    }
}
