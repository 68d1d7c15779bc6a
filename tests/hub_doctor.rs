//! `hub doctor`: each finding appears where its cause is, with the command that mends it, and nowhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

#[path = "support/reading.rs"]
mod reading;
mod support;
#[path = "support/tailnet.rs"]
mod tailnet;

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::gitops::{REPO, Site};
use support::{Host, free_address, git, skipped_without_root};
use tailnet::Tailnet;

/// What was found, and how the command ended.
#[derive(Debug)]
struct Found {
    code: Option<i32>,
    text: String,
    json: Value,
}

/// Asks twice: for people and for programs.
fn doctor_with(prepare: impl Fn() -> Command) -> Found {
    let run = |arguments: &[&str]| prepare().arg("doctor").args(arguments).output().unwrap();
    let (people, programs) = (run(&[]), run(&["--json"]));
    let text = String::from_utf8(people.stdout).unwrap() + &String::from_utf8(people.stderr).unwrap();
    let json = serde_json::from_slice(&programs.stdout).unwrap_or_else(|error| panic!("{error}: {programs:?}"));
    assert_eq!(people.status.code(), programs.status.code(), "{text}{json:#}");
    Found { code: people.status.code(), text, json }
}

fn doctor(host: &Host) -> Found {
    doctor_with(|| host.command("hub"))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Found {
    /// There is this finding, for people too.
    #[track_caller]
    fn has(self, level: &str, about: &str, part: &str, mend: &str) -> Self {
        let fits = |finding: &&Value| {
            let has = |key: &str, part: &str| finding[key].as_str().unwrap_or_default().contains(part);
            finding["level"] == level && finding["about"] == about && has("finding", part) && has("mend", mend)
        };
        let found = self.json["findings"].as_array().unwrap().iter().find(fits);
        let finding = found.unwrap_or_else(|| panic!("no {level} {about}: {part} ({mend}):\n{}", self.text));
        assert!(words(&self.text).contains(&words(part)), "{}", self.text);
        if level == "warning" || level == "problem" {
            let mend = finding["mend"].as_str().expect("what is wrong can be mended");
            let mut lines = mend.lines();
            assert!(self.text.contains(&format!("> {}", lines.next().unwrap())), "{}", self.text);
            assert!(lines.all(|line| self.text.contains(line)), "{}", self.text);
        }
        self
    }

    /// Nothing of what is found about this is wrong.
    #[track_caller]
    fn finds_well(self, about: &str) -> Self {
        let wrong = |finding: &&Value| {
            finding["about"] == about && (finding["level"] == "warning" || finding["level"] == "problem")
        };
        let findings = self.json["findings"].as_array().unwrap();
        assert!(!findings.iter().any(|finding| wrong(&finding)), "{}", self.text);
        self
    }

    #[track_caller]
    fn ends(self, code: i32, status: &str) -> Self {
        assert!(self.code == Some(code) && self.json["status"] == status, "not {code} {status}: {self:#?}");
        self
    }
}

/// `PATH` with a program of this name in front, which prints this.
fn with_program(host: &Host, name: &str, says: &str) -> String {
    let folder = host.path("programs");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), format!("#!/bin/sh\necho '{says}'\n")).unwrap();
    std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

fn with_path(host: &Host, path: &str) -> Found {
    doctor_with(|| {
        let mut command = host.command("hub");
        command.env("PATH", path);
        command
    })
}

/// Everything but the two things that a test's machine may lack: a user for git, and who keeps the clock.
const SECRET: &str = "0123456789abcdef-secret";

