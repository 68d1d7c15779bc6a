//! The line at login: short, nothing in it that not everybody may read, and no login waits for it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::{Host, free_address};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_hub");

fn script() -> PathBuf {
    std::fs::canonicalize("contrib/motd").unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn line(host: &Host) -> String {
    let port = free_address().port().to_string();
    said(&host.command("hub").args(["status", "--motd"]).env("PORT", port).output().unwrap())
}

fn write(host: &Host, path: &str, content: &str) {
    let path = host.state().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// The script's answer where this is what `hub` does; it may take three seconds.
fn with_hub(host: &Host, does: &str, arguments: &[&str]) -> String {
    let hub = host.path("bin/hub");
    std::fs::create_dir_all(hub.parent().unwrap()).unwrap();
    std::fs::write(&hub, format!("#!/bin/sh\n{does}\n")).unwrap();
    std::fs::set_permissions(&hub, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    let started = Instant::now();
    let said = said(&Command::new(script()).args(arguments).env("PATH", path).output().unwrap());
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    said
}

#[test]
fn the_line_says_how_it_is_and_no_name() {
    let host = Host::new();
    assert_eq!(line(&host), "Observability Hub: nothing is set up yet; see: hub doctor\n");
    host.configure("[[repository]]\nname = \"secret/project\"\nurl = \"https://user:token@example.org/x.git\"\npath = \"/srv/x\"\n");
    let now = jiff::Timestamp::now().to_string();
    let reason = "secret/project: cannot fetch https://user:token@example.org\u{1b}[2J\nWelcome!";
    let lost = json!({"service": "x", "started": now, "duration_ms": 1, "status": "lost", "error": reason});
    let checked = json!({"at": now, "status": "rolled_back", "reason": reason});
    write(&host, "gitops/checked/secret__project.json", &checked.to_string());
    write(&host, "gitops/bad/secret__project.json", &json!({"commit": reason, "reason": reason}).to_string());
    let first = line(&host);
    for (file, content) in [
        ("data/metrics/run.json", lost.to_string()),
        // What cannot be read is not well.
        ("gitops/checked/secret__project.json", "{torn".to_owned()),
        ("gitops/hold/secret__project.json", "{torn".to_owned()),
    ] {
        write(&host, file, &content);
        let port = free_address().port().to_string();
        let output = host.command("hub").args(["status", "--json"]).env("PORT", port).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |level| status["reasons"].as_array().unwrap().iter().filter(|one| one["level"] == level).count();
        let (failed, degraded) = (count("failed"), count("degraded"));
        assert!(failed > 0 && degraded > 0, "{status}");
        let expected =
            format!("failed, {failed} reason{} and {degraded} to look at", if failed == 1 { "" } else { "s" });
        assert_eq!(line(&host), format!("Observability Hub: {expected}; see: hub status\n"));
    }
    assert_ne!(line(&host), first);
    let output = host.command("hub").args(["status", "--motd", "--config", "/nowhere.toml"]).output().unwrap();
    assert!(said(&output).starts_with("Observability Hub: failed, "), "a configuration that is wrong");
}

#[test]
fn no_login_waits() {
    let host = Host::new();
    let silent = "Observability Hub: no answer within 2 seconds; ask it: hub status\n";
    assert_eq!(with_hub(&host, "echo well", &[]), "well\n");
    for hanging in [
        "sleep 1000",
        "trap '' TERM HUP INT PIPE; sleep 1000; sleep 1000",
        // What outlives it and has its pipe.
        "setsid sleep 5 & sleep 1000",
        "kill -STOP $$",
        "exit 1",
        "kill -KILL $$",
        "echo no >&2",
    ] {
        assert_eq!(with_hub(&host, hanging, &[]), silent, "{hanging}");
    }
    assert_eq!(with_hub(&host, "yes Observability Hub: healthy", &[]), "Observability Hub: healthy\n");
    std::fs::remove_file(host.path("bin/hub")).unwrap();
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    assert_eq!(said(&Command::new(script()).env("PATH", path).output().unwrap()), silent, "a hub that is gone");
}

#[test]
fn pam_motd_gets_it_both_ways() {
    let host = Host::new();
    // As pam_motd(8) runs them.
    let folder = host.path("update-motd.d");
    std::fs::create_dir(&folder).unwrap();
    symlink(script(), folder.join("60-observability-hub")).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", Path::new(BIN).parent().unwrap().display());
    let mut command = Command::new("run-parts");
    command.arg("--lsbsysinit").arg(&folder).env_clear().env("PATH", &path).env("HUB_STATE_DIR", host.state());
    command.env("PORT", free_address().port().to_string());
    assert_eq!(said(&command.output().unwrap()), "Observability Hub: nothing is set up yet; see: hub doctor\n");
    // As a file, which is replaced as a whole.
    let file = host.path("run/motd.d/observability-hub");
    for word in ["one", "two"] {
        assert_eq!(with_hub(&host, &format!("echo {word}"), &[file.to_str().unwrap()]), "");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{word}\n"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        let names = std::fs::read_dir(host.path("run")).unwrap().count()
            + std::fs::read_dir(file.parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "nothing is left");
    }
}
