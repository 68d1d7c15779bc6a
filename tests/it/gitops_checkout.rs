//! What in a checkout is a person's work and what is not: files that the repository's own commands wrote, files that are never
//! clean, a branch that got another name.

use crate::support;
use std::os::unix::fs::PermissionsExt;

use crate::support::git;
use crate::support::gitops::{Ran, Site, sh};

/// The site's repository is deployed, with these commands and files.
fn deployed(repository: &str, files: &[(&str, &str)]) -> Site {
    let site = Site::with("", repository);
    site.origin.push(files);
    site.sync().expect(0, "deployed");
    site
}

fn says_once(run: &Ran) -> bool {
    run.log.contains("commands_changed_tracked_files")
}

#[test]
fn what_build_and_after_write_gives_way_and_is_said_once() {
    let commands = sh(
        "build",
        "echo built $(cat source) > lock; mkdir -p 'a b'; echo x >> 'a b/ü.js'; rm -f gone; ln -sf two link",
    ) + &sh("after", "chmod +x script; echo after >> script; git add lock");
    let files = |version: &'static str| {
        [("source", version), ("lock", version), ("a b/ü.js", version), ("gone", version), ("script", version)]
    };
    let site = Site::with("", &commands);
    std::os::unix::fs::symlink("one", site.origin.work.join("link")).unwrap();
    site.origin.push(&files("1"));
    let run = site.sync().expect(0, "deployed");
    assert!(says_once(&run) && run.log.contains("git ignores"), "{}", run.log);
    for version in ["2", "3"] {
        site.origin.push(&files(version));
        let planned = site.run(&["--dry-run"]).expect(0, "planned");
        assert!(
            planned.report["repositories"][0]["plan"].to_string().contains("restore lock: build or after wrote it")
        );
        let run = site.sync().expect(0, "deployed");
        assert!(!says_once(&run), "{}", run.log);
        assert_eq!(site.read("lock"), format!("built {version}\n"));
        assert_eq!(site.read("a b/ü.js"), format!("{version}x\n"));
        assert_eq!(site.read("script"), format!("{version}after\n"));
        assert!(!site.checkout.join("gone").exists());
        assert_eq!(std::fs::read_link(site.checkout.join("link")).unwrap().to_str(), Some("two"));
    }
    // The commit drops what the build writes: the build writes it anew, and git does not know it any more.
    std::fs::remove_file(site.origin.work.join("lock")).unwrap();
    site.origin.push(&[("source", "4")]);
    site.configure("", &sh("build", "true"));
    let run = site.sync().expect(0, "deployed");
    assert_eq!(git(&site.checkout, &["status", "--porcelain", "--untracked-files=no"]), "", "{}", run.log);
    assert!(!site.checkout.join("lock").exists());
}

#[test]
fn what_a_person_changed_since_is_refused_as_ever() {
    type Change = fn(&Site);
    let cases: [(&str, Change); 5] = [
        ("edited", |site| site.write("lock", "mine\n")),
        ("removed", |site| std::fs::remove_file(site.checkout.join("lock")).unwrap()),
        ("made executable", |site| {
            std::fs::set_permissions(site.checkout.join("lock"), PermissionsExt::from_mode(0o755)).unwrap();
        }),
        ("replaced by a link", |site| {
            std::fs::remove_file(site.checkout.join("lock")).unwrap();
            std::os::unix::fs::symlink("README", site.checkout.join("lock")).unwrap();
        }),
        ("a pipe", |site| {
            std::fs::remove_file(site.checkout.join("lock")).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(site.checkout.join("lock")).status().unwrap().success());
        }),
    ];
    for (case, change) in cases {
        let site = deployed(&sh("build", "echo built > lock"), &[("lock", "1\n")]);
        change(&site);
        let commit = site.origin.push(&[("lock", "2\n")]);
        site.sync().expect(5, "refused").says("local changes to lock");
        site.assert_settled();
        let _ = std::fs::remove_file(site.checkout.join("lock"));
        site.write("lock", "built\n");
        site.sync().expect(0, "deployed");
        assert_eq!((site.head(), site.read("lock")), (commit, "built\n".to_owned()), "{case}");
    }
    // A file that a person had changed before the build touched it stays a person's.
    let site = deployed(&sh("build", "test ! -e go || echo built >> lock"), &[("lock", "1\n")]);
    site.write("lock", "mine\n");
    site.origin.push(&[("go", "x")]);
    site.sync().expect(0, "deployed");
    assert_eq!(site.read("lock"), "mine\nbuilt\n");
    site.origin.push(&[("lock", "2\n")]);
    site.sync().expect(5, "refused").says("local changes to lock");
    assert_eq!(site.read("lock"), "mine\nbuilt\n");
    // Nothing is known of a person's change that no command made.
    let site = deployed(&sh("build", "echo built > lock"), &[("lock", "1\n"), ("own", "1\n")]);
    site.write("own", "mine\n");
    site.origin.push(&[("lock", "2\n")]);
    site.sync().expect(0, "deployed");
    assert_eq!((site.read("own"), site.read("lock")), ("mine\n".to_owned(), "built\n".to_owned()));
    site.origin.push(&[("own", "2\n")]);
    site.sync().expect(5, "refused").says("local changes to own");
}