#[test]
fn a_fresh_host_is_told_what_to_configure() {
    let host = Host::new();
    let found = doctor(&host).ends(1, "warning");
    let found = found.has("ok", "configuration", "the defaults are in force", "");
    let found = found.has(
        "warning",
        "configuration",
        "no [[repository]] is configured",
        "editor /etc/observability-hub/hub.toml",
    );
    let found = found.has("warning", "secrets", "there is no webhook secret", "webhook-test");
    let found = found.has("ok", "database", "is made by the first run of system-metrics", "");
    found.has("ok", "listeners", "proxy.listen is 127.0.0.1:8085, on this host only", "");
    assert!(!host.path("state/data").exists(), "looking makes nothing");
    std::fs::remove_dir(host.state()).unwrap();
    doctor(&host).has("ok", "state", "the first start makes", "");
}

#[test]
fn a_host_that_is_set_up_has_no_problem() {
    let site = Site::new();
    site.host.credential("webhook-secret", SECRET);
    let secret = site.host.state().join("credentials/webhook-secret");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    site.sync().expect(0, "deployed");
    assert!(site.host.run("system-metrics", &[]).status.success());
    let found = doctor(&site.host);
    let about = format!("repository {REPO}");
    let found = found.has("ok", &about, "answers and has the branch main", "").has("ok", &about, "the checkout", "");
    let found = found.has("ok", "database", "the login, the schema and the right to write are there", "");
    let found =
        found.has("ok", "secrets", "the webhook secret is there (23 bytes)", "").has("ok", "programs", "git is 2.", "");
    let found = found.has("ok", "disk", "are free in", "").has("ok", "configuration", "hub.toml is valid", "");
    for about in ["configuration", "state", "secrets", "database", "listeners", &about, "pipeline reading", "programs"]
    {
        let all = Found { code: found.code, text: found.text.clone(), json: found.json.clone() };
        all.finds_well(about);
    }
    assert!(!found.text.contains(SECRET) && !found.json.to_string().contains(SECRET));
    assert!(found.text.lines().all(|line| line.chars().count() <= 80 || line.contains('/')), "{}", found.text);
}

#[test]
fn a_broken_configuration_is_named_and_the_rest_is_looked_at() {
    let host = Host::new();
    host.configure("[proxy]\n\nlistem = \"x\"\n");
    host.credential("webhook-secret", "short");
    let found = doctor(&host).ends(2, "problem");
    let file = host.path("hub.toml");
    let found = found.has(
        "problem",
        "configuration",
        "hub.toml:3: proxy.listem: unknown field",
        &format!("editor +3 {}", file.display()),
    );
    let found = found.has("skipped", "what the configuration names", "the configuration comes first", "");
    let found = found.has("problem", "secrets", "at least 16 are needed", "");
    found.has("ok", "programs", "git is", "").has("ok", "disk", "are free", "");
    host.configure("not TOML");
    doctor(&host).has("problem", "configuration", "hub.toml:1: not TOML", "editor +1");
    std::fs::remove_file(&file).unwrap();
    let missing = doctor_with(|| {
        let mut command = host.command("hub");
        command.env("HUB_CONFIG", &file);
        command
    });
    missing.has("problem", "configuration", "no such file", "--config or HUB_CONFIG");
    let port = doctor_with(|| {
        let mut command = host.command("hub");
        command.env("PORT", "many");
        command
    });
    port.has("problem", "configuration", "environment PORT", "unset PORT");
}

#[test]
fn a_configuration_that_others_may_write_is_not_trusted() {
    let host = Host::new();
    host.configure("");
    std::fs::set_permissions(host.path("hub.toml"), PermissionsExt::from_mode(0o666)).unwrap();
    let level = if rustix::process::geteuid().is_root() { "problem" } else { "warning" };
    doctor(&host).has(level, "configuration", "can be written by group or others", "chmod go-w");
    if skipped_without_root() {
        return;
    }
    std::fs::set_permissions(host.path("hub.toml"), PermissionsExt::from_mode(0o644)).unwrap();
    chown(host.path("hub.toml"), Some(65_534), None).unwrap();
    doctor(&host).has("problem", "configuration", "does not belong to root", "chown root:");
}

