//! What a fetch may bring and leave behind, from remotes of every kind, and whose fault it is where one fails.

use crate::support;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::gitops::{FILE, REPO, Site, is_root, names, skip};
use crate::support::{eventually, git};

/// git's own server for the repositories of a folder.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn start(base: &Path) -> Self {
        let port = support::free_address().port();
        // `git daemon` would start it as a child of its own, which nobody ends.
        let programs = git(base, &["--exec-path"]);
        let child = Command::new(Path::new(programs.trim()).join("git-daemon"))
            .args(["--export-all", "--listen=127.0.0.1", "--reuseaddr", "--informative-errors"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", base.display()))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        eventually("git daemon listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stands between a client and a server and ends, or holds, what the server says after so many bytes.
struct Cut {
    port: u16,
    served: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
}

impl Cut {
    fn start(server: u16, bytes: usize, holds: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (served, open): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let (count, is_open) = (served.clone(), open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let limit = if is_open.load(Ordering::Relaxed) { usize::MAX } else { bytes };
                let count = count.clone();
                std::thread::spawn(move || relay(client, server, limit, holds, &count));
            }
        });
        Self { port, served, open }
    }
}

fn relay(mut client: TcpStream, server: u16, limit: usize, holds: bool, served: &AtomicUsize) -> Option<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut buffer, mut sent) = ([0; 16 << 10], 0);
    loop {
        let count = server.read(&mut buffer).ok().filter(|count| *count > 0)?;
        if sent + count > limit {
            // Held, the client has to give up by itself.
            while holds && client.read(&mut buffer).is_ok_and(|count| count > 0) {}
            return None;
        }
        client.write_all(&buffer[..count]).ok()?;
        sent += count;
        served.fetch_add(count, Ordering::Relaxed);
    }
}

/// What fetches and transfers left unfinished, in mirror and checkout.
fn unfinished(site: &Site) -> Vec<PathBuf> {
    let packs = [
        site.state("mirror/acme__infra.git/objects/pack"),
        site.checkout.join(".git/objects/pack"),
        site.checkout.join(".git/objects/hub-incoming/pack"),
    ];
    let of = |folder: PathBuf| names(&folder).into_iter().map(move |name| folder.join(name));
    packs.into_iter().flat_map(of).filter(|path| path.to_string_lossy().contains("tmp_")).collect()
}

/// Bytes that no compression makes smaller.
fn noise(bytes: usize) -> String {
    let mut random = vec![0; bytes / 2];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_dead_fetches_left_is_gone_with_the_next_run() {
    for holds in [false, true] {
        let site = Site::new();
        let daemon = Daemon::start(&site.host.path(""));
        let cut = Cut::start(daemon.port, 6 << 20, holds);
        let url = format!("git://127.0.0.1:{}/origin.git", cut.port);
        cut.open.store(true, Ordering::Relaxed);
        site.configure_url(&url, "", "");
        site.sync().expect(0, "deployed");
        let commit = site.origin.push(&[("large", &noise(14 << 20))]);
        cut.open.store(false, Ordering::Relaxed);
        site.configure_url(&url, "fetch_timeout_seconds = 5", "");
        for _ in 0..2 {
            site.sync().expect(1, "failed").says("cannot fetch from git://");
            assert!(unfinished(&site).is_empty(), "{:?}", unfinished(&site));
        }
        assert!(cut.served.load(Ordering::Relaxed) > 5 << 20, "the pack was cut in its middle");
        // Killed while it receives: what it left goes with the next run.
        let mut child = site.host.command("gitops-sync").arg(REPO).stdout(Stdio::null()).spawn().unwrap();
        eventually("it receives", || !unfinished(&site).is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        // So do what a killed transfer left in the checkout, but not what the owner's git is at.
        site.write(".git/objects/hub-incoming/pack/tmp_pack_dead", "x");
        site.write(".git/objects/pack/tmp_pack_theirs", "x");
        // A killed `git gc` leaves objects that it had begun.
        let mirror = site.state("mirror/acme__infra.git/objects");
        std::fs::create_dir_all(mirror.join("ab")).unwrap();
        for name in ["tmp_obj_a1b2c3", "ab/tmp_obj_a1b2c3"] {
            std::fs::write(mirror.join(name), "x").unwrap();
        }
        cut.open.store(true, Ordering::Relaxed);
        site.configure_url(&url, "", "");
        site.sync().expect(0, "deployed");
        site.assert_exactly(&commit);
        assert_eq!(unfinished(&site), [site.checkout.join(".git/objects/pack/tmp_pack_theirs")]);
        assert!(!mirror.join("tmp_obj_a1b2c3").exists() && !mirror.join("ab/tmp_obj_a1b2c3").exists());
        // Nor do runs that find nothing leave any.
        site.sync().expect(0, "unchanged");
        assert_eq!(unfinished(&site).len(), 1);
    }
}

#[test]
fn repositories_with_sha_256_are_deployed() {
    let site = Site::new();
    let (bare, work) = (site.host.path("new.git"), site.host.path("new"));
    let format = "--object-format=sha256";
    git(&site.host.path(""), &["init", "--quiet", "--bare", format, "--initial-branch=main", bare.to_str().unwrap()]);
    git(&site.host.path(""), &["init", "--quiet", format, "--initial-branch=main", work.to_str().unwrap()]);
    let push = |content: &str| {
        std::fs::write(work.join("README"), content).unwrap();
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "-m", content]);
        git(&work, &["push", "--quiet", bare.to_str().unwrap(), "HEAD:main"]);
        git(&work, &["rev-parse", "HEAD"])
    };
    push("one");
    let daemon = Daemon::start(&site.host.path(""));
    for url in [bare.display().to_string(), format!("git://127.0.0.1:{}/new.git", daemon.port)] {
        site.configure_url(&url, "", "");
        let _ = std::fs::remove_dir_all(site.state("mirror"));
        site.sync();
        let commit = push(&url);
        assert_eq!(commit.len(), 64);
        site.sync().expect(0, "deployed");
        assert_eq!(site.head(), commit);
        site.sync().expect(0, "unchanged");
    }
    // A remote that was made anew with the other hash is a rewritten one, and says so.
    site.configure("", "");
    site.sync().expect(5, "refused").says("was rewritten");
}

