//! Whether a commit may be deployed by what others say of it at its forge: CI, reviewers, whoever has a word there.

use std::time::Duration;

use super::run::{End, Run};
use super::turn::Place;
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
            since: log::now(),
            begun: Some(Uptime::now()),
            away: None,
        });
        let away = waiting.away.take();
        outcome.waiting = Some(waiting.clone());
        let cannot = |reason| Error::Checks { commit: short(commit).to_owned(), reason };
        let forge = Forge::of(self.config, repository).map_err(cannot)?;
        place.set_busy(false);
        let words = forge.words(commit);
        place.set_busy(true);
        let judged = match words {
            Ok(words) => judge(&words, &waiting),
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
            self.store.set_bad(repository, commit, &reason, (true, false))?;
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

/// What the words of others come to.
fn judge(words: &[Word], waiting: &Waiting) -> Judged {
    let named = |state| {
        let names: Vec<_> =
            words.iter().filter(|word| word.state == state).map(|word| text::shown(&word.name)).collect();
        (!names.is_empty()).then(|| text::listed(&names, ", "))
    };
    let (commit, since) = (short(&waiting.commit), &waiting.since);
    if let Some(red) = named(State::Failure) {
        return Judged::Red(format!("checks of {commit} are red: {red}"));
    }
    if let Some(pending) = named(State::Pending) {
        return Judged::Waits(format!("{commit} waits since {since} for its checks: {pending}"));
    }
    if words.is_empty() && age(waiting.begun.as_ref()).is_none_or(|age| age < SILENCE) {
        return Judged::Waits(format!("no check of {commit} is there yet; after ten minutes it is deployed"));
    }
    Judged::Green
}

fn age(instant: Option<&Uptime>) -> Option<Duration> {
    instant.and_then(Uptime::age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_comes_before_pending_and_silence_is_green_after_ten_minutes() {
        let word = |name: &str, state| Word { name: name.to_owned(), state };
        let ago = |seconds: i64| -> Uptime {
            let mut at = serde_json::to_value(Uptime::now()).unwrap();
            at["up"] = (at["up"].as_i64().unwrap() - seconds).into();
            serde_json::from_value(at).unwrap()
        };
        let seen = |begun: Option<Uptime>| Waiting {
            commit: "0123456789abcdef".to_owned(),
            since: "1970-01-01T00:00:00Z".to_owned(),
            begun,
            away: None,
        };
        let said = |words: &[Word], waiting: &Waiting| match judge(words, waiting) {
            Judged::Green => "green".to_owned(),
            Judged::Waits(reason) | Judged::Red(reason) => reason,
            Judged::Unknown(error) => panic!("{error}"),
        };
        let (good, slow, bad) =
            (word("lint", State::Success), word("ci/\u{202e}x", State::Pending), word("test", State::Failure));
        let waiting = seen(Some(ago(36_000)));
        assert_eq!(said(std::slice::from_ref(&good), &waiting), "green");
        assert!(said(&[good.clone(), slow.clone()], &waiting).ends_with("for its checks: ci/\\u{202e}x"));
        assert_eq!(said(&[slow, good, bad], &waiting), "checks of 0123456789 are red: test");
        // Of silence only this boot's seconds count, whatever the time of day does.
        for (begun, is_over) in
            [(None, false), (Some(ago(540)), false), (Some(ago(660)), true), (Some(ago(-60)), false)]
        {
            assert_eq!(said(&[], &seen(begun.clone())) == "green", is_over, "{begun:?}");
        }
    }
}