#[test]
fn what_a_build_made_gives_way_to_the_same_file_of_a_commit() {
    let site =
        deployed(&sh("build", "echo made > new.lock; mkdir -p out; echo made > out/x; echo made > app/made"), &[]);
    let commit = site.origin.push(&[("new.lock", "theirs\n"), ("app/made", "theirs\n")]);
    let run = site.sync().expect(0, "deployed");
    assert_eq!((site.head(), site.read("new.lock"), site.read("app/made")), (commit, "made\n".into(), "made\n".into()));
    assert!(says_once(&run), "{}", run.log);
    // What a person made is not taken for it, and neither is what lies in a folder that git does not know.
    site.write("mine", "mine\n");
    site.origin.push(&[("mine", "theirs\n")]);
    site.sync().expect(5, "refused").says("does not track where the commit adds some: mine");
    std::fs::remove_file(site.checkout.join("mine")).unwrap();
    site.sync().expect(0, "deployed");
    site.write("other.lock", "mine\n");
    site.configure("", &sh("build", "echo built >> other.lock"));
    site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    site.origin.push(&[("other.lock", "theirs\n")]);
    site.sync().expect(5, "refused").says("other.lock");
    assert_eq!(site.read("other.lock"), "mine\nbuilt\n");
}

#[test]
fn a_failing_deployment_leaves_the_build_of_the_last_good_commit() {
    for step in ["build", "after"] {
        let poison = "test ! -e poison";
        let write = "echo built $(cat source) > lock";
        let commands = match step {
            "build" => sh("build", &format!("{write}; {poison}")),
            _ => sh("build", write) + &sh("after", poison),
        };
        let site = deployed(&commands, &[("source", "1"), ("lock", "1\n"), ("other", "1\n")]);
        let good = site.head();
        site.origin.push(&[("poison", "x"), ("source", "2"), ("lock", "2\n")]);
        site.sync().expect(3, "rolled_back");
        assert_eq!((site.head(), site.read("lock")), (good, "built 1\n".to_owned()), "{step}");
        // What the failed one wrote does not block the next, whether it touches the file or not.
        std::fs::remove_file(site.origin.work.join("poison")).unwrap();
        site.origin.push(&[("source", "3"), ("lock", "3\n")]);
        site.sync().expect(0, "deployed");
        assert_eq!(site.read("lock"), "built 3\n", "{step}");
    }
    // The same where the commit does not touch what the build writes.
    let site = deployed(&sh("build", "cat source >> lock; test ! -e poison"), &[("source", "1\n"), ("lock", "")]);
    site.origin.push(&[("poison", "x"), ("source", "2\n")]);
    site.sync().expect(3, "rolled_back");
    assert_eq!(site.read("lock"), "1\n");
    std::fs::remove_file(site.origin.work.join("poison")).unwrap();
    site.origin.push(&[("lock", "0\n")]);
    site.sync().expect(0, "deployed");
    assert_eq!(site.read("lock"), "0\n2\n");
}

#[test]
fn a_run_that_was_killed_in_the_build_does_not_block_itself() {
    let site = deployed(
        &sh("build", "echo built $(cat source) > lock; test ! -e ../kill || { rm ../kill; kill -9 $PPID; }"),
        &[("source", "1"), ("lock", "1\n")],
    );
    site.origin.push(&[("source", "2"), ("lock", "2\n")]);
    std::fs::write(site.host.path("kill"), "").unwrap();
    assert_eq!(site.sync().code, None);
    site.sync().expect(0, "deployed");
    assert_eq!(site.read("lock"), "built 2\n");
    site.origin.push(&[("source", "3"), ("lock", "3\n")]);
    site.sync().expect(0, "deployed");
    assert_eq!(site.read("lock"), "built 3\n");
}

