//! systemd as seen from inside a service: readiness, watchdog, sockets kept over a restart, whether it runs this host at
//! all, which of its units have failed, and how it reads unit files. No unit is started, stopped or changed here.
//!
//! `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$LISTEN_FDS` are absent outside systemd; every call is then a no-op.

pub mod install;
mod look;
mod own;
mod show;
pub mod syntax;
mod unit;

use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::log;

pub use look::{Looked, look};
pub use own::{GITOPS_SYNC, OWN, Own, is_own, own_units};
pub use show::{Block, show};
pub use unit::{Unit, Units};

/// True where systemd is the running init (sd_booted(3)).
pub fn is_running() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// Tells the service manager that the service can take work, with a sentence for `systemctl status`.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Changes the sentence that `systemctl status` shows.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Tells the service manager that the service has begun to stop.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The watchdog of the unit (`WatchdogSec=`); without one, nothing is due. It belongs to the loop whose health it stands
/// for, never to a thread of its own.
#[derive(Debug)]
pub struct Watchdog {
    /// A quarter of the limit: a turn that begins just before a ping is due may take as long again.
    every: Option<Duration>,
    pinged: Option<Instant>,
}

impl Watchdog {
    /// As the environment says it.
    pub fn from_environment() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 4), pinged: None }
    }

    /// Pings where it is time to.
    pub fn attend(&mut self, now: Instant) {
        let Some(every) = self.every else { return };
        if self.pinged.is_none_or(|at| now.duration_since(at) >= every) {
            notify(&[NotifyState::Watchdog]);
            self.pinged = Some(now);
        }
    }

    /// How long a turn of the loop may wait, where it would wait `longest`.
    pub fn turn(&self, longest: Duration) -> Duration {
        self.every.map_or(longest, |every| longest.min(every))
    }
}

/// Gives the service manager a copy of a listening socket, which it hands to the service's next process: clients that come
/// between the two wait in the kernel's queue instead of being refused. `systemctl stop` closes it. No more are kept than
/// `FileDescriptorStoreMax=` of the unit (systemd.service(5)).
pub fn keep_socket(name: &str, socket: BorrowedFd<'_>) {
    let states = [NotifyState::FdStore, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[socket]) {
        log::warn!("systemd_notify_failed", error = error.to_string());
    }
}

/// The listening TCP sockets that the service manager kept for this process, or made for it by a socket unit
/// (sd_listen_fds(3)). They are given once, and no child process inherits them. Call it before there is a second thread.
pub fn kept_sockets() -> Vec<TcpListener> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        match given.take_tcp_listener(index) {
            Ok(socket) => sockets.extend(socket),
            Err(error) => log::warn!("socket_not_taken", error = error.to_string()),
        }
    }
    sockets
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd_notify_failed", error = error.to_string());
    }
}
