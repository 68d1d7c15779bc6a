//! What system-metrics does when the host, the disk or the database is not well: it says what is wrong, the rest goes
//! on, and the exit code tells whether samples were lost.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::metrics::{command, nobody, print, run, spooled_rows, text, tree_of};
use crate::support::{Host, skip::skip};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

#[test]
fn a_database_that_accepts_and_never_answers_costs_neither_the_sample_nor_the_limit() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://hub@{}/hub", listener.local_addr().unwrap());
    let lines = run(command(&host, &tree).env("DATABASE_URL", url), 0);
    assert!(lines.contains("metrics_spooled"), "{lines}");
    assert!(spooled_rows(&host) > 10);
}

#[test]
fn a_procfs_that_is_not_there_is_told_in_one_sentence() {
    let host = Host::new();
    let empty = host.path("empty");
    std::fs::create_dir(&empty).unwrap();
    for (path, reason) in [
        (host.path("host/proc"), "No such file or directory"),
        (host.path("hub.toml"), "Not a directory"),
        (empty, "the folder is empty"),
    ] {
        host.configure("");
        for flags in [&["--print"][..], &[]] {
            let output = host.command("system-metrics").args(flags).arg("--procfs").arg(&path).output().unwrap();
            let said = text(&output);
            assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
            assert!(said.contains(&format!("no procfs at {}: {reason}", path.display())), "{said}");
        }
    }
}

#[test]
fn unreadable_and_missing_files_cost_their_own_row() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    std::fs::remove_dir_all(tree.join("sys")).unwrap();
    for file in ["proc/meminfo", "proc/loadavg", "proc/diskstats"] {
        // Even root cannot read a folder as a file.
        std::fs::remove_file(tree.join(file)).unwrap();
        std::fs::create_dir(tree.join(file)).unwrap();
    }
    let lines = run(&mut command(&host, &tree), 0);
    for file in ["proc/meminfo: Is a directory", "proc/loadavg: Is a directory", "proc/diskstats: Is a directory"] {
        assert!(lines.contains(file), "{file} is not in {lines}");
    }
    let metrics = print(&host, &tree)["metrics"].take();
    assert!(metrics.get("memory").is_none() && metrics.get("load").is_none());
    assert!(metrics["cpu"]["online"] == 2 && metrics["disk"]["/"]["total"].as_u64() > Some(0));
    assert_eq!(metrics["run"]["collectors"]["memory"]["ok"], false);
    // Without sysfs nothing is known to be physical: everything but loopback is shown.
    assert!(metrics["network"].get("ens3").is_some() && metrics["network"].get("lo").is_none());
}

#[test]
fn the_network_is_that_of_process_1() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    std::fs::create_dir_all(tree.join("proc/1/net")).unwrap();
    let line = "  ens3: 4242 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
    std::fs::write(tree.join("proc/1/net/dev"), line).unwrap();
    assert_eq!(print(&host, &tree)["metrics"]["network"]["ens3"]["rx_bytes"], 4242);
}

#[test]
fn a_pipe_in_a_file_s_place_stops_nothing() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    std::fs::remove_file(tree.join("proc/vmstat")).unwrap();
    assert!(Command::new("mkfifo").arg(tree.join("proc/vmstat")).status().unwrap().success());
    assert!(print(&host, &tree)["metrics"]["memory"].is_object());
}

#[test]
fn empty_hwmon_and_odd_mount_points_are_normal() {
    use std::os::unix::ffi::OsStrExt;
    let host = Host::new();
    let tree = tree_of(&host, "pi3");
    std::fs::create_dir_all(tree.join("sys/class/hwmon/hwmon0")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"root/caf\xe9 new\nline");
    std::fs::create_dir(tree.join(odd)).unwrap();
    let mut mounts = File::options().append(true).open(tree.join("proc/self/mountinfo")).unwrap();
    mounts.write_all(b"50 15 8:1 / /caf\xe9\\040new\\012line rw - ext4 /dev/sda1 rw\n").unwrap();
    let metrics = print(&host, &tree)["metrics"].take();
    assert!(metrics["disk"]["/caf\\xe9 new\nline"]["total"].as_u64() > Some(0), "{}", metrics["disk"]);
    assert!(metrics["disk"]["/"].is_object());
}

