use serde_json::{Value, json};

use super::*;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

/// A sample where all is well, with some values changed by their paths.
fn sample(minute: i64, changes: &[(&str, Value)]) -> Sample {
    let mut metrics = json!({
        "memory": {"available": 4e9, "total": 8e9},
        "disk": {"/": {"used_percent": 40.0, "inodes_used_percent": 5.0, "free": 5e10, "read_only": false}},
        "swap": {"in_pages_per_second": 0.0, "out_pages_per_second": 0.0},
        "pressure": {"memory": {"full": {"avg60": 0.0}}},
        "temperature": {"coretemp": {"Core 0": 50.0}}, "temperature_critical": {"coretemp": {"Core 0": 100.0}},
        "power": {"under_voltage": false, "wear": {"mmcblk0": {"life_used_percent": 20}}},
        "kernel": {"oom_kills": 3}, "time": {"boot_id": "a", "clock_synchronized": true},
        "array": {"md0": {"degraded": 0, "state": "clean"}}, "btrfs": {"data": {"missing": 0}},
    });
    for (path, value) in changes {
        let pointer = format!("/{}", path.replace("//", "/~1"));
        match metrics.pointer_mut(&pointer) {
            Some(place) if !value.is_null() => *place = value.clone(),
            found => assert!(found.is_some(), "{path}"),
        }
        if value.is_null() {
            let (above, key) = pointer.rsplit_once('/').unwrap();
            metrics.pointer_mut(above).unwrap().as_object_mut().unwrap().remove(&key.replace("~1", "/"));
        }
    }
    let metrics = metrics.as_object().unwrap().clone();
    Sample { time: at(minute).to_string(), metrics, ..Sample::default() }
}

