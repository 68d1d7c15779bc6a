//! Whether a commit may be deployed by what others say of it at its forge: CI, reviewers, whoever has a word there.

use jiff::{SignedDuration, Timestamp};

use super::store::now;
use super::sync::{End, Run};
use super::turn::Place;
use super::{Error, Outcome, Status};
use crate::config::Repository;
use crate::forge::board::{State, Word};
use crate::hint::hint;
use crate::log;
use crate::records::{Waiting, short};
use crate::said::Forge;
use crate::text;

/// Who has said nothing for so long will not: not every commit has checks.
const SILENCE: SignedDuration = SignedDuration::from_mins(10);

/// A forge that is away for less is waited for as its checks are.
const OUTAGE: SignedDuration = SignedDuration::from_mins(10);

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
        let known = known.filter(|known| known.commit == commit);
        let (since, unheard) = known.map_or_else(|| (now(), None), |known| (known.since, known.unheard));
        let waiting = Waiting { commit: commit.to_owned(), since: since.clone(), unheard: None };
        outcome.waiting = Some(waiting.clone());
        let cannot = |reason| Error::Checks { commit: short(commit).to_owned(), reason };
        let forge = Forge::of(self.config, repository).map_err(cannot)?;
        place.set_busy(false);
        let words = forge.words(commit);
        place.set_busy(true);
        let judged = match words {
            Ok(words) => judge(&words, commit, &since),
            Err(error) => {
                let unheard = unheard.unwrap_or_else(now);
                let is_short = age(&unheard) < OUTAGE && !error.is_mine;
                outcome.waiting = Some(Waiting { unheard: Some(unheard), ..waiting });
                let error = cannot(error.reason);
                if !is_short {
                    return Err(error);
                }
                Judged::Waits(format!("{error}; it is asked again"))
            }
        };
        let reason = match judged {
            Judged::Green => {
                log::info!("checks_green", repo = repository.name, commit = commit);
                return Ok(None);
            }
            Judged::Waits(reason) if self.dry_run => return Ok(Some((Status::Planned, Some(reason)))),
            Judged::Waits(reason) => return Ok(Some((Status::Waiting, Some(reason)))),
            Judged::Red(reason) => reason,
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
}

/// What the words of others come to. `since` is when the commit was seen first.
fn judge(words: &[Word], commit: &str, since: &str) -> Judged {
    let named = |state| {
        let names: Vec<_> =
            words.iter().filter(|word| word.state == state).map(|word| text::shown(&word.name)).collect();
        (!names.is_empty()).then(|| text::listed(&names, ", "))
    };
    let commit = short(commit);
    if let Some(red) = named(State::Failure) {
        return Judged::Red(format!("checks of {commit} are red: {red}"));
    }
    if let Some(pending) = named(State::Pending) {
        return Judged::Waits(format!("{commit} waits since {since} for its checks: {pending}"));
    }
    if words.is_empty() && age(since) < SILENCE {
        return Judged::Waits(format!("nobody has said anything of {commit} yet; after ten minutes it is deployed"));
    }
    Judged::Green
}

/// How long ago an instant was. One that lies ahead is of a clock that was set back, which must hold up nothing for ever.
fn age(instant: &str) -> SignedDuration {
    instant.parse::<Timestamp>().map_or(SignedDuration::ZERO, |at| Timestamp::now().duration_since(at).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_comes_before_pending_and_silence_is_green_after_ten_minutes() {
        let word = |name: &str, state| Word { name: name.to_owned(), state };
        let ago = |minutes| log::rfc3339(Timestamp::now() - SignedDuration::from_mins(minutes));
        let said = |words: &[Word], since: &str| match judge(words, "0123456789abcdef", since) {
            Judged::Green => "green".to_owned(),
            Judged::Waits(reason) | Judged::Red(reason) => reason,
        };
        let (good, slow, bad) =
            (word("lint", State::Success), word("ci/\u{202e}x", State::Pending), word("test", State::Failure));
        assert_eq!(said(std::slice::from_ref(&good), &ago(0)), "green");
        assert!(said(&[good.clone(), slow.clone()], &ago(600)).ends_with("for its checks: ci/\\u{202e}x"));
        assert_eq!(said(&[slow, good, bad], &ago(0)), "checks of 0123456789 are red: test");
        assert!(said(&[], &ago(9)).contains("after ten minutes it is deployed"));
        assert_eq!(said(&[], &ago(11)), "green");
        assert!(said(&[], "damaged").contains("nobody has said anything"));
        assert_eq!(said(&[], &ago(-60)), "green", "a clock that was set back holds up nothing for ever");
    }
}
