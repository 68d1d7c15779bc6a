//! The plan of a deployment and what it changes in unit files, kept for whoever asks later: `plans/<repository>/`, beside the
//! history, whose lines name the file.

use super::plan::Plan;
use super::run::Run;
use super::{Error, Outcome, describe};
use crate::log;
use crate::records::{PlanFile, short};
use crate::state::{Folder, repository_file_name};

/// How many plans are kept of a repository.
const MOST: usize = 50;

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
        let folder = self.store.folder.sub_or_make(PlanFile::FOLDER, 0o750)?.sub_or_make(&stem, 0o750)?;
        let units = plan.units.as_ref().map(|(host, units)| host.differences(units)).transpose()?.unwrap_or_default();
        let name = format!("{at}-{}.json", short(&plan.to));
        let (repository, from, to) = (plan.repository.name.clone(), outcome.from.clone(), plan.to.clone());
        let kept = PlanFile { repository, at, from, to, plan: describe::steps(plan, None), units };
        folder.note_json(&name, &kept)?;
        forget_oldest(&folder)?;
        Ok(format!("{}/{stem}/{name}", PlanFile::FOLDER))
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
