//! Hosts that measured wrong elsewhere, as small trees: what ZFS keeps, what hidepid hides, what OpenVZ lacks, disks under
//! other disks, arrays, and the units that use most; as JSON, for Prometheus, and in the views.

use std::path::Path;

use crate::support::Host;
use crate::support::metrics::{command, print, run, text, tree_of};
use crate::support::tree::write;
use serde_json::{Value, json};

fn prometheus(host: &Host, tree: &Path) -> String {
    let output = command(host, tree).args(["--print", "--format", "prometheus"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line} is not in {text}");
    }
}

/// One value of the database.
#[cfg(feature = "sqlite")]
fn one(host: &Host, sql: &str) -> rusqlite::types::Value {
    let database = rusqlite::Connection::open(host.path("state/data/hub.db")).unwrap();
    database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

const ARC: &str = "=== proc/spl/kstat/zfs/arcstats\n13 1 0x01 123 33456 5 900\nname                            type data\n\
    hits                            4    100\nc_min                           4    100000000\n\
    c_max                           4    2000000000\nsize                            4    1000000000\n\
    === proc/spl/kstat/zfs/tank/state\nDEGRADED\n=== proc/spl/kstat/zfs/rpool/state\nONLINE\n";

#[test]
fn what_zfs_gives_back_is_not_used() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    let before = print(&host, &tree)["metrics"]["memory"].take();
    write(ARC, &tree);
    let sample = print(&host, &tree)["metrics"].take();
    let memory = &sample["memory"];
    assert_eq!((&memory["zfs_arc"], &memory["zfs_arc_reclaimable"]), (&1_000_000_000.into(), &900_000_000.into()));
    assert_eq!(memory["used"].as_u64(), before["used"].as_u64().map(|used| used - 900_000_000));
    assert_eq!((&memory["available"], &memory["used_percent"]), (&before["available"], &15.78.into()));
    assert_eq!(sample["array"]["tank"], json!({"level": "zfs", "degraded": 1, "state": "degraded"}));
    has_lines(
        &prometheus(&host, &tree),
        &["hub_memory_zfs_arc_bytes 1000000000", "hub_memory_zfs_arc_reclaimable_bytes 900000000"],
    );
    // A cache at its least gives nothing back.
    write(&ARC.replace("size                            4    1000000000", "size 4 90000000"), &tree);
    assert_eq!(print(&host, &tree)["metrics"]["memory"]["zfs_arc_reclaimable"], 0);
    // A container sees its host's cache.
    for inside in ["=== root/run/systemd/container\nlxc\n", "=== root/.dockerenv\n\n"] {
        let host = Host::new();
        let tree = tree_of(&host, "vm");
        write(ARC, &tree);
        write(inside, &tree);
        let sample = print(&host, &tree)["metrics"].take();
        assert!(sample["memory"].get("zfs_arc").is_none() && sample.get("array").is_none(), "{inside}");
        assert_eq!(sample["memory"]["used"], before["used"]);
    }
}

#[test]
fn hidden_processes_are_not_counted() {
    let proc = |host: &Host, option: &str, first: bool| {
        let tree = tree_of(host, "pi3");
        write("=== proc/812/stat\n\n=== proc/4242/stat\n\n", &tree);
        if first {
            write("=== proc/1/stat\n\n", &tree);
        }
        let mountinfo = tree.join("proc/self/mountinfo");
        let mounts = std::fs::read_to_string(&mountinfo).unwrap();
        let line = format!("19 15 0:5 / /proc rw,nosuid shared:9 - proc proc rw,gid=4{option}\n");
        std::fs::write(&mountinfo, mounts + &line).unwrap();
        print(host, &tree)["metrics"]["kernel"]["processes"].take()
    };
    for (option, first, count) in [
        ("", true, json!(3)),
        (",hidepid=1", true, json!(3)),
        ("", false, Value::Null),
        (",hidepid=2", true, Value::Null),
        (",hidepid=invisible", true, Value::Null),
        (",hidepid=ptraceable", false, Value::Null),
    ] {
        assert_eq!(proc(&Host::new(), option, first), count, "{option} {first}");
    }
}

#[test]
fn what_a_container_of_openvz_lacks_makes_no_noise() {
    let host = Host::new();
    let tree = tree_of(&host, "lxc");
    for file in ["proc/diskstats", "proc/vmstat"] {
        let _ = std::fs::remove_file(tree.join(file));
    }
    let mountinfo = tree.join("proc/1/mountinfo");
    std::fs::write(&mountinfo, "600 1 182:1 / / rw,relatime - ext4 /dev/ploop1p1 rw\n").unwrap();
    std::fs::create_dir_all(tree.join("proc/vz")).unwrap();
    let lines = run(&mut command(&host, &tree), 0);
    assert!(!lines.contains("WARN"), "{lines}");
    let sample = print(&host, &tree)["metrics"].take();
    assert!(sample.get("disk_io").is_none() && sample["disk"]["/"].is_object());
    assert_eq!(sample["time"]["virtualization"], "openvz");
}

