//! What a test does that needs something this host does not offer: it says so, loudly, and passes; where everything
//! is required (`HUB_TEST_REQUIRE=all`, set by `contrib/test`) it fails.
//! Only that decision belongs here; finding out what is missing is the business of whoever needs it.

use std::io::Write;

/// Reports that `area` (for example "systemd tests") cannot run because of `reason`.
///
/// The line goes to the process's stderr itself, since libtest hides what a passing test prints.
///
/// # Panics
/// With `HUB_TEST_REQUIRE=all` in the environment.
pub fn skip(area: &str, reason: &str) {
    let line = format!("SKIPPED: {area}: {reason}; contrib/test provides it");
    assert!(std::env::var("HUB_TEST_REQUIRE").as_deref() != Ok("all"), "HUB_TEST_REQUIRE=all, but {line}");
    announce(&line);
}

/// Reports that `area` was switched off by `switch` (an environment setting); passes even where everything is required.
pub fn switched_off(area: &str, switch: &str) {
    announce(&format!("SKIPPED: {area}: switched off by {switch}; contrib/test provides it"));
}

fn announce(line: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
