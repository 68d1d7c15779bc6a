use std::time::Duration;

use super::{Host, Plan, is_template};
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
        let units: Vec<&String> = plan.desired.files.keys().filter(|file| !file.contains('/')).collect();
        if units.is_empty() {
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
                None => folder.publish(file, content, 0o640)?,
                Some((drop_ins, name)) => folder.sub_or_make(drop_ins, 0o750)?.publish(name, content, 0o640)?,
            }
        }
        let result = self.verify(&folder, &units);
        std::fs::remove_dir_all(&path).map_err(failed)?;
        result
    }

    fn verify(&self, folder: &Folder, units: &[&String]) -> Result<Vec<String>, Error> {
        // The empty last part stands for the usual unit path.
        let unit_path = format!("{}:", folder.path().display());
        let mut command = self.manager.command("systemd-analyze", LIMIT).env("SYSTEMD_UNIT_PATH", unit_path);
        command = command.args(["verify", "--man=no", "--"]).name("systemd-analyze verify");
        command = command.args(units.iter().map(|unit| folder.path().join(unit)));
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

/// systemd-analyze speaks of a template as one of its instances.
fn stem(unit: &str) -> &str {
    if is_template(unit) { unit.split_once('@').map_or(unit, |(stem, _)| stem) } else { unit }
}
