use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::OnDisk;
use super::manager::Snapshot;
use super::manifest::{Manifest, Owned, digest, saved_name};
use super::reach::{Job, is_left_out, reach};
use super::state::UnitState;
use super::unit_name::{concerns, is_template, template_of};
use super::{Applied, Host, Plan};
use crate::gitops::Error;
use crate::log;
use crate::records::boot;
use crate::state::{Folder, repository_file_name};

/// How the host was before a deployment touched its units: enough to put it back, whatever was reached.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::gitops) struct Before {
    /// What stood at each file's place.
    files: BTreeMap<String, Previous>,
    /// Enablement: the links that concern the units.
    links: Vec<(String, PathBuf)>,
    /// The manifest's entries of the files.
    owned: BTreeMap<String, Option<Owned>>,
    /// The units that the deployment itself may start, stop or restart.
    units: BTreeSet<String>,
    /// All units of the host that were active, each with the id of its present run; none where no unit is touched.
    active: BTreeMap<String, String>,
    failed: BTreeSet<String>,
    /// The boot that all this is of.
    #[serde(default)]
    boot: String,
    /// What the jobs of its units can have moved by the relations of then: systemd forgets a unit that is down, and with it
    /// who depends on whom.
    #[serde(default)]
    pub(super) reached: BTreeMap<String, Job>,
    /// All that was seen of the host; not in the journal, whose reader looks again.
    #[serde(skip)]
    pub(super) world: Snapshot,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Previous {
    Missing,
    /// The content lies in `saved/<repository>/` under this name.
    File(String),
    Link(PathBuf),
}

impl Before {
    /// True where a unit was active, and is none that runs once.
    pub(super) fn was_active(&self, unit: &str) -> bool {
        self.active.contains_key(unit)
    }

    /// Takes down whether a unit is active, or has failed.
    fn note(&mut self, unit: &str, state: &UnitState) {
        let is_process = [".slice", ".scope", ".device"].iter().any(|kind| unit.ends_with(kind));
        if state.is_failed() {
            self.failed.insert(unit.to_owned());
        } else if state.is_active() && !state.is_passing() && state.file_state != "masked" && !is_process {
            self.active.insert(unit.to_owned(), state.invocation.clone());
        }
    }

    /// Nothing but the units that a plan concerns.
    pub(super) fn of(plan: &Plan) -> Self {
        Self { units: plan.units(), ..Self::default() }
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &String> {
        self.active.keys()
    }

    /// The units that the deployment itself may have touched.
    pub(super) fn units(&self) -> &BTreeSet<String> {
        &self.units
    }

    /// True where the host has not been booted since.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot == boot()
    }

    /// What the deployment may have asked of its own units, the instances included that only a look shows.
    pub(super) fn jobs(&self, looks: &[&Snapshot]) -> Vec<(String, Job)> {
        let instances = looks.iter().flat_map(|look| look.units.keys()).filter(|unit| concerns(&self.units, unit));
        let units: BTreeSet<&String> = self.units.iter().chain(instances).filter(|unit| !is_template(unit)).collect();
        units.into_iter().map(|unit| (unit.clone(), Job::RESTART)).collect()
    }

    /// The id of a unit's run before.
    pub(super) fn invocation(&self, unit: &str) -> Option<&String> {
        self.active.get(unit)
    }

    /// True for a unit that was stopped and has not failed since. One that ends with an error when it is stopped has: its run
    /// is the one of before.
    pub(super) fn lost(&self, unit: &str, now: &UnitState) -> bool {
        !now.is_active() && (!now.is_failed() || self.invocation(unit) == Some(&now.invocation))
    }

    pub(super) fn had_failed(&self, unit: &str) -> bool {
        self.failed.contains(unit)
    }
}

