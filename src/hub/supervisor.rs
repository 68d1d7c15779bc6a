use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::job::{Job, Launch};
use super::schedule::Schedule;
use super::watch::{Fingerprint, Watch, changes, fingerprint};
use super::webhook_test::CREDENTIAL as WEBHOOK_SECRET;
use super::{Error, Service, up};
use crate::config::Config;
use crate::reading::{inboxes, is_input};
use crate::{exit, log};

/// How long after the first change the configuration is looked at: editors write, rename and set modes one by one.
const SETTLING: Duration = Duration::from_millis(200);

/// How long after the first request to stop a second one means that nobody wants to wait.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// The one loop of `hub up`: it waits for signals, ended services, queued requests, changed configuration and the next
/// planned start, all in poll(2).
pub(super) struct Supervisor<'a> {
    services: &'a [Service],
    jobs: Vec<Job>,
    launch: Launch,
    signals: UnixStream,
    queue: Watch,
    configuration: Configuration,
    stopping: Option<Instant>,
}

/// What is known about the configuration's files.
struct Configuration {
    flag: Option<PathBuf>,
    state: PathBuf,
    file: PathBuf,
    credentials: PathBuf,
    watch: Watch,
    seen: Fingerprint,
    /// What is in use: `seen`, unless that was refused.
    used: Fingerprint,
    look_at: Option<Instant>,
    usable: bool,
}

impl<'a> Supervisor<'a> {
    /// Prepares the loop for services and a configuration that has been checked; nothing is started yet.
    ///
    /// # Errors
    /// When the system gives no signal handlers or watches.
    pub(super) fn new(
        jobs: Vec<Job>,
        services: &'a [Service],
        config: &Config,
        flag: Option<&Path>,
    ) -> Result<Self, Error> {
        let system = |act: &'static str| move |source: std::io::Error| Error::System { act, source };
        let file = up::absolute(&Config::file_path(flag))?;
        let credentials = up::absolute(config.credentials().folder())?;
        let watch = Watch::new(vec![file.clone(), credentials.clone()]).map_err(system("watch the configuration"))?;
        let seen = fingerprint(&file, &credentials);
        let mut environment = vec![("HUB_STATE_DIR", config.state_dir.clone())];
        if flag.is_some() {
            environment.push(("HUB_CONFIG", file.clone()));
        }
        Ok(Self {
            services,
            jobs,
            // The running program itself, even if another one lies at its path by now.
            launch: Launch { program: "/proc/self/exe".into(), environment },
            signals: exit::stop_signals().map_err(system("receive signals"))?,
            queue: Watch::new(watched(config)).map_err(system("watch the queue"))?,
            configuration: Configuration {
                flag: flag.map(Path::to_owned),
                state: config.state_dir.clone(),
                watch,
                used: seen.clone(),
                seen,
                file,
                credentials,
                look_at: None,
                usable: true,
            },
            stopping: None,
        })
    }

