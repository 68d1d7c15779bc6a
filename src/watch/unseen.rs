//! What nobody could see at a look is as it was at the one before. Pure.

use serde::{Deserialize, Serialize};

use crate::health::Reason;

/// What is told while systemd does not report how the units are.
const NOT_SAID: &str = "units/unknown";
/// The first words of keys that are judged by what systemd says.
const ROOMS: [&str; 4] = ["unit", "units", "credentials", "gate"];
/// The ends of those that are about a service of the hub.
const ENDS: [&str; 8] =
    ["broken", "failed", "restarting", "stopped", "silent", "takes-nothing", "no-secret", "older-configuration"];

/// The reasons of the last look that one may miss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unseen {
    known: Vec<Reason>,
}

impl Unseen {
    /// The reasons of a look, with those of the one before that it could not see, the worst first.
    pub fn add(&mut self, mut reasons: Vec<Reason>) -> Vec<Reason> {
        if reasons.iter().any(|reason| reason.key == NOT_SAID) {
            let is_there = |known: &Reason| reasons.iter().any(|reason| reason.key == known.key);
            self.known.retain(|known| !is_there(known));
            reasons.append(&mut self.known);
            reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
        }
        self.known = reasons.iter().filter(|reason| is_by_units(&reason.key)).cloned().collect();
        reasons
    }
}

fn is_by_units(key: &str) -> bool {
    key != NOT_SAID && key.split_once('/').is_some_and(|(room, end)| ROOMS.contains(&room) || ENDS.contains(&end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Level;

    fn look(unseen: &mut Unseen, keys: &[&str]) -> Vec<String> {
        let reason = |key: &&str| Reason { key: (*key).to_owned(), level: Level::Failed, ..Reason::default() };
        let added = unseen.add(keys.iter().map(reason).collect());
        // Kept on the disk from one look to the next.
        *unseen = serde_json::from_str(&serde_json::to_string(unseen).unwrap()).unwrap();
        added.into_iter().map(|reason| reason.key).collect()
    }

    #[test]
    fn what_systemd_does_not_say_is_as_it_was_until_it_does() {
        let mut unseen = Unseen::default();
        let by_units =
            ["unit/a.service/failed", "proxy/restarting", "units/none-runs", "credentials/refused", "gate/unguarded"];
        let others = ["disk///full", "gitops/acme/site/failed", "reading/books/failed"];
        look(&mut unseen, &[&by_units[..], &others[..]].concat());
        for _ in 0..3 {
            assert_eq!(look(&mut unseen, &[NOT_SAID]), [&[NOT_SAID], &by_units[..]].concat());
        }
        // What it could see is not there twice.
        assert_eq!(look(&mut unseen, &[NOT_SAID, "gate/unguarded"]).len(), 1 + by_units.len());
        assert_eq!(look(&mut unseen, &["proxy/restarting"]), ["proxy/restarting"]);
        assert_eq!(look(&mut unseen, &[]), [] as [&str; 0]);
        assert_eq!(look(&mut unseen, &[NOT_SAID]), [NOT_SAID]);
    }
}
