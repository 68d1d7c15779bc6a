//! From a queued request to the applied commit, beside a bare `git fetch` and `git merge --ff-only` of the same commit.
//! Every round measures both, in turns, so that whatever else the machine does meets both alike. Then runs of the timer
//! that find nothing due. CPU time is user and system time as wait4(2) gives it, children included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod figures;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use figures::{figure, median, ms, quantile, setting};
use support::{Host, Origin, git};
use wait4::Wait4;

/// The files of a small repository: 50 in five folders.
fn files() -> Vec<(String, String)> {
    (0..50).map(|n| (format!("app{}/file{n}", n % 5), format!("line {n}\n").repeat(100))).collect()
}

fn push(origin: &Origin, files: &[(String, String)]) {
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    origin.push(&files);
}

/// One more small commit at the origin.
fn push_change(origin: &Origin, round: usize) {
    push(origin, &[("app0/file0".to_owned(), format!("change {round}\n").repeat(20))]);
}

/// A host that keeps a checkout of the origin in sync.
struct Synced {
    host: Host,
}

/// What a run took: to its line that says what was done, by then durable; to its exit; of CPU time.
struct Took {
    applied: Duration,
    exited: Duration,
    cpu: Duration,
}

/// A `[[repository]]` of the origin in a folder of the host.
fn table(origin: &Origin, host: &Host, name: &str) -> String {
    let me = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let (url, path, me) = (origin.url(), host.path(name), me.trim());
    format!("[[repository]]\nname = \"acme/{name}\"\nurl = \"{url}\"\npath = \"{}\"\nuser = \"{me}\"\n", path.display())
}

impl Synced {
    fn new(origin: &Origin, host: Host) -> Self {
        host.configure(&table(origin, &host, "infra"));
        std::fs::create_dir_all(host.state().join("proxy/queue")).unwrap();
        let synced = Self { host };
        synced.run(origin, &[]);
        synced
    }

    /// Queues a request as the proxy does and runs gitops-sync on it, `prefix` before it.
    fn run(&self, origin: &Origin, prefix: &[&str]) -> Took {
        let request = serde_json::json!({
            "repository": "acme/infra", "since": "2026-01-01T00:00:00.000Z", "deliveries": ["bench"],
            "after": git(&origin.work, &["rev-parse", "HEAD"]).trim(),
        });
        std::fs::write(self.host.state().join("proxy/queue/acme__infra.json"), request.to_string()).unwrap();
        let product = self.host.command("gitops-sync");
        let mut words = prefix.iter().copied().map(std::ffi::OsStr::new).chain([product.get_program()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        for (name, value) in product.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut applied = Duration::ZERO;
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if line.contains("\"msg\":\"deployed\"") || line.contains("\"msg\":\"unchanged\"") {
                applied = started.elapsed();
            }
        }
        let used = child.wait4().unwrap();
        let exited = started.elapsed();
        assert!(used.status.success() && !applied.is_zero(), "gitops-sync: {}", used.status);
        Took { applied, exited, cpu: used.rusage.utime + used.rusage.stime }
    }

    fn is_at(&self, origin: &Origin) -> bool {
        git(&self.host.path("infra"), &["rev-parse", "HEAD"]) == git(&origin.work, &["rev-parse", "HEAD"])
    }
}

fn print(name: &str, times: &[Duration]) {
    let (p10, p90) = (ms(quantile(times, 0.1)), ms(quantile(times, 0.9)));
    println!("  {name:<58} {:>9.1} ms   p10 {p10:.1}  p90 {p90:.1}", ms(median(times)));
}

/// Issue 13: what the timer's run costs where nothing is due, on an ordinary host and on one with 300 repositories.
fn nothing_due(product: &Synced, origin: &Origin, rounds: usize) {
    let many = setting("HUB_BENCH_REPOSITORIES", 300);
    let host = Host::new();
    host.configure(&(0..many).map(|n| table(origin, &host, &format!("r{n}"))).collect::<String>());
    for (host, count, most) in [(&product.host, 1, 5.0), (&host, many, 30.0)] {
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let mut command = host.command("gitops-sync");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let started = Instant::now();
            let mut child = command.spawn().unwrap();
            let log = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
            let used = child.wait4().unwrap();
            assert!(used.status.success(), "gitops-sync: {}\n{log}", used.status);
            // The first run looks at all of them.
            if round > 0 {
                assert!(log.lines().count() == 1 && log.contains("\"msg\":\"nothing_due\""), "{log}");
                wall.push(started.elapsed());
                cpu.push(used.rusage.utime + used.rusage.stime);
            }
        }
        print(&format!("a run with none of {count} due, start to exit, median"), &wall);
        let cpu = ms(median(&cpu));
        figure("the same, CPU time", format!("{cpu:.1} ms"), &format!("<= {most} ms"), cpu <= most);
    }
}

