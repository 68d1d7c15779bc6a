use std::time::Duration;

use serde_json::{Map, Value};

use super::Error;
use super::collect::Context;
use super::payload::{Put, Report};
use crate::command::Command;

/// How long systemctl may take, and the system bus before it.
const LIMIT: Duration = Duration::from_secs(5);
const BUS_LIMIT: Duration = Duration::from_secs(2);
/// How many names are kept.
const NAMES: usize = 20;

/// Reads `systemctl list-units --failed --plain --no-legend` (systemctl(1)): the first word of each line.
pub(super) fn parse(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).collect()
}

/// Collects the `systemd` row: how many units have failed, and the first of their names. There is none where systemd
/// does not run, or where the tree is not this host's.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    if !context.roots.is_live() || !crate::systemd::is_running() {
        return Ok(Report::default());
    }
    // The bus costs a fraction of systemctl, and is not on every host; systemctl can do without, or says why not.
    let units = crate::systemd::failed_units(BUS_LIMIT).or_else(|_| by_systemctl())?;
    let mut row = Map::new();
    row.put("failed", units.len());
    row.put("units", units.into_iter().take(NAMES).map(Value::String).collect::<Vec<_>>());
    Ok(Report::row("systemd", row))
}

fn by_systemctl() -> Result<Vec<String>, Error> {
    let arguments = ["list-units", "--failed", "--all", "--full", "--plain", "--no-legend", "--no-pager"];
    let output = Command::new("systemctl", LIMIT).args(arguments).succeed().map_err(Error::Child)?;
    Ok(parse(&output.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_unit() {
        let text = "app.service loaded failed failed The app\nmnt-x.mount loaded failed failed /mnt/x\n";
        assert_eq!(parse(text), ["app.service", "mnt-x.mount"]);
        assert!(parse("").is_empty());
    }
}
