use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use super::checkout::Checkout;
use super::git::{Change, short};
use super::journal::{Entry, Journal, Step};
use super::look::Look;
use super::mirror::{self, Mirror};
use super::store::Store;
use super::units::{self, Applied, Desired, Found, Host, Manager};
use super::{Error, Outcome, Status, commands, probe};
use crate::command::{self, Account, Prepared};
use crate::config::{Config, Repository};
use crate::exit::Exit;
use crate::log;
use crate::state::Folder;

/// How old a look at a checkout may be when its answer is used.
const FRESH: Duration = Duration::from_secs(1);

/// What a run has open.
pub(super) struct Run<'a> {
    pub config: &'a Config,
    pub store: Store,
    pub journal: Journal,
    /// Who fetches; asked for once, because the answer may come with a warning.
    pub mirror_user: OnceCell<Account>,
    pub dry_run: bool,
    pub adopt: &'a [String],
    pub user_units: bool,
    /// The manager that units go to, or why they go nowhere; asked for once.
    pub manager: OnceCell<Result<Found, String>>,
}

/// What a plan is made from.
struct Fetched<'a> {
    mirror: Mirror<'a>,
    checkout: Checkout<'a>,
    /// How the checkout looked a moment ago; none where nobody looked, or where it is too long ago.
    look: Option<Result<Look, Error>>,
    /// A transfer that waits for its revisions.
    transfer: Option<Prepared>,
    deployed: Option<String>,
    to: String,
}

/// What was learnt before anything is changed.
struct Plan<'a> {
    repository: &'a Repository,
    mirror: Mirror<'a>,
    checkout: Checkout<'a>,
    look: Look,
    transfer: Cell<Option<Prepared>>,
    /// The commit that is live, by the hub's own account.
    deployed: Option<String>,
    to: String,
    changes: Vec<Change>,
    units: Option<(Host, units::Plan)>,
    lines: Vec<String>,
}

impl Plan<'_> {
    /// True where the commit is live already, by record and checkout.
    fn is_live(&self) -> bool {
        self.deployed.as_deref() == Some(&self.to) && self.look.head.as_deref() == Some(&self.to)
    }

    fn manager(&self) -> Option<Manager> {
        self.units.as_ref().map(|(host, _)| host.manager)
    }
}

