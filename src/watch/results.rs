//! The result on the commit: what a forge is to be told of commits, kept until it took it. Of each commit the newest word waits.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Repository};
use crate::forge::board::{Said, State};
use crate::host;
use crate::log;
use crate::records::{self, Checked, history};
use crate::said::{Forge, Unheard};
use crate::text;

/// Words of more commits do not wait: nobody looks at those before.
const MOST: usize = 20;
/// Older ones are news to nobody.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The shortest and the longest pause after a try that failed.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(50);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// A forge that is away for less is nothing to look after.
const PATIENCE: SignedDuration = SignedDuration::from_mins(15);
/// So long a refusal is shown that no other try mends.
const SHOWN: SignedDuration = SignedDuration::from_hours(24);
/// As much of a reason as is kept, in bytes; forges take less.
const LONGEST_REASON: usize = 1000;

/// What is to be said of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    commit: String,
    state: State,
    description: String,
    at: Timestamp,
}

/// What one repository's forge is to be told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// The oldest first, one of each commit.
    waiting: Vec<Verdict>,
    /// What it took, the newest last, one of each commit.
    told: Vec<Verdict>,
    not_before: Option<Timestamp>,
    /// How many tries failed since one that did not.
    tries: u32,
    /// Since when it does not hear, why, and whether another try alone mends that.
    failing: Option<(Timestamp, String, bool)>,
}

impl Results {
    /// Takes in what happened, and how the repository is now.
    pub fn look(&mut self, news: &[history::Event], known: &records::Repository, now: Timestamp) {
        if let Some(open) = known.open.get() {
            let why = match &open.confirm_until {
                Some(until) if open.step == "confirm" => format!("on trial until {until}"),
                _ => "being deployed".to_owned(),
            };
            self.put(&open.to, State::Pending, &why, now);
        }
        for event in news.iter().filter(|event| event.about == known.repository) {
            let Some(commit) = event.more.get("to").and_then(serde_json::Value::as_str) else { continue };
            let word = event.status.replace('_', " ");
            let state = match event.kind.as_str() {
                "deployed" => State::Success,
                "rolled_back" | "rollback_failed" | "refused" | "failed" => State::Failure,
                _ => continue,
            };
            let reason = event.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            self.put(commit, state, &format!("{word}{reason}"), now);
        }
        if known.open.get().is_some() {
            return;
        }
        let status = known.checked.get().map(|checked| checked.status.as_str());
        let waiting = known.checked.get().and_then(|checked| checked.waiting.as_ref());
        if let Some(waiting) = waiting.filter(|_| status == Some("waiting")) {
            self.put(&waiting.commit, State::Pending, "waits for the other checks", now);
        }
        if let (Some(deployed), Some("unchanged" | "deployed")) = (known.deployed.get(), status)
            && self.known(&deployed.commit).is_none_or(|known| known.state != State::Success)
        {
            self.put(&deployed.commit, State::Success, "deployed", now);
        }
        if let Some(bad) = known.bad.get().filter(|bad| self.known(&bad.commit).is_none()) {
            let word = if bad.refused { "refused" } else { "rolled back" };
            self.put(&bad.commit, State::Failure, &format!("{word}: {}", bad.reason), now);
        }
        if let Some(checked) = known.checked.get() {
            self.settle(checked, known.deployed.get().map(|deployed| deployed.commit.as_str()), now);
        }
    }

    /// Says the end of what is pending and at work no more: nobody will say another word on it.
    fn settle(&mut self, checked: &Checked, live: Option<&str>, now: Timestamp) {
        let waits = checked.waiting.as_ref().map(|waiting| waiting.commit.as_str());
        // A look that ended before it was pending is not its end.
        let is_over = |verdict: &&Verdict| checked.at.parse::<Timestamp>().is_ok_and(|at| at > verdict.at);
        let all = self.waiting.iter().chain(&self.told).filter(|verdict| verdict.state == State::Pending);
        let over = all.filter(is_over).map(|verdict| verdict.commit.clone());
        let over: Vec<_> = over.filter(|commit| ![waits, live].contains(&Some(commit))).collect();
        let why = match (records::Outcome::of_word(&checked.status), &checked.reason) {
            (records::Outcome::Failed, Some(reason)) => format!("{}: {reason}", checked.status.replace('_', " ")),
            _ => "not deployed: the branch has moved on, or deployments are held".to_owned(),
        };
        over.iter().for_each(|commit| self.put(commit, State::Failure, &why, now));
    }

