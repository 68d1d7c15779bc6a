//! What the child reads for the page of units: which the hub deployed, how hub watch saw them, what they use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::kinds::unit;
use crate::records::{Found, Look, Reader, UnitState};
use crate::state::Folder;

/// Of more units the first are shown.
const MOST: usize = 200;

/// The units that the hub deployed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Units {
    pub units: Vec<Unit>,
    /// How many more there are.
    pub left_out: usize,
    /// When hub watch looked, RFC 3339; an error is why nobody knows how the units are.
    pub seen: Result<String, String>,
    /// When what they use now was measured, RFC 3339; an error is why that is not known.
    pub measured: Result<String, String>,
}

/// A unit.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Unit {
    pub unit: String,
    /// Whose it is.
    pub repository: String,
    /// How it was when hub watch looked; none where that is not known.
    pub state: Option<UnitState>,
    /// Percent of a CPU, and bytes, when the host was measured last.
    pub now: [Option<f64>; 2],
}

/// Reads them.
///
/// # Errors
/// A sentence: why there is nothing to show.
pub fn read(config: &Config) -> Result<Units, String> {
    let root = match Folder::open(&config.state_dir) {
        Ok(root) => root,
        Err(error) if error.is_missing() => return Err("no service has left anything yet".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let mut reader = Reader::new(&root);
    let owners = reader.owners();
    if let Some(trouble) = reader.unreadable.first() {
        return Err(trouble.to_string());
    }
    let sample = reader.sample();
    let look: Found<Look> = reader.read("watch", Look::FILE);
    let files: BTreeMap<&str, &str> = (owners.iter())
        .flat_map(|(repository, files)| files.iter().map(move |file| (file.as_str(), repository.as_str())))
        .filter(|(file, _)| !file.contains('/'))
        .collect();
    // An instance shows up where it is measured: its template is no unit.
    let rows = sample.get().and_then(|sample| sample.metrics.get(unit::KIND.name)).and_then(|rows| rows.as_object());
    let instances =
        rows.into_iter().flatten().filter_map(|(name, _)| Some((name.clone(), *files.get(&*template(name)?)?)));
    let named = files.iter().filter(|(file, _)| !file.contains("@.")).map(|(file, of)| ((*file).to_owned(), *of));
    let all: BTreeMap<String, &str> = named.chain(instances).collect();
    let states = look.get().and_then(|look| look.deployed.as_ref());
    let number = |name: &str, key: &str| rows?.get(name)?.get(key)?.as_f64();
    let left_out = all.len().saturating_sub(MOST);
    let units: Vec<Unit> = (all.into_iter().take(MOST))
        .map(|(name, repository)| Unit {
            repository: repository.to_owned(),
            state: states.and_then(|states| states.get(&name)).cloned(),
            now: ["cpu_percent", "memory"].map(|key| number(&name, key)),
            unit: name,
        })
        .collect();
    let seen = match (&look, states) {
        (Found::There(look), Some(_)) => Ok(look.at.clone()),
        (Found::There(_), None) => Err("hub-watch could not ask systemd at its last look".to_owned()),
        (other, _) => Err(why(other, "hub-watch has not looked yet")),
    };
    let measured = sample.get().map(|sample| sample.time.clone());
    let measured = measured.ok_or_else(|| why(&sample, "system-metrics has measured nothing yet"));
    Ok(Units { units, left_out, seen, measured })
}

/// The file of an instance's template.
fn template(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    Some(format!("{prefix}@.{}", rest.rsplit_once('.')?.1))
}

fn why<T>(found: &Found<T>, missing: &str) -> String {
    match found {
        Found::Damaged(why) | Found::Unreadable(why) => why.clone(),
        Found::Missing | Found::There(_) => missing.to_owned(),
    }
}
