use serde::{Deserialize, Serialize};

use super::{Found, Uptime};

/// What gitops-sync says about a repository.
#[derive(Clone, Debug, Serialize)]
pub struct Repository {
    /// `owner/name`
    pub repository: String,
    /// The branch that is deployed.
    pub branch: String,
    /// The commit that is live.
    pub deployed: Found<Deployed>,
    /// When it was last looked at.
    pub checked: Found<Checked>,
    /// The commit that failed.
    pub bad: Found<Bad>,
    /// Who suspended it.
    pub hold: Found<Hold>,
    /// A deployment that was begun and has not ended.
    pub open: Found<Open>,
}

impl Repository {
    /// What is known of it where what should hold it all is not there.
    pub(super) fn in_no<T>(root: &Found<T>, (name, branch): &(String, String)) -> Self {
        Self {
            repository: name.clone(),
            branch: branch.clone(),
            deployed: root.likewise(),
            checked: root.likewise(),
            bad: root.likewise(),
            hold: root.likewise(),
            open: root.likewise(),
        }
    }
}

/// `gitops/journal/<file>.json`, as far as readers want to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// The commit that is being made live.
    pub to: String,
    /// The last step that was begun.
    pub step: String,
    /// When, RFC 3339.
    pub started: String,
    /// Until when somebody has to confirm it, RFC 3339; none where nobody has to.
    #[serde(default)]
    pub confirm_until: Option<String>,
}

/// So long before its end a deployment on trial is over, and confirmed no more: what takes it back may fire early, and a
/// word that came too late must not be taken for one that was heard.
pub const LAST_WORD: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// `gitops/deployed/<file>.json`: the commit that is live.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployed {
    /// `owner/name`
    #[serde(default)]
    pub repository: String,
    pub commit: String,
    /// Since when, RFC 3339.
    pub at: String,
    /// What systemd ignores in its unit files, as `FILE:LINE: reason`; the first of many, and how many more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// The branch that it was deployed from; none where an older hub wrote it.
    #[serde(default)]
    pub branch: Option<String>,
}

/// `gitops/checked/<file>.json`: when a repository was last looked at, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// When, RFC 3339.
    pub at: String,
    /// What came of it, as in the run record.
    pub status: String,
    /// Why, where there is something to say.
    #[serde(default)]
    pub reason: Option<String>,
    /// Digest of the repository's table in hub.toml, by which it was looked at.
    #[serde(default)]
    pub configuration: String,
    /// Why the commit's units were not deployed, where they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_deployed: Option<String>,
    /// What of the commit the checkout does not have: submodules, files of Git LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Which kinds of it; empty where an older hub wrote it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out_kinds: Vec<LeftOut>,
    /// The commit that waits for what others say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// What a commit may name and git does not bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    Submodules,
    LargeFiles,
}

impl LeftOut {
    /// What git is to be told to bring it.
    pub fn arguments(self) -> &'static str {
        match self {
            Self::Submodules => "submodule update --init",
            Self::LargeFiles => "lfs pull",
        }
    }
}

/// A commit that waits for what others say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub commit: String,
    /// Since when, RFC 3339; for people.
    pub since: String,
    /// The same to count by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Uptime>,
    /// Since when the forge cannot be asked; none where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<Uptime>,
}

/// `gitops/bad/<file>.json`: the commit that failed and is not tried again until the branch moves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bad {
    pub commit: String,
    /// What failed.
    #[serde(default)]
    pub reason: String,
    /// When, RFC 3339.
    #[serde(default)]
    pub at: String,
    /// True where it was refused before anything of it ran.
    #[serde(default)]
    pub refused: bool,
    /// True where it could not even be fetched.
    #[serde(default)]
    pub unfit: bool,
}

/// `gitops/hold/<file>.json`: suspended deployments, as `hub hold` writes it. Whoever made it by hand may have said less.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hold {
    /// Since when, RFC 3339.
    pub since: String,
    /// Whose doing it is.
    pub by: String,
    pub reason: Option<String>,
    /// The commit that somebody went back from, where that is why; of several rollbacks in a row that of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub went_back_from: Option<String>,
}

impl Hold {
    /// Whose doing it is, in words.
    pub fn holder(&self) -> &str {
        if self.by.is_empty() { "an operator" } else { &self.by }
    }

    /// The same, and since when that is known: `ada since 2026-01-31T12:00:00.000Z`.
    pub fn told(&self) -> String {
        let since = if self.since.is_empty() { String::new() } else { format!(" since {}", self.since) };
        format!("{}{since}", self.holder())
    }
}

/// `gitops/confirmed/<file>.json`: that a deployment on trial stays, as `hub confirm` writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Confirmed {
    pub commit: String,
    /// When it was said, RFC 3339.
    pub at: String,
    /// By whom.
    #[serde(default)]
    pub by: String,
}

/// A request to look at a repository, in `proxy/queue/`, `gitops/active/` or `gitops/retry/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `owner/name`.
    pub repository: String,
    /// When the first delivery came that no run has taken up, RFC 3339.
    #[serde(default)]
    pub since: String,
    /// When the latest came, RFC 3339.
    #[serde(default)]
    pub latest: String,
    /// The newest delivery ids, the latest last, at most 50.
    #[serde(default)]
    pub deliveries: Vec<String>,
    /// How many deliveries came since `since`.
    #[serde(default)]
    pub count: u64,
    /// The commit that the latest delivery with one told of: a hint when to look again, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Why an entry of the queue was refused, beside it in `gitops/failed/`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What it was called.
    #[serde(default)]
    pub name: String,
    /// A sentence.
    pub reason: String,
    /// When, RFC 3339.
    #[serde(default)]
    pub at: String,
}

impl Refusal {
    /// What the file of an entry's reason ends with.
    pub const ENDING: &str = ".reason.json";
}