#[test]
fn line_ends_that_only_git_minds_are_no_local_change() {
    for (attributes, setting, blob) in [
        ("*.txt text\n", None, "a\r\nb\r\n"),
        ("* text eol=lf\n", None, "a\r\nb\r\n"),
        ("*.txt filter=tool\n", Some(["filter.tool.clean", "tr a b"]), "aaa\n"),
    ] {
        let site = Site::new();
        // Who pushes has the files as they are.
        std::fs::write(site.origin.work.join(".git/info/attributes"), "* -text -filter\n").unwrap();
        site.origin.push(&[("docs/a file.txt", blob), ("gone.txt", blob), ("stays.txt", blob)]);
        site.sync().expect(0, "deployed");
        if let Some([key, value]) = setting {
            git(&site.checkout, &["config", key, value]);
        }
        if !attributes.is_empty() {
            site.origin.push(&[(".gitattributes", attributes)]);
            site.sync().expect(0, "deployed");
        }
        for name in ["docs/a file.txt", "gone.txt", "stays.txt"] {
            // As an editor does that writes what it has read.
            site.write(name, blob);
            let path = site.checkout.join(name);
            let later = std::time::SystemTime::now() + std::time::Duration::from_secs(7);
            std::fs::File::options().append(true).open(path).unwrap().set_modified(later).unwrap();
        }
        let status = git(&site.checkout, &["status", "--porcelain", "--untracked-files=no"]);
        assert_eq!(status.lines().count(), 3, "{attributes}: {status}");
        std::fs::remove_file(site.origin.work.join("gone.txt")).unwrap();
        let commit = site.origin.push(&[("docs/a file.txt", "new\n")]);
        site.sync().expect(0, "deployed");
        assert_eq!((site.head(), site.read("docs/a file.txt")), (commit, "new\n".to_owned()), "{attributes}");
        assert!(!site.checkout.join("gone.txt").exists());
        assert_eq!(site.read("stays.txt"), blob);
        // A real change is one.
        site.write("stays.txt", &format!("{blob}mine\r\n"));
        site.origin.push(&[("stays.txt", "new\n")]);
        site.sync().expect(5, "refused").says("local changes to stays.txt");
        // And back again where the commit fails.
        site.write("stays.txt", blob);
        site.configure("", &sh("after", "false"));
        site.sync().expect(3, "rolled_back");
        assert_eq!((site.read("stays.txt"), site.read("docs/a file.txt")), (blob.to_owned(), "new\n".to_owned()));
    }
}

#[test]
fn the_checkout_follows_a_branch_that_got_another_name() {
    for has_record in [true, false] {
        let site = Site::empty();
        let first = site.origin.commit(&[("README", "one\n")]);
        git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:master"]);
        site.configure("", "branch = \"master\"\n");
        site.sync().expect(0, "deployed");
        let record = site.state("deployed/acme__infra.json");
        assert!(std::fs::read_to_string(&record).unwrap().contains("\"branch\": \"master\""));
        if !has_record {
            let text = std::fs::read_to_string(&record).unwrap().replace("\"master\"", "null");
            std::fs::write(&record, text).unwrap();
        }
        site.write("own", "mine\n");
        site.write("README", "mine too\n");
        git(&site.origin.bare, &["branch", "-m", "master", "main"]);
        site.configure("", "");
        // Nothing new: the branch changes, no file does.
        let before = git(&site.checkout, &["rev-parse", "HEAD"]);
        let planned = site.run(&["--dry-run"]);
        assert_eq!((planned.code, git(&site.checkout, &["branch", "--show-current"])), (Some(0), "master".to_owned()));
        let run = site.sync().expect(0, "unchanged");
        assert!(run.log.contains("branch_followed"), "{}", run.log);
        assert_eq!(git(&site.checkout, &["branch", "--show-current"]), "main");
        assert_eq!((site.head(), site.read("README")), (before, "mine too\n".to_owned()));
        site.write("README", "one\n");
        let second = site.origin.push(&[("README", "two\n")]);
        site.sync().expect(0, "deployed");
        site.assert_exactly(&second);
        assert_eq!(site.read("own"), "mine\n");
        let status = git(&site.checkout, &["status", "--short", "--branch", "--untracked-files=no"]);
        assert_eq!(status, "## main...origin/main");
        assert_eq!(git(&site.checkout, &["rev-parse", "master"]), first);
        // Back to a name that is there and behind: what was recorded says that the checkout came from main.
        git(&site.origin.bare, &["branch", "-m", "main", "master"]);
        site.configure("", "branch = \"master\"\n");
        site.sync().expect(0, "unchanged");
        assert_eq!((git(&site.checkout, &["branch", "--show-current"]), site.head()), ("master".to_owned(), second));
    }
}

