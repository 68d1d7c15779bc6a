use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Host, Plan, is_template, template_of, unit_of};
use crate::gitops::Error;
use crate::state::Folder;

/// systemd-analyze reads the whole unit path; a slow card takes seconds.
const LIMIT: Duration = Duration::from_secs(60);

impl Host {
    /// Verifies all units that the commit wants, together, in a staging folder, before any is installed.
    ///
    /// Returns the warnings, one a line.
    ///
    /// # Errors
    /// `Refused` with what systemd-analyze(1) says, when a unit would not load.
    pub fn validate(&self, plan: &Plan, repository: &str) -> Result<Vec<String>, Error> {
        if plan.desired.files.is_empty() {
            return Ok(Vec::new());
        }
        let name = crate::state::repository_file_name(repository);
        let staging = self.gitops.sub_or_make("staging", 0o750)?;
        let path = staging.path().join(&name);
        let failed = |error: std::io::Error| crate::state::Error::io("empty", &path, error);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(failed)?;
        }
        let folder = staging.sub_or_make(&name, 0o750)?;
        for (file, wanted) in &plan.desired.files {
            let content = wanted.content.as_bytes();
            match file.split_once('/') {
                None if wanted.is_link => folder.make_link(file, Path::new(&wanted.content))?,
                None => folder.publish(file, content, 0o640)?,
                Some((drop_ins, name)) => folder.sub_or_make(drop_ins, 0o750)?.publish(name, content, 0o640)?,
            }
        }
        let result = self.verify(&folder, plan);
        std::fs::remove_dir_all(&path).map_err(failed)?;
        result
    }

    fn verify(&self, folder: &Folder, plan: &Plan) -> Result<Vec<String>, Error> {
        let files = &plan.desired.files;
        let units: BTreeSet<&str> = files.keys().map(|file| unit_of(file)).collect();
        // Drop-ins for a unit of a package are verified with that unit; where it is not there, they say nothing yet.
        let path_of = |unit: &str| {
            if files.contains_key(unit) {
                return Some(folder.path().join(unit));
            }
            let file = template_of(unit).unwrap_or_else(|| unit.to_owned());
            let mut folders = std::iter::once(self.folder.path()).chain(self.other_paths.iter().map(PathBuf::as_path));
            folders.find(|folder| folder.join(&file).is_file()).map(|folder| folder.join(&file))
        };
        let paths: Vec<PathBuf> = units.iter().filter_map(|unit| path_of(unit)).collect();
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        // The empty last part stands for the usual unit path.
        let unit_path = format!("{}:", folder.path().display());
        let mut command = self.manager.command("systemd-analyze", LIMIT).env("SYSTEMD_UNIT_PATH", unit_path);
        command = command.args(["verify", "--man=no", "--"]).name("systemd-analyze verify");
        command = command.args(paths);
        let output = command.run()?;
        let prefix = format!("{}/", folder.path().display());
        let said = crate::log::printable(&output.stderr).replace(&prefix, "");
        let about_ours = |line: &&str| units.iter().any(|unit| line.contains(stem(unit)));
        let lines: Vec<String> = said.split(" | ").filter(about_ours).map(str::to_owned).collect();
        if output.status.success() {
            return Ok(lines);
        }
        let said = if lines.is_empty() { said } else { lines.join("; ") };
        Err(Error::Refused(format!("units refused: they do not verify: {said}")))
    }
}

/// What systemd ignores in the files of a plan, among what systemd-analyze(1) warned of: unknown keys and sections, values
/// that it cannot read.
pub(in crate::gitops) fn ignored(warnings: &[String], plan: &Plan) -> Vec<String> {
    let is_ignored = |warning: &&String| {
        let Some((place, said)) = warning.split_once(": ") else { return false };
        let Some((file, line)) = place.rsplit_once(':') else { return false };
        plan.desired.files.contains_key(file) && line.parse::<u32>().is_ok() && said.to_lowercase().contains("ignor")
    };
    warnings.iter().filter(is_ignored).cloned().collect()
}

/// systemd-analyze speaks of a template as one of its instances.
fn stem(unit: &str) -> &str {
    if is_template(unit) { unit.find('@').map_or(unit, |at| &unit[..=at]) } else { unit }
}
