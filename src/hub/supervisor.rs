use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::Error;
use super::job::{Job, Launch};
use super::schedule::Schedule;
use super::service::Service;
use crate::command::timespec;
use crate::config::{Config, Look, Renew, Renewal};
use crate::log;
use crate::program::{Asked, Signals};
use crate::reading::{inboxes, is_input};
use crate::watch;

/// How long after the first request to stop a second one means that nobody wants to wait.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// The one loop of `hub up`: it waits for signals, ended services and the next planned start, all in poll(2), and looks at
/// the queues and the configuration once a second.
pub(super) struct Supervisor<'a> {
    services: &'a [Service],
    jobs: Vec<Job>,
    launch: Launch,
    signals: Signals,
    /// When the queues and the configuration were last looked at.
    looked: Instant,
    /// Whether what is on the disk can be used.
    usable: bool,
    stopping: Option<Instant>,
}

impl Renew for Supervisor<'_> {
    type Prepared = ();

    fn prepare(&self, config: &Config) -> Result<(), String> {
        self.services.iter().try_for_each(|service| (service.check)(config)).map_err(|error| error.to_string())
    }

    /// The proxy and the gate look for themselves; what starts anew reads what is there.
    fn renew(&mut self, config: &Config, (): ()) -> Result<(), String> {
        let now = Instant::now();
        for job in &mut self.jobs {
            job.forgive();
            match job.schedule {
                Schedule::Always if job.is_running() => {}
                Schedule::Daily(_) => job.set_inboxes(inboxes(config), is_input, now),
                _ => job.request(now),
            }
        }
        Ok(())
    }
}

impl<'a> Supervisor<'a> {
    /// Prepares the loop for services and a configuration that has been checked; nothing is started yet.
    ///
    /// # Errors
    /// When the system gives no signal handlers.
    pub(super) fn new(
        jobs: Vec<Job>,
        services: &'a [Service],
        config: &Config,
        flag: Option<&Path>,
    ) -> Result<Self, Error> {
        let system = |act: &'static str| move |source: std::io::Error| Error::System { act, source };
        let mut environment = vec![("HUB_STATE_DIR", config.state_dir.clone())];
        if log::is_for_people() {
            environment.push((log::LINES, "short".into()));
        }
        if flag.is_some() {
            environment.push(("HUB_CONFIG", absolute(&Config::file_path(flag))?));
        }
        Ok(Self {
            services,
            jobs,
            // The running program itself, even if another one lies at its path by now.
            launch: Launch { program: "/proc/self/exe".into(), environment },
            signals: Signals::watch().map_err(system("receive signals"))?,
            looked: Instant::now(),
            usable: true,
            stopping: None,
        })
    }

    /// Runs until it is asked to stop; everything it started has ended when it returns.
    ///
    /// # Errors
    /// When the system does not let it wait any more.
    pub(super) fn run(mut self, renewal: &mut Renewal) -> Result<(), Error> {
        let ended = self.turn_until_stopped(renewal);
        if ended.is_err() {
            // Without its loop nobody is left to look after them.
            self.stop();
            self.jobs.iter_mut().for_each(|job| job.hurry(Instant::now()));
        }
        while self.jobs.iter().any(Job::is_running) {
            self.turn(renewal)?;
        }
        ended
    }

    fn turn_until_stopped(&mut self, renewal: &mut Renewal) -> Result<(), Error> {
        while self.stopping.is_none() {
            self.turn(renewal)?;
        }
        Ok(())
    }

    fn turn(&mut self, renewal: &mut Renewal) -> Result<(), Error> {
        let now = Instant::now();
        if self.stopping.is_none() {
            let usable = self.usable;
            let due = |job: &Job| may_start(job, usable) && job.due().is_some_and(|due| due <= now);
            self.jobs.iter_mut().filter(|job| due(job)).for_each(|job| job.start(&self.launch, now));
        }
        self.wait(renewal.due(self.looked)).map_err(|source| Error::System { act: "wait", source })?;
        let now = Instant::now();
        let asked = self.signals.asked().map_err(|source| Error::System { act: "receive signals", source })?;
        if let Some(asked) = asked {
            self.asked(asked, renewal, now);
        }
        for job in &mut self.jobs {
            job.reap(now, self.stopping.is_some());
            job.kill_if_late(now);
        }
        if self.stopping.is_some() {
            return Ok(());
        }
        if now >= renewal.due(self.looked) {
            self.looked = now;
            self.jobs.iter_mut().for_each(|job| job.look_at_queue(now));
            let looked = renewal.look(now, self);
            self.usable = renewal.refused().is_none();
            if looked == Look::Judged {
                // Whoever hears of this host hears of it now.
                self.jobs.iter_mut().filter(|job| job.name == watch::SERVICE).for_each(|job| job.request(now));
            }
        }
        Ok(())
    }

    /// Waits for the next thing to do, at most until the disk is to be looked at.
    fn wait(&self, look_at: Instant) -> std::io::Result<()> {
        let mut fds: Vec<PollFd<'_>> = self.signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).into();
        fds.extend(self.jobs.iter().filter_map(Job::ended_fd).map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = self.next_timer(look_at).map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn next_timer(&self, look_at: Instant) -> Option<Instant> {
        let kills = self.jobs.iter().filter_map(Job::kill_at);
        if self.stopping.is_some() {
            return kills.min();
        }
        let starts = self.jobs.iter().filter(|job| may_start(job, self.usable)).filter_map(Job::due);
        starts.chain(kills).chain([look_at]).min()
    }

    fn asked(&mut self, asked: Asked, renewal: &mut Renewal, now: Instant) {
        match (asked, self.stopping) {
            (Asked::Reload, None) => {
                log::info!("reload_asked");
                renewal.ask();
                self.jobs.iter().for_each(Job::reload);
            }
            (Asked::Reload, Some(_)) => {}
            (Asked::Stop, None) => {
                log::info!("stopping");
                self.stop();
            }
            // timeout(1) and some terminals send one request twice.
            (Asked::Stop, Some(since)) if now.duration_since(since) < IMPATIENCE => {}
            (Asked::Stop, Some(_)) => self.jobs.iter_mut().for_each(|job| job.hurry(now)),
        }
    }

    fn stop(&mut self) {
        let now = Instant::now();
        self.stopping = Some(now);
        self.jobs.iter_mut().for_each(|job| job.stop(now));
    }
}

/// A timer's run would only find the broken configuration, but for hub watch, which tells of it; what is always on goes on with
/// the one it has read, and is started again so that it says itself what is wrong.
fn may_start(job: &Job, configuration_usable: bool) -> bool {
    configuration_usable || job.schedule == Schedule::Always || job.name == watch::SERVICE
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::System { act: "see the working folder", source })
}
