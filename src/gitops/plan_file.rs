//! The plan of a deployment and what it changes in unit files, kept for whoever asks later: `plans/<repository>/`, beside the
//! history, whose lines name the file.

use serde::Serialize;

use super::plan::Plan;
use super::run::Run;
use super::units::Difference;
use super::{Error, Outcome, describe};
use crate::log;
use crate::records::short;
use crate::state::{Folder, repository_file_name};

/// The folder in gitops-sync's.
const FOLDER: &str = "plans";
/// How many plans are kept of a repository.
const MOST: usize = 50;

#[derive(Serialize)]
struct Kept<'a> {
    repository: &'a str,
    at: &'a str,
    from: Option<&'a String>,
    to: &'a str,
    /// What would be done, a line each.
    plan: Vec<String>,
    units: Vec<Difference>,
}

impl Run<'_> {
    /// Keeps a plan that is about to be carried out; where it lies in gitops-sync's folder. Without it the deployment goes on.
    pub(super) fn write_plan(&self, plan: &Plan, outcome: &Outcome) -> Option<String> {
        let written = self.keep_plan(plan, outcome);
        let warn = |error: Error| log::warn!("plan_not_kept", repo = plan.repository.name, error = error.to_string());
        written.map_err(warn).ok()
    }

    fn keep_plan(&self, plan: &Plan, outcome: &Outcome) -> Result<String, Error> {
        let at = log::now();
        let stem = repository_file_name(&plan.repository.name);
        let folder = self.store.folder.sub_or_make(FOLDER, 0o750)?.sub_or_make(&stem, 0o750)?;
        let units = plan.units.as_ref().map(|(host, units)| host.differences(units)).transpose()?.unwrap_or_default();
        let (repository, from) = (plan.repository.name.as_str(), outcome.from.as_ref());
        let kept = Kept { repository, at: &at, from, to: &plan.to, plan: describe::steps(plan, None), units };
        let name = format!("{at}-{}.json", short(&plan.to));
        folder.note_json(&name, &kept)?;
        forget_oldest(&folder)?;
        Ok(format!("{FOLDER}/{stem}/{name}"))
    }
}

/// Their names begin with their times.
fn forget_oldest(folder: &Folder) -> Result<(), Error> {
    let mut names: Vec<_> = folder.entries(10 * MOST)?.into_iter().map(|entry| entry.name).collect();
    names.sort();
    for name in names.iter().take(names.len().saturating_sub(MOST)) {
        folder.forget(name)?;
    }
    Ok(())
}
