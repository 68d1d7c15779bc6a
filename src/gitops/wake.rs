use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::command::timespec;
use crate::log;
use crate::state::Folder;

/// How often the queue is looked at where the system cannot tell that something came.
const BLIND: Duration = Duration::from_secs(1);

/// A run that is shorter does not watch the queue: the kernel takes 10 to 20 ms to close an inotify descriptor, half of what a
/// run takes that finds nothing new. What comes meanwhile is seen when a repository is done, or when this time is over.
const UNWATCHED: Duration = Duration::from_millis(100);

/// Wakes the thread that gives out the work: when another one has done its part, and when something is queued.
pub(super) struct Wake {
    bell: OwnedFd,
    /// None where there is no queue.
    queue: Option<OwnedFd>,
    began: Instant,
    watch: OnceLock<Result<OwnedFd, Errno>>,
}

impl Wake {
    /// # Errors
    /// When the system gives no descriptor.
    pub fn new(queue: Option<&Folder>) -> std::io::Result<Self> {
        let queue = queue.map(|folder| folder.fd().try_clone_to_owned()).transpose()?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell, queue, began: Instant::now(), watch: OnceLock::new() })
    }

    fn watch(&self, queue: &OwnedFd) {
        let watch = || -> Result<OwnedFd, Errno> {
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            // By descriptor: a path could be led elsewhere by the folder's owner.
            let path = format!("/proc/self/fd/{}", queue.as_raw_fd());
            inotify::add_watch(&fd, path, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
            Ok(fd)
        };
        if let Err(error) = self.watch.get_or_init(watch) {
            log::warn!("queue_not_watched", error = error.to_string(), effect = "it is looked at every second");
        }
    }

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
        let at_most = |limit: Duration| Some(longest.map_or(limit, |longest| longest.min(limit)));
        let longest = match (&self.queue, self.watch.get()) {
            (None, _) => longest,
            (Some(queue), None) => {
                let left = UNWATCHED.saturating_sub(self.began.elapsed());
                if left.is_zero() {
                    self.watch(queue);
                    // What came before is there to be seen.
                    return Ok(());
                }
                at_most(left)
            }
            (Some(_), Some(Ok(watch))) => {
                waited.push(PollFd::new(watch, PollFlags::IN));
                longest
            }
            (Some(_), Some(Err(_))) => at_most(BLIND),
        };
        match poll(&mut waited, longest.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut events = [0; 4096];
        let watch = self.watch.get().and_then(|watch| watch.as_ref().ok());
        for fd in std::iter::once(&self.bell).chain(watch) {
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
