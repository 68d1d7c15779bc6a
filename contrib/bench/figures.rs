//! What the benchmarks share: order statistics and one way of printing a figure beside its target.
#![allow(dead_code, reason = "every benchmark uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::time::Duration;

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