    /// The last word on a commit.
    fn known(&self, commit: &str) -> Option<&Verdict> {
        self.waiting.iter().chain(&self.told).find(|verdict| verdict.commit == commit)
    }

    fn put(&mut self, commit: &str, state: State, description: &str, at: Timestamp) {
        // It becomes part of an address, and comes from a file.
        if !(7..=64).contains(&commit.len()) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return;
        }
        let description = text::shown(text::cut(description, LONGEST_REASON).as_ref()).into_owned();
        if self.known(commit).is_some_and(|known| known.state == state && known.description == description) {
            return;
        }
        self.waiting.retain(|verdict| verdict.commit != commit);
        self.waiting.push(Verdict { commit: commit.to_owned(), state, description, at });
        let more = self.waiting.len().saturating_sub(MOST);
        self.waiting.drain(..more);
    }

    /// True where something waits whose time has come.
    pub fn is_due(&mut self, now: Timestamp) -> bool {
        self.waiting.retain(|verdict| now.duration_since(verdict.at) < LONGEST);
        // A clock that was set back must not make the pause longer than it can be.
        let pauses = self.not_before.is_some_and(|time| time > now && time.duration_since(now) <= LONGEST_PAUSE);
        !self.waiting.is_empty() && !pauses
    }

    /// Says the oldest word that waits to `forge`, and takes down how that went.
    pub fn say(&mut self, repository: &Repository, forge: &Result<Forge, String>, now: Timestamp) {
        let Some(verdict) = self.waiting.first().cloned() else { return };
        let context = context(repository);
        let said = Said { context: &context, state: verdict.state, description: &verdict.description };
        let result = match forge {
            Ok(forge) => forge.say(&verdict.commit, &said),
            Err(reason) => Err(Unheard { is_mine: true, ..reason.clone().into() }),
        };
        self.tried(&repository.name, verdict, result, now);
    }

    fn tried(&mut self, name: &str, verdict: Verdict, result: Result<(), Unheard>, now: Timestamp) {
        let Err(unheard) = result else {
            log::info!("commit_status_sent", repo = name, commit = verdict.commit, state = verdict.description);
            self.done(verdict);
            (self.not_before, self.tries, self.failing) = (None, 0, None);
            return;
        };
        let error = unheard.reason;
        log::warn!("commit_status_not_sent", repo = name, commit = verdict.commit, error = error);
        // The last word on one commit is no beginning of what keeps the next one waiting.
        let goes_on = self.tries > 0 && !unheard.is_final;
        let since = self.failing.take().filter(|_| goes_on).map_or(now, |(since, ..)| since);
        self.failing = Some((since, error, unheard.is_mine || unheard.is_final));
        if unheard.is_final {
            self.tries = 0;
            // The next look would say it again.
            return self.done(verdict);
        }
        let pause = unheard.retry_after.unwrap_or_else(|| FIRST_PAUSE * 2_i32.pow(self.tries.min(10)));
        self.tries += 1;
        // Who asks for none, or for one that is over by this clock, is left alone for a while all the same.
        self.not_before = now.checked_add(pause.clamp(FIRST_PAUSE, LONGEST_PAUSE)).ok();
    }

    fn done(&mut self, verdict: Verdict) {
        for list in [&mut self.waiting, &mut self.told] {
            list.retain(|known| known.commit != verdict.commit);
        }
        self.told.push(verdict);
        let more = self.told.len().saturating_sub(MOST);
        self.told.drain(..more);
    }

    /// How many words wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Why the forge does not hear, where somebody has to look after that.
    pub fn failing(&self, now: Timestamp) -> Option<(Timestamp, &str)> {
        let (since, reason, is_mine) = self.failing.as_ref()?;
        if self.waiting.is_empty() && now.duration_since(*since).abs() >= SHOWN {
            return None;
        }
        (*is_mine || now.duration_since(*since) >= PATIENCE).then_some((*since, reason))
    }
}

/// Under which name this host's word stands at the forge. Two branches of one repository are two.
fn context(repository: &Repository) -> String {
    let label = repository.name.split_once('@').map_or(String::new(), |(_, label)| format!("@{label}"));
    text::cut(&text::shown(&format!("hub/{}{label}", host::name())), 200).into_owned()
}

/// What forges are told, by repository; those that are told nothing are forgotten.
pub type All = BTreeMap<String, Results>;

/// The repositories whose forges are told.
pub fn wanted(config: &Config) -> impl Iterator<Item = &Repository> {
    config.repositories.iter().filter(|repository| repository.status)
}
