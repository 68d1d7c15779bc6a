//! One booted machine and what a test can do to it. Knowing what is tested has no place here.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::{base, descendants, here, is_container_init, is_systemd};
use crate::support::skip;

/// Where [`Machine::boot_bare`] puts the package.
pub const PACKAGE: &str = "/srv/observability-hub.deb";

/// How long a boot may take. Seen: one second; the rest is for a busy host.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);
/// How long a command inside may take when the caller does not say.
const RUN_DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(10);

/// A Debian machine with systemd as PID 1. Dropping it ends it and everything in it.
pub struct Machine {
    supervisor: Child,
    /// Closing it ends the machine; `None` only while dropping.
    commands: Option<ChildStdin>,
    replies: Mutex<Receiver<String>>,
    /// Host PID of the machine's PID 1.
    leader: u32,
    /// What systemd and `supervise` print; for messages.
    console: File,
}

impl Machine {
    /// A new machine with a clean disk and the package installed, booted until `systemctl is-system-running` says
    /// `running`.
    ///
    /// `None` when this host cannot run one: the skip has been reported and the test should return.
    ///
    /// # Panics
    /// When the machine does not reach `running` (with the failed units and the console), when a binary of this build
    /// cannot be loaded inside, and instead of a skip with `HUB_TEST_REQUIRE=all`.
    pub fn boot() -> Option<Self> {
        let machine = Self::boot_with(true)?;
        machine.check_binaries();
        Some(machine)
    }

    /// As [`Self::boot`], without the package: its file is in [`PACKAGE`].
    pub fn boot_bare() -> Option<Self> {
        let machine = Self::boot_with(false)?;
        machine.copy_in(&base().ok()?.package, PACKAGE);
        Some(machine)
    }

    fn boot_with(package: bool) -> Option<Self> {
        if std::env::var_os("HUB_TEST_WITHOUT_SYSTEMD").is_some_and(|value| value == "1") {
            skip::switched_off("systemd tests", "HUB_TEST_WITHOUT_SYSTEMD=1");
            return None;
        }
        match base() {
            Ok(base) => Some(Self::boot_on(&base.layers(package))),
            Err(reason) => {
                skip::skip("systemd tests", reason);
                None
            }
        }
    }