const DISKS: &str = "=== proc/diskstats\n   8 0 sda 10 0 80 5 10 0 80 5 4294967295 9 10\n\
    253 0 dm-0 10 0 80 5 10 0 80 5 0 9 10\n   9 127 md127 10 0 80 5 10 0 80 5 0 9 10\n\
    230 16 zd16 10 0 80 5 10 0 80 5 0 9 10\n 259 0 nvme0c0n1 10 0 80 5 10 0 80 5 0 9 10\n\
    259 1 nvme0n1 10 0 80 5 10 0 80 5 0 9 10\n 179 8 mmcblk0boot0 0 0 0 0 0 0 0 0 0 0 0\n\
    179 16 mmcblk0boot1 1 0 8 0 0 0 0 0 0 0 0\n  11 0 sr0 5 0 80 5 0 0 0 0 0 9 10\n\
    === sys/block/sda/size\n100\n=== sys/block/dm-0/dm/name\nvg0-root\n=== sys/block/md127/md/array_state\nclean\n\
    === sys/block/md127/md/mismatch_cnt\n128\n=== sys/block/md127/md/degraded\n1\n=== sys/block/md127/dev\n9:127\n\
    === sys/block/zd16/size\n100\n=== sys/block/nvme0c0n1/hidden\n1\n=== sys/block/nvme0n1/hidden\n0\n\
    === sys/block/mmcblk0boot0/size\n8192\n=== sys/block/mmcblk0boot1/size\n8192\n=== sys/block/sr0/size\n2097151\n\
    === root/run/udev/data/b9:127\nS:md/host:data\nE:MD_LEVEL=raid1\nE:MD_DEVNAME=data\n\
    === root/run/udev/data/b230:16\nS:zvol/rpool/vm-100-disk-0\n\
    === proc/mdstat\nPersonalities : [raid1]\nmd127 : active raid1 sdb1[1] sda1[0](F)\n      \
    1953381376 blocks super 1.2 [2/1] [_U]\n      [=>...]  recovery =  8.5% (1/2) finish=17.0min speed=1K/sec\n\n\
    unused devices: <none>\n";

const BTRFS: &str = "=== sys/fs/btrfs/features/raid56\n0\n\
    === sys/fs/btrfs/0b2f-1/label\npool\n=== sys/fs/btrfs/0b2f-1/devinfo/1/missing\n0\n\
    === sys/fs/btrfs/0b2f-1/devinfo/1/error_stats\nwrite_errs 0\nread_errs 0\nflush_errs 0\ncorruption_errs 0\ngeneration_errs 0\n\
    === sys/fs/btrfs/0b2f-1/devinfo/2/missing\n1\n\
    === sys/fs/btrfs/0b2f-1/devinfo/2/error_stats\nwrite_errs 7\nread_errs 2\nflush_errs 0\ncorruption_errs 3\ngeneration_errs 0\n\
    === sys/fs/btrfs/77aa-2/label\n\n=== sys/fs/btrfs/77aa-2/devinfo/1/missing\n0\n";