#[test]
fn the_checkout_follows_a_branch_that_git_cannot_have_beside_the_old_one() {
    for (old, new) in [("rel", "rel/x"), ("rel/x", "rel"), ("a/b", "a/b/c/d")] {
        // Cut off nowhere, when HEAD was set, and when the old branch was gone.
        for cut_off in 0..3 {
            let site = Site::empty();
            let first = site.origin.commit(&[("README", "one\n")]);
            git(&site.origin.work, &["push", "--quiet", "origin", &format!("HEAD:{old}")]);
            site.configure("", &format!("branch = \"{old}\"\n"));
            site.sync().expect(0, "deployed");
            site.write("own", "mine\n");
            // As a person's `git fetch` leaves it.
            git(&site.checkout, &["update-ref", &format!("refs/remotes/origin/{old}"), &first]);
            git(&site.origin.bare, &["branch", "-m", old, new]);
            site.configure("", &format!("branch = \"{new}\"\n"));
            if cut_off > 0 {
                git(&site.checkout, &["symbolic-ref", "HEAD", &format!("refs/heads/{new}")]);
            }
            if cut_off > 1 {
                git(&site.checkout, &["update-ref", "-d", &format!("refs/heads/{old}")]);
            }
            site.run(&["--dry-run"]);
            let run = site.sync();
            assert_eq!(run.code, Some(0), "{old} {new} {cut_off}: {}", run.log);
            assert_eq!(git(&site.checkout, &["branch", "--show-current"]), new);
            git(&site.origin.work, &["checkout", "--quiet", "--detach"]);
            let second = site.origin.commit(&[("README", "two\n")]);
            git(&site.origin.work, &["push", "--quiet", "origin", &format!("HEAD:{new}")]);
            site.sync().expect(0, "deployed");
            assert_eq!((site.head(), site.read("README")), (second, "two\n".to_owned()));
            assert_eq!(site.read("own"), "mine\n");
            let status = git(&site.checkout, &["status", "--short", "--branch", "--untracked-files=no"]);
            assert_eq!(status, format!("## {new}...origin/{new}"));
        }
    }
}

#[test]
fn the_advice_for_a_branch_that_is_not_followed_can_be_taken() {
    for is_detached in [false, true] {
        let site = Site::empty();
        site.origin.commit(&[("README", "one\n")]);
        git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:rel"]);
        site.configure("", "branch = \"rel\"\n");
        site.sync().expect(0, "deployed");
        git(&site.origin.bare, &["branch", "-m", "rel", "rel/x"]);
        site.configure("", "branch = \"rel/x\"\n");
        // Not at the deployed commit, by the hub's record.
        git(&site.origin.work, &["checkout", "--quiet", "--detach"]);
        let second = site.origin.commit(&[("README", "two\n")]);
        git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:rel/x"]);
        git(&site.checkout, &["pull", "--quiet", "--ff-only", &site.origin.bare.display().to_string(), "rel/x"]);
        if is_detached {
            git(&site.checkout, &["checkout", "--quiet", "--detach"]);
        }
        let run = site.sync().expect(5, "refused");
        let advice = run.reason().split("run: ").nth(1).unwrap().to_owned();
        let ran = std::process::Command::new("sh").args(["-c", &advice]).output().unwrap();
        assert!(ran.status.success(), "{advice}: {}", String::from_utf8_lossy(&ran.stderr));
        site.sync().expect(0, "deployed");
        assert_eq!((site.head(), git(&site.checkout, &["branch", "--show-current"])), (second, "rel/x".to_owned()));
    }
}

#[test]
fn a_deployment_that_was_cut_off_is_undone_on_the_branch_that_it_was_on() {
    let site = Site::empty();
    let push = |files: &[(&str, &str)]| {
        let commit = site.origin.commit(files);
        git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:master"]);
        commit
    };
    push(&[("README", "one\n")]);
    let build = sh("build", "test ! -e ../kill || { rm ../kill; kill -9 $PPID; }");
    site.configure("", &format!("branch = \"master\"\n{build}"));
    site.sync().expect(0, "deployed");
    let second = push(&[("README", "two\n")]);
    std::fs::write(site.host.path("kill"), "").unwrap();
    assert_eq!(site.sync().code, None);
    git(&site.origin.bare, &["branch", "-m", "master", "main"]);
    site.configure("", &build);
    let run = site.sync().expect(0, "deployed");
    assert!(run.log.contains("interrupted_deployment_undone") && run.log.contains("branch_followed"), "{}", run.log);
    site.assert_exactly(&second);
    assert_eq!(git(&site.checkout, &["branch", "--show-current"]), "main");
}