#[test]
fn a_state_folder_that_cannot_be_written_is_said_and_the_sample_lost() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    let data = host.path("state/data");
    std::fs::create_dir(&data).unwrap();
    if rustix::process::geteuid().is_root() {
        // Root becomes the owner of the folder, whoever that is.
        std::fs::set_permissions(data.ancestors().nth(2).unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
        chown(&data, Some(65534), Some(65534)).unwrap();
    }
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o500)).unwrap();
    let lines = run(&mut command(&host, &tree), 1);
    assert!(lines.contains("state_folder_unusable") && lines.contains("Permission denied"), "{lines}");
    assert!(lines.contains("samples_lost"), "{lines}");
}

#[test]
fn run_by_hand_as_root_it_leaves_files_that_their_owner_can_write() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if !rustix::process::geteuid().is_root() {
        return skip("metrics as root", "this is not root");
    }
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    let data = host.path("state/data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    chown(&data, Some(65534), Some(65534)).unwrap();
    run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    for name in ["metrics", "metrics/run.json", "metrics/baseline.json", "metrics/spool/000000000001.jsonl"] {
        assert_eq!(std::fs::metadata(data.join(name)).unwrap().uid(), 65534, "{name}");
    }
}

/// A mounted file system that is taken down at the end of a test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_no_half_row() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    let options = Some(c"size=192k");
    if mount("tmpfs", host.state(), "tmpfs", MountFlags::empty(), options).is_err() {
        return skip("a full disk", "mounting needs root");
    }
    let _mounted = Mounted(host.state());
    let database = nobody();
    run(command(&host, &tree).env("DATABASE_URL", &database), 0);
    let before = spooled_rows(&host);
    let record = || host.json("state/data/metrics/run.json");
    let begun = record()["started"].clone();
    let newest = || host.json("state/data/metrics/sample.json")["time"].clone();
    let measured = newest();
    let mut filler = File::create(host.path("state/filler")).unwrap();
    while filler.write_all(&[0; 1024]).is_ok() {}
    let mut lost = String::new();
    for _ in 0..3 {
        let output = command(&host, &tree).env("DATABASE_URL", &database).output().unwrap();
        if output.status.code() == Some(1) {
            lost = text(&output);
        }
    }
    assert!(lost.contains("spool_failed") && lost.contains("No space left") && lost.contains("samples_lost"), "{lost}");
    // Who tells of full disks reads how full they are.
    assert_ne!(newest(), measured);
    // And the record does not go on telling of the run that went well.
    assert!(record()["started"] != begun && record()["error"].is_string(), "{}", record());
    drop(filler);
    std::fs::remove_file(host.path("state/filler")).unwrap();
    run(command(&host, &tree).env("DATABASE_URL", &database), 0);
    let segment = std::fs::read_to_string(host.path("state/data/metrics/spool/000000000001.jsonl")).unwrap();
    assert!(segment.ends_with('\n') && segment.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(spooled_rows(&host) > before);
}

/// A FUSE file system that takes requests and never answers, but for the first (FUSE_INIT).
fn hang(target: &Path) -> Option<Mounted> {
    let mut device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    mount("hang", target, "fuse", MountFlags::empty(), Some(options.as_c_str())).ok()?;
    std::thread::spawn(move || {
        let mut request = vec![0; 1 << 17];
        while let Ok(length) = device.read(&mut request) {
            const INIT: u32 = 26;
            if length >= 40 && u32::from_ne_bytes(request[4..8].try_into().unwrap()) == INIT {
                // fuse_out_header and fuse_init_out (fuse.h): length, no error, the request's number, version 7.31.
                let mut answer = vec![0u8; 80];
                answer[0..4].copy_from_slice(&80u32.to_ne_bytes());
                answer[8..16].copy_from_slice(&request[8..16]);
                answer[16..20].copy_from_slice(&7u32.to_ne_bytes());
                answer[20..24].copy_from_slice(&31u32.to_ne_bytes());
                answer[36..40].copy_from_slice(&4096u32.to_ne_bytes());
                device.write_all(&answer).unwrap();
            }
        }
    });
    Some(Mounted(target.to_owned()))
}