#[test]
fn disks_under_other_disks_and_their_errors_have_kinds_and_names() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    write(DISKS, &tree);
    write(BTRFS, &tree);
    let sample = print(&host, &tree)["metrics"].take();
    let disks = sample["disk_io"].as_object().unwrap();
    let told: Vec<String> = disks.iter().map(|(name, row)| format!("{name} {} {}", row["kind"], row["name"])).collect();
    let expected = [
        r#"dm-0 "mapped" "vg0-root""#,
        r#"md127 "raid" "data""#,
        r#"mmcblk0boot1 "partition" null"#,
        r#"nvme0n1 "disk" null"#,
        r#"sda "disk" null"#,
        r#"zd16 "volume" "rpool/vm-100-disk-0""#,
    ];
    assert_eq!(told, expected);
    assert!(!disks["sda"].as_object().unwrap().contains_key("in_flight"), "2^32-1 requests are none that are known");
    let array = json!({"md127": {
        "state": "clean", "level": "raid1", "failed": 1, "spare": 0, "disks": 2, "active": 1, "degraded": 1,
        "sync": "recovery", "sync_percent": 8.5, "mismatches": 128, "name": "data",
    }});
    assert_eq!(sample["array"], array);
    let btrfs = json!({
        "pool": {
            "devices": 2, "missing": 1, "write_errors": 7, "read_errors": 2, "flush_errors": 0, "corruption_errors": 3,
            "generation_errors": 0, "each": {"2": {"write_errors": 7, "read_errors": 2, "corruption_errors": 3}},
        },
        "77aa-2": {"devices": 1, "missing": 0},
    });
    assert_eq!(sample["btrfs"], btrfs);
    has_lines(
        &prometheus(&host, &tree),
        &[
            r#"hub_disk_info{device="dm-0",kind="mapped",name="vg0-root"} 1"#,
            r#"hub_array_info{device="md127",level="raid1",state="clean",name="data"} 1"#,
            r#"hub_array_degraded{device="md127"} 1"#,
            r#"hub_array_sync_info{device="md127",sync="recovery"} 1"#,
            r#"hub_array_sync_ratio{device="md127"} 0.085"#,
            r#"hub_btrfs_write_errors_total{filesystem="pool"} 7"#,
            r#"hub_network_info{device="ens3",kind="physical"} 1"#,
        ],
    );
    #[cfg(feature = "sqlite")]
    {
        use rusqlite::types::Value::{Real, Text};
        run(&mut command(&host, &tree), 0);
        assert_eq!(one(&host, "SELECT name FROM metrics_disk_io WHERE device = 'dm-0'"), Text("vg0-root".into()));
        assert_eq!(one(&host, "SELECT degraded FROM metrics_array WHERE device = 'md127'"), Real(1.0));
        assert_eq!(one(&host, "SELECT write_errors FROM metrics_btrfs WHERE filesystem = 'pool'"), Real(7.0));
        // Rows of the kinds that were there before are as they were.
        assert_eq!(one(&host, "SELECT load1 FROM metrics_load"), Real(0.42));
    }
}

/// The control group of a unit.
fn group(path: &str, cpu: u64, memory: u64, io: &str, tasks: u64) -> String {
    format!(
        "=== sys/fs/cgroup/{path}/cpu.stat\nusage_usec {cpu}\nuser_usec 1\n=== sys/fs/cgroup/{path}/memory.current\n{memory}\n\
         === sys/fs/cgroup/{path}/io.stat\n{io}\n=== sys/fs/cgroup/{path}/pids.current\n{tasks}\n"
    )
}

#[test]
fn the_busiest_units_and_those_that_the_hub_deployed_are_told() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    assert!(print(&host, &tree)["metrics"].get("unit").is_none(), "no control groups of version 2");
    let disk = "8:0 rbytes=1000000 wbytes=0 rios=9 wios=9";
    let groups = [
        group("system.slice/db.service", 1_000_000, 900_000_000, disk, 12),
        group("system.slice/quiet.service", 5_000_000, 1_000_000, "", 1),
        group("system.slice/small.service", 5_000_000, 2_000_000, "", 1),
        group("system.slice/system-app.slice/app@blue.service", 7, 3_000_000, "", 2),
        group("user.slice/user-0.slice/user@0.service", 1_000_000, 1_000_000, "", 3),
        group("system.slice/back.service", 9_000_000, 1_000_000, "", 3),
    ];
    write("=== sys/fs/cgroup/cgroup.controllers\ncpu io memory pids\n", &tree);
    groups.iter().for_each(|group| write(group, &tree));
    std::fs::create_dir_all(host.path("state/gitops")).unwrap();
    let manifest =
        json!({"files": {"app@.service": {"repository": "a/b"}, "app@.service.d/x.conf": {}, "gone.service": {}}});
    std::fs::write(host.path("state/gitops/manifest.json"), manifest.to_string()).unwrap();
    let first = print(&host, &tree)["metrics"]["unit"].take();
    assert_eq!(
        first,
        json!({"db.service": {"memory": 900_000_000, "tasks": 12}, "app@blue.service": {"memory": 3_000_000, "tasks": 2}})
    );
    run(&mut command(&host, &tree), 0);
    // A minute later: one used half a CPU, one 0.9 %, one started anew, one came.
    write("=== proc/uptime\n45660.21 1.00\n", &tree);
    write(
        &group("system.slice/db.service", 31_000_000, 900_000_000, "8:0 rbytes=61000000 wbytes=120000000", 12),
        &tree,
    );
    write(&group("system.slice/quiet.service", 5_540_000, 63_000_000, "8:0 rbytes=1000 wbytes=0", 1), &tree);
    write(&group("system.slice/back.service", 8_000_000, 1_000_000, "", 3), &tree);
    write(&group("system.slice/new.service", 60_000_000, 1_000_000, "", 3), &tree);
    write(&group("user.slice/user-0.slice/user@0.service", 2_200_000, 1_000_000, "", 3), &tree);
    let units = print(&host, &tree)["metrics"]["unit"].take();
    let expected = json!({
        "db.service": {"cpu_percent": 50.0, "memory": 900_000_000, "read_bytes_per_second": 1_000_000.0,
                       "written_bytes_per_second": 2_000_000.0, "tasks": 12},
        "app@blue.service": {"cpu_percent": 0.0, "memory": 3_000_000, "read_bytes_per_second": 0.0,
                             "written_bytes_per_second": 0.0, "tasks": 2},
        "user@0.service": {"cpu_percent": 2.0, "memory": 1_000_000, "read_bytes_per_second": 0.0,
                           "written_bytes_per_second": 0.0, "tasks": 3},
    });
    assert_eq!(units, expected);
    assert!(units.to_string().len() < 1000, "{}", units.to_string().len());
    has_lines(
        &prometheus(&host, &tree),
        &[r#"hub_unit_cpu_ratio{unit="db.service"} 0.5"#, r#"hub_unit_memory_bytes{unit="app@blue.service"} 3000000"#],
    );
    #[cfg(feature = "sqlite")]
    {
        use rusqlite::types::Value::Real;
        run(&mut command(&host, &tree), 0);
        let newest = "SELECT cpu_percent FROM metrics_unit WHERE unit = 'db.service' ORDER BY time_ms DESC";
        assert_eq!(one(&host, newest), Real(50.0));
    }
    // A manifest that is none is said once, and costs no unit that is busy.
    std::fs::write(host.path("state/gitops/manifest.json"), "{").unwrap();
    let lines = run(&mut command(&host, &tree), 0);
    assert!(lines.contains("the units that the hub deployed are not known"), "{lines}");
    assert!(!run(&mut command(&host, &tree), 0).contains("are not known"));
}

