use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::log;
use crate::state::Folder;

/// How often the queue is looked at where the system cannot tell that something came.
const BLIND: Duration = Duration::from_secs(1);

/// Wakes the thread that gives out the work: when another one has done its part, and when something is queued.
pub(super) struct Wake {
    bell: OwnedFd,
    /// None where there is no queue.
    queue: Option<Result<OwnedFd, Errno>>,
}

impl Wake {
    /// # Errors
    /// When the system gives no descriptor.
    pub fn new(queue: Option<&Folder>) -> std::io::Result<Self> {
        let watch = |folder: &Folder| -> Result<OwnedFd, Errno> {
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            // By descriptor: a path could be led elsewhere by the folder's owner.
            let path = format!("/proc/self/fd/{}", folder.fd().as_raw_fd());
            inotify::add_watch(&fd, path, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
            Ok(fd)
        };
        let queue = queue.map(watch);
        if let Some(Err(error)) = &queue {
            log::warn!("queue_not_watched", error = error.to_string(), effect = "it is looked at every second");
        }
        Ok(Self { bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, queue })
    }

    /// Wakes the waiting thread.
    pub fn ring(&self) {
        if let Err(error) = rustix::io::write(&self.bell, &1_u64.to_ne_bytes()) {
            log::error!("bell_not_rung", error = error.to_string());
        }
    }

    /// Waits until something happened, `longest` at most. Look at queue and threads afterwards.
    ///
    /// # Errors
    /// When the descriptors cannot be waited for.
    pub fn wait(&self, longest: Option<Duration>) -> std::io::Result<()> {
        let mut waited = vec![PollFd::new(&self.bell, PollFlags::IN)];
        let mut longest = longest;
        match &self.queue {
            Some(Ok(queue)) => waited.push(PollFd::new(queue, PollFlags::IN)),
            Some(Err(_)) => longest = Some(longest.map_or(BLIND, |longest| longest.min(BLIND))),
            None => {}
        }
        let time = longest.map(|longest| Timespec {
            tv_sec: longest.as_secs().cast_signed(),
            tv_nsec: longest.subsec_nanos().into(),
        });
        match poll(&mut waited, time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut events = [0; 4096];
        for fd in [Some(&self.bell), self.queue.as_ref().and_then(|queue| queue.as_ref().ok())].into_iter().flatten() {
            loop {
                match rustix::io::read(fd, &mut events) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
