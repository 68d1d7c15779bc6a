use std::time::Instant;

use super::checkout::Checkout;
use super::git::short;
use super::journal::{Entry, Journal, Step};
use super::look::Look;
use super::mirror::Mirror;
use super::store::Store;
use super::{Error, Outcome, Status, commands, probe};
use crate::command::{self, Account};
use crate::config::{Config, Repository};
use crate::log;
use crate::state::Folder;

/// What a run has open.
pub(super) struct Run<'a> {
    pub config: &'a Config,
    pub store: Store,
    pub journal: Journal,
    pub mirror_user: Account,
    pub dry_run: bool,
}

/// What was learnt before anything is changed.
struct Plan<'a> {
    repository: &'a Repository,
    mirror: Mirror<'a>,
    checkout: Checkout<'a>,
    look: Look,
    /// The commit that is live, by the hub's own account.
    deployed: Option<String>,
    to: String,
    lines: Vec<String>,
}

/// How a deployment ended, when nothing went wrong with the hub itself.
struct End {
    status: Status,
    reason: Option<String>,
    plan: Vec<String>,
}

impl End {
    fn new(status: Status, reason: Option<String>) -> Self {
        Self { status, reason, plan: Vec::new() }
    }
}

impl Run<'_> {
    /// Brings one repository in sync: fetch, verify, look, plan, journal, apply, probe, record or roll back.
    pub fn sync(&self, repository: &Repository) -> Outcome {
        let started = Instant::now();
        let mut outcome = Outcome {
            repository: repository.name.clone(),
            status: Status::Failed,
            from: None,
            to: None,
            reason: None,
            plan: Vec::new(),
            duration_ms: 0,
            retry: false,
        };
        match self.attempt(repository, &mut outcome) {
            Ok(end) => {
                outcome.status = end.status;
                outcome.reason = end.reason;
                outcome.plan = end.plan;
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
            if outcome.status.exit() == crate::exit::Exit::Done {
                outcome.status = Status::Failed;
                outcome.reason = Some(error.to_string());
            }
        }
        let level = match outcome.status.exit() {
            crate::exit::Exit::Done => log::Level::Info,
            _ => log::Level::Error,
        };
        log::line!(
            level,
            word,
            repo = repository.name,
            from = outcome.from,
            to = outcome.to,
            reason = outcome.reason,
            duration_ms = outcome.duration_ms,
        );
    }

    fn attempt(&self, repository: &Repository, outcome: &mut Outcome) -> Result<End, Error> {
        if let Some(entry) = self.journal.interrupted(repository)? {
            if self.dry_run {
                let reason =
                    format!("the deployment of {} was interrupted; the next run undoes it first", short(&entry.to));
                return Ok(End::new(Status::Planned, Some(reason)));
            }
            if let Err(error) = self.recover(repository, &entry) {
                let back = entry.from.as_deref().map_or("nothing", short);
                let reason = format!(
                    "the interrupted deployment of {} cannot be taken back to {back}: {error}",
                    short(&entry.to)
                );
                return Ok(End::new(Status::RollbackFailed, Some(reason)));
            }
        }
        if let Some(hold) = self.store.hold(repository)? {
            let why = hold.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            let reason =
                format!("held by {} since {}{why}; hub release {} resumes", hold.by, hold.since, repository.name);
            return Ok(End::new(Status::Held, Some(reason)));
        }
        let checkout = Checkout::find(repository)?;
        let mirror = Mirror::open(self.config, repository, &self.store.folder, &self.mirror_user)?;
        let deployed = self.store.deployed(repository)?.map(|deployed| deployed.commit);
        outcome.from.clone_from(&deployed);
        let to = mirror.fetch()?;
        outcome.to = Some(to.clone());
        if let Some(old) = &deployed
            && !mirror.is_ancestor(old, &to)?
        {
            return Err(Error::Refused(format!(
                "the branch {} was rewritten: {} does not follow on the deployed {}; push a commit that does, or, if the rewrite is wanted, move the checkout there by hand and run: hub retry {} --rewritten",
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
            return Ok(End::new(Status::RolledBack, Some(reason)));
        }
        if deployed.as_deref() != Some(&to) {
            mirror.verify(deployed.as_deref(), &to)?;
        }
        let plan = self.plan(repository, mirror, checkout, deployed, to)?;
        if outcome.from.is_none() {
            outcome.from.clone_from(&plan.look.head);
        }
        if plan.deployed.as_deref() == Some(&plan.to) && plan.look.head.as_deref() == Some(&plan.to) {
            return Ok(End::new(Status::Unchanged, None));
        }
        if self.dry_run {
            return Ok(End { status: Status::Planned, reason: None, plan: plan.lines });
        }
        self.deploy(&plan)
    }

    /// Looks at the checkout and says what would be done.
    fn plan<'a>(
        &self,
        repository: &'a Repository,
        mirror: Mirror<'a>,
        checkout: Checkout<'a>,
        deployed: Option<String>,
        to: String,
    ) -> Result<Plan<'a>, Error> {
        let mut lines = Vec::new();
        let path = repository.path.display();
        let missing = checkout.is_missing();
        let look = if missing {
            if checkout.is_occupied() {
                return Err(Error::Refused(format!("{path} is not empty and no git checkout; move its content away")));
            }
            lines.push(format!("make the checkout {path} for user {}", checkout.user.name));
            if !self.dry_run {
                checkout.make()?;
            }
            Look {
                branch: Some(repository.branch.clone()),
                upstream: Some(format!("origin/{}", repository.branch)),
                ..Look::default()
            }
        } else {
            checkout.look()?
        };
        if let Some(head) = &look.head
            && !mirror.is_ancestor(head, &to)?
        {
            return Err(Error::Refused(format!(
                "{path} has commits that the branch {} does not have ({}); push them, or drop them with: git -C {path} reset --hard {}",
                repository.branch,
                short(head),
                short(deployed.as_deref().unwrap_or(&to))
            )));
        }
        let changes =
            if look.head.as_deref() == Some(&to) { Vec::new() } else { mirror.changes(look.head.as_deref(), &to)? };
        if !missing {
            checkout.check(&look, &changes)?;
        }
        let shown = changes
            .iter()
            .take(20)
            .map(|change| format!("{} {}", char::from(change.kind), log::printable(&change.path)));
        lines.extend(shown);
        if changes.len() > 20 {
            lines.push(format!("and {} more files", changes.len() - 20));
        }
        for (step, argv) in [("build", &repository.build), ("after", &repository.after)] {
            if !argv.is_empty() {
                lines.push(format!("{step}: {}", argv.join(" ")));
            }
        }
        Ok(Plan { repository, mirror, checkout, look, deployed, to, lines })
    }

    /// Applies a plan, and takes it back when a step fails.
    fn deploy(&self, plan: &Plan) -> Result<End, Error> {
        let repository = plan.repository;
        let from = plan.look.head.as_deref();
        let mut entry = self.journal.begin(repository, from, &plan.to)?;
        let Err(error) = self.apply(plan, &mut entry) else {
            // git does not fsync the files of a checkout; after a power cut they must be as whole as the record says.
            Folder::open(&repository.path)?.sync_file_system()?;
            self.store.set_deployed(repository, &plan.to)?;
            self.journal.end(repository)?;
            return Ok(End::new(Status::Deployed, None));
        };
        log::error!("deployment_failed", repo = repository.name, commit = plan.to, error = error.to_string());
        match error {
            Error::Refused(_) | Error::InUse(_) => {
                self.journal.end(repository)?;
                return Err(error);
            }
            // Before anything else, so that the commit is not tried again whatever happens while it is taken back.
            Error::Step { .. } => self.store.set_bad(repository, &plan.to, &error.to_string())?,
            // The only error after which a git that was killed may have left its locks.
            Error::Command(command::Error::Deadline { .. }) => plan.checkout.remove_stale_locks()?,
            _ => {}
        }
        let undone = plan.checkout.undo(from, &plan.to).and_then(|()| {
            let good = from.filter(|_| plan.deployed.is_some());
            self.redo_good(repository, &plan.checkout, good, entry.step)
        });
        if let Err(cause) = undone {
            // The journal stays: the next run tries again to take it back.
            let reason = format!("{error}; going back to {} failed too: {cause}", from.map_or("nothing", short));
            return Ok(End::new(Status::RollbackFailed, Some(reason)));
        }
        let end = match error {
            Error::Step { .. } => {
                let back = from.map_or_else(|| "an empty checkout".to_owned(), |from| short(from).to_owned());
                Ok(End::new(Status::RolledBack, Some(format!("{error}; back on {back}"))))
            }
            // The commit is not to blame when git could not apply it here.
            error => Err(error),
        };
        self.journal.end(repository)?;
        end
    }

    fn apply(&self, plan: &Plan, entry: &mut Entry) -> Result<(), Error> {
        let (repository, checkout) = (plan.repository, &plan.checkout);
        let head = plan.look.head.as_deref();
        if head != Some(&plan.to) {
            checkout.fast_forward(plan.mirror.pack(head, &plan.to), &plan.look, &plan.to)?;
        }
        for (step, name, argv) in [(Step::Build, "build", &repository.build), (Step::After, "after", &repository.after)]
        {
            if !argv.is_empty() {
                self.journal.reach(repository, entry, step)?;
                commands::run(self.config, repository, checkout, name, &plan.to)?;
            }
        }
        if repository.health.url.is_some() {
            self.journal.reach(repository, entry, Step::Health)?;
            probe::wait_healthy(repository)?;
        }
        Ok(())
    }

    /// Runs again, for the last good commit, the commands that had succeeded for the failed one: what they made is of
    /// the failed commit.
    fn redo_good(
        &self,
        repository: &Repository,
        checkout: &Checkout,
        good: Option<&str>,
        failed: Step,
    ) -> Result<(), Error> {
        let Some(good) = good else { return Ok(()) };
        for (step, name) in [(Step::Build, "build"), (Step::After, "after")] {
            if step < failed {
                commands::run(self.config, repository, checkout, name, good)?;
            }
        }
        Ok(())
    }

    /// Undoes a deployment that was cut off.
    fn recover(&self, repository: &Repository, entry: &Entry) -> Result<(), Error> {
        let deployed = self.store.deployed(repository)?.map(|deployed| deployed.commit);
        let finished = deployed.as_deref() == Some(&entry.to) && entry.from.as_deref() != Some(&entry.to);
        if !finished {
            log::warn!("interrupted_deployment_undone", repo = repository.name, from = entry.from, to = entry.to);
            let checkout = Checkout::find(repository)?;
            if !checkout.is_missing() {
                checkout.remove_stale_locks()?;
                checkout.undo(entry.from.as_deref(), &entry.to)?;
                // A bad commit is not tried again, so nothing else will make what the good one had made.
                if self.store.bad(repository)?.is_some_and(|bad| bad.commit == entry.to) {
                    let good = entry.from.as_deref().filter(|_| deployed.is_some());
                    self.redo_good(repository, &checkout, good, entry.step)?;
                }
            }
        }
        self.journal.end(repository).map_err(Into::into)
    }

    /// True where a deployment of the repository was cut off.
    pub fn is_interrupted(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.journal.interrupted(repository)?.is_some())
    }

    /// Lets git tidy mirror and checkout; for runs that nobody waits for.
    pub fn tidy(&self, repository: &Repository) {
        let tidied = Mirror::open(self.config, repository, &self.store.folder, &self.mirror_user)
            .and_then(|mirror| mirror.tidy())
            .and_then(|()| Checkout::find(repository))
            .and_then(|checkout| if checkout.is_missing() { Ok(()) } else { checkout.tidy() });
        if let Err(error) = tidied {
            log::warn!("tidying_failed", repo = repository.name, error = error.to_string());
        }
    }
}
