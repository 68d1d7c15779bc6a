use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::units::{Line, Restart};
use crate::program::Exit;
use crate::records::versions::About;
use crate::records::{LeftOut, Looked, Uptime, Waiting};
use crate::text;

/// What of a commit that is live the checkout does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// In words, with the paths; the first of many.
    pub said: String,
    /// Which kinds of it; empty where an older hub wrote it down.
    pub kinds: Vec<LeftOut>,
}

impl Serialize for Missing {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.said)
    }
}

/// What became of one repository in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A new commit is live.
    Deployed,
    /// The commit of the branch is live already.
    Unchanged,
    /// Deployments are suspended by `hub hold`.
    Held,
    /// What others say of the commit is not green yet.
    Waiting,
    /// Dry run: this is what would be done.
    Planned,
    /// Another run is at work on it.
    Busy,
    /// It could not be done now.
    #[default]
    Failed,
    /// A rule forbids it.
    Refused,
    /// The commit failed; the last good one is live.
    RolledBack,
    /// The commit failed and the last good one could not be restored whole.
    RollbackFailed,
}

impl Status {
    /// The word in records and log lines.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::Unchanged => "unchanged",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Planned => "planned",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::RollbackFailed => "rollback_failed",
        }
    }

    /// The exit code for a run of this repository alone.
    pub fn exit(self) -> Exit {
        match self {
            Self::Deployed | Self::Unchanged | Self::Held | Self::Waiting | Self::Planned => Exit::Done,
            Self::Busy => Exit::Busy,
            Self::Failed => Exit::Error,
            Self::Refused => Exit::Refused,
            Self::RolledBack => Exit::RolledBack,
            Self::RollbackFailed => Exit::RollbackFailed,
        }
    }
}

/// One repository's result, as run record and `--json` show it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outcome {
    /// `owner/name`
    pub repository: String,
    pub status: Status,
    /// The commit that was live before; none where there was none.
    pub from: Option<String>,
    /// The commit of the branch; none where it could not be learnt.
    pub to: Option<String>,
    /// What the commit of the branch says of itself; none where nothing happened.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Who asked for it; none where nobody is known to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, for the person who reads it; none where there is nothing to say.
    pub reason: Option<String>,
    /// Dry run: each thing that would be done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// The unit files that change, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Line>,
    /// What was done to units, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<Restart>,
    /// What else happened to units meanwhile; it does not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub noticed: Vec<String>,
    /// Why the commit's units were not deployed, where they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_deployed: Option<String>,
    /// What of the commit the checkout does not have, where something is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Missing>,
    /// Of a rollback: the commit that the branch still has, and that is to be reverted.
    #[serde(skip)]
    pub went_back_from: Option<String>,
    /// Units that `--adopt` names and the commit does not have; empty where nobody came to look.
    #[serde(skip)]
    pub not_there: Vec<String>,
    /// Where plan and differences of unit files lie, in gitops-sync's folder.
    #[serde(skip)]
    pub plan_file: Option<String>,
    /// Whether the host was changed, be it that all was put back.
    #[serde(skip)]
    pub touched: bool,
    pub duration_ms: u64,
    /// Whether another try later may succeed.
    #[serde(skip)]
    pub retry: bool,
    /// Whether git should tidy the mirror.
    #[serde(skip)]
    pub is_untidy: bool,
    /// Since when what others say of the commit is waited for.
    #[serde(skip)]
    pub waiting: Option<Waiting>,
    /// Whether the branch lacks the commit that a delivery said it has.
    #[serde(skip)]
    pub is_behind: bool,
}

impl Outcome {
    /// A result that nothing is known of yet.
    pub fn new(repository: &str) -> Self {
        Self { repository: repository.to_owned(), ..Self::default() }
    }

    /// Whether what others say of the commit is waited for, and no longer than `limit`.
    pub fn is_waiting_newly(&self, limit: Duration) -> bool {
        let Some(waiting) = self.waiting.as_ref().filter(|_| self.status == Status::Waiting) else { return false };
        waiting.begun.as_ref().and_then(Uptime::age).is_some_and(|age| age < limit)
    }

    /// As the record of a run keeps it: of each list the first items and how many more there were.
    pub fn for_record(&self) -> Looked {
        let Self { repository, status, from, to, reason, .. } = self.clone();
        let mut more = if let Value::Object(more) = json!(self) { more } else { Map::new() };
        for list in more.values_mut().filter_map(Value::as_array_mut) {
            *list = text::first(list);
        }
        for key in ["repository", "status", "from", "to", "reason"] {
            more.remove(key);
        }
        Looked { repository, status: status.word().to_owned(), from, to, reason, more }
    }
}

/// The units that `--adopt` names and none of the commits has.
pub(super) fn nowhere(outcomes: &[Outcome]) -> Vec<&String> {
    let Some((first, others)) = outcomes.split_first() else { return Vec::new() };
    first.not_there.iter().filter(|unit| others.iter().all(|other| other.not_there.contains(unit))).collect()
}

/// The last result of each repository: how a run leaves it, which may have looked at it several times.
pub(super) fn last(outcomes: &[Outcome]) -> impl Iterator<Item = &Outcome> {
    outcomes.iter().enumerate().filter_map(|(place, outcome)| {
        let is_last = outcomes[place + 1..].iter().all(|later| later.repository != outcome.repository);
        is_last.then_some(outcome)
    })
}

/// The worst result of several repositories, in the order 4, 3, 5, 1, 75, 0.
pub(super) fn worst(outcomes: &[Outcome]) -> Exit {
    let order = [Exit::RollbackFailed, Exit::RolledBack, Exit::Refused, Exit::Error, Exit::Busy];
    let has = |exit: &Exit| last(outcomes).any(|outcome| outcome.status.exit() == *exit);
    order.into_iter().find(has).unwrap_or(Exit::Done)
}