#[test]
fn a_mount_that_never_answers_costs_itself_only_and_is_remembered() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    let target = tree.join("root/hang");
    std::fs::create_dir(&target).unwrap();
    let mut mounts = File::options().append(true).open(tree.join("proc/1/mountinfo")).unwrap();
    mounts.write_all(b"60 30 0:77 / /hang rw - fuse.sshfs host:/ rw\n").unwrap();
    let Some(mounted) = hang(&target) else { return skip("a hung mount", "a FUSE mount needs root and /dev/fuse") };
    let lines = run(&mut command(&host, &tree), 0);
    assert!(lines.contains("/hang (fuse.sshfs) does not answer") && lines.contains("metrics_stored"), "{lines}");
    let started = Instant::now();
    let sample = print(&host, &tree);
    assert!(started.elapsed() < Duration::from_secs(2), "it is not asked again: {:?}", started.elapsed());
    let metrics = &sample["metrics"];
    assert!(metrics["disk"]["/share"]["total"].is_u64() && metrics["disk"].get("/hang").is_none());
    assert!(metrics["run"]["stuck"]["/hang"].as_f64() > Some(0.0));
    let problems = metrics["run"]["collectors"]["disk"]["problems"].to_string();
    assert!(problems.contains("is not asked yet"), "{problems}");
    drop(mounted);
}

#[test]
fn usage_and_configuration_have_their_codes() {
    let host = Host::new();
    assert_eq!(host.run("system-metrics", &["--format", "xml"]).status.code(), Some(2));
    assert_eq!(host.run("system-metrics", &["--check"]).status.code(), Some(0));
    host.configure("[metrics]\nretention_days = \"x\"\n");
    let output = host.run("system-metrics", &["--print"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output).contains("hub.toml:2: metrics.retention_days"), "{}", text(&output));
}

#[test]
fn two_runs_do_not_mix() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    let lock = File::options().write(true).open(host.path("state/data/metrics/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let lines = run(command(&host, &tree).env("DATABASE_URL", nobody()), 75);
    assert!(lines.contains("another run"), "{lines}");
}

#[test]
fn a_damaged_baseline_costs_one_run_its_rates() {
    let host = Host::new();
    let tree = tree_of(&host, "pi4");
    run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    let baseline = host.path("state/data/metrics/baseline.json");
    std::fs::write(&baseline, "{\"moment\": ").unwrap();
    let lines = run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    assert!(lines.contains("baseline_unreadable"), "{lines}");
    let healed: Value = serde_json::from_slice(&std::fs::read(&baseline).unwrap()).unwrap();
    assert_eq!(healed["moment"]["clock"], 19100.5);
}

#[test]
fn the_newest_sample_is_left_for_readers_whatever_the_database_does() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    let left = || -> Value {
        serde_json::from_slice(&std::fs::read(host.path("state/data/metrics/sample.json")).unwrap()).unwrap()
    };
    run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    let first = left();
    assert!(first["metrics"]["memory"]["total"].as_u64().unwrap() > 0, "{first}");
    assert!(first["metrics"]["cpu"]["cpus"]["0"]["seconds"]["idle"].as_f64().is_some(), "{first}");
    assert!(!print(&host, &tree)["metrics"]["cpu"].to_string().contains("seconds"));
    // What is damaged is replaced by the next run.
    std::fs::write(host.path("state/data/metrics/sample.json"), "{torn").unwrap();
    run(command(&host, &tree).env("DATABASE_URL", nobody()), 0);
    assert!(left()["time"].as_str().unwrap() > first["time"].as_str().unwrap());
    let spool = std::fs::read_dir(host.path("state/data/metrics/spool")).unwrap();
    let spooled: String = spool.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok()).collect();
    assert!(spooled.contains("\"cpu\"") && !spooled.contains("\"seconds\""), "a row has no room for them");
}
