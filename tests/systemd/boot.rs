//! The harness itself: a machine boots clean, keeps what it should, and leaves nothing behind.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{Machine, describe};

#[test]
fn machine_runs_with_our_users_and_loopback_only() {
    let Some(machine) = Machine::boot() else { return };
    assert_eq!(machine.ok(&["systemctl", "is-system-running"]).trim(), "running");
    assert_eq!(machine.ok(&["id", "-nG", "hub-git"]).trim(), "hub-git");
    assert_eq!(machine.ok(&["id", "-nG", "hub-checkout"]).trim(), "hub-checkout");
    assert_eq!(machine.ok(&["id", "-nG", "hub"]).trim(), "hub");
    let folders = machine.ok(&["sh", "-c", "cd /var/lib/observability-hub && stat -c '%U:%G %a %n' * */*"]);
    for line in
        ["hub:hub 750 proxy/queue", "root:hub 751 gitops", "hub-git:hub-git 750 gitops/mirror", "hub:hub 750 data"]
    {
        assert!(folders.lines().any(|folder| folder == line), "{line} is missing:\n{folders}");
    }
    let links = machine.ok(&["ip", "-brief", "link"]);
    assert!(links.starts_with("lo ") && links.lines().count() == 1, "{links}");
    for program in ["git", "ssh", "gpg", "systemd-analyze"] {
        machine.ok(&["which", program]);
    }
}

#[test]
fn commands_report_their_status_and_are_killed_at_the_deadline() {
    let Some(machine) = Machine::boot() else { return };
    let output = machine.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (output.status.code(), &*output.stdout, &*output.stderr),
        (Some(7), &b"out\n"[..], &b"err\n"[..]),
        "{}",
        describe(&output)
    );
    let output = machine.run_for(&["sh", "-c", "sleep 7777 & sleep 7777"], None, Duration::from_millis(300));
    assert!(!output.status.success());
    assert_eq!(machine.run(&["pgrep", "-fx", "sleep 7777"]).status.code(), Some(1), "the command was left running");
}

#[test]
fn files_come_and_go() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/srv/deep/er/file", b"one\ntwo\n");
    assert_eq!(machine.read("/srv/deep/er/file"), "one\ntwo\n");
    assert!(machine.exists("/srv/deep/er/file") && !machine.exists("/srv/deep/er/other"));
    machine.copy_in(Path::new(env!("CARGO_BIN_EXE_hub")), "/opt/hub");
    let host = Command::new("sha256sum").arg(env!("CARGO_BIN_EXE_hub")).output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    for path in ["/opt/hub", "/usr/bin/hub"] {
        assert_eq!(machine.ok(&["sha256sum", path])[..64], host[..64]);
        machine.ok(&["test", "-x", path]);
    }
}

#[test]
fn machines_do_not_share_a_disk() {
    let (Some(one), Some(two)) = (Machine::boot(), Machine::boot()) else { return };
    one.write("/srv/mine", "1");
    one.ok(&["rm", "/etc/hostname"]);
    assert!(!two.exists("/srv/mine") && two.exists("/etc/hostname"));
    drop(two);
    let Some(three) = Machine::boot() else { return };
    assert!(!three.exists("/srv/mine") && three.exists("/etc/hostname"));
}

#[test]
fn a_reboot_keeps_the_disk_and_the_journal() {
    let Some(mut machine) = Machine::boot() else { return };
    machine.write("/etc/systemd/system/once.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/echo before\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "once.service"]);
    machine.write("/run/volatile", "x");
    let before = machine.boot_id();
    machine.reboot();
    assert_ne!(machine.boot_id(), before);
    assert!(machine.exists("/etc/systemd/system/once.service") && !machine.exists("/run/volatile"));
    assert!(machine.journal("once.service").iter().any(|entry| entry["MESSAGE"] == "before"));
}

#[test]
fn a_pulled_plug_keeps_what_was_fsynced_and_only_that() {
    let Some(mut machine) = Machine::boot() else { return };
    for round in 0..3 {
        let kept = format!("/srv/kept-{round}");
        machine.write(&kept, "durable");
        machine.ok(&["sync", &kept, "/srv"]);
        machine.write("/srv/lost", "only in the page cache");
        let before = machine.boot_id();
        machine.pull_plug();
        machine.boot_again();
        assert_ne!(machine.boot_id(), before);
        assert_eq!(machine.read(&kept), "durable");
        // The name may have reached the disk with another file's fsync, the content cannot have.
        let lost = machine.run(&["cat", "/srv/lost"]).stdout;
        assert!(lost.is_empty(), "the disk kept what nothing asked it to keep");
    }
}

/// Boots a machine for `nothing_outlives_a_killed_test` and waits to be killed.
#[test]
#[ignore = "a part of nothing_outlives_a_killed_test, which runs it"]
fn helper_that_is_killed() {
    let Some(machine) = Machine::boot() else { return };
    let (supervisor, leader) = machine.pids();
    writeln!(std::io::stdout(), "\nbooted {supervisor} {leader}").unwrap();
    // Ends when the parent is gone, should nobody kill this.
    let _ = std::io::stdin().lines().count();
}

#[test]
fn nothing_outlives_a_killed_test() {
    if Machine::boot().is_none() {
        return;
    }
    // Once the test process is killed, once the supervisor under it.
    for kill_supervisor in [false, true] {
        let mut helper = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "boot::helper_that_is_killed", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(helper.stdout.take().unwrap()).lines().map_while(Result::ok);
        let booted = lines.find_map(|line| line.strip_prefix("booted ").map(str::to_owned)).expect("the helper boots");
        let (supervisor, leader) = booted.split_once(' ').unwrap();
        let disk = format!("machine-{supervisor}.img");
        let left = || {
            let pids = [supervisor, leader].map(|pid| Path::new("/proc").join(pid)).into_iter();
            let mut left: Vec<_> = pids.filter(|path| is_alive(path)).collect();
            let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
            left.extend(devices.filter(|device| {
                fs::read_to_string(device.join("loop/backing_file")).is_ok_and(|file| file.contains(&disk))
            }));
            left
        };
        assert_eq!(left().len(), 3, "the supervisor, the machine and its loop device should be there");
        if kill_supervisor {
            assert!(Command::new("kill").args(["-KILL", supervisor]).status().unwrap().success());
        } else {
            helper.kill().unwrap();
        }
        let end = Instant::now() + Duration::from_secs(30);
        while !left().is_empty() {
            assert!(Instant::now() < end, "left behind: {:?}", left());
            std::thread::sleep(Duration::from_millis(10));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("/run/machine"), "{mounts}");
        let _ = helper.kill();
        helper.wait().unwrap();
    }
}

/// Whether a process of that /proc folder exists and is not merely waiting for its parent to take notice.
fn is_alive(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}
