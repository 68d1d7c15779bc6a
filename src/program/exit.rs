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

impl Exit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Error,
        Self::Usage,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::Refused,
        Self::Busy,
        Self::Config,
    ];

    /// What it means in every program that says nothing else of it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "Done.",
            Self::Error => "It could not be done; the message has the reason.",
            Self::Usage => "The command line is wrong.",
            Self::RolledBack => "The new commit failed; what was live before is live again.",
            Self::RollbackFailed => "The new commit failed, and what was live before could not be restored whole.",
            Self::Refused => "A rule forbids it: signature, history, local changes, or a unit of somebody else's.",
            Self::Busy => "Another run is at work.",
            Self::Config => "The configuration is wrong.",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
