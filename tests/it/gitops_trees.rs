//! Every tree that git can hold, and a large one, arrives and is taken back whole.

use crate::support;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use crate::support::git;
use crate::support::gitops::{Site, files, sh};

/// Commits a tree with everything odd that git can hold; `round` chooses one of two forms of it.
fn odd_commit(site: &Site, round: u8) -> String {
    let work = &site.origin.work;
    for entry in std::fs::read_dir(work).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != ".git") {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    let write = |name: &[u8], content: &str| {
        let path = work.join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let text = format!("{round}\n");
    for name in [
        &b"new\nline"[..],
        b"-leading",
        b"--pathspec-from-file=x",
        b"\xff\xfe not utf-8",
        "ünïcode 日本".as_bytes(),
        b":(top)magic",
        b"*.glob",
        b"tab\there",
        b"back\\slash \"quoted\"",
        b"dir with space/x",
    ] {
        write(name, &text);
        // Only in one of the rounds, so that names are added and deleted too.
        write(&[name, format!(".{round}").as_bytes()].concat(), &text);
    }
    write(b"script", "#!/bin/sh\n");
    let mode = if round == 0 { 0o644 } else { 0o755 };
    std::fs::set_permissions(work.join("script"), PermissionsExt::from_mode(mode)).unwrap();
    let link = |name: &str, to: &str| std::os::unix::fs::symlink(to, work.join(name)).unwrap();
    if round == 0 {
        write(b"file-or-folder", "file");
        write(b"folder-or-link/inside", "x");
        write(b"file-or-link", "x");
        link("link", "script");
    } else {
        write(b"file-or-folder/a/b", "deep");
        link("folder-or-link", "/etc");
        link("file-or-link", "nowhere");
        link("link", "missing");
    }
    write(b".gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = https://example.org/none.git\n");
    git(work, &["add", "--all"]);
    let id = format!("{round}").repeat(39) + "a";
    git(work, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},sub")]);
    git(work, &["commit", "--quiet", "--allow-empty", "-m", "odd"]);
    site.push()
}

#[test]
fn odd_trees_arrive_and_are_taken_back() {
    let site = Site::with("", &sh("build", "[ ! -e ../fail ]"));
    let zero = odd_commit(&site, 0);
    site.sync().expect(0, "deployed");
    assert_eq!(site.head(), zero);
    site.assert_exactly(&zero);
    let before = files(&site.checkout);
    std::fs::write(site.host.path("fail"), "").unwrap();
    odd_commit(&site, 1);
    site.sync().expect(3, "rolled_back");
    assert_eq!(before, files(&site.checkout));
    site.assert_exactly(&zero);
    std::fs::remove_file(site.host.path("fail")).unwrap();
    git(&site.origin.work, &["commit", "--quiet", "--allow-empty", "-m", "empty"]);
    let one = site.push();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&one);
    let two = odd_commit(&site, 0);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&two);
    git(&site.origin.work, &["commit", "--quiet", "--allow-empty", "-m", "empty"]);
    let three = site.push();
    site.sync().expect(0, "deployed");
    site.assert_exactly(&three);
}

#[test]
fn twenty_thousand_files_arrive_and_are_taken_back() {
    let site = Site::with("", &sh("build", "[ ! -e ../fail ]"));
    let import = |from: &str, text: &str| {
        let mut stream =
            format!("commit refs/heads/main\ncommitter T <t@e> 1700000000 +0000\ndata 1\nx\n{from}deleteall\n");
        for number in 0..20_000 {
            let content = format!("{text} {number}\n");
            stream +=
                &format!("M 100644 inline {text}/{}/{number:060}\ndata {}\n{content}\n", number % 100, content.len());
        }
        let mut child = std::process::Command::new("git")
            .args(["fast-import", "--quiet", "--force"])
            .current_dir(&site.origin.bare)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    import("", "a");
    site.sync().expect(0, "deployed");
    let first = site.head();
    assert_eq!(files(&site.checkout).len(), 20_000);
    std::fs::write(site.host.path("fail"), "").unwrap();
    import(&format!("from {first}\n"), "b");
    site.sync().expect(3, "rolled_back");
    site.assert_exactly(&first);
}

#[test]
fn a_tree_of_a_hundred_million_files_is_refused_in_little_time_and_memory() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let before = site.head();
    let bare = &site.origin.bare;
    // Written with a few small objects: each level names the one below many times.
    let tree = |kind: &str, id: &str, count: usize| {
        let lines: String = (0..count).map(|number| format!("{kind} {id}\t{number:04}\n")).collect();
        let mut child = std::process::Command::new("git")
            .arg("mktree")
            .current_dir(bare)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let mut id = tree("100644 blob", &git(bare, &["rev-parse", &format!("{before}:README")]), 1024);
    for _ in 0..5 {
        id = tree("040000 tree", &id, 10);
    }
    let commit = git(bare, &["commit-tree", "-p", &before, "-m", "bomb", &id]);
    git(bare, &["update-ref", "refs/heads/main", &commit]);
    // Of what can be written, stacks included, and of a processor's time: a loaded machine keeps both.
    let mut command = std::process::Command::new("prlimit");
    let service = site.host.command("gitops-sync");
    command
        .args(["--data=200000000", "--cpu=20"])
        .arg(service.get_program())
        .args(service.get_args())
        .args(["--json", support::gitops::REPO]);
    for (name, value) in service.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    support::gitops::ran(command).expect(5, "refused").says("files and folders");
    assert_eq!(site.head(), before);
    site.assert_settled();
    // The next honest commit is deployed.
    git(bare, &["update-ref", "refs/heads/main", &before]);
    let next = site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&next);
}