    /// Runs until SIGTERM or SIGINT; everything it started has ended when it returns.
    ///
    /// # Errors
    /// When the system does not let it wait or watch any more.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let ended = self.turn_until_stopped();
        if ended.is_err() {
            // Without its loop nobody is left to look after them.
            self.stop();
            self.jobs.iter_mut().for_each(|job| job.hurry(Instant::now()));
        }
        while self.jobs.iter().any(Job::is_running) {
            self.turn()?;
        }
        ended
    }

    fn turn_until_stopped(&mut self) -> Result<(), Error> {
        while self.stopping.is_none() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.stopping.is_none() {
            let usable = self.configuration.usable;
            let due = |job: &Job| may_start(job, usable) && job.due().is_some_and(|due| due <= now);
            self.jobs.iter_mut().filter(|job| due(job)).for_each(|job| job.start(&self.launch, now));
        }
        let (signalled, queued, changed) = self.wait().map_err(|source| Error::System { act: "wait", source })?;
        let now = Instant::now();
        if signalled {
            self.signalled(now)?;
        }
        for job in &mut self.jobs {
            job.reap(now, self.stopping.is_some());
            job.kill_if_late(now);
        }
        if queued && self.stopping.is_none() {
            renew(&self.queue, "the queue");
            self.jobs.iter_mut().for_each(|job| job.look_at_queue(now));
        }
        if changed {
            self.configuration.look_at.get_or_insert(now + SETTLING);
        }
        if self.configuration.look_at.is_some_and(|at| at <= now) && self.stopping.is_none() {
            self.look_at_configuration(now);
        }
        Ok(())
    }

    /// Waits for the next thing to do: whether a signal came, the queue changed, the configuration changed.
    fn wait(&self) -> std::io::Result<(bool, bool, bool)> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(self.queue.fd(), PollFlags::IN)];
        // A busy folder wakes the loop no more often than it is looked at.
        let settling = self.configuration.look_at.is_some();
        if !settling {
            fds.push(PollFd::new(self.configuration.watch.fd(), PollFlags::IN));
        }
        if self.stopping.is_some() {
            fds.truncate(1);
        }
        let watches = fds.len();
        fds.extend(self.jobs.iter().filter_map(Job::ended_fd).map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = self.next_timer().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((true, false, false)),
            Err(error) => return Err(error.into()),
        }
        let readable = |index: usize| index < watches && !fds[index].revents().is_empty();
        Ok((readable(0), readable(1), readable(2)))
    }

    fn next_timer(&self) -> Option<Instant> {
        let kills = self.jobs.iter().filter_map(Job::kill_at);
        if self.stopping.is_some() {
            return kills.min();
        }
        let starts = self.jobs.iter().filter(|job| may_start(job, self.configuration.usable)).filter_map(Job::due);
        starts.chain(kills).chain(self.configuration.look_at).min()
    }

    fn signalled(&mut self, now: Instant) -> Result<(), Error> {
        let mut bytes = [0; 64];
        match self.signals.read(&mut bytes) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(source) => return Err(Error::System { act: "receive signals", source }),
        }
        match self.stopping {
            None => {
                log::info!("stopping");
                self.stop();
            }
            // timeout(1) and some terminals send one request twice.
            Some(since) if now.duration_since(since) < IMPATIENCE => {}
            Some(_) => self.jobs.iter_mut().for_each(|job| job.hurry(now)),
        }
        Ok(())
    }

    fn stop(&mut self) {
        let now = Instant::now();
        self.stopping = Some(now);
        self.jobs.iter_mut().for_each(|job| job.stop(now));
    }

    /// Takes a changed configuration into use, or says why not and goes on as before.
    fn look_at_configuration(&mut self, now: Instant) {
        let known = &mut self.configuration;
        known.look_at = None;
        renew(&known.watch, "the configuration");
        let seen = fingerprint(&known.file, &known.credentials);
        if seen == known.seen {
            return;
        }
        known.seen = seen;
        match up::check(known.flag.as_deref(), self.services) {
            Err(error) => {
                known.usable = false;
                log::warn!(
                    "configuration_refused",
                    error = error.to_string(),
                    note = "what runs goes on as it was; timers and queued requests wait until the file is right"
                );
            }
            Ok(config) => {
                known.usable = true;
                if config.state_dir != known.state {
                    let state = known.state.display().to_string();
                    log::warn!("state_dir_kept", state_dir = state, note = "restart hub up to use another state_dir");
                }
                let changed = changes(&known.used, &known.seen);
                // Restarted it would lose its counters, and it looks for a first secret itself.
                let first_secret = known.credentials.join(WEBHOOK_SECRET);
                let proxy_knows = changed == [&first_secret] && !known.used.contains_key(&first_secret);
                let paths: Vec<String> = changed.iter().map(|path| path.display().to_string()).collect();
                log::info!("configuration_changed", changed = paths);
                known.used.clone_from(&known.seen);
                match Watch::new(watched(&config)) {
                    Ok(watch) => self.queue = watch,
                    Err(error) => log::warn!("watch_failed", what = "the inboxes", error = error.to_string()),
                }
                for job in &mut self.jobs {
                    job.forgive();
                    match job.schedule {
                        Schedule::Always if job.is_running() && proxy_knows => {}
                        Schedule::Always if job.is_running() => job.stop(now),
                        Schedule::Daily(_) => job.set_inboxes(inboxes(&config), is_input, now),
                        _ => job.request(now),
                    }
                }
            }
        }
    }
}

/// The folders whose new names mean work.
fn watched(config: &Config) -> Vec<PathBuf> {
    let mut folders = inboxes(config);
    folders.push(up::queue(&config.state_dir));
    folders
}

/// Watches on. What cannot be watched any more is found by the next timer, so that everything else goes on.
fn renew(watch: &Watch, what: &str) {
    if let Err(error) = watch.renew() {
        log::warn!("watch_failed", what = what, error = error.to_string());
    }
}

/// A timer's run would only find the broken configuration; what is always on goes on with the one it has read, and is
/// started again so that it says itself what is wrong.
fn may_start(job: &Job, configuration_usable: bool) -> bool {
    configuration_usable || job.schedule == Schedule::Always
}
