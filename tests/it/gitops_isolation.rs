//! Nothing that the owner of a checkout, or a repository's content, can write runs as root.
//!
//! The users exist only in the mount namespace that gitops-sync is started in, so the host's user list stays as it is.

use crate::support;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::git;
use crate::support::gitops::{REPO, Ran, Site, is_root, names, ran, sh, skip};

const INFRA: u32 = 64_101;
const HUB_GIT: u32 = 64_102;
const EXTRA_GROUP: u32 = 64_103;

/// A site whose checkout belongs to the user `infra`.
struct Shared {
    site: Site,
    hub_git: bool,
}

impl Shared {
    /// None where it cannot be had here.
    fn new(test: &str, hub_git: bool) -> Option<Self> {
        let can = is_root()
            && Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
        if !can {
            skip(test, "root and mount namespaces; run: sudo -E cargo test --test it gitops_isolation::");
            return None;
        }
        let site = Site::with("", "user = \"infra\"\n");
        std::fs::create_dir(&site.checkout).unwrap();
        chown(&site.checkout, Some(INFRA), Some(INFRA)).unwrap();
        std::fs::create_dir(site.host.path("seen")).unwrap();
        std::fs::set_permissions(site.host.path("seen"), PermissionsExt::from_mode(0o1777)).unwrap();
        Some(Self { site, hub_git })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let host = &self.site.host;
        let users = |file: &str, more: &[String]| {
            let text = std::fs::read_to_string(format!("/etc/{file}")).unwrap();
            let without =
                text.lines().filter(|line| !["hub:", "hub-git:", "infra:"].iter().any(|name| line.starts_with(name)));
            let all: Vec<&str> = without.chain(more.iter().map(String::as_str)).collect();
            let path = host.path(file);
            std::fs::write(&path, all.join("\n") + "\n").unwrap();
            path
        };
        let mut accounts = vec![format!("infra:x:{INFRA}:{INFRA}::/nonexistent:/usr/sbin/nologin")];
        if self.hub_git {
            accounts.push(format!("hub-git:x:{HUB_GIT}:{HUB_GIT}::/nonexistent:/usr/sbin/nologin"));
        }
        let groups =
            [format!("infra:x:{INFRA}:"), format!("hub-git:x:{HUB_GIT}:"), format!("extra:x:{EXTRA_GROUP}:infra")];
        let (passwd, group) = (users("passwd", &accounts), users("group", &groups));
        let inner = host.command("gitops-sync");
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/group && shift 2 && exec \"$@\"",
            "sh",
        ]);
        command.arg(passwd).arg(group).arg(inner.get_program()).arg("--json").args(arguments);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn sync(&self) -> Ran {
        ran(self.command(&[REPO]))
    }

    /// A program that notes who ran it, and copies its input to its output.
    fn spy(&self, name: &str) -> PathBuf {
        let path = self.site.host.path(name);
        let seen = self.site.host.path("seen");
        std::fs::write(&path, format!("#!/bin/sh\nid -u >> {}/{name}.$(id -u)\ncat\n", seen.display())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// Which spies ran, as `name.uid`.
    fn seen(&self) -> Vec<String> {
        names(&self.site.host.path("seen"))
    }

    fn as_infra(&self, arguments: &[&str]) {
        self.git_as_infra(arguments);
    }

    /// What git says to the checkout's user.
    fn git_as_infra(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("setpriv")
            .args(["--reuid", &INFRA.to_string(), "--regid", &INFRA.to_string(), "--clear-groups", "git"])
            .args(arguments)
            .current_dir(&self.site.checkout)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

fn owner(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().uid()
}

#[test]
fn the_checkout_is_its_users_and_so_are_the_commands() {
    let Some(shared) = Shared::new("the_checkout_is_its_users_and_so_are_the_commands", false) else { return };
    let site = &shared.site;
    site.configure("", "user = \"infra\"\nbuild = [\"/usr/bin/id\"]\nafter = [\"/bin/sh\", \"-c\", \"id -u > who; id -G >> who; echo $HOME $USER >> who; umask >> who\"]\n");
    shared.sync().expect(0, "deployed");
    for path in ["README", "app", ".git", ".git/index", ".git/refs/heads/main", "who"] {
        assert_eq!(owner(&site.checkout.join(path)), INFRA, "{path}");
    }
    assert_eq!(site.read("who"), format!("{INFRA}\n{INFRA} {EXTRA_GROUP}\n/nonexistent infra\n0022\n"));
}

#[test]
fn what_the_checkouts_configuration_starts_is_never_root() {
    let Some(shared) = Shared::new("what_the_checkouts_configuration_starts_is_never_root", false) else { return };
    let site = &shared.site;
    shared.sync().expect(0, "deployed");
    let spy = |name: &str| shared.spy(name).display().to_string();
    let set = |key: &str, value: &str| shared.as_infra(&["config", key, value]);
    let hooks = site.checkout.join(".git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    let own_hooks = site.host.path("own-hooks");
    std::fs::create_dir(&own_hooks).unwrap();
    for name in [
        "post-merge",
        "post-checkout",
        "pre-auto-gc",
        "reference-transaction",
        "post-index-change",
        "pre-merge-commit",
        "fsmonitor-watchman",
        "post-rewrite",
    ] {
        let program = shared.spy(name);
        symlink(&program, hooks.join(name)).unwrap();
        symlink(&program, own_hooks.join(name)).unwrap();
    }
    set("core.hooksPath", &own_hooks.display().to_string());
    set("core.fsmonitor", &spy("fsmonitor"));
    for key in ["smudge", "clean", "process"] {
        if key != "process" {
            set(&format!("filter.spy.{key}"), &spy(key));
        }
    }
    set("core.sshCommand", &spy("ssh"));
    set("core.gitProxy", &spy("gitproxy"));
    set("core.askPass", &spy("askpass"));
    set("core.pager", &spy("pager"));
    set("core.editor", &spy("editor"));
    set("core.alternateRefsCommand", &spy("alternates"));
    set("credential.helper", &format!("!{}", spy("credential")));
    set("uploadpack.packObjectsHook", &spy("packobjects"));
    set("diff.external", &spy("diffexternal"));
    set("merge.spy.driver", &spy("mergedriver"));
    set("gpg.program", &spy("gpgprogram"));
    set("gpg.ssh.program", &spy("gpgssh"));
    set("merge.verifySignatures", "true");
    set("branch.main.mergeOptions", "--no-ff --squash");
    set("url.ext::sh -c id.insteadOf", site.origin.url());
    set("protocol.ext.allow", "always");
    set("remote.origin.url", &format!("ext::{}", spy("ext")));
    set("remote.origin.uploadpack", &spy("uploadpack"));
    set("submodule.recurse", "true");
    set("gc.auto", "1");
    set("maintenance.auto", "true");
    let included = site.host.path("included");
    std::fs::write(
        &included,
        format!("[core]\n\tfsmonitor = {}\n[alias]\n\tmerge = !{1}\n\tstatus = !{1}\n", spy("included"), spy("alias")),
    )
    .unwrap();
    set("include.path", &included.display().to_string());
    let attributes = "* filter=spy diff=spy merge=spy\n";
    let tip = site.origin.push(&[(".gitattributes", attributes), ("README", "two\n"), ("new", "x\n")]);
    shared.sync().expect(0, "deployed");
    assert_eq!((site.head(), site.read("README"), site.read("new")), (tip, "two\n".to_owned(), "x\n".to_owned()));
    // The hourly run tidies as well.
    std::fs::remove_file(site.state("checked/acme__infra.json")).unwrap();
    ran(shared.command(&[])).expect(0, "unchanged");
    // Rolled back, too.
    site.configure("", "user = \"infra\"\nbuild = [\"/bin/false\"]\n");
    site.origin.push(&[("README", "three\n"), ("newer", "x\n")]);
    shared.sync().expect(3, "rolled_back");
    let seen = shared.seen();
    assert!(seen.iter().any(|name| *name == format!("smudge.{INFRA}")), "the filters are the user's own: {seen:?}");
    assert_eq!(seen.iter().filter(|name| name.ends_with(".0")).collect::<Vec<_>>(), [] as [&String; 0]);
    for name in &seen {
        assert!(["smudge", "clean"].iter().any(|allowed| name.starts_with(allowed)), "{name} ran");
    }
}

#[test]
fn what_the_checkout_points_at_is_not_roots_business() {
    type Trick = fn(&Shared);
    let tricks: [(&str, Trick); 8] = [
        ("alternates", |s| {
            std::fs::write(
                s.site.checkout.join(".git/objects/info/alternates"),
                format!("{}\n", s.site.host.path("secret.git/objects").display()),
            )
            .unwrap()
        }),
        ("core.worktree", |s| s.as_infra(&["config", "core.worktree", s.site.host.path("secret").to_str().unwrap()])),
        ("gitdir file", |s| {
            std::fs::rename(s.site.checkout.join(".git"), s.site.host.path("real")).unwrap();
            std::fs::write(s.site.checkout.join(".git"), format!("gitdir: {}\n", s.site.host.path("real").display()))
                .unwrap();
            chown(s.site.checkout.join(".git"), Some(INFRA), Some(INFRA)).unwrap();
        }),
        ("gitdir file to root's repository", |s| {
            std::fs::remove_dir_all(s.site.checkout.join(".git")).unwrap();
            std::fs::write(
                s.site.checkout.join(".git"),
                format!("gitdir: {}\n", s.site.host.path("secret/.git").display()),
            )
            .unwrap();
        }),
        (".git is a link to root's repository", |s| {
            std::fs::remove_dir_all(s.site.checkout.join(".git")).unwrap();
            symlink(s.site.host.path("secret/.git"), s.site.checkout.join(".git")).unwrap();
        }),
        ("path is a link to root's folder", |s| {
            std::fs::remove_dir_all(&s.site.checkout).unwrap();
            symlink(s.site.host.path("secret"), &s.site.checkout).unwrap();
        }),
        ("path is a dangling link into root's folder", |s| {
            std::fs::remove_dir_all(&s.site.checkout).unwrap();
            symlink(s.site.host.path("secret/made"), &s.site.checkout).unwrap();
        }),
        ("replaced commit", |s| {
            s.as_infra(&[
                "-c",
                "user.name=x",
                "-c",
                "user.email=x@y",
                "commit",
                "--quiet",
                "--allow-empty",
                "-m",
                "fake",
            ]);
            s.as_infra(&["replace", "HEAD~", "HEAD"]);
            s.as_infra(&["reset", "--quiet", "--hard", "HEAD~"]);
        }),
    ];
    for (name, trick) in tricks {
        let Some(shared) = Shared::new("what_the_checkout_points_at_is_not_roots_business", false) else { return };
        let site = &shared.site;
        shared.sync().expect(0, "deployed");
        let secret = site.host.path("secret");
        std::fs::create_dir(&secret).unwrap();
        git(&secret, &["init", "--quiet"]);
        std::fs::write(secret.join("file"), "secret\n").unwrap();
        git(&secret, &["add", "."]);
        git(&secret, &["commit", "--quiet", "-m", "secret"]);
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).unwrap();
        trick(&shared);
        let snapshot = || (support::gitops::files(&secret), support::gitops::files(&secret.join(".git")));
        let before = snapshot();
        site.origin.push(&[("README", "two\n")]);
        let run = shared.sync();
        eprintln!("{name}: {:?} {}", run.code, run.reason());
        assert_eq!(before, snapshot(), "{name}");
        assert_eq!(owner(&secret), 0, "{name}");
        assert!(matches!(run.code, Some(0 | 1 | 5)), "{name}: {run:#?}");
        if matches!(name, "core.worktree" | "gitdir file" | "alternates") {
            assert_eq!((run.code, site.read("README")), (Some(0), "two\n".to_owned()), "{name}: {run:#?}");
        } else if name != "replaced commit" {
            assert!(run.reason().contains("checkout"), "{name}: {run:#?}");
        }
    }
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let Some(shared) = Shared::new("a_folder_of_another_user_is_refused", false) else { return };
    shared.sync().expect(0, "deployed");
    chown(&shared.site.checkout, Some(0), Some(0)).unwrap();
    shared.sync().expect(5, "refused").says("does not belong to infra: run chown -R infra:");
    chown(&shared.site.checkout, Some(INFRA), Some(INFRA)).unwrap();
    chown(shared.site.checkout.join(".git"), Some(0), Some(0)).unwrap();
    shared.site.origin.push(&[("README", "two\n")]);
    shared.sync().expect(5, "refused").says("chown -R infra:");
    shared.site.configure("", "user = \"nobody-of-that-name\"\n");
    shared.sync().expect(5, "refused").says("the user nobody-of-that-name does not exist on this host");
}

#[test]
fn a_checkout_is_not_made_where_its_user_could_move_it() {
    let Some(mut shared) = Shared::new("a_checkout_is_not_made_where_its_user_could_move_it", false) else { return };
    // A folder of root's inside one that another user can rename.
    let theirs = shared.site.host.path("theirs");
    std::fs::create_dir_all(theirs.join("roots")).unwrap();
    chown(&theirs, Some(HUB_GIT), Some(HUB_GIT)).unwrap();
    shared.site.checkout = theirs.join("roots/new/checkout");
    shared.site.configure("", "user = \"infra\"\n");
    shared.sync().expect(5, "refused").says("so root makes nothing in it for infra");
    assert_eq!(names(&theirs.join("roots")), [] as [String; 0]);
    // In root's own place it is made, and is the user's.
    shared.site.checkout = shared.site.host.path("srv/new/checkout");
    shared.site.configure("", "user = \"infra\"\n");
    shared.sync().expect(0, "deployed");
    assert_eq!((owner(&shared.site.checkout), owner(&shared.site.host.path("srv"))), (INFRA, 0));
}

#[test]
fn the_mirror_is_hub_gits() {
    let Some(shared) = Shared::new("the_mirror_is_hub_gits", true) else { return };
    let site = &shared.site;
    // Every git is noted with who runs it and where.
    let bin = site.host.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let seen = site.host.path("seen/git");
    std::fs::write(&seen, "").unwrap();
    std::fs::set_permissions(&seen, PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::write(
        bin.join("git"),
        format!("#!/bin/sh\necho $(id -u) $PWD >> {}\nexec /usr/bin/git \"$@\"\n", seen.display()),
    )
    .unwrap();
    std::fs::set_permissions(bin.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    let sync = || {
        let mut command = shared.command(&[REPO]);
        command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        ran(command)
    };
    // What the served repository's configuration starts, it starts as hub-git.
    git(&site.origin.bare, &["config", "uploadpack.packObjectsHook", shared.spy("packobjects").to_str().unwrap()]);
    let run = sync().expect(0, "deployed");
    assert!(!run.log.contains("hub_git_missing"), "{}", run.log);
    let tip = site.origin.push(&[("README", "two\n")]);
    sync().expect(0, "deployed");
    assert_eq!(site.head(), tip);
    let mirror = site.state("mirror/acme__infra.git");
    for path in [site.state("mirror"), mirror.clone(), mirror.join("refs/hub/tip"), mirror.join("config")] {
        assert_eq!(owner(&path), HUB_GIT, "{}", path.display());
    }
    let text = std::fs::read_to_string(&seen).unwrap();
    assert!(text.lines().any(|line| line.starts_with(&HUB_GIT.to_string())), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("0 ")), "{text}");
    assert!(!shared.seen().iter().any(|name| name.ends_with(".0")), "{:?}", shared.seen());
    // A mirror of another user is made anew, and a link in its place is not followed.
    let outside = site.host.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    std::fs::remove_dir_all(&mirror).unwrap();
    symlink(&outside, &mirror).unwrap();
    let tip = site.origin.push(&[("README", "three\n")]);
    sync().expect(0, "deployed");
    assert_eq!((site.head(), owner(&mirror), names(&outside)), (tip, HUB_GIT, vec!["kept".to_owned()]));
}

#[test]
fn a_link_that_comes_during_a_run_leads_nowhere() {
    let test = "a_link_that_comes_during_a_run_leads_nowhere";
    let Some(mut shared) = Shared::new(test, false) else { return };
    let home = shared.site.host.path("home");
    std::fs::create_dir(&home).unwrap();
    chown(&home, Some(INFRA), Some(INFRA)).unwrap();
    shared.site.checkout = home.join("app");
    // Readable by all, but behind a door that only root may open.
    let vault = shared.site.host.path("vault");
    std::fs::create_dir_all(vault.join("open")).unwrap();
    std::fs::write(vault.join("open/file"), "the secret\n").unwrap();
    std::fs::set_permissions(&vault, PermissionsExt::from_mode(0o700)).unwrap();
    shared.site.configure("", "user = \"infra\"\n");
    shared.sync().expect(0, "deployed");
    // The first command, which is the user's, swaps the folder; the second is started in what is there then.
    let (app, away) = (shared.site.checkout.display().to_string(), home.join("away").display().to_string());
    let swap = format!("mv {app} {away}; ln -s {} {app}", vault.join("open").display());
    shared.site.configure(
        "",
        &format!(
            "user = \"infra\"\nbuild = [\"/bin/sh\", \"-c\", \"{swap}\"]\nafter = [\"/bin/sh\", \"-c\", \"cat file\"]\n"
        ),
    );
    shared.site.origin.push(&[("README", "two\n")]);
    let run = shared.sync();
    assert!(home.join("away").exists(), "{run:#?}");
    assert!(!run.log.contains("the secret") && !run.report.to_string().contains("the secret"), "{run:#?}");
    assert_eq!(names(&vault.join("open")), ["file"]);
}

/// A host that also keeps a repository of root's which nobody else may read, `acme/private`; the origin of `acme/infra`
/// belongs to `infra`, who knows the tip of the private one.
fn with_private_repository(test: &str) -> Option<(Shared, String)> {
    let shared = Shared::new(test, true)?;
    let site = &shared.site;
    let secret = site.origin.push(&[("secret", "the secret\n")]);
    let private = site.host.path("private.git");
    std::fs::rename(&site.origin.bare, &private).unwrap();
    git(&site.origin.work, &["init", "--quiet", "--bare", site.origin.url()]);
    git(&site.origin.work, &["checkout", "--quiet", "--orphan", "public"]);
    git(&site.origin.work, &["rm", "-r", "--quiet", "--force", "."]);
    site.origin.push(&[("README", "theirs\n")]);
    give(&site.origin.bare);
    site.host.configure(&format!(
        "[[repository]]\nname = \"{REPO}\"\nurl = \"{}\"\npath = \"{}\"\nuser = \"infra\"\n\
         [[repository]]\nname = \"acme/private\"\nurl = \"{}\"\npath = \"{}\"\nuser = \"root\"\n",
        site.origin.url(),
        site.checkout.display(),
        private.display(),
        site.host.path("private-checkout").display()
    ));
    ran(shared.command(&["acme/private"])).expect(0, "deployed");
    // Its mirror is all that is left of it that anybody but root could read.
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    shared.sync().expect(0, "deployed");
    Some((shared, secret))
}

fn give(path: &Path) {
    let chown = Command::new("chown").args(["-hR", &format!("{INFRA}:{INFRA}")]).arg(path).status();
    assert!(chown.unwrap().success());
}

#[test]
fn an_origin_cannot_borrow_what_only_the_fetching_user_may_read() {
    let test = "an_origin_cannot_borrow_what_only_the_fetching_user_may_read";
    let Some((shared, secret)) = with_private_repository(test) else { return };
    let site = &shared.site;
    let (origin, mirror) = (&site.origin.bare, site.state("mirror/acme__private.git"));
    let pristine = site.host.path("pristine");
    std::fs::rename(origin, &pristine).unwrap();
    let replace = |name: &str, target: &Path| {
        let path = origin.join(name);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        symlink(target, &path).unwrap();
    };
    let alternates = |folder: &Path, other: &Path| {
        std::fs::create_dir_all(folder.join("objects/info")).unwrap();
        std::fs::write(folder.join("objects/info/alternates"), format!("{}\n", other.display())).unwrap();
    };
    let variants: [(&str, &dyn Fn()); 7] = [
        ("alternates", &|| alternates(origin, &mirror.join("objects"))),
        ("alternates of alternates", &|| {
            alternates(&site.host.path("between"), &mirror.join("objects"));
            alternates(origin, &site.host.path("between/objects"));
        }),
        ("a link for the objects", &|| replace("objects", &mirror.join("objects"))),
        ("a link for the packs", &|| replace("objects/pack", &mirror.join("objects/pack"))),
        ("commondir", &|| std::fs::write(origin.join("commondir"), format!("{}\n", mirror.display())).unwrap()),
        ("gitdir", &|| {
            std::fs::remove_dir_all(origin).unwrap();
            std::fs::create_dir(origin).unwrap();
            std::fs::write(origin.join(".git"), format!("gitdir: {}\n", mirror.display())).unwrap();
        }),
        ("a link for all of it", &|| {
            std::fs::remove_dir_all(origin).unwrap();
            symlink(&mirror, origin).unwrap();
        }),
    ];
    for (name, prepare) in variants {
        let copied = Command::new("cp").args(["-a"]).args([&pristine, origin]).status();
        assert!(copied.unwrap().success());
        prepare();
        if name != "gitdir" && !origin.is_symlink() {
            std::fs::write(origin.join("packed-refs"), "").unwrap();
            std::fs::create_dir_all(origin.join("refs/heads")).unwrap();
            std::fs::write(origin.join("refs/heads/main"), format!("{secret}\n")).unwrap();
        }
        give(origin);
        let (before, run) = (site.head(), shared.sync());
        assert!(matches!(run.code, Some(1 | 5)) && site.head() == before, "{name}: {run:#?}");
        let mut known = Command::new("git");
        known.args(["-c", "safe.directory=*", "cat-file", "-e", &secret]);
        let known =
            known.current_dir(site.state("mirror/acme__infra.git")).stderr(std::process::Stdio::null()).status();
        assert!(!known.unwrap().success() && !site.checkout.join("secret").exists(), "{name}");
        Command::new("rm").args(["-rf"]).arg(origin).status().unwrap();
    }
    // Root's own is read by the fetching user, and so has to be root's alone.
    std::fs::rename(&pristine, origin).unwrap();
    let chown = Command::new("chown").args(["-R", "0:0"]).arg(origin).status();
    assert!(chown.unwrap().success());
    shared.sync().expect(0, "unchanged");
    std::fs::set_permissions(origin.join("objects/info"), PermissionsExt::from_mode(0o2775)).unwrap();
    shared.sync().expect(5, "refused").says("objects/info: others than root can change it");
    std::fs::set_permissions(origin.join("objects/info"), PermissionsExt::from_mode(0o755)).unwrap();
    alternates(origin, &mirror.join("objects"));
    shared.sync().expect(5, "refused").says("objects/info/alternates: it has git read what is elsewhere");
}

/// A server that keeps files from root (nfs's root_squash), as far as one host can show it: root without the rights that set
/// modes aside.
#[test]
fn a_checkout_is_read_as_its_user_where_root_may_not() {
    let Some(shared) = Shared::new("a_checkout_is_read_as_its_user_where_root_may_not", false) else { return };
    let keys = sh("build", "echo built >>app/config; echo x >made; chmod 700 app; chmod 600 app/config made");
    shared.site.configure("", &format!("user = \"infra\"\n{keys}"));
    std::fs::set_permissions(&shared.site.checkout, PermissionsExt::from_mode(0o700)).unwrap();
    let squashed = || {
        let whole = shared.command(&[REPO]);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]);
        command.arg(whole.get_program()).args(whole.get_args());
        for (name, value) in whole.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        ran(command)
    };
    for (number, files) in [&[("more", "1\n")] as &[_], &[("app/config", "a=2\n"), ("made", "y\n")]].iter().enumerate()
    {
        let commit = shared.site.origin.push(files);
        squashed().expect(0, "deployed");
        let head = String::from_utf8(shared.git_as_infra(&["rev-parse", "HEAD"])).unwrap();
        assert_eq!(head.trim(), commit, "{number}");
    }
}
