use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open, waitid,
};

use super::queued::queued;
use super::schedule::Schedule;
use crate::command::{Backoff, ended};
use crate::{log, program};

/// How long a service may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// A service that lived this long was well: its next failure is a first one.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Between a failure and the next start, doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What every service gets: the environment that makes it see what `hub up` sees.
pub(super) struct Launch {
    /// The program that carries all services.
    pub(super) program: PathBuf,
    /// Variables besides the inherited ones.
    pub(super) environment: Vec<(&'static str, PathBuf)>,
}

/// A service under `hub up`.
pub(super) struct Job {
    /// The name of the service.
    pub(super) name: String,
    /// When it runs.
    pub(super) schedule: Schedule,
    queues: Vec<PathBuf>,
    /// Why a queue could not be read when it was last looked at.
    unreadable: Option<String>,
    /// Which names in the queues count.
    counts: fn(&OsStr) -> bool,
    due: Instant,
    /// Until when a request must wait, because the last run failed or left its queue as it was.
    held_until: Option<Instant>,
    asked_again: bool,
    backoff: Backoff,
    running: Option<Running>,
}

struct Running {
    child: Child,
    ended: OwnedFd,
    started: Instant,
    found: BTreeSet<OsString>,
    stop_asked: bool,
    kill_at: Option<Instant>,
}

impl Job {
    /// A service that starts as soon as the loop runs. `queue` is a folder that wants the service while it holds
    /// anything.
    pub(super) fn new(name: &str, schedule: Schedule, queue: Option<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            schedule,
            queues: queue.into_iter().collect(),
            unreadable: None,
            counts: |_| true,
            // What has an hour waits for it; its queue is looked at as soon as the loop runs.
            due: Instant::now() + if let Schedule::Daily(_) = schedule { schedule.pause() } else { Duration::ZERO },
            held_until: None,
            asked_again: false,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            running: None,
        }
    }

    /// The same, with its first run so much later.
    pub(super) fn after(mut self, pause: Duration) -> Self {
        self.due += pause;
        self
    }

    /// Wants the service while one of these folders holds a file whose name counts.
    pub(super) fn set_inboxes(&mut self, folders: Vec<PathBuf>, counts: fn(&OsStr) -> bool, now: Instant) {
        (self.queues, self.counts) = (folders, counts);
        self.look_at_queue(now);
    }

    /// Something is queued or changed: run soon, or once more after the current run.
    pub(super) fn request(&mut self, now: Instant) {
        if self.running.is_some() {
            self.asked_again = true;
        } else {
            self.due = self.due.min(self.held_until.map_or(now, |until| until.max(now)));
        }
    }

    /// Looks whether the queue holds anything, and asks for a run then.
    pub(super) fn look_at_queue(&mut self, now: Instant) {
        // What arrives during a run is found when it has ended.
        if self.running.is_none() && !self.waiting().is_empty() {
            self.request(now);
        }
    }

    /// Does not let failures of the past delay the next start.
    pub(super) fn forgive(&mut self) {
        self.held_until = None;
        self.backoff.reset();
    }

    /// When it wants to be started; none while it runs.
    pub(super) fn due(&self) -> Option<Instant> {
        self.running.is_none().then_some(self.due)
    }

    /// The descriptor that becomes readable when it ends.
    pub(super) fn ended_fd(&self) -> Option<&OwnedFd> {
        self.running.as_ref().map(|running| &running.ended)
    }

    /// When it is killed if it has not stopped.
    pub(super) fn kill_at(&self) -> Option<Instant> {
        self.running.as_ref().and_then(|running| running.kill_at)
    }