#[test]
fn a_branch_with_work_of_its_own_is_not_left() {
    let site = Site::empty();
    site.origin.commit(&[("README", "one\n")]);
    git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:master"]);
    site.configure("", "branch = \"master\"\n");
    site.sync().expect(0, "deployed");
    git(&site.origin.bare, &["branch", "-m", "master", "main"]);
    site.configure("", "");
    git(&site.checkout, &["commit", "--quiet", "--allow-empty", "-m", "mine"]);
    site.sync().expect(5, "refused").says("has commits that the branch main does not have");
    git(&site.checkout, &["reset", "--quiet", "--hard", "HEAD~"]);
    // A branch of that name that goes elsewhere.
    git(&site.checkout, &["checkout", "--quiet", "-b", "main"]);
    git(&site.checkout, &["commit", "--quiet", "--allow-empty", "-m", "mine"]);
    git(&site.checkout, &["checkout", "--quiet", "master"]);
    site.sync().expect(5, "refused").says("switch main");
    git(&site.checkout, &["branch", "--quiet", "-D", "main"]);
    // Another branch than the one that was deployed.
    git(&site.checkout, &["checkout", "--quiet", "-b", "experiment"]);
    site.sync().expect(5, "refused").says("branch -m experiment main");
    git(&site.checkout, &["checkout", "--quiet", "--detach"]);
    site.sync().expect(5, "refused").says("switch -c main");
    git(&site.checkout, &["checkout", "--quiet", "master"]);
    site.sync().expect(0, "unchanged");
    assert_eq!(git(&site.checkout, &["branch", "--show-current"]), "main");
}

#[test]
fn submodules_and_files_of_lfs_are_named_until_the_build_brings_them() {
    let site = Site::new();
    let elsewhere = support::Host::new();
    let other = support::Origin::new(&elsewhere);
    other.push(&[("inner", "x")]);
    let add = |path: &str| {
        let url = other.url();
        git(&site.origin.work, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, path]);
    };
    add("vendor/lib");
    add("third party");
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n", "a".repeat(64));
    site.origin.push(&[
        ("art/.gitattributes", "*.psd filter=lfs diff=lfs merge=lfs -text\n"),
        ("art/deep/a b.psd", &pointer),
        ("art/real.psd", "not a pointer\n"),
        ("notes.txt", &pointer),
    ]);
    let run = site.sync().expect(0, "deployed");
    let told = "submodules that are not fetched: third party, vendor/lib; \
                pointers in the place of files of Git LFS: art/deep/a b.psd";
    assert_eq!(run.report["repositories"][0]["left_out"], told, "{run:#?}");
    site.sync().expect(0, "unchanged");
    let said = || {
        let output = site.host.run("hub", &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let reasons = status["reasons"].as_array().unwrap().clone();
        let reason = reasons
            .into_iter()
            .find(|one| one["about"] == "acme/infra" && one["reason"].to_string().contains("the hub fetches"));
        reason.map(|one| one.to_string()).unwrap_or_default()
    };
    let mend = r#"build = [\"/bin/sh\", \"-c\", \"git submodule update --init && git lfs pull\"]"#;
    assert!(said().contains(told) && said().contains(mend), "{}", said());
    // What a refusal says does not take the place of it.
    site.write("README", "mine\n");
    site.origin.push(&[("README", "two\n")]);
    site.sync().expect(5, "refused");
    assert!(said().contains(told), "{}", said());
    site.write("README", "one\n");
    // The build brings them, each in its way.
    let build = "git -c protocol.file.allow=always submodule --quiet update --init && echo art > 'art/deep/a b.psd'";
    site.configure("", &sh("build", build));
    site.sync().expect(0, "deployed");
    assert_eq!((site.read("vendor/lib/inner"), said()), ("x".to_owned(), String::new()));
    site.origin.push(&[("README", "three\n")]);
    site.sync().expect(0, "deployed");
    assert_eq!(said(), "");
}