#[test]
fn secrets_that_do_not_serve_are_told_and_not_shown() {
    let host = Host::new();
    host.credential("webhook-secret", &format!("{SECRET}\nanother-secret-of-24-bytes\n"));
    let path = host.state().join("credentials/webhook-secret");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let found = doctor(&host).has("ok", "secrets", "the webhook secrets are there (23, 26 bytes)", "");
    let found = found.has("warning", "secrets", "can be read by other users", &format!("chmod 600 {}", path.display()));
    assert!(!found.text.contains("another-secret") && !found.json.to_string().contains("another-secret"));
    host.credential("webhook-secret", "tiny-secret");
    let found = doctor(&host).has("problem", "secrets", "has 11 bytes, at least 16 are needed", "openssl rand -hex 32");
    assert!(!found.text.contains("tiny-secret"));
    host.credential("webhook-secret", SECRET);
    host.configure("[proxy]\nadmin_listen = \"0.0.0.0:0\"\n");
    doctor(&host).has("problem", "secrets", "admin-token", "openssl rand -hex 32");
    host.credential("admin-token", "a token for the tests");
    doctor(&host).has(
        "warning",
        "listeners",
        "proxy.admin_listen = \"0.0.0.0:0\" can be reached from other hosts",
        "editor",
    );
}