/// Pushes a commit object with this text after its tree and parent.
fn push_commit(site: &Site, rest: &str) -> String {
    let work = &site.origin.work;
    let (tree, parent) = (git(work, &["rev-parse", "HEAD^{tree}"]), git(work, &["rev-parse", "HEAD"]));
    let text = format!("tree {tree}\nparent {parent}\n{rest}");
    let commit = write_object(work, "commit", text.as_bytes());
    git(work, &["reset", "--quiet", "--hard", &commit]);
    git(work, &["push", "--quiet", "origin", "HEAD:main"]);
    commit
}

fn write_object(work: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["hash-object", "-t", kind, "-w", "--literally", "--stdin"])
        .current_dir(work)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn old_flaws_of_a_history_are_accepted_and_dangerous_ones_named_as_its_fault() {
    let site = Site::new();
    for people in [
        "author A <a@example.org> 1000000000 +051800\ncommitter A <a@example.org> 1000000000 +051800\n",
        "author A<a@example.org> 1000000000 +0000\ncommitter A <a@example.org> 1000000000 +0000\n",
        "author A <a@example.org>1000000000 +0000\ncommitter A <a@example.org> 1000000000 +0000\n",
        "author A <a@example.org> 01000000000 +0000\ncommitter <a@example.org> 1000000000 +0000\n",
        "author A <a@example.org> 99999999999999999999 +0000\ncommitter A 1000000000 +0000\n",
    ] {
        push_commit(&site, &format!("{people}\nold\n"));
    }
    site.sync().expect(0, "deployed");
    let live = site.head();
    let blob = write_object(&site.origin.work, "blob", b"x");
    let raw: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&blob[2 * at..2 * at + 2], 16).unwrap()).collect();
    let entry = |name: &str, id: &[u8]| [format!("100644 {name}\0").as_bytes(), id].concat();
    for (tree, named) in [
        (entry(".git", &raw), "hasDotgit"),
        ([entry("a", &raw), entry("a", &raw)].concat(), "duplicateEntries"),
        ([entry("b", &raw), entry("a", &raw)].concat(), "treeNotSorted"),
    ] {
        let tree = write_object(&site.origin.work, "tree", &tree);
        let text = format!(
            "tree {tree}\nparent {live}\nauthor A <a@example.org> 1 +0000\ncommitter A <a@example.org> 1 +0000\n\nx\n"
        );
        let commit = write_object(&site.origin.work, "commit", text.as_bytes());
        git(&site.origin.work, &["push", "--quiet", "--force", "origin", &format!("{commit}:main")]);
        let run = site.sync().expect(5, "refused").says(named).says("the history's fault");
        assert!(!run.log.contains("fetch_retried") && run.took < Duration::from_secs(20), "{run:#?}");
        // The next run asks what the branch is at, and fetches nothing of it.
        site.sync().expect(5, "refused").says(named).says("until the branch moves");
        assert!(unfinished(&site).is_empty(), "{:?}", unfinished(&site));
        assert_eq!(site.head(), live);
    }
    site.origin.commit(&[("README", "mended\n")]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    site.sync().expect(0, "deployed");
}