    /// True while it has a process.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn start(&mut self, launch: &Launch, now: Instant) {
        let found = self.waiting();
        match self.spawn(launch, now, found) {
            Ok(running) => {
                if self.schedule == Schedule::Always {
                    log::info!("service_started", child = self.name, pid = running.child.id());
                }
                self.running = Some(running);
                self.asked_again = false;
                self.held_until = None;
            }
            Err(error) => {
                let wait = self.hold(now);
                let (error, seconds) = (error.to_string(), wait.as_secs());
                log::error!("service_not_started", child = self.name, error = error, again_in_seconds = seconds);
            }
        }
    }

    fn spawn(&self, launch: &Launch, now: Instant, found: BTreeSet<OsString>) -> std::io::Result<Running> {
        let mut command = Command::new(&launch.program);
        command.arg0(&self.name).stdin(Stdio::null());
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        command.env(program::SUPERVISOR, std::process::id().to_string());
        // A group of its own: Ctrl-C reaches hub only, which then stops everything in one way, once.
        let mut child = command.process_group(0).spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(ended) => Ok(Running { child, ended, started: now, found, stop_asked: false, kill_at: None }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Has it take its configuration anew, where it runs for long; what runs once has read it.
    pub(super) fn reload(&self) {
        if let (Schedule::Always, Some(running)) = (self.schedule, &self.running) {
            // Its own children have no part in it.
            if let Err(error) = kill_process(Pid::from_child(&running.child), Signal::HUP) {
                log::warn!("service_not_signalled", child = self.name, error = error.to_string());
            }
        }
    }

    /// Asks the process to stop; it is killed when it takes too long.
    pub(super) fn stop(&mut self, now: Instant) {
        if let Some(running) = &mut self.running
            && !running.stop_asked
        {
            running.stop_asked = true;
            running.kill_at = Some(now + STOP_LIMIT);
            signal(&self.name, &running.child, Signal::TERM);
        }
    }

    /// Makes its time to stop be over now.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(running) = &mut self.running {
            running.kill_at = running.kill_at.map(|_| now);
        }
    }

    /// Kills it where its time to stop is over.
    pub(super) fn kill_if_late(&mut self, now: Instant) {
        if let Some(running) = &mut self.running
            && running.kill_at.is_some_and(|limit| limit <= now)
        {
            // Once: what a kill does not end is ended by nothing.
            running.kill_at = None;
            log::warn!("service_killed", child = self.name, reason = "it did not stop when it was asked to");
            signal(&self.name, &running.child, Signal::KILL);
        }
    }

    /// Takes note of its end, if it has ended, and plans the next start.
    pub(super) fn reap(&mut self, now: Instant, stopping: bool) {
        let Some(mut running) = self.running.take() else { return };
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(running.ended.as_fd()), peek) {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                self.running = Some(running);
                return;
            }
        }
        // What it left behind ends with it, as under systemd. Its number is still its own: it is not reaped yet.
        signal(&self.name, &running.child, Signal::KILL);
        match running.child.wait() {
            Ok(status) if stopping => self.log_stop(status),
            Ok(status) => self.plan(status, &running, now),
            Err(error) => {
                log::error!("service_lost", child = self.name, error = error.to_string());
                self.hold(now);
            }
        }
    }

    fn log_stop(&self, status: ExitStatus) {
        log::info!("service_stopped", child = self.name, ended = ended(status));
    }

    fn plan(&mut self, status: ExitStatus, running: &Running, now: Instant) {
        let lived = now.duration_since(running.started);
        if lived >= WELL_AFTER {
            self.forgive();
        }
        match self.schedule {
            // Stopped on purpose, to start again with another configuration.
            Schedule::Always if running.stop_asked => {
                self.log_stop(status);
                self.due = now;
            }
            Schedule::Always => {
                let seconds = self.hold(now).as_secs();
                let ended = ended(status);
                log::warn!("service_ended", child = self.name, ended = ended, again_in_seconds = seconds);
            }
            Schedule::Every(_) | Schedule::Daily(_) => self.plan_run(status, running, now),
        }
    }

    fn plan_run(&mut self, status: ExitStatus, running: &Running, now: Instant) {
        let waiting = self.waiting();
        // Codes that the service gives on purpose: it has said what is wrong and keeps what is to be done again.
        let answered = matches!(status.code(), Some(0..=5 | 78));
        let untouched = waiting.intersection(&running.found).count();
        let duration = u64::try_from(now.duration_since(running.started).as_millis()).unwrap_or(u64::MAX);
        if answered && untouched == 0 {
            self.forgive();
            self.due = if self.asked_again || !waiting.is_empty() { now } else { now + self.schedule.pause() };
        } else {
            self.hold(now);
        }
        let ended = ended(status);
        if status.success() && untouched == 0 {
            log::info!("run_ended", child = self.name, ended = ended, duration_ms = duration);
        } else {
            let seconds = self.due.duration_since(now).as_secs();
            log::warn!(
                "run_ended",
                child = self.name,
                ended = ended,
                duration_ms = duration,
                left_in_queue = untouched,
                again_in_seconds = seconds
            );
        }
    }

    /// Plans the next start after a failure.
    fn hold(&mut self, now: Instant) -> Duration {
        let wait = self.backoff.next_wait();
        self.due = now + wait;
        self.held_until = Some(self.due);
        wait
    }

    fn waiting(&mut self) -> BTreeSet<OsString> {
        let mut waiting = BTreeSet::new();
        let before = self.unreadable.take();
        for queue in &self.queues {
            match queued(queue) {
                Ok(names) => waiting.extend(names.into_iter().filter(|name| (self.counts)(name))),
                Err(error) => {
                    let (path, error) = (queue.display().to_string(), error.to_string());
                    // It is looked at each second, and told once.
                    if before.as_ref() != Some(&error) {
                        log::warn!("queue_unreadable", path = path, error = error);
                    }
                    self.unreadable = Some(error);
                }
            }
        }
        waiting
    }
}

/// Signals the process group of a child that is not reaped yet.
fn signal(name: &str, child: &Child, signal: Signal) {
    match kill_process_group(Pid::from_child(child), signal) {
        // PERM: nobody is left in the group but the dead leader of a service that changed its user.
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => {}
        Err(error) => log::warn!("service_not_signalled", child = name, error = error.to_string()),
    }
}

#[cfg(test)]
mod tests;