#[test]
fn listeners_that_others_reach_are_told_by_file_and_by_socket() {
    let host = Host::new();
    host.configure("[proxy]\nlisten = \"0.0.0.0:8085\"\n");
    doctor(&host).has("warning", "listeners", "proxy.listen = \"0.0.0.0:8085\" can be reached", "# proxy.listen");
    let stranger = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    host.configure(&format!("[proxy]\nlisten = \"127.0.0.1:{port}\"\n"));
    doctor(&host).has(
        "problem",
        "listeners",
        &format!("something listens on 0.0.0.0:{port}"),
        &format!("sport = :{port}"),
    );
    drop(stranger);
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    host.configure(&format!("[proxy]\nlisten = \"{}\"\n", ours.local_addr().unwrap()));
    doctor(&host).has(
        "ok",
        "listeners",
        &format!("proxy.listen is {}, on this host only", ours.local_addr().unwrap()),
        "",
    );
}

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
fn a_checkout_that_cannot_be_used_is_told() {
    let about = format!("repository {REPO}");
    let site = Site::with("", "user = \"nobody-of-this-name\"\n");
    doctor(&site.host).has("problem", &about, "nobody-of-this-name", "useradd");
    let site = Site::new();
    if rustix::process::geteuid().is_root() {
        let (url, path) = (site.origin.url(), site.checkout.display());
        let text = format!("[[repository]]\nname = \"{REPO}\"\nurl = \"{url}\"\npath = \"{path}\"\n");
        site.host.configure(&text);
        if Command::new("id").arg("hub").output().unwrap().status.success() {
            doctor(&site.host).has("ok", &about, "will be made, for hub", "");
        } else {
            let found = doctor(&site.host).has("warning", &about, "there is no user hub", "useradd");
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
fn a_database_that_refuses_or_is_down_is_told() {
    let host = Host::new();
    let with_url = |url: &str| {
        host.credential("database-url", url);
        doctor(&host)
    };
    let nobody = free_address();
    let found = with_url(&format!("postgres://hub:geheim@{nobody}/hub?connect_timeout=2"));
    let found = found.has("problem", "database", "not available", &format!("psql 'postgres://{nobody}/hub'"));
    assert!(!found.text.contains("geheim") && !found.json.to_string().contains("geheim"));
    let found =
        with_url("mysql://root:geheim@db").has("problem", "database", "credential database-url", "database-url");
    assert!(!found.text.contains("geheim"));
    std::fs::create_dir(host.path("state/data")).unwrap();
    std::fs::write(host.path("state/data/torn.db"), vec![b'x'; 8192]).unwrap();
    with_url("sqlite:torn.db").has("problem", "database", "torn.db", "torn.db.damaged");
}

#[cfg(feature = "postgres")]
#[test]
fn a_database_without_the_right_to_make_tables_is_told_with_the_statements() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("doctor");
    let host = Host::new();
    host.credential("database-url", &database.url());
    doctor(&host).has("ok", "database", "the login, the schema and the right to write are there", "");
    let mut superuser = database.superuser();
    superuser.batch_execute("DROP OWNED BY doctor CASCADE; ALTER DATABASE doctor OWNER TO CURRENT_USER; REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
    doctor(&host).has("problem", "database", "permission denied", "GRANT");
}

#[test]
fn a_pipeline_whose_source_is_not_there_is_told() {
    let host = Host::new();
    let pipeline = reading::file_pipeline(&host, "");
    host.configure(&pipeline);
    reading::publish(&host, "a.jsonl", b"{}\n");
    doctor(&host).has("ok", "pipeline reading", "1 file waits", "").finds_well("configuration");
    std::fs::remove_dir_all(reading::inbox(&host)).unwrap();
    let host_of_mongo = Host::new();
    doctor(&host).has("problem", "pipeline reading", "inbox", "install -d");
    host_of_mongo.configure("[[pipeline]]\nname = \"reading\"\n");
    doctor(&host_of_mongo).has("problem", "pipeline reading", "credential mongo-uri: is missing", "mongo-uri");
}

#[cfg(feature = "mongodb")]
#[test]
fn a_mongodb_that_does_not_answer_is_told_without_its_password() {
    let host = Host::new();
    host.configure("[[pipeline]]\nname = \"reading\"\n");
    host.credential("mongo-uri", &format!("mongodb://hub:geheim@{}/", free_address()));
    let found = doctor(&host).has("problem", "pipeline reading", "MongoDB", "mongosh");
    assert!(!found.text.contains("geheim") && !found.json.to_string().contains("geheim"));
}

#[test]
fn tailscale_is_looked_at_as_the_gate_does() {
    let tailnet = Tailnet::new();
    let doctor = || {
        doctor_with(|| {
            let mut command = tailnet.host.command("hub");
            command.env("PATH", format!("{}:{}", tailnet.host.path("bin").display(), std::env::var("PATH").unwrap()));
            command
        })
    };
    doctor().has("ok", "tailscale", "tailscale 1.102.3 may publish port 8443 of foo.test.ts.net", "");
    tailnet.set(json!({"no_funnel": true}));
    doctor().has("warning", "tailscale", "Funnel is not enabled", "tailscale funnel --https=8443");
    tailnet.install("#!/bin/sh\necho 1.40.0\n");
    doctor().has("warning", "tailscale", "tailscale 1.40.0 is too old", "tailscale update");
    tailnet.install("#!/bin/sh\ntest \"$1\" = version && echo 1.90.0 && exit\necho \"failed to connect to local tailscaled\" >&2; exit 1\n");
    doctor().has("warning", "tailscale", "tailscaled is not running", "systemctl enable --now tailscaled");
    tailnet.host.configure("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n");
    doctor().has("problem", "tailscale", "the gate needs a fixed one", "editor");
}

#[test]
fn a_full_or_read_only_disk_is_told() {
    if skipped_without_root() {
        return;
    }
    let host = Host::new();
    let mount = |options: &str| {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(host.state()).status();
        mounted.is_ok_and(|status| status.success())
    };
    let unmount = || assert!(Command::new("umount").arg(host.state()).status().unwrap().success());
    for (options, level, part, mend) in [
        ("size=32m", "problem", "MiB are free", "du -xh"),
        ("size=200m", "warning", "only ", "du -xh"),
        ("size=2g", "ok", "2 GiB are free", ""),
        ("size=2g,nr_inodes=40", "warning", "inodes are free", "du -xh"),
        ("size=2g,ro", "problem", "is mounted read-only", "remount,rw"),
    ] {
        if !mount(options) {
            support::skip::skip("full disks", "no file system can be mounted here");
            return;
        }
        if options.contains("inodes") {
            // Until there is none left.
            let mut names = 0..100;
            assert!(names.any(|name| std::fs::write(host.state().join(name.to_string()), "").is_err()));
        }
        let found = doctor(&host);
        unmount();
        found.has(level, "disk", part, mend);
    }
}

#[test]
fn who_may_not_look_is_told_so() {
    if skipped_without_root() {
        return;
    }
    let host = Host::new();
    host.credential("webhook-secret", SECRET);
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(host.state().join("credentials"), PermissionsExt::from_mode(0o700)).unwrap();
    let binary = host.path("hub");
    std::fs::copy(env!("CARGO_BIN_EXE_hub"), &binary).unwrap();
    let found = doctor_with(|| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&binary);
        for (name, value) in host.command("hub").get_envs() {
            value.map(|value| command.env(name, value));
        }
        command
    });
    let found = found.has("skipped", "secrets", "cannot be read by this user", "sudo HUB_STATE_DIR=");
    found.has("warning", "state", "belongs to another user", "sudo HUB_STATE_DIR=");
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
fn what_a_pipeline_left_undone_is_a_finding() {
    let site = reading::Site::new(|host| reading::file_pipeline(host, ""));
    reading::publish(&site.host, "a.jsonl", b"this is no JSON\n");
    reading::publish(&site.host, "b.jsonl.gz", b"this is no gzip\n");
    site.synced("reading");
    let about = "pipeline reading";
    let found = doctor(&site.host).has("warning", about, "1 document could not be stored", "hub dead-letters");
    found.has("warning", about, "1 damaged file in failed/", "ls -l").has("ok", about, "0 files wait", "");
    let inbox = reading::inbox(&site.host);
    std::fs::rename(&inbox, site.host.path("elsewhere")).unwrap();
    site.run("reading");
    std::fs::rename(site.host.path("elsewhere"), &inbox).unwrap();
    doctor(&site.host).has("problem", about, "the last run, begun", "/api/sync/reading");
}

#[test]
fn a_file_that_the_readers_user_may_not_read_is_found() {
    if skipped_without_root() {
        return;
    }
    let host = Host::new();
    host.configure(&reading::file_pipeline(&host, ""));
    reading::publish(&host, "a.jsonl", b"{}\n");
    std::fs::set_permissions(reading::inbox(&host).join("a.jsonl"), PermissionsExt::from_mode(0o600)).unwrap();
    chown(reading::inbox(&host), Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = host.path("hub");
    std::fs::copy(env!("CARGO_BIN_EXE_hub"), &binary).unwrap();
    let as_nobody = || {
        doctor_with(|| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&binary);
            for (name, value) in host.command("hub").get_envs() {
                value.map(|value| command.env(name, value));
            }
            command
        })
    };
    as_nobody().has("problem", "pipeline reading", "a.jsonl: Permission denied", "chown -R");
    chown(reading::inbox(&host).join("a.jsonl"), Some(65534), None).unwrap();
    as_nobody().has("ok", "pipeline reading", "1 file waits", "");
}

#[test]
fn a_run_that_failed_as_a_whole_is_found() {
    let host = Host::new();
    let folder = host.state().join("data/metrics");
    std::fs::create_dir_all(&folder).unwrap();
    let record = |status: &str, error: Value| {
        let run = json!({
            "service": "system-metrics", "started": "2026-01-02T03:04:05Z", "duration_ms": 1, "status": status, "error": error,
        });
        std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
    };
    record("lost", json!("the disk is full"));
    doctor(&host).has("problem", "last runs", "lost: the disk is full", "hub up");
    record("stored", Value::Null);
    doctor(&host).finds_well("last runs");
}
