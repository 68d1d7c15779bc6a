//! Whether a commit may be deployed by what others say of it at its forge: CI, reviewers, whoever has a word there.

use std::time::Duration;

use super::store::now;
use super::sync::{End, Run};
use super::turn::Place;
use super::units::digest;
use super::{Error, Outcome, Status};
use crate::config::Repository;
use crate::forge::board::{State, Word};
use crate::hint::hint;
use crate::log;
use crate::records::{Uptime, Waiting, short};
use crate::said::Forge;
use crate::text;

/// Who has said nothing for so long will not: not every commit has checks.
const SILENCE: Duration = Duration::from_secs(600);

/// A forge that is away for less is waited for as its checks are.
const OUTAGE: Duration = Duration::from_secs(600);

/// The same words have to be green for so long: a job that needs another one shows only when that one is done, and whoever is
/// fast is not the only one with a word.
const CALM: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Asks the forge what others say of a commit that is not live; an end where that is not green.
    ///
    /// # Errors
    /// Where the forge cannot be asked, or somebody says that the commit is not well.
    pub(super) fn wait_for_checks(
        &self,
        repository: &Repository,
        commit: &str,
        place: Place,
        outcome: &mut Outcome,
    ) -> Result<Option<End>, Error> {
        if !repository.wait_for_checks {
            return Ok(None);
        }
        let known = self.store.checked(repository).and_then(|checked| checked.waiting);
        // Of another boot the clock may have been another one, too.
        let known = known.filter(|known| known.commit == commit && age(known.begun.as_ref()).is_some());
        let mut waiting = known.unwrap_or_else(|| Waiting {
            commit: commit.to_owned(),
            since: now(),
            begun: Some(Uptime::now()),
            away: None,
            green: None,
        });
        let away = waiting.away.take();
        outcome.waiting = Some(waiting.clone());
        let cannot = |reason| Error::Checks { commit: short(commit).to_owned(), reason };
        let forge = Forge::of(self.config, repository).map_err(cannot)?;
        place.set_busy(false);
        let words = forge.words(commit);
        place.set_busy(true);
        let judged = match words {
            Ok(words) => judge(&words, &mut waiting),
            Err(error) => {
                let is_short = age(away.as_ref()).is_none_or(|age| age < OUTAGE) && !error.is_mine;
                waiting.away = away.or_else(|| Some(Uptime::now()));
                let error = cannot(error.reason);
                if is_short { Judged::Waits(format!("{error}; it is asked again")) } else { Judged::Unknown(error) }
            }
        };
        outcome.waiting = Some(waiting);
        let reason = match judged {
            Judged::Green => {
                log::info!("checks_green", repo = repository.name, commit = commit);
                return Ok(None);
            }
            Judged::Waits(reason) if self.dry_run => return Ok(Some((Status::Planned, Some(reason)))),
            Judged::Waits(reason) => return Ok(Some((Status::Waiting, Some(reason)))),
            Judged::Red(reason) => reason,
            Judged::Unknown(error) => return Err(error),
        };
        if !self.dry_run {
            self.store.set_bad(repository, commit, &reason, true)?;
        }
        let retry = hint("hub", &format!("retry {}", repository.name));
        Err(Error::Refused(format!("{reason}; it is skipped until the branch moves, or: {retry}")))
    }
}

enum Judged {
    Green,
    Waits(String),
    Red(String),
    Unknown(Error),
}

