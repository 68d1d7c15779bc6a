//! Places for processes and threads are limited (TasksMax=, RLIMIT_NPROC), and others may have taken all of them: most often
//! a repository whose look ends soon. So they are waited for.

use std::io::{ErrorKind, Result};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// How long a place is waited for: longer than a look at a checkout may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_millis(100);

/// Tries to start something until there is a place for it, for so long at most.
pub(super) fn start<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + patience;
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// What `work` comes to within a time, for what has no limit of its own, or one for each of many steps; none where the time is
/// over. It then goes on, and nobody listens.
///
/// # Errors
/// When no thread can be started.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>> {
    let (tell, heard) = mpsc::channel();
    Builder::new().spawn(move || drop(tell.send(work())))?;
    Ok(heard.recv_timeout(limit).ok())
}

/// A thread that lives in a scope, where `std::thread::Scope::spawn` would panic for want of a place. What it is to do goes
/// to it when it is there; none comes of it where it never was told.
///
/// # Errors
/// When there is no place for it within 45 s, or no memory.
pub fn scoped_thread<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Option<T>>> {
    let (sender, thread) = start(PATIENCE, || {
        let (sender, told) = mpsc::channel();
        let body = move || told.recv().ok().map(|work: Box<dyn FnOnce() -> T + Send + 'scope>| work());
        Builder::new().spawn_scoped(scope, body).map(|thread| (sender, thread))
    })?;
    // It listens until it is told.
    let _ = sender.send(Box::new(work));
    Ok(thread)
}

/// The same for a thread of its own.
///
/// # Errors
/// As `scoped_thread`.
pub(super) fn thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<Option<T>>> {
    let (sender, thread) = start(PATIENCE, || {
        let (sender, told) = mpsc::channel();
        let body = move || told.recv().ok().map(|work: Box<dyn FnOnce() -> T + Send>| work());
        Builder::new().spawn(body).map(|thread| (sender, thread))
    })?;
    let _ = sender.send(Box::new(work));
    Ok(thread)
}