/// What is over after a sample of each of these minutes.
fn over(limits: &mut Thresholds, minutes: std::ops::Range<i64>, changes: &[(&str, Value)]) -> Vec<String> {
    let mut over = Vec::new();
    for minute in minutes {
        over = limits.look(&config::Limits::default(), Some(&sample(minute, changes)), at(minute));
    }
    over.iter().map(|one| format!("{} {}", one.key, if one.is_failed { "failed" } else { "degraded" })).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn each_limit_is_told_after_its_time_and_cleared() {
    for (path, value, minutes, told) in [
        ("disk///used_percent", json!(90.0), 0, "disk///full degraded"),
        ("disk///used_percent", json!(97.4), 0, "disk///full failed"),
        ("disk///inodes_used_percent", json!(92), 0, "disk///inodes degraded"),
        ("memory/available", json!(3e8), 10, "memory/low degraded"),
        ("pressure/memory/full/avg60", json!(21.5), 5, "memory/pressure degraded"),
        ("temperature/coretemp/Core 0", json!(86.0), 5, "temperature/coretemp/Core 0 degraded"),
        ("temperature/coretemp/Core 0", json!(101.0), 5, "temperature/coretemp/Core 0 failed"),
        ("power/under_voltage", json!(true), 0, "power/under-voltage degraded"),
        ("power/wear/mmcblk0/life_used_percent", json!(100), 0, "disk/mmcblk0/worn degraded"),
        ("kernel/oom_kills", json!(4), 0, "memory/oom-kill degraded"),
        ("time/clock_synchronized", json!(false), 60, "clock/not-synchronised degraded"),
        ("array/md0/degraded", json!(1), 0, "array/md0/degraded degraded"),
        ("btrfs/data/missing", json!(2), 0, "btrfs/data/degraded degraded"),
    ] {
        let mut limits = Thresholds::default();
        let changes = [(path, value)];
        assert_eq!(over(&mut limits, 0..3, &[]), NOTHING, "{path}");
        if minutes > 0 {
            assert_eq!(over(&mut limits, 3..3 + minutes, &changes), NOTHING, "{path}");
        }
        assert_eq!(over(&mut limits, 3 + minutes..4 + minutes, &changes), [told]);
        assert_eq!(over(&mut limits, 4 + minutes..7 + minutes, &changes), [told]);
        // Whatever is well again is so for some minutes, or as long as it took to be told; a kill is told for an hour.
        assert_eq!(over(&mut limits, 7 + minutes..10 + minutes, &[]), [told]);
        let back = if told.contains("oom") { 80 } else { 10 + minutes };
        assert_eq!(over(&mut limits, 10 + minutes..10 + minutes + back, &[]), NOTHING, "{path}");
    }
    let swapping = [("swap/in_pages_per_second", json!(900.0)), ("swap/out_pages_per_second", json!(700.0))];
    assert_eq!(over(&mut Thresholds::default(), 0..9, &swapping), ["memory/swapping degraded"]);
    assert_eq!(over(&mut Thresholds::default(), 0..9, &swapping[..1]), NOTHING, "what only comes back is no thrashing");
}

#[test]
fn a_value_on_the_edge_is_told_once() {
    let mut limits = Thresholds::default();
    let mut told = Vec::new();
    for minute in 0..300 {
        let percent = [89.9, 90.0, 88.4, 91.0, 87.0][minute as usize % 5];
        told.push(over(&mut limits, minute..minute + 1, &[("disk///used_percent", json!(percent))]).len());
    }
    assert_eq!(told[0], 0);
    assert!(told[1..].iter().all(|count| *count == 1), "{told:?}");
    // Around both limits it is as bad as it was told, until it is well.
    let mut limits = Thresholds::default();
    for minute in 0..20 {
        let percent = [97.1, 91.0][minute as usize % 2];
        let told = over(&mut limits, minute..minute + 1, &[("disk///used_percent", json!(percent))]);
        assert_eq!(told, ["disk///full failed"]);
    }
}

#[test]
fn short_peaks_gaps_and_clocks_that_jump_are_no_long_time() {
    let low = [("memory/available", json!(1e8))];
    let mut limits = Thresholds::default();
    for begin in (0..90).step_by(10) {
        assert_eq!(over(&mut limits, begin..begin + 9, &low), NOTHING);
        assert_eq!(over(&mut limits, begin + 9..begin + 10, &[]), NOTHING);
    }
    let mut limits = Thresholds::default();
    over(&mut limits, 0..8, &low);
    assert_eq!(over(&mut limits, 500..501, &low), NOTHING, "nobody measured in between");
    assert_eq!(over(&mut limits, -600..-599, &low), NOTHING, "the clock was set back");
    assert_eq!(over(&mut limits, -599..-588, &low), ["memory/low degraded"]);
}

#[test]
fn what_is_not_known_is_neither_well_nor_wrong() {
    let full = [("disk///used_percent", json!(95.0))];
    let mut limits = Thresholds::default();
    over(&mut limits, 0..1, &full);
    // Not measured, the sample is old, or there is none.
    let usual = config::Limits::default();
    assert_eq!(over(&mut limits, 1..20, &[("disk///used_percent", Value::Null)]), ["disk///full degraded"]);
    for (minute, old) in [(25, Some(sample(19, &[]))), (30, None), (40, Some(sample(900, &[])))] {
        let told = limits.look(&usual, old.as_ref(), at(minute));
        assert_eq!(told.len(), 1, "{minute}");
        assert!(told[0].reason.ends_with("ago, and how it is now is not known"), "{}", told[0].reason);
        assert!(told[0].reason.starts_with("/ is 95 % full, 50 GB are free"), "{}", told[0].reason);
    }
    // Nobody measured for hours, or the host was off: that is no hour without it.
    assert_eq!(limits.look(&usual, None, at(300)).len(), 1);
    assert_eq!(over(&mut limits, 300..301, &[("disk///used_percent", Value::Null)]), ["disk///full degraded"]);
    // Strange samples are read over.
    for odd in [json!(null), json!("x"), json!([1]), json!({"/": 7}), json!({"/": {"used_percent": "95"}})] {
        let mut sample = sample(70, &[]);
        sample.metrics.insert("disk".to_owned(), odd);
        assert!(Thresholds::default().look(&usual, Some(&sample), at(70)).is_empty());
    }
}

/// A host where these are mounted.
fn mount(limits: &mut Thresholds, points: &[&str], minute: i64) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
    let line = |point: &&str| format!("1 0 8:1 / {point} rw - ext4 /dev/sda1 rw\n");
    let sandbox = "9 1 0:9 / /gone rw - tmpfs tmpfs rw\n".to_owned();
    let text: String = points.iter().map(line).chain([sandbox]).collect();
    std::fs::write(dir.path().join("proc/self/mountinfo"), text).unwrap();
    let config = Config::of_text(Path::new("hub.toml"), "[limits]\nreboot_required = false\n").unwrap();
    limits.look_around(&config, dir.path(), at(minute));
}