impl Host {
    /// Takes down how the host is, for `restore_files` and `restore_jobs`. `others` are units that restart rules name.
    /// What stands in a file's place is copied to `saved/<repository>/`.
    pub fn before(&self, plan: &Plan, repository: &str, others: &[String]) -> Result<Before, Error> {
        let manifest = Manifest::read(&self.gitops)?;
        let mut before = Before::default();
        let saved = self.saved(repository)?;
        for (number, file) in plan.files.keys().enumerate() {
            before.owned.insert(file.clone(), manifest.files.get(file).cloned());
            if !plan.lines.iter().any(|line| line.file == *file && line.acts()) {
                continue;
            }
            let previous = match self.folder.look(file)? {
                OnDisk::Missing => Previous::Missing,
                OnDisk::Masked => Previous::Link("/dev/null".into()),
                OnDisk::Link(target) => Previous::Link(target),
                OnDisk::File(content) => {
                    let is_ours = manifest.files.get(file).is_some_and(|owned| owned.digest == digest(&content));
                    // What the hub installed is in git; another's version must not be lost with the next deployment.
                    let name = if is_ours { format!("undo-{number}") } else { saved_name(file, &content) };
                    saved.publish(&name, &content, 0o640)?;
                    Previous::File(name)
                }
                OnDisk::Other => {
                    let path = self.folder.path().join(file);
                    return Err(Error::Refused(format!("{} is no unit file; move it away", path.display())));
                }
            };
            before.files.insert(file.clone(), previous);
        }
        before.units = plan.units().into_iter().chain(others.iter().cloned()).collect();
        before.links = self.enablement.links(|name| concerns(&before.units, name))?;
        for template in before.units.clone().iter().filter(|unit| is_template(unit)) {
            before.units.extend(self.manager.instances(template)?);
        }
        self.look_before(&mut before)?;
        Ok(before)
    }

    /// Looks at the states that a deployment finds; nothing is asked where it touches no unit.
    pub fn look_before(&self, before: &mut Before) -> Result<(), Error> {
        if before.units.is_empty() {
            return Ok(());
        }
        before.boot = boot();
        before.world = self.manager.snapshot(before.units.iter().filter(|unit| !is_template(unit)))?;
        before.active.clear();
        before.failed.clear();
        for (unit, state) in before.world.units.clone() {
            before.note(&unit, &state);
        }
        before.reached = reach(&before.jobs(&[&before.world]), &[&before.world]);
        Ok(())
    }

    /// How the host is at this moment.
    pub fn look(&self) -> Result<Snapshot, Error> {
        self.manager.snapshot([]).map_err(Into::into)
    }

    /// How the host was before a deployment of `repository`, where others were deployed after `seen`: what became of their
    /// units since is none of its doing.
    pub fn before_others(&self, before: &Before, seen: &Snapshot, repository: &str) -> Result<Before, Error> {
        let manifest = Manifest::read(&self.gitops)?;
        let is_others = |unit: &String| {
            let file = template_of(unit).unwrap_or_default();
            let owned = manifest.files.get(unit).or_else(|| manifest.files.get(&file));
            owned.is_some_and(|owned| owned.repository != repository)
        };
        let mut before = before.clone();
        for (unit, state) in self.look()?.units.iter().filter(|(unit, _)| is_others(unit)) {
            let is_same = |old: &UnitState| old.invocation == state.invocation && old.active == state.active;
            if !seen.units.get(unit).is_some_and(is_same) {
                before.active.remove(unit);
                before.failed.remove(unit);
                before.note(unit, state);
            }
        }
        Ok(before)
    }

