//! `hub status` on repositories and on the queue.

use crate::support;
use std::os::unix::fs::symlink;

use crate::support::Host;
use crate::support::gitops::{FILE, REPO, Site, user_name};
use crate::support::status::{ago, change, status, status_on_its_port, up};
use serde_json::{Value, json};

#[test]
fn a_held_repository_is_shown_and_is_no_fault() {
    let up = up();
    let command = ["hold", REPO, "--reason", "moving \u{1b}[31mthe database"];
    assert!(up.host.run("hub", &command).status.success());
    let said = status_on_its_port(&up.host).ends(0, "healthy");
    assert!(said.text.contains(&format!("held by {}", user_name())), "{}", said.text);
    assert!(said.text.contains("moving \\u{1b}[31mthe database;"), "{:?}", said.text);
    assert!(said.text.contains("hub release acme/infra"), "{:?}", said.text);
}

#[test]
fn a_commit_that_was_rolled_back_is_named_and_what_runs_is_the_good_one() {
    let site = Site::with("", "units = \"\"\nafter = [\"/usr/bin/test\", \"!\", \"-e\", \"poison\"]\n");
    let good = site.head_after_sync();
    let bad = site.origin.push(&[("poison", "x")]);
    site.sync().expect(3, "rolled_back");
    let said = status(&site.host).ends(1, "degraded");
    let said = said.says("degraded", REPO, &bad[..10], "   # then push to main what fixes it");
    let said = said.says("degraded", "gitops-sync", "acme/infra rolled back", "");
    assert_eq!(said.repository(REPO)["deployed"]["commit"], good.as_str());
    assert_eq!(said.repository(REPO)["bad"]["commit"], bad.as_str());
}

#[test]
fn what_was_refused_is_told_with_the_command_to_run_afterwards() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    std::fs::write(site.checkout.join("README"), "changed here\n").unwrap();
    site.origin.push(&[("README", "changed there\n")]);
    site.sync().expect(5, "refused");
    let said = status(&site.host).ends(1, "degraded");
    let said = said.says("degraded", REPO, "has local changes to README", "hub deploy acme/infra");
    let said = said.says("degraded", "gitops-sync", "acme/infra refused", "hub doctor");
    assert!(!said.json["reasons"].to_string().contains("the output of hub up"), "{said:#?}");
}

#[test]
fn units_that_are_not_deployed_are_told() {
    let site = Site::new();
    let unit = "[Service]\nExecStart=/bin/true\n";
    site.origin.push(&[("systemd/acme.service", unit)]);
    // Where systemd runs the tests' host, this one has no way to it.
    let mut sync = site.host.command("gitops-sync");
    sync.args([REPO, "--json"]).env("PATH", without_systemctl(&site.host));
    support::gitops::ran(sync).expect(0, "deployed");
    let said = status(&site.host).says_nothing_of(REPO);
    assert!(said.text.contains("\n    its units are not deployed: "), "{}", said.text);
    assert!(said.repository(REPO)["checked"]["not_deployed"].is_string(), "{said:#?}");
}

/// A `PATH` with git and what it needs, and without systemctl.
fn without_systemctl(host: &Host) -> std::path::PathBuf {
    let folder = host.path("programs");
    std::fs::create_dir_all(&folder).unwrap();
    for folder_of in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in std::fs::read_dir(folder_of).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_name() != "systemctl" {
                // The first of a name wins, as in PATH.
                let _ = symlink(entry.path(), folder.join(entry.file_name()));
            }
        }
    }
    folder
}

#[test]
fn a_rollback_that_failed_is_failed() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    change(&site.state("checked").join(FILE), |checked| {
        checked["status"] = "rollback_failed".into();
        checked["reason"] = "the old file is gone".into();
    });
    status(&site.host).ends(2, "failed").says("failed", REPO, "rollback failed: the old file is gone", "hub doctor");
}

trait HeadAfterSync {
    fn head_after_sync(&self) -> String;
}

impl HeadAfterSync for Site {
    fn head_after_sync(&self) -> String {
        self.sync().expect(0, "deployed");
        self.head()
    }
}

#[test]
fn a_repository_that_cannot_be_fetched_is_told_once_with_its_reason() {
    let site = Site::new();
    std::fs::remove_dir_all(&site.origin.bare).unwrap();
    site.request(REPO);
    site.queued().expect(1, "failed");
    let said = status(&site.host).ends(2, "failed").says("degraded", REPO, "cannot fetch from", "hub doctor");
    let said = said.says("failed", "gitops-sync", "acme/infra failed", "").says_nothing_of("queue");
    assert_eq!(said.json["queue"]["retry"], json!([REPO]));
    assert!(said.text.contains("1 to retry"), "{}", said.text);
    assert_eq!(said.repository(REPO)["deployed"], Value::Null);
}

#[test]
fn an_old_request_and_one_that_was_refused_are_degraded() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    site.request(REPO);
    let said = status(&site.host).ends(1, "degraded").says_nothing_of("queue");
    assert_eq!(said.json["queue"]["requests"], 1);
    let request = site.queue().join(FILE);
    let hour = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&request).unwrap().set_modified(hour).unwrap();
    let said = status(&site.host).says("degraded", "queue", "a request waits for 60 min", "hub up");
    assert!(said.text.contains("1 waiting, the oldest for 60 min"), "{}", said.text);

    std::fs::write(&request, "no JSON").unwrap();
    site.run(&[]);
    let said = status(&site.host).says(
        "degraded",
        "queue",
        "1 refused and kept; the newest: acme__infra.json",
        "gitops/failed",
    );
    assert_eq!((&said.json["queue"]["requests"], &said.json["queue"]["failed"]), (&json!(0), &json!(1)));
}

#[test]
fn a_repository_that_nobody_looks_at_is_degraded() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    change(&site.state("checked").join(FILE), |checked| checked["at"] = ago(3 * 3600).into());
    status(&site.host).ends(1, "degraded").says("degraded", REPO, "not looked at for 3 h", "hub up");
}
