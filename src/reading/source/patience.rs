use std::time::Duration;

use crate::command::Backoff;
use crate::log;
use crate::reading::Error;

/// How long a side that is away, a restart or an election for instance, is waited for before the run gives up.
pub(in crate::reading) const PATIENCE: Duration = Duration::from_secs(45);

/// Asks the source until it answers, for as long as a database is waited for.
pub(in crate::reading) fn patiently<T>(mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let until = std::time::Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    loop {
        let error = match ask() {
            Err(error @ Error::SourceDown(_)) => error,
            other => return other,
        };
        let wait = backoff.next_wait();
        if std::time::Instant::now() + wait > until {
            return Err(error);
        }
        log::warn!("source_away", error = error.to_string(), again_in_ms = wait.as_millis() as u64);
        std::thread::sleep(wait);
    }
}
