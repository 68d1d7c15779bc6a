//! systemd as seen from inside a service: readiness, watchdog, and whether it runs this host at all.
//!
//! `$NOTIFY_SOCKET` and `$WATCHDOG_USEC` are absent outside systemd; every call is then a no-op.

use std::time::Duration;

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

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd_notify_failed", error = error.to_string());
    }
}