/// What a person would type.
fn fetch_and_merge(clone: &Path) -> Duration {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(clone).env("GIT_CONFIG_GLOBAL", "/dev/null");
        let status = command.env("GIT_CONFIG_NOSYSTEM", "1").stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.unwrap().success(), "git {arguments:?}");
    };
    let started = Instant::now();
    run(&["fetch", "--quiet"]);
    run(&["merge", "--quiet", "--ff-only", "origin/main"]);
    started.elapsed()
}

fn main() {
    let rounds = setting("HUB_BENCH_ROUNDS", 40).max(3);
    println!(
        "sync: a queued request to its commit in the checkout, {rounds} rounds, local origin, one small commit each"
    );
    figures::machine();

    let peer_host = Host::new();
    let origin = Origin::new(&peer_host);
    push(&origin, &files());
    let clone = peer_host.path("clone");
    git(&origin.work, &["clone", "--quiet", "--branch", "main", origin.url(), clone.to_str().unwrap()]);
    let product = Synced::new(&origin, Host::new());
    // The same repository with units in it, which is read and compared on top.
    let with_units = Synced::new(&origin, Host::new());
    let unit = |n: usize| (format!("systemd/app{n}.service"), format!("[Service]\nExecStart=/bin/true {n}\n"));

    let [mut bare, mut synced, mut ended, mut cpu, mut idle, mut idle_cpu] = [(); 6].map(|()| Vec::new());
    for round in 0..rounds {
        push_change(&origin, round);
        if round % 2 == 0 {
            bare.push(fetch_and_merge(&clone));
        }
        let took = product.run(&origin, &[]);
        synced.push(took.applied);
        ended.push(took.exited);
        cpu.push(took.cpu);
        if round % 2 == 1 {
            bare.push(fetch_and_merge(&clone));
        }
        assert!(product.is_at(&origin), "the commit was not applied");
        let took = product.run(&origin, &[]);
        idle.push(took.exited);
        idle_cpu.push(took.cpu);
    }
    print("git fetch + git merge --ff-only, median", &bare);
    print("gitops-sync, start to applied and recorded, median", &synced);
    print("gitops-sync, start to exit, median", &ended);
    print("the same, CPU time, median", &cpu);
    print("gitops-sync where nothing is new, start to exit, median", &idle);
    print("the same, CPU time, median", &idle_cpu);
    let ratio = |times: &[Duration], share| quantile(times, share).as_secs_f64() / quantile(&bare, share).as_secs_f64();
    figure(
        "ratio of the medians, applied",
        format!("{:.2}", ratio(&synced, 0.5)),
        "<= 1.5",
        ratio(&synced, 0.5) <= 1.5,
    );
    // The product waits for the disk several times and the peer hardly ever, so other writers on it slow the one only.
    println!("  {:<58} {:>12.2}", "the same of the tenth percentiles, the disk being idle", ratio(&synced, 0.1));
    println!("  {:<58} {:>12.2}", "ratio of the medians, exit", ratio(&ended, 0.5));

    // Issue 3: what a push that changes nothing deployable costs on top of the checkout's update.
    push(&origin, &(0..10).map(unit).collect::<Vec<_>>());
    product.run(&origin, &[]);
    with_units.run(&origin, &[]);
    let without = Synced::new(&origin, Host::new());
    without.host.configure(&(std::fs::read_to_string(without.host.path("hub.toml")).unwrap() + "units = \"\"\n"));
    let (mut plain, mut planned) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        push_change(&origin, rounds + round);
        if round % 2 == 0 {
            plain.push(without.run(&origin, &[]).applied);
            planned.push(with_units.run(&origin, &[]).applied);
        } else {
            planned.push(with_units.run(&origin, &[]).applied);
            plain.push(without.run(&origin, &[]).applied);
        }
    }
    let added = ms(median(&planned)) - ms(median(&plain));
    figure("a push that touches none of 10 unit files adds", format!("{added:.1} ms"), "<= 30 ms", added <= 30.0);
    if !Path::new("/run/systemd/system").is_dir() {
        println!("  (no systemd here: read from the mirror, not compared with what is installed)");
    }
    nothing_due(&product, &origin, rounds);
    steps(&product, &origin, 2 * rounds, setting("HUB_BENCH_TRACED", 10));
}

