//! Runs of system-metrics on a recorded tree, for the tests of what it does when something is wrong.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Host, tree};

/// The contract's limit for a run, whatever hangs.
pub const LONGEST: Duration = Duration::from_secs(20);

pub fn tree_of(host: &Host, name: &str) -> PathBuf {
    let tree = host.path("tree");
    tree::unpack(name, &tree);
    tree
}

pub fn command(host: &Host, tree: &Path) -> Command {
    let mut command = host.command("system-metrics");
    command.arg("--procfs").arg(tree.join("proc"));
    command.arg("--sysfs").arg(tree.join("sys")).arg("--rootfs").arg(tree.join("root"));
    command
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs once and checks the exit code; returns the log lines.
#[track_caller]
pub fn run(command: &mut Command, code: i32) -> String {
    let started = Instant::now();
    let output = command.output().unwrap();
    assert!(started.elapsed() < LONGEST, "it took {:?}", started.elapsed());
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    text(&output)
}

pub fn print(host: &Host, tree: &Path) -> Value {
    let output = command(host, tree).arg("--print").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An address on which nobody listens.
pub fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("postgres://hub@127.0.0.1:{port}/hub?connect_timeout=2")
}

/// The lines of all segments, in order: time and `metric_type`.
pub fn spooled(host: &Host) -> Vec<(i64, String)> {
    let Ok(entries) = std::fs::read_dir(host.path("state/data/metrics/spool")) else { return Vec::new() };
    let mut segments: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| {
        path.extension().is_some_and(|end| end == "jsonl")
            && path.file_name().is_some_and(|name| name != "refused.jsonl")
    });
    segments.sort();
    let mut rows = Vec::new();
    for segment in segments {
        for line in std::fs::read_to_string(segment).unwrap().lines() {
            // A torn tail is no row.
            if let Ok(row) = serde_json::from_str::<Value>(line) {
                rows.push((row["time"].as_i64().unwrap(), row["metric_type"].as_str().unwrap().to_owned()));
            }
        }
    }
    rows
}

pub fn spooled_rows(host: &Host) -> usize {
    spooled(host).len()
}

/// Every row of the SQLite database in the order in which it was stored; those that were laid beside their kind since, which
/// are the oldest, in the order of their times.
#[cfg(feature = "sqlite")]
pub fn stored(host: &Host) -> Vec<(i64, String)> {
    let database = rusqlite::Connection::open(host.path("state/data/hub.db")).unwrap();
    let sql = "SELECT time, metric_type FROM system_metrics ORDER BY sorted DESC, iif(sorted = 1, time, 0), rowid";
    let mut query = database.prepare(sql).unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Checks that rows came in order, and each of them once.
#[track_caller]
pub fn in_order_and_once(rows: &[(i64, String)]) {
    assert!(rows.windows(2).all(|pair| pair[0].0 <= pair[1].0), "not in order: {rows:?}");
    let mut unique = rows.to_vec();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), rows.len(), "more than once: {rows:?}");
}

/// The calls at which a run changes something that stays.
const STEPS: [&str; 9] =
    ["fsync", "fdatasync", "pwrite64", "ftruncate", "renameat", "unlinkat", "sendto", "writev", "write"];

/// For every such call that a run makes, `before` is done and the run killed as it enters the call; `after` looks at what
/// is left. How often it was killed; none where strace(1) is missing or may not trace.
pub fn kill_at_every_step(before: impl Fn(), command: impl Fn() -> Command, after: impl Fn(&str)) -> Option<usize> {
    let trace = |step: &str, when: usize| {
        let command = command();
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={step}"));
        traced.arg("-e").arg(format!("inject={step}:signal=KILL:when={when}")).arg(command.get_program());
        traced.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(name, value),
                None => traced.env_remove(name),
            };
        }
        traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        super::skip::skip("a kill at every step", "strace is not installed, or may not trace; apt-get install strace");
        return None;
    }
    let mut killed = 0;
    for step in STEPS {
        for when in 1.. {
            before();
            let status = trace(step, when).unwrap();
            after(&format!("{step} {when}"));
            // strace ends as what it traces ended; a run that came through makes fewer such calls.
            if status.signal() != Some(9) {
                break;
            }
            killed += 1;
        }
    }
    Some(killed)
}
