//! What a sample says of the values that have limits. What it does not say is not known, and makes no value.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::reading::Reading;
use crate::config::Limits;
use crate::hint::quoted;
use crate::records::{Sample, counted};
use crate::text;

/// How long a process that the kernel killed is told of.
const OOM_TOLD: SignedDuration = SignedDuration::from_hours(1);
/// What a truth is compared with.
const TRUE: Option<f64> = Some(1.0);

/// What has to be remembered of samples to judge the next one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    boot: String,
    oom_kills: Option<u64>,
    /// When processes were killed last, and how many.
    killed: Option<(Timestamp, u64)>,
}

pub(super) fn readings(sample: &Sample, limits: &Limits, memory: &mut Memory, now: Timestamp) -> Vec<Reading> {
    let mut found = Found { limits, readings: Vec::new() };
    found.disks(sample);
    found.memory(sample);
    found.temperatures(sample);
    found.hardware(sample);
    found.clock(sample);
    found.oom(sample, memory, now);
    found.readings
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// A value below the objects of a sample; none where it is not there, or no number.
fn number(sample: &Sample, path: &[&str]) -> Option<f64> {
    value(sample, path)?.as_f64()
}

fn value<'a>(sample: &'a Sample, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(sample.metrics.get(*first)?, |value, key| value.get(key))
}

/// The objects of a kind by what they are about.
fn each<'a>(sample: &'a Sample, path: &[&str]) -> impl Iterator<Item = (&'a String, &'a Map<String, Value>)> {
    let all = value(sample, path).and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(name, value)| Some((name, value.as_object()?)))
}

struct Found<'a> {
    limits: &'a Limits,
    readings: Vec<Reading>,
}

