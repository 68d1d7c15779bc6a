use serde::{Deserialize, Serialize};

use crate::text;

/// How well something is; the worst one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is wrong, as far as it can be seen.
    #[default]
    Healthy,
    /// It works, and something needs a look; or part of it cannot be seen.
    Degraded,
    /// Something does not do its work.
    Failed,
}

impl Level {
    /// The worst of several reasons.
    pub fn of<'a>(reasons: impl IntoIterator<Item = &'a Reason>) -> Self {
        reasons.into_iter().map(|reason| reason.level).max().unwrap_or_default()
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// Why something is not healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What names it from one look to the next, such as `gitops/acme/site/rolled-back`: room, thing, and what is wrong.
    pub key: String,
    /// How bad it is.
    pub level: Level,
    /// A service, a repository, `funnel`, `queue`, `state` or `configuration`.
    pub about: String,
    /// A sentence.
    pub reason: String,
    /// What to run, or to read first.
    pub mend: Option<String>,
    /// Since when, RFC 3339; none where nobody wrote it down.
    pub since: Option<String>,
    /// What it comes of, where that is known: with the cause itself it is one notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comes_of: Option<Cause>,
}

/// What can make other things fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    FullDisk,
    ReadOnly,
    Memory,
    Configuration,
    Database,
}

impl Cause {
    /// What a failure of a unit comes of, by systemd's own words for its end (`Result=` and `ExecMainStatus=`).
    pub(super) fn of_end(result: &str, exit_status: Option<&str>) -> Option<Self> {
        // sysexits(3): EX_CONFIG, with which every program of the hub ends where its configuration is wrong.
        match (result, exit_status) {
            ("oom-kill", _) => Some(Self::Memory),
            (_, Some("78")) => Some(Self::Configuration),
            _ => None,
        }
    }

    /// What a failure comes of by a service's record of it, which has the words of git, a database or the kernel.
    pub(super) fn of_words(said: &str) -> Option<Self> {
        if text::is_full_disk(said) {
            Some(Self::FullDisk)
        } else if said.to_lowercase().contains("read-only file system") {
            Some(Self::ReadOnly)
        } else {
            None
        }
    }
}