/// What the words of others come to, and since when they are green.
fn judge(words: &[Word], waiting: &mut Waiting) -> Judged {
    let named = |state| {
        let names: Vec<_> =
            words.iter().filter(|word| word.state == state).map(|word| text::shown(&word.name)).collect();
        (!names.is_empty()).then(|| text::listed(&names, ", "))
    };
    let green = waiting.green.take();
    let (commit, since) = (short(&waiting.commit), &waiting.since);
    if let Some(red) = named(State::Failure) {
        return Judged::Red(format!("checks of {commit} are red: {red}"));
    }
    if let Some(pending) = named(State::Pending) {
        return Judged::Waits(format!("{commit} waits since {since} for its checks: {pending}"));
    }
    if words.is_empty() {
        let is_over = age(waiting.begun.as_ref()).is_some_and(|age| age >= SILENCE);
        let reason = || format!("nobody has said anything of {commit} yet; after ten minutes it is deployed");
        return if is_over { Judged::Green } else { Judged::Waits(reason()) };
    }
    let mut names: Vec<&str> = words.iter().map(|word| word.name.as_str()).collect();
    names.sort_unstable();
    let names = digest(names.join("\n").as_bytes());
    let green = green.filter(|(since, known)| since.age().is_some() && *known == names);
    let (since, names) = green.unwrap_or_else(|| (Uptime::now(), names));
    let is_calm = since.age().is_some_and(|age| age >= CALM);
    let reason = || format!("the checks of {commit} are green; it is deployed if they still are after a minute");
    let judged = if is_calm { Judged::Green } else { Judged::Waits(reason()) };
    waiting.green = Some((since, names));
    judged
}

fn age(instant: Option<&Uptime>) -> Option<Duration> {
    instant.and_then(Uptime::age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_comes_before_pending_and_who_is_green_must_be_so_for_a_minute() {
        let word = |name: &str, state| Word { name: name.to_owned(), state };
        let ago = |seconds: i64| -> Uptime {
            let mut at = serde_json::to_value(Uptime::now()).unwrap();
            at["up"] = (at["up"].as_i64().unwrap() - seconds).into();
            serde_json::from_value(at).unwrap()
        };
        let seen = |begun: Option<Uptime>, green: Option<(Uptime, String)>| Waiting {
            commit: "0123456789abcdef".to_owned(),
            since: "1970-01-01T00:00:00Z".to_owned(),
            begun,
            away: None,
            green,
        };
        let said = |words: &[Word], waiting: &mut Waiting| match judge(words, waiting) {
            Judged::Green => "green".to_owned(),
            Judged::Waits(reason) | Judged::Red(reason) => reason,
            Judged::Unknown(error) => panic!("{error}"),
        };
        let (good, slow, bad) =
            (word("lint", State::Success), word("ci/\u{202e}x", State::Pending), word("test", State::Failure));
        let mut waiting = seen(Some(ago(36_000)), None);
        assert!(said(&[good.clone(), slow.clone()], &mut waiting).ends_with("for its checks: ci/\\u{202e}x"));
        assert_eq!(said(&[slow.clone(), good.clone(), bad], &mut waiting), "checks of 0123456789 are red: test");
        // A lint that has just ended, and then the test that needed it.
        let lint = std::slice::from_ref(&good);
        assert!(said(lint, &mut waiting).ends_with("after a minute"));
        let names = waiting.green.clone().unwrap().1;
        let since = |seconds| Some((ago(seconds), names.clone()));
        waiting.green = since(61);
        assert_eq!(said(lint, &mut waiting), "green");
        assert_eq!(said(lint, &mut waiting), "green", "and stays so, whatever became of its deployment");
        let both = [word("test", State::Success), good.clone()];
        assert!(said(&both, &mut waiting).ends_with("after a minute"), "another one is green, too");
        waiting.green.as_mut().unwrap().0 = ago(61);
        assert_eq!(said(&[good.clone(), word("test", State::Success)], &mut waiting), "green", "in any order");
        said(&[good.clone(), slow], &mut waiting);
        assert_eq!(waiting.green, None, "what is pending again begins anew");
        waiting.green = since(-600);
        assert!(said(lint, &mut waiting).ends_with("after a minute"));
        // Of silence only this boot's seconds count, whatever the time of day does.
        for (begun, is_over) in
            [(None, false), (Some(ago(540)), false), (Some(ago(660)), true), (Some(ago(-60)), false)]
        {
            assert_eq!(said(&[], &mut seen(begun.clone(), None)) == "green", is_over, "{begun:?}");
        }
    }
}
