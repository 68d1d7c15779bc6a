//! How much a fetch may bring: what hub.toml allows, and what the disk has.

use super::Mirror;
use crate::gitops::Error;
use crate::hint::hint;
use crate::state;
use crate::text;

/// What a fetch leaves free, or a twentieth of the file system where that is less.
const KEPT: u64 = 64 << 20;
/// With less than this git cannot even write down what is new.
const SMALLEST: u64 = 256 << 10;

pub(super) struct Room {
    /// How long a file may become, in bytes.
    pub bytes: u64,
    /// Bytes that are free.
    free: u64,
    is_disk: bool,
}

/// A fetch that was too large.
pub(super) struct TooLarge {
    /// Whether it is the disk's fault.
    pub is_disk: bool,
    pub reason: String,
}

impl Room {
    /// # Errors
    /// `Full` when there is no room at all.
    pub fn find(mirror: &Mirror) -> Result<Self, Error> {
        let failed = |error: rustix::io::Errno| state::Error::io("inspect", mirror.mirrors.path(), error);
        let disk = rustix::fs::fstatvfs(mirror.mirrors.fd()).map_err(failed)?;
        let most = mirror.config.gitops.fetch_max;
        if disk.f_blocks == 0 {
            // A file system that does not say.
            return Ok(Self { bytes: most, free: u64::MAX, is_disk: false });
        }
        let [free, size] = [disk.f_bavail, disk.f_blocks].map(|blocks| blocks.saturating_mul(disk.f_frsize));
        let left = free.saturating_sub(KEPT.min(size / 20));
        let room = Self { bytes: most.min(left), free, is_disk: left < most };
        if left < SMALLEST { Err(Error::Full(room.full(mirror))) } else { Ok(room) }
    }

    /// What is said where git failed because something was too large for the limit or the disk. `received` is how much
    /// there was of it: a process that is ended at its limit says nothing itself.
    pub fn fault(&self, mirror: &Mirror, received: u64, said: &str) -> Option<TooLarge> {
        let is_over = received >= self.bytes || said.contains("File too large");
        if is_over && !self.is_disk {
            let (branch, url) = (&mirror.repository.branch, mirror.repository.remote.url());
            let reason = format!(
                "what {branch} at {url} brings is more than gitops.fetch_max, {}; if that is right, raise it in hub.toml and \
                 run: {}",
                shown(self.bytes),
                hint("hub", &format!("retry {}", mirror.repository.name))
            );
            return Some(TooLarge { is_disk: false, reason });
        }
        let is_full = is_over || text::is_full_disk(said);
        is_full.then(|| TooLarge { is_disk: true, reason: format!("{}: {said}", self.full(mirror)) })
    }

    fn full(&self, mirror: &Mirror) -> String {
        format!(
            "the file system of {} has no room for what is fetched from {}: {} free, of which the hub keeps some; free \
             some space",
            mirror.mirrors.path().display(),
            mirror.repository.remote.url(),
            shown(self.free)
        )
    }
}

/// A number of bytes as hub.toml has it.
fn shown(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}
