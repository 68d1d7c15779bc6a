use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use super::checkout::Checkout;
use super::git::Change;
use super::journal::Journal;
use super::look::Look;
use super::mirror::{self, Mirror};
use super::store::Store;
use super::units::{self, Desired, Found, Host, Manager};
use super::{Error, Outcome, Status, describe};
use crate::command::{Account, Prepared};
use crate::config::{Config, Repository};
use crate::exit::Exit;
use crate::log;
use crate::records::short;

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

/// How a look at a repository ended, and why.
pub(super) type End = (Status, Option<String>);

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
pub(super) struct Plan<'a> {
    pub repository: &'a Repository,
    pub mirror: Mirror<'a>,
    pub checkout: Checkout<'a>,
    pub look: Look,
    pub transfer: Cell<Option<Prepared>>,
    /// The commit that is live, by the hub's own account.
    pub deployed: Option<String>,
    pub to: String,
    pub changes: Vec<Change>,
    /// What the `restart` rules look at where that is more: the code that runs may be older than the checkout, when somebody
    /// else has moved it.
    pub since_deployed: Option<Vec<Change>>,
    pub units: Option<(Host, units::Plan)>,
    pub lines: Vec<String>,
}

impl Plan<'_> {
    /// True where the commit is live already, by record and checkout.
    pub fn is_live(&self) -> bool {
        self.deployed.as_deref() == Some(&self.to) && self.look.head.as_deref() == Some(&self.to)
    }

    /// What the `restart` rules look at.
    pub fn code_changes(&self) -> &[Change] {
        self.since_deployed.as_deref().unwrap_or(&self.changes)
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
            && let Err(error) = self.store.set_checked(repository, outcome)
        {
            log::error!("state_not_written", repo = repository.name, error = error.to_string());
            if outcome.status.exit() == Exit::Done {
                outcome.status = Status::Failed;
                outcome.reason = Some(error.to_string());
            }
        }
        let is_open = matches!(outcome.status, Status::Refused | Status::Failed) && !self.dry_run;
        log::line!(
            if outcome.status.exit() == Exit::Done { log::Level::Info } else { log::Level::Error },
            word,
            repo = repository.name,
            from = outcome.from,
            to = outcome.to,
            reason = outcome.reason,
            units = outcome.not_deployed.as_ref().map(|reason| format!("not deployed: {reason}")),
            look_again = is_open.then(|| format!("hub deploy {}", repository.name)),
            duration_ms = outcome.duration_ms,
        );
    }

    /// What a look at the repository came to, and why; what it found on the way is noted in `outcome`.
    fn attempt(&self, repository: &Repository, outcome: &mut Outcome) -> Result<End, Error> {
        if let Some(end) = self.end_of_interrupted(repository, outcome)? {
            return Ok(end);
        }
        if let Some(end) = self.hold(repository)? {
            return Ok(end);
        }
        let fetched = self.fetch(repository, outcome)?;
        if let Some(end) = self.failed_before(repository, &fetched.to)? {
            return Ok(end);
        }
        if fetched.deployed.as_deref() != Some(&fetched.to) {
            fetched.mirror.verify(fetched.deployed.as_deref(), &fetched.to)?;
        }
        let plan = self.plan(repository, fetched, outcome)?;
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
            outcome.plan = describe::plan(&plan, outcome.not_deployed.as_deref())?;
            return Ok((Status::Planned, None));
        }
        self.deploy(&plan, outcome)
    }

    /// Takes back a deployment that was interrupted; an end where that failed, or where a dry run may not do it.
    fn end_of_interrupted(&self, repository: &Repository, outcome: &mut Outcome) -> Result<Option<End>, Error> {
        let Some(entry) = self.journal.interrupted(repository)? else { return Ok(None) };
        let to = short(&entry.to);
        if self.dry_run {
            let reason = format!("the deployment of {to} was interrupted; the next run undoes it first");
            return Ok(Some((Status::Planned, Some(reason))));
        }
        let Err(error) = self.recover(repository, &entry, outcome) else { return Ok(None) };
        let back = entry.from.as_deref().map_or("nothing", short);
        let reason = format!("the interrupted deployment of {to} cannot be taken back to {back}: {error}");
        Ok(Some((Status::RollbackFailed, Some(reason))))
    }

    /// The end of a repository that somebody holds.
    fn hold(&self, repository: &Repository) -> Result<Option<End>, Error> {
        let Some(hold) = self.store.hold(repository)? else { return Ok(None) };
        let why = hold.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let resume = format!("hub release {} resumes", repository.name);
        Ok(Some((Status::Held, Some(format!("held by {} since {}{why}; {resume}", hold.by, hold.since)))))
    }

    /// Fetches, and looks at the checkout meanwhile. What is fetched follows on what is deployed.
    fn fetch<'b>(&'b self, repository: &'b Repository, outcome: &mut Outcome) -> Result<Fetched<'b>, Error> {
        let checkout = Checkout::find(repository)?;
        if checkout.is_roots_unasked() {
            let effect = "git and the repository's commands run as root";
            let remedy = "create the system user hub, or write user = \"root\"";
            log::warn!("hub_user_missing", repo = repository.name, effect = effect, remedy = remedy);
        }
        let user = self.mirror_user.get_or_init(mirror::user_or_warn);
        let mirror = Mirror::open(self.config, repository, &self.store.folder, user)?;
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
        Ok(Fetched { mirror, checkout, look, transfer, deployed, to })
    }

    /// The end of a commit that failed before.
    fn failed_before(&self, repository: &Repository, to: &str) -> Result<Option<End>, Error> {
        let Some(bad) = self.store.bad(repository)?.filter(|bad| bad.commit == to) else { return Ok(None) };
        let reason = format!(
            "{} failed at {} ({}) and is not tried again until the branch moves, or: hub retry {}",
            short(to),
            bad.at,
            bad.reason,
            repository.name
        );
        if bad.refused {
            return Err(Error::Refused(reason));
        }
        Ok(Some((Status::RolledBack, Some(reason))))
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
            lines.push(format!("make the checkout {path} for user {}: there is none yet", checkout.user.name));
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
        let since_deployed = match &deployed {
            Some(old) if !repository.restart.is_empty() && *old != to && look.head.as_ref() != Some(old) => {
                Some(mirror.changes(Some(old), &to)?)
            }
            _ => None,
        };
        let transfer = Cell::new(transfer);
        Ok(Plan { repository, mirror, checkout, look, transfer, deployed, to, changes, since_deployed, units, lines })
    }

    /// Compares the commit's units with the host; none where the repository has neither units nor `restart` rules, or they
    /// are not for this host.
    fn plan_units(
        &self,
        repository: &Repository,
        mirror: &Mirror,
        to: &str,
        outcome: &mut Outcome,
    ) -> Result<Option<(Host, units::Plan)>, Error> {
        let has_folder = !repository.units.is_empty();
        let desired = if has_folder { Desired::read(mirror, to, &repository.units)? } else { Desired::default() };
        // What has a problem is there, and the refusal that follows says so.
        if desired.problems.is_empty() {
            outcome.not_there = self.adopt.iter().filter(|name| !desired.has(name)).cloned().collect();
        }
        let none = desired.files.is_empty() && desired.problems.is_empty();
        let had = has_folder && Host::has_units_of(&self.store.folder, &repository.name)?;
        if none && !had && repository.restart.is_empty() {
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
        if none && !had {
            return Ok(Some((host, units::Plan::default())));
        }
        let plan = host.plan(repository, to, desired, self.adopt)?;
        outcome.units = plan.lines.iter().filter(|line| line.action != units::Action::Keep).cloned().collect();
        Ok(Some((host, plan)))
    }

    pub fn manager(&self) -> Result<&Found, String> {
        self.manager.get_or_init(|| Manager::find(self.user_units)).as_ref().map_err(String::clone)
    }

    /// What runs the repository's own commands; none where no service manager is at hand.
    pub fn commands_manager(&self) -> Option<Manager> {
        self.manager().ok().map(|found| found.manager)
    }

    /// True where a deployment of the repository was cut off.
    pub fn is_interrupted(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.journal.interrupted(repository)?.is_some())
    }

    /// Lets git tidy mirror and checkout; for runs that nobody waits for.
    pub fn tidy(&self, repository: &Repository) {
        let tidied = Mirror::open(
            self.config,
            repository,
            &self.store.folder,
            self.mirror_user.get_or_init(mirror::user_or_warn),
        )
        .and_then(|mirror| mirror.tidy())
        .and_then(|()| Checkout::find(repository))
        .and_then(|checkout| if checkout.is_missing() { Ok(()) } else { checkout.tidy() });
        if let Err(error) = tidied {
            log::warn!("tidying_failed", repo = repository.name, error = error.to_string());
        }
    }
}
