//! A state disk that fills up while a commit is deployed: it is taken back first, and told as far as there is room.

use crate::support;
use std::path::Path;
use std::process::Command;

use crate::support::gitops::{FILE, Site, sh};
use crate::support::skipped_without_root;
use crate::support::status::status;

/// A site whose state is on a small file system of its own; the mount goes with it.
struct Small {
    site: Site,
}

impl Small {
    fn new(options: &str, repository: &str) -> Option<Self> {
        if skipped_without_root() {
            return None;
        }
        let site = Site::with("", repository);
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(site.host.state()).status();
        assert!(mount.unwrap().success());
        Some(Self { site })
    }

    fn fill(&self) {
        // Ends when nothing is left.
        let full = self.site.host.state().join("full");
        Command::new("dd")
            .arg("if=/dev/zero")
            .arg(format!("of={}", full.display()))
            .args(["bs=4k", "status=none"])
            .status()
            .unwrap();
    }

    fn free(&self) {
        for name in ["full", "inodes"] {
            let _ = Command::new("rm").arg("-rf").arg(self.site.host.state().join(name)).status().unwrap();
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.site.host.state()).status();
    }
}

const FILL: &str = "dd if=/dev/zero of=../state/full bs=4k status=none || true";
const TAKE_INODES: &str =
    "mkdir ../state/inodes; i=0; while : > ../state/inodes/$i; do i=$((i+1)); done 2>/dev/null; true";

#[test]
fn a_commit_that_fills_the_disk_and_fails_is_taken_back_and_told() {
    for (options, fill) in [("size=8M", FILL), ("size=64M,nr_inodes=800", TAKE_INODES)] {
        for step in ["build", "after"] {
            let script = format!("if grep -q bad README; then {fill}; exit 1; fi; cp README ../made");
            let Some(small) = Small::new(options, &sh(step, &script)) else { return };
            let site = &small.site;
            site.sync().expect(0, "deployed");
            let good = site.head();
            let bad = site.origin.push(&[("README", "bad\n")]);
            site.sync().expect(3, "rolled_back").says("failed");
            site.assert_exactly(&good);
            assert_eq!(std::fs::read_to_string(site.host.path("made")).unwrap(), "one\n");
            assert_eq!(site.host.json("state/gitops/run.json")["status"], "rolled_back", "{options} {step}");
            assert_eq!(site.host.json(&format!("state/gitops/bad/{FILE}"))["commit"], bad.as_str());
            status(&site.host).says("degraded", support::gitops::REPO, "failed", "push to");
            // With nothing to go back on, nothing is begun.
            small.fill();
            let next = site.origin.push(&[("README", "two\n")]);
            let run = site.sync();
            assert_ne!(run.code, Some(0), "{run:#?}");
            site.assert_exactly(&good);
            small.free();
            site.sync().expect(0, "deployed");
            site.assert_exactly(&next);
        }
    }
}

#[test]
fn a_way_back_has_inodes_where_checkout_and_state_share_a_file_system() {
    for step in ["build", "after"] {
        let script = format!("if grep -q bad README; then {TAKE_INODES}; exit 1; fi");
        let Some(small) = Small::new("size=64M,nr_inodes=1200", &sh(step, &script)) else { return };
        let (site, shared) = (&small.site, small.site.host.state().join("checkout"));
        std::fs::create_dir(&shared).and_then(|()| std::fs::create_dir_all(&site.checkout)).unwrap();
        let mounted = Command::new("mount").arg("--bind").args([&shared, &site.checkout]).status();
        assert!(mounted.unwrap().success());
        let _mounted = Mounted(&site.checkout);
        site.sync().expect(0, "deployed");
        let good = site.head();
        // Files that change, that come, and that go.
        site.origin.push(&[("README", "bad\n"), ("new/a", "1"), ("new/b", "2")]);
        site.sync().expect(3, "rolled_back");
        site.assert_exactly(&good);
        small.free();
    }
}

/// A mount that goes when this is dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_deployment_that_was_cut_off_is_taken_back_on_a_full_disk() {
    let Some(small) = Small::new(
        "size=8M",
        &sh("build", "if grep -q bad README; then [ ! -e ../building ] || exit 1; touch ../building; sleep 300; fi"),
    ) else {
        return;
    };
    let site = &small.site;
    site.sync().expect(0, "deployed");
    let good = site.head();
    site.origin.push(&[("README", "bad\n")]);
    let mut child = site
        .host
        .command("gitops-sync")
        .arg(support::gitops::REPO)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    support::eventually("it builds", || site.host.path("building").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    small.fill();
    status(&site.host).says("failed", support::gitops::REPO, "was cut off", "hub deploy");
    let run = site.sync();
    assert_eq!(site.head(), good, "{run:#?}");
    assert!(!site.state("journal").join(FILE).exists(), "{run:#?}");
}

#[test]
fn a_record_that_cannot_be_replaced_tells_of_the_failure() {
    // A folder that takes no new file, and a disk whose last room somebody else takes.
    let steal = format!("{FILL}; rm -f ../state/gitops/reserve; dd if=/dev/zero of=../state/full2 bs=4k status=none");
    for (script, overwrites) in [("chattr +i ../state/gitops", true), (steal.as_str(), false)] {
        let Some(small) = Small::new("size=8M", "") else { return };
        let site = &small.site;
        site.sync().expect(0, "deployed");
        site.origin.push(&[("README", "bad\n")]);
        site.configure("", &sh("after", &format!("{script}; false")));
        let run = site.sync();
        let gitops = site.state("");
        Command::new("chattr").arg("-i").arg(&gitops).status().unwrap();
        assert_eq!(run.code, Some(3), "{run:#?}");
        assert_eq!(run.log.contains("run_record_overwritten"), overwrites, "{}", run.log);
        let record = site.host.json("state/gitops/run.json");
        assert_eq!(record["status"], "rolled_back", "{record:#}");
        let said = status(&site.host);
        assert_eq!(said.service("gitops-sync")["last_run"]["status"], "rolled_back", "{said:#?}");
        assert_ne!(said.json["status"], "healthy");
    }
}
