//! `hub doctor`: each finding appears where its cause is, with the command that mends it, and nowhere else.

use crate::support;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::doctor::{Found, doctor, doctor_with};
use crate::support::gitops::{REPO, Site};
use crate::support::tailnet::Tailnet;
use crate::support::{Host, Service, eventually, free_address, skipped_without_root};
use serde_json::{Value, json};

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
    // The example is all comments, and as good as nothing.
    host.configure(&std::fs::read_to_string("contrib/hub.toml").unwrap());
    let found = doctor(&host).ends(1, "warning").has("ok", "configuration", "hub.toml is valid", "");
    found.has("warning", "configuration", "no [[repository]] is configured", "editor ");
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
    support::copy_program(env!("CARGO_BIN_EXE_hub"), &binary);
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
    record("lost", Value::Null);
    doctor(&host).has("problem", "last runs", "lost: the log has the reason", "hub up");
    record("stored", Value::Null);
    doctor(&host).finds_well("last runs");
}

#[test]
fn a_program_that_was_replaced_and_another_configuration_are_told() {
    let host = Host::new();
    let addresses = format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    host.configure(&addresses);
    let (copy, original) = (host.path("hub-copy"), host.command("hub").get_program().to_owned());
    support::copy_program(&original, &copy);
    let mut command = Command::new(&copy);
    command.arg("up").envs(host.command("hub").get_envs().filter_map(|(name, value)| Some((name, value?))));
    let up = Service::start(command);
    up.line("service_started");
    doctor(&host).has("ok", "what runs", "hub up runs the program that is installed", "");
    std::fs::remove_file(&copy).unwrap();
    doctor(&host).has("warning", "what runs", "which has been removed", "hub up");
    support::copy_program(&original, &copy);
    doctor(&host).has("warning", "what runs", "runs an older program than", "kill ");
    std::fs::copy(host.path("hub.toml"), host.path("other.toml")).unwrap();
    let mut other = host.command("hub");
    other.args(["doctor", "--json", "--config"]).arg(host.path("other.toml"));
    let said = String::from_utf8(other.output().unwrap().stdout).unwrap();
    assert!(said.contains("hub.toml, and this look is about "), "{said}");
}

#[test]
fn the_hub_toml_that_runs_is_compared_with_the_one_on_the_disk() {
    let host = Host::new();
    let addresses = format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    host.configure(&addresses);
    let proxy = host.start("proxy", &[]);
    proxy.line("listening");
    let file = host.path("hub.toml");
    let goes_by = format!("proxy goes by {} as it is on the disk", file.display());
    // Its record comes a moment after the line.
    eventually("it says so", || doctor(&host).json.to_string().contains(&goes_by));
    // A file that goes on being written is not taken.
    let is_over = AtomicBool::new(false);
    let text = format!("{addresses}[metrics]\nretention_days = 7\n");
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                host.configure(&text);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        eventually("another file is there", || std::fs::read_to_string(&file).is_ok_and(|found| found != addresses));
        let found = doctor(&host);
        is_over.store(true, Ordering::Relaxed);
        found
    });
    found.has("warning", "configuration", "proxy does not go by", "doctor");
    eventually("it is taken", || proxy.lines().iter().any(|line| line["msg"] == "configuration_changed"));
    eventually("and that is seen", || doctor(&host).json.to_string().contains(&goes_by));
}