#[test]
fn a_shallow_remote_is_refused_and_never_taken_for_unchanged() {
    let site = Site::new();
    site.origin.push(&[("README", "two\n")]);
    let url = format!("file://{}", site.origin.bare.display());
    let shallow = |name: &str| {
        let path = site.host.path(name);
        let _ = std::fs::remove_dir_all(&path);
        git(&site.host.path(""), &["clone", "--quiet", "--bare", "--depth=1", &url, path.to_str().unwrap()]);
        path.display().to_string()
    };
    let daemon = Daemon::start(&site.host.path(""));
    // From the first, and after a commit was deployed from a whole one.
    for deployed in [false, true] {
        site.configure("", "");
        if deployed {
            site.sync();
        }
        site.origin.push(&[("README", &format!("three {deployed}\n"))]);
        site.origin.push(&[("README", &format!("four {deployed}\n"))]);
        let path = shallow("shallow.git");
        for url in [path, format!("git://127.0.0.1:{}/shallow.git", daemon.port)] {
            site.configure_url(&url, "", "");
            for _ in 0..2 {
                site.sync().expect(5, "refused").says("shallow");
            }
        }
        git(&site.host.path("shallow.git"), &["fetch", "--quiet", "--unshallow", &url, "+main:main"]);
        std::fs::remove_file(site.state("bad").join(FILE)).unwrap();
        site.sync().expect(0, "deployed");
    }
}

#[test]
fn a_fetch_has_a_limit_that_is_named() {
    let site = Site::new();
    let daemon = Daemon::start(&site.host.path(""));
    for url in [site.origin.url().to_owned(), format!("git://127.0.0.1:{}/origin.git", daemon.port)] {
        site.configure_url(&url, "fetch_max = \"1 MiB\"", "");
        site.sync();
        let live = site.head();
        // One large file, and many small ones.
        let files: Vec<(String, String)> = (0..60).map(|n| (format!("many/{n}"), noise(64 << 10))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let commit = site.origin.push(&files);
        let run =
            site.sync().expect(5, "refused").says("more than gitops.fetch_max, 1 MiB").says("hub retry acme/infra");
        assert!(!run.log.contains("fetch_retried"), "{}", run.log);
        assert!(unfinished(&site).is_empty(), "{:?}", unfinished(&site));
        site.sync().expect(5, "refused").says("1 MiB");
        assert_eq!(site.head(), live);
        site.configure_url(&url, "fetch_max = \"64 MiB\"", "");
        assert_eq!(site.host.run("hub", &["retry", REPO]).status.code(), Some(0));
        site.sync().expect(0, "deployed");
        assert_eq!(site.head(), commit);
    }
}

#[test]
fn a_full_disk_is_told_from_the_network() {
    let test = "a_full_disk_is_told_from_the_network";
    if !is_root() {
        return skip(test, "root");
    }
    for part in ["mirror has no room for what is fetched", "has no room for the commit"] {
        let site = Site::new();
        site.sync().expect(0, "deployed");
        let folder = if part.starts_with("mirror") { site.host.state() } else { site.checkout.clone() };
        let aside = site.host.path("aside");
        std::fs::rename(&folder, &aside).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs"]).arg(&folder).status();
        if !mounted.unwrap().success() {
            return skip(test, "mount");
        }
        assert!(Command::new("cp").args(["-a", "-T"]).args([&aside, &folder]).status().unwrap().success());
        let live = site.head();
        let commit = site.origin.push(&[("large", &noise(8 << 20))]);
        let run = site.sync();
        let kept = (run.code, run.reason().to_owned(), site.head());
        let large = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&folder).status().unwrap().success();
        let again = site.sync();
        let (left, head) = (unfinished(&site), site.head());
        assert!(Command::new("umount").arg("-l").arg(&folder).status().unwrap().success());
        std::fs::remove_dir(&folder).unwrap();
        std::fs::rename(&aside, &folder).unwrap();
        assert_eq!((kept.0, kept.2), (Some(1), live), "{run:#?}");
        assert!(kept.1.contains(part) && !kept.1.contains("cannot fetch"), "{run:#?}");
        assert!(!run.log.contains("fetch_retried"), "{}", run.log);
        assert!(large && left.is_empty() && head == commit, "{again:#?} {left:?}");
        site.sync().expect(0, "deployed");
    }
}