impl Found<'_> {
    fn disks(&mut self, sample: &Sample) {
        for (mount, row) in each(sample, &["disk"]) {
            // What nobody writes to is as full as it is: only what was told before is looked at still.
            let is_old = row.get("read_only").and_then(Value::as_bool) == Some(true);
            let is_off = self.limits.disk_except.contains(mount);
            let limit = |limit: Option<f64>| limit.filter(|_| !is_off);
            let field = |name: &str| row.get(name).and_then(Value::as_f64);
            let about = format!("file system {mount}");
            let place = quoted(mount);
            if let Some(used) = field("used_percent") {
                let free = field("free").map(|free| format!(", {} are free", text::size(free))).unwrap_or_default();
                self.readings.push(Reading {
                    key: format!("disk/{mount}/full"),
                    about: about.clone(),
                    value: used,
                    bad: limit(self.limits.disk_percent),
                    failed: limit(self.limits.disk_failed_percent),
                    is_old,
                    margin: 2.0,
                    reason: format!("{mount} is {used:.0} % full{free}"),
                    mend: format!("du -xh --max-depth=2 {place} | sort -h | tail -20"),
                    ..Reading::default()
                });
            }
            if let Some(used) = field("inodes_used_percent") {
                self.readings.push(Reading {
                    key: format!("disk/{mount}/inodes"),
                    about,
                    value: used,
                    bad: limit(self.limits.inodes_percent),
                    failed: limit(self.limits.inodes_failed_percent),
                    is_old,
                    margin: 2.0,
                    reason: format!(
                        "{used:.0} % of the inodes of {mount} are used, so that it has room for few more files"
                    ),
                    mend: format!("du -x --inodes --max-depth=2 {place} | sort -n | tail -20"),
                    ..Reading::default()
                });
            }
        }
    }

    fn memory(&mut self, sample: &Sample) {
        let about = "memory".to_owned();
        let biggest = "ps -eo pid,user,rss,args --sort=-rss | head".to_owned();
        if let (Some(available), Some(total)) =
            (number(sample, &["memory", "available"]), number(sample, &["memory", "total"]))
            && total > 0.0
        {
            let percent = available / total * 100.0;
            self.readings.push(Reading {
                key: "memory/low".to_owned(),
                about: about.clone(),
                value: -percent,
                bad: self.limits.memory_available_percent.map(|limit| -limit),
                margin: 2.0,
                hold: minutes(10),
                reason: format!("{percent:.0} % of memory is available, {}", text::size(available)),
                mend: biggest.clone(),
                ..Reading::default()
            });
        }
        if let Some(waits) = number(sample, &["pressure", "memory", "full", "avg60"]) {
            self.readings.push(Reading {
                key: "memory/pressure".to_owned(),
                about: about.clone(),
                value: waits,
                bad: self.limits.memory_pressure_percent,
                margin: 5.0,
                hold: minutes(5),
                reason: format!("all tasks wait for memory {waits:.0} % of the time"),
                mend: biggest.clone(),
                ..Reading::default()
            });
        }
        let rate = |way: &str| number(sample, &["swap", way]);
        if let (Some(comes), Some(goes)) = (rate("in_pages_per_second"), rate("out_pages_per_second")) {
            let both = comes.min(goes);
            self.readings.push(Reading {
                key: "memory/swapping".to_owned(),
                about,
                value: both,
                bad: self.limits.swap_pages_per_second,
                margin: self.limits.swap_pages_per_second.unwrap_or(0.0) / 5.0,
                hold: minutes(5),
                reason: format!("{both:.0} pages a second are swapped out and in again"),
                mend: biggest,
                ..Reading::default()
            });
        }
    }

    fn temperatures(&mut self, sample: &Sample) {
        for (chip, sensors) in each(sample, &["temperature"]) {
            for (sensor, celsius) in sensors.iter().filter_map(|(sensor, value)| Some((sensor, value.as_f64()?))) {
                let critical = number(sample, &["temperature_critical", chip, sensor]);
                // A chip that may become hotter than the limit says so.
                let bad = self.limits.temperature_celsius.map(|limit| critical.map_or(limit, |own| limit.min(own)));
                self.readings.push(Reading {
                    key: format!("temperature/{chip}/{sensor}"),
                    about: "temperature".to_owned(),
                    value: celsius,
                    bad,
                    failed: bad.and(critical),
                    margin: 3.0,
                    hold: minutes(5),
                    reason: match critical {
                        Some(critical) => {
                            format!("{chip} {sensor} has {celsius:.0} °C; from {critical:.0} °C on it is critical")
                        }
                        None => format!("{chip} {sensor} has {celsius:.0} °C"),
                    },
                    mend: "look at fans, dust and load: top".to_owned(),
                    ..Reading::default()
                });
            }
        }
    }

    fn hardware(&mut self, sample: &Sample) {
        if let Some(is_low) = value(sample, &["power", "under_voltage"]).and_then(Value::as_bool) {
            let reason = "the supply voltage is too low: the processor slows down, and disks may lose data".to_owned();
            let mend = "use the power supply that the board asks for, with a short cable".to_owned();
            self.truth("power/under-voltage", "power", is_low, self.limits.under_voltage, reason, mend);
        }
        for (device, row) in each(sample, &["power", "wear"]) {
            let Some(used) = row.get("life_used_percent").and_then(Value::as_f64) else { continue };
            // 10 stands for what has used up to 10 %, 100 for what has less than a tenth left.
            self.readings.push(Reading {
                key: format!("disk/{device}/worn"),
                about: device.clone(),
                value: used,
                bad: self.limits.life_left_percent.map(|limit| 110.0 - limit),
                reason: format!("{device} has at most {:.0} % of its life left", (110.0 - used).max(0.0)),
                mend: "make a backup, and replace it".to_owned(),
                ..Reading::default()
            });
        }
        for (kind, lacks, show) in
            [("array", "degraded", "cat /proc/mdstat"), ("btrfs", "missing", "btrfs device stats /")]
        {
            for (device, row) in each(sample, &[kind]) {
                let Some(count) = row.get(lacks).and_then(Value::as_u64) else { continue };
                let text = |key: &str| row.get(key).and_then(Value::as_str).map(|text| format!(", {text}"));
                let is_pool = row.get("level").and_then(Value::as_str) == Some("zfs");
                let state = text("state").unwrap_or_default() + &text("sync").unwrap_or_default();
                let reason = if is_pool {
                    format!("the pool {device} is not whole{state}")
                } else {
                    format!("{device} lacks {}{state}", counted(count, "device"))
                };
                let mend = if is_pool { format!("zpool status {device}") } else { show.to_owned() };
                let key = format!("{kind}/{device}/degraded");
                self.truth(&key, device, count > 0, self.limits.array_degraded, reason, mend);
            }
        }
    }

    fn clock(&mut self, sample: &Sample) {
        let Some(is_set) = value(sample, &["time", "clock_synchronized"]).and_then(Value::as_bool) else { return };
        let limit = self.limits.clock_minutes;
        let reason = "nothing keeps the clock right: signatures, certificates and the order of events depend on it";
        let mend = "timedatectl timesync-status; chronyc tracking".to_owned();
        self.truth("clock/not-synchronised", "clock", !is_set, limit.is_some(), reason.to_owned(), mend);
        if let Some(reading) = self.readings.last_mut() {
            reading.hold = SignedDuration::from_secs((limit.unwrap_or(0.0) * 60.0) as i64);
        }
    }

    fn oom(&mut self, sample: &Sample, memory: &mut Memory, now: Timestamp) {
        let boot = value(sample, &["time", "boot_id"]).and_then(Value::as_str);
        let kills = value(sample, &["kernel", "oom_kills"]).and_then(Value::as_u64);
        // A count says nothing where it is not known since when it counts.
        let (Some(boot), Some(kills)) = (boot, kills) else { return };
        // After a start they are counted from 0; before the first look nobody knows when they were.
        let before = if memory.boot == boot { memory.oom_kills } else { memory.oom_kills.map(|_| 0) };
        let fresh = before.map_or(0, |before| kills.saturating_sub(before));
        if fresh > 0 {
            memory.killed = Some((now, fresh));
        }
        (memory.boot, memory.oom_kills) = (boot.to_owned(), Some(kills));
        let lately = memory.killed.filter(|(at, _)| *at <= now && now.duration_since(*at) < OOM_TOLD);
        let count = lately.map_or(0, |(_, count)| count);
        let reason = format!(
            "the kernel killed {} because memory ran out",
            counted(count, "process").replace("processs", "processes")
        );
        let mend = "journalctl -k -g 'Out of memory|oom-kill' -n 20".to_owned();
        self.truth("memory/oom-kill", "memory", lately.is_some(), self.limits.oom_kill, reason, mend);
    }

    fn truth(&mut self, key: &str, about: &str, is_so: bool, is_on: bool, reason: String, mend: String) {
        let (key, about, value) = (key.to_owned(), about.to_owned(), f64::from(u8::from(is_so)));
        let bad = TRUE.filter(|_| is_on);
        self.readings.push(Reading { key, about, value, bad, reason, mend, ..Reading::default() });
    }
}
