//! An instant by a clock that nobody sets.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// So many seconds after which boot. By the time of day nothing can be waited for: a board without a clock of its own has that of
/// long ago until it hears another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    boot: String,
    up: i64,
}

impl Uptime {
    /// The present.
    pub fn now() -> Self {
        Self { boot: boot(), up: clock_gettime(ClockId::Boottime).tv_sec }
    }

    /// How long ago it was; none where the host was started anew since.
    pub fn age(&self) -> Option<Duration> {
        let now = Self::now();
        let passed = u64::try_from(now.up.checked_sub(self.up)?).ok()?;
        (self.boot == now.boot).then(|| Duration::from_secs(passed))
    }
}

/// What tells this boot from others; empty where the kernel does not say.
pub fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_boot_s_instants_have_an_age() {
        let ago = |seconds| Uptime { up: Uptime::now().up - seconds, boot: boot() };
        assert!(ago(0).age().is_some_and(|age| age.as_secs() < 60));
        assert!(ago(600).age().is_some_and(|age| (600..660).contains(&age.as_secs())));
        assert_eq!(ago(-600).age(), None, "it lies ahead");
        assert_eq!(Uptime { boot: "another".to_owned(), ..ago(600) }.age(), None);
        assert_eq!(Uptime { up: i64::MIN, ..ago(0) }.age(), None);
    }
}