#[test]
fn a_unit_s_counter_that_jumps_gives_no_rate_and_the_hub_s_own_are_found_among_many() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    write("=== sys/fs/cgroup/cgroup.controllers\ncpu io memory pids\n", &tree);
    let set = |name: &str, cpu: u64| {
        let disk = "8:0 rbytes=0 wbytes=0";
        write(&group(&format!("system.slice/{name}"), cpu, 1_000_000, disk, 1), &tree);
    };
    for number in 0..700 {
        set(&format!("docker-{number:03}.scope"), 0);
    }
    for name in ["jumps.service", "busy.service", "gone.service", "zz-ours.service"] {
        set(name, 5_000_000);
    }
    std::fs::create_dir_all(host.path("state/gitops")).unwrap();
    let units = ["jumps", "busy", "gone", "zz-ours"].map(|name| (format!("{name}.service"), json!({})));
    let manifest = json!({"files": units.into_iter().collect::<serde_json::Map<_, _>>()});
    std::fs::write(host.path("state/gitops/manifest.json"), manifest.to_string()).unwrap();
    // A file that cannot be read for once is no counter of 0, from which the next one would be all there ever was.
    let usage = tree.join("sys/fs/cgroup/system.slice/gone.service/cpu.stat");
    std::fs::remove_file(&usage).unwrap();
    run(&mut command(&host, &tree), 0);
    write("=== proc/uptime\n45660.21 1.00\n", &tree);
    set("jumps.service", 1 << 50);
    set("busy.service", 35_000_000);
    set("gone.service", 65_000_000);
    let units = print(&host, &tree)["metrics"]["unit"].take();
    let percent = |name: &str| units[format!("{name}.service")].get("cpu_percent").cloned();
    assert_eq!(percent("busy"), Some(json!(50.0)), "{units}");
    assert_eq!((percent("jumps"), percent("gone")), (None, None), "{units}");
    assert_eq!(percent("zz-ours"), Some(json!(0.0)), "{units}");
}

#[test]
fn a_mount_that_another_lies_over_is_left_out() {
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    std::fs::create_dir_all(tree.join("root/backup/inner")).unwrap();
    let mountinfo = tree.join("proc/1/mountinfo");
    let mounts = std::fs::read_to_string(&mountinfo).unwrap();
    let covered = "70 30 8:17 / /backup/inner rw - xfs /dev/sdb1 rw\n71 30 8:33 / /backup rw - ext4 /dev/sdc1 rw\n";
    std::fs::write(&mountinfo, mounts.clone() + covered).unwrap();
    let disk = print(&host, &tree)["metrics"]["disk"].take();
    assert!(disk["/backup"].is_object() && disk.get("/backup/inner").is_none(), "{disk}");
    let seen = "71 30 8:33 / /backup rw - ext4 /dev/sdc1 rw\n72 71 8:17 / /backup/inner rw - xfs /dev/sdb1 rw\n";
    std::fs::write(&mountinfo, mounts + seen).unwrap();
    let disk = print(&host, &tree)["metrics"]["disk"].take();
    assert_eq!(disk["/backup/inner"]["device"], "/dev/sdb1");
}

