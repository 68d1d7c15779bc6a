//! What the benchmarks share: order statistics and one way of printing a figure beside its target.
#![allow(dead_code, reason = "every benchmark uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use wait4::Wait4;

/// The value below which this share (0 to 1) of the values lies.
pub fn quantile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

pub fn median(values: &[Duration]) -> Duration {
    quantile(values, 0.5)
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A number from the environment; the benchmarks' own size where there is none.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Prints a figure with its target and whether it was reached.
pub fn figure(name: &str, value: String, target: &str, reached: bool) {
    println!("  {name:<58} {value:>12}   target {target:<10} {}", if reached { "reached" } else { "MISSED" });
}

/// Says on what machine, and how busy it was: a figure of a busy machine is not one of the program.
pub fn machine() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    println!("  {cores} cores, load {load} at the start");
}

/// What many runs of one program took.
#[derive(Default)]
pub struct Runs {
    pub cpu: Vec<Duration>,
    pub wall: Vec<Duration>,
    written: Vec<u64>,
    pub peak: u64,
}

impl Runs {
    pub fn add(&mut self, mut command: Command) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        self.wall.push(started.elapsed());
        let io = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
        let bytes = |name: &str| -> u64 {
            let line = io.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|bytes| bytes.trim_start_matches(": ").parse().ok()).unwrap()
        };
        self.written.push(bytes("write_bytes").saturating_sub(bytes("cancelled_write_bytes")));
        let used = child.wait4().unwrap();
        assert!(used.status.success(), "{command:?} failed");
        self.cpu.push(used.rusage.utime + used.rusage.stime);
        self.peak = self.peak.max(used.rusage.maxrss);
    }

    pub fn mean_written(&self) -> f64 {
        self.written.iter().sum::<u64>() as f64 / self.written.len() as f64 / 1000.0
    }

    pub fn show(&self, name: &str) {
        println!(
            "  {name:<34} CPU {:>6.2} ms  wall p50 {:>6.2} p90 {:>6.2} ms  peak {:>5.1} MB  written {:>6.1} kB",
            ms(median(&self.cpu)),
            ms(median(&self.wall)),
            ms(quantile(&self.wall, 0.9)),
            self.peak as f64 / 1e6,
            self.mean_written()
        );
    }
}