#[test]
fn what_does_not_answer_or_became_read_only_is_not_well_again_and_what_was_unmounted_is_gone() {
    let unmounted = [("disk///used_percent", Value::Null), ("disk///inodes_used_percent", Value::Null)];
    let read_only = [("disk///used_percent", json!(95.0)), ("disk///read_only", json!(true))];
    let full = [("disk///used_percent", json!(95.0))];
    for (points, changes, is_kept) in
        [(&["/", "/srv"][..], &unmounted[..], true), (&["/", "/srv"], &read_only, true), (&["/srv"], &unmounted, false)]
    {
        let mut limits = Thresholds::default();
        over(&mut limits, 0..1, &full);
        mount(&mut limits, points, 1);
        assert_eq!(over(&mut limits, 1..60, changes).len(), 1, "{points:?}");
        assert_eq!(over(&mut limits, 60..200, changes).len(), usize::from(is_kept), "{points:?} {changes:?}");
    }
    // What was read-only when it was looked at first is as full as it is.
    assert_eq!(over(&mut Thresholds::default(), 0..3, &read_only), NOTHING);
    // A sensor is gone after an hour of samples without it.
    let mut limits = Thresholds::default();
    assert_eq!(over(&mut limits, 0..7, &[("temperature/coretemp/Core 0", json!(90.0))]).len(), 1);
    let without = [("temperature/coretemp/Core 0", Value::Null)];
    assert_eq!(over(&mut limits, 7..60, &without).len(), 1);
    assert_eq!(over(&mut limits, 60..80, &without), NOTHING);
    // Left out from now on, it is not waited for.
    let mut limits = Thresholds::default();
    over(&mut limits, 0..1, &full);
    let except = config::Limits { disk_except: vec!["/".to_owned()], ..config::Limits::default() };
    assert_eq!(limits.look(&except, Some(&sample(1, &full)), at(1)), []);
}

#[test]
fn what_is_turned_off_or_left_out_is_not_told() {
    let changes = [
        ("disk///used_percent", json!(99)),
        ("memory/available", json!(1)),
        ("kernel/oom_kills", json!(9)),
        ("time/clock_synchronized", json!(false)),
        ("power/under_voltage", json!(true)),
    ];
    let off = config::Limits {
        disk_percent: None,
        disk_failed_percent: None,
        memory_available_percent: None,
        clock_minutes: None,
        oom_kill: false,
        under_voltage: false,
        ..config::Limits::default()
    };
    let mut limits = Thresholds::default();
    limits.look(&off, Some(&sample(0, &[])), at(0));
    for minute in 1..100 {
        assert_eq!(limits.look(&off, Some(&sample(minute, &changes)), at(minute)), []);
    }
    let except = config::Limits { disk_except: vec!["/".to_owned()], ..config::Limits::default() };
    let told = Thresholds::default().look(&except, Some(&sample(0, &changes[..1])), at(0));
    assert_eq!(told, []);
    // A limit that is turned off takes what was told by it back.
    let mut limits = Thresholds::default();
    assert_eq!(over(&mut limits, 0..1, &changes[..1]), ["disk///full failed"]);
    assert_eq!(limits.look(&off, Some(&sample(1, &changes[..1])), at(1)), []);
}

#[test]
fn kills_before_the_first_look_are_not_told() {
    let mut limits = Thresholds::default();
    assert_eq!(over(&mut limits, 0..7, &[]), NOTHING);
    // Which start of the host a count is of has to be known.
    let nameless = [("time/boot_id", Value::Null), ("kernel/oom_kills", json!(3))];
    assert_eq!(over(&mut limits, 7..9, &nameless), NOTHING);
    assert_eq!(over(&mut limits, 9..10, &[]), NOTHING);
    // After a restart of the host the kills are counted from 0.
    let restarted = [("time/boot_id", json!("b")), ("kernel/oom_kills", json!(2))];
    assert_eq!(over(&mut limits, 10..11, &restarted), ["memory/oom-kill degraded"]);
    let told = limits.look(&config::Limits::default(), Some(&sample(11, &restarted)), at(11));
    assert!(told[0].reason.contains("killed 2 processes"), "{}", told[0].reason);
}

#[test]
fn a_certificate_is_told_before_it_ends() {
    let certificate =
        |until: i64| json!({"a": {"at": at(0).to_string(), "server": "a.example:443", "until": at(until).to_string()}});
    for (days, told) in [(15, None), (13, Some(("expires in 13 days", false))), (-1, Some(("has expired", true)))] {
        let state = json!({"around": {"certificates": certificate(days * 24 * 60 + 1)}});
        let mut limits: Thresholds = serde_json::from_value(state).unwrap();
        let over = limits.look(&config::Limits::default(), None, at(0));
        assert_eq!(over.len(), usize::from(told.is_some()));
        if let Some((words, is_failed)) = told {
            assert!(over[0].reason.contains(words) && over[0].is_failed == is_failed, "{over:?}");
            assert_eq!(over[0].key, "gitops/a/certificate");
        }
    }
}
