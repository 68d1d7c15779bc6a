//! `hub doctor` on repositories and on the programs that fetch them.

use crate::support;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::support::doctor::{doctor, doctor_with, with_path, with_program};
use crate::support::gitops::{REPO, Site};
use crate::support::notice_server::Server;
use crate::support::{free_address, git, skipped_without_root};

#[test]
fn a_remote_that_does_not_answer_or_has_no_branch_is_told() {
    let about = format!("repository {REPO}");
    let site = Site::with("", "branch = \"live\"\n");
    doctor(&site.host).has("problem", &about, "the branch live does not exist at", "editor");
    site.configure_url("/nonexistent/origin.git", "", "");
    doctor(&site.host).has(
        "problem",
        &about,
        "cannot fetch from /nonexistent/origin.git",
        "git ls-remote /nonexistent/origin.git",
    );
    site.configure_url(&format!("http://{}/x.git", free_address()), "", "");
    doctor(&site.host).has("problem", &about, "cannot fetch from http://", "git ls-remote");
    let left = |name: &str| name.starts_with("hub-doctor-");
    let mut names = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let mine = |name: &std::ffi::OsString| left(&name.to_string_lossy()) && is_old(name);
    assert!(!names.any(|name| mine(&name)), "the folder for the question goes");
}

/// Another test's question may be on its way.
fn is_old(name: &std::ffi::OsString) -> bool {
    let modified = std::fs::metadata(std::env::temp_dir().join(name)).and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > std::time::Duration::from_secs(60)))
}

#[test]
fn keys_tokens_and_pinned_hosts_are_looked_at_before_the_remote_is() {
    let about = format!("repository {REPO}");
    let site = Site::new();
    let hosts = site.host.path("known_hosts");
    let gitops = format!("known_hosts = \"{}\"\n", hosts.display());
    site.configure_url("ssh://git@forge.test:2222/acme/infra.git", &gitops, "ssh_key = \"infra-key\"\n");
    let scan = format!("ssh-keyscan -p 2222 forge.test >> {}", hosts.display());
    let found = doctor(&site.host).has("problem", &about, "known_hosts is missing, and ssh trusts no other key", &scan);
    found.has("problem", &about, "the credential infra-key is missing", "install -m 600 FILE");
    std::fs::write(
        &hosts,
        "elsewhere.test ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n",
    )
    .unwrap();
    doctor(&site.host).has("problem", &about, "the key of [forge.test]:2222 is not in", &scan);
    std::fs::write(
        &hosts,
        "[forge.test]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n",
    )
    .unwrap();
    site.host.credential("infra-key", "no key");
    let found = doctor(&site.host).has("ok", &about, "the key of [forge.test]:2222 is pinned", "");
    found.has("problem", &about, "cannot fetch from ssh://", "git ls-remote").has("ok", "programs", "ssh is", "");

    site.configure_url(&format!("http://{}/x.git", free_address()), "", "token = \"infra-token\"\n");
    doctor(&site.host).has("problem", &about, "the credential infra-token is missing", "infra-token");
}

