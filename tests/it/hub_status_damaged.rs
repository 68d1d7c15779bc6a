//! `hub status` where something is broken, or not for this user to read.

use crate::support;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::support::gitops::{FILE, REPO, Site};
use crate::support::status::{record, status, status_with};
use crate::support::{Host, skipped_without_root};
use serde_json::json;

#[test]
fn a_broken_configuration_is_failed_and_what_left_traces_is_shown() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    site.host.configure("[proxy]\nlistem = \"x\"\n");
    let said =
        status(&site.host).ends(2, "failed").says("failed", "configuration", "hub.toml:2: proxy.listem", "hub doctor");
    assert_eq!(said.repository(REPO)["deployed"]["commit"], site.head().as_str());
    assert!(said.json["configuration"]["error"].as_str().unwrap().contains("unknown field"));
}

#[test]
fn whatever_is_damaged_becomes_a_line_and_stops_nothing() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    record(&site.host, "data/metrics", "system-metrics", 5, json!({"status": "stored"}));
    let files = [
        "gitops/run.json".to_owned(),
        format!("gitops/deployed/{FILE}"),
        format!("gitops/checked/{FILE}"),
        format!("gitops/bad/{FILE}"),
        format!("gitops/hold/{FILE}"),
        "proxy/run.json".to_owned(),
        "gate/run.json".to_owned(),
        "reading/run.json".to_owned(),
    ];
    for file in &files {
        let path = site.host.state().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = std::fs::read(&path).ok();
        for (damage, part) in
            [(&b"{\"torn"[..], "is damaged"), (&b""[..], "is damaged"), (&[0xff; 2 << 20][..], "is longer than")]
        {
            std::fs::write(&path, damage).unwrap();
            let said = status(&site.host).ends(1, "degraded").says("degraded", "state", part, "hub doctor");
            assert!(said.json["unreadable"][0].as_str().unwrap().contains(file), "{said:#?}");
            assert_eq!(said.service("system-metrics")["last_run"]["status"], "stored", "the rest is shown");
        }
        std::fs::remove_file(&path).unwrap();
        symlink("/etc/hostname", &path).unwrap();
        status(&site.host).ends(1, "degraded").says("degraded", "state", "is not a regular file", "");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        status(&site.host).ends(1, "degraded").says("degraded", "state", file, "");
        std::fs::remove_dir(&path).unwrap();
        before.map(|content| std::fs::write(&path, content));
    }
    let gitops = site.host.state().join("gitops");
    std::fs::rename(&gitops, site.host.path("elsewhere")).unwrap();
    symlink(site.host.path("elsewhere"), &gitops).unwrap();
    status(&site.host).ends(1, "degraded").says("degraded", "state", "a link is not followed", "");
}

#[test]
fn without_a_state_folder_what_is_configured_is_shown() {
    let host = Host::new();
    let url = host.path("origin.git").display().to_string();
    let path = host.path("checkout").display().to_string();
    host.configure(&format!("[[repository]]\nname = \"{REPO}\"\nurl = \"{url}\"\npath = \"{path}\"\n"));
    std::fs::remove_dir_all(host.state()).unwrap();
    let said = status(&host).ends(1, "degraded").says("degraded", "services", "nothing of the hub runs here", "hub up");
    assert!(said.text.contains("never looked at") && !said.text.contains("none is configured"), "{}", said.text);
}

#[test]
fn a_state_folder_that_is_a_file_is_told() {
    let host = Host::new();
    std::fs::remove_dir(host.state()).unwrap();
    std::fs::write(host.state(), "x").unwrap();
    status(&host).ends(1, "degraded").says("degraded", "state", "cannot open", "hub doctor");
}

#[test]
fn who_may_not_read_is_told_how_to() {
    if skipped_without_root() {
        return;
    }
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let binary = site.host.path("hub");
    support::copy_program(env!("CARGO_BIN_EXE_hub"), &binary);
    std::fs::set_permissions(site.host.state(), PermissionsExt::from_mode(0o755)).unwrap();
    let as_group = |group: &str| {
        status_with(|| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--groups", group, "--"]).arg(&binary);
            for (name, value) in site.host.command("hub").get_envs() {
                value.map(|value| command.env(name, value));
            }
            command
        })
    };
    std::os::unix::fs::chown(site.state(""), None, Some(4242)).unwrap();
    for folder in ["deployed", "checked", "bad", "hold", "active", "retry", "failed", "journal", "locks"] {
        std::os::unix::fs::chown(site.state(folder), None, Some(4242)).unwrap();
    }
    for file in ["run.json".to_owned(), "totals.json".to_owned(), format!("deployed/{FILE}"), format!("checked/{FILE}")]
    {
        std::os::unix::fs::chown(site.state(&file), None, Some(4242)).unwrap();
    }
    let said = as_group("65534").ends(1, "degraded").says("degraded", "state", "Permission denied", "usermod -aG hub");
    assert!(!said.text.contains(&site.head()[..10]), "{}", said.text);
    for word in ["never looked at", "nothing", "never ", "empty"] {
        let shown = said
            .text
            .lines()
            .filter(|line| line.contains(REPO) || line.contains("gitops-sync  ") || line.contains("queue  "));
        assert!(shown.into_iter().all(|line| !line.contains(word)), "{word}: {}", said.text);
    }
    assert!(said.json["repositories"][0]["deployed"]["unreadable"].is_string(), "{said:#?}");
    let said = as_group("4242").says_nothing_of("state");
    assert_eq!(said.repository(REPO)["deployed"]["commit"], site.head().as_str(), "a member of the group reads all");
}
