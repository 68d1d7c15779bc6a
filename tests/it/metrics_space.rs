//! What system-metrics makes of file systems whose answer is odd, of those in memory, and of those that its user may not
//! enter. The answers of statfs(2) are put in its mouth by strace(1).

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::metrics::{command, print, run, text, tree_of};
use crate::support::{Host, skip::skip};
use serde_json::Value;

/// What statfs(2) answers, in the order of its struct on machines of 64 bits: blocks, free, available, inodes, free ones.
#[derive(Clone, Copy)]
struct Answer(u64, i64, i64, u64, i64);

impl Answer {
    /// The struct as strace wants its bytes, from the third member on: type and block size stay.
    fn bytes(self) -> String {
        let Self(blocks, free, available, inodes, inodes_free) = self;
        let words = [
            0xef53,
            4096,
            blocks,
            free.cast_unsigned(),
            available.cast_unsigned(),
            inodes,
            inodes_free.cast_unsigned(),
        ];
        let rest = [0, 255, 4096, 0];
        let words = words.into_iter().chain(rest);
        words.flat_map(u64::to_ne_bytes).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The sample where every file system answers so; none where strace(1) cannot do it.
fn answered(host: &Host, tree: &Path, answer: Answer) -> Option<Value> {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) || cfg!(not(target_pointer_width = "64")) {
        skip("answers of statfs", "strace is not installed, or may not trace; apt-get install strace");
        return None;
    }
    let command = command(host, tree);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=statfs", "-e"]);
    traced.arg(format!("inject=statfs:poke_exit=@arg2={}", answer.bytes()));
    traced.arg(command.get_program()).args(command.get_args()).arg("--print");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    let output = traced.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A mount that is asked by the run itself, and one of NFS that is asked by a child.
const MOUNTS: [&str; 2] = ["/", "/share"];

#[test]
fn an_over_full_file_system_is_full_and_not_empty() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    for available in [-1, -5, i64::MIN] {
        let Some(sample) = answered(&host, &tree, Answer(1000, 20, available, 100, -3)) else { return };
        for mount in MOUNTS {
            let row = &sample["metrics"]["disk"][mount];
            assert_eq!((&row["free"], &row["used_percent"]), (&0.into(), &100.0.into()), "{mount} {row}");
            assert_eq!((&row["total"], &row["used"]), (&4_096_000.into(), &(980 * 4096).into()), "{mount} {row}");
            assert_eq!((&row["inodes_free"], &row["inodes_used_percent"]), (&0.into(), &100.0.into()), "{mount} {row}");
        }
    }
    let sample = answered(&host, &tree, Answer(1000, -7, -7, 0, 0)).unwrap();
    assert_eq!(sample["metrics"]["disk"]["/"]["used_percent"], 100.0);
}

#[test]
fn more_free_than_there_is_gives_no_percentage_and_a_note() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    for (free, available) in [(1001, 900), (900, 5000), (i64::MAX, i64::MAX)] {
        let Some(sample) = answered(&host, &tree, Answer(1000, free, available, 100, 101)) else { return };
        for mount in MOUNTS {
            let row = sample["metrics"]["disk"][mount].as_object().unwrap();
            assert_eq!(row["total"], 4_096_000);
            for key in ["used", "used_percent", "inodes_used_percent"] {
                assert!(!row.contains_key(key), "{key} {row:?}");
            }
            let problems = sample["metrics"]["run"]["collectors"]["disk"]["problems"].to_string();
            assert!(
                problems.contains(&format!("{mount} (")) && problems.contains("more free space than it has"),
                "{problems}"
            );
        }
    }
}

