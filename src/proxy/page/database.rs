use std::time::{Duration, Instant};

use crate::config::Config;
use crate::store::{Error, Look};

/// How long a server may take before it is asked to give up, in good time before the reader is killed. A question that is left
/// behind goes on in the server, and pages that are looked at again and again would take all of its connections.
const TIME: Duration = Duration::from_millis(1300);

/// Opens the database for what reads for a page.
///
/// # Errors
/// As `Look::open`.
pub(super) fn open(config: &Config) -> Result<Look, Error> {
    Look::open_until(config, Some(Instant::now() + TIME))
}