    fn boot_on(layers: &OsStr) -> Self {
        let console = tempfile::tempfile().expect("a file for the machine's console");
        let mut supervisor = Command::new(here("supervise"))
            .arg(layers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console.try_clone().expect("a second handle"))
            .spawn()
            .expect("tests/systemd/supervise starts");
        let commands = supervisor.stdin.take();
        let lines = BufReader::new(supervisor.stdout.take().expect("piped")).lines();
        let (sender, replies) = mpsc::channel();
        // Ends with the supervisor, or when the machine is dropped.
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));

        let mut machine = Self { supervisor, commands, replies: Mutex::new(replies), leader: 0, console };
        machine.expect_reply("on");
        machine.wait_until_running();
        machine
    }

    /// Runs `argv` as root inside and waits for it, 60 seconds at most.
    ///
    /// It runs beside the machine's units, not in one (use `systemd-run --wait --pipe` for that): with a clean
    /// environment, empty stdin, and the host root's capabilities. A command that exceeds the deadline is killed
    /// with its process group and has status 137.
    pub fn run(&self, argv: &[&str]) -> Output {
        self.run_for(argv, None, RUN_DEADLINE)
    }

    /// Like [`Self::run`]; returns its stdout.
    ///
    /// # Panics
    /// When the command does not exit with 0.
    pub fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert!(output.status.success(), "{argv:?} in the machine: {}", describe(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Like [`Self::run`], with a file as stdin and a deadline of its own.
    pub fn run_for(&self, argv: &[&str], stdin: Option<File>, deadline: Duration) -> Output {
        // Files, not pipes: a daemon that a command leaves behind keeps a pipe open and would be waited for.
        let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
        // The inner timeout kills the command's process group, the outer one nsenter, should that hang.
        let status = Command::new("timeout")
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
            .envs([("HOME", "/root"), ("LANG", "C.UTF-8"), ("SYSTEMD_COLORS", "0"), ("SYSTEMD_PAGER", "")])
            .arg("--signal=KILL")
            .arg((deadline + Duration::from_secs(10)).as_secs_f64().to_string())
            .args(["nsenter", "--all", "--target", &self.leader.to_string(), "--"])
            .args(["timeout", "--signal=KILL", &deadline.as_secs_f64().to_string()])
            .args(argv)
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(stdout.try_clone().expect("a second handle"))
            .stderr(stderr.try_clone().expect("a second handle"))
            .status()
            .expect("timeout and nsenter run");
        Output { status, stdout: content(&mut stdout), stderr: content(&mut stderr) }
    }

    /// Writes a file inside, mode 0644, with the folders that lead to it. Not fsynced.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let mut source = tempfile::tempfile().expect("a temporary file");
        source.write_all(content.as_ref()).and_then(|()| source.rewind()).expect("the content fits");
        self.install(source, path, "0644");
    }

    /// Copies a file of the host into the machine, with the host file's permissions.
    pub fn copy_in(&self, host: &Path, path: &str) {
        let source = File::open(host).unwrap_or_else(|error| panic!("{}: {error}", host.display()));
        let mode = source.metadata().expect("an open file has metadata").permissions().mode() & 0o7777;
        self.install(source, path, &format!("{mode:o}"));
    }

    fn install(&self, source: File, path: &str, mode: &str) {
        let argv = ["install", "-D", "-m", mode, "/dev/stdin", path];
        let output = self.run_for(&argv, Some(source), RUN_DEADLINE);
        assert!(output.status.success(), "writing {path} in the machine: {}", describe(&output));
    }

    /// The content of a file inside.
    pub fn read(&self, path: &str) -> String {
        self.ok(&["cat", "--", path])
    }

    /// Whether something is at `path` inside, a dangling link included.
    pub fn exists(&self, path: &str) -> bool {
        self.run(&["test", "-e", path, "-o", "-L", path]).status.success()
    }

    /// Where the host sees a file of the machine, until its next boot: to look at it often, or to hold it.
    pub fn on_host(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// When it does not within `deadline`, with `what` and the journal's last lines.
    pub fn wait_for(&self, what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > deadline {
                let journal = self.run(&["journalctl", "--no-pager", "-n", "40"]);
                panic!("waited {deadline:?} for {what}; the journal ends with {}", describe(&journal));
            }
            thread::sleep(POLL);
        }
    }

    /// All journal entries of a unit, those of earlier boots included, oldest first.
    pub fn journal(&self, unit: &str) -> Vec<serde_json::Value> {
        self.ok(&["journalctl", "--sync"]);
        let lines = self.ok(&["journalctl", "--no-pager", "--all", "-o", "json", "-u", unit]);
        lines.lines().map(|line| serde_json::from_str(line).expect("journalctl prints JSON")).collect()
    }

    /// The host's PIDs of the supervisor and of the machine's PID 1.
    pub fn pids(&self) -> (u32, u32) {
        (self.supervisor.id(), self.leader)
    }

    /// Identifies the current boot.
    pub fn boot_id(&self) -> String {
        self.read("/proc/sys/kernel/random/boot_id").trim().to_owned()
    }

    /// `systemctl reboot`, until the machine runs again.
    pub fn reboot(&mut self) {
        let before = self.leader;
        // The command may be killed by the shutdown it asks for.
        self.run(&["systemctl", "reboot"]);
        let gone = Instant::now() + BOOT_DEADLINE;
        while is_systemd(before) {
            assert!(Instant::now() < gone, "the machine does not shut down\n{}", self.console());
            thread::sleep(POLL);
        }
        self.wait_until_running();
    }

    /// Cuts the power: no process gets a signal it could handle, and the disk keeps what was fsynced, no more than that
    /// being certain. Only [`Self::boot_again`] makes sense afterwards.
    pub fn pull_plug(&mut self) {
        self.command("pull");
        self.expect_reply("off");
        self.leader = 0;
    }

    /// Boots after [`Self::pull_plug`], from the same disk, until the machine runs.
    pub fn boot_again(&mut self) {
        assert_eq!(self.leader, 0, "boot_again without pull_plug");
        self.command("start");
        self.expect_reply("on");
        self.wait_until_running();
    }

    fn command(&mut self, word: &str) {
        let pipe = self.commands.as_mut().expect("open until dropped");
        writeln!(pipe, "{word}").unwrap_or_else(|error| panic!("supervise is gone: {error}\n{}", self.console()));
    }

    fn expect_reply(&self, expected: &str) {
        let reply = self.replies.lock().expect("no reader panics").recv_timeout(BOOT_DEADLINE);
        assert!(reply.as_deref() == Ok(expected), "supervise said {reply:?}, not {expected}\n{}", self.console());
    }

    fn wait_until_running(&mut self) {
        let end = Instant::now() + BOOT_DEADLINE;
        let state = loop {
            assert!(Instant::now() < end, "the machine does not boot\n{}", self.console());
            if let Some(leader) = descendants(self.supervisor.id()).into_iter().find(|&pid| is_container_init(pid)) {
                self.leader = leader;
                let output = self.run(&["systemctl", "is-system-running", "--wait"]);
                let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                // Before systemd listens, systemctl says nothing, "offline" or "unknown".
                if !matches!(state.as_str(), "" | "offline" | "unknown" | "initializing" | "starting") {
                    break state;
                }
            }
            thread::sleep(POLL);
        };
        if state != "running" {
            let failed = self.run(&["systemctl", "--no-pager", "--full", "--failed"]);
            panic!("the machine is {state}: {}\n{}", describe(&failed), self.console());
        }
    }

    /// The binaries are linked against the host's libraries, so a host newer than the machine's Debian shows here.
    fn check_binaries(&self) {
        let script = "dpkg --listfiles observability-hub | grep '^/usr/bin/.' | xargs ldd";
        let output = self.run(&["sh", "-c", script]);
        let listing = describe(&output);
        assert!(
            output.status.success() && !listing.contains("not found"),
            "the binaries, built on this host, cannot be loaded in the machine; build them on its Debian or an older one: {listing}"
        );
    }

    fn console(&self) -> String {
        // Through /proc, for a reader of its own: the handle itself shares its position with the writers.
        let text = fs::read(format!("/proc/self/fd/{}", self.console.as_raw_fd())).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        format!("the console ends with:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.commands.take());
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(self.supervisor.try_wait(), Ok(None)) {
            if Instant::now() > end {
                // Takes the PID namespace with it; only the empty control group stays, for the next boot to remove.
                let _ = self.supervisor.kill();
                let _ = self.supervisor.wait();
            }
            thread::sleep(POLL);
        }
    }
}

/// The status, stdout and stderr of a command, for a message.
pub fn describe(output: &Output) -> String {
    let Output { status, stdout, stderr } = output;
    format!("{status}\n{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a temporary file reads back");
    bytes
}
