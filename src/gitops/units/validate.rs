use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::unit_name::{is_template, template_of, unit_of};
use super::verdict::Verdict;
use super::{Host, Plan};
use crate::gitops::Error;
use crate::state::{EntryKind, Folder};

/// systemd-analyze reads the whole unit path; a slow card takes seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// The folder of the wanted units, and the one that stands for the units folder without what goes.
const WANTED: &str = "wanted";
const STAYING: &str = "staying";

impl Host {
    /// Verifies all units that the commit wants, together, in a staging folder, before any is installed: as they will be,
    /// without those that go. What stays on this host and requires what goes is verified too, whoever owns it.
    ///
    /// Returns the warnings, one a line.
    ///
    /// # Errors
    /// `Refused` with what systemd-analyze(1) says, when a unit would not load, or would miss what goes.
    pub fn validate(&self, plan: &Plan, repository: &str) -> Result<Vec<String>, Error> {
        // Drop-ins for a unit of a package are verified with that unit; where it is not there, they say nothing yet.
        let units: BTreeSet<&str> = plan.desired.files.keys().map(|file| unit_of(file)).collect();
        let mut units: Vec<String> = units.into_iter().map(str::to_owned).collect();
        let dependents = self.dependents_of_leaving(plan)?;
        if units.is_empty() && dependents.is_empty() {
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
        let result = self.stage(plan, &folder, &dependents).and_then(|()| {
            let own = units.len();
            units.extend(dependents);
            self.verify(plan, folder.path(), &units, own)
        });
        std::fs::remove_dir_all(&path).map_err(failed)?;
        result
    }

    /// The loaded units that cannot start without one that goes, and are not of the commit.
    ///
    /// # Errors
    /// `Refused` where a timer, socket or path stays as it is and starts what goes: it would start nothing.
    fn dependents_of_leaving(&self, plan: &Plan) -> Result<BTreeSet<String>, Error> {
        let mut leaving = Vec::new();
        for line in plan.leaving().filter(|line| !self.is_packaged(&line.file)) {
            leaving.extend(self.units_of(&line.file)?);
        }
        let (states, aliases) = (self.manager.show(&leaving)?, plan.desired.aliases());
        for (unit, state) in states.iter().filter(|(unit, _)| !aliases.contains_key(*unit)) {
            let changes = |trigger: &str| plan.takes_away(trigger) || plan.units().contains(trigger);
            if let Some(trigger) = state.triggered_by.iter().find(|trigger| !changes(trigger)) {
                let reason =
                    format!("units refused: {unit} is not in the commit any more, and {trigger} still starts it");
                return Err(Error::Refused(reason));
            }
        }
        let dependents = states.values().flat_map(|state| &state.required_by);
        let stays = |unit: &&String| !plan.takes_away(unit) && !plan.desired.has_unit(unit);
        Ok(dependents.filter(stays).cloned().collect())
    }

    fn stage(&self, plan: &Plan, folder: &Folder, dependents: &BTreeSet<String>) -> Result<(), Error> {
        let wanted = folder.sub_or_make(WANTED, 0o750)?;
        for (file, unit) in &plan.desired.files {
            let content = unit.content.as_bytes();
            match file.split_once('/') {
                None if unit.is_link => link(Path::new(&unit.content), &wanted.path().join(file))?,
                None => wanted.publish(file, content, 0o640)?,
                Some((drop_ins, name)) => wanted.sub_or_make(drop_ins, 0o750)?.publish(name, content, 0o640)?,
            }
        }
        // By these others may require them.
        for (alias, file) in plan.desired.aliases() {
            if !plan.desired.files.contains_key(&alias) && !is_template(&file) {
                link(Path::new(&file), &wanted.path().join(alias))?;
            }
        }
        if plan.leaving().next().is_none() {
            return Ok(());
        }
        let staying = folder.sub_or_make(STAYING, 0o750)?;
        self.stage_host(plan, self.folder.path(), &staying)?;
        // A unit of another folder is verified by its name here, so that its folder does not come before the others.
        for unit in dependents {
            let names = [Some(unit.clone()), template_of(unit)];
            let places =
                names.iter().flatten().flat_map(|name| self.other_paths.iter().map(move |path| path.join(name)));
            let at = staying.path().join(unit);
            if let Some(place) = places.into_iter().find(|place| place.is_file()).filter(|_| !at.exists()) {
                link(&place, &at)?;
            }
        }
        Ok(())
    }

    /// Links to all that is in a units folder of the host and does not go.
    fn stage_host(&self, plan: &Plan, host: &Path, staying: &Folder) -> Result<(), Error> {
        let real = Folder::open(host)?;
        for entry in real.entries(usize::MAX)? {
            let Some(name) = entry.name.to_str() else { continue };
            let target = real.link_target(&entry.name)?;
            // A drop-in or a link of the repository's own is in the wanted files, or goes.
            let of_plan = |file: &str| plan.files.keys().any(|planned| planned == file);
            let goes = |name: &str| plan.takes_away(name);
            let points = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
            if goes(name) || of_plan(name) || points.is_some_and(goes) {
                continue;
            }
            match target {
                // Relative links are relative to where they are.
                Some(target) => link(&host.join(target), &staying.path().join(name))?,
                None if entry.kind == EntryKind::Folder => {
                    let inner = real.sub(name)?;
                    let copy = staying.sub_or_make(name, 0o750)?;
                    for entry in inner.entries(usize::MAX)? {
                        let Some(file) = entry.name.to_str() else { continue };
                        if of_plan(&format!("{name}/{file}")) || goes(file) {
                            continue;
                        }
                        let target = inner.link_target(&entry.name)?.unwrap_or_else(|| PathBuf::from(file));
                        link(&inner.path().join(target), &copy.path().join(file))?;
                    }
                }
                None => link(&host.join(name), &staying.path().join(name))?,
            }
        }
        Ok(())
    }

    /// The first `own` units are the commit's, the others are dependents of what goes.
    fn verify(&self, plan: &Plan, folder: &Path, units: &[String], own: usize) -> Result<Vec<String>, Error> {
        let (wanted, staying) = (folder.join(WANTED), folder.join(STAYING));
        // The empty last part stands for the usual unit path.
        let mut unit_path = format!("{}:", wanted.display());
        if plan.leaving().next().is_some() {
            let is_units = |path: &&PathBuf| !self.other_paths.contains(path);
            let place = |path: &PathBuf| if is_units(&path) { staying.clone() } else { path.clone() };
            let paths: Vec<PathBuf> = self.unit_path.iter().map(place).collect();
            if !paths.contains(&staying) {
                unit_path += &format!("{}:", staying.display());
            }
            unit_path += &paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        }
        let mut command = self.manager.command("systemd-analyze", LIMIT).env("SYSTEMD_UNIT_PATH", unit_path);
        // With the level of each line, which tells what is wrong from what is only odd.
        command = command.env("SYSTEMD_LOG_TARGET", "console-prefixed");
        command = command.args(["verify", "--man=no", "--"]).name("systemd-analyze verify");
        let path_of = |unit: &String| {
            if plan.desired.files.contains_key(unit) {
                return Some(wanted.join(unit));
            }
            let file = template_of(unit).unwrap_or_else(|| unit.clone());
            let mut folders = std::iter::once(self.folder.path()).chain(self.other_paths.iter().map(PathBuf::as_path));
            folders.find(|folder| folder.join(&file).is_file()).map(|folder| folder.join(&file))
        };
        let paths: Vec<PathBuf> = units[..own].iter().filter_map(path_of).collect();
        if paths.is_empty() && units.len() == own {
            return Ok(Vec::new());
        }
        command = command.args(paths).args(units[own..].iter().map(|unit| staying.join(unit)));
        let output = command.run()?;
        let said = crate::log::printable(&output.stderr);
        let said =
            [&wanted, &staying].iter().fold(said, |said, path| said.replace(&format!("{}/", path.display()), ""));
        Verdict { plan, units: &units[..own], dependents: &units[own..], said: &said }.read(output.status.success())
    }
}

/// Links are not made durable: the staging folder is made anew each time.
fn link(target: &Path, at: &Path) -> Result<(), Error> {
    let made = std::os::unix::fs::symlink(target, at);
    made.map_err(|error| crate::state::Error::io("link", at, error).into())
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
