use serde::{Deserialize, Serialize};

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
}