#[test]
fn a_forge_that_is_to_be_told_or_asked_is_asked() {
    let about = format!("repository {REPO}");
    let server = Server::start();
    let lines =
        |more: &str| format!("status = true\nstatus_token = \"forge\"\napi = \"{}/api/v1\"\n{more}", server.url);
    let site = Site::with("", &lines(""));
    doctor(&site.host).has("problem", &about, "the credential forge is missing", "install -m 600 FILE");
    site.host.credential("forge", "t0ken");
    let when = "gets results of commits, or is asked for checks, when there are some";
    doctor(&site.host).has("ok", &about, when, "");
    site.sync().expect(0, "deployed");
    // It is asked twice: for people and for programs. The same page again is the last one.
    let says = |status, times: usize, body| (0..2 * times).for_each(|_| server.says(status, &[], body));
    says(200, 2, r#"{"statuses":[{"context":"ci","status":"success"}]}"#);
    doctor(&site.host).has("ok", &about, "/api/v1 answers, and has 1 check of", "");
    says(403, 1, "no");
    doctor(&site.host).has("warning", &about, "answered 403", "editor");
    site.configure("", &lines("wait_for_checks = true"));
    says(401, 1, "no");
    doctor(&site.host).has("problem", &about, "look at the credential forge", "editor");
    site.configure("", "status = true\nstatus_token = \"forge\"");
    doctor(&site.host).has("problem", &about, "write api = \"https://git.acme.org/api/v1\" for Gitea", "editor");
}

#[test]
fn a_checkout_that_cannot_be_used_is_told() {
    let about = format!("repository {REPO}");
    let site = Site::with("", "user = \"nobody-of-this-name\"\n");
    doctor(&site.host).has("problem", &about, "nobody-of-this-name", "useradd");
    let site = Site::new();
    if rustix::process::geteuid().is_root() {
        let (url, path) = (site.origin.url(), site.checkout.display());
        let text = format!("[[repository]]\nname = \"{REPO}\"\nurl = \"{url}\"\npath = \"{path}\"\n");
        site.host.configure(&text);
        if Command::new("id").arg("hub-checkout").output().unwrap().status.success() {
            doctor(&site.host).has("ok", &about, "will be made, for hub-checkout", "");
        } else {
            let found = doctor(&site.host).has("warning", &about, "there is no user hub-checkout", "useradd");
            assert!(!found.text.contains("{\""), "a log line between the words: {}", found.text);
        }
        site.host.configure(&(text + "user = \"root\"\n"));
        doctor(&site.host).has("ok", &about, "will be made, for root", "");
    }
    site.configure("", "");
    std::fs::create_dir(&site.checkout).unwrap();
    std::fs::write(site.checkout.join("file"), "x").unwrap();
    doctor(&site.host).has("problem", &about, "holds files and no git repository", "ls -la");
    if skipped_without_root() {
        return;
    }
    chown(&site.checkout, Some(65_534), None).unwrap();
    doctor(&site.host).has("problem", &about, "does not belong to", "ls -la");
}

#[test]
fn a_checkout_that_cannot_be_made_or_reached_is_told_with_the_folder_in_the_way() {
    let about = format!("repository {REPO}");
    if skipped_without_root() {
        return;
    }
    let site = Site::new();
    let configure = |path: &Path, user: &str| {
        let (url, path) = (site.origin.url(), path.display());
        site.host.configure(&format!(
            "[[repository]]\nname = \"{REPO}\"\nurl = \"{url}\"\npath = \"{path}\"\nuser = \"{user}\"\n"
        ));
    };
    let closed = site.host.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(site.host.path(""), Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    // Where it is, and where it is to be made two levels below.
    for path in [closed.join("site"), closed.join("apps/site")] {
        configure(&path, "nobody");
        let barred = format!("may not enter {}; let it pass with: setfacl -m u:nobody:x", closed.display());
        doctor(&site.host).has("problem", &about, &barred, "ls -la");
    }
    // In a folder of another user's root makes nothing.
    let others = site.host.path("others");
    std::fs::create_dir(&others).unwrap();
    chown(&others, Some(65_533), None).unwrap();
    configure(&others.join("site"), "nobody");
    doctor(&site.host).has("problem", &about, "cannot be made", "ls -la");
    std::fs::create_dir(site.host.path("open")).unwrap();
    configure(&site.host.path("open/apps/site"), "nobody");
    doctor(&site.host).has("ok", &about, "will be made, for nobody", "");
    // Root may write there, says access(2), and makes nothing all the same.
    for path in ["/proc/site", "/proc/1/site", "/sys/kernel/site"] {
        configure(Path::new(path), "root");
        doctor(&site.host).has("problem", &about, "is the kernel's own, and takes no files", "ls -la");
    }
}

#[test]
fn lists_of_signers_must_be_there_trusted_and_not_empty() {
    let about = format!("repository {REPO}");
    let site = Site::new();
    let signers = site.host.path("signers");
    site.configure("", &format!("allowed_signers = \"{}\"\n", signers.display()));
    doctor(&site.host).has("problem", &about, "allowed_signers", "ls -l");
    std::fs::write(&signers, "# nobody\n").unwrap();
    doctor(&site.host).has("problem", &about, "lists nobody, so no commit is accepted", "ls -l");
    std::fs::write(&signers, "ada@example.org namespaces=\"git\" ssh-ed25519 AAAA\n").unwrap();
    doctor(&site.host).has("ok", &about, "only signed commits are taken: allowed_signers (1 signers)", "");
    // Of two lists the one that is missing is named.
    let keys = site.host.path("keys.gpg");
    let both = format!("allowed_signers = \"{}\"\ngpg_keyring = \"{}\"\n", signers.display(), keys.display());
    site.configure("", &both);
    doctor(&site.host).has("problem", &about, "gpg_keyring", &format!("ls -l {}", keys.display()));
    if skipped_without_root() {
        return;
    }
    std::fs::set_permissions(&signers, PermissionsExt::from_mode(0o666)).unwrap();
    doctor(&site.host).has("problem", &about, "can be written by others than root", "ls -l");
}

#[test]
fn programs_that_are_old_missing_or_odd_are_told() {
    let site = Site::new();
    let with_git = |says: &str| with_path(&site.host, &with_program(&site.host, "git", says));
    with_git("git version 2.30.9").has(
        "problem",
        "programs",
        "git is 2.30.9; 2.31 or newer is needed",
        "apt-get install git",
    );
    with_git("git version 2.31.0").has("ok", "programs", "git is 2.31.0", "");
    with_git("something else").has("warning", "programs", "the version of git is not understood", "git --version");
    site.configure("", "allowed_signers = \"/etc/hostname\"\n");
    with_git("git version 2.33.1").has("problem", "programs", "2.34 or newer is needed", "apt-get install git");
    let ssh = with_path(&site.host, &with_program(&site.host, "ssh", "OpenSSH_8.1p1, OpenSSL 1.1"));
    ssh.has("problem", "programs", "ssh is 8.1; 8.2 or newer is needed", "openssh-client");
    site.configure("", "gpg_keyring = \"/etc/hostname\"\n");
    let bare = with_program(&site.host, "setpriv", "setpriv 1");
    let bare = bare.split(':').next().unwrap();
    let none = with_path(&site.host, bare);
    none.has("problem", "programs", "git is", "").has("problem", "programs", "gpg is not installed", "gnupg");
}

#[test]
fn git_as_root_is_told_where_nobody_else_can_fetch() {
    let is_root = rustix::process::geteuid().is_root();
    let exists = Command::new("id").arg("hub-git").output().unwrap().status.success();
    let site = Site::new();
    if is_root && !exists {
        doctor(&site.host).has("warning", "users", "git fetches as root", "useradd --system");
    } else {
        doctor(&site.host).finds_well("users");
    }
    assert!(git(Path::new("/"), &["--version"]).starts_with("git version"));
}

#[test]
fn the_last_refusal_of_a_repository_is_a_finding_until_it_is_over() {
    let site = Site::new();
    let about = format!("repository {REPO}");
    site.sync().expect(0, "deployed");
    doctor(&site.host).finds_well(&about);
    std::fs::write(site.checkout.join("README"), "changed here\n").unwrap();
    site.origin.push(&[("README", "changed there\n")]);
    site.sync().expect(5, "refused");
    let found = doctor(&site.host);
    found.has("problem", &about, "refused: ", "hub deploy acme/infra").has("problem", &about, "has local changes", "");
    git(&site.checkout, &["restore", "README"]);
    site.sync().expect(0, "deployed");
    doctor(&site.host).finds_well(&about);

    git(&site.origin.work, &["commit", "--quiet", "--amend", "--message", "other"]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    site.sync().expect(5, "refused");
    doctor(&site.host).has("problem", &about, "was rewritten", "hub deploy acme/infra");
}

#[test]
fn the_checkout_of_a_users_own_hub_is_that_users() {
    if skipped_without_root() {
        return;
    }
    let site = Site::new();
    let (url, path) = (site.origin.url(), site.checkout.display());
    site.host.configure(&format!("[[repository]]\nname = \"{REPO}\"\nurl = \"{url}\"\npath = \"{path}\"\n"));
    std::fs::create_dir_all(site.host.state().join("data")).unwrap();
    let own = Command::new("chown").args(["-R", "65534:65534"]).arg(site.host.path("")).status().unwrap();
    assert!(own.success());
    let as_user = |binary: &str| {
        let given = site.host.command(binary);
        let copy = site.host.path(binary);
        if !copy.exists() {
            support::copy_program(given.get_program(), &copy);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(copy);
        command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("HOME", site.host.path(""));
        command
    };
    let done = as_user("gitops-sync").arg(REPO).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let found = doctor_with(|| as_user("hub"));
    found.has("ok", &format!("repository {REPO}"), "belongs to nobody", "");
}
