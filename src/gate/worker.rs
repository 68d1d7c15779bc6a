//! The thread that runs `tailscale` for the loop, so that a daemon that hangs cannot delay the closing.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::machine::{Job, Report};
use super::tailscale::{Facts, Tailscale};

/// The thread, as the loop sees it. It lives as long as the process: what it starts dies with it.
pub(super) struct Worker {
    jobs: Sender<Job>,
    reports: Receiver<Report>,
    wake: UnixStream,
    facts: Arc<Mutex<Facts>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or no socket pair.
    pub fn start(mut tailscale: Tailscale) -> std::io::Result<Self> {
        let (jobs, orders) = channel();
        let (done, reports) = channel();
        let (wake, mut bell) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let facts: Arc<Mutex<Facts>> = Arc::default();
        let learnt = Arc::clone(&facts);
        let work = move || {
            for job in orders {
                let report = perform(&mut tailscale, job, &learnt);
                // Either fails only when the loop is gone, and then nobody waits for the report.
                if done.send(report).is_err() || bell.write_all(b"!").is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("tailscale".to_owned()).stack_size(256 << 10).spawn(work)?;
        Ok(Self { jobs, reports, wake, facts })
    }

    /// Gives it a job.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn run(&self, job: Job) -> Result<(), String> {
        self.jobs.send(job).map_err(|_| "the worker thread has ended".to_owned())
    }

    /// Becomes readable when there is a report.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The report that has come, if one has.
    pub fn report(&mut self) -> Option<Report> {
        let report = self.reports.try_recv().ok()?;
        // One bell a report; where it has not rung yet it makes one turn of the loop more.
        let _ = self.wake.read(&mut [0]);
        Some(report)
    }

    /// What it has learnt so far.
    pub fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn perform(tailscale: &mut Tailscale, job: Job, facts: &Mutex<Facts>) -> Report {
    let text = |error: Error| error.to_string();
    let report = match job {
        Job::Look => Report::Looked(tailscale.look().map_err(text)),
        Job::Prepare => Report::Prepared(tailscale.prepare().map_err(text)),
        Job::Close => Report::Closed(tailscale.close().map(drop).map_err(text)),
    };
    facts.lock().unwrap_or_else(PoisonError::into_inner).clone_from(tailscale.facts());
    report
}