    /// Puts files, enablement and manifest back as they were. What the deployment started and was not active before is
    /// stopped first, while its file is still there; what refuses that, when the file is gone. Returns how the host was.
    pub fn restore_files(&self, before: &Before, repository: &str, back: &mut Applied) -> Result<Snapshot, Error> {
        let mut look = self.manager.snapshot(before.active.keys())?;
        let jobs = before.jobs(&[&look]);
        let moved = self.reach_all(&jobs, &mut look, &before.world)?;
        let (mut started, mut late, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (unit, state) in &look.units {
            let new = self.is_new(before, unit);
            if self.is_workers(unit) || !(new || self.came_up(before, unit, &moved)) {
                continue;
            }
            if state.is_failed() && !before.had_failed(unit) {
                failed.push(unit.clone());
            }
            if (state.is_active() || state.is_failed()) && (new || !state.is_passing()) {
                if state.can_stop {
                    started.push(unit.clone())
                } else if new {
                    late.push(unit.clone())
                }
            }
        }
        self.try_job("stop", &started, &[&look]);
        for unit in started.iter().chain(&late) {
            back.did(unit, "stopped", "its deployment is taken back", None);
        }
        self.put_files(before, repository)?;
        self.manager.reload()?;
        self.try_job("stop", &late, &[&look]);
        // What upheld a unit may have had it started again before it was stopped itself.
        let is_upheld = |unit: &&String| look.units.get(*unit).is_some_and(|state| state.upheld);
        let upheld: Vec<String> = started.iter().chain(&failed).filter(is_upheld).cloned().collect();
        let states = self.manager.show(&upheld)?;
        let is_up = |unit: &String| states.get(unit).is_some_and(UnitState::is_active);
        self.try_job("stop", &upheld.into_iter().filter(is_up).collect::<Vec<_>>(), &[&look]);
        // A unit that crashed until systemd gave up keeps its failure, and its name, until it is forgotten.
        failed.extend(started);
        self.forget_failures(&failed)?;
        Ok(look)
    }

    /// Starts the services and sockets that ran before and do not now, whatever stopped them, when the owner cannot reach the
    /// host any more.
    pub fn start_stopped(&self, before: &Before, back: &mut Applied) -> Result<(), Error> {
        let now = self.manager.snapshot(before.active())?;
        let is_stopped = |state: &UnitState| {
            state.load == "loaded" && state.can_start && !state.is_active() && !state.is_on_demand(&[&now.units])
        };
        let stopped: Vec<String> = before
            .active()
            .filter(|unit| (unit.ends_with(".service") || unit.ends_with(".socket")) && !self.is_workers(unit))
            .filter(|unit| now.units.get(*unit).is_some_and(is_stopped))
            .cloned()
            .collect();
        self.forget_failures(&stopped)?;
        self.try_job("start", &stopped, &[&now]);
        for unit in &stopped {
            back.did(unit, "started", "it ran before, and the host cannot be reached", None);
        }
        Ok(())
    }

    /// True for a unit whose file the deployment brought, and the instances of such a template.
    fn is_new(&self, before: &Before, unit: &str) -> bool {
        let missing = |file: &str| matches!(before.files.get(file), Some(Previous::Missing));
        (missing(unit) || template_of(unit).is_some_and(|template| missing(&template))) && !self.is_packaged(unit)
    }

    /// True for a unit that the deployment may have started, or whose failure it may be, and that was down before.
    pub(super) fn came_up(&self, before: &Before, unit: &str, moved: &BTreeMap<String, Job>) -> bool {
        if before.was_active(unit) || before.had_failed(unit) || is_left_out(unit) {
            return false;
        }
        // It may have got its first [Install], and been started for that.
        let owned = before.owned.get(unit).and_then(Option::as_ref);
        let is_enabled_first = owned.is_some_and(|owned| !owned.enabled_once);
        // Another default instance.
        let is_other_instance = template_of(unit).is_some_and(|template| before.files.contains_key(&template));
        if is_other_instance && !before.units.contains(unit) {
            return true;
        }
        // What another boot started, it would have started without the deployment.
        is_enabled_first || before.is_of_this_boot() && moved.contains_key(unit)
    }

    fn put_files(&self, before: &Before, repository: &str) -> Result<(), Error> {
        let saved = self.saved(repository)?;
        for (file, previous) in &before.files {
            self.folder.remove_unfinished(file)?;
            match previous {
                Previous::Missing => self.folder.remove(file)?,
                Previous::Link(target) => self.folder.link(file, target)?,
                Previous::File(name) => {
                    let content = saved.read(name, 1 << 20)?.ok_or_else(|| {
                        Error::Refused(format!("{} is gone; restore {file} by hand", saved.path().join(name).display()))
                    })?;
                    self.folder.install(file, &content)?;
                }
            }
        }
        let now = self.enablement.links(|name| concerns(&before.units, name))?;
        for (link, _) in now.iter().filter(|link| !before.links.contains(link)) {
            self.enablement.remove(link)?;
        }
        for (link, target) in before.links.iter().filter(|link| !now.contains(link)) {
            self.enablement.link(link, target)?;
        }
        let mut manifest = Manifest::read(&self.gitops)?;
        for (file, owned) in &before.owned {
            match owned {
                Some(owned) => manifest.files.insert(file.clone(), owned.clone()),
                None => manifest.files.remove(file),
            };
        }
        manifest.write(&self.gitops).map_err(Into::into)
    }

    /// Runs a verb on units whose failure does not end the way back: what is not as it was is named at its end.
    fn try_job(&self, verb: &str, units: &[String], looks: &[&Snapshot]) {
        if let Err(error) = self.job(verb, units, looks) {
            log::warn!("job_failed", verb = verb, error = error.to_string());
        }
    }

    fn saved(&self, repository: &str) -> Result<Folder, Error> {
        let saved = self.gitops.sub_or_make("saved", 0o750)?;
        saved.sub_or_make(&repository_file_name(repository), 0o750).map_err(Into::into)
    }
}