impl Run<'_> {
    /// Brings one repository in sync: fetch, verify, look, plan, journal, apply, probe, record or roll back.
    pub fn sync(&self, repository: &Repository) -> Outcome {
        let started = Instant::now();
        let mut outcome = Outcome::new(&repository.name);
        match self.attempt(repository, &mut outcome) {
            Ok((status, reason)) => {
                outcome.status = status;
                outcome.reason = reason;
            }
            Err(error) => {
                outcome.status = if matches!(error, Error::Refused(_)) { Status::Refused } else { Status::Failed };
                outcome.retry = outcome.status == Status::Failed;
                outcome.reason = Some(error.to_string());
            }
        }
        outcome.duration_ms = started.elapsed().as_millis() as u64;
        self.conclude(repository, &mut outcome);
        outcome
    }

    fn conclude(&self, repository: &Repository, outcome: &mut Outcome) {
        let word = outcome.status.word();
        if !self.dry_run
            && let Err(error) = self.store.set_checked(repository, word, outcome.reason.as_deref())
        {
            log::error!("state_not_written", repo = repository.name, error = error.to_string());
            if outcome.status.exit() == Exit::Done {
                outcome.status = Status::Failed;
                outcome.reason = Some(error.to_string());
            }
        }
        log::line!(
            if outcome.status.exit() == Exit::Done { log::Level::Info } else { log::Level::Error },
            word,
            repo = repository.name,
            from = outcome.from,
            to = outcome.to,
            reason = outcome.reason,
            units = outcome.not_deployed.as_ref().map(|reason| format!("not deployed: {reason}")),
            duration_ms = outcome.duration_ms,
        );
    }

    fn attempt(&self, repository: &Repository, outcome: &mut Outcome) -> Result<(Status, Option<String>), Error> {
        if let Some(entry) = self.journal.interrupted(repository)? {
            if self.dry_run {
                let to = short(&entry.to);
                let reason = format!("the deployment of {to} was interrupted; the next run undoes it first");
                return Ok((Status::Planned, Some(reason)));
            }
            if let Err(error) = self.recover(repository, &entry, outcome) {
                let back = entry.from.as_deref().map_or("nothing", short);
                let to = short(&entry.to);
                let reason = format!("the interrupted deployment of {to} cannot be taken back to {back}: {error}");
                return Ok((Status::RollbackFailed, Some(reason)));
            }
        }
        if let Some(hold) = self.store.hold(repository)? {
            let why = hold.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            let resume = format!("hub release {} resumes", repository.name);
            return Ok((Status::Held, Some(format!("held by {} since {}{why}; {resume}", hold.by, hold.since))));
        }
        let checkout = Checkout::find(repository)?;
        let mirror =
            Mirror::open(self.config, repository, &self.store.folder, self.mirror_user.get_or_init(mirror::user))?;
        let deployed = self.store.deployed(repository)?.map(|deployed| deployed.commit);
        outcome.from.clone_from(&deployed);
        let (began, missing) = (Instant::now(), checkout.is_missing());
        let mut transfer = None;
        let (to, look) = std::thread::scope(|scope| {
            let mut look = None;
            let to = mirror.fetch(|| {
                if !missing {
                    look = Some(scope.spawn(|| checkout.look_closely()));
                }
                if !missing && !self.dry_run {
                    transfer = Some(mirror.pack().prepare(Some(checkout.receive()))?);
                }
                Ok(())
            });
            (to, look.and_then(|thread| thread.join().ok()))
        });
        let to = to?;
        let is_fresh = began.elapsed() < FRESH;
        let (look, transfer) = (look.filter(|_| is_fresh), transfer.filter(|_| is_fresh && !mirror.is_new()));
        outcome.to = Some(to.clone());
        if let Some(old) = &deployed
            && !mirror.is_ancestor(old, &to)?
        {
            return Err(Error::Refused(format!(
                "the branch {} was rewritten: {} does not follow on the deployed {}; push a commit that does, or, if the \
                 rewrite is wanted, move the checkout there by hand and run: hub retry {} --rewritten",
                repository.branch,
                short(&to),
                short(old),
                repository.name
            )));
        }
        if let Some(bad) = self.store.bad(repository)?.filter(|bad| bad.commit == to) {
            let reason = format!(
                "{} failed at {} ({}) and is not tried again until the branch moves, or: hub retry {}",
                short(&to),
                bad.at,
                bad.reason,
                repository.name
            );
            return Ok((Status::RolledBack, Some(reason)));
        }
        if deployed.as_deref() != Some(&to) {
            mirror.verify(deployed.as_deref(), &to)?;
        }
        let plan = self.plan(repository, Fetched { mirror, checkout, look, transfer, deployed, to }, outcome)?;
        if outcome.from.is_none() {
            outcome.from.clone_from(&plan.look.head);
        }
        if plan.is_live() && plan.units.as_ref().is_none_or(|(_, units)| units.is_idle()) {
            if let (false, Some((host, units))) = (self.dry_run, &plan.units) {
                host.record(units, &[])?;
            }
            return Ok((Status::Unchanged, None));
        }
        if self.dry_run {
            outcome.plan = self.described(&plan)?;
            return Ok((Status::Planned, None));
        }
        self.deploy(&plan, outcome)
    }

    /// Looks at the checkout and the host and says what would be done.
    fn plan<'a>(
        &self,
        repository: &'a Repository,
        fetched: Fetched<'a>,
        outcome: &mut Outcome,
    ) -> Result<Plan<'a>, Error> {
        let Fetched { mirror, checkout, look, transfer, deployed, to } = fetched;
        let mut lines = Vec::new();
        let path = repository.path.display();
        let missing = checkout.is_missing();
        if missing && checkout.is_occupied() {
            return Err(Error::Refused(format!("{path} is not empty and no git checkout; move its content away")));
        }
        let units = self.plan_units(repository, &mirror, &to, outcome)?;
        let look = if missing {
            lines.push(format!("make the checkout {path} for user {}", checkout.user.name));
            if !self.dry_run {
                checkout.make()?;
            }
            Look::of_new(&repository.branch)
        } else {
            look.unwrap_or_else(|| checkout.look_closely())?
        };
        if let Some(head) = &look.head
            && !mirror.is_ancestor(head, &to)?
        {
            return Err(Error::Refused(format!(
                "{path} has commits that the branch {} does not have ({}); push them, or drop them with: \
                 git -C {path} reset --hard {}",
                repository.branch,
                short(head),
                short(deployed.as_deref().unwrap_or(&to))
            )));
        }
        let changes = match &look.head {
            Some(head) if *head == to => Vec::new(),
            head => mirror.changes(head.as_deref(), &to)?,
        };
        if !missing {
            checkout.check(&look, &changes)?;
        }
        let transfer = Cell::new(transfer);
        Ok(Plan { repository, mirror, checkout, look, transfer, deployed, to, changes, units, lines })
    }

    /// Compares the commit's units with the host; none where the repository has none or they are not deployed here.
    fn plan_units(
        &self,
        repository: &Repository,
        mirror: &Mirror,
        to: &str,
        outcome: &mut Outcome,
    ) -> Result<Option<(Host, units::Plan)>, Error> {
        if repository.units.is_empty() {
            return Ok(None);
        }
        let desired = Desired::read(mirror, to, &repository.units)?;
        let none = desired.files.is_empty() && desired.problems.is_empty();
        if none && !Host::has_units_of(&self.store.folder, &repository.name)? {
            return Ok(None);
        }
        let manager = match self.manager() {
            Ok(manager) => manager,
            Err(reason) => {
                outcome.not_deployed = Some(reason);
                return Ok(None);
            }
        };
        let host = Host::open(manager, self.config, self.store.folder.path())?;
        let plan = host.plan(repository, to, desired, self.adopt)?;
        outcome.units = plan.lines.iter().filter(|line| line.action != units::Action::Keep).cloned().collect();
        Ok(Some((host, plan)))
    }

    pub fn manager(&self) -> Result<&Found, String> {
        self.manager.get_or_init(|| Manager::find(self.user_units)).as_ref().map_err(String::clone)
    }

    /// The plan in words, for a dry run.
    fn described(&self, plan: &Plan) -> Result<Vec<String>, Error> {
        let mut lines = plan.lines.clone();
        let shown = plan.changes.iter().take(20);
        lines.extend(shown.map(|change| format!("{} {}", char::from(change.kind), log::printable(&change.path))));
        if plan.changes.len() > 20 {
            lines.push(format!("and {} more files", plan.changes.len() - 20));
        }
        for (step, argv) in [("build", &plan.repository.build), ("after", &plan.repository.after)] {
            if !argv.is_empty() && !plan.is_live() {
                lines.push(format!("{step}: {}", argv.join(" ")));
            }
        }
        for rule in &plan.repository.restart {
            if let Some(file) = rule.matching(&plan.changes) {
                lines.push(format!("restart where running: {} ({file} changes)", rule.units.join(" ")));
            }
        }
        if let Some((host, units)) = &plan.units {
            match host.validate(units, &plan.repository.name) {
                Ok(warnings) => lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}"))),
                // The commit's files and what the build makes may be what the units miss now.
                Err(Error::Refused(reason)) if !plan.is_live() => {
                    lines.push(format!("before the commit's files are in place: {reason}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(lines)
    }

    /// Applies a plan, and takes it back when a step fails.
    fn deploy(&self, plan: &Plan, outcome: &mut Outcome) -> Result<(Status, Option<String>), Error> {
        let repository = plan.repository;
        let from = plan.look.head.as_deref();
        let before = match &plan.units {
            Some((host, units)) => {
                let others: Vec<String> = repository.restart.iter().flat_map(|rule| rule.units.clone()).collect();
                Some(host.before(units, &repository.name, &others)?)
            }
            None => None,
        };
        let mut entry = self.journal.begin(repository, from, &plan.to, before)?;
        let mut applied = Applied::new(&repository.name, outcome.from.as_deref(), Some(&plan.to));
        let result = self.apply(plan, &mut entry, &mut applied);
        outcome.restarts.append(&mut applied.actions);
        let Err(error) = result else {
            return self.keep(plan, &applied).map(|()| (Status::Deployed, None));
        };
        log::error!("deployment_failed", repo = repository.name, commit = plan.to, error = error.to_string());
        if plan.manager().is_some_and(Manager::is_leaving) {
            // Not the commit's fault: jobs are refused and commands killed. The journal stays for the next run.
            let reason = format!("the host is shutting down; the deployment is begun anew at the next start ({error})");
            return Ok((Status::Failed, Some(reason)));
        }
        match error {
            // git refused the fast-forward before it touched anything.
            Error::Refused(_) | Error::InUse(_) if entry.step == Step::Checkout => {
                self.journal.end(repository)?;
                return Err(error);
            }
            // Before anything else, so that the commit is not tried again whatever happens while it is taken back.
            Error::Step { .. } => self.store.set_bad(repository, &plan.to, &error.to_string())?,
            // The only error after which a git that was killed may have left its locks.
            Error::Command(command::Error::Deadline { .. }) => plan.checkout.remove_stale_locks()?,
            _ => {}
        }
        let host = plan.units.as_ref().map(|(host, _)| host);
        if let Err(cause) = self.take_back(repository, &plan.checkout, host, &entry, false, outcome) {
            // The journal stays: the next run tries again to take it back.
            let back = from.map_or("nothing", short);
            return Ok((Status::RollbackFailed, Some(format!("{error}; going back to {back} failed too: {cause}"))));
        }
        let end = match error {
            Error::Step { .. } => {
                let back = from.map_or_else(|| "an empty checkout".to_owned(), |from| short(from).to_owned());
                Ok((Status::RolledBack, Some(format!("{error}; back on {back}"))))
            }
            // The commit is not to blame when git could not apply it here.
            error => Err(error),
        };
        self.journal.end(repository)?;
        end
    }

    fn apply(&self, plan: &Plan, entry: &mut Entry, applied: &mut Applied) -> Result<(), Error> {
        let (repository, checkout) = (plan.repository, &plan.checkout);
        let head = plan.look.head.as_deref();
        let live = plan.is_live();
        if head != Some(&plan.to) {
            let transfer = match plan.transfer.take() {
                Some(transfer) => transfer,
                None => plan.mirror.pack().prepare(Some(checkout.receive()))?,
            };
            transfer.finish(&Mirror::revisions(head, &plan.to))?;
            checkout.fast_forward(&plan.look, &plan.to)?;
        }
        if !repository.build.is_empty() && !live {
            self.journal.reach(repository, entry, Step::Build)?;
            commands::run(self.config, repository, checkout, plan.manager(), "build", &plan.to)?;
        }
        if let (Some((host, units)), Some(before)) = (&plan.units, entry.units.clone()) {
            if !units.is_idle() {
                self.journal.reach(repository, entry, Step::Verify)?;
                for warning in host.validate(units, &repository.name)? {
                    log::warn!("unit_warning", repo = repository.name, warning = warning);
                }
            }
            if !units.is_idle() || !repository.restart.is_empty() {
                self.journal.reach(repository, entry, Step::Units)?;
                host.apply(units, &repository.restart, &plan.changes, &before, applied)?;
            }
        }
        if !repository.after.is_empty() && !live {
            self.journal.reach(repository, entry, Step::After)?;
            commands::run(self.config, repository, checkout, plan.manager(), "after", &plan.to)?;
        }
        self.probe(plan, entry, applied)
    }

    fn probe(&self, plan: &Plan, entry: &mut Entry, applied: &Applied) -> Result<(), Error> {
        let repository = plan.repository;
        if repository.health.url.is_none() && !applied.has_watched() {
            return Ok(());
        }
        self.journal.reach(repository, entry, Step::Health)?;
        let grace = Duration::from_secs(repository.health.grace_seconds);
        let started = Instant::now();
        if let (Some((host, _)), Some(before)) = (&plan.units, &entry.units) {
            host.watch(applied, before, grace)?;
        }
        probe::wait_healthy(repository, started + grace)
    }

    /// Makes a deployment that went well the last good one.
    fn keep(&self, plan: &Plan, applied: &Applied) -> Result<(), Error> {
        let repository = plan.repository;
        let forwarded = plan.look.head.as_ref() != Some(&plan.to);
        // A fast-forward is on disk already; what commands made, or somebody else's commit, may not be.
        if !forwarded || !repository.build.is_empty() || !repository.after.is_empty() {
            Folder::open(&repository.path)?.sync_file_system()?;
        }
        if let Some((host, units)) = &plan.units {
            if !units.is_idle() {
                host.sync()?;
            }
            host.record(units, &applied.enabled)?;
        }
        self.store.add_own(&applied.own)?;
        self.store.set_deployed(repository, &plan.to)?;
        self.journal.close(repository)?;
        Ok(())
    }

    /// Takes a deployment back, however far it came: files and enablement of units, the checkout, what commands made,
    /// the running services.
    fn take_back(
        &self,
        repository: &Repository,
        checkout: &Checkout,
        host: Option<&Host>,
        entry: &Entry,
        interrupted: bool,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let mut back = Applied::new(&repository.name, Some(&entry.to), entry.from.as_deref());
        let units = host.zip(entry.units.as_ref());
        if let Some((host, before)) = units.filter(|_| entry.step >= Step::Units) {
            let restored = host.restore_files(before, &repository.name, &mut back);
            outcome.restarts.append(&mut back.actions);
            restored?;
        }
        if !checkout.is_missing() {
            checkout.undo(entry.from.as_deref(), &entry.to)?;
            Folder::open(&repository.path)?.sync_file_system()?;
        }
        if self.store.deployed(repository)?.is_some()
            && let Some(good) = &entry.from
        {
            // What these commands made for the failed commit is made again for the last good one.
            for (step, name) in [(Step::Build, "build"), (Step::After, "after")] {
                // Of an interrupted command nobody knows how far it came.
                if step < entry.step || interrupted && step == entry.step {
                    let manager = host.map(|host| host.manager);
                    commands::run(self.config, repository, checkout, manager, name, good)?;
                }
            }
        }
        // At any step: a unit that came up meanwhile, after a power cut for one, came up on the failed commit's files.
        let Some((host, before)) = units else { return Ok(()) };
        let restored = host.restore_jobs(before, &mut back);
        outcome.restarts.append(&mut back.actions);
        restored
    }

    /// Undoes a deployment that was cut off.
    fn recover(&self, repository: &Repository, entry: &Entry, outcome: &mut Outcome) -> Result<(), Error> {
        log::warn!("interrupted_deployment_undone", repo = repository.name, from = entry.from, to = entry.to);
        let host = match (&entry.units, self.manager()) {
            (None, manager) => {
                if let Ok(manager) = manager {
                    commands::end_leftovers(manager.manager, &repository.name)?;
                }
                None
            }
            (Some(_), Ok(manager)) => {
                commands::end_leftovers(manager.manager, &repository.name)?;
                Some(Host::open(manager, self.config, self.store.folder.path())?)
            }
            (Some(_), Err(reason)) => return Err(Error::Refused(format!("units cannot be put back: {reason}"))),
        };
        // Where only the end of the journal was missing, the commit is live and stays.
        let live = self
            .store
            .deployed(repository)?
            .is_some_and(|deployed| deployed.commit == entry.to && deployed.at >= entry.started);
        if !live {
            let checkout = Checkout::find(repository)?;
            if !checkout.is_missing() {
                checkout.remove_stale_locks()?;
            }
            self.take_back(repository, &checkout, host.as_ref(), entry, true, outcome)?;
        }
        self.journal.end(repository).map_err(Into::into)
    }

    /// True where a deployment of the repository was cut off.
    pub fn is_interrupted(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.journal.interrupted(repository)?.is_some())
    }

    /// Lets git tidy mirror and checkout; for runs that nobody waits for.
    pub fn tidy(&self, repository: &Repository) {
        let tidied =
            Mirror::open(self.config, repository, &self.store.folder, self.mirror_user.get_or_init(mirror::user))
                .and_then(|mirror| mirror.tidy())
                .and_then(|()| Checkout::find(repository))
                .and_then(|checkout| if checkout.is_missing() { Ok(()) } else { checkout.tidy() });
        if let Err(error) = tidied {
            log::warn!("tidying_failed", repo = repository.name, error = error.to_string());
        }
    }
}