#[test]
fn a_local_remote_of_another_owner_is_fetched_from() {
    if !is_root() {
        return skip("a_local_remote_of_another_owner_is_fetched_from", "root");
    }
    let site = Site::new();
    let link = site.host.path("link.git");
    std::os::unix::fs::symlink(&site.origin.bare, &link).unwrap();
    for (number, url) in
        [site.origin.bare.display().to_string(), format!("file://{}", link.display())].into_iter().enumerate()
    {
        site.configure_url(&url, "", "");
        let commit = site.origin.push(&[("README", &format!("{number}"))]);
        assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(&site.origin.bare).status().unwrap().success());
        site.sync().expect(0, "deployed");
        assert_eq!(site.head(), commit);
        assert!(Command::new("chown").args(["-R", "0:0"]).arg(&site.origin.bare).status().unwrap().success());
    }
}

#[test]
fn a_folder_that_shuts_the_fetching_user_out_is_named() {
    const NOBODY: &str = "65534";
    if !is_root() {
        return skip("a_folder_that_shuts_the_fetching_user_out_is_named", "root");
    }
    let site = Site::new();
    let home = site.host.path("home");
    let url = home.join("origin.git");
    std::fs::create_dir(&home).unwrap();
    std::fs::rename(&site.origin.bare, &url).unwrap();
    let own = site.host.path("own");
    std::fs::create_dir_all(&own).unwrap();
    site.host.configure(&format!(
        "[[repository]]\nname = \"{REPO}\"\nurl = \"{}\"\npath = \"{}/checkout\"\nunits = \"\"\n",
        url.display(),
        own.display()
    ));
    assert!(Command::new("chown").args([NOBODY]).arg(&own).status().unwrap().success());
    // The folder that it is built in may be root's alone.
    let program = site.host.path("gitops-sync");
    support::copy_program(env!("CARGO_BIN_EXE_gitops-sync"), &program);
    let run = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"])
            .arg(&program)
            .args(["--json", REPO]);
        command.arg("--config").arg(site.host.path("hub.toml")).env("HUB_STATE_DIR", own.join("state"));
        support::gitops::ran(command)
    };
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&home, 0o700);
    run().expect(1, "failed").says(&format!("nobody, who fetches, may not enter {};", home.display()));
    mode(&home, 0o711);
    let objects = url.join("objects");
    mode(&objects, 0o700);
    run().expect(1, "failed").says(&format!("nobody, who fetches, may not read {};", objects.display()));
    mode(&objects, 0o755);
    run().expect(0, "deployed");
    std::fs::rename(&url, home.join("moved.git")).unwrap();
    run().expect(1, "failed").says(&format!("there is no {}", url.display()));
}

#[test]
fn paths_that_make_gigabytes_out_of_a_small_pack_are_refused() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let live = site.head();
    let work = &site.origin.work;
    let blob = write_object(work, "blob", b"x");
    let raw =
        |id: &str| (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect::<Vec<u8>>();
    // Deep folders, and many folders that are not deep.
    for (depth, width) in [(1500, 1), (15, 1), (12, 60)] {
        let files: Vec<u8> =
            (0..8000).flat_map(|n| [format!("100644 f{n:04}\0").into_bytes(), raw(&blob)].concat()).collect();
        let mut tree = write_object(work, "tree", &files);
        for level in 0..depth {
            let copies = if level == 0 { width } else { 1 };
            let entries: Vec<u8> = (0..copies)
                .flat_map(|n| [format!("40000 {n:02}{}\0", "d".repeat(248)).into_bytes(), raw(&tree)].concat())
                .collect();
            tree = write_object(work, "tree", &entries);
        }
        let text = format!(
            "tree {tree}\nparent {live}\nauthor A <a@example.org> 1 +0000\ncommitter A <a@example.org> 1 +0000\n\nx\n"
        );
        let commit = write_object(work, "commit", text.as_bytes());
        git(work, &["push", "--quiet", "--force", "origin", &format!("{commit}:main")]);
        if (depth, width) == (15, 1) {
            // Thirty megabytes of paths are many and no danger; here they are only planned.
            let run = site.run(&["--dry-run", REPO]);
            assert_eq!(run.code, Some(0), "{run:#?}");
            continue;
        }
        let run = site.sync().expect(5, "refused").says("paths that are too long");
        assert!(run.took < Duration::from_secs(60), "{run:#?}");
        assert_eq!(site.head(), live);
        assert_eq!(names(&site.state("journal")), [] as [String; 0]);
    }
}