/// A tree of one file system below a folder that only root may enter, and the user that the metrics belong to.
fn barred_tree(host: &Host) -> Option<std::path::PathBuf> {
    if !rustix::process::geteuid().is_root() {
        skip("a folder that the service's user may not enter", "this is not root");
        return None;
    }
    let tree = tree_of(host, "pi4");
    let closed = tree.join("root/closed");
    std::fs::create_dir_all(closed.join("deep/mount")).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let line = "90 15 8:99 / /closed/deep/mount rw - ext4 /dev/sdz rw\n";
    let mountinfo = tree.join("proc/1/mountinfo");
    std::fs::write(&mountinfo, std::fs::read_to_string(&mountinfo).unwrap() + line).unwrap();
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let data = host.path("state/data");
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(65534), Some(65534)).unwrap();
    Some(tree)
}

#[test]
fn a_folder_that_the_user_may_not_enter_is_told_once_a_boot_and_doctor_says_what_lets_it_in() {
    let host = Host::new();
    let Some(tree) = barred_tree(&host) else { return };
    let told = |lines: &str| lines.contains("/closed/deep/mount is not measured: this user may not enter /closed");
    let first = run(&mut command(&host, &tree), 0);
    assert!(told(&first), "{first}");
    let uptime = |seconds: &str| std::fs::write(tree.join("proc/uptime"), format!("{seconds} 1.00\n")).unwrap();
    for seconds in ["20000.00", "20060.00"] {
        uptime(seconds);
        let next = run(&mut command(&host, &tree), 0);
        assert!(!told(&next) && !next.contains("WARN"), "{next}");
    }
    let doctor = host.run("hub", &["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let is_it = |finding: &&Value| finding["finding"].as_str().unwrap().contains("/closed/deep/mount");
    let finding = report["findings"].as_array().unwrap().iter().find(is_it).expect("doctor says nothing of it");
    assert_eq!(finding["level"], "warning");
    assert!(finding["finding"].as_str().unwrap().contains("may not enter /closed"), "{finding}");
    let mend = finding["mend"].as_str().unwrap();
    assert!(mend.contains("AmbientCapabilities=CAP_DAC_READ_SEARCH") && mend.contains("system-metrics"), "{mend}");
    // Another boot is told again; a folder that was opened meanwhile is not.
    std::fs::write(tree.join("proc/sys/kernel/random/boot_id"), "another\n").unwrap();
    assert!(told(&run(&mut command(&host, &tree), 0)));
    std::fs::set_permissions(tree.join("root/closed"), PermissionsExt::from_mode(0o711)).unwrap();
    std::fs::write(tree.join("proc/sys/kernel/random/boot_id"), "a third\n").unwrap();
    let open = run(&mut command(&host, &tree), 0);
    assert!(!open.contains("/closed"), "{open}");
    let doctor = host.run("hub", &["doctor", "--json"]);
    assert!(!text(&doctor).contains("/closed"), "{}", text(&doctor));
}

#[test]
fn file_systems_in_memory_are_measured_where_data_is() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    let points = ["/tmp", "/dev/shm", "/srv/cache", "/var/tmp", "/run/user/1000", "/var/lib/docker/x", "/opt/ram"];
    let mountinfo = tree.join("proc/1/mountinfo");
    let mut mounts = std::fs::read_to_string(&mountinfo).unwrap();
    for (at, point) in points.iter().enumerate() {
        std::fs::create_dir_all(tree.join("root").join(point.trim_start_matches('/'))).unwrap();
        mounts += &format!("{} 30 0:{} / {point} rw,nosuid - tmpfs tmpfs rw,size=1024k\n", at + 200, at + 200);
    }
    std::fs::write(&mountinfo, mounts).unwrap();
    std::fs::create_dir_all(tree.join("root/run")).unwrap();
    let disk = print(&host, &tree)["metrics"]["disk"].take();
    let memory: Vec<&String> =
        disk.as_object().unwrap().iter().filter(|(_, row)| row["fstype"] == "tmpfs").map(|(point, _)| point).collect();
    assert_eq!(memory, ["/dev/shm", "/run", "/srv/cache", "/tmp", "/var/tmp"]);
    assert!(disk["/tmp"]["total"].as_u64() > Some(0) && disk["/tmp"]["used_percent"].is_number());
}
