//! A run of system-metrics with its rows committed to SQLite, beside `sadc` (sysstat) and a scrape of Debian's
//! prometheus-node-exporter, in turns.
//!
//! CPU time is user and system time as wait4(2) gives it, children included; of node_exporter, which stays, what all its
//! threads ran during a scrape (`/proc/PID/task/*/schedstat`). Bytes are `write_bytes` of `/proc/PID/io`, read between a
//! program's end and its wait: what it made dirty in files on a disk, in pages, without the file system's own journal and
//! without files that were gone before the disk saw them (`cancelled_write_bytes`), such as SQLite's shared memory.
//! Peak memory is rusage's, never below that of this program, which the kernel counts in when it starts another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod figures;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use figures::{Runs, figure, median, ms, setting};
use support::{Host, eventually, free_address, send_raw};

/// Two runs closer together than half a second have no rates and so less to do.
const APART: Duration = Duration::from_millis(600);
const SADC: &str = "/usr/lib/sysstat/sadc";

/// node_exporter as Debian starts it; ended when dropped.
struct Exporter {
    child: Child,
    address: SocketAddr,
    cpu: Vec<Duration>,
}

impl Exporter {
    fn start() -> Option<Self> {
        let address = free_address();
        let mut command = Command::new("prometheus-node-exporter");
        command.arg(format!("--web.listen-address={address}")).stdout(Stdio::null()).stderr(Stdio::null());
        let exporter = Self { child: command.spawn().ok()?, address, cpu: Vec::new() };
        eventually("node_exporter answers", || exporter.scrape() > 10_000);
        Some(exporter)
    }

    /// How long the answer is.
    fn scrape(&self) -> usize {
        send_raw(self.address, b"GET /metrics HTTP/1.0\r\n\r\n").map_or(0, |answer| answer.body.len())
    }

    fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let ran = |task: &Path| -> Option<u64> {
            std::fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(|task| ran(&task.unwrap().path())).sum())
    }

    fn add(&mut self) {
        let before = self.cpu_time();
        assert!(self.scrape() > 10_000);
        self.cpu.push(self.cpu_time().saturating_sub(before));
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sadc(host: &Host, what: &str) -> Command {
    let mut command = Command::new(SADC);
    command.args(["-F", "-L", "-S", what, "1", "1"]).arg(host.path(&format!("sa-{what}")));
    command
}

fn main() {
    let rounds = setting("HUB_BENCH_ROUNDS", 120).max(1);
    println!("metrics: a run with its rows committed to SQLite, {rounds} in turns with the peers, medians");
    figures::machine();
    let host = Host::new();
    let has_sadc = Path::new(SADC).exists();
    let mut exporter = Exporter::start();
    let [mut ours, mut all, mut disks, mut nothing] = [(); 4].map(|()| Runs::default());
    for round in 0..=rounds {
        let next = Instant::now() + APART;
        if round == 0 {
            // The first run makes the schema, and has no run before.
            assert!(host.command("system-metrics").stdout(Stdio::null()).status().unwrap().success());
        } else {
            ours.add(host.command("system-metrics"));
            nothing.add(Command::new("true"));
            if has_sadc {
                all.add(sadc(&host, "ALL"));
                disks.add(sadc(&host, "DISK"));
            }
            exporter.iter_mut().for_each(Exporter::add);
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    ours.show("system-metrics, rows in SQLite");
    let cpu = ms(median(&ours.cpu));
    if has_sadc {
        all.show("sadc -S ALL");
        disks.show("sadc -S DISK (Debian's timer)");
        let ratio = cpu / ms(median(&all.cpu));
        figure("CPU time to sadc's", format!("{ratio:.2}"), "<= 3", ratio <= 3.0);
    } else {
        println!("  (install Debian's package sysstat to compare with it)");
    }
    nothing.show("true: starting a program at all");
    if let Some(exporter) = &exporter {
        let scrape = ms(median(&exporter.cpu));
        println!("  {:<34} CPU {scrape:>6.2} ms", "node_exporter, one scrape");
        figure("CPU time to a scrape of node_exporter", format!("{:.2}", cpu / scrape), "< 1", cpu < scrape);
    } else {
        println!("  (install Debian's package prometheus-node-exporter to compare with it)");
    }
    let wall = ms(median(&ours.wall));
    figure("wall, median", format!("{wall:.2} ms"), "< 20 ms", wall < 20.0);
    let peak = ours.peak as f64 / 1e6;
    figure("peak memory", format!("{peak:.1} MB"), "<= 8 MB", peak <= 8.0);
    let database = std::fs::metadata(host.state().join("data/hub.db")).unwrap().len() as f64 / 1000.0;
    let day = ours.mean_written() * 1440.0 / 1000.0;
    println!("  {:<58} {:>9.1} MB", "written a day, a run a minute", day);
    println!("  {:<58} {database:>9.1} kB", "database after these runs, its log beside it");
}