#[test]
fn a_counter_of_a_cpu_that_jumps_costs_that_cpu_its_rate() {
    for jump in ["99999999999", "18446744073709551615"] {
        let host = Host::new();
        let tree = tree_of(&host, "vm");
        run(&mut command(&host, &tree), 0);
        write("=== proc/uptime\n45660.21 1.00\n", &tree);
        let stat = std::fs::read_to_string(tree.join("proc/stat")).unwrap();
        let stat = stat.replace("cpu0 26000 150 10220 4552720", &format!("cpu0 {jump} 150 10220 4558720"));
        let stat = stat.replace("cpu1 26210 160 10221 4552721", "cpu1 27410 160 10221 4557521");
        std::fs::write(tree.join("proc/stat"), stat).unwrap();
        let cpu = print(&host, &tree)["metrics"]["cpu"].take();
        assert_eq!((&cpu["usage"], &cpu["cpus"]["1"]["usage"]), (&20.0.into(), &20.0.into()), "{cpu}");
        assert!(cpu["cpus"].get("0").is_none(), "{cpu}");
    }
}

#[test]
fn a_guest_whose_processor_is_emulated_has_no_temperature() {
    let chip = "=== sys/class/hwmon/hwmon0/name\ncoretemp\n=== sys/class/hwmon/hwmon0/temp1_label\nPackage id 0\n\
        === sys/class/hwmon/hwmon0/temp1_input\n100000\n=== sys/class/hwmon/hwmon0/temp2_label\nCore 0\n\
        === sys/class/hwmon/hwmon0/temp2_input\n100000\n";
    let host = Host::new();
    // Of beszel#1264.
    let guest = tree_of(&host, "vm");
    write(chip, &guest);
    let sample = print(&host, &guest)["metrics"].take();
    assert!(sample["cpu"]["package_temp"].is_null() && sample.get("temperature").is_none(), "{sample}");
    // One that is passed through is read, and so is a hot processor of a host.
    write("=== sys/class/hwmon/hwmon0/temp2_input\n61000\n", &guest);
    assert_eq!(print(&host, &guest)["metrics"]["cpu"]["core_temps"]["core_0"], 61.0);
    write(chip, &guest);
    write("=== proc/cpuinfo\nflags\t: fpu vme lm\n", &guest);
    assert_eq!(print(&host, &guest)["metrics"]["cpu"]["package_temp"], 100.0);
}

#[test]
fn idle_time_that_goes_back_after_a_suspend_gives_no_rate() {
    // Of psutil#2172.
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    write("=== proc/stat\ncpu0 1466797 6445 708626 6221847 7998 0 8095 0 0 0\nbtime 1795445894\n", &tree);
    run(&mut command(&host, &tree), 0);
    write("=== proc/uptime\n45667.21 1.00\n", &tree);
    write("=== proc/stat\ncpu0 1466867 6445 708691 5873386 7624 0 8095 0 0 0\nbtime 1795445894\n", &tree);
    assert!(print(&host, &tree)["metrics"]["cpu"]["usage"].is_null());
}

#[test]
fn what_a_unit_wrote_is_counted_on_the_layer_that_counts_it() {
    // Of systemd#33482.
    let host = Host::new();
    let tree = tree_of(&host, "vm");
    write("=== sys/fs/cgroup/cgroup.controllers\ncpu io\n=== sys/dev/block/254:0/slaves/sda2/x\n\n", &tree);
    let io = |dm: u64| {
        format!("8:0 rbytes=16728064 wbytes=0 rios=350 wios=2\n254:0 rbytes=16728064 wbytes={dm} rios=350 wios=816")
    };
    write(&group("system.slice/journal.service", 5, 70_000_000, &io(7_294_976), 1), &tree);
    run(&mut command(&host, &tree), 0);
    write("=== proc/uptime\n45660.21 1.00\n", &tree);
    write(&group("system.slice/journal.service", 5, 70_000_000, &io(7_294_976 + 60_000_000), 1), &tree);
    let unit = print(&host, &tree)["metrics"]["unit"]["journal.service"].take();
    assert_eq!((&unit["written_bytes_per_second"], &unit["read_bytes_per_second"]), (&1e6.into(), &0.0.into()));
}