/// Prints what the children of a run and its fsyncs cost, and when they ran, from runs under strace(1).
fn steps(product: &Synced, origin: &Origin, from: usize, rounds: usize) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("  (install strace to see what each step costs)");
        return;
    }
    let trace = product.host.path("trace");
    let mut all: BTreeMap<&str, (Vec<Duration>, Vec<Duration>)> = BTreeMap::new();
    for round in from..from + rounds {
        push_change(origin, round);
        let calls = "trace=execve,fsync,fdatasync,syncfs";
        let prefix = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-v",
            "-s",
            "300",
            "-ttt",
            "-T",
            "-e",
            calls,
            "-o",
            trace.to_str().unwrap(),
        ];
        product.run(origin, &prefix);
        for (step, (began, took)) in read_trace(&std::fs::read_to_string(&trace).unwrap()) {
            let times = all.entry(step).or_default();
            times.0.push(began);
            times.1.push(took);
        }
    }
    println!("  steps, median of {rounds} runs under strace, which slows them; many run side by side:");
    let mut steps: Vec<_> = all.iter().map(|(step, (began, took))| (median(began), median(took), *step)).collect();
    steps.sort();
    for (began, took, step) in steps {
        println!("    at {:>5.1} ms  for {:>5.1} ms  {step}", ms(began), ms(took));
    }
}

/// The steps of a run, each with its begin and its length. Processes that git starts itself count as a part of it.
fn read_trace(text: &str) -> BTreeMap<&'static str, (Duration, Duration)> {
    const STEPS: [(&str, &str); 8] = [
        ("\"fetch\"", "git fetch into the mirror"),
        ("\"cat-file\"", "git cat-file, answers until the run ends"),
        ("\"status\"", "git status of the checkout"),
        ("\"ls-files\"", "git ls-files of the checkout"),
        ("\"pack-objects\"", "git pack-objects in the mirror, waits for the plan"),
        ("\"index-pack\"", "git index-pack in the checkout, waits for the pack"),
        ("\"merge\"", "git merge --ff-only"),
        ("\"update-ref\"", "git update-ref, waits for the merge"),
    ];
    const SYNC: &str = "fsync and syncfs of the worker, together";
    let mut steps = BTreeMap::new();
    let mut running: BTreeMap<&str, (&'static str, Duration)> = BTreeMap::new();
    let (mut start, mut worker) = (None, "");
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(pid), Some(time)) = (words.next(), words.next().and_then(|time| time.parse().ok())) else { continue };
        let time = Duration::from_secs_f64(time);
        let start = *start.get_or_insert_with(|| {
            worker = pid;
            time
        });
        if line.contains("+++ exited") {
            if let Some((step, began)) = running.remove(pid) {
                steps.insert(step, (began - start, time - began));
            }
            if pid == worker {
                steps.insert("the whole run", (Duration::ZERO, time - start));
            }
        } else if line.contains("execve(") && line.contains("setpriv\", ") {
            if let Some((_, step)) = STEPS.iter().find(|(word, _)| line.contains(word)) {
                running.entry(pid).or_insert((*step, time));
            }
        } else if line.contains("sync") && pid == worker {
            // <0.000123> at the end of a line is the time in the call.
            let took = line.rsplit('<').next().and_then(|rest| rest.trim_end_matches('>').parse().ok());
            let sum: &mut (Duration, Duration) = steps.entry(SYNC).or_insert((time - start, Duration::ZERO));
            sum.1 += Duration::from_secs_f64(took.unwrap_or(0.0));
        }
    }
    steps
}
