use std::process::ExitCode;

/// How a program of the hub ends (75 and 78 are sysexits.h's EX_TEMPFAIL and EX_CONFIG).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for `gitops-sync`: everything is in sync.
    Done = 0,
    /// It could not be done, and something may be left to retry.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The new commit failed and the last good one is back in place.
    RolledBack = 3,
    /// The new commit failed and the last good one could not be restored whole.
    RollbackFailed = 4,
    /// A rule forbids it: signature, history, local changes, foreign unit.
    Refused = 5,
    /// Another run holds the lock.
    Busy = 75,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
