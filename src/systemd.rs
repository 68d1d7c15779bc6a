//! systemd as seen from inside a service: readiness, watchdog, sockets kept over a restart, and whether it runs this host
//! at all.
//!
//! `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$LISTEN_FDS` are absent outside systemd; every call is then a no-op.

use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::log;

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

/// Pings the watchdog. Call it from the loop whose health it stands for, never from a thread of its own.
pub fn watchdog_ping() {
    notify(&[NotifyState::Watchdog]);
}

/// How often to ping the watchdog: half of `WatchdogSec=`, or none where the unit has no watchdog.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
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
