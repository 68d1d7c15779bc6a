use std::collections::BTreeMap;
use std::time::Duration;

use super::show::{Shown, show};
use super::{Unit, Units, is_own, own_units};
use crate::command::{self, Command};

/// How long systemd gets to say how its units are.
const LIMIT: Duration = Duration::from_secs(5);

/// How the units of this host are, as far as anybody here wants to know.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// The hub's own.
    pub own: Units,
    /// All others that have failed.
    pub failed: Units,
    /// Those that were asked for by name.
    pub named: Units,
}

impl Looked {
    /// The hub's units that have failed.
    pub fn own_failed(&self) -> impl Iterator<Item = String> {
        self.own.iter().filter(|(_, unit)| is_failed(unit)).map(|(name, _)| name.clone())
    }

    /// How often systemd restarted those services that were asked for by name.
    pub fn restarts(&self) -> BTreeMap<String, u32> {
        self.named.iter().filter_map(|(name, unit)| Some((name.clone(), unit.restarts?))).collect()
    }
}

/// Asks systemd about the hub's units, all that have failed, and some more by their names: one call. Any user may.
///
/// # Errors
/// When `systemctl` is missing, does not answer in time, or cannot reach systemd.
pub fn look(more: &[String]) -> Result<Looked, command::Error> {
    // `--state=` is for the pattern only: names are shown however they are (systemctl(1)).
    let systemctl = Command::new("systemctl", LIMIT).args(["--state=failed", "--timestamp=unix"]);
    let units = own_units().chain(["*"]).map(str::to_owned).chain(more.iter().cloned());
    Ok(sorted(&show(systemctl, &Unit::PROPERTIES, units)?, more))
}

fn sorted(shown: &Shown, more: &[String]) -> Looked {
    let mut looked = Looked::default();
    for (name, unit) in shown.blocks().filter_map(Unit::read) {
        if more.contains(&name) {
            looked.named.insert(name.clone(), unit.clone());
        }
        if is_own(&name) {
            looked.own.insert(name, unit);
        } else if is_failed(&unit) {
            looked.failed.insert(name, unit);
        }
    }
    looked
}

fn is_failed(unit: &Unit) -> bool {
    unit.active == "failed"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_units_are_told_from_those_of_others_and_from_those_that_were_asked_for() {
        let text = "Id=proxy.service\nActiveState=failed\n\nId=app.service\nActiveState=failed\n\
                    StateChangeTimestamp=@1700000000\n\nId=web.service\nActiveState=active\nNRestarts=3\n";
        let looked = sorted(&Shown::of(text), &["web.service".to_owned(), "gone.service".to_owned()]);
        let names = |units: &Units| units.keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            (names(&looked.own), names(&looked.failed)),
            (vec!["proxy.service".into()], vec!["app.service".into()])
        );
        assert_eq!(looked.failed["app.service"].changed.unwrap().as_second(), 1_700_000_000);
        assert_eq!((looked.named.len(), looked.named["web.service"].restarts), (1, Some(3)));
    }
}