#[test]
fn a_repository_with_sha_256_keeps_every_promise_of_a_checkout() {
    let site = Site::empty();
    let (bare, work) = (&site.origin.bare, &site.origin.work);
    for (folder, bare) in [(bare, true), (work, false)] {
        std::fs::remove_dir_all(folder.join(".git")).ok();
        if bare {
            std::fs::remove_dir_all(folder).unwrap();
        }
        let mut argv = vec!["init", "--quiet", "--object-format=sha256", "--initial-branch=main"];
        if bare {
            argv.push("--bare");
        }
        argv.push(folder.to_str().unwrap());
        git(&site.host.path(""), &argv);
    }
    git(work, &["remote", "add", "origin", bare.to_str().unwrap()]);
    let commands = sh("build", "cp source tracked; test ! -e ../kill || { rm ../kill; kill -9 $PPID; }")
        + &sh("after", "test ! -e bad");
    site.configure("", &commands);
    site.origin.push(&[("source", "1\n"), ("tracked", "old\n"), ("crlf.txt", "a\r\n"), ("gone/file", "x")]);
    site.sync().expect(0, "deployed");
    assert_eq!(site.read("tracked"), "1\n");
    // What build wrote gives way, and line ends are no change.
    std::fs::remove_file(work.join("gone/file")).unwrap();
    let second = site.origin.push(&[("source", "2\n"), ("tracked", "new\n"), (".gitattributes", "*.txt text\n")]);
    site.sync().expect(0, "deployed");
    assert_eq!((site.read("tracked"), site.head()), ("2\n".to_owned(), second.clone()));
    let text = site.read("crlf.txt");
    std::process::Command::new("touch").arg(site.checkout.join("crlf.txt")).status().unwrap();
    site.origin.push(&[("crlf.txt", "b\r\n"), ("bad", "")]);
    site.sync().expect(3, "rolled_back");
    assert_eq!((site.read("tracked"), site.read("crlf.txt"), site.head()), ("2\n".to_owned(), text, second));
    std::fs::remove_file(work.join("bad")).unwrap();
    let last = site.origin.push(&[("source", "4\n")]);
    std::fs::write(site.host.path("kill"), "").unwrap();
    assert_eq!(site.sync().code, None);
    // Locks that a killed git left in the mirror.
    for lock in ["shallow.lock", "packed-refs.lock", "refs/hub/tip.lock", "objects/maintenance.lock"] {
        std::fs::write(site.state("mirror/acme__infra.git").join(lock), "").unwrap();
    }
    site.sync().expect(0, "deployed");
    assert_eq!((site.read("tracked"), site.head()), ("4\n".to_owned(), last));
    // What a person changed since is refused, and a rewrite too.
    site.write("source", "mine\n");
    site.origin.push(&[("source", "5\n")]);
    site.sync().expect(5, "refused").says("local changes to source");
    git(&site.checkout, &["restore", "source"]);
    git(work, &["commit", "--quiet", "--amend", "-m", "another"]);
    git(work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    site.sync().expect(0, "deployed");
    git(work, &["commit", "--quiet", "--amend", "-m", "once more"]);
    git(work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    site.sync().expect(5, "refused").says("was rewritten");
}

#[test]
fn a_commit_gets_into_objects_that_are_elsewhere() {
    for kind in ["here", "linked objects", "git folder elsewhere"] {
        let site = deployed("", &[("README", "one\n")]);
        let (dot_git, outside) = (site.checkout.join(".git"), site.host.path("elsewhere"));
        match kind {
            "linked objects" => {
                std::fs::rename(dot_git.join("objects"), &outside).unwrap();
                std::os::unix::fs::symlink(&outside, dot_git.join("objects")).unwrap();
            }
            "git folder elsewhere" => {
                std::fs::rename(&dot_git, &outside).unwrap();
                std::fs::write(&dot_git, format!("gitdir: {}\n", outside.display())).unwrap();
            }
            _ => {}
        }
        for content in ["two\n", "three\n"] {
            let commit = site.origin.push(&[("README", content)]);
            site.sync().expect(0, "deployed");
            assert_eq!((site.read("README").as_str(), site.head()), (content, commit), "{kind}");
        }
        git(&site.checkout, &["fsck", "--strict"]);
        let objects = git(&site.checkout, &["rev-parse", "--path-format=absolute", "--git-path", "objects"]);
        let left = std::fs::read_dir(std::path::Path::new(objects.trim()).join("hub-incoming/pack")).unwrap().count();
        assert_eq!(left, 0, "{kind}");
    }
}
